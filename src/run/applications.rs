//! The applications of a run: checked, quiesced one by one before the window, released after it, and informed
//! of how the run ended.
//!
//! In: the plan's hooks. Out: [`Applications`], which owns the sessions, and every outcome. Each hook is
//! written to the journal before it is started, so that it is released even if this process dies. Must never:
//! start a hook that the journal does not have.

use std::time::Duration;

use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::journal::Journal;
use super::step::Step;
use crate::config::settings::{Hook, OnFailure, PlanSettings};
use crate::discover::Facts;
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::plan::{Consistency, Method, Plan};
use crate::quiesce::{self, HookEnv, HookOutcome, HookStatus, Phase, Quiesced, RunResult, SetMount};
use crate::sets::record::ApplicationRecord;
use crate::unmount::REMOUNT_LIMIT;

/// Time that a session gets beyond the sum of all limits before it releases by itself: warming connections
/// and querying units and containers have no limit of their own in that sum.
const MARGIN: Duration = Duration::from_secs(120);

/// The applications of one run.
#[derive(Debug)]
pub(super) struct Applications {
    pub env: HookEnv,
    /// Sessions that keep their application quiesced.
    pub(crate) quiesced: Quiesced,
    pub(super) attempted: Vec<Hook>,
    /// Each command that ran so far, in order, releases included.
    pub outcomes: Vec<HookOutcome>,
}

impl Applications {
    /// Nothing is quiesced yet. `window` is the longest that everything may stay frozen.
    pub fn new(job: &Job<'_>, window: Duration) -> Self {
        let mut env = env(&job.run, job.facts, job.plan, job.settings);
        env.quiesce_limit += window.saturating_sub(job.settings.window);
        Self { env, quiesced: Quiesced::default(), attempted: Vec::new(), outcomes: Vec::new() }
    }
}

/// The environment that hooks get while the run's outcome is not known.
#[must_use]
pub fn env(run: &RunId, facts: &Facts, plan: &Plan, settings: &PlanSettings) -> HookEnv {
    let filesystems = plan.filesystems.iter();
    HookEnv {
        run_id: run.clone(),
        plan: plan.name.clone(),
        instance_id: Some(facts.identity.instance_id.clone()),
        region: facts.identity.region.clone(),
        mounts: filesystems.clone().map(|f| f.mount_point.clone()).collect(),
        volumes: plan.volumes.iter().map(|v| v.id.clone()).collect(),
        result: RunResult::Unknown,
        consistency: None,
        snapshots: Vec::new(),
        not_mounted: Vec::new(),
        set: filesystems.map(|f| SetMount { mount_point: f.mount_point.clone(), dev: f.dev }).collect(),
        quiesce_limit: quiesce_limit(plan, settings),
        frozen: false,
        reason: None,
    }
}

/// The longest that a session may have to keep its application quiesced: the sum of all limits between the
/// first hook and the last release.
fn quiesce_limit(plan: &Plan, settings: &PlanSettings) -> Duration {
    let hooks = quiesce::expand(&settings.hooks).unwrap_or_else(|_| settings.hooks.clone());
    // A session is waited for at most four times its timeout, a command twice: before the window and after
    // it.
    let hooks: Duration = hooks.iter().map(|h| h.timeout * if h.is_session() { 4 } else { 2 }).sum();
    let unmounts = plan.filesystems.iter().any(|f| f.method == Method::Unmount);
    let away = if unmounts { settings.unmount_timeout * 2 + REMOUNT_LIMIT } else { Duration::ZERO };
    hooks + away + settings.flush_timeout + settings.window + MARGIN
}

/// Checks every database: could it be quiesced?
///
/// # Errors
/// When one could not, and its `on_failure` does not allow that. Nothing has been touched.
pub(super) async fn check(job: &Job<'_>, interrupt: &mut Interrupt) -> Result<(), Error> {
    quiesce::expand(&job.settings.hooks).map_err(unreadable)?;
    let env = env(&job.run, job.facts, job.plan, job.settings);
    for hook in &job.settings.hooks {
        let checked = tokio::select! {
            checked = quiesce::check(hook, &env) => checked,
            signal = interrupt.caught() => return Err(Error::interrupted(signal)),
        };
        let Some(outcome) = checked.filter(|o| !o.succeeded()) else { continue };
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

/// Quiesces the plan's applications in the order of the configuration. Stops at the first failure that its
/// `on_failure` does not allow; what was attempted until then is in the journal.
pub(super) async fn quiesce<E>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    apps: &mut Applications,
    journal: &mut Journal,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let hooks = quiesce::expand(&job.settings.hooks).map_err(|e| Failure::new(Exit::Hook, e))?;
    for hook in hooks {
        if let Some(signal) = interrupt.pending() {
            return Err(Failure::interrupted(signal));
        }
        let due = tokio::select! {
            due = quiesce::due(&hook, &apps.env) => due,
            signal = interrupt.caught() => return Err(Failure::interrupted(signal)),
        };
        let outcome = match due {
            Ok(Some(hook)) => attempt(env, apps, journal, interrupt, hook).await?,
            Ok(None) => {
                let nothing = HookStatus::NotRunning;
                HookOutcome::new(&hook.name, Phase::Pre, nothing, Duration::ZERO, String::new())
            }
            Err(outcome) => outcome,
        };
        let stop = quiesce::aborts(&hook, &outcome);
        let (text, hint) = (outcome.to_string(), outcome.hint.clone());
        apps.outcomes.push(outcome);
        if let Some(signal) = interrupt.pending() {
            return Err(Failure::interrupted(signal));
        }
        if stop {
            return Err(Failure::new(Exit::Hook, text).hint(hint.unwrap_or_else(|| {
                "nothing was frozen and nothing was taken; the hooks attempted so far are released".to_owned()
            })));
        }
    }
    Ok(())
}

/// Writes one hook to the journal, then runs it.
async fn attempt<E>(
    env: &Environment<'_, E>,
    apps: &mut Applications,
    journal: &mut Journal,
    interrupt: &mut Interrupt,
    hook: Hook,
) -> Result<HookOutcome, Failure> {
    env.at(Step::Attempt);
    let noted = journal.update(|state| {
        state.attempted.push(hook.clone());
        state.env = Some(apps.env.clone());
    });
    if let Err(e) = noted {
        journal.state.attempted.pop(); // it will not be started: nothing is owed
        return Err(Failure { exit: Exit::Hook, ..Failure::no_journal(&e) });
    }
    apps.attempted.push(hook.clone());
    env.at(Step::PreHook);
    tracing::info!(hook = hook.name, "pre hook");
    let cancelled = async {
        interrupt.caught().await;
    };
    let noted = |pid| journal.note_session(&hook.name, pid);
    Ok(quiesce::quiesce_one_noting(&hook, &apps.env, &mut apps.quiesced, noted, cancelled).await)
}

/// Runs the `completed` commands of what was quiesced, or the `failed` commands of all. Their failures count as
/// failures after the set.
pub(super) async fn finish(job: &Job<'_>, apps: &Applications) -> Vec<HookOutcome> {
    match apps.env.result {
        RunResult::Taken => quiesce::finish(&apps.attempted, Phase::Completed, &apps.env).await,
        RunResult::Failed => quiesce::finish(&job.settings.hooks, Phase::Failed, &apps.env).await,
        // A rehearsal takes no set; with an unknown result neither command is right.
        RunResult::Rehearsed | RunResult::Unknown => Vec::new(),
    }
}

/// Runs the `failed` commands of these hooks for a run that was refused before anything was touched: nobody
/// else says that there is no set tonight. Their own failures are logged.
pub async fn tell_refused(hooks: &[Hook], plan: &str, error: &Error) {
    let env = HookEnv::refused(plan, chain(error.what.as_ref()));
    for outcome in quiesce::finish(hooks, Phase::Failed, &env).await.iter().filter(|o| !o.succeeded()) {
        tracing::error!(hook = outcome.name, "{outcome}");
    }
}

/// Why the hooks are no evidence that the applications were quiesced; none when they are.
pub(super) fn doubt(settings: &PlanSettings, outcomes: &[HookOutcome]) -> Option<String> {
    if !settings.holds_applications() {
        return Some("no hooks: there is no evidence for the applications".to_owned());
    }
    let failed = |h: &&HookOutcome| h.lost || (h.phase == Phase::Pre && !h.succeeded());
    outcomes.iter().find(failed).map(ToString::to_string)
}

/// What failed after the point in time, or after the run had failed.
pub(super) fn after(outcomes: &[HookOutcome]) -> Vec<String> {
    // A hook whose application was not quiesced all the time lowers the label instead.
    let late = |h: &&HookOutcome| h.phase != Phase::Pre && !h.succeeded() && !h.lost;
    outcomes.iter().filter(late).map(ToString::to_string).collect()
}

/// The outcome of each application, in the order in which they were quiesced. `taken` is the highest label
/// that the rest of the evidence allows, and why; none when no set was taken.
pub(super) fn records(
    settings: &PlanSettings,
    outcomes: &[HookOutcome],
    taken: Option<(Consistency, &str)>,
) -> Vec<ApplicationRecord> {
    let section = |name: &str| {
        let of = |h: &&Hook| {
            name == h.name || name.strip_prefix(h.name.as_str()).is_some_and(|r| r.starts_with('/'))
        };
        settings.hooks.iter().find(of).map(|h| h.kind.section().to_owned())
    };
    let mut records = Vec::new();
    for quiesced in outcomes.iter().filter(|h| h.phase == Phase::Pre) {
        // Units that are stopped for an unmount are not hooks of the plan.
        let Some(kind) = section(&quiesced.name) else { continue };
        let released = outcomes.iter().find(|h| h.phase == Phase::Post && h.name == quiesced.name);
        let failed = Some(quiesced).filter(|h| !h.succeeded()).or(released.filter(|h| h.lost));
        let (achieved, reason) = match (taken, failed) {
            (None, failed) => (None, failed.map(ToString::to_string)),
            (Some((cap, _)), Some(failed)) if cap >= Consistency::Filesystem => {
                (Some(Consistency::Filesystem), Some(failed.to_string()))
            }
            (Some((Consistency::Application, _)), _) => (Some(Consistency::Application), None),
            (Some((cap, why)), _) => (Some(cap), Some(why.to_owned())),
        };
        let mut facts = quiesced.facts.clone();
        facts.extend(released.map(|h| h.facts.clone()).unwrap_or_default());
        records.push(ApplicationRecord { name: quiesced.name.clone(), kind, achieved, reason, facts });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{HookKind, Redis, RedisMode};

    fn settings() -> PlanSettings {
        let nowhere = std::path::Path::new("/nonexistent");
        let loaded = crate::config::load(nowhere, None, None, &crate::config::Overrides::default()).unwrap();
        let redis = Redis {
            mode: RedisMode::Pause,
            socket: None,
            host: None,
            port: None,
            user: None,
            password_file: None,
            credential: None,
            pause_limit: None,
        };
        let hook = |name: &str, kind: HookKind| Hook {
            name: name.to_owned(),
            kind,
            timeout: Duration::from_secs(5),
            on_failure: OnFailure::Degrade,
        };
        let directory = crate::config::settings::DirectoryHook { path: "/d".into() };
        let hooks = vec![
            hook("queue", HookKind::Hook(crate::config::settings::CommandHook::default())),
            hook("d", HookKind::HookDirectory(directory)),
            hook("cache", HookKind::Redis(redis)),
        ];
        PlanSettings { hooks, ..loaded.settings.plan }
    }

    fn ran(name: &str, phase: Phase, status: HookStatus) -> HookOutcome {
        HookOutcome::new(name, phase, status, Duration::ZERO, String::new())
    }

    fn all_well() -> Vec<HookOutcome> {
        let mut all: Vec<_> =
            ["queue", "d/10-app", "cache"].map(|n| ran(n, Phase::Pre, HookStatus::Ok)).into_iter().collect();
        all.extend(["cache", "d/10-app", "queue"].map(|n| ran(n, Phase::Post, HookStatus::Ok)));
        all
    }

    fn labels(outcomes: &[HookOutcome], taken: Option<(Consistency, &str)>) -> Vec<Option<Consistency>> {
        records(&settings(), outcomes, taken).into_iter().map(|r| r.achieved).collect()
    }

    use Consistency::{Application, Crash, Filesystem};

    #[test]
    fn each_application_has_a_label_of_its_own() {
        let mut outcomes = all_well();
        outcomes[0].facts.insert("offset".to_owned(), "17".to_owned());
        outcomes[5].facts.insert("end".to_owned(), "18".to_owned());
        let records = records(&settings(), &outcomes, Some((Application, "")));
        let seen: Vec<_> = records.iter().map(|r| (r.name.as_str(), r.kind.as_str(), r.achieved)).collect();
        let good = Some(Application);
        assert_eq!(
            seen,
            [("queue", "hook", good), ("d/10-app", "hook_directory", good), ("cache", "redis", good)]
        );
        assert_eq!(records[0].facts.keys().collect::<Vec<_>>(), ["end", "offset"]);
        // Units stopped for an unmount are in the outcomes, but they are not applications.
        outcomes.push(ran("unit a.service", Phase::Pre, HookStatus::Ok));
        assert_eq!(labels(&outcomes, Some((Application, ""))).len(), 3);
    }

    #[test]
    fn what_was_not_held_or_was_lost_is_no_more_than_its_files() {
        let mut outcomes = all_well();
        assert_eq!(doubt(&settings(), &outcomes), None);
        outcomes[0].status = HookStatus::TimedOut;
        outcomes[3].lost = true;
        outcomes[3].status = HookStatus::Refused("moved".into());
        assert_eq!(
            labels(&outcomes, Some((Application, ""))),
            [Some(Filesystem), Some(Application), Some(Filesystem)]
        );
        assert!(doubt(&settings(), &outcomes).unwrap().contains("queue"));
        assert_eq!(labels(&outcomes, None), [None, None, None]);
        outcomes[0].status = HookStatus::Ok;
        assert!(
            doubt(&settings(), &outcomes)
                .unwrap()
                .contains("`cache` was not released as it should be: moved")
        );
        outcomes[3].lost = false;
        outcomes[3].status = HookStatus::Failed(crate::quiesce::Exit::Code(1));
        assert_eq!(doubt(&settings(), &outcomes), None, "a failed post command comes after the set");
        assert_eq!(after(&outcomes).len(), 1);
    }

    #[test]
    fn none_is_worth_more_than_the_set_can_be() {
        let mut outcomes = all_well();
        let why = "the freeze did not hold";
        let lowered = records(&settings(), &outcomes, Some((Crash, why)));
        assert!(lowered.iter().all(|r| r.achieved == Some(Crash) && r.reason.as_deref() == Some(why)));
        outcomes[0].status = HookStatus::TimedOut;
        assert_eq!(labels(&outcomes, Some((Crash, "x")))[0], Some(Crash));
        assert_eq!(labels(&outcomes, Some((Filesystem, "x"))), [Some(Filesystem); 3]);
    }

    #[test]
    fn what_only_tells_somebody_vouches_for_nothing() {
        let told = crate::config::settings::CommandHook {
            completed: Some(vec!["/bin/true".into()]),
            ..Default::default()
        };
        let mut settings = settings();
        settings.hooks.truncate(1);
        settings.hooks[0].kind = HookKind::Hook(told.clone());
        assert!(doubt(&settings, &[ran("queue", Phase::Pre, HookStatus::Ok)]).is_some());
        let quiesces = crate::config::settings::CommandHook { pre: Some(vec!["/bin/true".into()]), ..told };
        settings.hooks[0].kind = HookKind::Hook(quiesces);
        assert_eq!(doubt(&settings, &[ran("queue", Phase::Pre, HookStatus::Ok)]), None);
    }

    #[test]
    fn a_session_may_quiesce_as_long_as_everything_around_it_may_take() {
        let settings = settings();
        let plan = Plan {
            name: "p".into(),
            filesystems: vec![],
            volumes: vec![],
            witnesses: vec![],
            beneath: vec![],
            left_out: vec![],
            missing: vec![],
            call: crate::plan::PointInTimeCall::CreateSnapshots {
                exclude_boot_volume: false,
                exclude_data_volumes: vec![],
            },
            expedite: crate::plan::Expediting::default(),
            notes: vec![],
            best: Application,
        };
        let least = Duration::from_secs(3 * 5 * 2) + settings.flush_timeout + settings.window;
        assert!(quiesce_limit(&plan, &settings) > least);
    }
}
