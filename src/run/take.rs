//! The goal of `snapshot`: a consistent set.
//!
//! In: the create request, complete before anything is touched. Out: an [`Outcome`] with the [`SetRecord`].
//! Must never: send the create call twice, or label a set higher than its evidence says.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::applications::{self, Applications};
use super::environment::Environment;
use super::failure::Failure;
use super::former::Formers;
pub use super::former::Lost;
use super::goal::Goal;
use super::job::Job;
use super::journal::{Created, Given, Shares, State};
use super::progress::{Progress, Window};
use super::step::Step;
use super::together::{Created as Answer, Together, Took};
use super::unmounted::{self, Remounted};
use super::verdict::{self, Ending, evidence, verdict};
use super::{create_request, preflight, release, settle};
use crate::config::settings::Hook;
use crate::ec2::{CreateFailed, CreateRequest, Ec2, SnapshotView, reconcile};
use crate::error::Error;
use crate::exit::Exit;
use crate::group::engine::Engine;
use crate::interrupt::Interrupt;
use crate::plan::{Consistency, PlannedVolume};
use crate::quiesce::{HookEnv, RunResult};
use crate::sets::group::Instant;
use crate::sets::record::{self, SetRecord};
use crate::window::{Called, Prepared, Times};

/// How a run that takes a set ended.
#[derive(Debug)]
pub struct Outcome {
    /// The record of the set.
    pub record: SetRecord,
    /// What the user can do about a failure; none when nothing failed, or nothing is known to help.
    pub hint: Option<String>,
    /// Why the watchdog fired; none when it did not.
    pub fired: Option<String>,
    /// Sets of former runs that EC2 could not complete.
    pub lost: Vec<Lost>,
    /// The signal that interrupted the run: the command ends by it once everything is printed, so that the
    /// shell sees that.
    pub signal: Option<Signal>,
    /// The commands for the end, where the plan waits for the set to be complete: they have not run.
    pub left: Option<Left>,
}

/// The commands for the end, not run yet: [`super::complete`] does.
#[derive(Debug)]
pub struct Left {
    /// Of what was quiesced.
    pub(super) attempted: Vec<Hook>,
    pub(super) env: HookEnv,
}

/// Takes a set.
///
/// # Errors
/// When the run is refused before anything is touched.
pub async fn snapshot<E: Ec2>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    interrupt: &mut Interrupt,
) -> Result<Outcome, Error> {
    snapshot_with(env, job, None, interrupt).await
}

/// Takes a set, at one point in time with the other members of the plan's group, who meet at this engine.
///
/// # Errors
/// When the run is refused before anything is touched, or the members do not come.
pub async fn snapshot_with<E: Ec2>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    engine: Option<Arc<dyn Engine>>,
    interrupt: &mut Interrupt,
) -> Result<Outcome, Error> {
    let now = env.clock.now();
    let request = create_request(&job.run, job.facts, job.plan, job.settings, job.requested, now);
    let shares = Shares {
        volumes: job.plan.volumes.iter().map(|v| v.id.clone()).collect(),
        spread: request.spread_tags.clone(),
    };
    let group = engine.zip(job.settings.group.clone()).map(|(engine, group)| Together::new(engine, group));
    let mut take =
        Take { request, made: Vec::new(), lost: false, formers: Formers::default(), shares, group };
    let outcome = super::run(env, job, &mut take, interrupt).await;
    if let Some(group) = &mut take.group {
        group.close().await;
    }
    outcome
}

struct Take {
    request: CreateRequest,
    made: Vec<SnapshotView>,
    /// Was the answer lost? EC2 may have carried out the request, so it has to be asked.
    lost: bool,
    formers: Formers,
    shares: Shares,
    group: Option<Together>,
}

impl<E: Ec2> Goal<E> for Take {
    /// None: the group says what there is.
    type Answer = Option<Answer>;
    type Outcome = Outcome;

    async fn preflight(&mut self, env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
        preflight::ec2(env, job, &self.request).await?;
        self.formers = Formers::look(env).await;
        match &mut self.group {
            Some(group) => group.gather(env, job, &mut self.request).await,
            None => Ok(()),
        }
    }

    async fn before_freeze(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        _: &Applications,
    ) -> Result<(), Failure> {
        if let Some(group) = &mut self.group {
            group.ready(env).await?;
        }
        preflight::warm(env, job, &self.request).await.map(drop)
    }

    async fn set(&mut self, env: &Environment<'_, E>) -> Result<(), Failure> {
        match &mut self.group {
            Some(group) => group.set(env).await,
            None => Ok(()),
        }
    }

    /// Nothing is written while frozen, so the journal says before the freeze that the request may have been
    /// sent.
    fn note_freeze(&mut self, _: &Environment<'_, E>, _: &Prepared, state: &mut State) {
        state.created = Created::Maybe;
        state.shares = self.shares.clone();
    }

    async fn point_in_time(&mut self, env: &Environment<'_, E>, _: Times) -> Self::Answer {
        if let Some(group) = &mut self.group {
            group.call(env, &self.request, &self.shares.volumes).await;
            return None;
        }
        env.at(Step::Request);
        Some(env.ec2.create(&self.request).await)
    }

    fn answered(
        &mut self,
        job: &Job<'_>,
        called: Called<Self::Answer>,
        state: &mut State,
    ) -> Option<Failure> {
        let failure = match &mut self.group {
            None => self.read(job, called),
            Some(group) => match group.took(job, called) {
                Took::Answer(answer, ended) => self.read(job, Called::Returned(Some(answer))).or(ended),
                Took::NotSent(failure) => Some(failure),
                Took::Lost(failure) => {
                    self.lost = true;
                    Some(failure)
                }
            },
        };
        if self.made.is_empty() && !self.lost {
            state.created = Created::No;
        }
        failure
    }

    fn correct(&self, times: &mut Times, call: &mut Option<Duration>) {
        if let Some(group) = &self.group {
            group.correct(times, call);
        }
    }

    fn ended(&mut self, window: &Window) {
        if let Some(group) = &mut self.group {
            group.ended(window);
        }
    }

    async fn thawed(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) {
        if self.lost {
            // The look-up takes seconds: applications are released before it, with the result `unknown`.
            release::all(env, progress).await;
            env.at(Step::LookUp);
            let ec2 = env.patient().until(&progress.interrupt);
            let instance = &job.facts.identity.instance_id;
            let looks = &reconcile::LOOKS;
            let outcome = reconcile::by_run(&ec2, &job.run, instance, looks, env.clock).await;
            settle::look_up(&job.run, &mut self.made, &mut progress.window.failure, outcome);
        }
        // When the answer was lost and snapshots are missing, the next start asks EC2 once more.
        let known = !self.lost || self.made.len() >= job.plan.volumes.len();
        let told = &mut progress.applications.env;
        told.result = if self.made.is_empty() { RunResult::Failed } else { RunResult::Taken };
        told.snapshots = self.made.iter().map(|s| s.id.clone()).collect();
        env.at(Step::Made);
        if known && !told.snapshots.is_empty() {
            let made = Created::Made(told.snapshots.clone());
            let _ = progress.journal.update(|state| state.created = made);
        }
    }

    async fn settle(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) -> Outcome {
        env.at(Step::Judged);
        let evidence =
            evidence(job, &progress.window, &progress.applications.outcomes, progress.journal.is_taken());
        let verdict = verdict(job.plan, &self.made, &evidence);
        progress.applications.env.consistency = (!self.made.is_empty()).then_some(verdict.achieved);
        let failure = progress.window.failure.take();
        let failed = match &failure {
            Some(failure) => Some(failure.exit),
            None => (!verdict.missing.is_empty()).then_some(Exit::Ec2),
        };
        let (hint, signal, reason) =
            failure.map_or((None, None, None), |f| (f.hint, f.signal, Some(f.reason)));
        let fired = progress.window.thawed.as_ref().and_then(|t| t.fired).map(|why| why.to_string());
        let held = failed.is_none() && !verdict.doubtful && verdict.achieved >= Consistency::Filesystem;
        let label = verdict.achieved;
        let record = describe(job, reason, verdict, !self.made.is_empty(), progress);
        let lost = std::mem::take(&mut self.formers.lost);
        let mut outcome = Outcome { record, hint, fired, lost, signal, left: None };
        mention(&mut outcome.record, &mut outcome.hint, std::mem::take(&mut progress.remounted));
        let mut given = self.note_verdict(job, &outcome.record, progress);
        if let Some(group) = &mut self.group {
            let record = &mut outcome.record;
            if held && group.may_hold() {
                // The others may take their time, and this process may die meanwhile: then the set has the label that
                // it has earned alone.
                record.group = Some(group.record(true));
                given = self.note_verdict(job, record, progress);
                let Some(group) = &mut self.group else { return outcome };
                group.held(env, label, &progress.interrupt).await;
            } else {
                group.not_held(record.reason.as_deref());
            }
            let Some(group) = &self.group else { return outcome };
            record.group = Some(group.record(!record.snapshots.is_empty()));
            given = self.note_verdict(job, record, progress).or(given);
        }
        env.at(Step::Label);
        let record = &mut outcome.record;
        record.after.append(&mut self.formers.failed);
        if let Some(mut given) = given {
            let ec2 = env.patient().until(&progress.interrupt);
            if let Err(e) = settle::label(&ec2, &mut given).await {
                record.after.push(format!("cannot tag the snapshots with their verdict: {}", e.with_hint()));
            }
            let _ = progress.journal.update(|state| {
                // Of a set that is known as a whole and has its tags, EC2 is asked no more.
                if given.done && matches!(state.created, Created::Made(_)) {
                    state.created = Created::No;
                }
                state.verdict = Some(given);
            });
        }
        progress.applications.env.reason.clone_from(&record.reason);
        // A set that is not all that was to be taken is not waited for: it is told at once.
        if job.settings.wait && failed.is_none() && outcome.signal.is_none() && !record.snapshots.is_empty() {
            let apps = &progress.applications;
            outcome.left = Some(Left { attempted: apps.attempted.clone(), env: apps.env.clone() });
        } else {
            let finished = applications::finish(job, &progress.applications).await;
            record.after.extend(applications::after(&finished));
            record.hooks.extend(finished);
        }
        record.exit = exit(job, record, failed);
        env.at(Step::Record);
        match settle::keep(env.state_dir, record) {
            Some(trouble) => {
                record.after.push(trouble);
                record.exit = exit(job, record, failed);
            }
            None => {
                if let Err(e) = self.formers.keep(env.state_dir, record) {
                    tracing::warn!("the next run cannot look what becomes of these snapshots: {e}");
                }
            }
        }
        outcome
    }
}

impl Take {
    /// Writes the verdict into the journal, before the tags are: if this process dies, the next start puts this verdict
    /// on the set, and judges nothing.
    fn note_verdict(&self, job: &Job<'_>, record: &SetRecord, progress: &mut Progress) -> Option<Given> {
        let given = settle::given(job, &self.request, record);
        let _ = progress.journal.update(|state| state.verdict.clone_from(&given));
        given
    }

    /// Reads the answer into `made` and `lost`. Returns why the run fails, if it does.
    fn read(&mut self, job: &Job<'_>, called: Called<Option<Answer>>) -> Option<Failure> {
        let failure = match answer(job, called) {
            Ok(None) => return None,
            Ok(Some(Ok(made))) => {
                let absent = |v: &&PlannedVolume| !made.iter().any(|s| s.volume == v.id);
                let absent = job.plan.volumes.iter().find(absent).map(|v| v.id.clone());
                self.made = made;
                // From an answer that was cut off, some snapshot ids can still be read.
                Failure::new(Exit::Ec2, format!("EC2's answer says nothing of {}", absent?))
            }
            Ok(Some(Err(CreateFailed { error, outcome_unknown, made }))) => {
                self.made = made;
                self.lost = outcome_unknown;
                return Some(error.into());
            }
            Err(failure) => failure,
        };
        self.lost = true;
        Some(failure)
    }
}

/// EC2's answer, or why a run fails that did not get it.
pub(super) fn answer<T>(job: &Job<'_>, called: Called<T>) -> Result<T, Failure> {
    Err(match called {
        Called::Returned(answer) => return Ok(answer),
        Called::RanOut => {
            let limit = humantime::format_duration(job.settings.window);
            Failure::new(Exit::Ec2, format!("EC2 did not answer within the window of {limit}"))
        }
        Called::WatchdogLost(how) => Failure::new(Exit::NotHeld, format!("{how} before EC2 answered")),
        Called::Interrupted(signal) => Failure::interrupted(signal),
    })
}

pub(super) fn exit(job: &Job<'_>, record: &SetRecord, failure: Option<Exit>) -> Exit {
    let ending = Ending {
        still_frozen: !record.still_frozen.is_empty(),
        not_mounted: !record.not_mounted.is_empty(),
        failure,
        achieved: record.achieved,
        apart: record.group.as_ref().is_some_and(|group| group.instant == Some(Instant::Host)),
        trouble_after: !record.after.is_empty(),
    };
    verdict::exit(job, &ending)
}

pub(super) fn describe(
    job: &Job<'_>,
    failure: Option<String>,
    verdict: verdict::Verdict,
    taken: bool,
    progress: &mut Progress,
) -> SetRecord {
    let hooks = std::mem::take(&mut progress.applications.outcomes);
    let call = progress.window.call;
    let thawed = progress.window.thawed.clone().unwrap_or_default();
    let achieved = taken.then_some(verdict.achieved);
    let lower = achieved.is_none_or(|c| c < job.requested);
    let cap = if verdict.doubtful { Consistency::Crash } else { job.plan.best };
    let why = verdict.reason.as_deref().unwrap_or("see `plan`");
    SetRecord {
        version: record::VERSION,
        run_id: job.run.clone(),
        identity: job.facts.identity.clone(),
        hostname: job.facts.hostname.clone(),
        requested: job.requested,
        achieved,
        applications: applications::records(job.settings, &hooks, taken.then_some((cap, why))),
        reason: failure.or(verdict.reason.filter(|_| lower)),
        snapshots: verdict.snapshots,
        times: if thawed.length.is_zero() { Times::default() } else { thawed.times },
        window_ms: thawed.length.as_secs_f64() * 1e3,
        call_ms: call.map(|c| c.as_secs_f64() * 1e3),
        stall_ms: thawed.stalls.iter().filter_map(|s| s.stalled).max().map(|s| s.as_secs_f64() * 1e3),
        unwitnessed: thawed.without_witness(),
        still_frozen: thawed.still_frozen,
        not_mounted: Vec::new(),
        watchdog_shares: std::mem::take(&mut progress.watchdog_shares),
        after: applications::after(&hooks),
        hooks,
        group: None,
        plan: job.plan.clone(),
        exit: Exit::Ok,
    }
}

/// Adds to the record what could not be mounted again, or differs from before.
pub(super) fn mention(record: &mut SetRecord, hint: &mut Option<String>, remounted: Remounted) {
    if !remounted.failed.is_empty() {
        *hint = Some(unmounted::BY_HAND.to_owned());
    }
    for failed in remounted.failed {
        record.after.push(failed.to_string());
        record.not_mounted.push(failed.mount_point);
    }
    record.after.extend(remounted.differs);
}
