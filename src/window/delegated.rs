//! FIFREEZE and FITHAW, done by the freezer because the agent requests it.
//!
//! In: two words of the shared page for each superblock. Out: what the kernel said to the freezer. Must never:
//! leave a thaw to a freezer that does not reply, or report success that the kernel did not report.
//!
//! Both calls can hang where no signal reaches: FIFREEZE waits for writers inside, FITHAW for a disk. A process
//! with such a thread cannot end. And btrfs reads its super block again while it thaws, which a fatal signal
//! breaks off: the filesystem then goes read-only for good ("super block got modified unexpectedly", errno -4;
//! Linux 6.18, fs/btrfs/super.c, btrfs_unfreeze). The agent has to end when its time is over, and people and
//! systemd kill it; so a process that nobody waits for makes these calls.
//!
//! ```text
//! request  IDLE ──agent──▶ FREEZE | THAW ──freezer──▶ TAKEN ──freezer──▶ IDLE
//!           ▲                    │ agent: withdrawn, when it gives up
//!           └────────────────────┘                    OVER: the agent is gone; the freezer thaws what it froze
//! reply    NONE ──freezer──▶ what the kernel said ──agent──▶ NONE
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::state::State;
use crate::host::futex::{sleep_on, wake};
use crate::host::kernel::{Kernel, Page, SharedPage};
use crate::host::process::{ProcessId, Stat};

const IDLE: u32 = 0;
const FREEZE: u32 = 1;
const THAW: u32 = 2;
const TAKEN: u32 = 3;
const OVER: u32 = 4;

const NONE: u32 = 0;
const DONE: u32 = 1;

/// How long the freezer may take to begin with a thaw. It takes a tenth of a millisecond, unless it is gone or
/// stopped.
const LIMIT: Duration = Duration::from_millis(50);
/// How long it may be inside FITHAW before the agent looks whether it is stopped.
const INSIDE: Duration = Duration::from_secs(1);
/// How long the agent sleeps at most before it looks whether the freezer is gone.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two tries to thaw.
const RETRY: Duration = Duration::from_millis(20);

/// The freezer, as the agent's threads see it.
#[derive(Debug)]
pub struct Delegate {
    page: Arc<SharedPage>,
    /// Thaws that were requested before the thread that waits for them has run.
    begun: Vec<AtomicBool>,
    /// Its pidfd.
    process: OwnedFd,
    id: ProcessId,
}

impl Delegate {
    pub(super) fn new(page: Arc<SharedPage>, process: OwnedFd, id: ProcessId) -> Self {
        let begun = page.requests.iter().map(|_| AtomicBool::new(false)).collect();
        Self { page, begun, process, id }
    }

    /// The freezer's process.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// FIFREEZE, blocking. Waits for as long as it takes; once `given_up`, only for what has begun.
    ///
    /// # Errors
    /// What FIFREEZE says. ECANCELED: given up before it began. EOWNERDEAD: the freezer is gone, and the
    /// filesystem may be frozen.
    pub(super) fn freeze(&self, index: usize, given_up: impl Fn() -> bool) -> nix::Result<()> {
        let (request, reply) = self.words(index);
        if !step(request, IDLE, FREEZE) {
            return Err(Errno::EOWNERDEAD);
        }
        wake(request);
        loop {
            sleep_on(reply, NONE, Some(LOOK));
            if let Some(said) = self.reply(index) {
                return said;
            }
            if given_up() && step(request, FREEZE, IDLE) {
                return Err(Errno::ECANCELED);
            }
        }
    }

    /// Requests FITHAW. [`Delegate::thaw`] then waits for it: with many filesystems, the threads that do would
    /// each have to be run before the freezer could begin.
    pub(super) fn begin_thaw(&self, index: usize) {
        let (request, _) = self.words(index);
        self.begun[index].store(true, Ordering::SeqCst);
        if step(request, IDLE, THAW) {
            wake(request);
        } else {
            self.begun[index].store(false, Ordering::SeqCst);
        }
    }

    /// FITHAW, blocking; none when the freezer does not do it, or did not say how it ended.
    pub(super) fn thaw(&self, index: usize) -> Option<nix::Result<()>> {
        let (request, reply) = self.words(index);
        if !self.begun[index].swap(false, Ordering::SeqCst) {
            if !step(request, IDLE, THAW) {
                return None;
            }
            wake(request);
        }
        let asked = Instant::now();
        loop {
            sleep_on(reply, NONE, Some(LOOK));
            match self.reply(index) {
                Some(said @ (Ok(()) | Err(Errno::EINVAL))) => return Some(said),
                Some(Err(_)) => return None,
                None => {}
            }
            let waited = asked.elapsed();
            if (waited > LIMIT && step(request, THAW, IDLE)) || (waited > INSIDE && self.is_stopped()) {
                return None;
            }
        }
    }

    /// What it has replied; EOWNERDEAD when it is gone without a reply.
    fn reply(&self, index: usize) -> Option<nix::Result<()>> {
        let (_, reply) = self.words(index);
        heard(reply).or_else(|| {
            // Once more after the look: it may have replied and ended in between.
            self.is_gone().then(|| heard(reply).unwrap_or(Err(Errno::EOWNERDEAD)))
        })
    }

    /// Did a FITHAW return 0 after [`Delegate::thaw`] had stopped waiting for it?
    pub(super) fn succeeded_late(&self, index: usize) -> bool {
        heard(self.words(index).1) == Some(Ok(()))
    }

    fn words(&self, index: usize) -> (&AtomicU32, &AtomicU32) {
        (&self.page.requests[index], &self.page.replies[index])
    }

    /// Every thread of it: nothing of it is inside FIFREEZE any more.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }

    /// Stopped, it would not come back from FITHAW though FITHAW has ended.
    fn is_stopped(&self) -> bool {
        let stat = Stat::read(Path::new("/"), self.id.pid).ok().flatten();
        stat.is_some_and(|s| matches!(s.state, 'T' | 't'))
    }
}

/// The freezer's side: does what is requested for this superblock, until the agent is gone; then thaws it if it
/// has frozen it. True when it thawed it then.
pub(super) fn serve(kernel: &dyn Kernel, page: &Page, index: usize, fd: BorrowedFd<'_>) -> bool {
    let (request, reply, state) = (&page.requests[index], &page.replies[index], &page.states[index]);
    let change = |from: State, to: State| step(state, from as u32, to as u32);
    let mut frozen = false;
    loop {
        match request.load(Ordering::SeqCst) {
            FREEZE if step(request, FREEZE, TAKEN) => {
                let said = kernel.freeze(fd);
                frozen = said.is_ok();
                // By whoever is in the kernel: the agent may be gone, and what refused is not to be thawed.
                let _ = change(State::Freezing, if frozen { State::Frozen } else { State::Idle });
                answer(request, reply, said);
            }
            THAW if step(request, THAW, TAKEN) => {
                let said = kernel.thaw(fd);
                if matches!(said, Ok(()) | Err(Errno::EINVAL)) {
                    frozen = false;
                    state.store(State::Thawed as u32, Ordering::SeqCst);
                }
                answer(request, reply, said);
            }
            OVER => break,
            other => sleep_on(request, other, None),
        }
    }
    // The watchdog may have thawed it: what is frozen since then is somebody else's.
    while frozen && State::from_word(state.load(Ordering::SeqCst)).may_be_frozen() {
        match kernel.thaw(fd) {
            Ok(()) => {
                state.store(State::Thawed as u32, Ordering::SeqCst);
                return true;
            }
            Err(Errno::EINVAL) => return false,
            Err(_) => std::thread::sleep(RETRY),
        }
    }
    false
}

/// The agent is gone: [`serve`] of this superblock comes to its end.
pub(super) fn end(page: &Page, index: usize) {
    page.requests[index].store(OVER, Ordering::SeqCst);
    wake(&page.requests[index]);
}

fn answer(request: &AtomicU32, reply: &AtomicU32, said: nix::Result<()>) {
    // First the request: who has heard the reply may request again. OVER stays.
    step(request, TAKEN, IDLE);
    let word = said.map_or_else(|errno| DONE + u32::try_from(errno as i32).unwrap_or(1), |()| DONE);
    reply.store(word, Ordering::SeqCst);
    wake(reply);
}

fn heard(reply: &AtomicU32) -> Option<nix::Result<()>> {
    match reply.swap(NONE, Ordering::SeqCst) {
        NONE => None,
        DONE => Some(Ok(())),
        word => Some(Err(Errno::from_raw(i32::try_from(word - DONE).unwrap_or_default()))),
    }
}

fn step(word: &AtomicU32, from: u32, to: u32) -> bool {
    word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

#[cfg(test)]
mod tests;
