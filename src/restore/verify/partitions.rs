//! Partition tables: where filesystems may begin.
//!
//! In: bytes of a device, by [`Source`]. Out: ranges. Must never: believe a table whose checksum does not fit, or one
//! that points beyond its device.

use std::future::Future;

use crate::ec2::Ec2Error;

/// Why a part of a snapshot could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// EC2 did not give it.
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    /// EC2 gave other data than its own checksum is of, twice.
    #[error("the block at byte {0} is not what its checksum says")]
    Damaged(u64),
    /// What is looked for would be behind the end.
    #[error("it would be behind the end of its volume")]
    Beyond,
    /// The same as [`ReadError::Damaged`], of the volume with this number.
    #[error("the block at byte {1} is not what its checksum says")]
    DamagedOn(usize, u64),
    /// It is on a volume that cannot be read.
    #[error("it is on a volume that cannot be read")]
    NotThere,
}

impl ReadError {
    /// As one of the volume with this number.
    pub(super) fn on(self, volume: usize) -> Self {
        if let Self::Damaged(at) = self { Self::DamagedOn(volume, at) } else { self }
    }
}

/// Bytes of a device.
pub(super) trait Source {
    /// `length` bytes from `at` on.
    fn read(&mut self, at: u64, length: usize) -> impl Future<Output = Result<Vec<u8>, ReadError>>;
}

/// A sector; EBS volumes have no other.
const SECTOR: u64 = 512;
/// A GPT with more entries, or longer ones, is none that anybody makes.
const MOST: (u32, u32) = (1024, 1024);

/// The partitions of a device of this size: where each begins, and its length, in bytes.
pub(super) async fn parts<S: Source>(source: &mut S, size: u64) -> Result<Vec<(u64, u64)>, ReadError> {
    let first = match source.read(0, 512).await {
        Err(ReadError::Beyond) => return Ok(Vec::new()),
        first => first?,
    };
    if first.get(510..512) != Some(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let entries: Vec<(u8, u64, u64)> = (0..4)
        .map(|n| 446 + n * 16)
        .map(|at| (at, first.get(at + 4).copied().unwrap_or_default()))
        .map(|(at, kind)| (kind, u64::from(word(&first, at + 8)), u64::from(word(&first, at + 12))))
        .collect();
    let mut parts: Vec<(u64, u64)> = if entries.iter().any(|(kind, ..)| *kind == 0xee) {
        gpt(source).await?
    } else {
        let used = entries.iter().filter(|(kind, lba, _)| *kind != 0 && *lba != 0);
        used.map(|(_, lba, sectors)| (lba * SECTOR, sectors * SECTOR)).collect()
    };
    parts.retain(|(at, _)| *at < size);
    parts.sort_unstable();
    parts.dedup();
    Ok(parts)
}

async fn gpt<S: Source>(source: &mut S) -> Result<Vec<(u64, u64)>, ReadError> {
    let header = match source.read(SECTOR, 512).await {
        Err(ReadError::Beyond) => return Ok(Vec::new()),
        header => header?,
    };
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let long = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let length = usize::try_from(word(&header, 12)).unwrap_or_default();
    if header.get(..8) != Some(b"EFI PART") || !(92..=512).contains(&length) {
        return Ok(Vec::new());
    }
    let mut zeroed = header[..length].to_vec();
    zeroed[16..20].fill(0);
    let (count, size) = (word(&header, 80), word(&header, 84));
    if crc32fast::hash(&zeroed) != word(&header, 16) || count > MOST.0 || !(128..=MOST.1).contains(&size) {
        return Ok(Vec::new());
    }
    let Some(at) = long(&header, 72).checked_mul(SECTOR) else { return Ok(Vec::new()) };
    let size = usize::try_from(size).unwrap_or_default();
    let entries = match source.read(at, size * usize::try_from(count).unwrap_or_default()).await {
        Err(ReadError::Beyond) => return Ok(Vec::new()),
        entries => entries?,
    };
    if crc32fast::hash(&entries) != word(&header, 88) {
        return Ok(Vec::new());
    }
    let used = entries.chunks_exact(size).filter(|e| e[..16].iter().any(|b| *b != 0));
    let range = |e: &[u8]| {
        let (first, last) = (long(e, 32), long(e, 40));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        Some((first.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?))
    };
    Ok(used.filter_map(range).collect())
}
