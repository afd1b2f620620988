//! Filesystems that no path leads to: covered by another mount, or unmounted while they were frozen.
//!
//! In: the device number of a superblock. Out: an fd on it, for FITHAW. A thread with a private copy of the
//! mount namespace unmounts covers there, or mounts the device again. Must never: change a mount that anybody
//! else sees.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use super::fdinfo::FdInfo;
use super::kernel::{Kernel, Linux};
use super::mountinfo::MountLine;
use super::namespaces::{self, Place};
use super::reach::Target;
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

/// An fd on a filesystem whose mount points are covered by others. None when it is not mounted there any
/// more.
///
/// # Errors
/// When no private namespace can be made, or a cover cannot be unmounted.
pub(crate) fn covered(target: &Target) -> nix::Result<Option<OwnedFd>> {
    let mut places: Vec<&Place> = target.ways.iter().map(|w| &*w.place).collect();
    places.dedup();
    let mut failed = None;
    for place in places {
        match uncovered(place, target.dev) {
            // Whoever saw it there has ended, perhaps with all that was mounted.
            Ok(None) | Err(Errno::ESRCH) => {}
            Ok(found) => return Ok(found),
            Err(errno) => failed = Some(errno),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn uncovered(place: &Place, dev: DevNo) -> nix::Result<Option<OwnedFd>> {
    in_private(Some(place), move |proc| {
        for _ in 0..COVERS {
            let table = table(proc)?;
            let Some(wanted) = table.iter().find(|l| l.dev == dev) else { return Ok(None) };
            let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            let found = namespaces::walk(&root, &wanted.mount_point)?;
            let Some(reached) = mount_of(&found, &table) else { return Err(Errno::ESTALE) };
            if reached.dev == dev {
                let fd = reopened(proc, &found)?;
                let there = mount_of(&fd, &table).is_some_and(|l| l.dev == dev);
                return if there { Ok(Some(fd)) } else { Err(Errno::ESTALE) };
            }
            let cover = reached.mount_point.clone();
            drop(found);
            if cover == Path::new("/") {
                return Err(Errno::EBUSY);
            }
            umount2(&cover, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
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
    in_private(None, move |_| {
        // Any folder but /proc, by which it is opened: nobody else sees what is mounted there. That it is
        // mounted nowhere was read in /sys.
        let place = Path::new("/sys");
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

/// Works in a thread with its own copy of a mount namespace, which ends with the thread: this process's, or
/// that of a place. Gets /proc of this process's namespace.
fn in_private<T: Send>(
    place: Option<&Place>,
    work: impl FnOnce(&OwnedFd) -> nix::Result<T> + Send,
) -> nix::Result<T> {
    let proc = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let other = place.map(Place::namespace).transpose()?.flatten();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            if let Some(other) = &other {
                unshare(CloneFlags::CLONE_FS)?;
                setns(other, CloneFlags::CLONE_NEWNS)?;
            }
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Without this, unmounting a cover would propagate to the host.
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            work(&proc)
        });
        // Never in this thread instead: its mounts would change for the rest of the process.
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EIO))
    })
}

fn table(proc: &OwnedFd) -> nix::Result<Vec<MountLine>> {
    Ok(namespaces::thread_table(proc)?.lines)
}

/// The same file, opened for reading: by this process's /proc, which need not be mounted where the thread is.
fn reopened(proc: &OwnedFd, fd: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(proc, Path::new(&format!("self/fd/{}", fd.as_raw_fd())), flags, Mode::empty())
}

fn mount_of<'a>(fd: &OwnedFd, table: &'a [MountLine]) -> Option<&'a MountLine> {
    let id = FdInfo::of_fd(fd)?.mount()?;
    table.iter().find(|l| l.id == id)
}
