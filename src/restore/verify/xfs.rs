//! XFS: does a mount have something to recover?
//!
//! ```text
//! superblock ─▶ where the log is ─▶ head (by cycle numbers) ─▶ last record ─▶ tail ─▶ items in between
//! ```
//!
//! A frozen XFS has an empty log but for the superblock that it logs to cover it (xfs_log_cover); an unmounted one has an
//! unmount record. Any other item between tail and head is one that a mount replays.
//!
//! There is one exception. XFS knows a covering record by its five operations (`XLOG_COVER_OPS`), and the change of one
//! inode alone has five, too: after an earlier freeze it counts as one, so that the next freeze writes the inode, and
//! leaves its item in the log. Such an item has nothing to recover: the inode on the disk has its LSN, or a later one.
//!
//! In: bytes of the filesystem, by [`Source`]. Out: [`Seen`]. Must never: write, read the whole log, or take a log for
//! clean that it does not understand.
//!
//! Formats: `struct xfs_dsb` (fs/xfs/libxfs/xfs_format.h); `xlog_rec_header` (fs/xfs/libxfs/xfs_log_format.h). Finding head and tail: fs/xfs/xfs_log_recover.c.

use super::partitions::{ReadError, Source};
use super::xfs_items::{Inode, Item, items};
use super::{Seen, State};

/// Where the superblock is, and its length.
pub(super) const AT: (u64, usize) = (0, 512);

/// Where the first record of a log begins, on a device of its own: no record is longer.
pub(super) const LOG: (u64, usize) = (0, 264 << 10);

/// The log's unit: a basic block.
pub(super) const BB: u64 = 512;
const RECORD: u32 = 0xfeed_babe;
/// `XLOG_FMT_LINUX_LE`
const LINUX: u32 = 1;
/// `XLOG_MAX_RECORD_BSIZE`, in basic blocks, and its headers.
const LONGEST: u64 = (256 << 10) / BB + 8;
/// Header sectors hold the cycle data of 64 sectors each (`XLOG_HEADER_CYCLE_SIZE / BBSIZE`).
const CYCLES: u64 = 64;
/// More would be a log that nobody has quiesced.
const MOST_BETWEEN: u64 = 1024;

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What begins with a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xfs {
    /// Of one whose log is on another device, what its superblock says.
    pub seen: Seen,
    /// The basic blocks of a log that is on another device.
    pub log_apart: Option<u64>,
}

/// What this filesystem says; none where there is none.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read<S: Source>(source: &mut S) -> Result<Option<Xfs>, ReadError> {
    let sb = match source.read(AT.0, AT.1).await {
        Err(ReadError::Beyond) => return Ok(None),
        sb => sb?,
    };
    let Some(sb) = Superblock::parse(&sb) else { return Ok(None) };
    let uuid = sb.uuid.clone();
    let (state, log_apart) = match sb.log() {
        Err(state) => (state, None),
        Ok((None, blocks)) => (State::Clean, Some(blocks)),
        Ok((Some(start), blocks)) => match state(source, start, blocks, true).await {
            Err(ReadError::Beyond) => (State::Damaged("its log is beyond its end".to_owned()), None),
            state => (state?, None),
        },
    };
    Ok(Some(Xfs { seen: Seen { uuid, state }, log_apart }))
}

/// What a log of so many basic blocks says that is a device.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn log<S: Source>(source: &mut S, blocks: u64) -> Result<State, ReadError> {
    match state(source, 0, blocks, false).await {
        Err(ReadError::Beyond) => Ok(State::Damaged("its log is larger than its device".to_owned())),
        state => state,
    }
}

/// The filesystem that a device is the log of, by the first record that begins here; none where there is no record.
pub(super) fn log_of(first: &[u8]) -> Option<String> {
    let record = |sector: &&[u8]| be32(sector, 0) == Some(RECORD) && be32(sector, 300) == Some(LINUX);
    let record = first.chunks_exact(512).find(record)?;
    Some(uuid::Uuid::from_slice(record.get(304..320)?).ok()?.to_string())
}

async fn state<S: Source>(source: &mut S, at: u64, blocks: u64, inside: bool) -> Result<State, ReadError> {
    match (Log { source, at, blocks, inside }).state().await {
        Ok(state) => Ok(state),
        Err(Trouble::Read(e)) => Err(e),
        Err(Trouble::Strange(what)) => Ok(State::Dirty(format!("its log is not quiet: {what}"))),
    }
}

#[derive(Debug)]
struct Superblock {
    uuid: String,
    block: u64,
    ag_blocks: u64,
    ag_log: u32,
    log_start: u64,
    log_blocks: u64,
    sum_fits: bool,
}

impl Superblock {
    fn parse(sb: &[u8]) -> Option<Self> {
        if sb.get(..4)? != b"XFSB" {
            return None;
        }
        let version = u16::from_be_bytes(sb.get(100..102)?.try_into().ok()?) & 0xf;
        let sector = usize::from(u16::from_be_bytes(sb.get(102..104)?.try_into().ok()?));
        Some(Self {
            uuid: uuid::Uuid::from_slice(sb.get(32..48)?).ok()?.to_string(),
            block: u64::from(be32(sb, 4)?),
            ag_blocks: u64::from(be32(sb, 84)?),
            ag_log: u32::from(*sb.get(124)?),
            log_start: be64(sb, 48)?,
            log_blocks: u64::from(be32(sb, 96)?),
            // A sector of 4 KiB is not read as a whole: its rest is zero, and its sum is not computed.
            sum_fits: version < 5 || sector != sb.len() || {
                let mut zeroed = sb.to_vec();
                zeroed.get_mut(224..228)?.fill(0);
                u32::from_le_bytes(sb.get(224..228)?.try_into().ok()?) == crc32c::crc32c(&zeroed)
            },
        })
    }

    /// Where the log begins in the filesystem, in bytes, and its basic blocks. Of one on another device it is not said.
    fn log(&self) -> Result<(Option<u64>, u64), State> {
        if !self.sum_fits {
            return Err(State::Damaged("the checksum of its superblock does not fit".to_owned()));
        }
        let strange = || State::Damaged("its superblock says that its log is nowhere".to_owned());
        let mask = 1_u64.checked_shl(self.ag_log).map(|bit| bit - 1).ok_or_else(strange)?;
        let (group, block) = (self.log_start >> self.ag_log.min(63), self.log_start & mask);
        let start = group.checked_mul(self.ag_blocks).and_then(|b| b.checked_add(block));
        let start = start.and_then(|b| b.checked_mul(self.block)).ok_or_else(strange)?;
        let blocks = self.log_blocks.checked_mul(self.block).map(|bytes| bytes / BB).ok_or_else(strange)?;
        if blocks < 8 || !self.block.is_power_of_two() {
            return Err(strange());
        }
        Ok(((self.log_start != 0).then_some(start), blocks))
    }
}

enum Trouble {
    Read(ReadError),
    /// Something that a quiet log does not have.
    Strange(String),
}

impl From<ReadError> for Trouble {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

fn strange<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Strange(what.into()))
}

struct Log<'a, S> {
    source: &'a mut S,
    /// Where it begins on the device, in bytes.
    at: u64,
    /// Its length in basic blocks.
    blocks: u64,
    /// It is on the device that the inodes are on.
    inside: bool,
}

/// A record's header.
struct Record {
    /// Where it begins, in basic blocks.
    at: u64,
    cycle: u32,
    /// Sectors of its headers, and of its data.
    headers: u64,
    data: u64,
    operations: u32,
    /// What a mount replays begins here: cycle and block.
    tail: (u32, u64),
    sector: Vec<u8>,
}

impl<S: Source> Log<'_, S> {
    /// `count` basic blocks from `at` on, over the end if need be.
    async fn sectors(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Trouble> {
        let at = at % self.blocks;
        let first = count.min(self.blocks - at);
        let length =
            |n: u64| usize::try_from(n * BB).map_err(|_| Trouble::Strange("a record is too long".into()));
        let mut bytes = self.source.read(self.at + at * BB, length(first)?).await?;
        if first < count {
            bytes.extend(self.source.read(self.at, length(count - first)?).await?);
        }
        Ok(bytes)
    }

    /// The cycle that this basic block was written in.
    async fn cycle(&mut self, at: u64) -> Result<u32, Trouble> {
        let sector = self.sectors(at, 1).await?;
        let first = be32(&sector, 0).unwrap_or_default();
        // A record's own first word is its magic; its cycle is behind it.
        Ok(if first == RECORD { be32(&sector, 4).unwrap_or_default() } else { first })
    }

    /// The first basic block that was not written in the cycle of the first one. It is 0 where all were.
    async fn head(&mut self) -> Result<u64, Trouble> {
        let (first, last) = (self.cycle(0).await?, self.cycle(self.blocks - 1).await?);
        if first == last {
            return Ok(0);
        }
        if last.checked_add(1) != Some(first) && last != 0 {
            return strange(format!("its cycles are {first} and {last}"));
        }
        let (mut low, mut high) = (0, self.blocks - 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.cycle(middle).await? == first { low = middle } else { high = middle }
        }
        Ok(high)
    }

    async fn record(&mut self, at: u64) -> Result<Option<Record>, Trouble> {
        let at = at % self.blocks;
        let sector = self.sectors(at, 1).await?;
        let header = || {
            let word = |at| be32(&sector, at);
            if word(0)? != RECORD {
                return None;
            }
            let (lsn, tail) = (be64(&sector, 16)?, be64(&sector, 24)?);
            let (length, size, version) = (u64::from(word(12)?), u64::from(word(320)?), word(8)?);
            // A long record of version 2 has more header sectors.
            let headers = if version & 2 != 0 { size.div_ceil(CYCLES * BB).max(1) } else { 1 };
            let (cycle, block) = (u32::try_from(lsn >> 32).ok()?, lsn & 0xffff_ffff);
            let tail = (u32::try_from(tail >> 32).ok()?, tail & 0xffff_ffff);
            let fits = block == at && headers <= 8 && length <= LONGEST * BB && tail.1 < self.blocks;
            let (data, operations) = (length.div_ceil(BB), word(40)?);
            fits.then_some((cycle, headers, data, operations, tail))
        };
        let Some((cycle, headers, data, operations, tail)) = header() else { return Ok(None) };
        Ok(Some(Record { at, cycle, headers, data, operations, tail, sector }))
    }

    /// The record that ends at the head.
    async fn last(&mut self, head: u64) -> Result<Record, Trouble> {
        for back in 1..=LONGEST.min(self.blocks) {
            let at = (head + self.blocks - back) % self.blocks;
            if let Some(record) = self.record(at).await? {
                let end = (record.at + record.headers + record.data) % self.blocks;
                // A log stripe is filled up: the head may be a little behind the record's data.
                if back < record.headers + record.data || end > head && head != 0 && record.at < head {
                    return strange("its last record is not whole");
                }
                return Ok(record);
            }
        }
        strange("it has no record before its head")
    }

    async fn state(&mut self) -> Result<State, Trouble> {
        let head = self.head().await?;
        let last = self.last(head).await?;
        let mut between = (head + self.blocks - last.tail.1) % self.blocks;
        if between == 0 && last.tail.1 == last.at {
            between = self.blocks;
        }
        if between > MOST_BETWEEN {
            return Ok(State::Dirty(format!("{} KiB of its log have to be replayed", between * BB / 1024)));
        }
        let (mut at, end) = (last.tail.1, last.tail.1 + between);
        let mut foreign = 0_u32;
        while at < end {
            let Some(record) = self.record(at).await? else {
                // What is filled up behind a record has no header.
                at += 1;
                continue;
            };
            if record.cycle < last.tail.0 {
                return strange("a record is older than its tail");
            }
            foreign += self.items(&record).await?;
            at += record.headers + record.data;
        }
        Ok(match foreign {
            0 => State::Clean,
            1 => State::Dirty("an item of its log has to be replayed".to_owned()),
            n => State::Dirty(format!("{n} items of its log have to be replayed")),
        })
    }

    /// Items of this record that a mount would replay, but for the superblock and inodes that are written already.
    async fn items(&mut self, record: &Record) -> Result<u32, Trouble> {
        let mut data = self.sectors(record.at + record.headers, record.data).await?;
        let more = self.sectors(record.at + 1, record.headers - 1).await?;
        // The first word of each sector is its cycle; the word that was there is in the headers.
        for n in 0..usize::try_from(record.data).unwrap_or_default() {
            let (of, slot) = (n / 64, n % 64);
            let saved = match of {
                0 => record.sector.get(44 + slot * 4..48 + slot * 4),
                // `xlog_rec_ext_header`: a cycle, then the data.
                _ => more.get((of - 1) * 512 + 4 + slot * 4..(of - 1) * 512 + 8 + slot * 4),
            };
            if let (Some(saved), Some(word)) = (saved, data.get_mut(n * 512..n * 512 + 4)) {
                word.copy_from_slice(saved);
            }
        }
        let items = items(&data, record.operations)
            .ok_or_else(|| Trouble::Strange("a record is not understood".to_owned()))?;
        let mut left = 0;
        for item in items {
            match item {
                Item::Inode(inode) if self.inside && self.is_written(&inode, record).await? => {}
                _ => left += 1,
            }
        }
        Ok(left)
    }

    /// Has the inode on the disk what this record says of it? An inode is written whole, with the LSN of its last change.
    async fn is_written(&mut self, inode: &Inode, record: &Record) -> Result<bool, Trouble> {
        let bytes = match self.source.read(inode.at, 176).await {
            Err(ReadError::Beyond) => return Ok(false),
            bytes => bytes?,
        };
        // `struct xfs_dinode`: di_magic +0, di_version +4, di_lsn +112, di_ino +152. Version 3 has the last two.
        let is_it =
            bytes.starts_with(b"IN") && bytes.get(4) == Some(&3) && be64(&bytes, 152) == Some(inode.ino);
        let lsn = u64::from(record.cycle) << 32 | record.at;
        Ok(is_it && be64(&bytes, 112).is_some_and(|written| written >= lsn && written != u64::MAX))
    }
}
