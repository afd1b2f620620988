//! What a device of this host is a part of: an array, LUKS, a volume group.
//!
//! In: a device. Out: [`Part`]. Must never: write to it, or take what contradicts itself for nothing.

use super::judge::Disk;
use super::partitions::{ReadError, Source as _, parts};
use super::{btrfs, luks, lvm, md};
use crate::host::block::BlockDevice;

pub(in crate::restore) use super::lvm::Pv;
pub(in crate::restore) use super::lvm_text::{Group, Thin, Volume};
#[cfg(test)]
pub(in crate::restore) use super::lvm_text::{PvOfGroup, Segment};
pub(in crate::restore) use super::md::Member;

/// What it is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) enum Part {
    /// An array.
    Array(Member),
    /// What is in LUKS.
    Luks,
    /// A volume group; or of none yet.
    Group(Pv),
    /// None of these.
    Nothing,
}

/// Reads it.
///
/// # Errors
/// When it cannot be read, or its header contradicts itself.
pub(in crate::restore) async fn of(device: &BlockDevice) -> Result<Part, String> {
    let mut disk = Disk::open(device)?;
    disk.forget_cached();
    let size = disk.size;
    let said = |e: ReadError| format!("cannot read {}: {e}", device.name);
    let damaged = |what: String| Err(format!("{}: {what}", device.name));
    // A superblock at the end of a disk with partitions may be that of its last one.
    let end = parts(&mut disk, size).await.map_err(said)?.is_empty();
    match md::read(&mut disk, size, end).await.map_err(said)? {
        Some(md::Found::Member(member)) => return Ok(Part::Array(member)),
        Some(md::Found::Damaged(what)) => return damaged(what),
        None => {}
    }
    match lvm::read(&mut disk).await.map_err(said)? {
        Some(lvm::Found::Pv(pv)) => return Ok(Part::Group(pv)),
        Some(lvm::Found::Damaged(what)) => return damaged(what),
        None => {}
    }
    match luks::read(&mut disk).await.map_err(said)? {
        Some(luks::Header::Good(_)) => Ok(Part::Luks),
        Some(luks::Header::Damaged(what)) => damaged(what),
        None => Ok(Part::Nothing),
    }
}

/// The first bytes of what begins here on a device.
///
/// # Errors
/// When they cannot be read.
pub(in crate::restore) async fn bytes(
    device: &BlockDevice,
    at: u64,
    length: usize,
) -> Result<Vec<u8>, String> {
    let mut disk = Disk::open(device)?;
    disk.forget_cached();
    disk.read(at, length).await.map_err(|e| format!("cannot read {}: {e}", device.name))
}

/// How many devices the btrfs on this one has.
///
/// # Errors
/// When it cannot be read, or there is none.
pub(in crate::restore) async fn devices_of_btrfs(device: &BlockDevice) -> Result<usize, String> {
    let mut disk = Disk::open(device)?;
    disk.forget_cached();
    let (at, length) = btrfs::AT;
    let sb = disk.read(at, length).await.map_err(|e| format!("cannot read {}: {e}", device.name))?;
    let devices = btrfs::read(&sb).and_then(|(_, _, devices)| usize::try_from(devices).ok());
    devices.ok_or_else(|| format!("{} has no btrfs", device.name))
}
