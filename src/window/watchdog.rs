//! The watchdog: a process of its own that thaws when the agent does not.
//!
//! In: a socket on fd 0 (agent's pid, one fd a superblock, the shared page, then "armed until" and "done").
//! Out: FITHAW on every superblock that the page says may be frozen, `rcu_expedited` as it was, and a line in
//! the kernel's log. While the agent is well, it only does the FITHAW that the agent asks for (see
//! `delegated_thaw.rs`). Must never: allocate, open, close, exec or write to a file after it said "ready" and
//! while something may be frozen (but the kernel's own two, open already); extend its deadline; thaw a
//! superblock whose word says that we have not touched it; give up while something may be frozen. Where a
//! freeze was held for somebody else and the agent is gone, it starts the recovery at the very end.
//!
//! It shares as little as possible with the agent (see `apart.rs`), and nothing that it has open belongs to
//! whoever started the agent. It ends by itself: when the agent tells it to, or when the agent is gone and
//! nothing is frozen any more.
//!
//! Triggers: the absolute deadline (CLOCK_BOOTTIME), a gap in the heartbeat, end of file on the socket, the
//! pidfd. The last two alone are not enough: a dying process can hang in D inside exit() with its socket
//! open.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::clock::boottime_ns;
use super::expedite::PutBack;
use super::state::State;
use super::{apart, delegated_thaw};
use crate::host::kernel::{self, Kernel, Linux, MAX_FILESYSTEMS, SharedPage};

/// The hidden first argument that makes this binary a watchdog.
pub const ARGUMENT: &str = "__watchdog";
/// A heartbeat older than this fires. The agent beats every [`BEAT`].
pub const HEARTBEAT_GAP: Duration = Duration::from_millis(500);
/// How often the agent beats.
pub const BEAT: Duration = Duration::from_millis(25);
/// Pause between two tries to thaw.
const RETRY: Duration = Duration::from_millis(20);
/// How long the watchdog sleeps at most before it looks at the heartbeat.
const LOOK: u16 = 40;
/// Longer than this between two looks, in nanoseconds, and the watchdog itself was not run.
const PAUSE: u64 = 250_000_000;
/// Stack of a thawing thread.
const STACK: usize = 64 * 1024;

/// Why the watchdog fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Trigger {
    /// The window's hard deadline.
    Deadline = 1,
    /// No heartbeat for [`HEARTBEAT_GAP`]: stopped, swapped or stuck.
    Heartbeat = 2,
    /// The agent's end of the socket closed, or its process is gone.
    AgentGone = 3,
}

impl Trigger {
    /// The trigger of the page's `fired` word.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => None,
            1 => Some(Self::Deadline),
            2 => Some(Self::Heartbeat),
            _ => Some(Self::AgentGone),
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the window's deadline passed",
            Self::Heartbeat => "the agent's heartbeat stopped",
            Self::AgentGone => "the agent went away",
        })
    }
}

/// First message to the watchdog; the page's file comes with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The agent's build.
    pub build: String,
    /// The agent's process id.
    pub agent: i32,
    /// How many fds follow, in messages of at most [`FDS_PER_MESSAGE`].
    pub filesystems: usize,
    /// What `rcu_expedited` is put back to; its fd comes with the page's, after it.
    pub former: Option<String>,
    /// What is started once everything is thawed because the agent is gone: the recovery.
    pub afterwards: Option<Vec<std::path::PathBuf>>,
}

/// What follows [`READY`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// The watchdog's build. Where it is not the agent's, the watchdog has done nothing and is not ready.
    pub build: String,
    /// What it still shares with the agent.
    pub shares: Vec<String>,
}

/// SCM_RIGHTS takes at most 253 fds a message (SCM_MAX_FD).
pub(super) const FDS_PER_MESSAGE: usize = 200;
/// First byte of messages: armed, followed by the deadline as 8 bytes of boottime nanoseconds.
pub(super) const ARM: u8 = b'A';
/// Everything is thawed and every freezing thread is back: go.
pub(super) const DONE: u8 = b'D';
/// First byte of the watchdog's answer to [`Hello`], once nothing can fail any more.
pub(super) const READY: u8 = b'R';
/// The watchdog has fired.
pub(super) const FIRED: u8 = b'F';

/// The whole life of the watchdog process; the exit status is for people only.
#[must_use]
pub fn main() -> std::process::ExitCode {
    match Watchdog::prepare() {
        Ok(watchdog) => {
            watchdog.watch();
            std::process::ExitCode::SUCCESS
        }
        // The agent sees the socket close before "ready" and stops before anything is frozen.
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

#[derive(Debug)]
struct Watchdog {
    agent: OwnedFd,
    timer: TimerFd,
    page: Arc<SharedPage>,
    /// The agent's process is gone, every thread of it: no FIFREEZE can be in progress any more.
    gone: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    rcu_expedited: Option<PutBack>,
    afterwards: Option<Command>,
}

impl Watchdog {
    fn prepare() -> nix::Result<Self> {
        // Signals first: Ctrl-C in the terminal must not take the guard. Every thread inherits the mask.
        SigSet::all().thread_block()?;
        nix::unistd::setsid().or_else(|e| if e == Errno::EPERM { Ok(Pid::this()) } else { Err(e) })?;
        nix::unistd::chdir("/")?;
        let _ = crate::host::process::set_oom_score("self", -1000);
        // Started from /proc/self/exe, it would be called `exe`.
        let _ = nix::sys::prctl::set_name(c"stillpoint");
        close_inherited();
        let mut buffer = [0_u8; 8192];
        let (n, mut fds) = kernel::receive_fds(socket(), &mut buffer)?;
        same_build(&buffer[..n])?;
        // Before there are threads, which inherit it, and before anything is frozen.
        let shares = apart::stand();
        let hello: Hello = serde_json::from_slice(&buffer[..n]).map_err(|_| Errno::EPROTO)?;
        let rcu_expedited = match hello.former {
            Some(former) => Some(PutBack::new(fds.pop().ok_or(Errno::EPROTO)?, former)),
            None => None,
        };
        let page = fds.pop().ok_or(Errno::EPROTO)?;
        let page = Arc::new(SharedPage::map(page.as_fd())?);
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
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        let log = OpenOptions::new().write(true).open("/dev/kmsg").ok().map(Arc::new);
        let gone = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(filesystems.len());
        for (index, fd) in filesystems.into_iter().enumerate() {
            let thaw = Thaw { index, fd, page: Arc::clone(&page), gone: Arc::clone(&gone), log: log.clone() };
            threads.push(
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(move || thaw.run())
                    .map_err(|_| Errno::EAGAIN)?,
            );
        }
        let afterwards = hello.afterwards.as_deref().and_then(command);
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
        ready(shares)?;
        Ok(Self { agent, timer, page, gone, threads, rcu_expedited, afterwards })
    }

    fn watch(mut self) {
        let mut armed = false;
        let mut socket_open = true;
        let mut looked = boottime_ns();
        loop {
            let mut fds = [
                PollFd::new(self.agent.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
                PollFd::new(socket(), PollFlags::POLLIN),
            ];
            // A closed socket reports POLLHUP whatever is asked for: left out, or this would spin.
            let watched = if socket_open { 3 } else { 2 };
            let _ = poll(&mut fds[..watched], PollTimeout::from(LOOK));
            let came = |i: usize| {
                fds[i].revents().is_some_and(|r| r.intersects(PollFlags::POLLIN | PollFlags::POLLHUP))
            };
            let (agent_gone, timer, message) = (came(0), came(1), came(2) && socket_open);
            if message {
                let mut bytes = [0_u8; 16];
                match recv(0, &mut bytes, MsgFlags::MSG_DONTWAIT) {
                    Ok(9) if bytes[0] == ARM => {
                        let mut ns = [0_u8; 8];
                        ns.copy_from_slice(&bytes[1..9]);
                        armed = self.arm(u64::from_le_bytes(ns));
                        if armed {
                            // The agent freezes nothing before it has read this.
                            let _ = send(0, &[ARM], MsgFlags::MSG_NOSIGNAL);
                        }
                    }
                    Ok(1) if bytes[0] == DONE => return,
                    Ok(0) => {
                        socket_open = false;
                        self.fire(Trigger::AgentGone);
                    }
                    _ => {}
                }
            }
            if agent_gone {
                self.fire(Trigger::AgentGone);
                // Once more: the agent may have raised it after the watchdog had fired.
                self.put_back();
                self.gone.store(true, Ordering::SeqCst);
                // Each thread ends when its filesystem is certainly thawed. They may wait for a stuck one for
                // long.
                for thread in self.threads.drain(..) {
                    let _ = thread.join();
                }
                // Nothing is frozen any more: what the agent owes may be started.
                if let Some(mut recovery) = self.afterwards {
                    let _ = kernel::run_as_usual(); // post hooks are no business before all others
                    let _ = recovery.spawn();
                }
                return;
            }
            if armed && timer {
                self.fire(Trigger::Deadline);
                let _ = self.timer.unset(); // else it stays readable and this loop spins
                armed = false;
            }
            let beat = self.page.beat.load(Ordering::SeqCst);
            let now = boottime_ns();
            let gap = now.saturating_sub(beat);
            // Where this process was not run either, the whole machine stood still: the agent gets one look's
            // time to beat again.
            let paused = now.saturating_sub(looked) > PAUSE;
            looked = now;
            if armed && !paused && u128::from(gap) > HEARTBEAT_GAP.as_nanos() {
                self.fire(Trigger::Heartbeat);
                armed = false;
            }
        }
    }

    /// The timer is absolute and set once: nothing that the agent sends can extend it.
    fn arm(&self, deadline_ns: u64) -> bool {
        let at = TimeSpec::from_duration(Duration::from_nanos(deadline_ns));
        self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_ok()
    }

    fn fire(&self, why: Trigger) {
        if self.page.fired.compare_exchange(0, why as u32, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            for index in 0..self.threads.len() {
                delegated_thaw::fire(&self.page, index);
            }
            let _ = send(0, &[FIRED], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
            self.put_back();
        }
    }

    fn put_back(&self) {
        if let Some(rcu_expedited) =
            self.rcu_expedited.as_ref().filter(|_| self.page.expedited.load(Ordering::SeqCst) != 0)
        {
            rcu_expedited.write();
        }
    }
}

fn ready(shares: Vec<String>) -> nix::Result<()> {
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
    ready(Vec::new())?;
    // Until the agent has read it: closed with messages unread, the socket would only say that it was reset.
    let mut rest = [0; 64];
    while recv(0, &mut rest, MsgFlags::empty()).is_ok_and(|n| n > 0 && rest[..n] != [DONE]) {}
    Err(Errno::EPROTO)
}

fn command(words: &[std::path::PathBuf]) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command
        .arg0("stillpoint")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // The watchdog has no PATH, and what is started looks for systemctl in it.
    command.env("PATH", crate::host::process::SEARCH_PATH);
    Some(command)
}

/// One superblock's thread, waiting from before the window.
#[derive(Debug)]
struct Thaw {
    index: usize,
    fd: OwnedFd,
    page: Arc<SharedPage>,
    gone: Arc<AtomicBool>,
    log: Option<Arc<File>>,
}

impl Thaw {
    fn run(&self) {
        delegated_thaw::serve(&self.page, self.index, self.fd.as_fd());
        let word = &self.page.states[self.index];
        loop {
            // Read before the thaw: only an EINVAL that comes *after* the agent was gone is final.
            let gone = self.gone.load(Ordering::SeqCst);
            let said = word.load(Ordering::SeqCst);
            let state = State::from_word(said);
            let finished = !state.may_be_frozen()
                || match Linux.thaw(self.fd.as_fd()) {
                    Ok(()) => {
                        word.store(State::ThawedByWatchdog as u32, Ordering::SeqCst);
                        self.page.thawed_by_watchdog.fetch_add(1, Ordering::SeqCst);
                        self.say();
                        true
                    }
                    Err(Errno::EINVAL) => {
                        // Somebody else has thawed it, or its FIFREEZE failed: if it is frozen again, that is
                        // nothing that this watchdog or a recovery may thaw.
                        if state == State::Frozen || gone {
                            let thawed = State::Thawed as u32;
                            let _ = word.compare_exchange(said, thawed, Ordering::SeqCst, Ordering::SeqCst);
                        }
                        true
                    }
                    Err(_) => false,
                };
            // While the agent lives, a stopped freezing thread may still be on its way into FIFREEZE.
            if finished && gone {
                return;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// One line into the kernel's log, formatted on the stack.
    fn say(&self) {
        let Some(log) = &self.log else { return };
        let mut line = [0_u8; 128];
        let mut cursor = std::io::Cursor::new(&mut line[..]);
        let why = self.page.fired.load(Ordering::SeqCst);
        let _ = writeln!(cursor, "<4>stillpoint: watchdog thawed filesystem #{} (trigger {why})", self.index);
        let n = usize::try_from(cursor.position()).unwrap_or(0);
        let _ = (&**log).write(&line[..n]);
    }
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

fn socket() -> BorrowedFd<'static> {
    STDIN.as_fd()
}

static STDIN: std::sync::LazyLock<std::io::Stdin> = std::sync::LazyLock::new(std::io::stdin);
