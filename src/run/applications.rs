//! The applications of a run: checked, held one by one before the window, let go after it, told how it ended.
//!
//! In: the plan's hooks. Out: [`Applications`], which owns the sessions, and every outcome. Each hook is in the journal before it is
//! started, so that its release is owed whatever happens next. Must never: start a hook that the journal does not have.

use std::time::Duration;

use super::journal::Journal;
use super::step::Step;
use super::{Failure, Stage};
use crate::config::settings::{Hook, OnFailure, PlanSettings};
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plan::{Method, Plan};
use crate::quiesce::{self, HookEnv, HookOutcome, HookStatus, Live, Phase, RunResult, builtin::SetMount};

/// Beyond the sum of all limits, before a session lets go by itself.
const MARGIN: Duration = Duration::from_secs(30);

/// What is held for a run.
#[derive(Debug, Default)]
pub(super) struct Applications {
    live: Live,
    attempted: Vec<Hook>,
    /// Everything that ran, in order.
    pub outcomes: Vec<HookOutcome>,
}

/// What hooks are told before the outcome is known.
pub(super) fn hook_env<E>(stage: &Stage<'_, E>) -> HookEnv {
    let quiet = stage.plan.filesystems.iter();
    HookEnv {
        run_id: stage.run.clone(),
        plan: stage.plan.name.clone(),
        instance_id: stage.facts.identity.instance_id.clone(),
        region: stage.facts.identity.region.clone(),
        mounts: quiet.clone().map(|f| f.mount_point.clone()).collect(),
        volumes: stage.plan.volumes.iter().map(|v| v.id.clone()).collect(),
        result: RunResult::Unknown,
        consistency: None,
        snapshots: Vec::new(),
        not_mounted: Vec::new(),
        set: quiet.map(|f| SetMount { mount_point: f.mount_point.clone(), dev: f.dev }).collect(),
        hold_limit: hold_limit(stage.plan, stage.settings),
        frozen: false,
    }
}

/// The longest that a session can have to hold: everything between the first hook and the last release that has a limit.
fn hold_limit(plan: &Plan, settings: &PlanSettings) -> Duration {
    let hooks: Duration = settings.hooks.iter().map(|h| h.timeout * 2).sum();
    let unmounts = plan.filesystems.iter().any(|f| f.method == Method::Unmount);
    let away = if unmounts { settings.unmount_timeout * 2 } else { Duration::ZERO };
    // Flushed twice: before the watchdog and after it.
    hooks + away + settings.flush_timeout * 2 + settings.window + MARGIN
}

/// Asks every database whether it could be held.
///
/// # Errors
/// When one that the run may not go without could not. Nothing has been touched.
pub(super) async fn check<E>(stage: &Stage<'_, E>, env: &HookEnv) -> Result<(), Error> {
    quiesce::expand(&stage.settings.hooks).map_err(unreadable)?;
    for hook in &stage.settings.hooks {
        let Some(outcome) = quiesce::check(hook, env).await.filter(|o| !o.succeeded()) else { continue };
        if hook.on_failure == OnFailure::Degrade {
            tracing::warn!("{outcome}");
            continue;
        }
        let error = Error::new(Exit::Hook, outcome.to_string());
        let hint = "nothing was touched; with on_failure = \"degrade\" the set is taken at a lower label";
        return Err(error.hint(outcome.hint.unwrap_or_else(|| hint.to_owned())));
    }
    Ok(())
}

fn unreadable(what: String) -> Error {
    Error::new(Exit::Hook, what).hint("create it, or take the [[hook_directory]] out of the configuration")
}

/// Holds them in order.
pub(super) async fn quiesce<E>(
    stage: &Stage<'_, E>,
    journal: &mut Journal,
    env: &HookEnv,
    interrupt: &mut Interrupt,
    apps: &mut Applications,
) -> Result<(), Failure> {
    let hooks = quiesce::expand(&stage.settings.hooks).map_err(|e| Failure::new(Exit::Hook, e))?;
    for hook in hooks {
        if let Some(signal) = interrupt.pending() {
            return Err(Failure::by(signal));
        }
        let due = tokio::select! {
            due = quiesce::due(&hook, env) => due,
            signal = interrupt.caught() => return Err(Failure::by(signal)),
        };
        let outcome = match due {
            Ok(Some(hook)) => attempt(stage, journal, env, interrupt, apps, hook).await?,
            Ok(None) => {
                let nothing = HookStatus::NotRunning;
                HookOutcome::new(&hook.name, Phase::Pre, nothing, Duration::ZERO, String::new())
            }
            Err(outcome) => outcome,
        };
        let stop = quiesce::aborts(&hook, &outcome);
        let (said, hint) = (outcome.to_string(), outcome.hint.clone());
        apps.outcomes.push(outcome);
        if let Some(signal) = interrupt.pending() {
            return Err(Failure::by(signal));
        }
        if stop {
            let mut failure = Failure::new(Exit::Hook, said);
            failure.hint = Some(hint.unwrap_or_else(|| {
                "nothing was frozen and nothing was taken; the hooks attempted so far are released".to_owned()
            }));
            return Err(failure);
        }
    }
    Ok(())
}

/// Journals one and holds it.
async fn attempt<E>(
    stage: &Stage<'_, E>,
    journal: &mut Journal,
    env: &HookEnv,
    interrupt: &mut Interrupt,
    apps: &mut Applications,
    hook: Hook,
) -> Result<HookOutcome, Failure> {
    stage.at(Step::Attempt);
    let noted = journal.update(|state| {
        state.attempted.push(hook.clone());
        state.env = Some(env.clone());
    });
    if let Err(e) = noted {
        journal.state.attempted.pop(); // it will not be started: nothing is owed
        return Err(Failure::new(Exit::Hook, format!("cannot write the journal: {e}")));
    }
    apps.attempted.push(hook.clone());
    stage.at(Step::PreHook);
    tracing::info!(hook = hook.name, "pre hook");
    let cancelled = async {
        interrupt.caught().await;
    };
    let noted = |pid| journal.note_session(&hook.name, pid);
    Ok(quiesce::hold_noting(&hook, env, &mut apps.live, noted, cancelled).await)
}

/// Lets go of everything attempted, in reverse.
pub(super) async fn release<E>(
    stage: &Stage<'_, E>,
    journal: &mut Journal,
    env: &HookEnv,
    apps: &mut Applications,
) {
    apps.outcomes.extend(journal.release(env, &mut apps.live, |step| stage.at(step)).await);
}

/// The commands for the end of the run. What fails is a failure after the set.
pub(super) async fn finish(env: &HookEnv, apps: &Applications) -> Vec<HookOutcome> {
    let phase = match env.result {
        RunResult::Taken => Phase::Completed,
        RunResult::Failed => Phase::Failed,
        // A rehearsal is neither; what is not known cannot be told.
        RunResult::Rehearsed | RunResult::Unknown => return Vec::new(),
    };
    quiesce::finish(&apps.attempted, phase, env).await
}

/// Why the hooks vouch for nothing, if so.
pub(super) fn doubt(settings: &PlanSettings, outcomes: &[HookOutcome]) -> Option<String> {
    if settings.hooks.is_empty() {
        return Some("no hooks: nothing vouches for the applications".to_owned());
    }
    let failed = |h: &&HookOutcome| h.lost || (h.phase == Phase::Pre && !h.succeeded());
    outcomes.iter().find(failed).map(ToString::to_string)
}

/// What failed once the set was there, or was not to be.
pub(super) fn after(outcomes: &[HookOutcome]) -> Vec<String> {
    let late = |h: &&HookOutcome| h.phase != Phase::Pre && !h.succeeded();
    outcomes.iter().filter(late).map(ToString::to_string).collect()
}
