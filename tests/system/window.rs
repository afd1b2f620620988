//! The window with a kernel that fails on request: whatever happens, nothing stays frozen and nothing is
//! claimed.
//!
//! The kernel is made up (the modules beside this one have the real one); the watchdog process is the real
//! binary.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use rig::made;
use stillpoint::host::kernel::{Kernel, Linux, WriteCounter};
use stillpoint::host::superblock;
use stillpoint::ids::DevNo;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Method, Plan, PlannedFilesystem, Wave, WitnessDevice};
use stillpoint::window::guard::StartGuard;
use stillpoint::window::guard::process::Program;
use stillpoint::window::{
    Called, Extras, FlushError, FreezeFailure, Limits, Machine, PrepareError, Prepared, Thawed,
};

#[derive(Debug, Clone, Copy, Default)]
enum Does {
    #[default]
    Works,
    Refuses(Errno),
    /// Refuses this often, then works.
    BusyFor(u32),
    /// FIFREEZE returns after this long, with success.
    Slow(Duration),
    Panics,
    /// syncfs does not return for this long, from its n-th call on.
    FlushHangs(Duration, usize),
    /// Somebody else thaws it: FITHAW says EINVAL.
    ThawedByOther,
}

/// A kernel on which only what the test says is true. Paths are folders on a memory filesystem.
#[derive(Debug, Default)]
struct Fake {
    does: Mutex<HashMap<PathBuf, Does>>,
    fds: Mutex<HashMap<i32, PathBuf>>,
    log: Mutex<Vec<(&'static str, PathBuf)>>,
    frozen: Mutex<Vec<PathBuf>>,
    writes: Mutex<u64>,
    reads: Mutex<u64>,
}

impl Fake {
    fn path(&self, fd: BorrowedFd<'_>) -> PathBuf {
        self.fds.lock().unwrap()[&fd.as_raw_fd()].clone()
    }

    fn note(&self, what: &'static str, path: &Path) {
        self.log.lock().unwrap().push((what, path.to_path_buf()));
    }
}

impl Kernel for Fake {
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        let fd = Linux.open(path)?;
        self.fds.lock().unwrap().insert(fd.as_raw_fd(), path.to_path_buf());
        Ok(fd)
    }

    fn freeze(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let path = self.path(fd);
        let does = self.does.lock().unwrap().get(&path).copied().unwrap_or_default();
        match does {
            Does::Refuses(errno) => return Err(errno),
            Does::BusyFor(0) | Does::Works | Does::ThawedByOther | Does::FlushHangs(..) => {}
            Does::BusyFor(n) => {
                self.does.lock().unwrap().insert(path, Does::BusyFor(n - 1));
                return Err(Errno::EBUSY);
            }
            Does::Slow(time) => std::thread::sleep(time),
            // Without the hook, whose backtrace can take longer than the freeze may.
            Does::Panics => std::panic::resume_unwind(Box::new("injected")),
        }
        self.note("freeze", &path);
        self.frozen.lock().unwrap().push(path);
        Ok(())
    }

    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let path = self.path(fd);
        self.note("thaw", &path);
        let mut frozen = self.frozen.lock().unwrap();
        let was = frozen.iter().position(|p| *p == path);
        if let Some(i) = was {
            frozen.remove(i);
        }
        match self.does.lock().unwrap().get(&path) {
            Some(Does::ThawedByOther) => Err(Errno::EINVAL),
            _ if was.is_none() => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let path = self.path(fd);
        self.note("sync", &path);
        let before = self.log.lock().unwrap().iter().filter(|l| **l == ("sync", path.clone())).count();
        let does = self.does.lock().unwrap().get(&path).copied();
        match does {
            Some(Does::FlushHangs(time, from)) if before >= from => std::thread::sleep(time),
            _ => {}
        }
        Ok(())
    }

    fn write_counter(&self, _: &File) -> std::io::Result<WriteCounter> {
        let writes = *self.writes.lock().unwrap();
        let reads = *self.reads.lock().unwrap();
        Ok(WriteCounter { reads, writes, sectors: writes * 8, in_flight: 0 })
    }

    fn open_device(&self, _: DevNo) -> nix::Result<OwnedFd> {
        Linux.open(Path::new("/dev/shm"))
    }

    fn read_device(&self, _: BorrowedFd<'_>) -> nix::Result<()> {
        *self.reads.lock().unwrap() += 1;
        Ok(())
    }
}

/// Longer than anything takes on a busy machine.
const LIMITS: Limits =
    Limits { window: Duration::from_secs(12), freeze: Duration::from_secs(5), flush: Duration::from_secs(5) };

struct Host {
    _folder: tempfile::TempDir,
    fake: Arc<Fake>,
    plan: Plan,
    limits: Limits,
}

impl Host {
    /// Three filesystems: inner, data, system.
    fn new(does: &[(&str, Does)]) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(folder.path().join("stat"), "").unwrap();
        let witness = WitnessDevice {
            name: "nvme1n1".into(),
            dev: "259:5".parse().unwrap(),
            stat: folder.path().join("stat"),
        };
        let waves = [
            ("inner", Wave::Inner(std::cmp::Reverse(1))),
            ("data", Wave::Data),
            ("more", Wave::Data),
            ("system", Wave::System),
        ];
        let filesystems = waves.map(|(name, wave)| {
            let mount_point = folder.path().join(name);
            std::fs::create_dir(&mount_point).unwrap();
            PlannedFilesystem {
                dev: superblock::of_fd(File::open(&mount_point).unwrap()).unwrap(),
                mount_points: vec![mount_point.clone()],
                roots: vec!["/".into()],
                mount_point: mount_point.clone(),
                fstype: "ext4".into(),
                uuid: None,
                options: "rw".into(),
                method: Method::Freeze,
                wave,
                stack: "nvme1n1".into(),
                witnesses: vec![witness.clone()],
                volumes: vec![],
                reason: String::new(),
            }
        });
        let fake = Arc::new(Fake::default());
        for (name, what) in does {
            fake.does.lock().unwrap().insert(folder.path().join(name), *what);
        }
        let plan = made::plan(filesystems.to_vec());
        Self { _folder: folder, fake, plan, limits: LIMITS }
    }

    async fn prepare(&self) -> Prepared {
        self.open(&mut Interrupt::never()).await.unwrap()
    }

    async fn open(&self, interrupt: &mut Interrupt) -> Result<Prepared, PrepareError> {
        self.guarded_by(rig::stillpoint(), interrupt).await
    }

    async fn guarded_by(&self, program: &str, interrupt: &mut Interrupt) -> Result<Prepared, PrepareError> {
        let kernel: Arc<dyn Kernel> = self.fake.clone();
        let watchdog: Arc<dyn StartGuard> = Arc::new(Program::new(program));
        let machine = Machine { root: Path::new("/"), kernel: &kernel, watchdog: &watchdog };
        Prepared::open(machine, &self.plan, self.limits, interrupt, Extras::default()).await
    }

    fn fail(&self) -> (FreezeFailure, Thawed) {
        run(async {
            let not = *self.prepare().await.freeze(&mut Interrupt::never()).await.unwrap_err();
            (not.cause, not.thawed)
        })
    }

    fn frozen_now(&self) -> Vec<PathBuf> {
        self.fake.frozen.lock().unwrap().clone()
    }

    fn times(&self, what: &str) -> usize {
        self.fake.log.lock().unwrap().iter().filter(|(w, _)| *w == what).count()
    }
}

fn run<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

#[test]
fn waves_freeze_in_order_and_everything_thaws() {
    let host = Host::new(&[]);
    let (order, thawed) = run(async {
        let mut frozen = host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap();
        let log: Vec<_> = host.fake.log.lock().unwrap().clone();
        let called = frozen.call(&mut Interrupt::never(), async { 7 }).await;
        assert!(matches!(called, Called::Returned(7)));
        (log, made::thawed(frozen).await)
    });
    let frozen: Vec<_> = order
        .iter()
        .filter(|(w, _)| *w == "freeze")
        .map(|(_, p)| p.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!((frozen[0], frozen[3]), ("inner", "system"), "{frozen:?}");
    let last_sync = order.iter().rposition(|(w, _)| *w == "sync").unwrap();
    let first_freeze = order.iter().position(|(w, _)| *w == "freeze").unwrap();
    assert!(last_sync < first_freeze, "flushed before the first freeze");
    assert_eq!(thawed.doubt(), None);
    assert_eq!(thawed.held.len(), 4);
    assert!(host.frozen_now().is_empty());
}

#[test]
fn one_refusal_thaws_the_others_and_freezes_no_later_wave() {
    let host = Host::new(&[("more", Does::Refuses(Errno::EIO))]);
    let (cause, thawed) = host.fail();
    let FreezeFailure::Refused { mount_point, errno, .. } = cause else { panic!("{cause}") };
    assert_eq!((mount_point.ends_with("more"), errno), (true, Errno::EIO));
    assert!(host.frozen_now().is_empty());
    assert!(thawed.still_frozen.is_empty());
    assert!(!host.fake.log.lock().unwrap().iter().any(|(w, p)| *w == "freeze" && p.ends_with("system")));
}

#[test]
fn somebody_elses_freeze_is_waited_for_and_never_thawed() {
    let host = Host::new(&[("data", Does::BusyFor(3))]);
    let thawed = run(async {
        let frozen = host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap();
        made::thawed(frozen).await
    });
    assert_eq!(thawed.doubt(), None);

    let host = Host::new(&[("data", Does::Refuses(Errno::EBUSY))]);
    let (cause, _) = host.fail();
    assert!(matches!(cause, FreezeFailure::Refused { .. } | FreezeFailure::TooLong { .. }), "{cause}");
    assert!(!host.fake.log.lock().unwrap().iter().any(|(w, p)| *w == "thaw" && p.ends_with("data")));
}

#[test]
fn a_freeze_that_comes_too_late_is_thawed_the_moment_it_is_there() {
    let mut host = Host::new(&[("data", Does::Slow(Duration::from_secs(5)))]);
    host.limits.freeze = Duration::from_secs(2);
    let (cause, thawed) = host.fail();
    let FreezeFailure::TooLong { stuck, .. } = &cause else { panic!("{cause}") };
    assert!(stuck[0].ends_with("data"), "{stuck:?}");
    assert!(thawed.still_frozen.is_empty());
    assert!(host.frozen_now().is_empty());
}

#[test]
fn a_panicking_freeze_thread_leaves_nothing_frozen_and_is_not_called_fine() {
    let host = Host::new(&[("data", Does::Panics)]);
    let (cause, thawed) = host.fail();
    assert!(host.frozen_now().is_empty());
    assert!(matches!(cause, FreezeFailure::Refused { errno: Errno::EIO, .. }), "{cause}");
    // The thread has thawed what it may have frozen: nothing is left to warn of.
    assert_eq!(thawed.still_frozen, Vec::<PathBuf>::new());
    assert!(host.times("thaw") >= 1);
}

#[test]
fn dropping_a_frozen_window_thaws() {
    let host = Host::new(&[]);
    run(async {
        let frozen = host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap();
        assert_eq!(host.frozen_now().len(), 4);
        drop(frozen);
    });
    assert!(host.frozen_now().is_empty());
    assert_eq!(host.times("thaw"), 4);
}

#[test]
fn a_foreign_thaw_and_a_moved_counter_are_doubts() {
    let host = Host::new(&[("data", Does::ThawedByOther)]);
    let thawed = run(async {
        made::thawed(host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap()).await
    });
    assert!(thawed.doubt().unwrap().contains("data"), "{:?}", thawed.doubt());

    let host = Host::new(&[]);
    let thawed = run(async {
        let frozen = host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap();
        *host.fake.writes.lock().unwrap() += 3;
        made::thawed(frozen).await
    });
    assert_eq!(thawed.doubt().as_deref(), Some("nvme1n1 was written to (3 writes)"));
}

#[test]
fn a_call_that_hangs_ends_with_the_window_and_before_the_watchdog_has_to() {
    // 200 ms are between the two, which a busy machine may oversleep: but not every time.
    let by_itself = (0..3).any(|_| {
        let mut host = Host::new(&[]);
        host.limits.window = Duration::from_secs(6);
        let (called, thawed) = run(async {
            let mut frozen = host.prepare().await.freeze(&mut Interrupt::never()).await.unwrap();
            let called = frozen.call(&mut Interrupt::never(), std::future::pending::<()>()).await;
            (called, made::thawed(frozen).await)
        });
        assert!(host.frozen_now().is_empty());
        matches!(called, Called::RanOut) && thawed.fired.is_none()
    });
    assert!(by_itself, "the watchdog had to");
}

/// How long a flush that hangs lasts here: longer than any limit of this test.
const HANGS: Duration = Duration::from_secs(20);

#[test]
fn a_flush_that_does_not_return_is_not_waited_for_and_named() {
    let mut host = Host::new(&[("data", Does::FlushHangs(HANGS, 1))]);
    host.limits.flush = Duration::from_secs(3);
    let refused = run(async { host.open(&mut Interrupt::never()).await.map(drop) }).unwrap_err();
    let PrepareError::Flush(FlushError::TooLong { flushing, .. }) = &refused else { panic!("{refused}") };
    assert_eq!(*flushing, [host.plan.filesystems[1].mount_point.clone()]);
    assert!(refused.hint().unwrap().contains("nothing was frozen"));
    assert_eq!(host.times("freeze"), 0);
}

/// What cannot freeze is flushed once more at the last moment, with everything prepared.
#[test]
fn the_last_flush_of_what_cannot_freeze_is_bounded_too() {
    let mut host = Host::new(&[("more", Does::FlushHangs(HANGS, 2))]);
    host.limits.flush = Duration::from_secs(3);
    host.plan.filesystems[2].method = Method::Sync;
    let (cause, thawed) = host.fail();
    let FreezeFailure::Flush(FlushError::TooLong { flushing, .. }) = &cause else { panic!("{cause}") };
    assert_eq!(*flushing, [host.plan.filesystems[2].mount_point.clone()]);
    assert_eq!((host.times("freeze"), thawed.still_frozen), (0, vec![]));
}

#[test]
fn without_a_watchdog_or_a_freezer_nothing_is_frozen() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let program = folder.path().join("program");
    for missing in ["watchdog", "freezer"] {
        let script = format!("#!/bin/sh\n[ $1 = __{missing} ] || exec {} \"$@\"\n", rig::stillpoint());
        rig::program::put_executable(&program, script);
        let host = Host::new(&[]);
        let program = program.to_str().unwrap();
        let refused = run(async { host.guarded_by(program, &mut Interrupt::never()).await.map(drop) });
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(&format!("the {missing} did not get ready")), "{said}");
        assert_eq!(host.times("freeze"), 0);
    }
}
