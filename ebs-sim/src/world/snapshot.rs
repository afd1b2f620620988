//! A snapshot: where its data is, how far it has come, and what was done to it since.
//!
//! In: what a call made. Out: its state at some moment. It must never read the clock: `now` comes in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{SnapshotId, VolumeId};
use crate::window::Window;
use crate::world::{Lock, Tags, Tiering};

/// The volume that EC2 names for every copy.
pub const NO_VOLUME: &str = "vol-ffffffff";

/// Where a snapshot's data is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The clone, which all snapshots of a set share, and their copies.
    pub path: PathBuf,
    pub window: Window,
}

/// How much a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sizes {
    /// It is being found out; so long the snapshot is not completed.
    Measuring,
    /// In whole blocks of EBS.
    Known {
        /// What it holds in full.
        full: u64,
        /// What differs from the snapshot before it.
        changed: u64,
    },
    /// It could not be found out, or nobody tried.
    #[default]
    Unknown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    /// The account that it belongs to.
    pub owner: String,
    pub region: String,
    pub volume_id: VolumeId,
    pub size_gib: u64,
    /// The bytes that it would hold in full.
    pub size_bytes: u64,
    pub description: String,
    /// The start time; equal for all of one set.
    pub started: Timestamp,
    /// How long it is pending.
    pub takes: Duration,
    /// Whether it ends in `error`.
    pub fails: bool,
    /// Whether it shows nothing of its source until it is completed: a copy.
    pub is_copy: bool,
    /// When DescribeSnapshots knows of it at the earliest.
    pub visible_from: Option<Timestamp>,
    /// As the volume.
    pub encrypted: bool,
    /// Its key's ARN, when it is encrypted.
    pub kms_key_id: Option<String>,
    /// Why it ends in `error`, when that is known.
    pub reason: Option<String>,
    /// Its data; none when a fault made its volume up.
    pub image: Option<Image>,
    /// Of a copy: the volume that its source, or that one's, was made of.
    pub lineage: Option<VolumeId>,
    /// Its owner's tags. Nobody else sees them.
    pub tags: Tags,
    /// What was done to it since.
    pub later: Later,
    /// How much it holds.
    pub sizes: Sizes,
}

/// What is done to a snapshot after it was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Later {
    /// Within how many minutes a copy was to be done.
    pub completion_minutes: Option<u32>,
    /// Its lock, which may have expired.
    pub lock: Option<Lock>,
    /// Who else may make volumes of it.
    pub shared: Sharing,
    /// Its last archival or restore.
    pub tiering: Option<Tiering>,
    /// Its last stay in the Recycle Bin, which it may have left.
    pub binned: Option<Binned>,
    /// That it is deleted, and how long Describe calls do not know it yet.
    pub listed_until: Option<Timestamp>,
    /// The tags that Describe calls still show, and how long.
    pub old_tags: Option<(Tags, Timestamp)>,
}

/// A stay in the Recycle Bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binned {
    /// When it was deleted.
    pub entered: Timestamp,
    /// When it goes for good.
    pub until: Timestamp,
    /// When it was restored, and when it could be used again.
    pub restored: Option<(Timestamp, Timestamp)>,
}

/// Who besides the owner may use a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// These accounts.
    pub users: BTreeSet<String>,
    /// Everybody.
    pub public: bool,
}

/// A snapshot's state and progress at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `pending`, `completed`, `error`, or what the Recycle Bin makes of it.
    pub state: &'static str,
    /// `42%`
    pub percent: String,
}

impl Snapshot {
    /// How far it is.
    pub fn progress(&self, now: Timestamp) -> Progress {
        Progress { state: self.state(now), percent: self.percent(now) }
    }

    fn done(&self, now: Timestamp) -> f64 {
        let elapsed = now.duration_since(self.started);
        let elapsed = Duration::try_from(elapsed).unwrap_or_default();
        if self.takes.is_zero() { 1.0 } else { (elapsed.as_secs_f64() / self.takes.as_secs_f64()).min(1.0) }
    }

    /// Its state.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self.later.binned.map(|binned| binned.restored) {
            Some(None) => return "recoverable",
            Some(Some((_, usable))) if now < usable => return "recovering",
            _ => {}
        }
        if self.done(now) < 1.0 || self.sizes == Sizes::Measuring {
            "pending"
        } else if self.fails {
            "error"
        } else {
            "completed"
        }
    }

    /// How much of it is done, as EC2 writes it.
    fn percent(&self, now: Timestamp) -> String {
        match self.state(now) {
            "pending" => format!("{}%", (self.done(now) * 100.0).floor().min(99.0)),
            "error" => "0%".into(),
            _ => "100%".into(),
        }
    }

    /// The volume whose snapshots share its blocks.
    pub fn lineage(&self) -> &VolumeId {
        self.lineage.as_ref().unwrap_or(&self.volume_id)
    }

    /// Its size as EC2 reports it: none of a copy that is not completed.
    pub fn shown_gib(&self, now: Timestamp) -> u64 {
        if self.is_unfinished_copy(now) { 0 } else { self.size_gib }
    }

    /// Whether EC2 reports it as encrypted: never a copy that is not completed.
    pub fn shown_encrypted(&self, now: Timestamp) -> bool {
        self.encrypted && !self.is_unfinished_copy(now)
    }

    /// Whether it is a copy that has not got, or will never get, what its source has.
    pub fn is_unfinished_copy(&self, now: Timestamp) -> bool {
        self.is_copy && matches!(self.state(now), "pending" | "error")
    }

    /// Its tags as Describe calls show them.
    pub fn shown_tags(&self, now: Timestamp) -> &Tags {
        match &self.later.old_tags {
            Some((old, until)) if now < *until => old,
            _ => &self.tags,
        }
    }

    /// Its lock, whose duration begins no earlier than the snapshot is completed. A creation that fails cancels it.
    pub fn lock(&self, now: Timestamp) -> Option<Lock> {
        let lock = self.later.lock.filter(|_| self.state(now) != "error");
        lock.map(|lock| Lock { completed: self.completion(), ..lock })
    }

    /// Whether it is in the archive, where its data cannot be used.
    pub fn is_archived(&self, now: Timestamp) -> bool {
        self.later.tiering.as_ref().is_some_and(|tiering| tiering.is_archived(now))
    }

    /// Who else may make volumes of it at this moment: an archived snapshot is not shared.
    pub fn shared(&self, now: Timestamp) -> Option<&Sharing> {
        (!self.is_archived(now)).then_some(&self.later.shared)
    }

    /// When it was or will be completed.
    pub fn completion(&self) -> Timestamp {
        self.started.checked_add(self.takes).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn snapshot(takes: u64, fails: bool) -> Snapshot {
        Snapshot {
            id: SnapshotId::random(),
            owner: "123456789012".into(),
            region: "us-east-1".into(),
            volume_id: VolumeId::random(),
            size_gib: 1,
            size_bytes: 1 << 30,
            description: String::new(),
            started: Timestamp::from_second(1000).expect("in range"),
            takes: Duration::from_secs(takes),
            fails,
            is_copy: false,
            visible_from: None,
            encrypted: false,
            kms_key_id: None,
            reason: None,
            image: None,
            lineage: None,
            tags: Tags::new(),
            later: Later::default(),
            sizes: Sizes::Unknown,
        }
    }

    #[test]
    fn what_is_not_measured_is_not_completed() {
        let mut snapshot = snapshot(0, false);
        snapshot.sizes = Sizes::Measuring;
        let progress = snapshot.progress(snapshot.started);
        assert_eq!((progress.state, progress.percent.as_str()), ("pending", "99%"));
    }

    #[test]
    fn progress_goes_from_pending_to_its_end() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let shown = |s: &Snapshot, t| {
            let progress = s.progress(at(t));
            format!("{} {}", progress.state, progress.percent)
        };
        let good = snapshot(10, false);
        assert_eq!(shown(&good, 999), "pending 0%");
        assert_eq!(shown(&good, 1000), "pending 0%");
        assert_eq!(shown(&good, 1004), "pending 40%");
        assert_eq!(shown(&good, 1010), "completed 100%");
        assert_eq!(shown(&snapshot(10, true), 1010), "error 0%");
        assert_eq!(shown(&snapshot(0, false), 1000), "completed 100%");
    }
}
