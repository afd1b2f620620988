//! The clocks of the window.
//!
//! In: nothing. Out: CLOCK_BOOTTIME for deadlines (it goes on through suspend and is never set), wall time
//! for records. Must never: be used the other way round.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME as a duration since boot. Zero when the clock cannot be read, which no supported kernel
/// does.
#[must_use]
pub(crate) fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// CLOCK_BOOTTIME in nanoseconds, for the shared page.
#[must_use]
pub(crate) fn boottime_ns() -> u64 {
    u64::try_from(boottime().as_nanos()).unwrap_or(u64::MAX)
}
