//! Facts + settings → [`Plan`]: pure, and the same value is printed by `plan` and carried out by `snapshot`.
//!
//! In: [`Facts`](crate::discover::Facts) and [`PlanSettings`](crate::config::settings::PlanSettings). Out:
//! what freezes in which wave, which volumes go into the set, which call is made, and the reason for every
//! inclusion and exclusion. Must never: read a file, a clock or the network, or leave out any filesystem or
//! volume of the host without a reason.

mod classify;
mod error;
mod in_use;
mod make;
mod missing;
mod names;
mod placement;
mod select;
mod stack;
mod unread;
mod watch;

use std::path::PathBuf;

use serde::Serialize;

pub use crate::consistency::{Consistency, Method};
pub use error::PlanError;
pub use make::plan;
pub use missing::{MissingMount, to_mount};
use placement::NEEDS_ROOT;

use crate::discover::Facts;
use crate::ids::{DevNo, VolumeId};
use crate::path_encoding::{self, shown};

/// CreateSnapshots takes at most this many volumes, root included (EBS guide, "create multi-volume
/// snapshots").
pub(crate) const MAX_SET: usize = 128;
/// CreateSnapshots takes at most this many excluded data volumes (EC2 API reference, InstanceSpecification).
pub(crate) const MAX_EXCLUSIONS: usize = 40;

/// What a run will do, decided before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The plan's name (`default` without configuration).
    pub name: String,
    /// Filesystems that are frozen, unmounted or synced, in the order of their waves.
    pub filesystems: Vec<PlannedFilesystem>,
    /// Volumes of the set, boot volume first, then by device name.
    pub volumes: Vec<PlannedVolume>,
    /// Block devices on volumes of the set that hold no frozen filesystem and are not swap: claimed over the
    /// window, so that nobody uses them, and watched.
    pub witnesses: Vec<WitnessDevice>,
    /// Devices on volumes of the set that have others above them (the disk of partitions, a volume of LVM's
    /// group): written to through those, and by nobody else.
    #[serde(skip)]
    pub beneath: Vec<WitnessDevice>,
    /// What stays out, and why: filesystems and volumes.
    pub left_out: Vec<LeftOut>,
    /// What should be mounted on its volumes and is not.
    pub missing: Vec<MissingMount>,
    /// The call that fixes the point in time.
    pub call: PointInTimeCall,
    /// Whether RCU grace periods are expedited while filesystems are being frozen.
    pub expedite: Expediting,
    /// What a person should know before a run (partial sets, loop images, several calls).
    pub notes: Vec<String>,
    /// The highest consistency that this plan can reach.
    pub best: Consistency,
}

impl Plan {
    /// Takes over the UUIDs that were read for this plan's filesystems; only root may read those of
    /// `needing_root`.
    pub fn note_uuids(&mut self, facts: &Facts, needing_root: &[DevNo]) {
        let unread = self.filesystems.iter().filter(|f| needing_root.contains(&f.dev));
        let unread: Vec<_> = unread.map(|f| shown(&f.mount_point)).collect();
        if !unread.is_empty() {
            self.needs_root(&format!("the UUIDs of {}", unread.join(", ")));
        }
        for planned in &mut self.filesystems {
            let found = facts.filesystems.iter().find(|f| f.dev == planned.dev);
            planned.uuid = found.and_then(|f| f.uuid.clone());
        }
    }

    /// Is there something that should be mounted, so that a set is less than what was asked for?
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.missing.iter().any(|m| m.counts)
    }

    /// What makes a set less than what was asked for, in words.
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        self.missing.iter().filter(|m| m.counts).map(ToString::to_string).collect()
    }

    /// Notes what an ordinary user was not shown.
    pub fn needs_root(&mut self, what: &str) {
        self.notes.push(format!("{NEEDS_ROOT}: {what}."));
    }
}

/// Is `rcu_expedited` raised while filesystems are being frozen?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Expediting {
    /// A run raises it.
    pub raise: bool,
    /// Why, or why not.
    pub why: String,
}

/// A filesystem that is frozen, unmounted or synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedFilesystem {
    /// mountinfo's `major:minor` of the superblock.
    pub dev: DevNo,
    /// The mount point it is reached by.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// Every mount point of it that its path reaches (mounts that another one covers are not listed).
    #[serde(serialize_with = "path_encoding::paths")]
    pub mount_points: Vec<PathBuf>,
    /// The folder of the filesystem that is mounted at each of them: `/`, a subvolume, or what is bound.
    #[serde(serialize_with = "path_encoding::paths")]
    pub roots: Vec<PathBuf>,
    /// As mountinfo names it.
    pub fstype: String,
    /// UUID of the filesystem, for the restore; none when its superblock could not be read.
    pub uuid: Option<String>,
    /// Mount options of the first mount, for the restore.
    pub options: String,
    /// From the setting `methods`, else what the filesystem can do.
    pub method: Method,
    /// The wave in which it is frozen.
    pub wave: Wave,
    /// The stack from the filesystem down, such as `dm-0 (lvm vg0-data) → nvme1n1 + nvme2n1`.
    pub stack: String,
    /// Block devices it sits on directly, whose write counters witness the freeze.
    pub witnesses: Vec<WitnessDevice>,
    /// The volumes that it is on; all of them are in the set.
    pub volumes: Vec<VolumeId>,
    /// Why it is in the set, for people: the setting, or the volume that it shares.
    pub reason: String,
}

/// A block device whose write counter is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WitnessDevice {
    /// Kernel name, such as `dm-0`.
    pub name: String,
    /// Its number.
    pub dev: DevNo,
    /// Its `stat` file.
    #[serde(serialize_with = "path_encoding::path")]
    pub stat: PathBuf,
}

/// When a filesystem is frozen. Lower waves first; thawing is all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wave {
    /// Stacked on a file of another filesystem of the set (loop images): frozen before what holds it, deepest
    /// first.
    Inner(
        /// How deep it is stacked: the number of loop devices below it. Deeper freezes earlier.
        std::cmp::Reverse<u32>,
    ),
    /// Every other filesystem.
    Data,
    /// `/`, `/usr`, `/var` and such: last, because the run itself lives there.
    System,
}

/// A volume of the set, as DescribeVolumes shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedVolume {
    /// Such as `vol-0123456789abcdef0`.
    pub id: VolumeId,
    /// The device name of the attachment, such as `/dev/sdf`.
    pub device_name: String,
    /// Kernel name of the disk, such as `nvme1n1`; none when no disk of this host has the volume's id.
    pub disk: Option<String>,
    /// True for the instance's root device.
    pub boot: bool,
    /// Size in GiB.
    pub size_gib: i32,
    /// Such as `gp3`.
    pub volume_type: String,
    /// Provisioned IOPS; none where the type has none.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s.
    pub throughput: Option<i32>,
    /// True when EBS encrypts it; its snapshots are encrypted then.
    pub encrypted: bool,
    /// Mount points of the filesystems on it that are made quiet.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mount_points: Vec<PathBuf>,
    /// The highest consistency this volume's part can reach.
    pub best: Consistency,
    /// Why it is in the set, for people.
    pub reason: String,
    /// Why its part can only be crash-consistent; none when it can be more.
    pub limited_by: Option<String>,
}

/// A filesystem or volume that stays out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// A mount point, or a volume with its device name.
    pub what: String,
    /// Filesystem type or `volume`.
    pub kind: String,
    /// Why it stays out, for people: the setting, or what it is on.
    pub reason: String,
}

/// How the point in time is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action")]
pub enum PointInTimeCall {
    /// One CreateSnapshots over the instance, by exclusion.
    CreateSnapshots {
        /// EC2's parameter `ExcludeBootVolume`.
        exclude_boot_volume: bool,
        /// EC2's parameter `ExcludeDataVolumeIds`; at most [`MAX_EXCLUSIONS`].
        exclude_data_volumes: Vec<VolumeId>,
    },
    /// One CreateSnapshot: the set has one volume.
    CreateSnapshot {
        /// The only volume of the set.
        volume: VolumeId,
    },
    /// One CreateSnapshot a volume, all in flight at once in one window: the exclusions are too many for
    /// CreateSnapshots.
    CreateSnapshotEach {
        /// Every volume of the set, in the order of the plan.
        volumes: Vec<VolumeId>,
    },
}

impl PointInTimeCall {
    /// One request, with one list of tags for all snapshots of the set.
    #[must_use]
    pub(crate) fn is_one_for_all(&self) -> bool {
        matches!(self, Self::CreateSnapshots { .. })
    }
}
