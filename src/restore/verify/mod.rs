//! Verify: does the data keep what the label promises?
//!
//! ```text
//! arithmetic   members, states, start time, tags: no data is read            arithmetic.rs
//! probe        layers.rs → superblocks and journals of each filesystem       probe.rs
//!              partitions.rs, md.rs, lvm.rs, luks.rs     what lies below it; device.rs: which bytes those are
//!              ext4.rs, xfs.rs, btrfs.rs, vfat.rs        bytes → what they say
//!              reader.rs                                 bytes of a snapshot, without a volume
//! whole        every block that was written, against its checksum            whole.rs
//! mount        blocks as they are read, what is written in memory:        mounted/
//! restore      volumes, thrown away afterwards: mount, fsck                  restored.rs
//!              judge.rs       one filesystem on a device
//!              checks.rs      what the configuration lets look at it
//!              contained/     a command in namespaces of its own
//! ```
//!
//! A label above `crash` says that nothing has to be recovered: then a journal that is not clean is a fault. Under
//! `crash` it is not; then only what can be read is looked at.
//!
//! In: a set, its layout, the EBS direct APIs. Out: a [`Report`]. Must never: call sound what was not looked at.

mod arithmetic;
mod btrfs;
pub mod checks;
pub mod contained;
mod device;
mod ext4;
mod judge;
mod layers;
mod luks;
mod lvm;
mod lvm_text;
mod md;
pub mod mounted;
pub(in crate::restore) mod part;
mod partitions;
mod probe;
#[cfg(test)]
mod probe_tests;
mod reader;
pub mod restored;
mod stacked;
#[cfg(test)]
mod tests;
mod vfat;
mod whole;
#[cfg(test)]
mod whole_tests;
mod xfs;
mod xfs_items;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use arithmetic::arithmetic;
pub use probe::probe;
pub use whole::{AT_ONCE, Part, ReadCost, Reading, whole};

use crate::ids::{SnapshotId, VolumeId};
use crate::sets::set::Member;

/// What was found out about one part of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The filesystem, by its mount point; none of a finding about the set or a volume.
    #[serde(serialize_with = "crate::path_encoding::optional")]
    pub mount_point: Option<PathBuf>,
    /// Its type.
    pub fstype: Option<String>,
    /// The volume, where it is about one.
    pub volume_id: Option<VolumeId>,
    /// Its snapshot.
    pub snapshot_id: Option<SnapshotId>,
    /// The check, by its name, where it is what one has found.
    pub check: Option<String>,
    /// Where on the volume, in bytes, where it is about one place.
    pub offset: Option<u64>,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen, in words.
    pub what: String,
}

impl Finding {
    /// One about a snapshot as a whole.
    fn of_member(member: &Member, verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            mount_point: None,
            fstype: None,
            volume_id: Some(member.volume_id.clone()),
            snapshot_id: Some(member.id.clone()),
            check: None,
            offset: None,
            verdict,
            what: what.into(),
        }
    }

    /// What a check has found.
    fn of_check(name: &str, verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            mount_point: None,
            fstype: None,
            volume_id: None,
            snapshot_id: None,
            check: Some(name.to_owned()),
            offset: None,
            verdict,
            what: what.into(),
        }
    }
}

/// A verdict about one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as the label says.
    Sound,
    /// It could not be looked at, so nothing is known of it.
    NotLooked,
    /// It is not as the label says.
    Fault,
}

/// What was found out about a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every finding, in the order in which it was looked.
    pub findings: Vec<Finding>,
    /// Blocks of 512 KiB that were read.
    pub blocks_read: u64,
}

impl Report {
    /// The worst verdict: a set is sound only where all of it is.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::NotLooked)
    }

    /// What another level has found out, too.
    pub fn add(&mut self, more: Report) {
        self.findings.extend(more.findings);
        self.blocks_read += more.blocks_read;
    }

    /// How many checks there are, and how many of them ended well.
    #[must_use]
    pub fn checks(&self) -> (usize, usize) {
        let all = || self.findings.iter().filter(|f| f.check.is_some());
        (all().count(), all().filter(|f| f.verdict == Verdict::Sound).count())
    }

    /// How many filesystems there are, and how many of them are sound.
    #[must_use]
    pub fn filesystems(&self) -> (usize, usize) {
        let all = || self.findings.iter().filter(|f| f.mount_point.is_some());
        (all().count(), all().filter(|f| f.verdict == Verdict::Sound).count())
    }
}

/// What a filesystem's own data says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing has to be recovered.
    Clean,
    /// The same, with a word on why.
    Sound(String),
    /// A mount would recover this.
    Dirty(String),
    /// Its data contradicts itself: a checksum, a range.
    Damaged(String),
    /// It is sound as far as it was looked at, and this was not.
    Unknown(String),
}

impl State {
    /// The worst is the heaviest.
    fn weight(&self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Sound(_) => 1,
            Self::Unknown(_) => 2,
            Self::Dirty(_) => 3,
            Self::Damaged(_) => 4,
        }
    }
}

/// A filesystem as it lies on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    uuid: String,
    state: State,
}
