//! The proof that a filesystem is unmounted: its devices are ours alone.
//!
//! In: devices. Out: [`Claim`]s, held from before the request until after the response. Must never: let go
//! of one before that, or open a device for writing (udev would look at it when it is closed).
//!
//! A block device that is open with O_EXCL can be opened like that only once, and the kernel opens the
//! devices of every mount like that. So as long as a claim is open, mounting the device fails with EBUSY in
//! every mount namespace; and a claim fails while the device is mounted anywhere.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use super::Device;
use crate::ids::DevNo;

/// How long a claim is repeated on EBUSY: udev or blkid may still have a device open that they looked at a
/// moment ago.
const PATIENCE: Duration = Duration::from_secs(1);

/// A device that nobody else can mount as long as this value exists.
#[derive(Debug)]
#[must_use = "dropping it lets others mount the device"]
pub struct Claim {
    _fd: OwnedFd,
}

/// Opens the device with O_EXCL, repeating that for [`PATIENCE`] while it is busy.
///
/// # Errors
/// EBUSY when it is mounted or otherwise held, ENXIO when its node is another device by now.
pub fn claim(device: &Device) -> nix::Result<Claim> {
    let end = Instant::now() + PATIENCE;
    let fd = loop {
        match open(&device.path, OFlag::O_RDONLY | OFlag::O_EXCL | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            said => break said?,
        }
    };
    if DevNo::from_raw(fstat(&fd)?.st_rdev) != device.dev {
        return Err(Errno::ENXIO);
    }
    Ok(Claim { _fd: fd })
}

/// A path of this device: the first of `likely` that is this device, else a node in /dev.
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
