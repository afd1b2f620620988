//! Who could change what a path leads to.
//!
//! Root reads its configuration and its journals, and runs what they name. Whoever can change one of these
//! files, or lead their path elsewhere, decides what root runs. So every folder, link and file on the way has
//! to belong to root (or to this process's own user, when that is not root), and nobody else may write to it.
//! A sticky folder (such as /tmp) may be writable: what is in it can only be replaced by its owner.
//!
//! What was checked is what is used. A file that is read is read through the descriptor that was checked
//! ([`open`]). A program is started by its path, since the interpreter of a script gets that path and opens
//! it itself; the path is checked right before. That is enough: where nothing on the way is [`Loose`], only
//! root could lead the path elsewhere in between.
//!
//! In: a path. Out: an open descriptor, and each [`Loose`] place with the reason. Must never: judge what
//! follows from it, or let the kernel follow a link that is in a filesystem.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_at_once, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{getegid, geteuid};

use super::fdinfo::FdInfo;
use super::mountinfo;
use crate::path_encoding::shown;

/// Links that are followed on one way, as the kernel does (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Who may change a file: root, and these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted {
    own: (u32, u32),
    other: Option<(u32, u32)>,
}

impl Trusted {
    /// This process's own user and group. For root that is nobody else.
    #[must_use]
    pub fn own() -> Self {
        let user = geteuid();
        let group = if user.is_root() { 0 } else { getegid().as_raw() };
        Self { own: (user.as_raw(), group), other: None }
    }

    /// That, and the user and the group that a command runs as.
    #[must_use]
    pub fn and(self, user: u32, group: u32) -> Self {
        Self { other: Some((user, group)), ..self }
    }

    fn user(self, uid: u32) -> bool {
        uid == 0 || uid == self.own.0 || self.other.is_some_and(|(other, _)| uid == other)
    }

    fn group(self, gid: u32) -> bool {
        gid == 0 || gid == self.own.1 || self.other.is_some_and(|(_, other)| gid == other)
    }
}

/// A folder, link or file that somebody else could change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", shown(place))]
pub struct Loose {
    /// Where it is. Links above it are followed.
    pub place: PathBuf,
    /// Who could change it, continuing a sentence that starts with the place.
    pub why: String,
    /// The command that takes this away.
    pub remedy: String,
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Way {
    /// What is there, opened with O_PATH; or why it cannot be reached.
    pub end: io::Result<OwnedFd>,
    /// What somebody else could change, as far as the way goes. Of a path whose end is not there, the folders
    /// that are.
    pub loose: Vec<Loose>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Somebody else could change it, or lead the path elsewhere.
    #[error(transparent)]
    Loose(#[from] Loose),
    /// It cannot be opened.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens a file or a folder for reading that nobody else could change.
///
/// # Errors
/// Where it is loose, and when it cannot be opened.
pub(crate) fn open(path: &Path, trusted: Trusted) -> Result<File, OpenError> {
    let way = follow(path, trusted);
    let end = way.end?;
    match way.loose.into_iter().next() {
        Some(loose) => Err(loose.into()),
        // The kernel's link leads to the file that was checked, whatever its path leads to by now.
        None => Ok(File::open(by_descriptor(&end))?),
    }
}

/// What somebody else could change on the way to this path, which need not exist.
///
/// # Errors
/// The first loose place.
pub(crate) fn check(path: &Path, trusted: Trusted) -> Result<(), Loose> {
    follow(path, trusted).loose.into_iter().next().map_or(Ok(()), Err)
}

/// The file behind a descriptor, as a path that only this process can use.
pub(crate) fn by_descriptor(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Goes to where this path leads, and looks at each step.
pub(crate) fn follow(path: &Path, trusted: Trusted) -> Way {
    let mut walk = Walk { trusted, way: Vec::new(), todo: Vec::new(), links: 0, loose: Vec::new() };
    let end = walk.to(path);
    Way { end, loose: walk.loose }
}

/// A step that is done.
struct Step {
    place: PathBuf,
    fd: OwnedFd,
    /// One of /proc's links led here, so the folder above is not the one before it.
    jumped: bool,
}

struct Walk {
    trusted: Trusted,
    way: Vec<Step>,
    /// Names to go, the next one last.
    todo: Vec<OsString>,
    links: usize,
    loose: Vec<Loose>,
}

impl Walk {
    fn to(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let path = std::path::absolute(path)?;
        self.next_names(&path);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open_at_once("/", flags, Mode::empty())?;
        self.arrive(PathBuf::from("/"), root, false)?;
        while let Some(name) = self.todo.pop() {
            self.step(&name)?;
        }
        self.way.pop().map(|s| s.fd).ok_or_else(|| Errno::ENOENT.into())
    }

    fn next_names(&mut self, path: &Path) {
        let names = path.components().filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        let names: Vec<_> = names.collect();
        self.todo.extend(names.into_iter().rev());
    }

    fn step(&mut self, name: &OsStr) -> io::Result<()> {
        let here = self.way.last().ok_or(Errno::ENOENT)?;
        if name == ".." {
            if here.jumped {
                return Err(io::Error::other("`..` after a link of /proc"));
            }
            if self.way.len() > 1 {
                self.way.pop();
            }
            return Ok(());
        }
        let place = here.place.join(name);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // As a folder first: only that makes an automount mount.
        let fd = match openat(&here.fd, name, flags | OFlag::O_DIRECTORY, Mode::empty()) {
            Err(Errno::ENOTDIR | Errno::ELOOP) => openat(&here.fd, name, flags, Mode::empty())?,
            opened => opened?,
        };
        if kind(&fstat(&fd)?) != SFlag::S_IFLNK {
            return self.arrive(place, fd, false);
        }
        self.look(&place, &fd)?;
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if fstatfs(&fd)?.filesystem_type() == PROC_SUPER_MAGIC {
            // Such a link leads to an inode, whatever it reads as.
            let here = self.way.last().ok_or(Errno::ENOENT)?;
            let fd = openat(&here.fd, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            return self.arrive(place, fd, true);
        }
        let target = PathBuf::from(readlinkat(&fd, "")?);
        if target.is_absolute() {
            self.way.truncate(1);
        }
        self.next_names(&target);
        Ok(())
    }

    fn arrive(&mut self, place: PathBuf, fd: OwnedFd, jumped: bool) -> io::Result<()> {
        self.look(&place, &fd)?;
        self.way.push(Step { place, fd, jumped });
        Ok(())
    }

    fn look(&mut self, place: &Path, fd: &OwnedFd) -> io::Result<()> {
        let meta = fstat(fd)?;
        let (why, command) = if !self.trusted.user(meta.st_uid) {
            (format!("belongs to user {}", meta.st_uid), "chown -h root:root")
        } else if let Some(user) = served_by(fd).filter(|user| !self.trusted.user(*user)) {
            (format!("is on a FUSE filesystem of user {user}"), "umount")
        } else if let Some((why, command)) = self.writers(&meta, fd) {
            (why, command)
        } else {
            return Ok(());
        };
        let name = shown(place);
        let remedy = match command {
            "chown -h root:root" => format!("chown -h root:root {name} && chmod go-w {name}"),
            command => format!("{command} {name}"),
        };
        let loose = Loose { place: place.to_path_buf(), why, remedy };
        if !self.loose.contains(&loose) {
            self.loose.push(loose);
        }
        Ok(())
    }

    /// Who else may write to it, and what takes that away.
    fn writers(&self, meta: &FileStat, fd: &OwnedFd) -> Option<(String, &'static str)> {
        let kind = kind(meta);
        // What is written to a device, such as /dev/null, is not what is read from it. A link cannot be
        // written.
        if kind == SFlag::S_IFLNK || kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK {
            return None;
        }
        // In a sticky folder only its owner can replace an entry, and the next step looks at that owner.
        if kind == SFlag::S_IFDIR && !self.todo.is_empty() && meta.st_mode & 0o1000 != 0 {
            return None;
        }
        if meta.st_mode & 0o002 != 0 {
            return Some(("can be written by everybody".to_owned(), "chmod go-w"));
        }
        // With an access list these bits are its mask: without them no entry of it lets anybody write.
        if meta.st_mode & 0o020 == 0 {
            return None;
        }
        let group = || {
            let gid = meta.st_gid;
            (!self.trusted.group(gid)).then(|| (format!("can be written by group {gid}"), "chmod go-w"))
        };
        match access_list(fd) {
            Ok(None) => group(),
            Ok(Some(entries)) => {
                let others = entries.into_iter().filter(|e| e.writes).find_map(|e| match e.who {
                    Who::User(uid) => (!self.trusted.user(uid)).then(|| format!("user {uid}")),
                    Who::Group(gid) => (!self.trusted.group(gid)).then(|| format!("group {gid}")),
                    Who::OwnGroup => group().map(|_| format!("group {}", meta.st_gid)),
                });
                others.map(|who| (format!("can be written by {who} (access list)"), "setfacl -b"))
            }
            Err(e) => Some((format!("has an access list that cannot be read ({e})"), "setfacl -b")),
        }
    }
}

fn kind(meta: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(meta.st_mode) & SFlag::S_IFMT
}

/// The user who mounted the FUSE filesystem that this is on: its program says who owns what, and what is in
/// it. None on other filesystems; one that no mount table names counts as nobody's.
fn served_by(fd: &OwnedFd) -> Option<u32> {
    if fstatfs(fd).ok()?.filesystem_type() != FUSE_SUPER_MAGIC {
        return None;
    }
    let mount = FdInfo::of_fd(fd).and_then(|info| info.mount());
    let table = mountinfo::read(Path::new("/"), "thread-self").unwrap_or_default();
    let line = table.lines.iter().find(|l| Some(l.id) == mount);
    // virtiofs has the same number and no user: it is the hypervisor's.
    if line.is_some_and(|l| l.fstype == "virtiofs") {
        return None;
    }
    let user = line.and_then(|l| l.super_option("user_id")?.to_str()?.parse().ok());
    Some(user.unwrap_or(u32::MAX))
}

enum Who {
    User(u32),
    Group(u32),
    OwnGroup,
}

struct Entry {
    who: Who,
    writes: bool,
}

/// The entries of a POSIX access list (acl(5)) for others than its owner and everybody, without regard to its
/// mask: whoever asks has seen that it lets writes through. Its layout is
/// `struct posix_acl_xattr_header` (include/uapi/linux/posix_acl_xattr.h).
fn access_list(fd: &OwnedFd) -> io::Result<Option<Vec<Entry>>> {
    // A descriptor of O_PATH cannot be asked itself.
    let mut buffer = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::getxattr(by_descriptor(fd), "system.posix_acl_access", &mut *buffer) {
        Ok(length) => length,
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let (version, entries) = buffer.get(..length).and_then(|b| b.split_at_checked(4)).unwrap_or_default();
    if version != 2_u32.to_le_bytes() || entries.len() % 8 != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown version"));
    }
    let mut found = Vec::new();
    for entry in entries.chunks_exact(8) {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *entry else { continue };
        let writes = u16::from_le_bytes([p0, p1]) & 2 != 0;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let who = match u16::from_le_bytes([t0, t1]) {
            0x02 => Who::User(id),
            0x04 => Who::OwnGroup,
            0x08 => Who::Group(id),
            _ => continue,
        };
        found.push(Entry { who, writes });
    }
    Ok(Some(found))
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
