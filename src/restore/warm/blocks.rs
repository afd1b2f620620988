//! Blocks of disks, read and thrown away.
//!
//! In: open disks, and which bytes of each. Out: how many were read, and what could not be. Must never: keep what was read,
//! or hold up whoever stops it: a thread that reads from a dead disk is left alone.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::threads;
use crate::ec2::Ec2Error;
use crate::ec2::direct::{Direct, LONG_PAGE};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;

/// Bytes of a read.
const CHUNK: u64 = 1 << 20;
/// Past the page cache, memory and place have to be aligned to a block of the disk.
const ALIGNED: usize = 4096;

/// A disk that is to be read.
#[derive(Debug)]
pub struct Disk {
    /// As a person knows it.
    pub name: String,
    /// It, opened past the page cache: what is in that was read before.
    pub file: File,
    /// Which bytes.
    pub ranges: Vec<Range<u64>>,
}

/// A disk that is read.
#[derive(Debug)]
struct Part {
    name: String,
    file: File,
    of: u64,
    read: AtomicU64,
}

/// How far a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Far {
    /// As a person knows it.
    pub name: String,
    /// Bytes that are to be read.
    pub of: u64,
    /// Bytes that were.
    pub read: u64,
}

/// The reading of some disks.
#[derive(Debug)]
pub struct Reading {
    parts: Vec<Part>,
    left: Mutex<Left>,
    stopped: AtomicBool,
    failed: Mutex<(u64, Option<String>)>,
}

/// What nobody has taken yet, of each disk, and whose turn it is.
#[derive(Debug)]
struct Left {
    ranges: Vec<VecDeque<Range<u64>>>,
    turn: usize,
}

impl Left {
    /// The next piece: of each disk in turn, since each has a speed of its own.
    fn take(&mut self) -> Option<(usize, Range<u64>)> {
        for _ in 0..self.ranges.len() {
            let disk = self.turn % self.ranges.len();
            self.turn = disk + 1;
            let Some(range) = self.ranges[disk].front_mut() else { continue };
            let piece = range.start..range.end.min(range.start + CHUNK);
            range.start = piece.end;
            if range.is_empty() {
                self.ranges[disk].pop_front();
            }
            return Some((disk, piece));
        }
        None
    }
}

/// Starts to read them.
///
/// # Errors
/// When no thread can be started.
pub fn start(disks: Vec<Disk>) -> std::io::Result<Arc<Reading>> {
    let mut ranges = Vec::new();
    let mut parts = Vec::new();
    for disk in disks {
        let wanted: VecDeque<_> = disk.ranges.into_iter().filter(|r| !r.is_empty()).collect();
        let of = wanted.iter().map(|r| r.end - r.start).sum();
        parts.push(Part { name: disk.name, file: disk.file, of, read: AtomicU64::new(0) });
        ranges.push(wanted);
    }
    let reading = Arc::new(Reading {
        parts,
        left: Mutex::new(Left { ranges, turn: 0 }),
        stopped: AtomicBool::new(false),
        failed: Mutex::new((0, None)),
    });
    let shared = Arc::clone(&reading);
    threads("warm", move || shared.work())?;
    Ok(reading)
}

fn held<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reading {
    fn work(&self) {
        let mut memory = vec![0_u8; CHUNK as usize + ALIGNED];
        let start = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        while !self.stopped.load(Ordering::Relaxed) {
            let Some((disk, piece)) = held(&self.left).take() else { break };
            let part = &self.parts[disk];
            if let Err(e) = read(&part.file, &piece, &mut memory[start..]) {
                let mut failed = held(&self.failed);
                failed.0 += 1;
                failed.1.get_or_insert_with(|| format!("{} at byte {}: {e}", part.name, piece.start));
            }
            part.read.fetch_add(piece.end - piece.start, Ordering::Relaxed);
        }
    }

    /// How far each disk is.
    #[must_use]
    pub fn far(&self) -> Vec<Far> {
        let far = |p: &Part| Far { name: p.name.clone(), of: p.of, read: p.read.load(Ordering::Relaxed) };
        self.parts.iter().map(far).collect()
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.far().iter().all(|far| far.read >= far.of)
    }

    /// No other read is begun.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// What could not be read: how many pieces, and the first.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        let failed = held(&self.failed);
        let first = failed.1.as_ref()?;
        Some(match failed.0 {
            1 => format!("a piece could not be read: {first}"),
            n => format!("{n} pieces could not be read, the first of them {first}"),
        })
    }
}

fn read(file: &File, piece: &Range<u64>, memory: &mut [u8]) -> std::io::Result<()> {
    let mut at = piece.start;
    while at < piece.end {
        let length = usize::try_from(piece.end - at).unwrap_or(usize::MAX).min(memory.len());
        match file.read_at(&mut memory[..length], at) {
            // It is shorter than it was said to be: there is nothing to come from anywhere.
            Ok(0) => return Ok(()),
            Ok(n) => at += n as u64,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The bytes of a disk that its snapshot has, as few ranges.
///
/// # Errors
/// When EC2 does not say.
pub async fn of_snapshot<D: Direct>(
    direct: &Repeating<'_, D>,
    snapshot: &SnapshotId,
) -> Result<Vec<Range<u64>>, Ec2Error> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut from = 0;
    loop {
        let asked = async || direct.inner().blocks(snapshot, from, LONG_PAGE).await;
        let page = direct.call("ListSnapshotBlocks", asked).await?;
        let last = page.blocks.last().map(|(index, _)| *index);
        for (index, _) in page.blocks {
            let start = u64::from(index) * page.block_bytes;
            let end = (start + page.block_bytes).min(page.volume_bytes);
            match ranges.last_mut() {
                Some(before) if before.end == start => before.end = end,
                _ => ranges.push(start..end),
            }
        }
        match last {
            _ if !page.more => return Ok(ranges),
            Some(last) if last >= from && last < u32::MAX => from = last + 1,
            _ => return Err(Ec2Error::unknown("ListSnapshotBlocks", "the next page is this one again")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "a disk that is read as a whole has one")]

    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use super::*;

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    fn ended(reading: &Reading) {
        let end = Instant::now() + Duration::from_secs(60);
        while !reading.is_over() {
            assert!(Instant::now() < end, "{:?}", reading.far());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn every_byte_that_is_meant_is_taken_once_and_each_disk_in_turn() {
        let mut left = Left {
            ranges: vec![
                VecDeque::from([0..CHUNK * 2 + 5, CHUNK * 4..CHUNK * 4 + 1]),
                VecDeque::from([7..8]),
            ],
            turn: 0,
        };
        let taken: Vec<_> = std::iter::from_fn(|| left.take()).collect();
        let expected = [
            (0, 0..CHUNK),
            (1, 7..8),
            (0, CHUNK..CHUNK * 2),
            (0, CHUNK * 2..CHUNK * 2 + 5),
            (0, CHUNK * 4..CHUNK * 4 + 1),
        ];
        assert_eq!(taken, expected);
    }

    #[test]
    fn disks_are_read_to_their_end_also_what_is_shorter_than_was_said() {
        let disk = |name: &str, bytes: u64, said: u64| Disk {
            name: name.to_owned(),
            file: file(bytes),
            ranges: vec![0..said],
        };
        let reading =
            start(vec![disk("a", 5 << 20, 5 << 20), disk("b", 1 << 20, 9 << 20), disk("c", 0, 0)]).unwrap();
        ended(&reading);
        let far: Vec<_> = reading.far().into_iter().map(|f| (f.name, f.read)).collect();
        assert_eq!(far, [("a".to_owned(), 5 << 20), ("b".to_owned(), 9 << 20), ("c".to_owned(), 0)]);
        assert_eq!(reading.failed(), None);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_is_read() {
        let folder = File::open("/").unwrap();
        let mut good = file(0);
        good.write_all(&[1; 100]).unwrap();
        let bad = Disk { name: "bad".into(), file: folder, ranges: vec![0..CHUNK * 2] };
        let reading =
            start(vec![bad, Disk { name: "good".into(), file: good, ranges: vec![0..100] }]).unwrap();
        ended(&reading);
        let said = reading.failed().unwrap();
        assert!(said.starts_with("2 pieces") && said.contains("bad at byte"), "{said}");
    }

    #[test]
    fn what_is_stopped_begins_no_other_read() {
        let reading = Reading {
            parts: vec![Part { name: "a".into(), file: file(9), of: 9, read: AtomicU64::new(0) }],
            left: Mutex::new(Left { ranges: vec![VecDeque::from([0..9])], turn: 0 }),
            stopped: AtomicBool::new(false),
            failed: Mutex::new((0, None)),
        };
        reading.stop();
        reading.work();
        assert!(!reading.is_over() && reading.far()[0].read == 0);
    }
}
