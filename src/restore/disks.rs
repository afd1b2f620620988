//! The disks of restored volumes on this host, and the filesystems on them.
//!
//! In: volume ids; /sys below a root. Out: block devices, by the serial number that the disk itself says. Must never:
//! go by a device name, or keep a number for longer than one step: after a detachment another disk may have it.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::clock::Clock;
use crate::discover::volumes::serial_volume;
use crate::host::block::{BlockDevice, DeviceKind, devices};
use crate::host::mountinfo::MountLine;
use crate::host::{device, ondisk};
use crate::ids::{DevNo, VolumeId};

/// How long a disk may take to come after EC2 says that it is attached.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// How long a filesystem is waited for by its own UUID before it may be one with another.
const ITS_OWN: Duration = Duration::from_secs(5);

/// The disk of a volume, then its partitions. Empty where it is not here.
///
/// # Errors
/// When /sys cannot be read.
pub fn of(root: &Path, volume: &VolumeId) -> Result<Vec<BlockDevice>, String> {
    let all = devices(root).map_err(|e| e.to_string())?;
    let Some(disk) = all.iter().find(|d| serial_volume(d).as_ref() == Some(volume)) else {
        return Ok(Vec::new());
    };
    let part =
        |d: &&BlockDevice| matches!(d.kind, DeviceKind::Partition { .. }) && d.below.contains(&disk.name);
    Ok(std::iter::once(disk).chain(all.iter().filter(part)).cloned().collect())
}

/// The same of a volume that has to be here.
fn here(root: &Path, volume: &VolumeId) -> Result<Vec<BlockDevice>, String> {
    let found = of(root, volume)?;
    if found.is_empty() { Err(format!("the disk of {volume} is not here")) } else { Ok(found) }
}

/// Waits for the disk.
///
/// # Errors
/// When it does not come.
pub async fn await_disk(root: &Path, volume: &VolumeId, clock: &dyn Clock) -> Result<BlockDevice, String> {
    let look = || {
        of(root, volume)?.into_iter().next().ok_or_else(|| {
            format!(
                "EC2 says that it is attached, and no disk with the serial number {} has come",
                volume.as_str().replace('-', "")
            )
        })
    };
    until(look, clock).await
}

/// The partition that a device is; none for a whole disk.
#[must_use]
pub fn partition(of: &BlockDevice) -> Option<u32> {
    if let DeviceKind::Partition { number } = of.kind { Some(number) } else { None }
}

/// Waits for this partition of a volume, or for its whole disk: the kernel reads the table after the disk has come, and
/// from a snapshot that takes a while.
///
/// # Errors
/// When it does not come.
pub async fn await_partition(
    root: &Path,
    volume: &VolumeId,
    number: Option<u32>,
    clock: &dyn Clock,
) -> Result<BlockDevice, String> {
    let look = || {
        let found = here(root, volume)?.into_iter().find(|d| partition(d) == number);
        found.ok_or_else(|| format!("{volume} has no partition {}", number.unwrap_or_default()))
    };
    until(look, clock).await
}

/// Waits for the device on this volume that has the filesystem: the whole disk, or a partition.
///
/// # Errors
/// When there is none, or more than one.
pub async fn await_filesystem(
    root: &Path,
    volume: &VolumeId,
    fstype: &str,
    uuid: Option<&str>,
    clock: &dyn Clock,
) -> Result<BlockDevice, String> {
    until(|| filesystem(root, volume, fstype, uuid), clock).await
}

/// The same on a clone, which an earlier restore may have given another UUID: then the only one of its type is meant.
///
/// # Errors
/// As [`await_filesystem`].
pub async fn await_cloned(
    root: &Path,
    volume: &VolumeId,
    fstype: &str,
    uuid: Option<&str>,
    clock: &dyn Clock,
) -> Result<BlockDevice, String> {
    let its = || filesystem(root, volume, fstype, uuid);
    until(or_late(its, || filesystem(root, volume, fstype, None), clock), clock).await
}

/// The second only once the first was waited for: another one may just have come before it.
fn or_late<T>(
    first: impl Fn() -> Result<T, String>,
    second: impl Fn() -> Result<T, String>,
    clock: &dyn Clock,
) -> impl Fn() -> Result<T, String> {
    let late = clock.elapsed() + ITS_OWN;
    move || first().or_else(|why| if clock.elapsed() < late { Err(why) } else { second() })
}

async fn until<T>(look: impl Fn() -> Result<T, String>, clock: &dyn Clock) -> Result<T, String> {
    let end = clock.elapsed() + LIMIT;
    loop {
        match look() {
            Err(_) if clock.elapsed() < end => clock.pause(PAUSE).await,
            said => return said,
        }
    }
}

fn filesystem(
    root: &Path,
    volume: &VolumeId,
    fstype: &str,
    uuid: Option<&str>,
) -> Result<BlockDevice, String> {
    let mut found = Vec::new();
    for one in here(root, volume)? {
        let read = self::uuid(&one, fstype)?;
        if read.is_some() && uuid.is_none_or(|wanted| read.as_deref() == Some(wanted)) {
            found.push(one);
        }
    }
    let what = uuid.map_or_else(|| fstype.to_owned(), |uuid| format!("{fstype} with the UUID {uuid}"));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(format!("{volume} has no {what}")),
        n => Err(format!("{volume} has {n} of {what}")),
    }
}

/// Does this host tell which disk is which volume, by NVMe serial numbers? On Xen, no disk says it.
///
/// # Errors
/// Why it cannot be told.
pub fn can_be_told(root: &Path) -> Result<(), String> {
    let all = devices(root).map_err(|e| e.to_string())?;
    match all.iter().any(|d| serial_volume(d).is_some()) {
        true => Ok(()),
        false => Err("no disk here says which EBS volume it is (as on Xen): a new one could be neither hidden nor found".to_owned()),
    }
}

/// The mounts of what is on this device. mountinfo's number is another one of btrfs, whose source is a node of it.
#[must_use]
pub fn mounts_of<'l>(lines: &'l [MountLine], device: &BlockDevice) -> Vec<&'l MountLine> {
    let is_node = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|m| m.file_type().is_block_device() && DevNo::from_raw(m.rdev()) == device.dev)
    };
    // Of nothing else: a FUSE has for its source what its user wrote, and that may hang.
    let is_it = |l: &&MountLine| {
        l.dev == device.dev || (l.dev.major == 0 && l.fstype == "btrfs" && is_node(Path::new(&l.source)))
    };
    lines.iter().filter(is_it).collect()
}

/// The UUID of the filesystem of this type on a device; none where it has none.
///
/// # Errors
/// When the device cannot be opened.
pub fn uuid(of: &BlockDevice, fstype: &str) -> Result<Option<String>, String> {
    Ok(ondisk::uuid(&mut opened(of)?, fstype))
}

/// Does a filesystem of this type have a journal, or the like, that its superblock says is on another device?
///
/// # Errors
/// When its superblock cannot be read.
pub fn beside(of: &BlockDevice, fstype: &str) -> Result<bool, String> {
    let beside = ondisk::beside(&mut opened(of)?, fstype);
    beside.map(|all| !all.is_empty()).map_err(|e| format!("cannot read {}: {e}", of.name))
}

fn opened(of: &BlockDevice) -> Result<File, String> {
    let node = device::node(of.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", of.name))?;
    let opened = device::open_at(&node, of.dev, OFlag::empty());
    let file = File::from(opened.map_err(|errno| format!("cannot open {}: {}", of.name, errno.desc()))?);
    // What another host or tool wrote a moment ago may still be in this one's cache from before.
    let _ = nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::Pause;

    /// Time that passes where it is waited for.
    #[derive(Debug, Default)]
    struct Passing(Mutex<Duration>);

    impl Clock for Passing {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn pause(&self, time: Duration) -> Pause<'_> {
            *self.0.lock().unwrap() += time;
            Box::pin(std::future::ready(()))
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    #[tokio::test]
    async fn another_filesystem_is_meant_only_once_its_own_uuid_was_waited_for() {
        for (comes, expected, at) in [(1, "its own", 1), (60, "another", 5)] {
            let clock = Passing(Mutex::new(Duration::from_secs(100)));
            let since = || clock.elapsed() - Duration::from_secs(100);
            let first = || match since() < Duration::from_secs(comes) {
                true => Err("not here".to_owned()),
                false => Ok("its own"),
            };
            let found = until(or_late(first, || Ok("another"), &clock), &clock).await;
            assert_eq!((found.unwrap(), since()), (expected, Duration::from_secs(at)));
        }
    }
}
