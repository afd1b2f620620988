//! The record of a run that clones: what `clone --output json` prints, and what is kept.
//!
//! In: the run's results. Out: stable, documented JSON: that of a set, with clones in place of snapshots. Must never:
//! call several clones one instant that nothing proves to be one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::ser::{Error as _, Serializer};
use serde_json::Value;

use super::record::{self, SetRecord};
use crate::ids::VolumeId;
use crate::path_encoding;
use crate::plan::Consistency;

/// The record of one run that was to clone the volumes of a plan.
#[derive(Debug, Clone)]
pub struct CloneRecord {
    /// What is the same as of a run that takes snapshots; it has none.
    pub set: SetRecord,
    /// The clones, the boot volume's first.
    pub clones: Vec<ClonedVolume>,
    /// Are all clones of one instant? EC2 has a request for each, so this takes proof that nothing was written from
    /// before the first until after the last answer.
    pub one_instant: bool,
}

/// One clone, with its own label.
#[derive(Debug, Clone, Serialize)]
pub struct ClonedVolume {
    /// The new volume.
    pub id: VolumeId,
    /// The volume that it is a copy of.
    pub volume_id: VolumeId,
    /// The device name of that one's attachment, for volumes of the plan.
    pub device_name: Option<String>,
    /// Mount points on it that were frozen, unmounted or proven quiet.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mount_points: Vec<PathBuf>,
    /// As EC2 said it last; `deleted` where the run has deleted it, `not-deleted` where it could not.
    pub state: String,
    /// Size in GiB; this and what follows as EC2 was asked for it.
    pub size_gib: Option<i32>,
    /// Such as `gp3`.
    pub volume_type: Option<String>,
    /// Provisioned IOPS; none for what the type has.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s; none for what the type has.
    pub throughput: Option<i32>,
    /// The label of this clone alone.
    pub achieved: Consistency,
}

impl ClonedVolume {
    /// The state of a clone that was to be deleted, and could not be.
    pub const NOT_DELETED: &'static str = "not-deleted";

    /// Is it there still?
    #[must_use]
    pub fn stays(&self) -> bool {
        self.state != "deleted"
    }
}

impl CloneRecord {
    /// The record of these clones.
    #[must_use]
    pub fn new(set: SetRecord, clones: Vec<ClonedVolume>) -> Self {
        let proven = set.achieved.is_some_and(|label| label > Consistency::Crash);
        let one_instant = clones.len() == 1 || (proven && !clones.is_empty());
        Self { set, clones, one_instant }
    }
}

impl Serialize for CloneRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serde_json::to_value(&self.set).map_err(S::Error::custom)?;
        if let Value::Object(fields) = &mut document {
            fields.remove("snapshots");
            let clones = serde_json::to_value(&self.clones).map_err(S::Error::custom)?;
            fields.insert("clones".to_owned(), clones);
            fields.insert("one_instant".to_owned(), self.one_instant.into());
        }
        document.serialize(serializer)
    }
}

/// Keeps the record as `DIR/clones/RUN.json`, readable by root only.
///
/// # Errors
/// When it cannot be written. The clones and their tags stay as they are.
pub fn keep(state_dir: &Path, record: &CloneRecord) -> std::io::Result<PathBuf> {
    record::keep_as(state_dir, "clones", &record.set.run_id, record)
}
