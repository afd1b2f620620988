//! `[[systemd]]`: units that are stopped and started again, or frozen and thawed.
//!
//! ```text
//! units ─→ narrow: those that run, and what a stop of them takes along
//!       ─→ journal ─→ stop | freeze … start | thaw
//! ```
//!
//! In: unit names. Out: outcomes of systemctl's commands. Must never: start a unit that was not active, thaw
//! one that was frozen before, or stop the unit that this run is in.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::path::{Path, PathBuf};

use super::environment::HookEnv;
use super::outcome::{HookOutcome, Phase};
use super::session_process::Session;
use super::systemctl::{Systemctl, is_active, systemctl};
use super::verbs::{Application, Narrowed, Verbs};
use crate::config::settings::{HookKind, SystemdHook, UnitMethod};
use crate::host::cgroup::Cgroups;

/// The properties that are asked of each unit: its state, and the units that stop with it or could start it
/// again.
const PROPERTIES: &str = "Id,LoadState,ActiveState,Transient,CanStart,CanStop,CanFreeze,FreezerState,RequiredBy,BoundBy,\
                          ConsistsOf,PropagatesStopTo,TriggeredBy,After";

/// systemd stops these along with the unit.
const STOPPED_ALONG: [&str; 4] = ["RequiredBy", "BoundBy", "ConsistsOf", "PropagatesStopTo"];

impl Verbs for SystemdHook {
    fn program(&self) -> Option<Result<PathBuf, (&'static str, String)>> {
        Some(systemctl().map(|found| found.0).map_err(|why| ("systemctl", why)))
    }

    /// The units that run now, and what would be stopped with them.
    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        let found = match self.method {
            UnitMethod::Stop => to_stop(self, app.env).await,
            UnitMethod::Freeze => to_freeze(self, app.env).await,
        };
        let found = found.and_then(|found| not_this_one(found, self.method));
        let found = found.map_err(|(why, hint)| app.refused(Phase::Pre, why, hint))?;
        for unit in found.iter().filter(|u| !self.units.contains(u)) {
            tracing::info!(
                hook = app.hook.name,
                "{unit} would be stopped along, or start it again: it is stopped too"
            );
        }
        if found.is_empty() {
            return Ok(Narrowed::Nothing);
        }
        Ok(Narrowed::Only(HookKind::Systemd(Self { units: found, method: self.method })))
    }

    async fn quiesce(
        &self,
        app: &Application<'_>,
        _noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        let outcome = match self.method {
            UnitMethod::Stop => call(app, Phase::Pre, "stop", for_stop(&self.units), cancel).await,
            UnitMethod::Freeze => call(app, Phase::Pre, "freeze", self.units.clone(), cancel).await,
        };
        (outcome, None)
    }

    async fn released_early(&self, app: &Application<'_>) -> Option<String> {
        released_early(self, app.env).await
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        let verb = match self.method {
            UnitMethod::Stop => "start",
            UnitMethod::Freeze => "thaw",
        };
        call(app, Phase::Post, verb, self.units.clone(), pending()).await
    }
}

/// The reason, and a hint.
type Refused = (String, Option<String>);

fn plain(why: String) -> Refused {
    (why, None)
}

/// The units that run and would be stopped along, or could start these again meanwhile.
async fn to_stop(units: &SystemdHook, env: &HookEnv) -> Result<Vec<String>, Refused> {
    let systemctl = systemctl().map_err(plain)?;
    let mut open: Vec<(String, bool)> = units.units.iter().rev().map(|u| (u.clone(), true)).collect();
    let (mut seen, mut running) = (BTreeSet::new(), Vec::<(String, String)>::new());
    while let Some((unit, named)) = open.pop() {
        if !seen.insert(unit.clone()) {
            continue;
        }
        let state = systemctl.show(&unit, PROPERTIES, env).await.map_err(plain)?;
        let is = |key: &str, value: &str| state.get(key).is_some_and(|v| v == value);
        if named && is("LoadState", "masked") {
            return Err(plain(format!("{unit} is masked: it could not be started again")));
        }
        if named && !is("LoadState", "loaded") {
            return Err(plain(format!("there is no unit {unit}")));
        }
        settled(&unit, &state)?;
        if !is_active(&state) && named {
            continue;
        }
        if is_active(&state) {
            let id = state.get("Id").filter(|id| !id.is_empty()).unwrap_or(&unit).clone();
            if is("Transient", "yes") {
                let hint = "quiesce it by method = \"freeze\", or by a hook of its own";
                return Err((format!("{id} is transient: once stopped it is gone"), Some(hint.to_owned())));
            }
            if is("CanStop", "no") || is("CanStart", "no") {
                return Err(plain(format!("{id} cannot be stopped and started by hand")));
            }
            // An alias is the same unit.
            seen.insert(id.clone());
            if !running.iter().any(|(known, _)| *known == id) {
                running.push((id, state.get("After").cloned().unwrap_or_default()));
            }
        }
        // Units that do not run are followed too: systemd passes a stop on through them.
        let along = STOPPED_ALONG.iter().chain(is_active(&state).then_some(&"TriggeredBy"));
        for next in along.filter_map(|key| state.get(*key)).flat_map(|names| names.split_whitespace()) {
            open.push((next.to_owned(), false));
        }
    }
    Ok(in_order(running))
}

/// What is just being stopped still writes, and is nothing that could be quiesced.
fn settled(unit: &str, state: &BTreeMap<String, String>) -> Result<(), Refused> {
    match state.get("ActiveState").map(String::as_str) {
        Some(going @ ("deactivating" | "maintenance")) => Err((
            format!("{unit} is {going}: it cannot be told what it will be"),
            Some("run again when it has settled".to_owned()),
        )),
        _ => Ok(()),
    }
}

/// Sorted for the start. The order matters because systemctl sends one request after another, and systemd
/// may start the first unit before the last request arrives.
fn in_order(mut units: Vec<(String, String)>) -> Vec<String> {
    let mut ordered = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let free = |(_, after): &(String, String)| {
            !after.split_whitespace().any(|a| units.iter().any(|(u, _)| u == a))
        };
        // Units that wait for each other in a circle keep their order; systemd decides.
        let next = units.iter().position(free).unwrap_or(0);
        ordered.push(units.remove(next).0);
    }
    ordered
}

/// Sorted for the stop: the reverse, but timers, sockets and paths come before the units that they would
/// start again.
fn for_stop(units: &[String]) -> Vec<String> {
    let mut which: Vec<String> = units.iter().rev().cloned().collect();
    which.sort_by_key(|unit| !triggers(unit));
    which
}

/// True for the types of units that can start another unit by themselves.
fn triggers(unit: &str) -> bool {
    [".socket", ".timer", ".path", ".automount"].iter().any(|kind| unit.ends_with(kind))
}

/// The units that run and are not frozen yet.
async fn to_freeze(units: &SystemdHook, env: &HookEnv) -> Result<Vec<String>, Refused> {
    let systemctl = systemctl().map_err(plain)?;
    let mut running = Vec::new();
    for unit in &units.units {
        let state = systemctl.show(unit, PROPERTIES, env).await.map_err(plain)?;
        let get = |key: &str| state.get(key).map_or("", String::as_str);
        if get("LoadState") != "loaded" {
            return Err(plain(format!("there is no unit {unit}")));
        }
        settled(unit, &state)?;
        if !is_active(&state) || matches!(get("FreezerState"), "frozen" | "freezing") {
            continue;
        }
        if get("CanFreeze") != "yes" {
            let hint = "it takes systemd 246, control groups v2, and a service, scope or slice; or use \
                method = \"stop\"";
            return Err((format!("{unit} cannot be frozen here"), Some(hint.to_owned())));
        }
        running.push(unit.clone());
    }
    Ok(running)
}

/// Refuses to stop or freeze the unit that this run is in.
fn not_this_one(units: Vec<String>, method: UnitMethod) -> Result<Vec<String>, Refused> {
    let own = Cgroups::read(Path::new("/"), "self").unwrap_or_default();
    match units.iter().find(|u| own.is_within(u)) {
        None => Ok(units),
        Some(unit) => {
            let verb = if method == UnitMethod::Stop { "stop" } else { "freeze" };
            let hint = "see `systemctl list-dependencies --reverse`: order stillpoint's unit by After=, not \
                by Requires= or PartOf=";
            Err((format!("{unit} is the unit this run is in: it would {verb} itself"), Some(hint.to_owned())))
        }
    }
}

/// Why they were not all quiesced until now, when it is so.
async fn released_early(units: &SystemdHook, env: &HookEnv) -> Option<String> {
    let systemctl = match systemctl() {
        Ok(systemctl) => systemctl,
        Err(why) => return Some(why),
    };
    for unit in &units.units {
        let state = match systemctl.show(unit, "ActiveState,FreezerState", env).await {
            Ok(state) => state,
            Err(why) => return Some(why),
        };
        let get = |key: &str| state.get(key).map_or("", String::as_str);
        match units.method {
            UnitMethod::Stop if !matches!(get("ActiveState"), "inactive" | "failed") => {
                return Some(format!("{unit} was {} before it was started again", get("ActiveState")));
            }
            UnitMethod::Freeze if get("FreezerState") != "frozen" => {
                return Some(format!("{unit} was {} before it was thawed", get("FreezerState")));
            }
            _ => {}
        }
    }
    None
}

/// All of them in one call, so that systemd does it side by side where it may.
async fn call(
    app: &Application<'_>,
    phase: Phase,
    verb: &str,
    units: Vec<String>,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let systemctl = match systemctl() {
        Ok(Systemctl(path)) => path.to_string_lossy().into_owned(),
        Err(why) => return app.refused(phase, why, None),
    };
    let argv: Vec<String> = [systemctl, verb.to_owned(), "--".to_owned()].into_iter().chain(units).collect();
    app.run(phase, &argv, cancel).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_started_after_what_they_come_after() {
        let of = |units: &[(&str, &str)]| {
            in_order(units.iter().map(|(u, a)| ((*u).to_owned(), (*a).to_owned())).collect())
        };
        let mixed =
            [("web", "app x"), ("app", "db x"), ("db.service", "db.socket"), ("db", "y"), ("db.socket", "")];
        assert_eq!(of(&mixed), ["db", "app", "web", "db.socket", "db.service"]);
        assert_eq!(of(&[("a", "b"), ("b", "a")]), ["a", "b"]);
        assert_eq!(for_stop(&of(&mixed)), ["db.socket", "db.service", "web", "app", "db"]);
    }
}
