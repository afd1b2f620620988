//! A process beside the agent, from the agent's side: start it, hand over, dismiss it.
//!
//! In: the program and what the process works on. Out: a [`Companion`] that is ready, or an error before
//! anything is frozen. Must never: take another build of this program for one that is ready.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::super::companion::{DONE, FDS_PER_MESSAGE, Hello, READY, Ready};
use super::GuardError;

/// Longest time one may take to be ready, or to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Which of them: its name for people, and the hidden first argument that makes this program one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub name: &'static str,
    pub argument: &'static str,
}

/// A companion that is ready.
#[derive(Debug)]
pub(super) struct Companion {
    child: Child,
    pub socket: AsyncFd<OwnedFd>,
    /// What it still shares with this process.
    pub shares: Vec<String>,
}

impl Companion {
    /// Starts it, and waits, blocking, until it is ready. `with` goes with the first message.
    ///
    /// # Errors
    /// When it does not get ready. It is gone then, or on its way.
    pub fn start(
        kind: Kind,
        program: &Path,
        hello: &Hello,
        with: &[RawFd],
        filesystems: &[Arc<OwnedFd>],
    ) -> Result<Self, GuardError> {
        let failed = |source| GuardError::NotReady { who: kind.name, what: "socket", source };
        let spawn_failed =
            |source| GuardError::Spawn { who: kind.name, program: program.to_path_buf(), source };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(failed)?;
        // The companion's end blocks in recvmsg until it is ready: clear O_NONBLOCK on it.
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .map_err(failed)?;
        let child = Command::new(program)
            .arg0("stillpoint")
            .arg(kind.argument)
            .env_clear()
            .env("MALLOC_ARENA_MAX", "1") // mlockall would pin an arena a thread
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(spawn_failed)?;
        let socket = crate::host::kernel::async_fd(ours).map_err(spawn_failed)?;
        let mut companion = Self { child, socket, shares: Vec::new() };
        let hello = serde_json::to_vec(hello).unwrap_or_default();
        let ready = companion
            .send_fds(&hello, with)
            .and_then(|()| {
                filesystems.chunks(FDS_PER_MESSAGE).try_for_each(|chunk| {
                    let raw: Vec<RawFd> = chunk.iter().map(|fd| fd.as_raw_fd()).collect();
                    companion.send_fds(b"+", &raw)
                })
            })
            .and_then(|()| companion.answer(READY))
            .and_then(|ready| serde_json::from_slice::<Ready>(&ready).map_err(|_| Errno::EPROTO));
        let failure = match ready {
            Ok(ready) if ready.build == crate::build::ID => {
                companion.shares = ready.shares;
                return Ok(companion);
            }
            Ok(ready) => {
                GuardError::OtherBuild { who: kind.name, program: program.to_path_buf(), theirs: ready.build }
            }
            Err(source) => GuardError::NotReady { who: kind.name, what: "start-up", source },
        };
        companion.dismiss();
        Err(failure)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// What send(2) says: EPIPE when it is gone.
    pub fn send(&self, message: &[u8]) -> nix::Result<()> {
        send(self.socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map(drop)
    }

    fn send_fds(&self, bytes: &[u8], fds: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let fd = self.socket.as_raw_fd();
        let end = Instant::now() + LIMIT;
        loop {
            match sendmsg::<()>(fd, &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None) {
                Err(Errno::EAGAIN) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                other => return other.map(drop),
            }
        }
    }

    /// Waits, blocking, for a message that begins with this byte; the rest of it. Read before the runtime
    /// polls the socket, so that nobody who waits for its end sees it.
    ///
    /// # Errors
    /// ETIMEDOUT, or EPIPE when something else came.
    pub fn answer(&self, expected: u8) -> nix::Result<Vec<u8>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let limit = PollTimeout::try_from(LIMIT).map_err(|_| Errno::EINVAL)?;
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

    /// Ends it: nothing is frozen, and nothing is inside the kernel for it. Waits for its end for a limited
    /// time.
    pub fn dismiss(&mut self) {
        let _ = self.send(&[DONE]);
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
