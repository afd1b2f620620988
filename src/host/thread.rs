//! Work in a thread that may be left behind: a call that hangs in the kernel cannot be broken off.
//!
//! In: the work. Out: a thread that does it, or the work itself. Must never: lose work because no thread
//! could be started.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// Stack of a thread that makes one call. Small, because the C library keeps the stacks of ended threads, and
/// mlockall pins them. Bytes.
pub(crate) const STACK: usize = 128 * 1024;
/// The kernel's least nice value: such a thread gets the processor before all that are not real-time.
const LEAST_NICE: i32 = -20;

/// This thread goes before others, as far as the kernel lets it. Until the drop.
#[derive(Debug)]
#[must_use = "it lasts until the drop"]
pub struct BeforeOthers(Option<i32>);

/// Gives this thread the least nice value (setpriority(2), which on Linux is of a thread). While filesystems are
/// being frozen and thawed, whoever writes to them waits for a few threads of this program to be run. Threads and
/// processes that it starts inherit that. Without CAP_SYS_NICE, nothing changes.
pub fn before_others() -> BeforeOthers {
    use rustix::process::{getpriority_process, setpriority_process};
    let former = getpriority_process(None).ok();
    BeforeOthers(former.filter(|_| setpriority_process(None, LEAST_NICE).is_ok()))
}

impl BeforeOthers {
    /// It lasts for as long as the thread.
    pub fn for_good(mut self) {
        self.0 = None;
    }
}

impl Drop for BeforeOthers {
    fn drop(&mut self) {
        if let Some(former) = self.0 {
            let _ = rustix::process::setpriority_process(None, former);
        }
    }
}

/// Starts a thread for the work.
///
/// # Errors
/// The work itself, when no thread can be started; the caller may do it where it stands.
pub fn start<F: FnOnce() + Send + 'static>(name: &str, work: F) -> Result<(), F> {
    start_by(Builder::new().name(name.to_owned()), work)
}

fn start_by<F: FnOnce() + Send + 'static>(thread: Builder, work: F) -> Result<(), F> {
    // Kept beside: a thread that cannot be started takes what it was given with it.
    let kept = Arc::new(Mutex::new(Some(work)));
    let take = |kept: &Mutex<Option<F>>| kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    let given = Arc::clone(&kept);
    let thread = thread.spawn(move || {
        if let Some(work) = take(&given) {
            work();
        }
    });
    match thread {
        Ok(_) => Ok(()),
        // The thread never was, so nobody else has taken it.
        Err(_) => take(&kept).map_or(Ok(()), Err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_by_another_thread() {
        let (tx, rx) = std::sync::mpsc::channel();
        assert!(start("work", move || tx.send(std::thread::current().id()).unwrap()).is_ok());
        assert_ne!(rx.recv().unwrap(), std::thread::current().id());
    }

    #[test]
    fn a_thread_goes_before_others_until_the_drop() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let (before, during, after) = std::thread::spawn(move || {
            let before = nice();
            let lasts = before_others();
            let during = nice();
            drop(lasts);
            (before, during, nice())
        })
        .join()
        .unwrap();
        assert_eq!(after, before);
        // Without CAP_SYS_NICE it stays where it was.
        assert!(during == LEAST_NICE || during == before);
        if nix::unistd::geteuid().is_root() {
            assert_eq!(during, LEAST_NICE);
        }
    }

    #[test]
    fn without_a_thread_the_work_comes_back() {
        // No machine has room for such a stack.
        let refused = start_by(Builder::new().stack_size(1 << 60), || ());
        assert!(refused.is_err());
    }
}
