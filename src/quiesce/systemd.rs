//! systemd units that are stopped or frozen for a while: around the window, and around an unmount.
//!
//! ```text
//! units ─→ due: those that run, and what a stop of them takes along ─→ journal ─→ stop | freeze … start | thaw
//! ```
//!
//! In: unit names. Out: [`Hook`]s, so that a stop that was attempted is owed its start like any post command, and what systemctl says
//! of a unit. Must never: start a unit that was not active, thaw one that was frozen before, or stop the unit that this run is in.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::query::{program, query};
use super::{HookEnv, HookOutcome, HookStatus, Phase, run};
use crate::config::settings::{CommandHook, Hook, HookKind, OnFailure, SystemdHook, UnitMethod};

/// The program, by its absolute path: what is in the journal must not depend on who reads it.
#[derive(Debug, Clone)]
pub struct Systemctl(PathBuf);

/// Is systemd this host's service manager? As sd_booted(3) tells.
#[must_use]
pub fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Systemctl {
    /// The one in PATH.
    #[must_use]
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let mut places =
            std::env::split_paths(&path).filter(|p| p.is_absolute()).map(|p| p.join("systemctl"));
        places.find(|p| super::executable(p).is_ok()).map(Self)
    }

    /// Stop as the pre command, start as the post command.
    #[must_use]
    pub fn hook(&self, unit: &str, timeout: Duration) -> Hook {
        let argv =
            |verb: &str| Some(vec![self.0.to_string_lossy().into_owned(), verb.to_owned(), unit.to_owned()]);
        Hook {
            name: format!("unit {unit}"),
            kind: HookKind::Hook(CommandHook {
                pre: argv("stop"),
                post: argv("start"),
                ..CommandHook::default()
            }),
            timeout,
            on_failure: OnFailure::Abort,
        }
    }

    /// Properties of a unit.
    ///
    /// # Errors
    /// When systemctl fails, in its words.
    pub async fn show(
        &self,
        unit: &str,
        properties: &str,
        env: &HookEnv,
    ) -> Result<BTreeMap<String, String>, String> {
        let said = query(&self.0, &["show", "--property", properties, "--", unit], env).await;
        said.map(|said| read(&said)).map_err(|why| format!("systemctl does not say what {unit} is: {why}"))
    }
}

/// What is asked of each unit: how it is, and what a stop of it would stop or bring back.
const PROPERTIES: &str = "Id,LoadState,ActiveState,Transient,CanStart,CanStop,CanFreeze,FreezerState,RequiredBy,BoundBy,\
                          ConsistsOf,PropagatesStopTo,TriggeredBy,After";

/// systemd stops these along with the unit.
const STOPPED_ALONG: [&str; 4] = ["RequiredBy", "BoundBy", "ConsistsOf", "PropagatesStopTo"];

fn systemctl() -> Result<Systemctl, String> {
    program("systemctl").map(Systemctl)
}

/// The units that run now, and what would be stopped with them; none when none does.
pub(super) async fn due(
    hook: &Hook,
    units: &SystemdHook,
    env: &HookEnv,
) -> Result<Option<Hook>, HookOutcome> {
    let refused = |(why, hint): Refused| HookOutcome {
        hint,
        ..HookOutcome::new(&hook.name, Phase::Pre, HookStatus::Refused(why), Duration::ZERO, String::new())
    };
    let found = match units.method {
        UnitMethod::Stop => to_stop(units, env).await,
        UnitMethod::Freeze => to_freeze(units, env).await,
    };
    let found = found.and_then(|found| not_this_one(found, units.method)).map_err(refused)?;
    for unit in found.iter().filter(|u| !units.units.contains(u)) {
        tracing::info!(
            hook = hook.name,
            "{unit} would be stopped along, or start it again: it is stopped too"
        );
    }
    let kind = HookKind::Systemd(SystemdHook { units: found.clone(), method: units.method });
    Ok((!found.is_empty()).then(|| Hook { kind, ..hook.clone() }))
}

/// Why, and what to do about it.
type Refused = (String, Option<String>);

fn plain(why: String) -> Refused {
    (why, None)
}

/// Everything that runs and would be stopped, or could start it again meanwhile.
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
                let hint = "hold it by method = \"freeze\", or by a hook of its own";
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
        // What does not run passes a stop on all the same.
        let along = STOPPED_ALONG.iter().chain(is_active(&state).then_some(&"TriggeredBy"));
        for next in along.filter_map(|key| state.get(*key)).flat_map(|names| names.split_whitespace()) {
            open.push((next.to_owned(), false));
        }
    }
    Ok(in_order(running))
}

/// What is just being stopped still writes, and is nothing that could be held.
fn settled(unit: &str, state: &BTreeMap<String, String>) -> Result<(), Refused> {
    match state.get("ActiveState").map(String::as_str) {
        Some(going @ ("deactivating" | "maintenance")) => Err((
            format!("{unit} is {going}: it cannot be told what it will be"),
            Some("run again when it has settled".to_owned()),
        )),
        _ => Ok(()),
    }
}

/// In the order in which they are started: systemctl asks for one after another, and systemd may begin with the first before it has heard
/// of the last.
fn in_order(mut units: Vec<(String, String)>) -> Vec<String> {
    let mut ordered = Vec::with_capacity(units.len());
    while !units.is_empty() {
        let free = |(_, after): &(String, String)| {
            !after.split_whitespace().any(|a| units.iter().any(|(u, _)| u == a))
        };
        // Where they wait for each other, in a circle, systemd decides.
        let next = units.iter().position(free).unwrap_or(0);
        ordered.push(units.remove(next).0);
    }
    ordered
}

/// The other way round; but what triggers others goes before what it would start again.
fn for_stop(units: &[String]) -> Vec<String> {
    let mut which: Vec<String> = units.iter().rev().cloned().collect();
    which.sort_by_key(|unit| !triggers(unit));
    which
}

/// Could it start another unit by itself?
fn triggers(unit: &str) -> bool {
    [".socket", ".timer", ".path", ".automount"].iter().any(|kind| unit.ends_with(kind))
}

/// Those that run and are not frozen yet.
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
            let hint = "it takes systemd 246, control groups v2, and a service, scope or slice; or use method = \"stop\"";
            return Err((format!("{unit} cannot be frozen here"), Some(hint.to_owned())));
        }
        running.push(unit.clone());
    }
    Ok(running)
}

/// The run must not stop itself.
fn not_this_one(units: Vec<String>, method: UnitMethod) -> Result<Vec<String>, Refused> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: Vec<&str> = own.split(['/', '\n']).collect();
    match units.iter().find(|u| own.contains(&u.as_str())) {
        None => Ok(units),
        Some(unit) => {
            let verb = if method == UnitMethod::Stop { "stop" } else { "freeze" };
            let hint = "see `systemctl list-dependencies --reverse`: order stillpoint's unit by After=, not by Requires= or PartOf=";
            Err((format!("{unit} is the unit this run is in: it would {verb} itself"), Some(hint.to_owned())))
        }
    }
}

/// Why they were not all held until now, when it is so.
pub(super) async fn released_early(units: &SystemdHook, env: &HookEnv) -> Option<String> {
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

/// Stops or freezes them, or lets them go on: all in one call, so that systemd does it side by side where it may.
pub(super) async fn call(
    hook: &Hook,
    units: &SystemdHook,
    phase: Phase,
    env: &HookEnv,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let systemctl = match systemctl() {
        Ok(Systemctl(path)) => path.to_string_lossy().into_owned(),
        Err(why) => {
            let status = HookStatus::Refused(why);
            return HookOutcome::new(&hook.name, phase, status, Duration::ZERO, String::new());
        }
    };
    let verb = match (units.method, phase) {
        (UnitMethod::Stop, Phase::Pre) => "stop",
        (UnitMethod::Stop, _) => "start",
        (UnitMethod::Freeze, Phase::Pre) => "freeze",
        (UnitMethod::Freeze, _) => "thaw",
    };
    let which = if verb == "stop" { for_stop(&units.units) } else { units.units.clone() };
    let argv: Vec<String> = [systemctl, verb.to_owned(), "--".to_owned()].into_iter().chain(which).collect();
    run(hook, phase, &argv, env, cancel).await
}

fn read(output: &str) -> BTreeMap<String, String> {
    output.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Would a unit with these properties be running now, had nobody stopped it?
#[must_use]
pub fn is_active(properties: &BTreeMap<String, String>) -> bool {
    let state = properties.get("ActiveState").map(String::as_str);
    matches!(state, Some("active" | "activating" | "reloading" | "refreshing"))
}

/// The name of the mount or automount unit of a path, as `systemd-escape --path` makes it.
#[must_use]
pub fn named_after(path: &Path, kind: &str) -> String {
    let mut name = String::new();
    let text = path.as_os_str().as_bytes();
    let parts: Vec<&[u8]> = text.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
    for (i, byte) in parts.join(&b'/').iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if i == 0 => name.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.') => name.push(char::from(*b)),
            b => name.push_str(&format!("\\x{b:02x}")),
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    format!("{name}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_systemd_escape_does() {
        // Each as `systemd-escape --path --suffix=mount` prints it (systemd 252).
        for (path, name) in [
            ("/", "-.mount"),
            ("/data", "data.mount"),
            ("//srv//my-data/", r"srv-my\x2ddata.mount"),
            ("/.hidden/a.b", r"\x2ehidden-a.b.mount"),
            ("/mnt/é x", r"mnt-\xc3\xa9\x20x.mount"),
        ] {
            assert_eq!(named_after(Path::new(path), "mount"), name);
        }
    }

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

    #[test]
    fn only_what_runs_is_started_again() {
        let of = |text: &str| is_active(&read(text));
        assert!(of("LoadState=loaded\nActiveState=active\n") && of("ActiveState=activating"));
        assert!(!of("ActiveState=inactive") && !of("ActiveState=failed") && !of("ActiveState=deactivating"));
        assert!(!of(""));
    }
}
