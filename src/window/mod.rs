//! The frozen window, as a value that can only go forward.
//!
//! ```text
//! open ──▶ Prepared ──freeze──▶ Frozen ──thaw──▶ Thawed
//!              │ error             │ drop: thaws too
//!              ▼                   ▼
//!          nothing frozen      nothing frozen
//! ```
//!
//! In: the plan's filesystems. Out: [`Thawed`], with the evidence whether the freeze held. Must never: let go of a
//! frozen filesystem, or do anything between the last FIFREEZE and the first FITHAW but hold the caller's one call.
//! Guards, from the inside out: explicit thaw, `Drop`, the watchdog process, the journal in /run.

mod ask;
pub mod clock;
pub mod expedite;
mod flush;
pub mod freeze;
pub mod guard;
pub mod kernel;
mod member;
mod memory;
pub mod probe;
pub mod superblock;
mod thawed;
pub mod unmount;
pub mod watchdog;
pub mod witness;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;

use self::expedite::{Former, Knob};
pub use self::flush::FlushError;
use self::freeze::{Freezers, Report, Subject};
use self::guard::{Guard, GuardError};
use self::kernel::Kernel;
use self::member::{Member, open_all, open_witnesses};
pub use self::thawed::{Stall, Thawed, Times};
use self::witness::{Moved, Witness};
use crate::discover::processes::{self, Listener};
use crate::gate;
use crate::interrupt::Interrupt;
use crate::plan::{Method, Plan, Wave};

/// Between two looks at the write counters that have to agree.
const SETTLING_TIME: Duration = Duration::from_millis(3);
/// Most looks after the first.
const SETTLING_LOOKS: u32 = 20;

/// How long a thaw is waited for before the run says that a filesystem may still be frozen.
const THAW_LIMIT: Duration = Duration::from_secs(5);

/// Set when a window was dropped, by a panic, and something may still be frozen: `main` then exits 40, not 70.
pub static LEFT_FROZEN: AtomicBool = AtomicBool::new(false);

/// Limits of the window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hard deadline, held by the watchdog: from before the first FIFREEZE.
    pub window: Duration,
    /// Longest time all freezing may take.
    pub freeze: Duration,
    /// Longest time that flushing before may take.
    pub flush: Duration,
}

impl Limits {
    /// When the agent itself gives up, a little before the watchdog has to.
    #[must_use]
    pub fn own_deadline(&self) -> Duration {
        let margin = (self.window / 10).clamp(Duration::from_millis(20), Duration::from_millis(200));
        self.window.saturating_sub(margin)
    }
}

/// What not every window has.
#[derive(Debug, Default)]
pub struct Extras {
    /// `rcu_expedited`, raised while FIFREEZE runs.
    pub knob: Option<Knob>,
    /// What the watchdog starts once everything is thawed because the agent is gone: a program and its arguments.
    pub afterwards: Option<Vec<PathBuf>>,
}

/// Why the window never opened. Nothing is frozen.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A mount point could not be opened.
    #[error("cannot open {} ({fstype})", mount_point.display())]
    Open {
        /// The mount point.
        mount_point: PathBuf,
        /// Its filesystem type.
        fstype: String,
        /// Why.
        source: Errno,
    },
    /// Opening a file does not come back: something that is asked for leave does not answer.
    #[error("opening {} takes longer than {}{}", path.display(), humantime::format_duration(*limit), asked(suspects))]
    OpenHangs {
        /// What was opened.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
        /// Processes that the kernel asks for leave at each open.
        suspects: Vec<Listener>,
    },
    /// The mount point now leads to another filesystem than the plan saw.
    #[error("{} is not the filesystem that was planned (device {found}, planned {planned})", mount_point.display())]
    Changed {
        /// The mount point.
        mount_point: PathBuf,
        /// What the plan saw.
        planned: crate::ids::DevNo,
        /// What is there now.
        found: String,
    },
    /// Not everything was flushed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A write counter could not be opened.
    #[error("cannot watch the write counter of {device}")]
    Witness {
        /// Kernel name.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// No watchdog, no freeze.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A thread could not be started.
    #[error("cannot start a freezing thread")]
    Thread(#[source] std::io::Error),
}

impl PrepareError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OpenHangs { suspects, .. } if suspects.is_empty() => Some(
                "nothing is frozen; look for processes in state D (ps -eo pid,stat,wchan,comm)".to_owned(),
            ),
            Self::OpenHangs { .. } => Some(
                "nothing is frozen; restart or stop that process, or let it leave this filesystem alone; \
                 `stillpoint doctor` lists every such listener"
                    .to_owned(),
            ),
            Self::Flush(e) => e.hint(),
            _ => None,
        }
    }
}

fn asked(suspects: &[Listener]) -> String {
    if suspects.is_empty() {
        return String::new();
    }
    let names: Vec<_> = suspects.iter().map(|l| l.process.to_string()).collect();
    format!("; who answers for opens by fanotify: {}", names.join(", "))
}

/// Why the freeze was not completed; everything that was frozen has been thawed, as `thawed` says.
#[derive(Debug)]
pub struct NotFrozen {
    /// What went wrong.
    pub cause: FreezeFailure,
    /// How thawing the others went.
    pub thawed: Thawed,
}

/// What went wrong while freezing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreezeFailure {
    /// FIFREEZE said no.
    #[error("cannot freeze {} ({fstype}): {}", mount_point.display(), errno.desc())]
    Refused {
        /// The mount point.
        mount_point: PathBuf,
        /// Its filesystem type.
        fstype: String,
        /// The error.
        errno: Errno,
    },
    /// FIFREEZE did not return in time.
    #[error("freezing took longer than {}: {}", humantime::format_duration(*limit), list(stuck))]
    TooLong {
        /// The limit, `freeze_timeout`.
        limit: Duration,
        /// Mount points still inside FIFREEZE.
        stuck: Vec<PathBuf>,
    },
    /// What cannot freeze was not flushed; nothing was frozen.
    #[error(transparent)]
    Flush(FlushError),
    /// The watchdog fired or died.
    #[error("the watchdog is gone or has fired")]
    WatchdogLost,
    /// A signal came.
    #[error("interrupted by {0}")]
    Interrupted(nix::sys::signal::Signal),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// How the held call ended.
#[derive(Debug)]
pub enum Held<T> {
    /// It returned.
    Ended(T),
    /// The window ran out first.
    RanOut,
    /// The watchdog fired or died.
    WatchdogLost,
    /// A signal came.
    Interrupted(nix::sys::signal::Signal),
}

/// Everything open, flushed and guarded; nothing frozen.
#[derive(Debug)]
#[must_use = "a prepared window does nothing until it is frozen"]
pub struct Prepared {
    kernel: Arc<dyn Kernel>,
    members: Vec<Member>,
    /// Devices without a frozen filesystem, on volumes of the set.
    idle: Vec<Witness>,
    guard: Guard,
    freezers: Freezers,
    limits: Limits,
    knob: Option<Knob>,
}

impl Prepared {
    /// Opens every filesystem, flushes all of them in parallel, starts the watchdog and the freezing threads.
    ///
    /// `program` is the binary to start as the watchdog. Waits as long as flushing takes.
    ///
    /// # Errors
    /// When anything is missing, or a signal comes. Nothing is frozen then.
    pub async fn open(
        kernel: &Arc<dyn Kernel>,
        plan: &Plan,
        limits: Limits,
        program: &Path,
        interrupt: &mut Interrupt,
        extras: Extras,
    ) -> Result<Self, PrepareError> {
        let mut members = open_all(kernel, &plan.filesystems)?;
        let mut idle = open_witnesses(&plan.witnesses)?;
        // Its device is claimed; nothing is there to freeze, and the watchdog has nothing to do.
        for away in plan.filesystems.iter().filter(|f| f.method == Method::Unmount) {
            idle.extend(open_witnesses(&away.witnesses)?);
        }
        flush::all(kernel, &mut members, limits.flush, interrupt).await?;
        let (mut fds, mut subjects) = (Vec::new(), Vec::new());
        for member in members.iter_mut().filter(|m| m.method == Method::Freeze) {
            member.freezer = Some(fds.len());
            fds.push(Arc::clone(&member.fd));
            subjects.push(Subject { fd: Arc::clone(&member.fd), elsewhere: ask::is_for(&member.fstype) });
        }
        let (mut guard, knob) = start_guard(program, &fds, extras)?;
        let freezers = match Freezers::start(kernel, guard.page(), subjects) {
            Ok(freezers) => freezers,
            Err(e) => {
                guard.dismiss(); // else it would stay for as long as this process does
                return Err(PrepareError::Thread(e));
            }
        };
        let mut prepared = Self { kernel: Arc::clone(kernel), members, idle, guard, freezers, limits, knob };
        if let Err(e) = flush::again(kernel, &mut prepared.members, limits.flush, interrupt).await {
            prepared.dismiss();
            return Err(e.into());
        }
        memory::lock();
        Ok(prepared)
    }

    /// What the journal has to know to put `rcu_expedited` back.
    #[must_use]
    pub fn expedited(&self) -> Option<Former> {
        self.knob.as_ref().map(|k| k.former().clone())
    }

    /// The watchdog's process id.
    #[must_use]
    pub fn watchdog(&self) -> u32 {
        self.guard.pid()
    }

    /// Ends without freezing.
    pub fn dismiss(mut self) {
        self.guard.dismiss();
    }

    /// Freezes wave by wave. The watchdog's deadline runs from here.
    ///
    /// # Errors
    /// When a freeze fails, takes too long, or the run is interrupted; everything is thawed again then.
    pub async fn freeze(mut self, interrupt: &mut Interrupt) -> Result<Frozen, Box<NotFrozen>> {
        // Filesystems that cannot freeze: flush once more, then hold them to their write counters from here on.
        let mut flushed = Ok(());
        for member in self.members.iter_mut().filter(|m| m.method == Method::Sync) {
            if flushed.is_ok() {
                flushed = flush::quiesce(&self.kernel, member, self.limits.flush, interrupt).await;
            }
        }
        for witness in &mut self.idle {
            witness.look(&self.kernel);
        }
        let shut = gate::shut();
        let started = Instant::now();
        let times = Times { started: Timestamp::now(), ..Times::default() };
        let limits = self.limits;
        if let Err(e) = flushed {
            let frozen = Frozen { window: Some(self), started, times, gate: Some(shut) };
            return Err({ frozen }
                .fail(match e {
                    FlushError::Interrupted(signal) => FreezeFailure::Interrupted(signal),
                    other => FreezeFailure::Flush(other),
                })
                .await);
        }
        let armed = self.guard.arm(limits.window);
        if armed.is_ok()
            && let Some(knob) = &mut self.knob
        {
            knob.raise(self.guard.page());
        }
        let mut frozen = Frozen { window: Some(self), started, times, gate: Some(shut) };
        if armed.is_err() {
            return Err(frozen.fail(FreezeFailure::WatchdogLost).await);
        }
        let waves = frozen.freeze_waves(interrupt, limits.freeze).await;
        frozen.put_back();
        match waves {
            Ok(()) => {
                frozen.look();
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
}

impl Frozen {
    async fn freeze_waves(&self, interrupt: &mut Interrupt, limit: Duration) -> Result<(), FreezeFailure> {
        let Some(window) = &self.window else { return Ok(()) };
        let end = self.started + limit;
        let mut waves: Vec<Wave> = window.members.iter().map(|m| m.wave).collect();
        waves.sort_unstable();
        waves.dedup();
        for wave in waves {
            let indices: Vec<usize> =
                window.members.iter().filter(|m| m.wave == wave).filter_map(|m| m.freezer).collect();
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

    /// FITHAW waits for no grace period: the host has `rcu_expedited` as it was as soon as everything is frozen.
    fn put_back(&mut self) {
        if let Some(knob) = self.window.as_mut().and_then(|w| w.knob.as_mut()) {
            knob.put_back();
        }
    }

    /// When what happened, so far.
    #[must_use]
    pub fn times(&self) -> Times {
        self.times
    }

    /// First look at the write counters of what is now frozen: until two looks agree.
    ///
    /// A completed write is neither in flight nor counted until the thread that completed it has run on. On NVMe that is an interrupt; a
    /// loop device has a worker for it, which the waiter that it woke may have pushed aside.
    fn look(&mut self) {
        let Some(window) = &mut self.window else { return };
        let frozen = window.members.iter_mut().filter(|m| m.method == Method::Freeze);
        let mut witnesses: Vec<&mut Witness> = frozen.flat_map(|m| &mut m.witnesses).collect();
        for witness in &mut witnesses {
            witness.look(&window.kernel);
        }
        for _ in 0..SETTLING_LOOKS {
            std::thread::sleep(SETTLING_TIME);
            let late = witnesses.iter_mut().filter(|w| w.moved(&window.kernel, false).is_some());
            if late.map(|w| w.look(&window.kernel)).count() == 0 {
                break;
            }
        }
    }

    /// Holds the freeze while `call` runs: the one thing that happens between the last FIFREEZE and the first FITHAW.
    pub async fn hold<T>(&mut self, interrupt: &mut Interrupt, call: impl Future<Output = T>) -> Held<T> {
        let Some(window) = &self.window else { return Held::WatchdogLost };
        let end = self.started + window.limits.own_deadline();
        self.times.requested = Some(Timestamp::now());
        let ended = tokio::select! {
            biased;
            ended = call => Held::Ended(ended),
            signal = interrupt.caught() => Held::Interrupted(signal),
            () = window.guard.lost() => Held::WatchdogLost,
            () = tokio::time::sleep_until(end.into()) => Held::RanOut,
        };
        if matches!(ended, Held::Ended(_)) {
            self.times.responded = Some(Timestamp::now());
        }
        ended
    }

    /// Thaws everything at once and says whether the freeze held until here.
    pub async fn thaw(mut self) -> Thawed {
        self.thaw_now().await
    }

    async fn fail(&mut self, cause: FreezeFailure) -> Box<NotFrozen> {
        Box::new(NotFrozen { cause, thawed: self.thaw_now().await })
    }

    async fn thaw_now(&mut self) -> Thawed {
        // Looked at while `Drop` still owns the window: whatever happens here, it waits for the thaw before the process can end.
        let Some((fired_before, moved)) = self.window.as_ref().map(|w| (w.guard.fired(), w.moved())) else {
            return Thawed::default();
        };
        let Some(window) = self.window.take() else { return Thawed::default() };
        window.freezers.thaw_all();
        let all_back = |reports: &[Report]| !reports.iter().any(|r| r.may_be_frozen());
        let board = Arc::clone(window.freezers.board());
        let _ = tokio::time::timeout(THAW_LIMIT, board.wait(all_back)).await;
        let reports = board.read();
        self.times.thawed = Some(Timestamp::now());
        let length = self.started.elapsed();
        let stuck = reports.iter().any(|r| r.may_be_frozen());
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

/// Starts the watchdog in a thread, since exec opens files too and may be kept waiting as [`open_all`] may.
fn start_guard(
    program: &Path,
    fds: &[Arc<OwnedFd>],
    extras: Extras,
) -> Result<(Guard, Option<Knob>), PrepareError> {
    let runtime = tokio::runtime::Handle::current();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let (path, fds) = (program.to_path_buf(), fds.to_vec());
    std::thread::Builder::new()
        .name("start-watchdog".to_owned())
        .stack_size(256 * 1024) // the C library keeps it, and mlockall pins it
        .spawn(move || {
            let _runtime = runtime.enter();
            let Extras { knob, afterwards } = extras;
            let started = Guard::start(&path, &fds, knob.as_ref(), afterwards.as_deref());
            let _ = tell.send((started, knob));
        })
        .map_err(PrepareError::Thread)?;
    // The watchdog itself has a limit of its own to get ready.
    let limit = member::OPEN_LIMIT + Duration::from_secs(10);
    match told.recv_timeout(limit) {
        Ok((started, knob)) => Ok((started?, knob)),
        Err(_) => Err(PrepareError::OpenHangs {
            path: program.to_path_buf(),
            limit,
            suspects: processes::asking(Path::new("/")),
        }),
    }
}

impl Prepared {
    fn check(&self, indices: &[usize], reports: &[Report]) -> Result<(), FreezeFailure> {
        for member in &self.members {
            let Some(index) = member.freezer.filter(|i| indices.contains(i)) else { continue };
            let errno = match reports[index] {
                Report::Frozen(_) => continue,
                Report::Failed(errno) | Report::ThawFails(errno) => errno,
                _ => Errno::EIO, // its thread panicked
            };
            return Err(FreezeFailure::Refused {
                mount_point: member.mount_point.clone(),
                fstype: member.fstype.clone(),
                errno,
            });
        }
        Ok(())
    }

    fn stuck(&self) -> Vec<PathBuf> {
        let reports = self.freezers.board().read();
        let stuck = |m: &&Member| m.freezer.is_some_and(|i| reports[i] == Report::Freezing);
        self.members.iter().filter(stuck).map(|m| m.mount_point.clone()).collect()
    }

    fn stderr_may_block(&self, reports: &[Report]) -> bool {
        // It may have its own files on what is stuck, and its socket then fills up.
        if crate::report::log::to_journald() {
            return true;
        }
        let stuck = |m: &&Member| m.freezer.is_some_and(|i| reports[i].may_be_frozen());
        let stderr = superblock::of(std::io::stderr());
        stderr.is_some() && self.members.iter().filter(stuck).any(|m| superblock::of(&*m.fd) == stderr)
    }

    fn moved(&self) -> Vec<Moved> {
        let mut moved = Vec::new();
        for member in &self.members {
            let unfrozen = member.method != Method::Freeze;
            moved.extend(member.witnesses.iter().filter_map(|w| w.moved(&self.kernel, unfrozen)));
        }
        moved.extend(self.idle.iter().filter_map(|w| w.moved(&self.kernel, true)));
        moved
    }

    fn finish(
        mut self,
        reports: &[Report],
        fired: Option<watchdog::Trigger>,
        moved: Vec<Moved>,
        times: Times,
        length: Duration,
    ) -> Thawed {
        let mut thawed =
            Thawed { moved, times, length, fired: fired.or(self.guard.fired()), ..Thawed::default() };
        let stamps = self.freezers.board().stamps();
        for member in &self.members {
            let stamps = member.freezer.and_then(|i| stamps.get(i).copied()).unwrap_or_default();
            thawed.stalls.push(Stall {
                mount_point: member.mount_point.clone(),
                flush: member.flush,
                freeze: stamps.freeze(),
                stalled: stamps.stalled(),
            });
            if member.unsynced.is_some() {
                thawed.unsynced.push(member.mount_point.clone());
            }
            let Some(report) = member.freezer.map(|i| reports[i]) else { continue };
            match report {
                Report::Thawed => thawed.held.push(member.mount_point.clone()),
                Report::ThawedByOther => thawed.thawed_by_other.push(member.mount_point.clone()),
                r if r.may_be_frozen() => thawed.still_frozen.push(member.mount_point.clone()),
                _ => {}
            }
        }
        if thawed.still_frozen.is_empty() {
            self.guard.dismiss();
        }
        memory::unlock();
        thawed
    }
}
