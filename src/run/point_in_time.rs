//! The point in time of a run: prepare, freeze, the goal's one thing, thaw.
//!
//! In: a run whose applications are quiesced. Out: a [`Window`]. Must never: do anything between the last
//! FIFREEZE and the first FITHAW but wait for the goal's one thing, or freeze what the journal does not have.

use std::path::Path;
use std::time::{Duration, Instant};

use super::busy;
use super::environment::Environment;
use super::failure::Failure;
use super::goal::Goal;
use super::job::Job;
use super::journal::{Created, Journal, will_freeze};
use super::preflight;
use super::progress::{Progress, Window};
use super::step::Step;
use crate::config::settings::Expedite;
use crate::error::chain;
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::plan::Method;
use crate::window::expedite::{self, RcuExpedited, RcuExpeditedError};
use crate::window::{Extras, Machine, Prepared};

/// Prepares the window, freezes, does the goal's one thing, and thaws.
pub(super) async fn fix<E, G: Goal<E>>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    goal: &mut G,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> Window {
    let mut prepared = match prepare(env, job, goal, progress, interrupt).await {
        Ok(prepared) => prepared,
        Err(failure) => return Window::never(failure),
    };
    if let Err(failure) = ready(env, job, goal, progress, &mut prepared, interrupt).await {
        prepared.dismiss();
        nothing_frozen(&mut progress.journal, &[]);
        return Window::never(failure);
    }
    let journal = &mut progress.journal;
    env.at(Step::Freezing);
    let mut frozen = match prepared.freeze(interrupt).await {
        Ok(frozen) => frozen,
        Err(not) => {
            // If a mount that refused is frozen, somebody else froze it: a recovery must not thaw it.
            nothing_frozen(journal, &not.thawed.still_frozen);
            let still = &not.thawed.still_frozen;
            let stuck = job.plan.filesystems.iter().filter(|f| still.contains(&f.mount_point));
            let stuck: Vec<DevNo> = stuck.map(|f| f.dev).collect();
            let failure = Some(Failure::from(not.cause).name_holders(env.root, &stuck));
            return Window { thawed: Some(not.thawed), failure, ..Window::default() };
        }
    };
    // ---- the point in time: between here and `thaw` there is one thing and nothing else ----
    env.at(Step::Frozen);
    let (times, began) = (frozen.times(), Instant::now());
    let called = frozen.call(interrupt, goal.point_in_time(env, times)).await;
    let mut call = Some(began.elapsed());
    env.at(Step::Answered);
    let (mut thawed, recheck) = frozen.thaw().await;
    // ---- everything is thawed ----
    env.at(Step::Thawed);
    goal.correct(&mut thawed.times, &mut call);
    let mut failure = None;
    let _ = journal.update(|state| {
        state.frozen.retain(|f| thawed.still_frozen.contains(&f.mount_point));
        state.expedited = None;
        failure = goal.answered(job, called, state);
    });
    Window { thawed: Some(thawed), recheck, call, failure }
}

async fn prepare<E, G: Goal<E>>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    goal: &mut G,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> Result<Prepared, Failure> {
    goal.before_prepare(env, job);
    env.at(Step::Prepare);
    let extras = Extras {
        afterwards: goal.recovery(env),
        rcu_expedited: expedited(env.root, job),
        page: Some(progress.journal.page()),
    };
    let machine = Machine { root: env.root, kernel: &env.kernel, watchdog: &env.watchdog };
    let prepared = Prepared::open(machine, job.plan, goal.limits(job), interrupt, extras).await?;
    env.at(Step::Guarded);
    for shared in prepared.watchdog_shares() {
        tracing::warn!("the watchdog shares with this process: {shared}");
    }
    progress.watchdog_shares = prepared.watchdog_shares().to_vec();
    Ok(prepared)
}

/// The last checks; then the journal is written as it has to be while everything is frozen.
async fn ready<E, G: Goal<E>>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    goal: &mut G,
    progress: &mut Progress,
    prepared: &mut Prepared,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    // After the flush, which can take minutes: EC2 may have closed idle connections meanwhile.
    let mut early = interrupt.clone();
    tokio::select! {
        biased;
        // Applications are held: a signal ends the wait for EC2.
        signal = early.caught() => return Err(Failure::interrupted(signal)),
        done = goal.before_freeze(env, job, &progress.applications) => done?,
    }
    preflight::unchanged(env, job)?;
    busy::again(env, job, prepared, interrupt).await?;
    prepared.flush(interrupt).await?;
    tokio::select! {
        biased;
        signal = early.caught() => return Err(Failure::interrupted(signal)),
        done = goal.set(env) => done?,
    }
    env.at(Step::JournalWindow);
    let limits = goal.limits(job);
    // What cannot freeze is flushed once more before the window begins.
    let flush = if job.with_method(Method::Sync).next().is_some() { limits.flush } else { Duration::ZERO };
    let thawed_by = env.clock.now().checked_add(flush + limits.window).ok();
    let written = progress.journal.update(|state| {
        state.frozen = will_freeze(job.plan);
        state.freezer = prepared.freezer();
        state.thawed_by = thawed_by;
        state.expedited = prepared.expedited();
        goal.note_freeze(env, prepared, state);
    });
    written.map_err(|e| Failure::no_journal(&e))?;
    interrupt.pending().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
}

/// Notes that nothing was requested, and that nothing is frozen but what could not be thawed.
fn nothing_frozen(journal: &mut Journal, still_frozen: &[std::path::PathBuf]) {
    let _ = journal.update(|state| {
        state.created = Created::No;
        state.expedited = None;
        state.frozen.retain(|f| still_frozen.contains(&f.mount_point));
    });
}

/// `rcu_expedited`, where the plan says so. It only makes freezing faster, so the run goes on without it.
fn expedited(root: &Path, job: &Job<'_>) -> Option<RcuExpedited> {
    let opened = job.plan.expedite.raise.then(|| RcuExpedited::open(&expedite::path(root)))?;
    let told = |e: &RcuExpeditedError| {
        let what = format!("freezing is not expedited: {}", chain(e));
        match job.settings.rcu_expedited {
            Expedite::Always => tracing::warn!("{what}"),
            // Nobody has asked for it.
            Expedite::Auto | Expedite::Never => tracing::debug!("{what}"),
        }
    };
    opened.inspect_err(told).ok()
}
