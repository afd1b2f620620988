//! The first access to an automount, on which it mounts what it stands for.
//!
//! In: the id of the automount's own mount, and its path. Out: nothing, once something is mounted there. Must
//! never: follow a link, or touch another automount than the one that is meant.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use crate::host::fdinfo::FdInfo;

/// Opens the folder, and waits for as long as the mount takes.
///
/// # Errors
/// When another mount is there, or nothing was mounted.
pub(super) fn trigger(mount: u32, at: &Path) -> Result<(), String> {
    let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
        return Err("it has no folder above".to_owned());
    };
    let open = |folder, path: &Path, flags| open(folder, path, flags).map_err(|e| e.desc().to_owned());
    let above = open(AT_FDCWD, above, OFlag::O_PATH)?;
    // O_PATH alone is no access: it opens the automount itself.
    let waits = open(above.as_fd(), Path::new(name), OFlag::O_PATH)?;
    if mount_of(&waits) != Some(mount) {
        return Err("another mount is there by now".to_owned());
    }
    let opened = open(above.as_fd(), Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    match mount_of(&opened) {
        Some(now) if now != mount => Ok(()),
        _ => Err("the automount mounted nothing".to_owned()),
    }
}

fn open(folder: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(folder, path, how)
}

fn mount_of(fd: &OwnedFd) -> Option<u32> {
    FdInfo::of_fd(fd)?.mount()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mount_that_is_meant_is_touched() {
        let proc = mount_of(&open(AT_FDCWD, Path::new("/proc"), OFlag::O_PATH).unwrap()).unwrap();
        // It is what it says, and nothing is mounted on it by the access.
        assert_eq!(trigger(proc, Path::new("/proc")), Err("the automount mounted nothing".to_owned()));
        let other = trigger(proc + 100_000, Path::new("/proc"));
        assert_eq!(other, Err("another mount is there by now".to_owned()));
        assert!(trigger(proc, Path::new("/")).is_err());
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        for path in [link.clone(), link.join("sys")] {
            let said = trigger(1, &path).unwrap_err();
            assert!(said.contains("symbolic links") || said.contains("another mount"), "{said}");
            assert!(!said.contains("mounted nothing"), "{said}");
        }
    }
}
