//! The frozen window, from the first FIFREEZE to the last FITHAW.
//!
//! In: a prepared window whose watchdog runs. Out: [`Thawed`], with the evidence. Must never: let go of a
//! frozen filesystem, or do anything between the last FIFREEZE and the first FITHAW but look at counters and
//! await the caller's one call.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::check::Check;
use super::failure::{FreezeFailure, NotFrozen};
use super::flush::FlushError;
use super::freeze::Report;
use super::prepared::Prepared;
use super::recheck::Recheck;
use super::thawed::{Thawed, Times};
use super::watchdog::Trigger;
use super::witness::Witness;
use super::{LEFT_FROZEN, flush};
use crate::gate;
use crate::host::thread::{self, BeforeOthers};
use crate::interrupt::Interrupt;
use crate::plan::{Method, Wave};

/// Pause where two readings of the write counters do not agree.
const SETTLING_TIME: Duration = Duration::from_millis(3);
/// Most readings after the first.
const SETTLING_READINGS: u32 = 20;

/// How long a thaw is waited for before the run says that a filesystem may still be frozen.
const THAW_LIMIT: Duration = Duration::from_secs(5);

/// How the watchdog was lost: why it fired, or none when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost(pub Option<Trigger>);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(why) => write!(f, "the watchdog fired ({why})"),
            None => f.write_str("the watchdog died"),
        }
    }
}

/// How the call ended.
#[derive(Debug)]
pub enum Called<T> {
    /// It returned.
    Returned(T),
    /// The window ran out first.
    RanOut,
    /// The watchdog fired or died.
    WatchdogLost(Lost),
    /// A signal came.
    Interrupted(nix::sys::signal::Signal),
}

impl Prepared {
    /// Freezes wave by wave. The watchdog's deadline runs from here.
    ///
    /// # Errors
    /// When a freeze fails, takes too long, or the run is interrupted; everything is thawed again then.
    pub async fn freeze(mut self, interrupt: &mut Interrupt) -> Result<Frozen, Box<NotFrozen>> {
        // Filesystems that cannot freeze: flush once more, and watch their write counters from here on.
        let mut flushed = Ok(());
        for filesystem in self.filesystems.iter_mut().filter(|m| m.method == Method::Sync) {
            if flushed.is_ok() {
                flushed = flush::quiesce(&self.kernel, filesystem, &mut self.flushing, interrupt).await;
            }
        }
        for witness in &mut self.idle {
            witness.take_baseline(&self.kernel);
        }
        let shut = gate::shut();
        let before_others = thread::before_others();
        let started = Instant::now();
        let times = Times { started: Timestamp::now(), ..Times::default() };
        let limits = self.limits;
        if let Err(e) = flushed {
            let frozen = Frozen {
                window: Some(self),
                started,
                times,
                gate: Some(shut),
                before_others: Some(before_others),
            };
            return Err({ frozen }
                .fail(match e {
                    FlushError::Interrupted(signal) => FreezeFailure::Interrupted(signal),
                    other => FreezeFailure::Flush(other),
                })
                .await);
        }
        let armed = self.guard.arm(limits.window);
        if armed.is_ok()
            && let Some(rcu_expedited) = &mut self.rcu_expedited
        {
            rcu_expedited.raise(self.guard.page());
        }
        let mut frozen = Frozen {
            window: Some(self),
            started,
            times,
            gate: Some(shut),
            before_others: Some(before_others),
        };
        if armed.is_err() {
            return Err(frozen.fail(FreezeFailure::WatchdogLost).await);
        }
        let waves = frozen.freeze_waves(interrupt, limits.freeze).await;
        frozen.put_back();
        match waves {
            Ok(()) => {
                frozen.take_baselines();
                frozen.times.frozen = Some(Timestamp::now());
                Ok(frozen)
            }
            Err(cause) => Err(frozen.fail(cause).await),
        }
    }
}

/// Filesystems frozen, deadline running.
#[derive(Debug)]
#[must_use = "dropping thaws; call thaw to learn whether the freeze held"]
pub struct Frozen {
    window: Option<Prepared>,
    started: Instant,
    times: Times,
    gate: Option<gate::Shut>,
    /// For as long as something is frozen.
    before_others: Option<BeforeOthers>,
}

impl Frozen {
    async fn freeze_waves(&self, interrupt: &mut Interrupt, limit: Duration) -> Result<(), FreezeFailure> {
        let Some(window) = &self.window else { return Ok(()) };
        let end = self.started + limit;
        let mut waves: Vec<Wave> = window.filesystems.iter().map(|m| m.wave).collect();
        waves.sort_unstable();
        waves.dedup();
        for wave in waves {
            let indices: Vec<usize> =
                window.filesystems.iter().filter(|m| m.wave == wave).filter_map(|m| m.freezer).collect();
            window.freezers.freeze(&indices);
            let settled = window
                .freezers
                .board()
                .wait(|reports| indices.iter().all(|&i| reports[i] != Report::Freezing));
            tokio::select! {
                biased;
                reports = settled => window.check(&indices, &reports)?,
                signal = interrupt.caught() => return Err(FreezeFailure::Interrupted(signal)),
                () = window.guard.lost() => return Err(FreezeFailure::WatchdogLost),
                () = tokio::time::sleep_until(end.into()) => {
                    return Err(FreezeFailure::TooLong { limit, stuck: window.stuck() });
                }
            }
        }
        Ok(())
    }

    /// Puts `rcu_expedited` back as soon as everything is frozen: FITHAW waits for no RCU grace period.
    fn put_back(&mut self) {
        if let Some(rcu_expedited) = self.window.as_mut().and_then(|w| w.rcu_expedited.as_mut()) {
            rcu_expedited.put_back();
        }
    }

    /// The wall-clock times so far.
    #[must_use]
    pub fn times(&self) -> Times {
        self.times
    }

    /// Reads the write counters of what is now frozen, until two readings agree.
    ///
    /// The block layer counts what a write has written *before* it wakes whoever waits for it (blk_update_request
    /// and blk_complete_request: blk_account_io_completion, then bio_endio; device mapper and md: bio_end_io_acct,
    /// then bio_endio), so what FIFREEZE has waited for is counted. Where that were not so, the second reading
    /// would be apart from the first. It is done before the request is sent: while EC2 answers, nobody could tell
    /// such a write from one that was made while frozen.
    fn take_baselines(&mut self) {
        let Some(window) = &mut self.window else { return };
        let frozen = window.filesystems.iter_mut().filter(|m| m.method == Method::Freeze);
        let mut witnesses: Vec<&mut Witness> = frozen.flat_map(|m| &mut m.witnesses).collect();
        for witness in &mut witnesses {
            witness.take_baseline(&window.kernel);
        }
        for _ in 0..SETTLING_READINGS {
            let late = witnesses.iter_mut().filter(|w| w.moved(&window.kernel, false).is_some());
            if late.map(|w| w.take_baseline(&window.kernel)).count() == 0 {
                break;
            }
            std::thread::sleep(SETTLING_TIME);
        }
    }

    /// Keeps everything frozen while `request` runs: the one thing that happens between the last FIFREEZE and
    /// the first FITHAW.
    pub async fn call<T>(
        &mut self,
        interrupt: &mut Interrupt,
        request: impl Future<Output = T>,
    ) -> Called<T> {
        let Some(window) = &self.window else { return Called::WatchdogLost(Lost(None)) };
        let end = self.started + window.limits.own_deadline();
        self.times.requested = Some(Timestamp::now());
        let ended = tokio::select! {
            biased;
            ended = request => Called::Returned(ended),
            signal = interrupt.caught() => Called::Interrupted(signal),
            () = window.guard.lost() => Called::WatchdogLost(Lost(window.guard.fired())),
            // A process that was stopped meanwhile may hear of the time first.
            () = tokio::time::sleep_until(end.into()) => match window.guard.fired() {
                None => Called::RanOut,
                fired => Called::WatchdogLost(Lost(fired)),
            },
        };
        if matches!(ended, Called::Returned(_)) {
            self.times.responded = Some(Timestamp::now());
        }
        ended
    }

    /// Thaws everything at once and says whether the freeze held until here, as far as that is known before
    /// the answers of the [`Recheck`].
    pub async fn thaw(mut self) -> (Thawed, Recheck) {
        let (thawed, checks) = self.thaw_now().await;
        (thawed, Recheck::start(checks))
    }

    async fn fail(&mut self, cause: FreezeFailure) -> Box<NotFrozen> {
        Box::new(NotFrozen { cause, thawed: self.thaw_now().await.0 })
    }

    async fn thaw_now(&mut self) -> (Thawed, Vec<Check>) {
        // Read while `Drop` still owns the window: should this panic, `Drop` thaws before the process can
        // end.
        let Some((fired_before, moved)) = self.window.as_ref().map(|w| (w.guard.fired(), w.moved())) else {
            return Default::default();
        };
        let Some(window) = self.window.take() else { return Default::default() };
        window.freezers.thaw_all();
        let all_back = |reports: &[Report]| !reports.iter().any(|r| r.may_be_frozen());
        let board = Arc::clone(window.freezers.board());
        let _ = tokio::time::timeout(THAW_LIMIT, board.wait(all_back)).await;
        let reports = board.read();
        let stuck = reports.iter().any(|r| r.may_be_frozen());
        let (now, elapsed) = (Timestamp::now(), self.started.elapsed());
        // The last FITHAW may be the watchdog's, long before this process was run again.
        let last = board.stamps().iter().filter_map(|s| s.thawed).max().filter(|_| !stuck);
        let length = last.map_or(elapsed, |last| last.duration_since(self.started));
        self.times.thawed = Some(now.checked_sub(elapsed.saturating_sub(length)).unwrap_or(now));
        // Not for the threads that ask and tell what follows.
        self.before_others = None;
        match self.gate.take() {
            // A write to a frozen filesystem would hang for good, and with it the report of code 40.
            Some(gate) if stuck && window.stderr_may_block(&reports) => gate.leak(),
            gate => drop(gate), // the log may flow again
        }
        window.finish(&reports, fired_before, moved, self.times, length)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(mut window) = self.window.take() {
            window.freezers.thaw_all();
            let reports = window
                .freezers
                .board()
                .wait_blocking(THAW_LIMIT, |reports| !reports.iter().any(|r| r.may_be_frozen()));
            if reports.iter().any(|r| r.may_be_frozen()) {
                // The watchdog stays: the closing socket makes it fire.
                LEFT_FROZEN.store(true, Ordering::SeqCst);
                if window.stderr_may_block(&reports)
                    && let Some(gate) = self.gate.take()
                {
                    gate.leak();
                }
            } else {
                window.guard.dismiss();
            }
        }
    }
}
