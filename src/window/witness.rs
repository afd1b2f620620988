//! The independent witness: block devices' write counters over the point in time.
//!
//! In: `stat` files and devices, opened before the window. Out: which devices were written to, and which
//! counters could not have shown it. Must never: open a file while frozen, count an unreadable counter as
//! quiet, or count one as quiet that nobody has seen move.
//!
//! A counter that stands still proves something only if it would have moved. It does not where statistics are
//! switched off (`queue/iostats`), on the heads of NVMe multipath before Linux 6.4, and on their partitions
//! since then (the head counts for itself alone). So each device is read once before the window and once
//! after it, past the page cache: reads and writes are counted by the same code and the same switch, so a
//! counter that counts the read would have counted a write.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::check::{Check, Finding};
use crate::host::kernel::{Kernel, WriteCounter};
use crate::host::thread::STACK;
use crate::plan::WitnessDevice;

/// How long the first reading waits for writes in flight. On a busy host the thread that counts them may not
/// run for a while.
const SETTLING: Duration = Duration::from_millis(200);
/// The same where reads, which go on while frozen, cannot be told from writes.
const SETTLING_WITH_READS: Duration = Duration::from_millis(20);
/// How long a read that has returned may take to be counted. The same as [`SETTLING`], on a busier host.
const COUNTING: Duration = Duration::from_secs(1);
/// The same where statistics are said to be switched off. Device mapper before Linux 5.18 says so and counts.
const COUNTING_IF_OFF: Duration = Duration::from_millis(50);
/// Longest that opening and reading every device may take: a millisecond, unless a disk is dead.
const LIMIT: Duration = Duration::from_secs(5);

/// One watched device.
#[derive(Debug)]
pub struct Witness {
    /// Kernel name.
    pub name: String,
    /// Why its counter proves nothing when it stands still; none when it was seen to move.
    pub blind: Option<String>,
    files: Option<Files>,
    before: Option<WriteCounter>,
}

/// What is open of it.
#[derive(Debug)]
struct Files {
    stat: Arc<File>,
    inflight: Option<File>,
    device: Arc<OwnedFd>,
}

/// What a witness saw that it should not have.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Kernel name of the device.
    pub device: String,
    /// What happened to it between the two readings.
    pub seen: Seen,
}

/// The difference of two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// So many writes were completed.
    Writes(u64),
    /// A write is in flight.
    InFlight,
    /// One of the two could not be made.
    Unreadable,
    /// The second is less than the first: another device has its name by now.
    Backwards,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = &self.device;
        match self.seen {
            Seen::InFlight => write!(f, "{device} had a write in flight"),
            Seen::Writes(n) => write!(f, "{device} was written to ({n} writes)"),
            Seen::Unreadable => write!(f, "the write counter of {device} could not be read"),
            Seen::Backwards => {
                write!(f, "the write counter of {device} went backwards: the device was replaced")
            }
        }
    }
}

/// Opens the witnesses of all devices at once, and has each show that it can see.
pub(super) fn open_all(kernel: &Arc<dyn Kernel>, devices: &[WitnessDevice]) -> Vec<Witness> {
    let end = Instant::now() + LIMIT;
    let mut opening = Vec::with_capacity(devices.len());
    for device in devices {
        let (tx, rx) = channel();
        let (kernel, wanted) = (Arc::clone(kernel), device.clone());
        let open = move || {
            let _ = tx.send(Witness::open(&kernel, &wanted));
        };
        // Without a thread its answer is missing.
        let _ = std::thread::Builder::new().name("witness".to_owned()).stack_size(STACK).spawn(open);
        opening.push((device, rx));
    }
    let opened = opening.into_iter().map(|(device, rx)| {
        let left = end.saturating_duration_since(Instant::now());
        rx.recv_timeout(left).unwrap_or_else(|_| {
            Witness::blind(&device.name, format!("reading it takes longer than {} s", LIMIT.as_secs()))
        })
    });
    opened.collect()
}

impl Witness {
    fn blind(name: &str, why: String) -> Self {
        Self { name: name.to_owned(), blind: Some(why), files: None, before: None }
    }

    fn open(kernel: &Arc<dyn Kernel>, device: &WitnessDevice) -> Self {
        let opened = || {
            let stat = File::open(&device.stat).map_err(|e| format!("its counter cannot be opened: {e}"))?;
            let inflight = File::open(device.stat.with_file_name("inflight")).ok();
            let fd = kernel.open_device(device.dev).map_err(|errno| match errno {
                Errno::ENODEV => "/dev has no node of it, so it cannot be read".to_owned(),
                errno => format!("it cannot be opened: {}", errno.desc()),
            })?;
            Ok(Files { stat: Arc::new(stat), inflight, device: Arc::new(fd) })
        };
        match opened() {
            Ok(files) => {
                let off = switched_off(device);
                let limit = if off { COUNTING_IF_OFF } else { COUNTING };
                let counts = counts(&**kernel, &files.stat, &files.device, limit);
                let said = |why| {
                    if off { "its statistics are switched off (queue/iostats is 0)".to_owned() } else { why }
                };
                let blind = counts.err().map(said);
                Self { name: device.name.clone(), blind, files: Some(files), before: None }
            }
            Err(why) => Self::blind(&device.name, why),
        }
    }

    /// The counter, with the writes in flight where they are known apart from reads, and wanted.
    fn read(&self, kernel: &Arc<dyn Kernel>, in_flight: bool) -> std::io::Result<WriteCounter> {
        let Some(files) = &self.files else { return Err(std::io::ErrorKind::NotFound.into()) };
        let mut counter = kernel.write_counter(&files.stat)?;
        if let Some(inflight) = files.inflight.as_ref().filter(|_| in_flight) {
            counter.in_flight = kernel.writes_in_flight(inflight)?;
        }
        Ok(counter)
    }

    /// Reads the counter that [`Witness::moved`] compares with.
    ///
    /// The block layer counts the sectors of a write *before* it wakes whoever waits for it, and the write itself
    /// after that (blk_update_request, blk_complete_request), so sectors are what is compared. A write that is in
    /// flight is waited for, within bounds: FIFREEZE has not waited for it.
    pub fn take_baseline(&mut self, kernel: &Arc<dyn Kernel>) {
        let apart = self.files.as_ref().is_some_and(|f| f.inflight.is_some());
        let end = Instant::now() + if apart { SETTLING } else { SETTLING_WITH_READS };
        loop {
            self.before = self.read(kernel, true).ok();
            if self.before.is_none_or(|c| c.in_flight == 0) || Instant::now() > end {
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Reads it again: what happened since the baseline. With `idle` a write in flight counts too, for
    /// devices whose filesystem is not frozen. One that is blind may be seen to have moved all the same.
    pub fn moved(&self, kernel: &Arc<dyn Kernel>, idle: bool) -> Option<Moved> {
        let seen = match (self.before, self.read(kernel, idle)) {
            (Some(before), Ok(now)) if now.sectors < before.sectors || now.writes < before.writes => {
                Seen::Backwards
            }
            (Some(before), Ok(now)) if now.sectors != before.sectors => {
                Seen::Writes((now.writes - before.writes).max(1))
            }
            (Some(_), Ok(now)) if idle && now.in_flight > 0 => Seen::InFlight,
            (Some(_), Ok(_)) => return None,
            _ if self.blind.is_some() => return None,
            _ => Seen::Unreadable,
        };
        Some(Moved { device: self.name.clone(), seen })
    }

    /// Is it still able to see? Asked once everything is thawed. `finding` says what it means that it is not.
    pub(super) fn check(
        &self,
        kernel: &Arc<dyn Kernel>,
        finding: fn(&str, &str) -> Finding,
    ) -> Option<Check> {
        let files = self.files.as_ref().filter(|_| self.blind.is_none())?;
        let (stat, device) = (Arc::clone(&files.stat), Arc::clone(&files.device));
        let (kernel, name) = (Arc::clone(kernel), self.name.clone());
        let unanswered = finding(&name, "whether it still counted at the end is not known");
        let ask = move || {
            let why = counts(&*kernel, &stat, &device, COUNTING).err()?;
            Some(finding(&name, &format!("it counted before the window and not after it: {why}")))
        };
        Some(Check { unanswered, ask: Box::new(ask) })
    }
}

/// Reads the device, and waits until its counter has counted that.
fn counts(kernel: &dyn Kernel, stat: &File, device: &OwnedFd, limit: Duration) -> Result<(), String> {
    let reads = || {
        kernel.write_counter(stat).map(|c| c.reads).map_err(|e| format!("its counter cannot be read: {e}"))
    };
    let before = reads()?;
    kernel.read_device(device.as_fd()).map_err(|errno| format!("it cannot be read: {}", errno.desc()))?;
    let end = Instant::now() + limit;
    while reads()? == before {
        if Instant::now() > end {
            return Err("a read of it is not counted".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Are the statistics of this device, or of the disk of this partition, said to be switched off?
fn switched_off(device: &WitnessDevice) -> bool {
    let folders = device.stat.ancestors().skip(1).take(2).map(PathBuf::from);
    let mut said = folders.filter_map(|f| std::fs::read_to_string(f.join("queue/iostats")).ok());
    said.next().is_some_and(|text| text.trim() == "0")
}
