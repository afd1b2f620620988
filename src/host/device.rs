//! A block device by its number: its node, opened, claimed, read past the page cache.
//!
//! In: a device number. Out: descriptors, of that device and no other. Must never: open for writing (udev
//! looks at a device when it is closed), or go by a name where the kernel gives a number.
//!
//! A block device opened with O_EXCL cannot be claimed by anybody else, and every mount claims its devices:
//! as long as the descriptor is open, mounting fails with EBUSY, in every namespace; and it cannot be opened
//! like that while it is mounted anywhere. Others may still open it without O_EXCL.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::uio::pread;

use super::kernel;
use crate::ids::DevNo;

/// Enough for every logical block size (512 or 4096 bytes), and aligned to as much.
const BLOCK: usize = 4096;

/// A node of this device: one of `likely`, else what /dev has.
#[must_use]
pub fn node(dev: DevNo, likely: &[PathBuf]) -> Option<PathBuf> {
    let is = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_raw(m.rdev()) == dev)
    };
    if let Some(found) = likely.iter().find(|p| is(p)) {
        return Some(found.clone());
    }
    let by_number = PathBuf::from(format!("/dev/block/{dev}"));
    if let Some(target) = std::fs::canonicalize(&by_number).ok().filter(|p| is(p)) {
        return Some(target);
    }
    let mut nodes: Vec<PathBuf> = std::fs::read_dir("/dev").ok()?.flatten().map(|e| e.path()).collect();
    nodes.sort();
    nodes.into_iter().find(|p| is(p))
}

/// Opens the device at this node for reading. Blocks for as long as a dead disk does.
///
/// # Errors
/// What open(2) says; ENXIO when the node is another device by now.
pub fn open_at(node: &Path, dev: DevNo, flags: OFlag) -> nix::Result<OwnedFd> {
    // O_NONBLOCK: should the path be a FIFO by now, the open must not wait.
    let fd = open(node, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    let is_block = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFBLK;
    if is_block && DevNo::from_raw(stat.st_rdev) == dev { Ok(fd) } else { Err(Errno::ENXIO) }
}

/// Opens the device for [`read`].
///
/// # Errors
/// ENODEV when /dev has no node of it, else what open(2) says.
pub fn open_direct(dev: DevNo) -> nix::Result<OwnedFd> {
    open_at(&node(dev, &[]).ok_or(Errno::ENODEV)?, dev, OFlag::O_DIRECT)
}

/// Claims the device: see above.
///
/// # Errors
/// EBUSY when something else has claimed it; ENODEV when /dev has no node of it; else what open(2) says.
pub fn claim(dev: DevNo) -> nix::Result<OwnedFd> {
    open_at(&node(dev, &[]).ok_or(Errno::ENODEV)?, dev, OFlag::O_EXCL)
}

/// Reads its first block from the device itself. Blocks for as long as the device does.
///
/// # Errors
/// What pread(2) says; EIO when there is nothing to read.
pub fn read(device: BorrowedFd<'_>) -> nix::Result<()> {
    let mut memory = vec![0_u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let aligned = memory.get_mut(start..).and_then(|m| m.get_mut(..BLOCK)).ok_or(Errno::EINVAL)?;
    match pread(device.as_fd(), aligned, 0)? {
        0 => Err(Errno::EIO),
        _ => Ok(()),
    }
}

/// btrfs forgets which filesystem it has seen on a device of this number: a disk that was detached since, mostly. Where
/// it remembers one, a filesystem whose original is mounted is not told apart from it, and its mount fails with EEXIST,
/// EINVAL or EBUSY (`find_fsid_by_device` of fs/btrfs/volumes.c goes by the number).
///
/// # Errors
/// What opening says, or the kernel: ENOENT when nothing was known, EBUSY when the device is mounted.
pub fn forget_btrfs(dev: DevNo) -> nix::Result<()> {
    let device = open_at(&node(dev, &[]).ok_or(Errno::ENODEV)?, dev, OFlag::empty())?;
    let control = open("/dev/btrfs-control", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    kernel::btrfs_forget(control.as_fd(), device.as_fd())
}
