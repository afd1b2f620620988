//! Opening a superblock by any of its mounts, on behalf of somebody who has to reach it and must not be led
//! elsewhere.
//!
//! In: mounts of one superblock, seen from any namespace. Out: an open file of that superblock, which FITHAW
//! takes. Must never: open anything before it is known to be a folder or a plain file of that superblock,
//! follow a link, trigger an automount, or wait for one path while another may lead there.
//!
//! What others have mounted may hang (FUSE, a dead server, an open that a fanotify listener has to permit),
//! and the table of a foreign namespace may lie. So each path is first looked up in the kernel's cache alone
//! (RESOLVE_CACHED; the places that something is mounted on are always in it), then checked by its mount id,
//! and only then opened. Paths that the cache does not have are walked afterwards, in threads that may be
//! left behind.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use super::fdinfo::FdInfo;
use super::kernel::{Kernel, Linux};
use super::namespaces::{Place, Tables, walk};
use super::thread;
use crate::ids::DevNo;

/// After so long without an answer the next path is tried beside the first.
const STALL: Duration = Duration::from_millis(500);
/// Most paths of one superblock that are left hanging.
const HANGING: usize = 8;

/// A mount of a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where its path begins.
    pub place: Arc<Place>,
    /// Its mount id.
    pub mount: u32,
    /// Its mount point.
    pub path: PathBuf,
}

/// A superblock that may be frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its key.
    pub dev: DevNo,
    /// Its type.
    pub fstype: String,
    /// Its mounts, this process's own first; some are covered, some may have gone.
    pub ways: Vec<Way>,
}

/// Every superblock that could be frozen, in the order of its first mount.
#[must_use]
pub fn targets(tables: &Tables) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for table in &tables.tables {
        let place = Arc::new(table.place.clone());
        for line in table.table.lines.iter().filter(|l| may_freeze(l.dev, &l.fstype)) {
            let at = *index.entry(line.dev).or_insert_with(|| {
                found.push(Target { dev: line.dev, fstype: line.fstype.clone(), ways: Vec::new() });
                found.len() - 1
            });
            let way = Way { place: Arc::clone(&place), mount: line.id, path: line.mount_point.clone() };
            found[at].ways.push(way);
        }
    }
    found
}

/// Those that can freeze are on block devices; FUSE programs may name one, too.
pub(crate) fn may_freeze(dev: DevNo, fstype: &str) -> bool {
    (dev.major != 0 && !fstype.starts_with("fuse")) || matches!(fstype, "btrfs" | "bcachefs")
}

impl Target {
    /// Its first path, for people.
    #[must_use]
    pub fn name(&self) -> PathBuf {
        self.ways.first().map(|w| w.place.shown(&w.path)).unwrap_or_default()
    }

    /// An open file of it, by the first of its paths that leads there.
    ///
    /// # Errors
    /// ENOLINK when none does; ETIMEDOUT when some hang until the limit, and no other leads there.
    pub fn open(&self, limit: Duration) -> nix::Result<OwnedFd> {
        let end = Instant::now() + limit;
        let work = Arc::new(Work { target: self.clone(), next: AtomicUsize::new(0) });
        let (tx, rx) = channel();
        let (mut started, mut ended) = (0, 0);
        loop {
            if started < HANGING {
                started += 1;
                let (work, tx) = (Arc::clone(&work), tx.clone());
                // Without a thread it is done here: it then hangs here, and whoever waits has a limit.
                if let Err(here) = thread::start("open", move || work.run(&tx)) {
                    here();
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            match rx.recv_timeout(if started < HANGING { left.min(STALL) } else { left }) {
                Ok(Some(fd)) => return Ok(fd),
                // All paths have been taken by one or another: those that still hang are waited for.
                Ok(None) => {
                    ended += 1;
                    if ended == started {
                        return Err(Errno::ENOLINK);
                    }
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(Errno::ETIMEDOUT),
                Err(_) => {}
            }
        }
    }
}

/// The paths of one superblock, taken one after the other: first all from the cache, then all by walking.
struct Work {
    target: Target,
    next: AtomicUsize,
}

impl Work {
    fn run(&self, tx: &Sender<Option<OwnedFd>>) {
        let ways = &self.target.ways;
        let mut root: Option<(&Arc<Place>, nix::Result<OwnedFd>)> = None;
        loop {
            let at = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(way) = ways.get(at % ways.len().max(1)).filter(|_| at < 2 * ways.len()) else { break };
            if root.as_ref().is_none_or(|(place, _)| !Arc::ptr_eq(place, &way.place)) {
                root = Some((&way.place, way.place.root()));
            }
            let Some((_, Ok(root))) = &root else { continue };
            let found = if at < ways.len() { cached(root, &way.path) } else { walk(root, &way.path) };
            let Ok(found) = found else { continue };
            if let Ok(fd) = opened(&found, way.mount, self.target.dev, &self.target.fstype) {
                let _ = tx.send(Some(fd));
                return;
            }
        }
        let _ = tx.send(None);
    }
}

/// A path below a root, as far as the kernel's cache has it: this never waits. ENOSYS before Linux 5.12.
pub(super) fn cached(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::CACHED;
    openat2(root, below, flags, Mode::empty(), resolve).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

/// Opens what an O_PATH descriptor stands for, if that is a folder or a file of this mount and superblock.
fn opened(found: &OwnedFd, mount: u32, dev: DevNo, fstype: &str) -> nix::Result<OwnedFd> {
    let on_mount = |fd: &OwnedFd| FdInfo::of_fd(fd).and_then(|i| i.mount()) == Some(mount);
    if !on_mount(found) || !is_plain(found)? {
        return Err(Errno::ESTALE);
    }
    let fd = reopened(found)?;
    // Mount ids are used again, and a foreign namespace's table may name any number.
    if on_mount(&fd) && is_on(&fd, dev, fstype)? { Ok(fd) } else { Err(Errno::ESTALE) }
}

/// Is it a folder or a plain file? The open of anything else may have effects of its own. A server is not
/// asked.
pub(crate) fn is_plain(fd: &OwnedFd) -> nix::Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::TYPE).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    Ok(matches!(kind, FileType::Directory | FileType::RegularFile))
}

/// The file of an O_PATH descriptor, opened for reading.
pub(crate) fn reopened(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    Linux.open(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))
}

/// Is it on this superblock, by what the filesystem itself says? st_dev is the superblock's number but for
/// filesystems that make up one for each subvolume.
fn is_on(fd: &OwnedFd, dev: DevNo, fstype: &str) -> nix::Result<bool> {
    if dev.major != 0 {
        let stat = nix::sys::stat::fstat(fd.as_fd())?;
        let (major, minor) = (nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
        return Ok((major, minor) == (dev.major.into(), dev.minor.into()));
    }
    if fstype == "btrfs" {
        return Ok(fstatfs(fd)?.filesystem_type() == BTRFS_SUPER_MAGIC);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::fcntl::{OFlag, open};

    use super::*;

    fn path_of(path: &Path) -> OwnedFd {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        open(path, flags, nix::sys::stat::Mode::empty()).unwrap()
    }

    fn mount_id(fd: &OwnedFd) -> u32 {
        FdInfo::of_fd(fd).and_then(|i| i.mount()).unwrap()
    }

    /// In a foreign namespace a user may have put links on the way, to what is not in it.
    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let root = path_of(dir.path());
        assert!(walk(&root, Path::new("/a/b")).is_ok());
        assert_eq!(walk(&root, Path::new("/link/b")).unwrap_err(), Errno::ENOTDIR);
        // The kernel's cache has them now.
        match cached(&root, Path::new("/a/b")) {
            Err(Errno::ENOSYS) => return,
            found => assert!(found.is_ok(), "{found:?}"),
        }
        assert_eq!(cached(&root, Path::new("/link/b")).unwrap_err(), Errno::ELOOP);
    }

    /// Mount ids are used again, and a table may say what it likes.
    #[test]
    fn only_what_was_meant_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let folder = path_of(dir.path());
        let dev = DevNo::from_raw(nix::sys::stat::fstat(&folder).unwrap().st_dev);
        let mount = mount_id(&folder);
        assert!(opened(&folder, mount, dev, "any").is_ok());
        assert_eq!(opened(&folder, mount + 1, dev, "any").unwrap_err(), Errno::ESTALE, "another mount");
        let other = DevNo { major: 259, minor: 7777 };
        assert_eq!(opened(&folder, mount, other, "ext4").unwrap_err(), Errno::ESTALE, "another superblock");
        let proc = path_of(Path::new("/proc"));
        let number = DevNo { major: 0, minor: 7777 };
        assert_eq!(opened(&proc, mount_id(&proc), number, "btrfs").unwrap_err(), Errno::ESTALE, "no btrfs");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            opened(&path_of(&fifo), mount, dev, "any").unwrap_err(),
            Errno::ESTALE,
            "its open has effects"
        );
    }

    /// A FUSE may say that it is on a block device, and its program may hang.
    #[test]
    fn a_fuse_is_no_target_whatever_it_is_on() {
        let disk = DevNo { major: 8, minor: 1 };
        let none = DevNo { major: 0, minor: 50 };
        assert!(may_freeze(disk, "xfs") && may_freeze(none, "btrfs"));
        assert!(!may_freeze(disk, "fuseblk") && !may_freeze(disk, "fuse.any") && !may_freeze(none, "tmpfs"));
    }
}
