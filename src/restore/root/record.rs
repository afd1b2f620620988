//! What a host remembers of a root that is replaced: STATE_DIR/restores/root/ID.json, from before EC2 is asked.
//!
//! In: a plan. Out: a file for root alone. Must never: be needed to say how a task ended: its tags say what it is of,
//! since the file may be on the root that goes.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::kept::{Kept, known};
use super::RootPlan;
use crate::ids::{RootTaskId, RunId};

/// Version of the file.
const VERSION: u32 = 1;
/// No plan of 128 volumes is as long.
const KEPT: Kept = Kept { folder: "restores/root", most: 1 << 20 };

/// It, as this host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    version: u32,
    /// What was decided.
    pub plan: RootPlan,
    /// When, by this host's clock.
    pub began: Timestamp,
    /// The task, once EC2 has answered.
    pub task: Option<RootTaskId>,
}

impl RootRecord {
    /// Of one that begins now.
    #[must_use]
    pub fn of(plan: RootPlan, now: Timestamp) -> Self {
        Self { version: VERSION, plan, began: now, task: None }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        KEPT.write(state_dir, &self.plan.id, self)
    }
}

/// Reads what is known of it; none where this host knows nothing of it.
///
/// # Errors
/// When it cannot be read.
pub fn read(state_dir: &Path, id: &RunId) -> std::io::Result<Option<RootRecord>> {
    let Some(record) = KEPT.read::<RootRecord>(state_dir, id)? else { return Ok(None) };
    known(record.version, &[VERSION])?;
    Ok(Some(record))
}

/// Forgets it.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(state_dir: &Path, id: &RunId) -> std::io::Result<()> {
    KEPT.forget(state_dir, id)
}
