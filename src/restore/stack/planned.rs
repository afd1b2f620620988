//! What is put together for the filesystems of a plan, decided before anything is made.
//!
//! In: the filesystems of a set that are not simply on one disk. Out: a [`StackPlan`], or a [`Refusal`]. Pure. Must never:
//! leave out a volume that a group, an array or a filesystem needs, or take on what cannot be put together here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::thin;
use super::words::{self, Layer};
use crate::ids::{RunId, VolumeId};
use crate::path_encoding::{printable, shown};
use crate::restore::plan::Refusal;
use crate::sets::layout::Layout;
use crate::sets::lines::{SetFilesystem, SetVolume};

/// LVM's names have 127 characters at most (`NAME_LEN`), and device mapper's, which have the group's and the volume's, too.
const LONGEST_GROUP: usize = 60;

/// What is put together, from the disks up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackPlan {
    /// In the name of everything that is made for this restore.
    pub mark: String,
    /// Where layers begin.
    pub bottoms: BTreeSet<Bottom>,
    /// There are md arrays among them.
    pub arrays: bool,
    /// There is LUKS among them.
    pub luks: bool,
    /// Volume groups, by their names in the set.
    pub groups: BTreeMap<String, PlannedGroup>,
    /// What filesystems are on, by their numbers in the plan.
    pub tops: BTreeMap<usize, Top>,
}

/// A disk, or a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bottom {
    /// A number in the plan's volumes.
    pub volume: usize,
    /// None for the whole disk.
    pub partition: Option<u32>,
}

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// Its name here.
    pub name: String,
    /// The logical volumes that are needed.
    pub volumes: BTreeSet<String>,
    /// Some of them are thin: their pool is checked before it is activated.
    #[serde(default)]
    pub thin: bool,
}

/// What a filesystem is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// What kind of device.
    pub kind: TopKind,
    /// The volumes below it: numbers in the plan.
    pub volumes: BTreeSet<usize>,
}

/// Kinds of devices that a filesystem is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopKind {
    /// A logical volume.
    Logical {
        /// Its group, as the set names it.
        group: String,
        /// Its name.
        volume: String,
    },
    /// What is in LUKS.
    Luks,
    /// An array.
    Array,
    /// Several devices of one btrfs.
    Members,
}

fn no<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { what: what.into(), hint: hint.into() })
}

const BY_HAND: &str = "--no-mount attaches the volumes, hidden from the host, and `stillpoint show` has the stack; or \
                       choose others with --mount";

/// Is it on anything but one disk, or one partition?
pub(in crate::restore) fn is_stacked(filesystem: &SetFilesystem) -> bool {
    // A name alone is a disk or its partition; whatever is on something else has an arrow, or a word in brackets.
    filesystem.volumes.len() != 1 || ["→", "(", " + ", ";"].iter().any(|sign| filesystem.stack.contains(sign))
}

/// The groups that a filesystem has below it.
fn groups_of(filesystem: &SetFilesystem) -> BTreeSet<String> {
    let layers = words::layers(&filesystem.stack).unwrap_or_default().into_iter().flatten();
    layers.filter_map(|l| if let Layer::Logical { group, .. } = l { Some(group) } else { None }).collect()
}

/// The filesystems that these have a volume group in common with, and they themselves: a group is one only with all of
/// its physical volumes.
fn with_their_groups<'l>(layout: &'l Layout, of: &[&'l SetFilesystem]) -> Vec<&'l SetFilesystem> {
    let mut all = of.to_vec();
    loop {
        let groups: BTreeSet<String> = all.iter().flat_map(|f| groups_of(f)).collect();
        let other = layout
            .filesystems
            .iter()
            .find(|f| !all.contains(f) && groups_of(f).iter().any(|g| groups.contains(g)));
        match other {
            Some(other) => all.push(other),
            None => return all,
        }
    }
}

/// The volumes that it takes to have these filesystems.
pub(in crate::restore) fn volumes_of(layout: &Layout, of: &[&SetFilesystem]) -> BTreeSet<VolumeId> {
    with_their_groups(layout, of).iter().flat_map(|f| f.volumes.iter().cloned()).collect()
}

impl StackPlan {
    /// Of a restore that begins.
    pub(in crate::restore) fn of(id: &RunId) -> Self {
        // The start of an id is the time.
        let text = id.as_str();
        let mark = text.get(text.len().saturating_sub(8)..).unwrap_or_default().to_owned();
        Self { mark, ..Self::default() }
    }

    /// Takes on a filesystem of the set, which gets this number in the plan.
    pub(in crate::restore) fn add(
        &mut self,
        number: usize,
        filesystem: &SetFilesystem,
        layout: &Layout,
        volumes: &[&SetVolume],
        read_only: bool,
    ) -> Result<(), Refusal> {
        let kind = top(filesystem, read_only)?;
        for one in with_their_groups(layout, &[filesystem]) {
            let layers = understood(one)?;
            let numbers = numbers(one, volumes)?;
            for layer in layers.into_iter().flatten() {
                match layer {
                    Layer::Disk(partition) => {
                        self.bottoms
                            .extend(numbers.iter().map(|volume| Bottom { volume: *volume, partition }));
                    }
                    Layer::Array => self.arrays = true,
                    Layer::Luks => self.luks = true,
                    Layer::Logical { group, volume } => {
                        let name = self.group(&group);
                        let planned = self.groups.entry(group).or_insert_with(|| PlannedGroup {
                            name,
                            volumes: BTreeSet::new(),
                            thin: false,
                        });
                        if one == filesystem {
                            planned.volumes.insert(volume);
                        }
                    }
                    // It is below a volume of its group, which has come before.
                    Layer::ThinPool { group } => {
                        if let Some(planned) = self.groups.get_mut(&group).filter(|_| one == filesystem) {
                            planned.thin = true;
                        }
                    }
                    // Of another filesystem, for which nothing is activated.
                    Layer::HiddenLogical => {}
                }
            }
        }
        self.tops.insert(number, Top { kind, volumes: numbers(filesystem, volumes)? });
        Ok(())
    }

    /// The name of a group here.
    fn group(&self, group: &str) -> String {
        format!("{}_r{}", group.get(..LONGEST_GROUP).unwrap_or(group), self.mark)
    }

    /// Is there anything to put together?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tops.is_empty()
    }

    /// Programs that it needs, and the packages that have them.
    pub(in crate::restore) fn tools(&self) -> Vec<(&'static str, &'static str)> {
        let mut tools = Vec::new();
        if !self.groups.is_empty() {
            tools.extend([("vgimportclone", "lvm2"), ("lvchange", "lvm2")]);
        }
        if self.groups.values().any(|g| g.thin) {
            // Without it, LVM warns, and activates what nobody has checked.
            tools.push(thin::CHECK);
        }
        if self.luks {
            tools.push(("cryptsetup", "cryptsetup"));
        }
        if self.arrays {
            tools.push(("mdadm", "mdadm"));
        }
        if self.luks || !self.groups.is_empty() {
            // Debian has it apart; elsewhere, it is in device-mapper.
            tools.push(("dmsetup", "dmsetup or device-mapper"));
        }
        tools
    }

    /// The commands that do by hand what is done here, for people.
    #[must_use]
    pub fn by_hand(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.arrays {
            all.push("mdadm --assemble --readonly --config=none --update=uuid /dev/mdN DISK…".to_owned());
            all.push("mdadm --stop /dev/mdN".to_owned());
            all.push(format!(
                "mdadm --assemble --readonly --config=none --update=name --name=mdN_r{} /dev/mdN DISK…",
                self.mark
            ));
            all.push("mdadm --readwrite /dev/mdN".to_owned());
        }
        if self.luks {
            all.push("cryptsetup luksUUID --uuid $(uuidgen) DISK".to_owned());
            all.push(format!("cryptsetup open --key-file FILE DISK {}", self.luks_name("N")));
        }
        for group in self.groups.values() {
            all.push(format!("vgimportclone --devices DISK,… --basevgname {} DISK…", group.name));
            all.extend(
                group.volumes.iter().map(|v| format!("lvchange --devices DISK,… -ay -K {}/{v}", group.name)),
            );
        }
        all
    }

    /// The name of an array, here.
    pub(super) fn array_name(&self, number: u32) -> String {
        format!("md{number}_r{}", self.mark)
    }

    /// The name of what is in LUKS, here.
    pub(super) fn luks_name(&self, of: &str) -> String {
        format!("luks{of}_r{}", self.mark)
    }
}

/// The volumes of a filesystem, as numbers in the plan.
fn numbers(filesystem: &SetFilesystem, volumes: &[&SetVolume]) -> Result<BTreeSet<usize>, Refusal> {
    let number = |id: &VolumeId| match volumes.iter().position(|v| v.id == *id) {
        Some(number) => Ok(number),
        None => no(
            format!("{} is on {id}, which is not of the set", shown(&filesystem.mount_point)),
            "restore another set",
        ),
    };
    filesystem.volumes.iter().map(number).collect()
}

fn understood(filesystem: &SetFilesystem) -> Result<Vec<Vec<Layer>>, Refusal> {
    words::layers(&filesystem.stack)
        .or_else(|why| no(format!("{} is on {}", shown(&filesystem.mount_point), printable(&why)), BY_HAND))
}

/// What the filesystem is on, and is it something that is put together here?
fn top(filesystem: &SetFilesystem, read_only: bool) -> Result<TopKind, Refusal> {
    let (place, stack) = (shown(&filesystem.mount_point), printable(&filesystem.stack));
    let layers = understood(filesystem)?;
    let refused = |why: &str| no(format!("{place} is on {stack}: {why}"), BY_HAND);
    if layers.iter().flatten().any(|l| *l == Layer::HiddenLogical) {
        return refused(hidden(&filesystem.stack));
    }
    let of_groups = |l: &&Vec<Layer>| l.iter().any(|l| matches!(l, Layer::Logical { .. }));
    if layers.iter().filter(of_groups).count() > 1 {
        return refused("a volume group on another one is not put together here");
    }
    if !layers.iter().flatten().any(|l| matches!(l, Layer::Disk(_))) {
        return refused("no disk is named");
    }
    let kind = match layers.first().map(Vec::as_slice) {
        Some([Layer::Logical { group, volume }]) => {
            TopKind::Logical { group: group.clone(), volume: volume.clone() }
        }
        Some([Layer::Luks]) => TopKind::Luks,
        Some([Layer::Array]) => TopKind::Array,
        Some([_, _, ..]) if filesystem.fstype == "btrfs" => TopKind::Members,
        Some(several) => {
            return no(
                format!("{place} is on {} devices: {stack}", several.len().max(filesystem.volumes.len())),
                BY_HAND,
            );
        }
        None => return refused("nothing is named"),
    };
    if read_only && layers.iter().any(|l| of_groups(&l)) {
        return no(
            format!(
                "{place} is on LVM, whose group must get another name before it is used, and that is written to it"
            ),
            "leave --read-only out: what is written to are new volumes",
        );
    }
    if read_only && kind == TopKind::Members {
        return no(
            format!("{place} is on several disks, whose UUID must be another one before btrfs is mounted"),
            "leave --read-only out: what is written to are new volumes",
        );
    }
    Ok(kind)
}

/// What has such parts.
fn hidden(stack: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().any(|p| stack.contains(p));
    if has(&["_rimage", "_rmeta", "_mimage", "_mlog", "_imeta", "_iorig"]) {
        "LVM RAID is not put together here"
    } else if has(&["_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig"]) {
        "an LVM cache is not put together here"
    } else if has(&["_vdata", "_vorigin", "-vpool"]) {
        "LVM VDO is not put together here"
    } else {
        "a snapshot of LVM, or what has one, is not put together here"
    }
}

#[cfg(test)]
#[path = "planned_tests.rs"]
mod tests;
