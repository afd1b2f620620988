//! Units that an exchange stops before, and starts again.
//!
//! In: names of units. Out: the same units, with what systemd stops along and what would start them in between (timers,
//! sockets, paths), stopped and masked, or unmasked and started. Must never: start one that was not active, or stop one
//! before it is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::make::Stopped;
use super::exchange::{Exchange, here};
use crate::config::settings::{Hook, HookKind, OnFailure, SystemdHook, UnitMethod};
use crate::ec2::volumes::Volumes;
use crate::host::process;
use crate::ids::RunId;
use crate::quiesce::systemctl::{self, Systemctl};
use crate::quiesce::{self, HookEnv, Quiesced};

/// How long a unit may take to stop, or to start.
const UNIT: Duration = Duration::from_secs(300);

/// What stops a unit, as far as it runs, and starts that again; none where nothing of it does. What would start it is
/// stopped also where it does not run now: a timer or a socket would start it on an empty folder.
async fn due(systemctl: &Systemctl, unit: &str, env: &HookEnv) -> Result<Option<Hook>, String> {
    let state = systemctl.show(unit, "TriggeredBy", env).await?;
    let mut units = vec![unit.to_owned()];
    for trigger in state.get("TriggeredBy").iter().flat_map(|names| names.split_whitespace()) {
        if systemctl::is_active(&systemctl.show(trigger, "ActiveState", env).await?) {
            units.push(trigger.to_owned());
        }
    }
    let hook = Hook {
        name: format!("unit {unit}"),
        kind: HookKind::Systemd(SystemdHook { units, method: UnitMethod::Stop }),
        timeout: UNIT,
        on_failure: OnFailure::Abort,
    };
    quiesce::due(&hook, env).await.map_err(|outcome| outcome.to_string())
}

fn units_of(hook: &Hook) -> &[String] {
    if let HookKind::Systemd(SystemdHook { units, .. }) = &hook.kind { units } else { &[] }
}

/// All units that would be stopped for these.
///
/// # Errors
/// Which of them cannot be, and why.
pub async fn stopped_for(id: &RunId, units: &[String]) -> Result<BTreeSet<String>, String> {
    let mut all = BTreeSet::new();
    if !units.is_empty() {
        let systemctl = Systemctl::find().ok_or("there is no systemctl")?;
        let env = HookEnv::of(id.clone(), "restore");
        for unit in units {
            all.extend(due(&systemctl, unit, &env).await?.iter().flat_map(units_of).cloned());
        }
    }
    Ok(all)
}

/// Those of these units that are masked and do not run, by this restore or by somebody else: there is nothing of them to
/// stop, and nothing starts them.
///
/// # Errors
/// When systemctl does not say.
pub async fn resting(id: &RunId, units: &[String]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    if !units.is_empty() {
        let systemctl = Systemctl::find().ok_or("there is no systemctl")?;
        let env = HookEnv::of(id.clone(), "restore");
        for unit in units {
            if rests(&systemctl.show(unit, STATE, &env).await?) {
                found.insert(unit.clone());
            }
        }
    }
    Ok(found)
}

const STATE: &str = "LoadState,ActiveState";

fn rests(state: &BTreeMap<String, String>) -> bool {
    state.get("LoadState").is_some_and(|s| s == "masked") && !systemctl::is_active(state)
}

/// So often a unit is stopped that something starts before it is masked.
const TRIES: usize = 3;

impl<E: Volumes> Exchange<'_, '_, E> {
    pub(super) fn env(&self) -> HookEnv {
        let plan = &self.record.plan;
        HookEnv {
            instance_id: Some(self.instance.clone()),
            region: plan.region.clone(),
            mounts: plan.filesystems.iter().map(|f| f.source.clone()).collect(),
            volumes: self.old(),
            ..HookEnv::of(plan.id.clone(), "restore")
        }
    }

    /// Stops the units that are active; each is noted before. Then nothing starts them.
    pub(super) async fn stop_units(&mut self) -> Result<(), Stopped> {
        let units = self.in_place.stop_units.clone();
        if units.is_empty() {
            return Ok(());
        }
        let systemctl = Systemctl::find().ok_or_else(|| here("there is no systemctl"))?;
        let env = self.env();
        for _ in 0..TRIES {
            self.unmask_what_runs(&systemctl, &env).await?;
            self.stop_these(&systemctl, &units, &env).await?;
            let mut all = units.clone();
            all.extend(self.record.moving.stopped.iter().flat_map(units_of).cloned());
            let known: BTreeSet<String> = all.into_iter().collect();
            let all: Vec<String> = known.into_iter().collect();
            self.mask(&all).await;
            let mut running = Vec::new();
            for unit in &all {
                if systemctl::is_active(&systemctl.show(unit, "ActiveState", &env).await.map_err(here)?) {
                    running.push(unit.clone());
                }
            }
            if running.is_empty() {
                return Ok(());
            }
            (self.waiting.tell)(&format!("{} was started again, and is stopped again", running.join(", ")));
        }
        Err(here(format!("{} is started again, {TRIES} times: end what starts it", units.join(", "))))
    }

    /// What runs although it is masked has to be stopped as it wants to be, and of a masked unit systemd does not know how.
    /// What does not run stays masked: of a process that was killed, what was unmounted may not be mounted again yet.
    async fn unmask_what_runs(&mut self, systemctl: &Systemctl, env: &HookEnv) -> Result<(), Stopped> {
        let masked = &self.record.moving.masked;
        let mut due = masked.boot != process::boot(self.on.root);
        for unit in &masked.units {
            due |= systemctl::is_active(&systemctl.show(unit, "ActiveState", env).await.map_err(here)?);
        }
        if due {
            self.unmask().await;
        }
        Ok(())
    }

    async fn stop_these(
        &mut self,
        systemctl: &Systemctl,
        units: &[String],
        env: &HookEnv,
    ) -> Result<(), Stopped> {
        for unit in units {
            if rests(&systemctl.show(unit, STATE, env).await.map_err(here)?) {
                continue;
            }
            let Some(hook) = due(systemctl, unit, env).await.map_err(here)? else { continue };
            if !self.record.moving.stopped.contains(&hook) {
                self.record.moving.stopped.push(hook.clone());
                self.write()?;
            }
            let outcome =
                quiesce::quiesce_one(&hook, env, &mut Quiesced::default(), std::future::pending()).await;
            if !outcome.succeeded() {
                return Err(here(outcome));
            }
            units_of(&hook).iter().for_each(|unit| (self.waiting.tell)(&format!("{unit} is stopped")));
        }
        Ok(())
    }

    /// What something has started in between has the folders below the mounts open: it is stopped once more.
    pub(super) async fn stop_again(&mut self) {
        self.unmask().await;
        let env = self.env();
        for hook in &self.record.moving.stopped {
            let Ok(Some(running)) = quiesce::due(hook, &env).await else { continue };
            (self.waiting.tell)(&format!(
                "{} ran again before everything was mounted, and is stopped once more: what it wrote is in the folders \
                 below",
                units_of(&running).join(", ")
            ));
            let pending = std::future::pending();
            let outcome = quiesce::quiesce_one(&running, &env, &mut Quiesced::default(), pending).await;
            if !outcome.succeeded() {
                (self.waiting.tell)(&outcome.to_string());
            }
        }
    }

    /// Starts what was stopped, in reverse.
    pub(super) async fn start_units(&mut self) {
        self.unmask().await;
        let stopped = std::mem::take(&mut self.record.moving.stopped);
        for outcome in quiesce::release(&stopped, &self.env()).await {
            if !outcome.succeeded() {
                (self.waiting.tell)(&format!("{outcome}: start it by hand"));
                self.unstarted.push(outcome.to_string());
            }
        }
    }
}
