//! Mounting again, exactly as it was.
//!
//! In: a [`Recipe`], from this run or from the journal of a dead one. Out: what could not be mounted, with
//! the command that does it by hand, and what is mounted but not as it was. Must never: mount twice what is
//! mounted already (it is run again after a crash in the middle of it), or stop at the first failure.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::propagation::Propagation;
use super::{Make, Mounted, NoRecipe, Recipe, Superblock, by_hand};
use crate::host::kernel::{MountAttributes, set_mount_attributes};
use crate::host::mount_api;
use crate::host::mountinfo::{self, MountLine};

/// udev, blkid or fsck may still have a device open that they looked at a moment ago.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a filesystem may not be mounted"]
pub struct Remount {
    /// Mounted now, and not before this.
    pub mounted: Vec<PathBuf>,
    /// Not mounted.
    pub failed: Vec<Failed>,
    /// Mounted, and different from before: what, in words.
    pub differs: Vec<String>,
}

/// A mount that could not be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Where.
    pub mount_point: PathBuf,
    /// Why.
    pub why: String,
    /// What to type.
    pub by_hand: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mount_point, why, by_hand } = self;
        write!(f, "cannot mount {} again: {why}; by hand: {by_hand}", mount_point.display())
    }
}

/// Checks that this kernel takes what the recipe says, without mounting anything.
///
/// # Errors
/// When it is too old, or the filesystem does not know an option that it shows.
pub fn check(recipe: &Recipe) -> Result<(), NoRecipe> {
    for (of, filesystem) in recipe.filesystems.iter().enumerate() {
        let Some(mount) = recipe.mounts.iter().find(|m| m.of == of) else { continue };
        let refuse = |why: String| NoRecipe { mount_point: mount.mount_point.clone(), why };
        if set_mount_attributes(-1, &MountAttributes::default()) == Err(Errno::ENOSYS) {
            return Err(refuse("this kernel has no mount_setattr (it came with Linux 5.12)".to_owned()));
        }
        context(filesystem, Path::new("/")).map_err(refuse)?;
    }
    Ok(())
}

/// Mounts whatever of the recipe is not mounted.
pub fn remount(recipe: &Recipe) -> Remount {
    let mut result = Remount::default();
    for mount in &recipe.mounts {
        let failed =
            |why| Failed { mount_point: mount.mount_point.clone(), why, by_hand: by_hand(recipe, mount) };
        match is_there(recipe, mount) {
            Ok(true) => {}
            Ok(false) => match make(recipe, mount) {
                Ok(()) => result.mounted.push(mount.mount_point.clone()),
                Err(why) => result.failed.push(failed(why)),
            },
            Err(e) => result.failed.push(failed(e.to_string())),
        }
    }
    result.differs = differences(recipe);
    result
}

/// The mounts of this process as the kernel has them: what is made here is made there.
fn now() -> std::io::Result<Vec<MountLine>> {
    mountinfo::read(Path::new("/"), "self")
}

fn is_there(recipe: &Recipe, mount: &Mounted) -> std::io::Result<bool> {
    Ok(now()?.iter().any(|line| mount.line_is(&recipe.filesystems[mount.of], line)))
}

fn make(recipe: &Recipe, mount: &Mounted) -> Result<(), String> {
    let said = |what: &str, errno: Errno| format!("{what}: {}", errno.desc());
    let propagation = Propagation::of_mount(mount);
    let made: OwnedFd = match &mount.make {
        Make::New => {
            let end = Instant::now() + PATIENCE;
            loop {
                // A context that has failed once answers EBUSY for good: a new one each time.
                let context = context(&recipe.filesystems[mount.of], &mount.root)?;
                match mount_api::create(context.as_fd()) {
                    Ok(made) => break made,
                    Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(PAUSE),
                    Err(errno) => {
                        let complaint = mount_api::complaint(context.as_fd());
                        return Err(if complaint.is_empty() {
                            errno.desc().to_owned()
                        } else {
                            format!("{} ({complaint})", errno.desc())
                        });
                    }
                }
            }
        }
        Make::CopyOf(from) => {
            let from = &recipe.mounts[*from];
            if !is_there(recipe, from).map_err(|e| e.to_string())? {
                return Err(format!("{} is not mounted", from.mount_point.display()));
            }
            let below = mount.root.strip_prefix(&from.root).unwrap_or(Path::new(""));
            let path = if below.as_os_str().is_empty() {
                from.mount_point.clone()
            } else {
                from.mount_point.join(below)
            };
            let copy = mount_api::copy(&path)
                .map_err(|errno| said(&format!("cannot copy the mount of {}", path.display()), errno))?;
            // A copy is a peer of its original, where that is shared.
            let same = |kind| mount.group(kind).is_some() && mount.group(kind) == from.group("shared");
            if same("master") {
                set(&copy, 0, 0, libc::MS_SLAVE)?;
            } else if !same("shared") {
                set(&copy, 0, 0, libc::MS_PRIVATE)?;
            }
            copy
        }
    };
    let wanted = flags(&mount.options);
    set(&made, wanted, ALL & !wanted | ATIME, 0)?;
    mount_api::attach(made.as_fd(), &mount.mount_point).map_err(|errno| {
        // The kernel says EINVAL when one is a folder and the other is not.
        let kind = std::fs::symlink_metadata(&mount.mount_point).map(|m| m.file_type().is_dir());
        let what = match kind {
            Ok(false) if errno == Errno::EINVAL => "its mount point is not a folder any more",
            _ => "cannot attach it there",
        };
        said(what, errno)
    })?;
    // On a shared parent every new mount becomes shared: put right what was not.
    for step in propagation.steps() {
        set(&made, 0, 0, *step)?;
    }
    Ok(())
}

fn set(mount: &OwnedFd, set: u64, clear: u64, propagation: libc::c_ulong) -> Result<(), String> {
    set_mount_attributes(mount.as_raw_fd(), &MountAttributes { set, clear, propagation, userns: 0 })
        .map_err(|errno| format!("cannot set its options: {}", errno.desc()))
}

/// A context with every option of the superblock, for the mount with this root.
fn context(of: &Superblock, root: &Path) -> Result<OwnedFd, String> {
    let context = mount_api::context(&of.fstype)
        .map_err(|errno| format!("the kernel cannot open a mount of {}: {}", of.fstype, errno.desc()))?;
    let put = |key: &str, value: Option<&OsStr>| {
        mount_api::option(context.as_fd(), key, value).map_err(|errno| {
            let complaint = mount_api::complaint(context.as_fd());
            format!("{} does not take its own option {key}: {} {complaint}", of.fstype, errno.desc())
                .trim()
                .to_owned()
        })
    };
    put("source", Some(of.source.as_os_str()))?;
    for option in &of.options {
        match option.split_once('=') {
            Some((key, value)) => put(key, Some(OsStr::new(value)))?,
            None => put(option, None)?,
        }
    }
    if of.fstype == "btrfs" {
        put("subvol", Some(root.as_os_str()))?;
    }
    Ok(context)
}

/// Every flag that is set or cleared here (linux/mount.h, `MOUNT_ATTR_*`); the times of access are one field.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const ALL: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NODIRATIME
    | libc::MOUNT_ATTR_NOSYMFOLLOW;

/// mountinfo's options of a mount as flags. `relatime` is the absence of both others, and no word means
/// `strictatime`.
fn flags(options: &str) -> u64 {
    let has = |name: &str| options.split(',').any(|o| o == name);
    let atime = match () {
        () if has("noatime") => libc::MOUNT_ATTR_NOATIME,
        () if has("relatime") => libc::MOUNT_ATTR_RELATIME,
        () => libc::MOUNT_ATTR_STRICTATIME,
    };
    [
        ("ro", libc::MOUNT_ATTR_RDONLY),
        ("nosuid", libc::MOUNT_ATTR_NOSUID),
        ("nodev", libc::MOUNT_ATTR_NODEV),
        ("noexec", libc::MOUNT_ATTR_NOEXEC),
        ("nodiratime", libc::MOUNT_ATTR_NODIRATIME),
        ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
    ]
    .into_iter()
    .filter(|(name, _)| has(name))
    .fold(atime, |all, (_, flag)| all | flag)
}

/// What is mounted, and not as it was.
fn differences(recipe: &Recipe) -> Vec<String> {
    let Ok(lines) = now() else { return Vec::new() };
    let mut found = Vec::new();
    for mount in &recipe.mounts {
        let of = &recipe.filesystems[mount.of];
        let Some(line) = lines.iter().find(|l| mount.line_is(of, l)) else { continue };
        found.extend(difference(mount, line));
    }
    found
}

fn difference(mount: &Mounted, line: &MountLine) -> Option<String> {
    let place = mount.mount_point.display();
    let shown = line.super_options.to_string_lossy();
    if line.options != mount.options {
        return Some(format!(
            "{place} is mounted with the options {}, before: {}",
            line.options, mount.options
        ));
    }
    if shown != mount.super_options {
        return Some(format!("{place} has the options {shown}, before: {}", mount.super_options));
    }
    let (is, was) = (Propagation::from_optional(&line.optional), Propagation::of_mount(mount));
    (is != was).then(|| format!("{place} has the propagation {is:?}, before: {was:?}").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        assert_eq!(flags("rw,relatime"), 0);
        assert_eq!(flags("rw"), libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            flags("ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"),
            ALL | libc::MOUNT_ATTR_NOATIME,
            "every flag has its word"
        );
    }
}
