//! What should be mounted and is not: which of it matters to this plan.
//!
//! In: [`Facts`], settings, what is chosen. Out: [`MissingMount`]s; the automounts that a run triggers first.
//! Must never: pass over a mount that may be on a volume of the set.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::stack::Walk;
use crate::config::settings::{Automounts, MissingMounts, PlanSettings};
use crate::discover::expected::Expected;
use crate::discover::{BlockDevice, Facts};
use crate::ids::VolumeId;
use crate::path_encoding::{self, shown};

/// A mount that fstab or a unit names, that may be on a volume of this plan, and that nothing shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingMount {
    /// Where it should be.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// What should be mounted, as it is written.
    pub source: String,
    /// Who says so: `/etc/fstab, line 3` or `data.mount`.
    pub named_by: String,
    /// The kernel name of its device; none when nothing here has that name.
    pub device: Option<String>,
    /// The attached volumes that the device is on.
    pub volumes: Vec<VolumeId>,
    /// An automount waits there.
    pub automount: bool,
    /// What is known of it, in words.
    pub why: String,
    /// Does it make a set less than what was asked for?
    pub counts: bool,
}

impl fmt::Display for MissingMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, named by {}): {}", shown(&self.mount_point), self.source, self.named_by, self.why)
    }
}

/// Those that matter: `taken` are the volumes of the set.
pub(super) fn missing(
    facts: &Facts,
    settings: &PlanSettings,
    walk: &Walk<'_>,
    taken: &BTreeSet<&VolumeId>,
) -> Vec<MissingMount> {
    let judge = |e: &Expected| {
        let place = place(facts, walk, e);
        let of_set = place.volumes.iter().any(|v| taken.contains(v));
        (of_set || is_wanted(facts, settings, e, &place)).then(|| described(facts, settings, e, place))
    };
    facts.expected.mounts.iter().filter_map(judge).collect()
}

/// The automounts that a run triggers before it makes its plan: those of disks that the plan is about. Which
/// other volumes would be in the set is not known yet, and what is mounted nowhere is quiet.
#[must_use]
pub fn to_mount<'a>(facts: &'a Facts, settings: &PlanSettings) -> Vec<&'a Expected> {
    if settings.automounts == Automounts::Name {
        return Vec::new();
    }
    let walk = Walk::new(facts);
    let wanted = |e: &&Expected| {
        let place = place(facts, &walk, e);
        let chosen = place.volumes.iter().any(|v| settings.volumes.contains(v));
        // A server may never answer, and is on no volume.
        e.idle.is_some()
            && !e.remote
            && !place.volumes.is_empty()
            && in_the_way(facts, &e.mount_point).is_none()
            && (chosen || is_wanted(facts, settings, e, &place))
    };
    facts.expected.mounts.iter().filter(wanted).collect()
}

/// Does something name this mount point, though nothing may be mounted there?
pub(super) fn is_expected(facts: &Facts, mount: &Path) -> bool {
    facts.expected.mounts.iter().any(|e| e.mount_point == mount)
}

/// An automount above this path, on which nothing is mounted: whoever follows the path sets it off.
fn in_the_way<'a>(facts: &'a Facts, path: &Path) -> Option<&'a Path> {
    let waiting = facts.filesystems.iter().filter(|f| f.fstype == "autofs").flat_map(|f| &f.mounts);
    let above = |at: &Path| path != at && path.starts_with(at);
    waiting.filter(|m| !m.hidden).map(|m| m.mount_point.as_path()).find(|at| above(at))
}

struct Place<'a> {
    device: Option<&'a BlockDevice>,
    volumes: BTreeSet<VolumeId>,
}

fn place<'a>(facts: &'a Facts, walk: &Walk<'a>, expected: &Expected) -> Place<'a> {
    let device = expected.device.and_then(|dev| facts.devices.iter().find(|d| d.dev == dev));
    let volumes = device.map(|d| walk.volumes_below(std::slice::from_ref(&d.name)));
    Place { device, volumes: volumes.unwrap_or_default() }
}

/// Is the plan about it, as far as the settings say?
fn is_wanted(facts: &Facts, settings: &PlanSettings, expected: &Expected, place: &Place<'_>) -> bool {
    if settings.exclude_mounts.contains(&expected.mount_point) {
        return false;
    }
    if settings.mounts.contains(&expected.mount_point) {
        return true;
    }
    let all = settings.mounts.is_empty() && settings.volumes.is_empty() && settings.volume_tags.is_empty();
    let barred = |v: &VolumeId| {
        let boot = settings.exclude_boot_volume && facts.volumes.iter().any(|f| f.boot && f.id == *v);
        boot || settings.exclude_volumes.contains(v)
    };
    match place.device {
        // It may be that of a volume which is not attached, or whose superblock cannot be read.
        None => all && !expected.remote,
        Some(_) => all && place.volumes.iter().any(|v| !barred(v)),
    }
}

fn described(facts: &Facts, settings: &PlanSettings, expected: &Expected, place: Place<'_>) -> MissingMount {
    let automount = expected.idle.is_some();
    let behind = in_the_way(facts, &expected.mount_point);
    let waits = automount && expected.failed.is_none() && behind.is_none();
    let behind =
        behind.map(|at| format!("it is below the automount at {}, on which nothing is mounted", shown(at)));
    let why = match (expected.failed.as_ref().or(behind.as_ref()), place.device) {
        (Some(why), _) => why.clone(),
        (None, _) if waits && settings.automounts == Automounts::Mount => {
            "an automount waits there; a run mounts it first".to_owned()
        }
        (None, _) if waits => "an automount waits there, and `automounts = \"name\"`".to_owned(),
        (None, None) => format!("nothing here is {}", expected.source),
        (None, Some(_)) => "it is not mounted".to_owned(),
    };
    MissingMount {
        mount_point: expected.mount_point.clone(),
        source: expected.source.clone(),
        named_by: expected.named_by.clone(),
        device: place.device.map(|d| d.name.clone()),
        volumes: place.volumes.into_iter().collect(),
        automount,
        why,
        counts: !waits && settings.missing_mounts == MissingMounts::Degrade,
    }
}
