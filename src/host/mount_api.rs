//! Linux's mount API (5.12 and later), as far as mounting again needs it, and whether this kernel has it.
//!
//! In: descriptors and names. Out: what the kernel says. Must never: retry, or decide anything.
//!
//! rustix makes the calls; mount_setattr(2), which it lacks, is in [`kernel`](super::kernel).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::kernel::{self, MountAttributes};

fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// What mounting again needs and this kernel does not have, each with the version of Linux that it came with.
/// Every call is tried with arguments that do nothing; a version alone says neither what a distribution has
/// added nor what a seccomp filter takes away.
///
/// # Errors
/// EPERM: this process may not mount, so nothing is known.
pub(crate) fn missing() -> nix::Result<Vec<&'static str>> {
    let tries = [
        // No filesystem has an empty name: ENODEV. fsconfig, fsmount, open_tree and move_mount came with it.
        ("fsopen (5.2)", context("").err()),
        // No descriptor: EBADF.
        ("mount_setattr (5.12)", kernel::set_mount_attributes(-1, &MountAttributes::default(), false).err()),
        ("openat2 with RESOLVE_CACHED (5.12)", cached_root().err()),
    ];
    if tries.iter().any(|(_, said)| *said == Some(Errno::EPERM)) {
        return Err(Errno::EPERM);
    }
    // A flag that openat2 does not know is EINVAL.
    let lacks = |said: &Option<Errno>| matches!(said, Some(Errno::ENOSYS | Errno::EINVAL));
    Ok(tries.iter().filter(|(_, said)| lacks(said)).map(|(name, _)| *name).collect())
}

fn cached_root() -> nix::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::CACHED).map_err(errno)
}

/// fsopen(2): a context that options are set in.
///
/// # Errors
/// ENODEV: no such filesystem type. ENOSYS: a kernel before 5.2.
pub(crate) fn context(fstype: &str) -> nix::Result<OwnedFd> {
    rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)
}

/// fsconfig(2): sets an option; without a value, a flag.
///
/// # Errors
/// EINVAL: the filesystem does not know it; [`complaint`] says more.
pub fn option(context: BorrowedFd<'_>, key: &str, value: Option<&OsStr>) -> nix::Result<()> {
    match value {
        Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
        None => rustix::mount::fsconfig_set_flag(context, key),
    }
    .map_err(errno)
}

/// fsconfig(2) and fsmount(2): the superblock, and a mount of its root that is attached nowhere.
///
/// # Errors
/// What mounting says: EBUSY when the device is held, EINVAL when it holds something else, EIO.
pub fn create(context: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    rustix::mount::fsconfig_create(context).map_err(errno)?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(errno)
}

/// Options as they are in a recipe or a list, `key` or `key=value`, apart.
pub(crate) fn pairs(options: &[String]) -> impl Iterator<Item = (&str, Option<&OsStr>)> {
    options.iter().map(|option| match option.split_once('=') {
        Some((key, value)) => (key, Some(OsStr::new(value))),
        None => (option.as_str(), None),
    })
}

/// Sets the source, then each of these options.
///
/// # Errors
/// The option that the filesystem refuses, and why.
pub(crate) fn configure<'o>(
    context: BorrowedFd<'_>,
    source: &'o Path,
    options: impl Iterator<Item = (&'o str, Option<&'o OsStr>)>,
) -> Result<(), (&'o str, String)> {
    for (key, value) in std::iter::once(("source", Some(source.as_os_str()))).chain(options) {
        option(context, key, value).map_err(|errno| {
            let why = format!("{} {}", errno.desc(), complaint(context));
            (key, why.trim().to_owned())
        })?;
    }
    Ok(())
}

/// How long mounting is repeated on EBUSY: udev, blkid or fsck may still have a device open that they
/// looked at a moment ago.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Why a mount could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotCreated {
    /// The kernel's error; none where the context could not be prepared.
    pub errno: Option<Errno>,
    /// In words.
    pub what: String,
}

impl NotCreated {
    /// Is it for what the filesystem holds? Else it is for this host: what it can mount, what it has mounted or open, its
    /// memory.
    #[must_use]
    pub fn is_of_the_filesystem(&self) -> bool {
        let of_the_host = [
            Errno::EEXIST,
            Errno::EBUSY,
            Errno::ENOMEM,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::EINTR,
            Errno::EPERM,
            Errno::EACCES,
            Errno::ENOENT,
            Errno::ENODEV,
            Errno::ENXIO,
        ];
        self.errno.is_some_and(|errno| !of_the_host.contains(&errno))
    }
}

/// Before the kernel is asked: in words.
impl From<String> for NotCreated {
    fn from(what: String) -> Self {
        Self { errno: None, what }
    }
}

impl From<NotCreated> for String {
    fn from(not: NotCreated) -> Self {
        not.what
    }
}

impl std::fmt::Display for NotCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// [`create`] by contexts that `context` prepares, again and again for a while where the device is in use.
///
/// # Errors
/// What the kernel says last.
pub(crate) fn create_patiently(context: impl Fn() -> Result<OwnedFd, String>) -> Result<OwnedFd, NotCreated> {
    let end = Instant::now() + PATIENCE;
    loop {
        // A context whose mount has failed once answers EBUSY ever after, so each try has a new one.
        let context = context().map_err(|what| NotCreated { errno: None, what })?;
        match create(context.as_fd()) {
            Ok(made) => return Ok(made),
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(PAUSE),
            Err(errno) => {
                let complaint = complaint(context.as_fd());
                let what = match complaint.is_empty() {
                    true => errno.desc().to_owned(),
                    false => format!("{} ({complaint})", errno.desc()),
                };
                return Err(NotCreated { errno: Some(errno), what });
            }
        }
    }
}

/// What the kernel has to say about a context that failed; empty when nothing.
#[must_use]
pub(crate) fn complaint(context: BorrowedFd<'_>) -> String {
    let Ok(copy) = context.try_clone_to_owned() else { return String::new() };
    let (mut log, mut messages, mut message) = (File::from(copy), Vec::new(), [0; 1024]);
    // One message a read, then ENODATA.
    while let Ok(n @ 1..) = log.read(&mut message) {
        messages.push(String::from_utf8_lossy(&message[..n]).trim().to_owned());
    }
    messages.join("; ")
}

/// open_tree(2): a copy of one mount from an open folder or file down, attached nowhere. What is mounted on it
/// is not copied.
///
/// # Errors
/// EINVAL where it must not be copied (unbindable).
pub fn copy_of(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, "", flags).map_err(errno)
}

/// move_mount(2): attaches a mount to an open folder or file, wherever that is by now.
///
/// # Errors
/// ENOENT when it is deleted, EINVAL when one is a folder and the other is not.
pub(crate) fn attach(mount: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", to, "", flags).map_err(errno)
}

/// Gives a mount these flags of [`attributes`], and takes the others of them away.
///
/// # Errors
/// What mount_setattr(2) says.
pub(crate) fn set_attributes(mount: &OwnedFd, wanted: u64) -> nix::Result<()> {
    change(
        mount,
        &MountAttributes { set: wanted, clear: ATTRIBUTES & !wanted | ATIME, ..MountAttributes::default() },
    )
}

/// Changes a mount's propagation, `MS_PRIVATE` and the like.
///
/// # Errors
/// What mount_setattr(2) says.
pub(crate) fn propagate(mount: &OwnedFd, propagation: libc::c_ulong) -> nix::Result<()> {
    change(mount, &MountAttributes { propagation, ..MountAttributes::default() })
}

/// Makes a mount read-only, and all that is mounted on it.
///
/// # Errors
/// What mount_setattr(2) says.
pub(crate) fn read_only_below(mount: &OwnedFd) -> nix::Result<()> {
    let read_only = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    kernel::set_mount_attributes(mount.as_raw_fd(), &read_only, true)
}

fn change(mount: &OwnedFd, attributes: &MountAttributes) -> nix::Result<()> {
    kernel::set_mount_attributes(mount.as_raw_fd(), attributes, false)
}

/// A field of several bits: all of it is cleared before one value is set (linux/mount.h, `MOUNT_ATTR__ATIME`).
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
/// The flags of a mount that are set or cleared (linux/mount.h, `MOUNT_ATTR_*`).
const ATTRIBUTES: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NODIRATIME
    | libc::MOUNT_ATTR_NOSYMFOLLOW;

/// The flag of a word in a mount's options, but for those of access times.
pub(crate) fn flag_of(option: &str) -> Option<u64> {
    Some(match option {
        "ro" => libc::MOUNT_ATTR_RDONLY,
        "nosuid" => libc::MOUNT_ATTR_NOSUID,
        "nodev" => libc::MOUNT_ATTR_NODEV,
        "noexec" => libc::MOUNT_ATTR_NOEXEC,
        "nodiratime" => libc::MOUNT_ATTR_NODIRATIME,
        "nosymfollow" => libc::MOUNT_ATTR_NOSYMFOLLOW,
        _ => return None,
    })
}

/// The flags of a mount's options in mountinfo, which shows no word for `strictatime`.
pub(crate) fn attributes(options: &str) -> u64 {
    let has = |name: &str| options.split(',').any(|o| o == name);
    let atime = match () {
        () if has("noatime") => libc::MOUNT_ATTR_NOATIME,
        () if has("relatime") => libc::MOUNT_ATTR_RELATIME,
        () => libc::MOUNT_ATTR_STRICTATIME,
    };
    options.split(',').filter_map(flag_of).fold(atime, |all, flag| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        assert_eq!(attributes("rw,relatime"), 0);
        assert_eq!(attributes("rw"), libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            attributes("ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"),
            ATTRIBUTES | libc::MOUNT_ATTR_NOATIME,
            "every flag has its word"
        );
    }
}
