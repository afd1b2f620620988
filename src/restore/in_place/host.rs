//! What this host has of volumes that are to go: their disks, what is mounted of them, who keeps it busy.
//!
//! In: volume ids; /sys, mountinfo. Out: [`There`], or a refusal; [`Busy`]. Must never: change anything, or call a disk
//! free that something else than a mount uses.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::disks;
use super::super::plan::{Refusal, no};
use super::users;
use crate::host::block::{self, BlockDevice, DeviceKind, btrfs};
use crate::host::device;
use crate::host::mountinfo::{self, MountLine, MountTree};
use crate::ids::VolumeId;
use crate::path_encoding::shown;
use crate::unmount::claim::{Claim, claim};
use crate::unmount::holders::{self, Holder, Targets};
use crate::unmount::remount;
use crate::unmount::{Device, Recipe, Wanted, covered, recipe};

/// Volumes on this host.
#[derive(Debug)]
pub struct There {
    /// Everything of them that is mounted.
    pub recipe: Recipe,
    /// For each filesystem of the recipe: the number of its volume, and its partition.
    pub places: Vec<(usize, Option<u32>)>,
    /// And its UUID, where it has one that can be read.
    pub uuids: Vec<Option<String>>,
    lines: Vec<MountLine>,
    targets: Targets,
}

/// Who keeps them busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// What a person is told.
    pub what: String,
    /// Services among them.
    pub units: Vec<String>,
}

const BY_HAND: &str = "restore it beside what is there (without --in-place), and exchange them by hand";

/// Superblock options that name another device.
const OTHER_DEVICES: [&str; 4] = ["logdev=", "rtdev=", "journal_dev=", "journal_path="];

impl There {
    /// Looks. A volume whose disk is not here has nothing mounted; `all` says that each has to be here.
    ///
    /// # Errors
    /// Why these volumes cannot be taken away.
    pub fn look(root: &Path, volumes: &[VolumeId], all: bool) -> Result<Self, Refusal> {
        let unreadable = |e: String| Refusal { what: e, hint: "nothing was touched".to_owned() };
        let table = mountinfo::read(Path::new("/"), "self").map_err(|e| unreadable(e.to_string()))?;
        let lines = table.whole().map_err(|e| unreadable(e.to_string()))?;
        let devices = block::devices(root).map_err(|e| unreadable(e.to_string()))?;
        let (mut wanted, mut places, mut uuids, mut ids) =
            (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        for (number, volume) in volumes.iter().enumerate() {
            let found = disks::of(root, volume).map_err(unreadable)?;
            if found.is_empty() && all {
                return no(
                    format!("{volume} is attached, and its disk is not here"),
                    "look at `lsblk -o NAME,SERIAL`",
                );
            }
            for one in &found {
                not_below(one, volume, &devices)?;
                let mounts = disks::mounts_of(&lines, one);
                if mounts.is_empty() {
                    let is_whole = found.len() > 1 && disks::partition(one).is_none();
                    if !is_whole {
                        unused(root, one, volume)?;
                    }
                    continue;
                }
                on_this_alone(root, one, &mounts, &devices)?;
                let sources: Vec<PathBuf> = mounts.iter().map(|l| PathBuf::from(&l.source)).collect();
                let Some(path) = device::node(one.dev, &sources) else {
                    return no(format!("/dev has no node of {}", one.name), "make udev create it");
                };
                ids.extend(mounts.iter().map(|l| l.id));
                wanted.push(Wanted {
                    ids: mounts.iter().map(|l| l.id).collect(),
                    devices: vec![Device { path, dev: one.dev }],
                });
                places.push((number, disks::partition(one)));
                uuids.push(mounts.first().and_then(|l| disks::uuid(one, &l.fstype).ok().flatten()));
            }
        }
        // No other mount is left without what it is mounted on, and nothing mounts again what goes.
        if let Some(line) = lines.iter().find(|l| !ids.contains(&l.id) && ids.contains(&l.parent)) {
            let place = shown(&line.mount_point);
            return no(
                format!("{place} is mounted on what would go, and is of another volume"),
                format!("umount {place} first, or restore it too"),
            );
        }
        let parents = || lines.iter().filter(|l| ids.contains(&l.id)).map(|l| l.parent);
        if let Some(auto) = lines.iter().find(|l| l.fstype == "autofs" && parents().any(|p| p == l.id)) {
            let place = shown(&auto.mount_point);
            return no(
                format!("an automounter would mount {place} again"),
                format!("stop the automounter of {place} first"),
            );
        }
        let made =
            recipe(&lines, &wanted).map_err(|e| Refusal { what: e.to_string(), hint: BY_HAND.to_owned() })?;
        remount::check(&made).map_err(|e| Refusal { what: e.to_string(), hint: BY_HAND.to_owned() })?;
        users::no_swap_file(root, &lines, &ids)?;
        let parent = |id: u32| lines.iter().find(|l| l.id == id);
        let spreads = parents().filter_map(parent).flat_map(|p| &p.optional);
        let spreads = spreads.filter_map(|o| o.strip_prefix("shared:")).map(str::to_owned).collect();
        let ours = || lines.iter().filter(|l| ids.contains(&l.id));
        let targets = Targets {
            ids: ours().map(|l| (l.id, l.mount_point.clone())).collect(),
            devs: ours().rev().map(|l| (l.dev, l.mount_point.clone())).collect(),
            spreads,
        };
        Ok(Self { recipe: made, places, uuids, lines, targets })
    }

    /// Refuses where this folder is on what would go.
    ///
    /// # Errors
    /// It is.
    pub fn spares(&self, folder: &Path, what: &str) -> Result<(), Refusal> {
        let path =
            folder.ancestors().find_map(|p| p.canonicalize().ok()).unwrap_or_else(|| PathBuf::from("/"));
        let on = MountTree::new(&self.lines).mount_of(&path).map(|l| l.id);
        match on.is_some_and(|id| self.targets.ids.contains_key(&id)) {
            false => Ok(()),
            true => no(
                format!("{} ({what}) is on what would be unmounted", shown(folder)),
                "choose other volumes with --mount, or put it elsewhere",
            ),
        }
    }

    /// Unmounts them, innermost first, and nothing else: what was mounted of these volumes since has no recipe, and is in
    /// the way of their claim.
    ///
    /// # Errors
    /// The first mount that stays.
    pub fn unmount(&self, tell: &dyn Fn(&str)) -> Result<(), String> {
        let ids: BTreeSet<u32> = self.targets.ids.keys().copied().collect();
        super::super::mounts::unmount(&self.lines, &ids, tell)
    }

    /// Waits until nobody keeps them busy that `counts` selects.
    ///
    /// # Errors
    /// Who still does.
    pub async fn free(&self, patience: Duration, counts: impl Fn(&Holder) -> bool) -> Result<(), Busy> {
        let end = Instant::now() + patience;
        loop {
            let targets = self.targets.clone();
            let look = move || holders::processes(Path::new("/"), &targets, holders::LIMIT);
            let (found, cut) = tokio::task::spawn_blocking(look).await.unwrap_or((Vec::new(), true));
            let all: Vec<&Holder> = found.iter().filter(|h| counts(h)).collect();
            if all.is_empty() && !cut {
                return Ok(());
            }
            if Instant::now() >= end {
                let mut said: Vec<String> =
                    all.iter().take(8).map(|h| format!("{}: {h}", shown(&h.of))).collect();
                if all.len() > 8 {
                    said.push(format!("{} more", all.len() - 8));
                }
                if cut {
                    said.push("there was no time to look at every process".to_owned());
                }
                let units: BTreeSet<String> =
                    all.iter().filter_map(|h| h.unit.clone()).filter(|u| u.ends_with(".service")).collect();
                return Err(Busy { what: said.join("; "), units: units.into_iter().collect() });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Records what each mount covers; the descriptors keep these folders.
    ///
    /// # Errors
    /// When it could not be mounted at its place again.
    pub fn record_covered(&mut self) -> Result<Vec<OwnedFd>, String> {
        covered::record(&self.lines, &mut self.recipe).map_err(|e| e.to_string())
    }
}

/// Refuses a device that another one is made of, or that is used as swap.
fn not_below(one: &BlockDevice, volume: &VolumeId, all: &[BlockDevice]) -> Result<(), Refusal> {
    let above =
        all.iter().find(|d| d.below.contains(&one.name) && !matches!(d.kind, DeviceKind::Partition { .. }));
    if let Some(above) = above {
        return no(format!("{} is made of {volume} (LVM, LUKS or md)", above.name), BY_HAND);
    }
    if one.swap {
        return no(
            format!("{} of {volume} is used as swap", one.name),
            format!("swapoff /dev/{} first", one.name),
        );
    }
    Ok(())
}

/// Refuses a device that nothing is mounted of and that something else has for itself.
fn unused(root: &Path, one: &BlockDevice, volume: &VolumeId) -> Result<(), Refusal> {
    let node = device::node(one.dev, &[]);
    let Some(path) = node else {
        return no(format!("/dev has no node of {}", one.name), "make udev create it");
    };
    match claim(&Device { path, dev: one.dev }) {
        Ok(_) => Ok(()),
        Err(errno) => {
            let who = users::elsewhere(root, one.dev).unwrap_or_else(|| errno.desc().to_owned());
            no(
                format!("{} of {volume} is used by something that is no mount here: {who}", one.name),
                "end what uses it: another mount namespace (lsns -t mnt), device mapper or md",
            )
        }
    }
}

/// Refuses a filesystem that has other devices beside this one.
fn on_this_alone(
    root: &Path,
    one: &BlockDevice,
    mounts: &[&MountLine],
    all: &[BlockDevice],
) -> Result<(), Refusal> {
    let Some(line) = mounts.first() else { return Ok(()) };
    let place = shown(&line.mount_point);
    if let Some(other) = mounts.iter().find(|l| l.fstype != line.fstype) {
        return no(format!("{place} is {}, and {} elsewhere", line.fstype, other.fstype), BY_HAND);
    }
    let several = |what: &str| no(format!("{place} is on several devices ({what})"), BY_HAND);
    let options = line.super_options.to_string_lossy().into_owned();
    if let Some(option) = options.split(',').find(|o| OTHER_DEVICES.iter().any(|key| o.starts_with(key))) {
        return several(option);
    }
    match line.fstype.as_str() {
        "btrfs" => {
            let members = btrfs(root, all);
            match members.values().find(|m| m.names.contains(&one.name)) {
                Some(m) if m.complete && m.names.len() == 1 => Ok(()),
                Some(m) => several(&m.names.join(", ")),
                None => no(format!("which devices {place} is on cannot be told"), BY_HAND),
            }
        }
        // The superblock names a journal on another device.
        "ext2" | "ext3" | "ext4" | "xfs" | "vfat" => match disks::beside(one, &line.fstype) {
            Ok(false) => Ok(()),
            Ok(true) => several("a journal outside"),
            Err(why) => no(why, BY_HAND),
        },
        other => no(format!("{place} is {other}, which is not exchanged here"), BY_HAND),
    }
}

/// Claims every disk of these volumes: nothing of them is mounted or in use, in any namespace.
///
/// # Errors
/// The first that is.
pub(super) fn claim_all(root: &Path, volumes: &[VolumeId]) -> Result<BTreeMap<VolumeId, Claim>, String> {
    let mut claims = BTreeMap::new();
    for volume in volumes {
        let Some(disk) = disks::of(root, volume)?.into_iter().next() else { continue };
        let path = device::node(disk.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", disk.name))?;
        let claimed = claim(&Device { path, dev: disk.dev }).map_err(|errno| {
            format!("{} of {volume} is unmounted, and something still uses it: {}", disk.name, errno.desc())
        })?;
        claims.insert(volume.clone(), claimed);
    }
    Ok(claims)
}

/// The device of each filesystem of a recipe, now.
pub(super) async fn devices(
    root: &Path,
    places: &[(usize, Option<u32>)],
    volumes: &[VolumeId],
    clock: &dyn crate::clock::Clock,
) -> Result<Vec<Device>, String> {
    let mut found = Vec::new();
    for (number, partition) in places {
        let volume = volumes.get(*number).ok_or("there is no such volume")?;
        let one = disks::await_partition(root, volume, *partition, clock).await?;
        let path = device::node(one.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", one.name))?;
        found.push(Device { path, dev: one.dev });
    }
    Ok(found)
}
