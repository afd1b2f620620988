//! The wall clock and the pauses of a run, as one value that is passed.
//!
//! In: nothing. Out: the time now, and a pause. Must never: be used for the deadline of the frozen window,
//! which the monotonic clock and the watchdog keep.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The future of [`Clock::pause`].
pub type Pause<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The time and the pauses of a run. A test passes its own clock, so that a pause of 15 s takes no time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall time.
    fn now(&self) -> Timestamp;
    /// Completes after this time. A test's clock may complete at once.
    fn pause(&self, time: Duration) -> Pause<'_>;
    /// Time since some moment, the same in each call. A wall clock that is set does not change it.
    fn elapsed(&self) -> Duration;
}

/// The clock of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn pause(&self, time: Duration) -> Pause<'_> {
        Box::pin(tokio::time::sleep(time))
    }

    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
