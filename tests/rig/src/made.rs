//! A machine on which nothing is real but the files of a made host: a kernel and a watchdog for it.
//!
//! With [`Kernel`] and [`Watchdog`] a whole window, and a whole run, is walked in an ordinary test, without
//! root and in milliseconds. What only the real kernel and the real watchdog can show is in the tests that
//! need root.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use stillpoint::host::kernel::{self, Linux, SharedPage, WriteCounter};
use stillpoint::host::mountinfo::{self, MountTree};
use stillpoint::ids::DevNo;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Consistency, Plan, PlannedFilesystem, PointInTimeCall};
use stillpoint::window::Extras;
use stillpoint::window::guard::{Guard, GuardError, StartGuard};
use stillpoint::window::state::State;
use stillpoint::window::watchdog::Trigger;
use stillpoint::window::{Frozen, Thawed};

/// One call of [`Kernel`]: `open`, `sync`, `freeze` or `thaw`, and the mount point; `claim` or `open-device`,
/// and the device's number.
pub type Call = (&'static str, PathBuf);

/// A kernel that knows the mounts of a made host and freezes them in name only.
#[derive(Debug, Default)]
pub struct Kernel {
    root: PathBuf,
    /// Mount point and superblock of each open descriptor.
    open: Mutex<HashMap<i32, (PathBuf, DevNo)>>,
    frozen: Mutex<BTreeSet<DevNo>>,
    calls: Mutex<Vec<Call>>,
    /// Reads of devices, which every counter has counted.
    reads: AtomicU64,
    /// Counters count no more.
    blind: AtomicBool,
    /// A counter that every flush moves.
    moves: Mutex<Option<PathBuf>>,
    /// What a call answers instead of success.
    refusals: Mutex<HashMap<Call, Errno>>,
    /// The same, for one call.
    passing: Mutex<HashMap<Call, Errno>>,
    /// Calls that do not return.
    hanging: Mutex<BTreeSet<Call>>,
}

impl Kernel {
    /// Below the root of a made host.
    pub fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self { root: root.to_path_buf(), ..Self::default() })
    }

    /// From now on this call fails. FITHAW with EINVAL is what somebody else's thaw looks like.
    pub fn refuse(&self, call: &'static str, mount_point: impl Into<PathBuf>, errno: Errno) {
        self.refusals.lock().unwrap().insert((call, mount_point.into()), errno);
    }

    /// The next such call fails, and those after it do not: so the kernel reports a failed write-back.
    pub fn refuse_once(&self, call: &'static str, of: impl Into<PathBuf>, errno: Errno) {
        self.passing.lock().unwrap().insert((call, of.into()), errno);
    }

    /// From now on this call of a device does not return.
    pub fn hang(&self, call: &'static str, device: impl Into<PathBuf>) {
        self.hanging.lock().unwrap().insert((call, device.into()));
    }

    /// From now on no counter counts, or all do again.
    pub fn switch_off_counters(&self, off: bool) {
        self.blind.store(off, Ordering::SeqCst);
    }

    /// From now on every flush finds something to write, which this `stat` file counts.
    pub fn flush_moves(&self, stat: &Path) {
        *self.moves.lock().unwrap() = Some(stat.to_owned());
    }

    fn device(&self, call: &'static str, dev: DevNo) -> nix::Result<OwnedFd> {
        let name = PathBuf::from(dev.to_string());
        self.calls.lock().unwrap().push((call, name.clone()));
        while self.hanging.lock().unwrap().contains(&(call, name.clone())) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(errno) = self.passing.lock().unwrap().remove(&(call, name.clone())) {
            return Err(errno);
        }
        if let Some(errno) = self.refusals.lock().unwrap().get(&(call, name)) {
            return Err(*errno);
        }
        File::open(self.root.join("proc/self/mountinfo")).map(OwnedFd::from).map_err(|_| Errno::EIO)
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Mount points of which this call was made, in order.
    pub fn called(&self, call: &str) -> Vec<PathBuf> {
        self.calls().into_iter().filter(|(name, _)| *name == call).map(|(_, path)| path).collect()
    }

    /// Superblocks that are frozen now.
    pub fn frozen(&self) -> Vec<DevNo> {
        self.frozen.lock().unwrap().iter().copied().collect()
    }

    fn answer(&self, call: &'static str, fd: BorrowedFd<'_>) -> nix::Result<DevNo> {
        let (path, dev) = self.open.lock().unwrap().get(&fd.as_raw_fd()).cloned().ok_or(Errno::EBADF)?;
        self.calls.lock().unwrap().push((call, path.clone()));
        if let Some(errno) = self.passing.lock().unwrap().remove(&(call, path.clone())) {
            return Err(errno);
        }
        match self.refusals.lock().unwrap().get(&(call, path)) {
            Some(errno) => Err(*errno),
            None => Ok(dev),
        }
    }
}

impl kernel::Kernel for Kernel {
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        let table = std::fs::read(self.root.join("proc/self/mountinfo")).map_err(|_| Errno::EIO)?;
        let lines = mountinfo::parse(&table).lines;
        let dev = MountTree::new(&lines).mount_of(path).ok_or(Errno::ENOENT)?.dev;
        self.calls.lock().unwrap().push(("open", path.to_path_buf()));
        if let Some(errno) = self.refusals.lock().unwrap().get(&("open", path.to_path_buf())) {
            return Err(*errno);
        }
        // Any file will do: what it is on is what this kernel says.
        let fd = OwnedFd::from(File::open(self.root.join("proc/self/mountinfo")).map_err(|_| Errno::EIO)?);
        self.open.lock().unwrap().insert(fd.as_raw_fd(), (path.to_path_buf(), dev));
        Ok(fd)
    }

    fn freeze(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let dev = self.answer("freeze", fd)?;
        if self.frozen.lock().unwrap().insert(dev) { Ok(()) } else { Err(Errno::EBUSY) }
    }

    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        // Refused or not, nothing stays frozen that somebody has thawed.
        let answer = self.answer("thaw", fd);
        let dev = self.open.lock().unwrap().get(&fd.as_raw_fd()).map(|(_, dev)| *dev);
        let was = match answer {
            Ok(_) | Err(Errno::EINVAL) => dev.is_some_and(|d| self.frozen.lock().unwrap().remove(&d)),
            Err(errno) => return Err(errno),
        };
        answer.and(if was { Ok(()) } else { Err(Errno::EINVAL) })
    }

    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        self.answer("sync", fd)?;
        if let Some(stat) = &*self.moves.lock().unwrap() {
            let n = Linux.write_counter(&File::open(stat).unwrap()).unwrap().writes + 1;
            std::fs::write(stat, format!("0 0 0 0 {n} 0 {} 0 0 0 0\n", n * 8)).unwrap();
        }
        Ok(())
    }

    fn superblock(&self, fd: BorrowedFd<'_>) -> Option<DevNo> {
        self.open.lock().unwrap().get(&fd.as_raw_fd()).map(|(_, dev)| *dev)
    }

    fn lock_memory(&self) -> nix::Result<()> {
        Ok(())
    }

    fn unlock_memory(&self) -> nix::Result<()> {
        Ok(())
    }

    fn write_counter(&self, stat: &File) -> std::io::Result<WriteCounter> {
        // The made host has the file: a test that writes to it is a device that was written to.
        let mut counter = Linux.write_counter(stat)?;
        counter.reads += self.reads.load(Ordering::SeqCst);
        Ok(counter)
    }

    fn claim_device(&self, dev: DevNo) -> nix::Result<OwnedFd> {
        self.device("claim", dev)
    }

    fn open_device(&self, dev: DevNo) -> nix::Result<OwnedFd> {
        self.device("open-device", dev)
    }

    fn read_device(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        if !self.blind.load(Ordering::SeqCst) {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn flush_device(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        Ok(())
    }
}

/// A plan of these filesystems and nothing else.
pub fn plan(filesystems: Vec<PlannedFilesystem>) -> Plan {
    Plan {
        name: "test".into(),
        filesystems,
        volumes: vec![],
        witnesses: vec![],
        beneath: vec![],
        left_out: vec![],
        missing: vec![],
        call: PointInTimeCall::CreateSnapshot { volume: "vol-0123456789abcdef0".parse().unwrap() },
        expedite: stillpoint::plan::Expediting::default(),
        notes: vec![],
        best: Consistency::Filesystem,
    }
}

/// Thaws, and waits for the last checks.
pub async fn thawed(frozen: Frozen) -> Thawed {
    let (mut thawed, mut recheck) = frozen.thaw().await;
    recheck.tell(&mut thawed, Duration::from_secs(60), &mut Interrupt::never()).await;
    thawed
}

fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// Starts a watchdog that is a thread of this process: it keeps the deadline, and nothing else of what the
/// real one promises.
#[derive(Debug)]
pub struct Watchdog {
    kernel: Arc<Kernel>,
    unheard: bool,
}

impl Watchdog {
    /// One that thaws by this kernel.
    pub fn over(kernel: &Arc<Kernel>) -> Arc<dyn StartGuard> {
        Arc::new(Self { kernel: Arc::clone(kernel), unheard: false })
    }

    /// The same, and the agent does not hear that it fires: as an agent that was stopped, which hears of the
    /// time first.
    pub fn unheard(kernel: &Arc<Kernel>) -> Arc<dyn StartGuard> {
        Arc::new(Self { kernel: Arc::clone(kernel), unheard: true })
    }
}

impl StartGuard for Watchdog {
    fn start(&self, fds: &[Arc<OwnedFd>], _: &Extras) -> Result<Box<dyn Guard>, GuardError> {
        let (page, _memfd) = SharedPage::create().map_err(|source| GuardError::NotReady {
            who: "watchdog",
            what: "shared page",
            source,
        })?;
        let watched = Watched {
            page: Arc::new(page),
            fds: fds.to_vec(),
            kernel: Arc::clone(&self.kernel),
            deadline: Arc::default(),
            fired: Arc::default(),
            unheard: self.unheard,
        };
        let thread = watched.clone();
        std::thread::spawn(move || thread.watch());
        Ok(Box::new(watched))
    }

    fn program(&self) -> PathBuf {
        "/made/watchdog".into()
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum Deadline {
    #[default]
    None,
    At(Instant),
    Dismissed,
}

#[derive(Debug, Clone)]
struct Watched {
    page: Arc<SharedPage>,
    fds: Vec<Arc<OwnedFd>>,
    kernel: Arc<Kernel>,
    deadline: Arc<(Mutex<Deadline>, Condvar)>,
    fired: Arc<tokio::sync::Notify>,
    unheard: bool,
}

impl Watched {
    fn set(&self, deadline: Deadline) {
        *self.deadline.0.lock().unwrap() = deadline;
        self.deadline.1.notify_all();
    }

    fn watch(&self) {
        let mut deadline = self.deadline.0.lock().unwrap();
        loop {
            deadline = match *deadline {
                Deadline::Dismissed => return,
                Deadline::None => self.deadline.1.wait(deadline).unwrap(),
                Deadline::At(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.deadline.1.wait_timeout(deadline, left).unwrap().0
                }
            };
        }
        drop(deadline);
        self.page.fired.store(Trigger::Deadline as u32, Ordering::SeqCst);
        let may_be_frozen = |word: &AtomicU32| {
            matches!(State::from_word(word.load(Ordering::SeqCst)), State::Freezing | State::Frozen)
        };
        for (fd, word) in self.fds.iter().zip(&self.page.states).filter(|(_, word)| may_be_frozen(word)) {
            if kernel::Kernel::thaw(&*self.kernel, fd.as_fd()).is_ok() {
                self.page.thawed_at.store(boottime_ns(), Ordering::SeqCst);
                word.store(State::ThawedByWatchdog as u32, Ordering::SeqCst);
            }
        }
        if self.unheard {
            return;
        }
        self.fired.notify_waiters();
        self.fired.notify_one();
    }
}

impl Guard for Watched {
    fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn arm(&self, window: Duration) -> nix::Result<()> {
        self.set(Deadline::At(Instant::now() + window));
        Ok(())
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.fired.notified())
    }

    fn dismiss(&mut self) {
        self.set(Deadline::Dismissed);
    }
}
