//! How what is unmounted is mounted again.
//!
//! In: mountinfo's lines, and which of them are to go. Out: a [`Recipe`], or why there is none. Pure. Must
//! never: leave out a mount, or an option of it, that would be missing afterwards.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::covered::Covered;
use crate::host::mountinfo::{self, MountLine, MountTree};
use crate::ids::DevNo;

/// The superblocks and mounts that a run unmounts, with all that it takes to mount them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// One entry a superblock.
    pub filesystems: Vec<Superblock>,
    /// Every mount of them, in an order in which they can be made. Unmounting goes backwards.
    pub mounts: Vec<Mounted>,
}

/// What it takes to make a superblock again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// As mountinfo names it, and fsopen(2) takes it.
    pub fstype: String,
    /// The source as mountinfo shows it, for the comparison afterwards.
    pub(crate) shown_source: String,
    /// The device that it is mounted from: the source, or another path to the same device.
    pub source: PathBuf,
    /// Every device that the filesystem is on. All of them are claimed while it is unmounted.
    pub devices: Vec<Device>,
    /// Options of the superblock, unescaped: `key` or `key=value`; without those that choose a btrfs
    /// subvolume, and with its other devices.
    pub options: Vec<String>,
}

/// A block device of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its node in /dev.
    pub path: PathBuf,
    /// The number that the node has to have when it is opened.
    pub dev: DevNo,
}

/// One mount, as mountinfo showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Index of its superblock in [`Recipe::filesystems`].
    pub of: usize,
    /// mountinfo's `major:minor`; another one after mounting again where there is no single device.
    pub dev: DevNo,
    /// Where it is attached.
    pub mount_point: PathBuf,
    /// The folder of the filesystem that is mounted.
    pub root: PathBuf,
    /// Options of the mount as mountinfo shows them (`rw,noatime`), without those of the superblock.
    pub options: String,
    /// mountinfo's optional fields: `shared:1`, `master:2`, …
    pub(crate) propagation: Vec<String>,
    /// Options of the superblock as shown, for the comparison afterwards.
    pub super_options: String,
    /// From the device, or as a copy of another mount.
    pub make: Make,
    /// What it covers; none before that is recorded, and in a journal of a build that did not.
    #[serde(default)]
    pub covered: Option<Covered>,
}

/// How a mount comes about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Make {
    /// By fsopen(2) and fsmount(2), from the superblock's device.
    New,
    /// As a copy of this mount, whose root holds its own; it stays in that mount's peer group where it was in
    /// it.
    CopyOf(
        /// Index in [`Recipe::mounts`].
        usize,
    ),
}

impl Mounted {
    /// The id after `shared:` or `master:`.
    pub(super) fn group(&self, kind: &str) -> Option<&str> {
        self.propagation.iter().find_map(|o| o.strip_prefix(kind)?.strip_prefix(':'))
    }

    pub(super) fn line_is(&self, of: &Superblock, line: &MountLine) -> bool {
        let same = |text: &OsStr| line.source == *text;
        line.mount_point == self.mount_point
            && line.root == self.root
            && line.fstype == of.fstype
            && ((self.dev.major != 0 && line.dev == self.dev)
                || same(OsStr::new(&of.shown_source))
                || same(of.source.as_os_str()))
    }
}

/// Why no recipe can be made. Nothing has been touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot unmount {}: {why}", mount_point.display())]
pub struct NoRecipe {
    /// The first mount that stands in the way.
    pub mount_point: PathBuf,
    /// Why that mount could not be made again; continues "cannot unmount …: ".
    pub why: String,
}

/// A filesystem to be unmounted: the ids of its mounts, and its devices, the first of which it is mounted
/// from.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// mountinfo's ids of its mounts.
    pub ids: Vec<u32>,
    /// All its devices; the first is the one that it is mounted from.
    pub devices: Vec<Device>,
}

/// Makes the recipe. Pure: whether this kernel takes its options is checked by [`super::remount::check`].
///
/// # Errors
/// When a mount could not be made again exactly.
pub fn recipe(lines: &[MountLine], wanted: &[Wanted]) -> Result<Recipe, NoRecipe> {
    let tree = MountTree::new(lines);
    let mut recipe = Recipe::default();
    let mut left: Vec<(u32, u32, Mounted)> = Vec::new(); // id, parent, mount
    for wanted in wanted {
        let mut of_it = lines.iter().filter(|l| wanted.ids.contains(&l.id)).peekable();
        let Some(first) = of_it.peek() else { continue };
        let (shown, Some(source)) = (&first.source, wanted.devices.first()) else {
            return Err(refuse(first, "the device that it is mounted from is not known"));
        };
        let mut options = options(first);
        if first.fstype == "btrfs" {
            // The kernel usually still knows the other devices, but `btrfs device scan --forget` makes it
            // forget them.
            options.extend(wanted.devices.iter().skip(1).map(|d| format!("device={}", d.path.display())));
        }
        recipe.filesystems.push(Superblock {
            fstype: first.fstype.clone(),
            shown_source: shown.to_string_lossy().into_owned(),
            source: source.path.clone(),
            devices: wanted.devices.clone(),
            options,
        });
        for line in of_it {
            left.push((line.id, line.parent, mounted(line, recipe.filesystems.len() - 1)));
        }
    }
    for (id, ..) in &left {
        // umount(2) takes a path, and the path of a covered mount leads to its cover. That is no problem
        // when the cover is unmounted as well, because it goes first.
        let Some(line) = lines.iter().find(|l| l.id == *id) else { continue };
        if let Some(top) = tree.mount_of(&line.mount_point)
            && top.id != line.id
            && !left.iter().any(|(other, ..)| *other == top.id)
        {
            return Err(refuse(line, &format!("it is covered by a mount of {}", top.fstype)));
        }
    }
    // Parents before children, originals before copies.
    let mut placed: Vec<u32> = Vec::new();
    while !left.is_empty() {
        let ready = left.iter().position(|(_, parent, mount)| {
            let waits = left.iter().any(|(id, ..)| id == parent);
            !waits && make(&recipe, mount).is_some()
        });
        let Some(ready) = ready else {
            let (_, _, mount) = &left[0];
            return Err(NoRecipe { mount_point: mount.mount_point.clone(), why: no_way(mount) });
        };
        let (id, _, mut mount) = left.remove(ready);
        if let Some(make) = make(&recipe, &mount) {
            mount.make = make;
        }
        placed.push(id);
        recipe.mounts.push(mount);
    }
    Ok(recipe)
}

fn refuse(line: &MountLine, why: &str) -> NoRecipe {
    NoRecipe { mount_point: line.mount_point.clone(), why: why.to_owned() }
}

fn no_way(mount: &Mounted) -> String {
    if mount.options.split(',').any(|o| o == "idmapped") {
        "it is an idmapped mount, which cannot be made again".to_owned()
    } else if mount.group("master").is_some() {
        "it is a slave of a mount that is not unmounted, and could not be made its slave again".to_owned()
    } else {
        format!("only its folder {} is mounted, which cannot be mounted again alone", mount.root.display())
    }
}

/// How this mount can be made when the mounts that the recipe has so far exist. None when there is no way.
fn make(recipe: &Recipe, mount: &Mounted) -> Option<Make> {
    if mount.options.split(',').any(|o| o == "idmapped") {
        return None;
    }
    let holds = |m: &Mounted| m.of == mount.of && mount.root.starts_with(&m.root);
    let peer = |group: &str| {
        let of_group = |m: &&Mounted| holds(m) && m.group("shared") == Some(group);
        recipe.mounts.iter().position(|m| of_group(&m)).map(Make::CopyOf)
    };
    if let Some(master) = mount.group("master") {
        return peer(master);
    }
    if let Some(copy) = mount.group("shared").and_then(peer) {
        return Some(copy);
    }
    let subvolume = mountinfo_option(&mount.super_options, "subvol");
    let whole = match recipe.filesystems[mount.of].fstype.as_str() {
        "btrfs" => subvolume.as_deref() == Some(mount.root.as_os_str()),
        _ => mount.root == Path::new("/"),
    };
    if whole {
        return Some(Make::New);
    }
    recipe.mounts.iter().position(holds).map(Make::CopyOf)
}

fn mounted(line: &MountLine, of: usize) -> Mounted {
    Mounted {
        of,
        dev: line.dev,
        mount_point: line.mount_point.clone(),
        root: line.root.clone(),
        options: line.options.clone(),
        propagation: line.optional.clone(),
        super_options: line.super_options.to_string_lossy().into_owned(),
        make: Make::New,
        covered: None,
    }
}

pub(super) fn mountinfo_option(shown: &str, name: &str) -> Option<std::ffi::OsString> {
    let value = shown.split(',').find_map(|o| o.strip_prefix(name)?.strip_prefix('='))?;
    Some(std::ffi::OsString::from_vec(mountinfo::unescape(value.as_bytes())))
}

/// Options of the superblock, each unescaped, without `subvol` and `subvolid`.
fn options(line: &MountLine) -> Vec<String> {
    let chooses = |o: &&[u8]| o.starts_with(b"subvol=") || o.starts_with(b"subvolid=");
    let all = line.super_options.as_bytes().split(|b| *b == b',').filter(|o| !o.is_empty());
    // SELinux shows `seclabel` for every filesystem that it labels, though nobody sets it.
    all.filter(|o| *o != b"seclabel")
        .filter(|o| line.fstype != "btrfs" || !chooses(o))
        .map(|o| String::from_utf8_lossy(&mountinfo::unescape(o)).into_owned())
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::by_hand;
    use super::*;

    const TABLE: &str = "\
20 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
30 20 7:0 / /a rw,nosuid,relatime shared:5 - ext4 /dev/loop0 rw,errors=remount-ro
31 30 7:1 / /a/in rw - xfs /dev/loop1 rw,noquota
32 20 7:0 /sub /b ro,noatime - ext4 /dev/loop0 rw,errors=remount-ro
33 20 7:0 /sub/x /c rw shared:5 - ext4 /dev/loop0 rw,errors=remount-ro
34 20 7:0 / /d rw master:5 - ext4 /dev/loop0 rw,errors=remount-ro
40 20 0:40 /@home /home rw,relatime - btrfs /dev/loop2 rw,seclabel,space_cache=v2,subvolid=256,subvol=/@home
41 20 0:41 /deep /deep rw - ext4 /dev/loop3 rw
42 20 7:4 / /cov\\040er'd rw - ext4 /dev/loop4 rw
43 42 0:50 / /cov\\040er'd rw - tmpfs tmpfs rw
";

    fn wanted(lines: &[MountLine], dev: &str) -> Wanted {
        let dev: DevNo = dev.parse().unwrap();
        let of_it = lines.iter().filter(|l| l.dev == dev);
        let path = PathBuf::from(&of_it.clone().next().unwrap().source);
        Wanted { ids: of_it.map(|l| l.id).collect(), devices: vec![Device { path, dev }] }
    }

    pub(in super::super) fn recipe_of(devs: &[&str]) -> Result<Recipe, NoRecipe> {
        let lines = mountinfo::parse(TABLE.as_bytes()).lines;
        recipe(&lines, &devs.iter().map(|d| wanted(&lines, d)).collect::<Vec<_>>())
    }

    #[test]
    fn parents_come_before_children_and_originals_before_copies() {
        let recipe = recipe_of(&["7:1", "7:0"]).unwrap();
        let made: Vec<_> = recipe.mounts.iter().map(|m| (m.mount_point.to_str().unwrap(), &m.make)).collect();
        assert_eq!(
            made,
            [
                ("/a", &Make::New),
                ("/a/in", &Make::New),
                ("/b", &Make::CopyOf(0)),
                ("/c", &Make::CopyOf(0)),
                ("/d", &Make::CopyOf(0)),
            ]
        );
    }

    #[test]
    fn a_subvolume_is_made_by_its_name_and_its_choice_is_no_option_of_the_superblock() {
        let recipe = recipe_of(&["0:40"]).unwrap();
        assert_eq!(recipe.mounts[0].make, Make::New);
        assert_eq!(recipe.filesystems[0].options, ["rw", "space_cache=v2"], "and seclabel is none either");
        assert_eq!(
            by_hand(&recipe, &recipe.mounts[0]),
            "mount -t btrfs -o rw,relatime,subvol=/@home,space_cache=v2 /dev/loop2 /home && mount \
             --make-private /home"
        );
    }

    #[test]
    fn what_could_not_be_made_again_is_refused() {
        assert!(recipe_of(&["0:41"]).unwrap_err().to_string().contains("only its folder /deep is mounted"));
        assert!(recipe_of(&["7:4"]).unwrap_err().to_string().contains("covered by a mount of tmpfs"));
        let lines = mountinfo::parse(
            b"1 1 0:1 / / rw - ext4 /dev/vda rw\n2 1 7:0 / /s rw master:9 - ext4 /dev/loop0 rw\n",
        );
        let lines = lines.whole().unwrap();
        let said = recipe(&lines, &[wanted(&lines, "7:0")]).unwrap_err().to_string();
        assert!(said.contains("slave"), "{said}");
    }
}
