//! The watchdog and the freezer as processes of their own, from the agent's side: start them, arm the watchdog,
//! beat, notice its loss, dismiss them.
//!
//! In: the program and the descriptors of the superblocks. Out: a [`Guard`] that is ready, or an error before
//! anything is frozen. Must never: freeze without a ready watchdog, or let go of it while something may be
//! frozen.

use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::clock::{boottime, boottime_ns};
use super::super::companion::{Hello, STACK};
use super::super::delegated::Delegate;
use super::super::expedite::RcuExpedited;
use super::super::watchdog::{self, ARM, BEAT};
use super::super::{Extras, freezer, page};
use super::companion::{Companion, Kind};
use super::{Guard, GuardError, StartGuard};
use crate::host::kernel::SharedPage;
use crate::host::process::ProcessId;

const WATCHDOG: Kind = Kind { name: "watchdog", argument: watchdog::ARGUMENT };
const FREEZER: Kind = Kind { name: "freezer", argument: freezer::ARGUMENT };

/// The program that is started again as watchdog and as freezer: this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(PathBuf);

/// The file that this process runs from, by its inode: it is the same one when the package was upgraded
/// since, and another file has its name.
pub const OWN: &str = "/proc/self/exe";

impl Program {
    /// The program of this process.
    pub(crate) fn own() -> Self {
        Self::new(OWN)
    }

    /// By its path, which has to lead to the same program for as long as the run lasts.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl StartGuard for Program {
    fn start(&self, fds: &[Arc<OwnedFd>], extras: &Extras) -> Result<Box<dyn Guard>, GuardError> {
        Ok(Box::new(Process::start(&self.0, fds, extras)?))
    }

    fn program(&self) -> PathBuf {
        // For people: the path that the file had.
        std::fs::read_link(&self.0).unwrap_or_else(|_| self.0.clone())
    }
}

/// A watchdog and a freezer that are ready.
#[derive(Debug)]
struct Process {
    watchdog: Companion,
    freezer: Companion,
    delegate: Arc<Delegate>,
    page: Arc<SharedPage>,
    beating: Arc<AtomicBool>,
}

impl Process {
    fn start(program: &Path, fds: &[Arc<OwnedFd>], extras: &Extras) -> Result<Self, GuardError> {
        let not_ready = |who: Kind, what, source| GuardError::NotReady { who: who.name, what, source };
        let (page, file) =
            page::create(extras.page.as_deref()).map_err(|e| not_ready(WATCHDOG, "shared page", e))?;
        let page = Arc::new(page);
        // The freezer first: the watchdog has to know its process.
        let mut freezer =
            Companion::start(FREEZER, program, &Hello::over(fds.len()), &[file.as_raw_fd()], fds)?;
        let known = pidfd(freezer.pid()).and_then(|process| Ok((process, identity(freezer.pid())?)));
        let (process, id) = match known {
            Ok(known) => known,
            Err(e) => {
                freezer.dismiss();
                return Err(not_ready(FREEZER, "its process", e));
            }
        };
        let rcu_expedited = extras.rcu_expedited.as_ref();
        let hello = Hello {
            former: rcu_expedited.map(|k| k.former().value.clone()),
            afterwards: extras.afterwards.clone(),
            ..Hello::over(fds.len())
        };
        let with: Vec<RawFd> = [file.as_raw_fd(), process.as_raw_fd()]
            .into_iter()
            .chain(rcu_expedited.map(RcuExpedited::raw))
            .collect();
        let watchdog = match Companion::start(WATCHDOG, program, &hello, &with, fds) {
            Ok(watchdog) => watchdog,
            Err(e) => {
                freezer.dismiss();
                return Err(e);
            }
        };
        let delegate = Arc::new(Delegate::new(Arc::clone(&page), process, id));
        let mut guard = Self { watchdog, freezer, delegate, page, beating: Arc::default() };
        match guard.start_beating() {
            Ok(()) => Ok(guard),
            Err(e) => {
                guard.dismiss();
                Err(not_ready(WATCHDOG, "heartbeat", e))
            }
        }
    }

    /// Starts the heartbeat, long before it counts: starting a thread allocates.
    fn start_beating(&self) -> nix::Result<()> {
        self.beating.store(true, Ordering::SeqCst);
        let (page, beating) = (Arc::clone(&self.page), Arc::clone(&self.beating));
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                while beating.load(Ordering::SeqCst) {
                    page.beat.store(boottime_ns(), Ordering::SeqCst);
                    std::thread::sleep(BEAT);
                }
            })
            .map(drop)
            .map_err(|_| Errno::EAGAIN)
    }
}

fn raw(pid: u32) -> nix::Result<i32> {
    i32::try_from(pid).map_err(|_| Errno::ESRCH)
}

/// Of a child that has not been waited for: its id cannot be another's yet.
fn pidfd(child: u32) -> nix::Result<OwnedFd> {
    let pid = Pid::from_raw(raw(child)?).ok_or(Errno::ESRCH)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

fn identity(child: u32) -> nix::Result<ProcessId> {
    ProcessId::of_live(Path::new("/"), raw(child)?).ok_or(Errno::ESRCH)
}

impl Guard for Process {
    fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    fn pid(&self) -> u32 {
        self.watchdog.pid()
    }

    fn delegate(&self) -> Option<Arc<Delegate>> {
        Some(Arc::clone(&self.delegate))
    }

    fn shares(&self) -> &[String] {
        &self.watchdog.shares
    }

    fn arm(&self, window: Duration) -> nix::Result<()> {
        self.page.beat.store(boottime_ns(), Ordering::SeqCst);
        let deadline = u64::try_from((boottime() + window).as_nanos()).unwrap_or(u64::MAX);
        let mut message = [0_u8; 9];
        message[0] = ARM;
        message[1..].copy_from_slice(&deadline.to_le_bytes());
        self.watchdog.send(&message)?;
        self.watchdog.answer(ARM).map(drop)
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let _ = self.watchdog.socket.readable().await;
        })
    }

    fn dismiss(&mut self) {
        self.beating.store(false, Ordering::SeqCst);
        self.freezer.dismiss();
        self.watchdog.dismiss();
    }
}
