//! Restored filesystems are mounted beneath the target folder.
//!
//! In: a device, options of a list, a place. Out: mounts, and which folders were made for them. Must never: follow a link
//! that is on a restored filesystem, step out of the target folder, or mount over what is mounted.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::{disks, stack};
use crate::host::mount_api::{self, NotCreated};
use crate::host::mountinfo::{self, MountLine};
use crate::host::trust::{self, Trusted};
use crate::host::{beneath, device};
use crate::ids::{DevNo, VolumeId};
use crate::path_encoding::shown;
use crate::unmount::covered;

/// A mount of the filesystem on this device, attached nowhere. `others`: further devices of a btrfs. `root`: its
/// subvolume.
///
/// # Errors
/// What the kernel says.
pub(crate) fn create(
    node: &Path,
    dev: DevNo,
    others: &[DevNo],
    fstype: &str,
    options: &[String],
    root: Option<&Path>,
) -> Result<OwnedFd, NotCreated> {
    let mut members = Vec::new();
    for other in others {
        let node = device::node(*other, &[]).ok_or_else(|| format!("/dev has no node of {other}"))?;
        members.push(node.into_os_string());
    }
    let context = || {
        let context = mount_api::context(fstype)
            .map_err(|e| format!("the kernel cannot mount {fstype} (fsopen): {}", e.desc()))?;
        let subvolume = root.filter(|_| fstype == "btrfs").map(|root| ("subvol", root.as_os_str()));
        let others = members.iter().map(|node| ("device", node.as_os_str()));
        let all =
            mount_api::pairs(options).chain(others.chain(subvolume).map(|(key, value)| (key, Some(value))));
        mount_api::configure(context.as_fd(), node, all)
            .map_err(|(key, why)| format!("{fstype} refuses the option {key}: {why}"))?;
        Ok(context)
    };
    // What was on devices of the same numbers before may be known to the kernel still: of all, before it is told of one.
    for dev in std::iter::once(&dev).chain(others).filter(|_| fstype == "btrfs") {
        if let Err(errno) = device::forget_btrfs(*dev) {
            tracing::debug!(%dev, "btrfs forgets nothing: {}", errno.desc());
        }
    }
    let made = mount_api::create_patiently(context)?;
    // The node was looked up by its name.
    if is_of(&made, dev, fstype) {
        Ok(made)
    } else {
        Err(NotCreated { errno: None, what: format!("{} is another device by now", node.display()) })
    }
}

/// Is the device that a mount is of the one that was opened?
fn is_of(mount: &impl AsFd, of: DevNo, fstype: &str) -> bool {
    // btrfs has a number of its own. No mountinfo has a mount that is attached nowhere: stat(2) has to say it.
    fstype == "btrfs" || fstat(mount).is_ok_and(|stat| DevNo::from_raw(stat.st_dev) == of)
}

/// Can this be the target folder? Changes nothing.
///
/// # Errors
/// Why not.
pub fn check_target(path: &Path) -> Result<(), String> {
    let place = shown(path);
    let there = match std::fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let above = path.ancestors().find(|p| p.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
            return trust::check(above, Trusted::own()).map_err(|loose| loose.to_string());
        }
        Err(e) => return Err(format!("{place}: {e}")),
    };
    if !there.is_dir() {
        return Err(format!("{place} is not a folder"));
    }
    let mut entries = std::fs::read_dir(path).map_err(|e| format!("{place}: {e}"))?;
    if entries.next().is_some() {
        return Err(format!("{place} is not empty"));
    }
    trust::check(path, Trusted::own()).map_err(|loose| loose.to_string())?;
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    match table.lines.iter().any(|l| l.mount_point == path) {
        true => Err(format!("something is mounted at {place}")),
        false => Ok(()),
    }
}

/// The target folder, opened; made where it is not there. `fresh`: of a restore that has made nothing there yet.
///
/// # Errors
/// When others could change what its path leads to; of a fresh one, when it is not empty, or something is mounted there.
pub fn target(path: &Path, fresh: bool) -> Result<OwnedFd, String> {
    let place = shown(path);
    let plain = path.is_absolute() && !path.components().any(|c| matches!(c, Component::ParentDir));
    let (Some(above), Some(name), true) = (path.parent(), path.file_name(), plain) else {
        return Err(format!("{place} is not a folder that filesystems can be mounted beneath"));
    };
    crate::host::file::make_folder(above, 0o755).map_err(|e| format!("{}: {e}", shown(above)))?;
    trust::check(above, Trusted::own()).map_err(|loose| loose.to_string())?;
    let said = |errno: Errno| format!("{place}: {}", errno.desc());
    let above = nix::fcntl::open(
        above,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(said)?;
    match mkdirat(&above, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(said(errno)),
    }
    // Not past a link, and not onto what is mounted there.
    let opened = if fresh { beneath::below(&above, Path::new(name)) } else { beneath::entry(&above, name) };
    let folder = match opened {
        Err(Errno::EXDEV) => return Err(format!("something is mounted at {place}")),
        Err(Errno::ELOOP) => return Err(format!("{place} is a link")),
        other => other.map_err(said)?,
    };
    trust::check(path, Trusted::own()).map_err(|loose| loose.to_string())?;
    let mut entries =
        std::fs::read_dir(trust::by_descriptor(&folder)).map_err(|e| format!("{place}: {e}"))?;
    if fresh && entries.next().is_some() {
        return Err(format!("{place} is not empty"));
    }
    Ok(folder)
}

/// Attaches a mount beneath the target, at a path that is made where it is missing.
///
/// # Errors
/// When the path leads past a link or to something else than a folder, something is mounted there, or the kernel refuses.
pub fn attach(target: &OwnedFd, at: &Path, mount: &OwnedFd, attributes: u64) -> Result<(), String> {
    let place = shown(at);
    let said = |errno: Errno| format!("{place}: {}", errno.desc());
    // What was mounted over the target a moment ago is on top of it.
    let mut folder = over(target.try_clone().map_err(|e| e.to_string())?)?;
    let mut path = PathBuf::new();
    let mut parts = at.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(format!("{place} is not a place for a mount")) };
        path.push(name);
        // On the way there, what is mounted is of this restore; at the end of it, nothing may be.
        let last = parts.peek().is_none();
        let open = |folder: &OwnedFd| match last {
            true => beneath::below(folder, Path::new(name)),
            false => beneath::entry(folder, name),
        };
        let found = match open(&folder) {
            Err(Errno::ENOENT) => {
                mkdirat(&folder, name, Mode::from_bits_truncate(0o755)).map_err(said)?;
                open(&folder)
            }
            found => found,
        };
        folder = match found {
            Ok(found) => found,
            Err(Errno::ELOOP) => return Err(format!("{} is a link", shown(&path))),
            Err(Errno::EXDEV) => return Err(format!("something is mounted at {place}")),
            Err(errno) => return Err(said(errno)),
        };
    }
    mount_api::set_attributes(mount, attributes)
        .map_err(|errno| format!("cannot set mount options: {}", errno.desc()))?;
    mount_api::attach(mount.as_fd(), folder.as_fd()).map_err(said)
}

/// What is mounted over an open folder of this program's own, if anything is.
///
/// # Errors
/// When it cannot be told.
pub(super) fn over(folder: OwnedFd) -> Result<OwnedFd, String> {
    let path = std::fs::read_link(trust::by_descriptor(&folder)).map_err(|e| e.to_string())?;
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    match table.lines.iter().rev().find(|l| l.mount_point == path) {
        Some(line) => beneath::mount_root(line).map_err(|e| format!("{}: {}", shown(&path), e.desc())),
        None => Ok(folder),
    }
}

/// How long umount(2) is repeated on EBUSY: the kernel drops the files of a process a moment after it has ended.
const BUSY: Duration = Duration::from_secs(1);

/// Unmounts everything that is on the disks of these volumes, innermost first.
///
/// # Errors
/// The first mount that stays.
pub fn unmount_all(root: &Path, volumes: &[VolumeId], tell: &dyn Fn(&str)) -> Result<(), String> {
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    if let Some(unread) = table.unread.first() {
        return Err(format!("what is mounted here cannot be told: {unread}"));
    }
    let mut ids = BTreeSet::new();
    let devices = stack::on(root, volumes)?;
    ids.extend(devices.iter().flat_map(|d| disks::mounts_of(&table.lines, d)).map(|line| line.id));
    unmount(&table.lines, &ids, tell)
}

/// Unmounts the mounts with these ids, innermost first.
///
/// # Errors
/// The first that stays.
pub fn unmount(lines: &[MountLine], ids: &BTreeSet<u32>, tell: &dyn Fn(&str)) -> Result<(), String> {
    // What was mounted last is on top.
    for line in lines.iter().rev().filter(|line| ids.contains(&line.id)) {
        let place = shown(&line.mount_point);
        let end = Instant::now() + BUSY;
        loop {
            // Each time anew: its path has to lead to this mount, and to no other that covers it by now.
            match covered::unmount(lines, &line.mount_point, line.id) {
                Ok(()) => break,
                Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => {
                    let why = e.desc();
                    return Err(format!(
                        "{place} cannot be unmounted: {why} (`fuser -vm {place}` names who uses it)"
                    ));
                }
            }
        }
        tell(&format!("{place} is unmounted"));
    }
    Ok(())
}
