//! Mounting again, exactly as it was.
//!
//! In: a [`Recipe`], from this run or from the journal of a dead one. Out: what could not be mounted, with
//! the command that does it by hand, and what is mounted but not as it was. Must never: mount twice what is
//! mounted already (it is run again after a crash in the middle of it), go by a path that others may have led
//! elsewhere, or stop at the first failure.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::covered;
use super::propagation::Propagation;
use super::recipe::mountinfo_option;
use super::{Make, Mounted, NoRecipe, Recipe, Superblock, by_hand};
use crate::host::beneath::{below, mount_root};
use crate::host::identity::Identity;
use crate::host::mount_api;
use crate::host::mountinfo::{self, MountLine, MountTable};
use crate::path_encoding::shown;

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
    /// Its path leads elsewhere now, and the command by hand would follow it.
    pub(crate) astray: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mount_point, why, by_hand, astray } = self;
        let when = if *astray { ", once no link or other folder is in its path" } else { "" };
        write!(f, "cannot mount {} again: {why}; by hand{when}: {by_hand}", mount_point.display())
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
        if let Ok(missing) = mount_api::missing()
            && !missing.is_empty()
        {
            return Err(refuse(format!("this kernel lacks {}", missing.join(", "))));
        }
        context(filesystem, None).map_err(refuse)?;
    }
    Ok(())
}

/// Mounts everything of the recipe that is not mounted now, and goes on after a failure.
pub fn remount(recipe: &Recipe) -> Remount {
    let mut result = Remount::default();
    // The roots of the mounts that are made here: their paths may lead elsewhere by the time they are copied.
    let mut roots: Vec<Option<OwnedFd>> = Vec::new();
    for mount in &recipe.mounts {
        let failed = |why, astray| Failed {
            mount_point: mount.mount_point.clone(),
            why,
            by_hand: by_hand(recipe, mount),
            astray,
        };
        let mut root = None;
        match is_there(recipe, mount) {
            Ok(true) => {}
            Ok(false) => match make(recipe, mount, &roots) {
                Ok(made) => {
                    result.mounted.push(mount.mount_point.clone());
                    root = Some(made);
                }
                Err(NotMade::Here(why)) => result.failed.push(failed(why, false)),
                Err(NotMade::Astray(why)) => result.failed.push(failed(why, true)),
            },
            Err(e) => result.failed.push(failed(e.to_string(), false)),
        }
        roots.push(root);
    }
    result.differs = differences(recipe);
    result
}

/// Why a mount is not made.
enum NotMade {
    /// Something else is at its path.
    Astray(String),
    Here(String),
}

impl From<String> for NotMade {
    fn from(why: String) -> Self {
        Self::Here(why)
    }
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

impl From<covered::NoSpot> for NotMade {
    fn from(e: covered::NoSpot) -> Self {
        if e.leads_astray() { Self::Astray(e.to_string()) } else { Self::Here(e.to_string()) }
    }
}

/// Makes a mount and attaches it; its root, open.
fn make(recipe: &Recipe, mount: &Mounted, roots: &[Option<OwnedFd>]) -> Result<OwnedFd, NotMade> {
    // First of all: nothing is mounted in vain, not even for a moment.
    let spot = covered::find(recipe, mount)?;
    let made = match &mount.make {
        Make::New => create(&recipe.filesystems[mount.of], mount)?,
        Make::CopyOf(from) => {
            let root = roots.get(*from).and_then(Option::as_ref);
            copy(recipe, mount, &recipe.mounts[*from], root)?
        }
    };
    mount_api::set_attributes(&made, mount_api::attributes(&mount.options)).map_err(not_set)?;
    spot.attach(&made, &mount.mount_point)?;
    // Attached to a shared parent, a new mount becomes shared too. Undo that where it was not shared.
    for step in Propagation::of_mount(mount).steps() {
        propagate(&made, *step)?;
    }
    Ok(made)
}

/// A mount from the device, attached nowhere.
fn create(of: &Superblock, mount: &Mounted) -> Result<OwnedFd, String> {
    mount_api::create_patiently(|| context(of, Some(mount))).map_err(|not| {
        match (not.errno, subvolume_id(mount)) {
            // btrfs says it to the kernel's log alone.
            (Some(Errno::EINVAL), Some(id)) => {
                let root = shown(&mount.root);
                format!("{} ({root} was subvolume {} of it)", Errno::EINVAL.desc(), id.to_string_lossy())
            }
            _ => not.what,
        }
    })
}

/// A copy of another mount, attached nowhere. `made` is the root of that one, if it was made a moment ago.
fn copy(recipe: &Recipe, mount: &Mounted, from: &Mounted, made: Option<&OwnedFd>) -> Result<OwnedFd, String> {
    let place = from.mount_point.display();
    let said = |errno: Errno| format!("cannot copy the mount of {place}: {}", errno.desc());
    let found;
    let root = match made {
        Some(root) => root,
        None => {
            let lines = now().map_err(|e| e.to_string())?.lines;
            let line = lines.iter().find(|l| from.line_is(&recipe.filesystems[from.of], l));
            found = mount_root(line.ok_or_else(|| format!("{place} is not mounted"))?).map_err(said)?;
            &found
        }
    };
    let rest = mount.root.strip_prefix(&from.root).unwrap_or(Path::new(""));
    let folder = below(root, rest).map_err(|errno| {
        let named = mount.root.display();
        format!("its folder {named} of the filesystem cannot be reached: {}", errno.desc())
    })?;
    let was = mount.covered.as_ref().and_then(|c| c.root.as_ref());
    if let Some(was) = was
        && !was.is(&Identity::of(&folder).map_err(said)?)
    {
        return Err(format!(
            "{} of the filesystem is another folder now than the one that was mounted",
            mount.root.display()
        ));
    }
    let copy = mount_api::copy_of(&folder).map_err(said)?;
    // The copy of a shared mount is in its peer group; take it out again where it was not.
    let same = |kind| mount.group(kind).is_some() && mount.group(kind) == from.group("shared");
    if same("master") {
        propagate(&copy, libc::MS_SLAVE)?;
    } else if !same("shared") {
        propagate(&copy, libc::MS_PRIVATE)?;
    }
    Ok(copy)
}

fn not_set(errno: Errno) -> String {
    format!("cannot set its options: {}", errno.desc())
}

fn propagate(mount: &OwnedFd, propagation: libc::c_ulong) -> Result<(), String> {
    mount_api::propagate(mount, propagation).map_err(not_set)
}

/// A context with every option of the superblock, for this mount; without one, to try the options.
fn context(of: &Superblock, mount: Option<&Mounted>) -> Result<OwnedFd, String> {
    let context = mount_api::context(&of.fstype).map_err(|errno| {
        format!("the kernel cannot prepare a mount of {} (fsopen): {}", of.fstype, errno.desc())
    })?;
    let id = mount.and_then(subvolume_id);
    let subvolume = (of.fstype == "btrfs").then(|| {
        let root = mount.map_or(OsStr::new("/"), |m| m.root.as_os_str());
        // With both, the kernel refuses another subvolume that was given its name.
        std::iter::once(("subvol", Some(root))).chain(id.as_deref().map(|id| ("subvolid", Some(id))))
    });
    let all = mount_api::pairs(&of.options).chain(subvolume.into_iter().flatten());
    mount_api::configure(context.as_fd(), &of.source, all)
        .map_err(|(key, why)| format!("{} refuses its own mount option {key}: {why}", of.fstype))?;
    Ok(context)
}

fn subvolume_id(mount: &Mounted) -> Option<OsString> {
    mountinfo_option(&mount.super_options, "subvolid")
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
    // The number of a subvolume counts where one was asked for.
    let any = |o: &&str| mount.super_options.contains("subvolid=") || !o.starts_with("subvolid=");
    let shown = shown.split(',').filter(any).collect::<Vec<_>>().join(",");
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
}
