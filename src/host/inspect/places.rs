//! A path that the kernel printed, and that may lead elsewhere by now: another filesystem was mounted over a
//! part of it, or it is relative to a folder that nobody knows.
//!
//! In: a path. Out: the superblocks on which it, seen without the mounts above, leads to what is sought. Must
//! never: take the first hit for the right one; what is sought is recognized by what the kernel says of it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{Statfs, fstatfs};

use crate::host::fdinfo::FdInfo;
use crate::host::mount_api;
use crate::host::mountinfo::{self, MountLine};
use crate::ids::DevNo;

/// How often two readings of the free space are taken until nothing was written in between.
const READINGS: usize = 5;

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Opens a path without opening what it leads to.
pub(super) fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    open(path, PATH, Mode::empty())
}

/// The mounts of this process.
pub(super) struct Places {
    lines: Vec<MountLine>,
    /// Indices of the lines by mount id, and by mount point.
    by_id: HashMap<u32, usize>,
    by_point: HashMap<PathBuf, Vec<usize>>,
}

impl Places {
    /// Read once in the life of the process, which is for one time of asking.
    pub fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<Places, String>> = OnceLock::new();
        SHARED.get_or_init(Self::read).as_ref().map_err(Clone::clone)
    }

    fn read() -> Result<Self, String> {
        let lines = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?.lines;
        let mut by_point: HashMap<PathBuf, Vec<usize>> = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            by_point.entry(line.mount_point.clone()).or_default().push(at);
        }
        let by_id = lines.iter().enumerate().map(|(at, l)| (l.id, at)).collect();
        Ok(Self { lines, by_id, by_point })
    }

    /// The superblocks on which `path` leads to what `is_it` recognizes, each once.
    pub fn holding(&self, path: &Path, is_it: impl Fn(&OwnedFd) -> bool) -> Vec<DevNo> {
        let mut found: Vec<DevNo> =
            self.reach(path).into_iter().filter(|(_, fd)| is_it(fd)).map(|(dev, _)| dev).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Where the writes of an overlay go.
    pub fn upper(&self, overlay: DevNo, at: &Path, upper: &Path) -> Vec<DevNo> {
        // The overlay answers statfs(2) with the numbers of the filesystem below its upper layer.
        let merged = open_path(at).ok().filter(|fd| self.mount(fd).is_some_and(|l| l.dev == overlay));
        let is_it = |fd: &OwnedFd| merged.as_ref().is_none_or(|m| same_space(m, fd));
        let mut found = Vec::new();
        for path in from_bases(at, upper) {
            found.extend(self.holding(&path, is_it));
        }
        found.sort();
        found.dedup();
        found
    }

    fn mount(&self, fd: &OwnedFd) -> Option<&MountLine> {
        let id = FdInfo::of_fd(fd)?.mount()?;
        self.lines.get(*self.by_id.get(&id)?)
    }

    /// What the path leads to now, and what it leads to on each mount on the way, without the mounts on that.
    fn reach(&self, path: &Path) -> Vec<(DevNo, OwnedFd)> {
        let mut reached = Vec::new();
        if let Ok(fd) = open_path(path)
            && let Some(line) = self.mount(&fd)
        {
            reached.push((line.dev, fd));
        }
        let at = path.ancestors().filter_map(|p| self.by_point.get(p)).flatten();
        for line in at.filter_map(|at| self.lines.get(*at)) {
            let Ok(rest) = path.strip_prefix(&line.mount_point) else { continue };
            if let Ok(fd) = below_covers(line, rest) {
                reached.push((line.dev, fd));
            }
        }
        reached
    }
}

/// Opens a path on one mount, as if nothing were mounted on that.
fn below_covers(line: &MountLine, rest: &Path) -> nix::Result<OwnedFd> {
    let top = open(&line.mount_point, PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
    if FdInfo::of_fd(&top).and_then(|i| i.mount()) != Some(line.id) {
        return Err(Errno::ENOENT); // this mount is covered itself
    }
    let alone = mount_api::copy_of(&top)?;
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let how =
        OpenHow::new().flags(PATH).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&alone, rest, how)
}

/// An absolute path as it is. A relative one from every folder above the overlay, as containerd and docker
/// enter one of those before they mount.
fn from_bases(at: &Path, path: &Path) -> Vec<PathBuf> {
    if path.is_absolute() {
        return vec![path.to_owned()];
    }
    at.ancestors().skip(1).map(|base| base.join(path)).collect()
}

/// Do the two say the same of the size and the free space of their filesystem?
fn same_space(one: &OwnedFd, other: &OwnedFd) -> bool {
    type Numbers = ((u64, u64, i128), (u64, u64));
    let of = |s: &Statfs| -> Numbers {
        let size = i128::from(s.block_size());
        ((s.blocks(), s.files(), size), (s.blocks_free(), s.files_free()))
    };
    let read = |fd: &OwnedFd| fstatfs(fd).ok().map(|s| of(&s));
    let mut sizes_equal = false;
    for _ in 0..READINGS {
        let (Some(before), Some(between), Some(after)) = (read(one), read(other), read(one)) else {
            return false;
        };
        sizes_equal = before.0 == between.0;
        if before == after || !sizes_equal {
            return sizes_equal && before == between;
        }
    }
    // It is written to all the time.
    sizes_equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_tried_from_every_folder_above() {
        let from = |at: &str, path: &str| from_bases(Path::new(at), Path::new(path));
        assert_eq!(from("/a/b/c", "/u"), [Path::new("/u")]);
        assert_eq!(from("/a/b/c", "u"), [Path::new("/a/b/u"), Path::new("/a/u"), Path::new("/u")]);
    }

    #[test]
    fn a_filesystem_has_its_own_space_and_not_that_of_another() {
        let (shm, again, proc) = ("/dev/shm", "/dev/shm", "/proc");
        let open = |path: &str| open_path(Path::new(path)).unwrap();
        assert!(same_space(&open(shm), &open(again)));
        assert!(!same_space(&open(shm), &open(proc)));
    }
}
