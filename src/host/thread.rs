//! Work in a thread that may be left behind: a call that hangs in the kernel cannot be broken off.
//!
//! In: the work. Out: a thread that does it, or the work itself. Must never: lose work because no thread
//! could be started.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// Stack of a thread that makes one call. Small, because the C library keeps the stacks of ended threads, and
/// mlockall pins them. Bytes.
pub(crate) const STACK: usize = 128 * 1024;

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
    fn without_a_thread_the_work_comes_back() {
        // No machine has room for such a stack.
        let refused = start_by(Builder::new().stack_size(1 << 60), || ());
        assert!(refused.is_err());
    }
}
