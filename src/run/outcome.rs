//! From what happened to what is reported: evidence, record, exit code.
//!
//! In: the window's results and the hooks'. Out: [`Outcome`]. Must never: touch the host or EC2.

use super::applications;
use super::settle;
use super::verdict::{self, Evidence};
use super::{Outcome, Stage, Window};
use crate::config::settings::{OnDegraded, PlanSettings};
use crate::exit::Exit;
use crate::plan::Consistency;
use crate::quiesce::HookOutcome;
use crate::sets::record::{self, SetRecord};
use crate::window::Times;

pub(super) fn evidence<E>(stage: &Stage<'_, E>, window: &Window, hooks: &[HookOutcome]) -> Evidence {
    let doubt = match (&window.failure, &window.thawed) {
        (Some(failure), _) => Some(failure.reason.clone()),
        (None, Some(thawed)) => thawed.doubt(),
        (None, None) => Some("there was no window".to_owned()),
    };
    let hooks = applications::doubt(stage.settings, hooks);
    Evidence { doubt, hooks }
}

pub(super) fn describe<E>(
    stage: &Stage<'_, E>,
    requested: Consistency,
    window: Window,
    verdict: verdict::Verdict,
    hooks: Vec<HookOutcome>,
) -> Outcome {
    let thawed = window.thawed.unwrap_or_default();
    let taken = !window.made.is_empty();
    let achieved = taken.then_some(verdict.achieved);
    let failure = window.failure;
    let lower = achieved.is_none_or(|c| c < requested);
    let after = applications::after(&hooks);
    let cap = if verdict.doubtful { Consistency::Crash } else { stage.plan.best };
    let why = verdict.reason.as_deref().unwrap_or("see `plan`");
    let applications = applications::records(stage.settings, &hooks, taken.then_some((cap, why)));
    let exit_code = match &failure {
        Some(failure) => failure.exit.code(),
        None if !verdict.missing.is_empty() => Exit::Ec2.code(),
        None => Exit::Ok.code(),
    };
    Outcome {
        hint: failure.as_ref().and_then(|f| f.hint.clone()),
        signal: failure.as_ref().and_then(|f| f.signal),
        record: SetRecord {
            version: record::VERSION,
            run_id: stage.run.clone(),
            identity: stage.facts.identity.clone(),
            hostname: stage.facts.hostname.clone(),
            requested,
            achieved,
            reason: failure.map(|f| f.reason).or(verdict.reason.filter(|_| lower)),
            snapshots: verdict.snapshots,
            times: if thawed.length.is_zero() { Times::default() } else { thawed.times },
            window_ms: thawed.length.as_secs_f64() * 1e3,
            call_ms: window.call.map(|c| c.as_secs_f64() * 1e3),
            still_frozen: thawed.still_frozen,
            not_mounted: Vec::new(),
            applications,
            hooks,
            after,
            plan: stage.plan.clone(),
            exit_code,
        },
    }
}

/// The exit code, from the worst down.
pub(super) fn exit(settings: &PlanSettings, ended: &Outcome) -> Exit {
    let record = &ended.record;
    let failed = Exit::ALL.into_iter().find(|e| e.code() == record.exit_code).unwrap_or(Exit::Bug);
    if !record.still_frozen.is_empty() {
        return Exit::StillFrozen;
    }
    if !record.not_mounted.is_empty() {
        return Exit::NotMounted;
    }
    match record.achieved {
        _ if !matches!(failed, Exit::Ok | Exit::Lower | Exit::After | Exit::NotHeld) => failed,
        None => failed,
        Some(reached) if reached < record.requested && settings.on_degraded == OnDegraded::Fail => {
            Exit::NotHeld
        }
        Some(_) if failed == Exit::NotHeld => failed,
        Some(_) if !record.after.is_empty() => Exit::After,
        Some(reached) if reached < record.requested => Exit::Lower,
        Some(_) => Exit::Ok,
    }
}

/// Has everything that the journal could be needed for been done?
pub(super) fn settled(ended: &Outcome) -> bool {
    !ended.record.after.iter().any(|a| a.starts_with(settle::UNLABELLED))
}
