//! Sleeping on a word of memory that two processes share.
//!
//! In: a word of the shared page. Out: a thread that sleeps until it is woken. Must never: be taken for a
//! lock; a sleeper may wake early.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while the word has this value, until it is woken or the time is over. May return early.
pub(crate) fn sleep_on(word: &AtomicU32, value: u32, limit: Option<Duration>) {
    let limit = limit.and_then(|l| Timespec::try_from(l).ok());
    // Without Flags::PRIVATE: the other side is another process. Errors are an early return (EAGAIN, EINTR,
    // ETIMEDOUT).
    let _ = futex::wait(word, Flags::empty(), value, limit.as_ref());
}

/// Wakes whoever sleeps on this word, in any process.
pub(crate) fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::empty(), u32::try_from(i32::MAX).unwrap_or(1));
}
