//! The independent witness: block devices' write counters over the point in time.
//!
//! In: `stat` files, opened before the window. Out: which devices were written to. Must never: open a file
//! while frozen, or count an unreadable counter as quiet.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::kernel::{Kernel, WriteCounter};
use crate::plan::WitnessDevice;

/// How long the first reading waits for writes in flight. On a busy host the thread that counts them may not
/// run for a while.
const SETTLING: Duration = Duration::from_millis(200);
/// The same where reads, which go on while frozen, cannot be told from writes.
const SETTLING_WITH_READS: Duration = Duration::from_millis(20);

/// One watched device.
#[derive(Debug)]
pub struct Witness {
    /// Kernel name.
    pub name: String,
    stat: File,
    inflight: Option<File>,
    before: Option<WriteCounter>,
}

/// What a witness saw that it should not have.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Kernel name of the device.
    pub device: String,
    /// Writes completed between the two readings; none when the counter could not be read.
    pub writes: Option<u64>,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.writes {
            Some(0) => write!(f, "{} had a write in flight", self.device),
            Some(n) => write!(f, "{} was written to ({n} writes)", self.device),
            None => write!(f, "the write counter of {} could not be read", self.device),
        }
    }
}

impl Witness {
    /// Opens the counter.
    ///
    /// # Errors
    /// When the `stat` file cannot be opened.
    pub fn open(device: &WitnessDevice) -> std::io::Result<Self> {
        let stat = File::open(&device.stat)?;
        let inflight = File::open(device.stat.with_file_name("inflight")).ok();
        Ok(Self { name: device.name.clone(), stat, inflight, before: None })
    }

    /// The counter, with the writes in flight where they are known apart from reads.
    fn read(&self, kernel: &Arc<dyn Kernel>) -> std::io::Result<WriteCounter> {
        let mut counter = kernel.write_counter(&self.stat)?;
        if let Some(inflight) = &self.inflight {
            counter.in_flight = kernel.writes_in_flight(inflight)?;
        }
        Ok(counter)
    }

    /// Reads the counter that [`Witness::moved`] compares with.
    ///
    /// The block layer wakes whoever waits for a write *before* it counts it as completed
    /// (blk_mq_end_request: end_io, then accounting), so a write that FIFREEZE has waited for may be counted
    /// a moment later. Most of that time it is in flight, and waited for, within bounds; at its end it is
    /// neither in flight nor counted, which is why the window reads until two readings agree.
    pub fn take_baseline(&mut self, kernel: &Arc<dyn Kernel>) {
        let limit = if self.inflight.is_some() { SETTLING } else { SETTLING_WITH_READS };
        let end = Instant::now() + limit;
        loop {
            self.before = self.read(kernel).ok();
            if self.before.is_none_or(|c| c.in_flight == 0) || Instant::now() > end {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// True when nothing is in flight right now.
    pub fn idle(&self, kernel: &Arc<dyn Kernel>) -> bool {
        self.read(kernel).is_ok_and(|c| c.in_flight == 0)
    }

    /// Reads it again: what happened since the baseline. With `idle` a write in flight counts too, for
    /// devices whose filesystem is not frozen.
    pub fn moved(&self, kernel: &Arc<dyn Kernel>, idle: bool) -> Option<Moved> {
        let moved = |writes| Some(Moved { device: self.name.clone(), writes });
        match (self.before, self.read(kernel)) {
            (Some(before), Ok(now)) if now.sectors != before.sectors => {
                moved(Some(now.writes.wrapping_sub(before.writes).max(1)))
            }
            (Some(_), Ok(now)) if idle && now.in_flight > 0 => moved(Some(0)),
            (Some(_), Ok(_)) => None,
            _ => moved(None),
        }
    }
}
