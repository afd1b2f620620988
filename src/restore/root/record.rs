//! What a host remembers of a root that is replaced: STATE_DIR/restores/root/ID.json, from before EC2 is asked.
//!
//! In: a plan. Out: a file for root alone. Must never: be needed to say how a task ended: its tags say what it is of,
//! since the file may be on the root that goes.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RootPlan;
use crate::host::file::{self, Lasts};
use crate::ids::{RootTaskId, RunId};

/// Version of the file.
const VERSION: u32 = 1;
/// No plan of 128 volumes is as long.
const MOST: u64 = 1 << 20;

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
        let path = path(state_dir, &self.plan.id);
        if let Some(folder) = path.parent() {
            file::make_folder(folder, 0o700)?;
        }
        file::replace(&path, &serde_json::to_vec(self).map_err(Error::other)?, 0o600, Lasts::OnDisk)
    }
}

fn path(state_dir: &Path, id: &RunId) -> PathBuf {
    state_dir.join("restores/root").join(format!("{id}.json"))
}

/// Reads what is known of it; none where this host knows nothing of it.
///
/// # Errors
/// When it cannot be read.
pub fn read(state_dir: &Path, id: &RunId) -> std::io::Result<Option<RootRecord>> {
    let path = path(state_dir, id);
    let text = match std::fs::metadata(&path) {
        Ok(m) if m.len() > MOST => return Err(Error::new(ErrorKind::InvalidData, "it is too long")),
        Ok(_) => std::fs::read(&path)?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let record: RootRecord = serde_json::from_slice(&text)?;
    if record.version != VERSION {
        return Err(Error::new(ErrorKind::InvalidData, format!("it has version {}", record.version)));
    }
    Ok(Some(record))
}

/// Forgets it.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(state_dir: &Path, id: &RunId) -> std::io::Result<()> {
    match std::fs::remove_file(path(state_dir, id)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
