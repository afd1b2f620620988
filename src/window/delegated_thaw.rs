//! FITHAW of a btrfs, done by the watchdog because the agent requests it.
//!
//! In: two words of the shared page for each superblock. Out: what FITHAW said in the watchdog. Must never:
//! leave a thaw to a watchdog that does not reply, or report success that the kernel did not report.
//!
//! btrfs reads its super block again while it thaws, and a fatal signal breaks that off: the filesystem then
//! goes read-only for good ("super block got modified unexpectedly", errno -4; Linux 6.18, fs/btrfs/super.c,
//! btrfs_unfreeze). The agent is a process that people and systemd kill; the watchdog ignores what can be
//! ignored and nobody has a reason to kill it alone.
//!
//! ```text
//! request  IDLE ──agent──▶ REQUESTED ──watchdog──▶ TAKEN     agent, after LIMIT: REQUESTED ──▶ IDLE, and it thaws itself
//!           └──────────────────┴────── fired ────────┴──▶ FIRED     the watchdog thaws on its own account
//! reply    NONE ──watchdog──▶ THAWED | NOT_FROZEN | FAILED ──agent──▶ NONE
//! ```

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::state::State;
use crate::host::futex::{sleep_on, wake};
use crate::host::kernel::{Kernel, Linux, Page};

const IDLE: u32 = 0;
const REQUESTED: u32 = 1;
const TAKEN: u32 = 2;
const FIRED: u32 = 3;

const NONE: u32 = 0;
const THAWED: u32 = 1;
const NOT_FROZEN: u32 = 2;
const FAILED: u32 = 3;

/// How long the watchdog may take to begin. It takes a tenth of a millisecond, unless it is gone or stopped.
const LIMIT: Duration = Duration::from_millis(50);
/// How long it may be inside FITHAW before the agent tries too, which then waits in the kernel as well.
const INSIDE: Duration = Duration::from_secs(1);

/// Does a fatal signal during FITHAW harm this type of filesystem?
#[must_use]
pub(super) fn applies_to(fstype: &str) -> bool {
    fstype == "btrfs"
}

/// The agent's side, blocking: the result of FITHAW in the watchdog; none when it was not done there, or when
/// that is not known.
pub(super) fn request(page: &Page, index: usize) -> Option<nix::Result<()>> {
    let (request_word, reply) = (&page.thaw_requests[index], &page.thaw_replies[index]);
    if !step(request_word, IDLE, REQUESTED) {
        return None;
    }
    wake(request_word);
    let mut end = Instant::now() + LIMIT;
    let mut taken = false;
    loop {
        match reply.swap(NONE, Ordering::SeqCst) {
            THAWED => return Some(Ok(())),
            NOT_FROZEN => return Some(Err(Errno::EINVAL)),
            FAILED => return None,
            _ => {}
        }
        let left = end.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            sleep_on(reply, NONE, Some(left));
        } else if taken || step(request_word, REQUESTED, IDLE) || request_word.load(Ordering::SeqCst) != TAKEN
        {
            return None;
        } else {
            taken = true;
            end = Instant::now() + INSIDE;
        }
    }
}

/// Did the watchdog's FITHAW return 0 after [`request`] had stopped waiting for it?
pub(super) fn succeeded_late(page: &Page, index: usize) -> bool {
    page.thaw_replies[index].swap(NONE, Ordering::SeqCst) == THAWED
}

/// The watchdog's side: does what is requested, until it fires.
pub(super) fn serve(page: &Page, index: usize, fd: BorrowedFd<'_>) {
    let (request_word, reply) = (&page.thaw_requests[index], &page.thaw_replies[index]);
    while page.fired.load(Ordering::SeqCst) == 0 {
        if step(request_word, REQUESTED, TAKEN) {
            let said = match Linux.thaw(fd) {
                Ok(()) => THAWED,
                Err(Errno::EINVAL) => NOT_FROZEN,
                Err(_) => FAILED,
            };
            if said != FAILED {
                page.states[index].store(State::Thawed as u32, Ordering::SeqCst);
            }
            reply.store(said, Ordering::SeqCst);
            wake(reply);
        }
        // `fire` sets FIRED after `fired`, which this loop may have read before: sleeping on FIRED would
        // never end.
        match request_word.load(Ordering::SeqCst) {
            REQUESTED => {}
            FIRED => return,
            other => sleep_on(request_word, other, None),
        }
    }
}

/// Wakes the watchdog's thread of this superblock once `fired` is set.
pub(super) fn fire(page: &Page, index: usize) {
    page.thaw_requests[index].store(FIRED, Ordering::SeqCst);
    wake(&page.thaw_requests[index]);
}

fn step(word: &AtomicU32, from: u32, to: u32) -> bool {
    word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use super::*;
    use crate::host::kernel::SharedPage;

    #[test]
    fn nobody_answers_and_the_agent_goes_on_by_itself() {
        let (page, _fd) = SharedPage::create().unwrap();
        assert_eq!(request(&page, 0), None);
        assert_eq!(
            page.thaw_requests[0].load(Ordering::SeqCst),
            IDLE,
            "withdrawn: a late watchdog must not thaw twice"
        );
    }

    #[test]
    fn after_it_has_fired_nothing_is_left_to_it() {
        let (page, _fd) = SharedPage::create().unwrap();
        page.fired.store(1, Ordering::SeqCst);
        fire(&page, 3);
        assert_eq!(request(&page, 3), None);
    }

    /// The thread may have looked at `fired` just before it was set.
    #[test]
    fn firing_is_never_slept_through() {
        let (page, _fd) = SharedPage::create().unwrap();
        let page = Arc::new(page);
        fire(&page, 0);
        let (tx, rx) = std::sync::mpsc::channel();
        let server = Arc::clone(&page);
        std::thread::spawn(move || {
            serve(&server, 0, std::io::stdin().as_fd());
            let _ = tx.send(());
        });
        rx.recv_timeout(Duration::from_secs(20)).expect("it sleeps");
    }

    /// A tmpfs is never frozen: asked for in another thread, FITHAW says EINVAL, and that is heard once.
    #[test]
    fn what_fithaw_says_is_what_the_agent_hears() {
        let (page, _fd) = SharedPage::create().unwrap();
        let page = Arc::new(page);
        let folder = std::fs::File::open("/dev/shm").unwrap();
        let server = {
            let page = Arc::clone(&page);
            std::thread::spawn(move || serve(&page, 0, folder.as_fd()))
        };
        // The thread may not run within LIMIT of its start: what was asked is then withdrawn, and may be
        // asked again.
        let end = Instant::now() + Duration::from_secs(5);
        let mut said = None;
        while page.thaw_requests[0].load(Ordering::SeqCst) != TAKEN && Instant::now() < end {
            said = request(&page, 0);
        }
        // Without root FITHAW is refused whatever is frozen, which is no answer.
        assert_eq!(said, nix::unistd::geteuid().is_root().then_some(Err(Errno::EINVAL)));
        assert_eq!(request(&page, 0), None, "the second thaw is the agent's own");
        assert!(!succeeded_late(&page, 0));
        page.fired.store(1, Ordering::SeqCst);
        fire(&page, 0);
        server.join().unwrap();
    }
}
