//! The order of a run.
//!
//! ```text
//! preflight   permissions, pending snapshots, hooks executable, journal not on a frozen filesystem
//! quiesce     hooks in order, each journaled before it starts; sessions stay open
//! unmount     filesystems with this method: holders named, units stopped, devices claimed
//! prepare     fds, flush, watchdog, warm connection
//! freeze      waves; then the one call that fixes the point in time; then thaw, all at once
//! mount       what was unmounted, exactly as it was; units started
//! release     sessions and post hooks in reverse, also after a failure or a signal
//! verdict     application | filesystem | crash, with evidence
//! settle      tags, commands for the end, record
//! ```
//!
//! In: a plan, its settings, EC2, the kernel. Out: a [`SetRecord`] with its exit code. Must never: return with something quiesced
//! and not released, or retry the create call.

pub mod applications;
pub mod control_socket;
pub mod held_freeze;
pub mod journal;
pub mod lock;
mod outcome;
mod preflight;
pub mod recover;
pub mod rehearsal;
pub mod rescue;
mod settle;
pub mod status;
pub mod step;
mod hidden_mounts;
pub mod unmounted;
pub mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::applications::{Applications, hook_env, quiesce, release};
use self::journal::{Created, Journal};
use self::outcome::{describe, evidence, exit, settled};
pub use self::settle::create_request;
use self::step::{Step, Steps};
use self::unmounted::Unmounted;
use self::verdict::verdict;
use crate::config::settings::{OnDegraded, PlanSettings};
use crate::discover::Facts;
use crate::ec2::{CreateFailed, CreateRequest, Ec2, SnapshotView, reconcile};
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::host::kernel::Kernel;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::plan::{Consistency, Plan, PlannedVolume};
use crate::quiesce::RunResult;
use crate::sets::record::{self, SetRecord};
use crate::window::expedite::{self, RcuExpedited};
use crate::window::guard::StartGuard;
use crate::window::guard::process::Program;
use crate::window::{
    Called, Extras, FlushError, FreezeFailure, Limits, Machine, PrepareError, Prepared, Thawed,
};

/// What a run works on.
#[derive(Debug)]
pub struct Stage<'a, E> {
    /// EC2.
    pub ec2: &'a E,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The binary to start as the watchdog.
    pub program: &'a Path,
    /// What is on this host.
    pub facts: &'a Facts,
    /// What will be done.
    pub plan: &'a Plan,
    /// How.
    pub settings: &'a PlanSettings,
    /// EC2's least time between two snapshots of one volume.
    pub volume_interval: Duration,
    /// Where records are kept.
    pub state_dir: &'a Path,
    /// Where the journal is.
    pub run_dir: &'a Path,
    /// The run.
    pub run: RunId,
    /// Who is told each step: [`step::PROGRESS`].
    pub steps: &'a dyn Steps,
}

impl<E> Stage<'_, E> {
    fn at(&self, step: Step) {
        self.steps.at(step);
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that is known.
    pub record: SetRecord,
    /// What to do about it.
    pub hint: Option<String>,
    /// The signal to die by, once everything is said.
    pub signal: Option<Signal>,
}

/// Why nothing, or nothing good, was taken.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    reason: String,
    hint: Option<String>,
    signal: Option<Signal>,
}

impl Failure {
    fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, reason: reason.into(), hint: None, signal: None }
    }

    fn by(signal: Signal) -> Self {
        Self { signal: Some(signal), ..Self::new(Exit::Freeze, format!("interrupted by {signal}")) }
    }

    fn unprepared(e: &PrepareError) -> Self {
        match e {
            PrepareError::Flush(FlushError::Interrupted(signal)) => Self::by(*signal),
            e => Self { hint: e.hint(), ..Self::new(Exit::Freeze, chain(e)) },
        }
    }
}

/// What came of the window.
#[derive(Debug, Default)]
struct Window {
    made: Vec<SnapshotView>,
    thawed: Option<Thawed>,
    call: Option<Duration>,
    failure: Option<Failure>,
    /// The request may have been carried out and its answer is lost: EC2 has to be asked.
    lost: bool,
}

/// Takes a set.
///
/// # Errors
/// When the run is refused before anything is touched.
pub async fn snapshot<E: Ec2>(stage: &Stage<'_, E>, interrupt: &mut Interrupt) -> Result<Outcome, Error> {
    let requested = requested(stage)?;
    let request = create_request(&stage.run, stage.facts, stage.plan, stage.settings, requested);
    preflight::check(stage, &request).await?;
    applications::check(stage, interrupt).await?;
    stage.at(Step::JournalStart);
    let mut journal = Journal::start(stage.run_dir, &stage.run, &stage.plan.name).map_err(|e| {
        Error::new(Exit::Permission, format!("cannot write the journal in {}: {e}", stage.run_dir.display()))
    })?;

    let mut env = hook_env(stage);
    let mut apps = Applications::default();
    let mut away = Unmounted::default();
    let mut ready = quiesce(stage, &mut journal, &env, interrupt, &mut apps).await;
    if ready.is_ok() {
        ready = unmounted::begin(stage, &mut journal, &env, interrupt, &mut apps.outcomes, &mut away).await;
    }
    let mut window = match ready {
        Ok(()) => window(stage, &request, &mut journal, interrupt).await,
        Err(failure) => Window { failure: Some(failure), ..Window::default() },
    };
    let back = unmounted::end(away, &mut journal, &mut apps.outcomes).await;
    env.not_mounted = back.not_mounted();
    env.frozen = window.call.is_some();
    if window.lost {
        // The look-up takes seconds: applications are not kept waiting for it. They are told that the result is unknown.
        release(stage, &mut journal, &env, &mut apps).await;
        stage.at(Step::LookUp);
        settle::look_up(
            stage,
            &mut window,
            reconcile::by_run(stage.ec2, &stage.run, &reconcile::LOOKS).await,
        );
    }
    // With a lost answer and snapshots missing, EC2 is asked once more at the next start.
    let known = !window.lost || window.made.len() >= stage.plan.volumes.len();
    env.result = if window.made.is_empty() { RunResult::Failed } else { RunResult::Taken };
    env.snapshots = window.made.iter().map(|s| s.id.clone()).collect();
    stage.at(Step::Made);
    if known && !env.snapshots.is_empty() {
        let _ = journal.update(|state| state.created = Created::Made(env.snapshots.clone()));
    }
    release(stage, &mut journal, &env, &mut apps).await;
    stage.at(Step::Judged);
    let verdict = verdict(stage.plan, &window.made, &evidence(stage, &window, &apps.outcomes));
    env.consistency = (!window.made.is_empty()).then_some(verdict.achieved);

    let mut ended = describe(stage, requested, window, verdict, std::mem::take(&mut apps.outcomes));
    unmounted::tell(&mut ended, back);
    stage.at(Step::Label);
    settle::label(stage, &mut ended.record).await;
    let finished = applications::finish(&env, &apps).await;
    ended.record.after.extend(applications::after(&finished));
    ended.record.hooks.extend(finished);
    ended.record.exit_code = exit(stage.settings, &ended).code();
    stage.at(Step::Record);
    let blocked = settle::warn_of_frozen(stage.state_dir, &ended.record.still_frozen);
    if ended.record.not_mounted.iter().any(|m| stage.state_dir.starts_with(m)) {
        ended.record.after.push("no record is kept: what it is kept on is not mounted".to_owned());
    } else if blocked {
        ended.record.after.push("no record is kept: it would be written to what is still frozen".to_owned());
    } else if let Err(e) = record::keep(stage.state_dir, &ended.record) {
        ended.record.after.push(format!("cannot keep the record in {}: {e}", stage.state_dir.display()));
        ended.record.exit_code = exit(stage.settings, &ended).code();
    }
    stage.at(Step::Close);
    // A look-up that saw nothing is no proof.
    let unknown = journal.state.created == Created::Maybe;
    let owed = !journal.state.attempted.is_empty();
    if ended.record.still_frozen.is_empty() && settled(&ended) && !unknown && !owed {
        if journal.state.unmounted.is_empty() {
            journal.close();
        } else {
            // The set has its verdict: whoever mounts the rest must not label it again.
            let _ = journal.update(|state| state.created = Created::No);
        }
    } // else the next start and ExecStopPost go on from the journal
    Ok(ended)
}

fn requested<E>(stage: &Stage<'_, E>) -> Result<Consistency, Error> {
    let natural =
        if stage.settings.holds_applications() { Consistency::Application } else { Consistency::Filesystem };
    let requested = stage.settings.consistency.unwrap_or(natural);
    if requested > stage.plan.best && stage.settings.on_degraded == OnDegraded::Fail {
        let what =
            format!("this plan can reach {} consistency at best, {requested} is requested", stage.plan.best);
        return Err(Error::new(Exit::Config, what).hint(
            "ask for less (--consistency), or allow less (--on-degraded keep); `stillpoint plan` says why",
        ));
    }
    Ok(requested)
}

/// Prepare, freeze, one call, thaw.
async fn window<E: Ec2>(
    stage: &Stage<'_, E>,
    request: &CreateRequest,
    journal: &mut Journal,
    interrupt: &mut Interrupt,
) -> Window {
    let failed = |failure| Window { failure: Some(failure), ..Window::default() };
    let limits = Limits {
        window: stage.settings.window,
        freeze: stage.settings.freeze_timeout,
        flush: stage.settings.flush_timeout,
    };
    stage.at(Step::Prepare);
    let extras = extras(stage.settings);
    let watchdog: Arc<dyn StartGuard> = Arc::new(Program::new(stage.program));
    let machine = Machine { root: Path::new("/"), kernel: &stage.kernel, watchdog: &watchdog };
    let opened = Prepared::open(machine, stage.plan, limits, interrupt, extras);
    let prepared = match opened.await {
        Ok(prepared) => prepared,
        Err(e) => return failed(Failure::unprepared(&e)),
    };
    stage.at(Step::Guarded);
    // After the flush, which can take minutes: EC2 may have closed idle connections meanwhile.
    if let Err(failure) = preflight::warm(stage, request).await.and_then(|()| preflight::unchanged(stage)) {
        prepared.dismiss();
        return failed(failure);
    }
    stage.at(Step::JournalWindow);
    journal.state.expedited = prepared.expedited();
    if let Err(e) = journal.before_window(stage.plan) {
        prepared.dismiss();
        journal.state.created = Created::No;
        return failed(Failure::new(Exit::Freeze, format!("cannot write the journal: {e}")));
    }
    if let Some(signal) = interrupt.pending() {
        prepared.dismiss();
        let _ = journal.update(|state| state.created = Created::No);
        return failed(Failure::by(signal));
    }
    stage.at(Step::Freezing);
    let mut frozen = match prepared.freeze(interrupt).await {
        Ok(frozen) => frozen,
        Err(not) => {
            let _ = journal.update(|state| {
                state.created = Created::No;
                state.expedited = None;
                // Refused mounts are frozen by somebody else, if at all: not for the recovery.
                state.frozen.retain(|f| not.thawed.still_frozen.contains(&f.mount_point));
            });
            let failure = match not.cause {
                FreezeFailure::Interrupted(signal) => Failure::by(signal),
                cause => {
                    Failure { hint: freeze_hint(&cause), ..Failure::new(Exit::Freeze, cause.to_string()) }
                }
            };
            return Window { thawed: Some(not.thawed), failure: Some(failure), ..Window::default() };
        }
    };
    // ---- the point in time: between here and `thaw` there is one call and nothing else ----
    stage.at(Step::Frozen);
    let sent = Instant::now();
    let call = async {
        stage.at(Step::Request);
        stage.ec2.create(request).await
    };
    let called = frozen.call(interrupt, call).await;
    let call = sent.elapsed();
    stage.at(Step::Answered);
    let thawed = frozen.thaw().await;
    // ---- everything is thawed ----
    stage.at(Step::Thawed);
    let _ = journal.update(|state| {
        state.frozen.retain(|f| thawed.still_frozen.contains(&f.mount_point));
        state.expedited = None;
    });
    let mut window = Window { thawed: Some(thawed), call: Some(call), ..Window::default() };
    window.lost = match called {
        Called::Returned(Ok(made)) => {
            let absent = |v: &&PlannedVolume| !made.iter().any(|s| s.volume == v.id);
            let absent = stage.plan.volumes.iter().find(absent).map(|v| v.id.clone());
            window.made = made;
            let Some(absent) = absent else { return window };
            // An answer that was cut off can still be read in part.
            window.failure = Some(Failure::new(Exit::Ec2, format!("EC2's answer says nothing of {absent}")));
            true
        }
        Called::Returned(Err(CreateFailed { error, outcome_unknown, made })) => {
            window.failure =
                Some(Failure { hint: error.hint(), ..Failure::new(error.exit(), error.to_string()) });
            window.made = made;
            outcome_unknown
        }
        Called::RanOut => {
            let limit = humantime::format_duration(stage.settings.window);
            window.failure =
                Some(Failure::new(Exit::Ec2, format!("EC2 did not answer within the window of {limit}")));
            true
        }
        Called::WatchdogLost => {
            window.failure =
                Some(Failure::new(Exit::NotHeld, "the watchdog fired or died before EC2 answered"));
            true
        }
        Called::Interrupted(signal) => {
            window.failure = Some(Failure::by(signal));
            true
        }
    };
    if window.made.is_empty() && !window.lost {
        let _ = journal.update(|state| state.created = Created::No);
    }
    window
}

/// `rcu_expedited`, where the plan asks for it. It makes freezing faster and nothing else: without it the run goes on.
fn extras(settings: &PlanSettings) -> Extras {
    let raised = settings.rcu_expedited.then(|| RcuExpedited::open(&expedite::path(Path::new("/"))));
    let raised = raised.and_then(|opened| {
        opened.inspect_err(|e| tracing::warn!("freezing is not expedited: {}", chain(e))).ok()
    });
    Extras { rcu_expedited: raised, ..Extras::default() }
}

fn freeze_hint(cause: &FreezeFailure) -> Option<String> {
    Some(match cause {
        FreezeFailure::Flush(e) => return e.hint(),
        FreezeFailure::Refused { errno: nix::errno::Errno::EBUSY, .. } => {
            "something else has frozen it (another backup agent, fsfreeze, LVM): let it finish; stillpoint never thaws \
             what it did not freeze"
                .to_owned()
        }
        FreezeFailure::Refused { errno: nix::errno::Errno::EPERM, .. } => "freezing needs CAP_SYS_ADMIN".to_owned(),
        FreezeFailure::Refused { errno: nix::errno::Errno::EOPNOTSUPP, .. } => {
            "this filesystem cannot freeze: set its method to \"sync\" in the plan's `methods`".to_owned()
        }
        FreezeFailure::TooLong { .. } => {
            "a writer inside the kernel does not let go: look for processes in state D (ps -eo pid,stat,wchan,comm)".to_owned()
        }
        _ => return None,
    })
}
