//! Filesystems that no path leads to: covered by another mount, or unmounted while they were frozen.
//!
//! In: the device number of a superblock. Out: an fd on it, for FITHAW. A thread with a private copy of the
//! mount namespace unmounts covers there, or mounts the device again. Must never: change a mount that anybody
//! else sees.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::host::fdinfo::FdInfo;
use crate::host::kernel::{Kernel, Linux};
use crate::host::mountinfo::{self, MountLine};
use crate::ids::DevNo;

/// The most covers that are unmounted from one filesystem.
const COVERS: usize = 64;
const NONE: Option<&str> = None;

/// A superblock that exists and is mounted nowhere: it was frozen when it was unmounted, or something else in
/// the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pathless {
    pub dev: DevNo,
    /// The node of its device in /dev.
    pub device: PathBuf,
    pub fstype: String,
}

/// An fd on a filesystem of this namespace whose mount points are covered by others. None when it is not
/// mounted here.
///
/// # Errors
/// When no private namespace can be made, or a cover cannot be unmounted.
pub(crate) fn covered(dev: DevNo) -> nix::Result<Option<OwnedFd>> {
    in_private(move || {
        for _ in 0..COVERS {
            let table = table()?;
            let Some(wanted) = table.iter().find(|l| l.dev == dev) else { return Ok(None) };
            let fd = Linux.open(&wanted.mount_point)?;
            let Some(reached) = mount_of(&fd, &table) else { return Err(Errno::ESTALE) };
            if reached.dev == dev {
                return Ok(Some(fd));
            }
            let cover = reached.mount_point.clone();
            drop(fd);
            if cover == Path::new("/") {
                return Err(Errno::EBUSY);
            }
            umount2(&cover, MntFlags::MNT_DETACH)?;
        }
        Err(Errno::ELOOP)
    })
}

/// An fd on a superblock that is mounted nowhere. Mounting its device gives the same superblock.
///
/// # Errors
/// The error of mount(2).
pub(crate) fn mounted_again(lost: &Pathless) -> nix::Result<OwnedFd> {
    let lost = lost.clone();
    in_private(move || {
        // Any folder will do: nobody else sees what is mounted there.
        let place = Path::new("/proc");
        let again = |flags| mount(Some(&lost.device), place, Some(lost.fstype.as_str()), flags, NONE);
        // A read-only superblock can only be mounted read-only.
        again(MsFlags::empty()).or_else(|_| again(MsFlags::MS_RDONLY))?;
        Linux.open(place)
    })
}

/// Superblocks of ext4 and xfs that exist though `mounted` knows no mount of them. They are listed in
/// /sys/fs; btrfs shows no device number there.
#[must_use]
pub(crate) fn pathless(mounted: impl Fn(DevNo) -> bool) -> Vec<Pathless> {
    let mut found = Vec::new();
    for fstype in ["ext4", "xfs"] {
        let Ok(entries) = std::fs::read_dir(Path::new("/sys/fs").join(fstype)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Ok(dev) = std::fs::read_to_string(Path::new("/sys/class/block").join(&name).join("dev"))
            else {
                continue; // `features` and other folders that are no device
            };
            let Ok(dev) = dev.trim().parse::<DevNo>() else { continue };
            if !mounted(dev) {
                let device = Path::new("/dev").join(&name);
                found.push(Pathless { dev, device, fstype: fstype.to_owned() });
            }
        }
    }
    found
}

/// Works in a thread with its own copy of the mount namespace, which ends with the thread.
fn in_private<T: Send>(work: impl FnOnce() -> nix::Result<T> + Send) -> nix::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Without this, unmounting a cover would propagate to the host.
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            work()
        });
        // Never in this thread instead: its mounts would change for the rest of the process.
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EIO))
    })
}

fn table() -> nix::Result<Vec<MountLine>> {
    Ok(mountinfo::read(Path::new("/"), "thread-self").map_err(|_| Errno::EIO)?.lines)
}

fn mount_of<'a>(fd: &OwnedFd, table: &'a [MountLine]) -> Option<&'a MountLine> {
    let id = FdInfo::of_fd(fd)?.mount()?;
    table.iter().find(|l| l.id == id)
}
