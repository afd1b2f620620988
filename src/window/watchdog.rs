//! The watchdog: a process of its own that thaws when the agent does not.
//!
//! In: a socket on fd 0 (see `companion.rs`; then "armed until" and "done"), one fd a superblock, the shared
//! page. Out: FITHAW on every superblock that the page says may be frozen, `rcu_expedited` as it was, and a
//! line in the kernel's log; nothing while the agent is well. Must never: allocate, open, close, exec or write to a file after it said "ready" and
//! while something may be frozen (but the kernel's own two, open already); extend its deadline; thaw a
//! superblock whose word says that we have not touched it; give up while something may be frozen. Where a
//! freeze was held for somebody else and the agent is gone, it starts the recovery at the very end.
//!
//! It ends by itself: when the agent tells it to, or when agent and freezer are gone and nothing is frozen any
//! more.
//!
//! Triggers: the absolute deadline (CLOCK_BOOTTIME), a gap in the heartbeat, end of file on the socket, the
//! pidfd. The last two alone are not enough: a dying process can hang in D inside exit() with its socket
//! open.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::clock::boottime_ns;
use super::companion::{Begun, DONE, STACK, begin, kernel_log, ready, say, socket};
use super::expedite::PutBack;
use super::state::State;
use crate::host::futex::{sleep_on, wake};
use crate::host::kernel::{self, Kernel, Linux, SharedPage, touch_stack};

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
/// What one look counts for at most: longer since the last one, and the watchdog itself was not run.
const COUNTED: Duration = Duration::from_millis(2 * LOOK as u64);

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

/// For how long the agent has not beaten, as far as this process was run itself: where the host's CPUs were
/// taken away, or the whole machine stood still, the agent had no chance to beat.
#[derive(Debug)]
struct Silence {
    beat: u64,
    looked: u64,
    silent: Duration,
}

impl Silence {
    fn since(now: u64) -> Self {
        Self { beat: 0, looked: now, silent: Duration::ZERO }
    }

    /// The time without a beat, now that this is the last one. Both by CLOCK_BOOTTIME, in nanoseconds.
    fn look(&mut self, now: u64, beat: u64) -> Duration {
        let passed = Duration::from_nanos(now.saturating_sub(self.looked));
        self.looked = now;
        if beat == self.beat {
            self.silent += passed.min(COUNTED);
        } else {
            // What has passed since this beat, not since the last look.
            self.silent = Duration::from_nanos(now.saturating_sub(beat)).min(COUNTED);
            self.beat = beat;
        }
        self.silent
    }
}

/// First byte of messages: armed, followed by the deadline as 8 bytes of boottime nanoseconds.
pub(super) const ARM: u8 = b'A';
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
    /// The freezer's process: its calls may outlast the agent.
    freezer: OwnedFd,
    timer: TimerFd,
    page: Arc<SharedPage>,
    /// Agent and freezer are gone, every thread of them: no FIFREEZE can be in progress any more.
    gone: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    rcu_expedited: Option<PutBack>,
    afterwards: Option<Command>,
}

impl Watchdog {
    fn prepare() -> nix::Result<Self> {
        let Begun { hello, page, mut others, filesystems, agent, shares } = begin()?;
        let rcu_expedited = match hello.former {
            Some(former) => Some(PutBack::new(others.pop().ok_or(Errno::EPROTO)?, former)),
            None => None,
        };
        let freezer = others.pop().ok_or(Errno::EPROTO)?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        let log = kernel_log();
        let gone = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(filesystems.len());
        for (index, fd) in filesystems.into_iter().enumerate() {
            let thaw = Thaw { index, fd, page: Arc::clone(&page), gone: Arc::clone(&gone), log: log.clone() };
            threads.push(
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(move || {
                        touch_stack();
                        thaw.run();
                    })
                    .map_err(|_| Errno::EAGAIN)?,
            );
        }
        let afterwards = hello.afterwards.as_deref().and_then(command);
        ready(shares)?;
        Ok(Self { agent, freezer, timer, page, gone, threads, rcu_expedited, afterwards })
    }

    fn watch(mut self) {
        let mut armed = false;
        let mut socket_open = true;
        let mut silence = Silence::since(boottime_ns());
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
                    Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // The agent is gone, or has let go.
                    Ok(0) | Err(_) => {
                        socket_open = false;
                        self.fire(Trigger::AgentGone);
                    }
                }
            }
            if agent_gone {
                self.fire(Trigger::AgentGone);
                // Once more: the agent may have raised it after the watchdog had fired.
                self.put_back();
                // Until then its FIFREEZE may still be in progress, and be nobody's when it returns.
                while poll(&mut [PollFd::new(self.freezer.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
                    == Err(Errno::EINTR)
                {}
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
            if timer {
                self.fire(Trigger::Deadline);
                let _ = self.timer.unset(); // else it stays readable, and this loop spins before everybody else
                armed = false;
            }
            let silent = silence.look(boottime_ns(), self.page.beat.load(Ordering::SeqCst));
            if armed && silent > HEARTBEAT_GAP {
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
            wake(&self.page.fired);
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
        while self.page.fired.load(Ordering::SeqCst) == 0 {
            sleep_on(&self.page.fired, 0, None);
        }
        let word = &self.page.states[self.index];
        loop {
            // Read before the thaw: only an EINVAL that comes *after* the agent was gone is final.
            let gone = self.gone.load(Ordering::SeqCst);
            let said = word.load(Ordering::SeqCst);
            let state = State::from_word(said);
            let finished = !state.may_be_frozen()
                || match Linux.thaw(self.fd.as_fd()) {
                    Ok(()) => {
                        self.page.thawed_at.store(boottime_ns(), Ordering::SeqCst);
                        word.store(State::ThawedByWatchdog as u32, Ordering::SeqCst);
                        self.page.thawed_by_watchdog.fetch_add(1, Ordering::SeqCst);
                        let (index, why) = (self.index, self.page.fired.load(Ordering::SeqCst));
                        let line = format_args!("watchdog thawed filesystem #{index} (trigger {why})");
                        say(self.log.as_deref(), line);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Looks at these times, in milliseconds, when the last beat was at 1000; after which of them it fires.
    fn fires(looks: impl IntoIterator<Item = u64>) -> Option<u64> {
        let mut silence = Silence::since(1000 * MS);
        looks.into_iter().find(|at| silence.look(at * MS, 1000 * MS) > HEARTBEAT_GAP)
    }

    #[test]
    fn silence_counts_as_long_as_the_watchdog_itself_is_run() {
        // A stopped agent, on a host with time to spare.
        assert_eq!(fires((1..50).map(|n| 1000 + 40 * n)), Some(1520));
        // The whole machine stood still for a second, twice: the agent gets its time nevertheless.
        assert_eq!(fires([2000, 2040, 3040, 3080]), None);
        // A host whose CPUs are taken away for most of the time: every look comes late.
        assert_eq!(fires((1..6).map(|n| 1000 + 400 * n)), None);
        assert_eq!(fires((1..50).map(|n| 1000 + 400 * n)), Some(3800), "but it fires");
        // Woken up often, by messages: only what passes counts.
        assert_eq!(fires((1..2000).map(|n| 1000 + n)), Some(1501));
    }

    #[test]
    fn a_beat_ends_the_silence() {
        let mut silence = Silence::since(0);
        for at in (0..10_000).step_by(40) {
            assert!(silence.look(at * MS, at.saturating_sub(25) * MS) <= COUNTED, "at {at}");
        }
    }
}
