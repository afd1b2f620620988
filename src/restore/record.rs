//! What a host remembers of a restore: STATE_DIR/restores/ID.json, from before anything is made until it is undone.
//!
//! In: a plan and how far it is. Out: a file that survives a reboot, for root alone. Must never: be needed to take a
//! restore back: the tags of its volumes and the kernel say what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::in_place::Moving;
use super::kept::{Kept, known};
use super::plan::RestorePlan;
use super::stack::Noted;
use crate::ids::{RunId, VolumeId};

/// Version of the file.
const VERSION: u32 = 1;
/// Of a restore in place, or of clones: a build that does not know of these would take one for a restore beside, the old
/// volumes for nobody's, and the clones for volumes that it may delete.
const IN_PLACE_VERSION: u32 = 2;
/// No restore of 128 volumes is as long.
const KEPT: Kept = Kept { folder: "restores", most: 4 << 20 };

/// A restore, as its host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// What was decided.
    pub plan: RestorePlan,
    /// When, by this host's clock.
    pub began: Timestamp,
    /// Folders that are made for it where they are missing, outermost first.
    #[serde(default)]
    pub folders: Vec<Folder>,
    /// The volumes that were made, by their numbers in the plan: known as soon as EC2 has answered.
    #[serde(default)]
    pub made: BTreeMap<usize, VolumeId>,
    /// The partition that each filesystem of the plan was found on; none for the whole disk. Noted before its UUID is
    /// changed, by which it could not be found again.
    #[serde(default)]
    pub on: BTreeMap<usize, Option<u32>>,
    /// The target folder is its own: what is in it was made by it.
    #[serde(default)]
    pub at_target: bool,
    /// All of it is done.
    pub done: bool,
    /// Of a restore in place: how far the exchange is.
    #[serde(default)]
    pub moving: Moving,
    /// What was put together on the volumes.
    #[serde(default)]
    pub stack: Noted,
    /// It is a verify's: the next one takes it back, without being asked.
    #[serde(default)]
    pub verify: bool,
}

/// A folder that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder(#[serde(with = "crate::path_encoding::bytes")] pub PathBuf);

impl Record {
    /// Of a restore that begins.
    #[must_use]
    pub fn of(plan: RestorePlan) -> Self {
        Self {
            version: match plan.in_place.is_some() || !plan.clones.is_empty() {
                true => IN_PLACE_VERSION,
                false => VERSION,
            },
            made: plan.clones.iter().cloned().enumerate().collect(),
            plan,
            began: Timestamp::now(),
            folders: Vec::new(),
            on: BTreeMap::new(),
            at_target: false,
            done: false,
            moving: Moving::default(),
            stack: Noted::default(),
            verify: false,
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        KEPT.write(state_dir, &self.plan.id, self)
    }
}

/// Reads what is known of a restore; none where this host knows nothing of it.
///
/// # Errors
/// When it cannot be read.
pub fn read(state_dir: &Path, id: &RunId) -> std::io::Result<Option<Record>> {
    let Some(record) = KEPT.read::<Record>(state_dir, id)? else { return Ok(None) };
    known(record.version, &[VERSION, IN_PLACE_VERSION])?;
    Ok(Some(record))
}

/// The restores that this host knows of, in the order in which they began.
///
/// # Errors
/// When the folder cannot be read.
pub fn all(state_dir: &Path) -> std::io::Result<Vec<RunId>> {
    KEPT.all(state_dir)
}

/// Forgets it.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(state_dir: &Path, id: &RunId) -> std::io::Result<()> {
    // Of one that was killed in it: nothing is mounted there any more.
    let _ = std::fs::remove_dir(super::grow::folder(state_dir, id));
    KEPT.forget(state_dir, id)
}
