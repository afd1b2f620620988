//! Opening what is on one mount, without a step off it.
//!
//! In: a line of mountinfo; names below its root. Out: O_PATH descriptors. Must never: follow a link, step
//! into another mount, or ask what somebody has mounted in the way, which may not answer.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::fdinfo::FdInfo;
use super::mountinfo::MountLine;
use super::namespaces::{Place, walk};
use super::reach::cached;

/// How often the kernel's cache is asked: it also says EAGAIN while something is renamed anywhere.
const TRIES: usize = 20;

/// The root of a mount of this process's namespace.
///
/// # Errors
/// ESTALE when the path of the mount leads to another one, else what openat2(2) says.
pub fn mount_root(line: &MountLine) -> nix::Result<OwnedFd> {
    let root = Place::Own.root()?;
    // A place that something is mounted on is always in the cache, with all folders above it.
    let mut found = Err(Errno::EAGAIN);
    for _ in 0..TRIES {
        found = cached(&root, &line.mount_point);
        if !matches!(found, Err(Errno::EAGAIN)) {
            break;
        }
    }
    // An automount is never entered out of the cache alone.
    let found = if matches!(found, Err(Errno::EAGAIN)) { walk(&root, &line.mount_point) } else { found }?;
    if FdInfo::of_fd(&found).and_then(|i| i.mount()) == Some(line.id) {
        Ok(found)
    } else {
        Err(Errno::ESTALE)
    }
}

/// What has this path below a folder, on the same mount and past no link.
///
/// # Errors
/// ELOOP at a link, EXDEV where something is mounted, else what openat2(2) says.
pub fn below(folder: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    resolve(folder, path, ResolveFlags::NO_XDEV)
}

/// What has this name in a folder: the mount on top, where something is mounted there. Triggers no automount.
///
/// # Errors
/// ELOOP when it is a link, else what openat2(2) says.
pub fn entry(folder: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    resolve(folder, Path::new(name), ResolveFlags::empty())
}

fn resolve(folder: &OwnedFd, path: &Path, more: ResolveFlags) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Neither O_NOFOLLOW, which would open a link at the end, nor O_DIRECTORY, which triggers automounts.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = more | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(folder, path, flags, Mode::empty(), resolve).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

/// The first link on the way, and where it leads. For messages: by now it may be another.
#[must_use]
pub fn link_in(folder: &OwnedFd, path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut above = PathBuf::new();
    for name in path.components() {
        let place = above.join(name);
        if matches!(below(folder, &place), Err(Errno::ELOOP)) {
            let at = below(folder, &above).ok()?;
            return Some((place, readlinkat(&at, name.as_os_str()).ok()?.into()));
        }
        above = place;
    }
    None
}
