//! Where each filesystem is: on EBS, or not, and why.
//!
//! In: [`Facts`]. Out: one [`PlacedFilesystem`] for each filesystem, in the same order. Must never: depend on
//! the settings.

use std::collections::{BTreeMap, BTreeSet};

use super::classify::{is_kernel_made, is_read_only_image, without_devices};
use super::stack::{Off, Stack, Walk};
use crate::discover::{Backing, Facts, Filesystem};
use crate::host::ondisk::Role;
use crate::ids::VolumeId;
use crate::path_encoding::shown;

/// How a plan that an ordinary user makes names what only root can find out.
pub(super) const NEEDS_ROOT: &str = "not checked, needs root";

pub(super) struct PlacedFilesystem<'a> {
    pub filesystem: &'a Filesystem,
    pub(crate) placement: Placement,
    /// Why it cannot be told which devices it is on: it may be on any.
    pub lost: Option<String>,
    /// What only root can find out about it, where this process is not root's.
    pub unchecked: Option<String>,
    /// Volumes that it has only for something of its own, such as an external journal.
    pub beside: BTreeMap<VolumeId, Role>,
    not_attached: Option<(VolumeId, String)>,
}

pub(super) enum Placement {
    /// At least partly on attached EBS volumes.
    On(Stack),
    /// On no EBS volume, for this reason.
    Out(String),
    /// Made by the kernel or in memory: counted, not listed.
    Kernel,
    /// An overlay: it is in the set when the filesystem is that its writes go to.
    Overlay,
}

impl PlacedFilesystem<'_> {
    /// Volumes it is on.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeId> {
        let stack = match &self.placement {
            Placement::On(stack) => Some(stack),
            _ => None,
        };
        stack.into_iter().flat_map(|s| s.volumes.iter())
    }

    pub(crate) fn is_on(&self, volume: &VolumeId) -> bool {
        self.volumes().any(|v| v == volume)
    }

    /// Why it cannot be chosen; none when it can.
    pub(crate) fn not_on_ebs(&self) -> Option<String> {
        match &self.placement {
            Placement::On(_) => None,
            Placement::Out(reason) => Some(reason.clone()),
            Placement::Kernel => Some("in memory or made by the kernel".to_owned()),
            Placement::Overlay => {
                Some("its files are on another filesystem, which must be named instead".to_owned())
            }
        }
    }

    /// The volume that its disk's serial number names although EC2 does not list it, and that disk.
    pub(crate) fn not_attached(&self) -> Option<(&VolumeId, &str)> {
        self.not_attached.as_ref().map(|(volume, disk)| (volume, disk.as_str()))
    }
}

pub(super) fn placed<'a>(facts: &'a Facts, walk: &Walk<'a>) -> Vec<PlacedFilesystem<'a>> {
    facts.filesystems.iter().map(|f| one(f, walk)).collect()
}

fn one<'a>(filesystem: &'a Filesystem, walk: &Walk<'a>) -> PlacedFilesystem<'a> {
    let fstype = filesystem.fstype.as_str();
    let mut placed = PlacedFilesystem {
        filesystem,
        placement: Placement::Kernel,
        lost: None,
        unchecked: None,
        beside: beside(filesystem, walk),
        not_attached: None,
    };
    placed.placement = match &filesystem.backing {
        Backing::None if is_kernel_made(fstype) => Placement::Kernel,
        Backing::None => Placement::Out(without_devices(fstype).to_owned()),
        Backing::Overlay { .. } => Placement::Overlay,
        Backing::Devices { .. } => {
            let stack = walk.stack(filesystem);
            placed.not_attached = stack.off.iter().find_map(|off| match off {
                Off::NotAttached { volume, disk } => Some((volume.clone(), disk.clone())),
                _ => None,
            });
            if is_read_only_image(fstype) && stack.depth > 0 {
                // Nothing can write to it, and its image file is frozen with the filesystem that has it.
                Placement::Out("read-only image".to_owned())
            } else if let Some(why) = lost(&stack)
                && stack.volumes.is_empty()
            {
                placed.lost = Some(why);
                Placement::Out("its devices cannot be told".to_owned())
            } else if stack.volumes.is_empty()
                && let Some(what) = in_words(&stack.unchecked)
            {
                placed.unchecked = Some(what.clone());
                Placement::Out(format!("{NEEDS_ROOT}: {what}"))
            } else if stack.volumes.is_empty() {
                let off: Vec<_> = stack.off.iter().map(ToString::to_string).collect();
                Placement::Out(off.join("; "))
            } else {
                placed.lost = lost(&stack);
                placed.unchecked = in_words(&stack.unchecked);
                Placement::On(stack)
            }
        }
    };
    placed
}

fn in_words(unchecked: &BTreeSet<String>) -> Option<String> {
    let all: Vec<_> = unchecked.iter().map(String::as_str).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn lost(stack: &Stack) -> Option<String> {
    stack.off.iter().find_map(|off| match off {
        Off::Lost(why) => Some(why.clone()),
        _ => None,
    })
}

/// Volumes that only such devices of a filesystem are on as it has beside its own.
fn beside<'a>(filesystem: &'a Filesystem, walk: &Walk<'a>) -> BTreeMap<VolumeId, Role> {
    let Backing::Devices { devices } = &filesystem.backing else { return BTreeMap::new() };
    let below = |device: &'a String| walk.volumes_below(std::slice::from_ref(device));
    let own: BTreeSet<VolumeId> =
        devices.iter().filter(|d| !filesystem.has_beside(d)).flat_map(below).collect();
    let others = filesystem.beside.iter().flat_map(|b| below(&b.device).into_iter().map(|v| (v, b.role)));
    others.filter(|(volume, _)| !own.contains(volume)).collect()
}

/// Why an overlay stays out, which depends on where its writes go.
pub(super) fn overlay_reason<'a>(
    filesystem: &'a Filesystem,
    walk: &Walk<'a>,
    quiet: impl Fn(&Filesystem) -> bool,
) -> String {
    match walk.written(filesystem) {
        None => match &filesystem.unknown {
            Some(why) => format!("where its writes go is not known: {why}"),
            None if walk.is_unchecked(filesystem) => format!("{NEEDS_ROOT}: where its writes go"),
            None => "read-only, or its upper directory is not mounted here".to_owned(),
        },
        Some(to) if quiet(to) => format!("writes go to {}, which is made quiet", shown(to.mount_point())),
        Some(to) if is_kernel_made(&to.fstype) => {
            format!("writes go to {} ({}), in memory", shown(to.mount_point()), to.fstype)
        }
        Some(to) => format!("writes go to {}, which is left out", shown(to.mount_point())),
    }
}
