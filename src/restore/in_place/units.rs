//! Units that an exchange stops before, and starts again.
//!
//! In: names of units. Out: the same units, stopped or started. Must never: start one that was not active, or stop one
//! before it is noted.

use std::time::Duration;

use super::super::make::Stopped;
use super::exchange::{Exchange, here};
use crate::config::settings::Hook;
use crate::ec2::volumes::Volumes;
use crate::quiesce::systemctl::{self, Systemctl};
use crate::quiesce::{self, HookEnv, Quiesced};

/// How long a unit may take to stop, or to start.
const UNIT: Duration = Duration::from_secs(300);

impl<E: Volumes> Exchange<'_, '_, E> {
    fn env(&self) -> HookEnv {
        let plan = &self.record.plan;
        HookEnv {
            instance_id: Some(self.instance.clone()),
            region: plan.region.clone(),
            mounts: plan.filesystems.iter().map(|f| f.source.clone()).collect(),
            volumes: self.old(),
            ..HookEnv::of(plan.id.clone(), "restore")
        }
    }

    /// Stops the units that are active; each is noted before.
    pub(super) async fn stop_units(&mut self) -> Result<(), Stopped> {
        let units = self.in_place.stop_units.clone();
        if units.is_empty() {
            return Ok(());
        }
        let systemctl = Systemctl::find().ok_or_else(|| here("there is no systemctl"))?;
        let env = self.env();
        for unit in units {
            let state = systemctl.show(&unit, "ActiveState", &env).await.map_err(here)?;
            if !systemctl::is_active(&state) {
                continue;
            }
            let hook = systemctl.hook(&unit, UNIT);
            if !self.record.moving.stopped.iter().any(|h: &Hook| h.name == hook.name) {
                self.record.moving.stopped.push(hook.clone());
                self.write()?;
            }
            let outcome =
                quiesce::quiesce_one(&hook, &env, &mut Quiesced::default(), std::future::pending()).await;
            if !outcome.succeeded() {
                return Err(here(outcome));
            }
            (self.waiting.tell)(&format!("{unit} is stopped"));
        }
        Ok(())
    }

    /// Starts what was stopped, in reverse.
    pub(super) async fn start_units(&mut self) {
        let stopped = std::mem::take(&mut self.record.moving.stopped);
        for outcome in quiesce::release(&stopped, &self.env()).await {
            if !outcome.succeeded() {
                (self.waiting.tell)(&format!("{outcome}: start it by hand"));
                self.unstarted.push(outcome.to_string());
            }
        }
    }
}
