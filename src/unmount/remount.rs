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
use crate::host::mountinfo::{self, MountLine, MountTable};

/// How long mounting is repeated on EBUSY: udev, blkid or fsck may still have a device open that they
/// looked at a moment ago.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The result of mounting again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a filesystem may not be mounted"]
pub struct Remount {
    /// Mount points that were mounted by this call.
    pub mounted: Vec<PathBuf>,
    /// Mounts that are still missing.
    pub failed: Vec<Failed>,
    /// One sentence for each mount that is mounted, but not as it was.
    pub differs: Vec<String>,
}

/// A mount that could not be made again, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Where nothing, or something else, is mounted now.
    pub mount_point: PathBuf,
    /// The kernel's error, with its own message where it has one.
    pub why: String,
    pub(crate) by_hand: String,
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
/// When the kernel is older than 5.12, or the filesystem refuses an option that it shows in mountinfo.
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

/// Mounts everything of the recipe that is not mounted now, and goes on after a failure.
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

/// The mounts in this process's own namespace, which is where this module mounts.
fn now() -> std::io::Result<MountTable> {
    mountinfo::read(Path::new("/"), "self")
}

fn is_there(recipe: &Recipe, mount: &Mounted) -> std::io::Result<bool> {
    let MountTable { lines, unread } = now()?;
    if lines.iter().any(|line| mount.line_is(&recipe.filesystems[mount.of], line)) {
        return Ok(true);
    }
    // It may be the one that cannot be read: mounting it twice would leave it mounted at the next unmount.
    let unread = unread.into_iter().next();
    unread.map_or(Ok(false), |bad| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, bad)))
}

fn make(recipe: &Recipe, mount: &Mounted) -> Result<(), String> {
    let said = |what: &str, errno: Errno| format!("{what}: {}", errno.desc());
    let propagation = Propagation::of_mount(mount);
    let made: OwnedFd = match &mount.make {
        Make::New => {
            let end = Instant::now() + PATIENCE;
            loop {
                // A context whose mount has failed once answers EBUSY ever after, so each try has a new one.
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
            // The copy of a shared mount is in its peer group; take it out again where it was not.
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
            _ => "cannot attach the mount to its mount point",
        };
        said(what, errno)
    })?;
    // Attached to a shared parent, a new mount becomes shared too. Undo that where it was not shared.
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
    let context = mount_api::context(&of.fstype).map_err(|errno| {
        format!("the kernel cannot prepare a mount of {} (fsopen): {}", of.fstype, errno.desc())
    })?;
    let put = |key: &str, value: Option<&OsStr>| {
        mount_api::option(context.as_fd(), key, value).map_err(|errno| {
            let complaint = mount_api::complaint(context.as_fd());
            format!("{} refuses its own mount option {key}: {} {complaint}", of.fstype, errno.desc())
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

/// The flags that are set or cleared here (linux/mount.h, `MOUNT_ATTR_*`). `ATIME` is a field of several
/// bits, so all of it is cleared before one value is set.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const ALL: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NODIRATIME
    | libc::MOUNT_ATTR_NOSYMFOLLOW;

/// The flags of a mount's options in mountinfo, which shows no word for `strictatime`.
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

/// One sentence for each mount that is mounted, but not as it was.
fn differences(recipe: &Recipe) -> Vec<String> {
    let Ok(MountTable { lines, .. }) = now() else { return Vec::new() };
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
            "{place} has the mount options {}, and had {} before",
            line.options, mount.options
        ));
    }
    if shown != mount.super_options {
        return Some(format!(
            "{place} has the filesystem options {shown}, and had {} before",
            mount.super_options
        ));
    }
    let (is, was) = (Propagation::from_optional(&line.optional), Propagation::of_mount(mount));
    let name = |p: Propagation| format!("{p:?}").to_lowercase();
    (is != was).then(|| format!("{place} has the propagation {}, and had {} before", name(is), name(was)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unmount::Wanted;

    #[test]
    fn a_difference_names_the_mount_point_as_it_is() {
        let lines = |optional: &str| {
            let text = format!("30 20 7:0 / /Data rw {optional}- ext4 /dev/loop0 rw\n");
            mountinfo::parse(text.as_bytes()).whole().unwrap()
        };
        let before = lines("shared:5 ");
        let device = crate::unmount::Device { path: "/dev/loop0".into(), dev: before[0].dev };
        let recipe = crate::unmount::recipe(&before, &[Wanted { ids: vec![30], devices: vec![device] }]);
        let mount = &recipe.unwrap().mounts[0];
        assert_eq!(difference(mount, &before[0]), None);
        let says = "/Data has the propagation private, and had shared before";
        assert_eq!(difference(mount, &lines("")[0]).as_deref(), Some(says));
    }

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
