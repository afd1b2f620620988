//! One small thread a superblock: it has it frozen, it has it thawed, it says how that went.
//!
//! In: an open fd a filesystem, made before the window. Out: a [`Report`] a filesystem on the [`Board`]. Must
//! never: open, allocate much, log or close anything while frozen, thaw what it did not freeze, or leave a
//! filesystem frozen that became frozen after the run was aborted.
//!
//! A FIFREEZE in progress cannot be aborted (it waits in D state for writers inside and ignores SIGKILL), so
//! another process makes the call, the freezer, and every thread checks the abort flag the moment FIFREEZE
//! returns, and thaws at once when it is set.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::Notify;

use super::clock::boottime_ns;
use super::delegated::Delegate;
use super::guard::Guard;
use super::state::State;
use crate::host::kernel::{Kernel, SharedPage, touch_stack};
use crate::host::thread::{self, STACK};

/// The state of one filesystem, as its thread reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Not told to freeze.
    Waiting,
    /// Told to freeze, FIFREEZE has not returned.
    Freezing,
    /// Frozen; how long FIFREEZE took.
    Frozen(Duration),
    /// FIFREEZE failed; it is not frozen by us.
    Failed(Errno),
    /// FITHAW returned 0: frozen by us all the time until then, as far as FITHAW can tell.
    Thawed,
    /// FITHAW said it was not frozen: somebody else thawed it meanwhile.
    ThawedByOther,
    /// FITHAW keeps failing with this; still tried.
    ThawFails(Errno),
}

impl Report {
    /// May the filesystem be frozen by us right now?
    #[must_use]
    pub fn may_be_frozen(self) -> bool {
        matches!(self, Self::Freezing | Self::Frozen(_) | Self::ThawFails(_))
    }
}

/// When what happened to one filesystem, by the monotonic clock: it is read without entering the kernel
/// (vDSO), so that may be done while frozen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// Just before the FIFREEZE that froze it, or that is still in progress: from here on writers wait.
    pub begun: Option<Instant>,
    /// FIFREEZE had returned.
    pub frozen: Option<Instant>,
    /// FITHAW had returned, with success or because somebody else had thawed it.
    pub thawed: Option<Instant>,
}

impl Stamps {
    /// How long writers had to wait at most; none while it may be frozen, or when it never was.
    #[must_use]
    pub fn stalled(&self) -> Option<Duration> {
        Some(self.thawed?.duration_since(self.begun?))
    }

    /// How long FIFREEZE took.
    #[must_use]
    pub fn freeze(&self) -> Option<Duration> {
        Some(self.frozen?.duration_since(self.begun?))
    }
}

/// Where the threads report. Blocking readers use the condition variable, asynchronous ones the notification.
#[derive(Debug, Default)]
pub(crate) struct Board {
    reports: Mutex<Vec<Report>>,
    /// As many as reports, from before the window.
    stamps: Mutex<Vec<Stamps>>,
    changed: Condvar,
    notify: Notify,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        // A panicking reader leaves plain data behind; the window must go on.
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, report: Report) {
        let mut reports = self.lock();
        let Some(slot) = reports.get_mut(index) else { return };
        *slot = report;
        // Whoever waits has nothing to do before the last one has told: with many filesystems, waking it for each
        // would take the processor from those that are not there yet.
        let last = match report {
            Report::Thawed | Report::ThawedByOther => !reports.iter().any(|r| r.may_be_frozen()),
            _ => !reports.contains(&Report::Freezing),
        };
        drop(reports);
        self.changed.notify_all();
        if last {
            self.notify.notify_one();
        }
    }

    fn stamp(&self, index: usize, write: impl FnOnce(&mut Stamps)) {
        if let Some(slot) = self.stamps.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            write(slot);
        }
    }

    /// When what happened, one entry a filesystem.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All reports as they stand.
    #[must_use]
    pub fn read(&self) -> Vec<Report> {
        self.lock().clone()
    }

    /// Waits, blocking, until `done` or the time is over; the reports as they then stand.
    pub fn wait_blocking(&self, limit: Duration, done: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        let end = Instant::now() + limit;
        let mut reports = self.lock();
        while !done(&reports) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            reports = self.changed.wait_timeout(reports, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        reports.clone()
    }

    /// Waits until `done`. One task at a time.
    pub async fn wait(&self, done: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        loop {
            let reports = self.read();
            if done(&reports) {
                return reports;
            }
            self.notify.notified().await;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Freeze,
    Thaw,
}

/// How long somebody else's freeze (EBUSY) is waited for.
pub(crate) const BUSY_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two tries of FIFREEZE (EBUSY) or FITHAW (errors).
const RETRY: Duration = Duration::from_millis(20);

/// The freezing threads, ready and waiting.
#[derive(Debug)]
pub(crate) struct Freezers {
    orders: Vec<Sender<Order>>,
    delegate: Option<Arc<Delegate>>,
    board: Arc<Board>,
    abort: Arc<AtomicBool>,
}

impl Freezers {
    /// Starts one thread for each filesystem, given by any fd of it; thread `i` uses word `i` of the page.
    ///
    /// # Errors
    /// When a thread cannot be started. None has touched its filesystem then.
    pub fn start(
        kernel: &Arc<dyn Kernel>,
        guard: &dyn Guard,
        filesystems: &[Arc<OwnedFd>],
    ) -> std::io::Result<Self> {
        let board = Arc::new(Board::default());
        board.lock().resize(filesystems.len(), Report::Waiting);
        board
            .stamps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resize(filesystems.len(), Stamps::default());
        let abort = Arc::new(AtomicBool::new(false));
        let mut orders = Vec::with_capacity(filesystems.len());
        for (index, fd) in filesystems.iter().enumerate() {
            let (send, receive) = channel();
            let worker = Worker {
                index,
                fd: Arc::clone(fd),
                kernel: Arc::clone(kernel),
                delegate: guard.delegate(),
                page: Arc::clone(guard.page()),
                board: Arc::clone(&board),
                abort: Arc::clone(&abort),
            };
            std::thread::Builder::new().name(format!("freeze-{index}")).stack_size(STACK).spawn(
                move || {
                    touch_stack();
                    thread::before_others().for_good();
                    while catch_unwind(AssertUnwindSafe(|| worker.run(&receive))).is_err() {
                        worker.after_panic();
                    }
                },
            )?;
            orders.push(send);
        }
        Ok(Self { orders, delegate: guard.delegate(), board, abort })
    }

    /// The reports of all threads.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Orders the threads with these indices to freeze.
    pub fn freeze(&self, indices: &[usize]) {
        for &index in indices {
            self.board.set(index, Report::Freezing);
            self.order(index, Order::Freeze);
        }
    }

    /// Tells all to thaw; those still inside FIFREEZE thaw the moment it returns. Can be called again.
    pub fn thaw_all(&self) {
        let again = self.abort.swap(true, Ordering::SeqCst);
        if let Some(delegate) = self.delegate.as_ref().filter(|_| !again) {
            // What is still being frozen is thawed by its thread.
            let reports = self.board.read();
            let frozen = reports.iter().enumerate().filter(|(_, r)| matches!(r, Report::Frozen(_)));
            frozen.for_each(|(index, _)| delegate.begin_thaw(index));
        }
        for index in 0..self.orders.len() {
            self.order(index, Order::Thaw);
        }
    }

    fn order(&self, index: usize, order: Order) {
        // A thread ends only when this value goes, so a failed send means it panicked: the watchdog has it
        // then.
        if let Some(Err(_)) = self.orders.get(index).map(|o| o.send(order)) {
            self.board.set(index, Report::ThawFails(Errno::ESRCH));
        }
    }
}

struct Worker {
    index: usize,
    fd: Arc<OwnedFd>,
    kernel: Arc<dyn Kernel>,
    delegate: Option<Arc<Delegate>>,
    page: Arc<SharedPage>,
    board: Arc<Board>,
    abort: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, orders: &Receiver<Order>) {
        let mut ours = false;
        while let Ok(order) = orders.recv() {
            match order {
                Order::Freeze if !self.aborted() => ours = self.freeze(),
                Order::Freeze => self.board.set(self.index, Report::Failed(Errno::ECANCELED)),
                Order::Thaw if ours => {
                    ours = false;
                    self.thaw();
                }
                Order::Thaw => {}
            }
        }
        // The owner went away without ordering a thaw: never leave it frozen.
        if ours {
            self.thaw();
        }
    }

    /// A panic must not leave it frozen until the watchdog's deadline, nor be taken for a freeze that held.
    fn after_panic(&self) {
        let freezing = self.board.read().get(self.index) == Some(&Report::Freezing);
        let report = match self.read_state() {
            State::Freezing | State::Frozen => self.thaw_at_last(),
            _ => Report::ThawedByOther,
        };
        // Only one report is made, because the run continues with the first that is not `Freezing`.
        self.board.set(self.index, if freezing { Report::Failed(Errno::EIO) } else { report });
    }

    fn aborted(&self) -> bool {
        self.abort.load(Ordering::SeqCst) || self.page.fired.load(Ordering::SeqCst) != 0
    }

    fn state(&self, state: State) {
        self.page.states[self.index].store(state as u32, Ordering::SeqCst);
    }

    fn read_state(&self) -> State {
        State::from_word(self.page.states[self.index].load(Ordering::SeqCst))
    }

    /// Freezes. True when the filesystem is frozen by this run and has to be thawed on an order.
    fn freeze(&self) -> bool {
        let start = Instant::now();
        loop {
            self.state(State::Freezing);
            // Set anew at each try: until FIFREEZE is accepted, writers wait because of somebody else's
            // freeze.
            self.board.stamp(self.index, |s| s.begun = Some(Instant::now()));
            match self.fifreeze() {
                Ok(()) => {
                    self.state(State::Frozen);
                    self.board.stamp(self.index, |s| s.frozen = Some(Instant::now()));
                    if self.aborted() {
                        self.thaw();
                        return false;
                    }
                    self.board.set(self.index, Report::Frozen(start.elapsed()));
                    return true;
                }
                Err(Errno::EBUSY) if start.elapsed() < BUSY_LIMIT && !self.aborted() => {
                    self.state(State::Idle); // this freeze is somebody else's: not for the watchdog
                    std::thread::sleep(RETRY);
                }
                Err(errno) => {
                    if errno == Errno::EOWNERDEAD {
                        // Whether FIFREEZE had succeeded, the freezer has not told. Until it is known to be
                        // thawed, it counts as frozen.
                        self.thaw_at_last();
                    }
                    self.state(State::Idle);
                    self.board.set(self.index, Report::Failed(errno));
                    return false;
                }
            }
        }
    }

    fn fifreeze(&self) -> nix::Result<()> {
        let fd = self.fd.as_fd();
        let Some(delegate) = &self.delegate else { return self.kernel.freeze(fd) };
        self.kernel.freeze_delegated(fd, &|| delegate.freeze(self.index, || self.aborted()))
    }

    fn fithaw(&self) -> nix::Result<()> {
        let fd = self.fd.as_fd();
        let Some(delegate) = &self.delegate else { return self.kernel.thaw(fd) };
        self.kernel.thaw_delegated(fd, &|| delegate.thaw(self.index))
    }

    /// How long ago the watchdog thawed: this thread may have been stopped since.
    fn since_watchdog(&self) -> Duration {
        let at = self.page.thawed_at.load(Ordering::SeqCst);
        Duration::from_nanos(boottime_ns().saturating_sub(at))
    }

    fn thaw(&self) {
        let report = self.thaw_at_last();
        self.board.set(self.index, report);
    }

    /// Thaws, and tries again until FITHAW succeeds or says that the filesystem is not frozen.
    fn thaw_at_last(&self) -> Report {
        loop {
            let by_watchdog = self.read_state() == State::ThawedByWatchdog;
            let said = self.fithaw();
            if matches!(said, Ok(()) | Err(Errno::EINVAL)) {
                let earlier =
                    if by_watchdog && said.is_err() { self.since_watchdog() } else { Duration::ZERO };
                self.board.stamp(self.index, |s| s.thawed = Instant::now().checked_sub(earlier));
            }
            match said {
                Ok(()) => {
                    self.state(State::Thawed);
                    return Report::Thawed;
                }
                Err(Errno::EINVAL) => {
                    self.state(State::Thawed);
                    if self.delegate.as_ref().is_some_and(|d| d.succeeded_late(self.index)) {
                        return Report::Thawed;
                    }
                    return Report::ThawedByOther;
                }
                Err(errno) => {
                    self.board.set(self.index, Report::ThawFails(errno));
                    std::thread::sleep(RETRY);
                }
            }
        }
    }
}
