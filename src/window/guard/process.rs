//! The watchdog as a process of its own, from the agent's side: start it, arm it, beat, notice its loss,
//! dismiss it.
//!
//! In: the program and the descriptors of the superblocks. Out: a [`Guard`] that is ready, or an error before
//! anything is frozen. Must never: freeze without a ready watchdog, or let go of it while something may be
//! frozen.

use std::future::Future;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::super::clock::{boottime, boottime_ns};
use super::super::expedite::RcuExpedited;
use super::super::watchdog::{ARGUMENT, ARM, BEAT, DONE, FDS_PER_MESSAGE, Hello, READY, Ready};
use super::super::{Extras, page};
use super::{Guard, GuardError, StartGuard};
use crate::host::kernel::SharedPage;

/// Longest time the watchdog may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(5);

/// The program that is started again as the watchdog: this one.
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

/// A watchdog process that is ready.
#[derive(Debug)]
struct Process {
    child: Child,
    socket: AsyncFd<OwnedFd>,
    page: Arc<SharedPage>,
    beating: Arc<AtomicBool>,
    shares: Vec<String>,
}

impl Process {
    fn start(program: &Path, fds: &[Arc<OwnedFd>], extras: &Extras) -> Result<Self, GuardError> {
        let failed = |what| move |source| GuardError::NotReady { what, source };
        let (page, file) = page::create(extras.page.as_deref()).map_err(failed("shared page"))?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(failed("socket"))?;
        // The watchdog's end blocks in recvmsg until it is ready: clear O_NONBLOCK on it.
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .map_err(failed("socket"))?;
        let spawn_failed = |source| GuardError::Spawn { program: program.to_path_buf(), source };
        let child = {
            Command::new(program)
                .arg0("stillpoint")
                .arg(ARGUMENT)
                .env_clear()
                .env("MALLOC_ARENA_MAX", "1") // mlockall would pin an arena a thread
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir("/")
                .spawn()
                .map_err(spawn_failed)?
        };
        let rcu_expedited = extras.rcu_expedited.as_ref();
        let hello = Hello {
            build: crate::build::ID.to_owned(),
            agent: i32::try_from(std::process::id()).unwrap_or(0),
            filesystems: fds.len(),
            former: rcu_expedited.map(|k| k.former().value.clone()),
            afterwards: extras.afterwards.clone(),
        };
        let hello = serde_json::to_vec(&hello).unwrap_or_default();
        let mut guard = Self {
            child,
            socket: crate::host::kernel::async_fd(ours).map_err(spawn_failed)?,
            page: Arc::new(page),
            beating: Arc::new(AtomicBool::new(false)),
            shares: Vec::new(),
        };
        let with: Vec<RawFd> =
            std::iter::once(file.as_raw_fd()).chain(rcu_expedited.map(RcuExpedited::raw)).collect();
        let told = guard
            .send_fds(&hello, &with)
            .and_then(|()| {
                fds.chunks(FDS_PER_MESSAGE).try_for_each(|chunk| {
                    let raw: Vec<RawFd> = chunk.iter().map(|fd| fd.as_raw_fd()).collect();
                    guard.send_fds(b"+", &raw)
                })
            })
            .and_then(|()| guard.answer(READY))
            .and_then(|ready| serde_json::from_slice::<Ready>(&ready).map_err(|_| Errno::EPROTO))
            .and_then(|ready| guard.start_beating().map(|()| ready));
        let failure = match told {
            Ok(ready) if ready.build == crate::build::ID => {
                guard.shares = ready.shares;
                return Ok(guard);
            }
            Ok(ready) => GuardError::OtherBuild { program: program.to_path_buf(), theirs: ready.build },
            Err(source) => GuardError::NotReady { what: "start-up", source },
        };
        guard.dismiss();
        Err(failure)
    }

    fn send_fds(&self, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let fd = self.socket.as_raw_fd();
        let end = Instant::now() + START_LIMIT;
        loop {
            match sendmsg::<()>(fd, &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None) {
                Err(Errno::EAGAIN) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                other => return other.map(drop),
            }
        }
    }

    /// Waits, blocking, for a message that begins with this byte; the rest of it. Read before the runtime
    /// polls the socket, so that `lost` never sees it.
    fn answer(&self, expected: u8) -> nix::Result<Vec<u8>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let limit = PollTimeout::try_from(START_LIMIT).map_err(|_| Errno::EINVAL)?;
        let mut fds = [PollFd::new(self.socket.get_ref().as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, limit)? == 0 {
            return Err(Errno::ETIMEDOUT);
        }
        let mut message = [0; 8192];
        match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(n) if n > 0 && message[0] == expected => Ok(message[1..n].to_vec()),
            Ok(_) => Err(Errno::EPIPE),
            Err(errno) => Err(errno),
        }
    }

    /// Starts the heartbeat, long before it counts: starting a thread allocates.
    fn start_beating(&self) -> nix::Result<()> {
        self.beating.store(true, Ordering::SeqCst);
        let (page, beating) = (Arc::clone(&self.page), Arc::clone(&self.beating));
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .stack_size(64 * 1024)
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

impl Guard for Process {
    fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn shares(&self) -> &[String] {
        &self.shares
    }

    fn arm(&self, window: Duration) -> nix::Result<()> {
        self.page.beat.store(boottime_ns(), Ordering::SeqCst);
        let deadline = u64::try_from((boottime() + window).as_nanos()).unwrap_or(u64::MAX);
        let mut message = [0_u8; 9];
        message[0] = ARM;
        message[1..].copy_from_slice(&deadline.to_le_bytes());
        send(self.socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL)?;
        self.answer(ARM).map(drop)
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let _ = self.socket.readable().await;
        })
    }

    fn dismiss(&mut self) {
        self.beating.store(false, Ordering::SeqCst);
        let _ = send(self.socket.as_raw_fd(), &[DONE], MsgFlags::MSG_NOSIGNAL);
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // Killing it is safe here, because nothing is frozen any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
