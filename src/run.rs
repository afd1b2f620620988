//! The order of a run.
//!
//! ```text
//! planned     identity → discover (automounts of its disks mounted) → plan
//! preflight   permissions, pending snapshots, hooks executable, journal not on a frozen filesystem
//! busy        no scrub, balance or the like that FIFREEZE would wait for; once more before the freeze
//! quiesce     applications in order, each journaled before it starts; sessions stay open
//! unmount     filesystems with this method: holders named, units stopped, devices claimed
//! prepare     fds, flush, watchdog, warm connection                             ┐
//! freeze      waves; then the one thing that everything is frozen for; thaw     ┘ point_in_time
//! remount     what was unmounted, exactly as it was; units started
//! release     applications in reverse, also after a failure or a signal
//! recheck     what may only be asked once everything is thawed: was all of it written back?
//! settle      verdict with evidence; tags, commands for the end, record
//! complete    where the plan waits: until EC2 has every snapshot; then the commands for the end
//! ```
//!
//! Where the plan is a group's, the runs of all members wait for each other: before anything is touched, before the
//! freeze, and in it ([`together`]).
//!
//! What the run is for is its [`goal`]: [`take`] a set, [`mod@clone`] its volumes, [`rehearsal`], or a [`held_freeze`]
//! for somebody else's snapshots.
//!
//! In: an [`Environment`] and a [`Job`]. Out: the goal's outcome. Must never: return while an application is
//! quiesced and its release was not tried, or repeat the create call.

pub mod applications;
mod aside;
mod automounts;
pub mod busy;
pub mod clone;
pub mod complete;
pub mod control_socket;
pub mod environment;
mod failure;
pub(crate) mod former;
mod goal;
pub mod held_freeze;
pub(crate) mod held_record;
pub mod idle;
pub mod job;
pub mod journal;
pub mod last;
pub mod lock;
pub(crate) mod notify;
pub mod planned;
mod point_in_time;
mod preflight;
mod progress;
pub mod recover;
pub mod rehearsal;
pub(crate) mod release;
mod request;
pub mod rescue;
mod settle;
pub mod status;
pub mod step;
pub mod take;
pub mod tally;
pub(crate) mod textfile;
mod together;
pub mod unmounted;
pub mod verdict;

pub use self::environment::Environment;
pub use self::job::Job;
pub(crate) use self::request::create_request;

use self::goal::Goal;
use self::progress::{Progress, Window};
use self::step::Step;
use self::unmounted::Unmounted;
use crate::error::Error;
use crate::interrupt::Interrupt;

/// Carries out a job for one goal.
///
/// # Errors
/// When the job is refused before anything is touched. What fails later is in the outcome.
async fn run<E, G: Goal<E>>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    goal: &mut G,
    interrupt: &mut Interrupt,
) -> Result<G::Outcome, Error> {
    env.at(Step::Preflight);
    preflight::host(env, job)?;
    let mut early = interrupt.clone();
    tokio::select! {
        biased;
        // Nothing is touched yet, so whatever EC2 is waited for is given up at once.
        signal = early.caught() => return Err(Error::interrupted(signal)),
        done = goal.preflight(env, job) => done?,
    }
    applications::check(job, interrupt).await?;
    busy::wait(env, job, goal.patience(job), interrupt).await?;

    env.at(Step::JournalStart);
    let window = goal.limits(job).window;
    let mut progress = Progress::begin(env, job, window, interrupt, |state| goal.note_start(state))?;
    let Progress { journal, applications, .. } = &mut progress;
    let mut unmounted = Unmounted::default();
    let mut ready = applications::quiesce(env, job, applications, journal, interrupt).await;
    if ready.is_ok() {
        ready = unmounted::unmount(env, job, applications, journal, interrupt, &mut unmounted).await;
    }
    progress.window = match ready {
        Ok(()) => point_in_time::fix(env, job, goal, &mut progress, interrupt).await,
        Err(failure) => Window::never(failure),
    };
    goal.ended(&progress.window);
    progress.remounted =
        unmounted::remount(unmounted, &mut progress.journal, &mut progress.applications).await;

    progress.inform_applications();
    goal.thawed(env, job, &mut progress).await;
    release::all(env, &mut progress).await;
    progress.window.recheck(job.settings.flush_timeout, interrupt).await;
    let outcome = goal.settle(env, job, &mut progress).await;
    env.at(Step::Close);
    progress.close();
    Ok(outcome)
}
