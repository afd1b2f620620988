//! The goal of `rehearse`: everything but the create call, to measure what freezing costs on this host before
//! anything depends on it.
//!
//! In: how long to stay frozen. Out: a [`Round`] each time, and from all rounds a [`Suggestion`]. Must never:
//! send a create call, tag, or keep a record: of EC2 it gets only [`Describe`].

mod round;
mod suggestion;
mod writers;

use std::time::{Duration, Instant};

pub use self::round::{MountRound, Round};
pub(crate) use self::suggestion::{FACTOR, LEAST};
pub use self::suggestion::{Suggestion, suggest};
pub use self::writers::Writer;

use self::writers::Busy;
use super::applications::{self, Applications};
use super::environment::Environment;
use super::failure::Failure;
use super::goal::Goal;
use super::job::Job;
use super::journal::State;
use super::progress::Progress;
use super::verdict::{self, Ending, evidence};
use super::{create_request, preflight, settle, unmounted};
use crate::ec2::{CreateRequest, Describe};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::quiesce::RunResult;
use crate::window::{Called, Prepared, Times};

/// A FIFREEZE that takes this long or longer is reported with the processes that were writing. One without
/// writers takes 25 to 35 ms.
pub(crate) const SLOW: Duration = Duration::from_millis(100);
/// The most writers that are reported for a mount.
const WRITERS: usize = 5;

/// How long everything stays frozen in place of the create call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A fixed time (`--hold`).
    For(Duration),
    /// As long as the slowest DryRun took, in place of EC2's answer.
    Answer,
}

/// A rehearsal, of one round or more.
#[derive(Debug)]
pub struct Rehearsal {
    hold: Hold,
    /// How long each DryRun took so far.
    pub answers: Vec<Duration>,
}

impl Rehearsal {
    /// One that stays frozen for this long in each round.
    #[must_use]
    pub fn new(hold: Hold) -> Self {
        Self { hold, answers: Vec::new() }
    }

    /// Carries out one rehearsal, with a new run id.
    ///
    /// # Errors
    /// When a run would be refused before anything is touched.
    pub async fn round<E: Describe>(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        interrupt: &mut Interrupt,
    ) -> Result<Round, Error> {
        let now = env.clock.now();
        let request = create_request(&job.run, job.facts, job.plan, job.settings, job.requested, now);
        let (held, busy, writers) = (Duration::ZERO, Busy::default(), Vec::new());
        super::run(env, job, &mut Rehearse { all: self, request, held, busy, writers }, interrupt).await
    }
}

struct Rehearse<'a> {
    all: &'a mut Rehearsal,
    /// Sent with DryRun only.
    request: CreateRequest,
    held: Duration,
    busy: Busy,
    writers: Vec<(DevNo, Writer)>,
}

impl<E: Describe> Goal<E> for Rehearse<'_> {
    /// How long everything stayed frozen in place of the create call.
    type Answer = Duration;
    type Outcome = Round;

    async fn preflight(&mut self, env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
        self.all.answers.push(preflight::ec2(env, job, &self.request).await?);
        Ok(())
    }

    fn note_start(&self, state: &mut State) {
        state.rehearsal = true;
    }

    fn before_prepare(&mut self, env: &Environment<'_, E>, job: &Job<'_>) {
        self.busy = Busy::now(env.root, job);
    }

    async fn before_freeze(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        _: &Applications,
    ) -> Result<(), Failure> {
        self.all.answers.extend(preflight::warm(env, job, &self.request).await?);
        Ok(())
    }

    fn note_freeze(&mut self, _: &Environment<'_, E>, _: &Prepared, _: &mut State) {}

    /// Only a timer, because everything is frozen.
    async fn point_in_time(&mut self, _: &Environment<'_, E>, _: Times) -> Duration {
        let hold = match self.all.hold {
            Hold::For(time) => time,
            Hold::Answer => self.all.answers.iter().max().copied().unwrap_or_default(),
        };
        let started = Instant::now();
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        started.elapsed()
    }

    fn answered(&mut self, job: &Job<'_>, called: Called<Duration>, _: &mut State) -> Option<Failure> {
        Some(match called {
            Called::Returned(time) => {
                self.held = time;
                return None;
            }
            Called::RanOut => {
                let limit = humantime::format_duration(job.settings.window);
                Failure::new(Exit::Ec2, format!("the window of {limit} ran out during the hold"))
                    .hint("hold for less (--hold), or give it a longer --window")
            }
            Called::WatchdogLost(how) => Failure::new(Exit::NotHeld, format!("{how} before the hold ended")),
            Called::Interrupted(signal) => Failure::interrupted(signal),
        })
    }

    async fn thawed(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) {
        self.writers = std::mem::take(&mut self.busy).since(env.root, job);
        let failed = progress.window.failure.is_some();
        progress.applications.env.result = if failed { RunResult::Failed } else { RunResult::Rehearsed };
    }

    async fn settle(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) -> Round {
        let round = self.describe(job, progress);
        settle::warn_of_frozen(env.state_dir, &round.still_frozen);
        round
    }
}

impl Rehearse<'_> {
    fn describe(&self, job: &Job<'_>, progress: &mut Progress) -> Round {
        let hooks = std::mem::take(&mut progress.applications.outcomes);
        let evidence = evidence(job, &progress.window, &hooks, progress.journal.is_taken());
        let failure = progress.window.failure.take();
        let reached = evidence.label().min(job.plan.best);
        let achieved = failure.is_none().then_some(reached);
        let remounted = std::mem::take(&mut progress.remounted);
        let not_mounted = !remounted.failed.is_empty();
        let mut after = applications::after(&hooks);
        after.extend(remounted.failed.iter().map(ToString::to_string).chain(remounted.differs));
        let thawed = progress.window.thawed.clone().unwrap_or_default();
        let ending = Ending {
            still_frozen: !thawed.still_frozen.is_empty(),
            not_mounted,
            failure: failure.as_ref().map(|f| f.exit),
            achieved,
            apart: false,
            trouble_after: !after.is_empty(),
        };
        let (hint, signal, failed) =
            failure.map_or((None, None, None), |f| (f.hint, f.signal, Some(f.reason)));
        let mounts = job.plan.filesystems.iter().map(|f| {
            let stall = thawed.stalls.iter().find(|s| s.mount_point == f.mount_point);
            let writers = self.writers.iter().filter(|(dev, _)| *dev == f.dev);
            MountRound {
                mount_point: f.mount_point.clone(),
                fstype: f.fstype.clone(),
                flush: stall.map(|s| s.flush).unwrap_or_default(),
                freeze: stall.and_then(|s| s.freeze),
                stall: stall.and_then(|s| s.stalled),
                writers: writers.map(|(_, w)| w.clone()).take(WRITERS).collect(),
            }
        });
        Round {
            window: thawed.length,
            hold: if thawed.length.is_zero() { Duration::ZERO } else { self.held },
            mounts: mounts.collect(),
            achieved,
            hint: if not_mounted { Some(unmounted::BY_HAND.to_owned()) } else { hint },
            signal,
            reason: failed.or(evidence.reason().cloned().filter(|_| reached < job.requested)),
            exit: verdict::exit(job, &ending),
            unwitnessed: thawed.without_witness(),
            still_frozen: thawed.still_frozen,
            missing: job.plan.lacks(),
            hooks,
            after,
        }
    }
}
