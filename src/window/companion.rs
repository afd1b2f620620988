//! How the processes begin that stand beside the agent over a window: the watchdog and the freezer.
//!
//! In: a socket on fd 0, and on it the agent's [`Hello`] with fds. Out: [`Begun`], in a process that shares as
//! little as possible with the agent, and in which nothing is open that belongs to whoever started the agent.
//! Must never: do anything for an agent of another build.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::apart;
use crate::host::kernel::{self, Kernel as _, Linux, MAX_FILESYSTEMS, SharedPage};

/// First message to a companion; the page's file comes with it, and what belongs to the watchdog alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The agent's build.
    pub build: String,
    /// The agent's process id.
    pub agent: i32,
    /// How many fds follow, in messages of at most [`FDS_PER_MESSAGE`].
    pub filesystems: usize,
    /// To the watchdog: what `rcu_expedited` is put back to. Its fd is the last of this message.
    pub former: Option<String>,
    /// To the watchdog: what is started once everything is thawed because the agent is gone, the recovery.
    pub afterwards: Option<Vec<std::path::PathBuf>>,
}

impl Hello {
    /// From this process, over so many superblocks.
    pub fn over(filesystems: usize) -> Self {
        Self {
            build: crate::build::ID.to_owned(),
            agent: i32::try_from(std::process::id()).unwrap_or(0),
            filesystems,
            former: None,
            afterwards: None,
        }
    }
}

/// What follows [`READY`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// The companion's build. Where it is not the agent's, the companion has done nothing and is not ready.
    pub build: String,
    /// What it still shares with the agent.
    pub shares: Vec<String>,
}

/// SCM_RIGHTS takes at most 253 fds a message (SCM_MAX_FD).
pub(super) const FDS_PER_MESSAGE: usize = 200;
/// Everything is thawed and nothing is inside the kernel any more: go.
pub(super) const DONE: u8 = b'D';
/// First byte of the answer to [`Hello`], once nothing can fail any more.
pub(super) const READY: u8 = b'R';
/// Stack of a thread that freezes or thaws.
pub(super) const STACK: usize = 64 * 1024;

/// What the agent has handed over.
#[derive(Debug)]
pub(super) struct Begun {
    pub hello: Hello,
    pub page: Arc<SharedPage>,
    /// What came with the page, in order.
    pub others: Vec<OwnedFd>,
    /// One a superblock.
    pub filesystems: Vec<OwnedFd>,
    /// A pidfd of the agent.
    pub agent: OwnedFd,
    /// What this process still shares with the agent.
    pub shares: Vec<String>,
}

/// Stands apart from the agent, and receives what it hands over.
///
/// # Errors
/// When anything is missing. The agent sees the socket close before "ready".
pub(super) fn begin() -> nix::Result<Begun> {
    // Signals first: Ctrl-C in the terminal must not take it. Every thread inherits the mask.
    SigSet::all().thread_block()?;
    nix::unistd::setsid().or_else(|e| if e == Errno::EPERM { Ok(Pid::this()) } else { Err(e) })?;
    nix::unistd::chdir("/")?;
    // Before there are threads, which inherit it.
    crate::host::thread::before_others().for_good();
    let _ = crate::host::process::set_oom_score("self", -1000);
    // Started from /proc/self/exe, it would be called `exe`.
    let _ = nix::sys::prctl::set_name(c"stillpoint");
    close_inherited();
    let mut buffer = [0_u8; 8192];
    let (n, mut others) = kernel::receive_fds(socket(), &mut buffer)?;
    same_build(&buffer[..n])?;
    // Before there are threads, which inherit it, and before anything is frozen.
    let shares = apart::stand();
    let hello: Hello = serde_json::from_slice(&buffer[..n]).map_err(|_| Errno::EPROTO)?;
    if others.is_empty() {
        return Err(Errno::EPROTO);
    }
    let page = Arc::new(SharedPage::map(others.remove(0).as_fd())?);
    let mut filesystems = Vec::new();
    while filesystems.len() < hello.filesystems {
        match kernel::receive_fds(socket(), &mut buffer)? {
            (0, _) => return Err(Errno::EPIPE),
            (_, more) => filesystems.extend(more),
        }
    }
    if filesystems.len() > MAX_FILESYSTEMS {
        return Err(Errno::E2BIG);
    }
    let agent = rustix::process::Pid::from_raw(hello.agent).ok_or(Errno::ESRCH)?;
    let agent = pidfd_open(agent, PidfdFlags::empty()).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    Ok(Begun { hello, page, others, filesystems, agent, shares })
}

/// Touches what is needed while something is frozen, pins it, and says that nothing can fail any more.
///
/// # Errors
/// What mlockall and send say.
pub(super) fn ready(shares: Vec<String>) -> nix::Result<()> {
    // A FITHAW that thaws nothing: nobody can freeze the filesystem that memfds are on.
    let memfd = kernel::memory_file(c"stillpoint")?;
    let _ = Linux.thaw(memfd.as_fd());
    drop(memfd);
    kernel::lock_memory()?;
    tell_ready(shares)
}

fn tell_ready(shares: Vec<String>) -> nix::Result<()> {
    let mut message = vec![READY];
    let ready = Ready { build: crate::build::ID.to_owned(), shares };
    message.extend(serde_json::to_vec(&ready).map_err(|_| Errno::EPROTO)?);
    send(0, &message, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// Is this the agent's program? If not, the agent is told which this is, before anything is done for it.
fn same_build(hello: &[u8]) -> nix::Result<()> {
    /// Of any build: another one may have other fields beside it.
    #[derive(Deserialize)]
    struct Build {
        build: String,
    }
    if serde_json::from_slice(hello).is_ok_and(|Build { build }| build == crate::build::ID) {
        return Ok(());
    }
    tell_ready(Vec::new())?;
    // Until the agent has read it: closed with messages unread, the socket would only say that it was reset.
    let mut rest = [0; 64];
    while recv(0, &mut rest, MsgFlags::empty()).is_ok_and(|n| n > 0 && rest[..n] != [DONE]) {}
    Err(Errno::EPROTO)
}

/// Whoever started the agent may have left fds open across exec; one on a frozen filesystem could block our
/// exit.
fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = folder.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd); // the folder's own is in the list, and closed already
    }
}

/// The kernel's log, opened before anything is frozen; none where it cannot be written.
pub(super) fn kernel_log() -> Option<Arc<File>> {
    OpenOptions::new().write(true).open("/dev/kmsg").ok().map(Arc::new)
}

/// One line into the kernel's log, formatted on the stack.
pub(super) fn say(log: Option<&File>, line: std::fmt::Arguments<'_>) {
    let Some(mut log) = log else { return };
    let mut bytes = [0_u8; 128];
    let mut cursor = std::io::Cursor::new(&mut bytes[..]);
    let _ = writeln!(cursor, "<4>stillpoint: {line}");
    let n = usize::try_from(cursor.position()).unwrap_or(0);
    let _ = log.write(&bytes[..n]);
}

/// The socket to the agent.
pub(super) fn socket() -> BorrowedFd<'static> {
    STDIN.as_fd()
}

static STDIN: std::sync::LazyLock<std::io::Stdin> = std::sync::LazyLock::new(std::io::stdin);
