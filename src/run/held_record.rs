//! The record of a freeze for somebody else's snapshots: what `freeze` and `thaw` print, and what the journal
//! keeps of it.
//!
//! In: a plan, then what the window saw. Out: stable, documented JSON. Must never: say without proof that a
//! freeze held.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::exit::Exit;
use crate::ids::{RunId, VolumeId};
use crate::path_encoding;
use crate::plan::{Consistency, Method, PlannedFilesystem};
use crate::quiesce::HookOutcome;
use crate::window::Times;

/// Version of the JSON below; raised when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;

/// What `freeze` and `thaw` print.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFreezeRecord {
    /// Version of this JSON: [`VERSION`].
    pub version: u32,
    pub run_id: RunId,
    pub plan: String,
    /// The process that holds the freeze.
    pub pid: i32,
    /// The filesystems that are frozen or proven quiet, and how.
    pub filesystems: Vec<HeldFilesystem>,
    /// The volumes below them.
    pub volumes: Vec<VolumeId>,
    /// When everything is thawed at the latest.
    pub(crate) until: Option<Timestamp>,
    /// A snapshot's point in time has to lie between `frozen` and `responded`. `responded` is when the thaw
    /// was asked for, before the first FITHAW; `thawed` is after the last FITHAW, when some filesystems have
    /// been writable for a while.
    pub times: Times,
    /// Did the freeze hold, on every filesystem, from `frozen` until it was thawed on request? None while it
    /// lasts.
    pub held: Option<bool>,
    /// The consistency that was requested.
    pub(crate) requested: Consistency,
    /// The label of a set whose point in time lies in between; none while that is not known.
    pub achieved: Option<Consistency>,
    /// Why it did not hold, or why it is less than requested.
    pub reason: Option<String>,
    /// What the user can do about that.
    pub hint: Option<String>,
    /// From before the first FIFREEZE to after the last FITHAW, in milliseconds.
    pub(crate) frozen_ms: f64,
    /// Devices whose write counter could not have shown a write meanwhile, each with why.
    #[serde(default)]
    pub(crate) unwitnessed: Vec<String>,
    /// Mount points that may still be frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub still_frozen: Vec<PathBuf>,
    /// What should be mounted and is not, and made the exit code 22 or 10.
    #[serde(default)]
    pub(crate) missing: Vec<String>,
    /// Every command of a hook that ran, in order.
    pub hooks: Vec<HookOutcome>,
    /// Post hooks that failed.
    pub after: Vec<String>,
    /// The exit code: of `freeze` while the freeze lasts or when there was none, else of `thaw`.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFilesystem {
    pub mount_point: PathBuf,
    pub fstype: String,
    pub method: Method,
}

impl HeldFreezeRecord {
    /// The record before anything is touched.
    #[must_use]
    pub fn begun(job: &Job<'_>) -> Self {
        let filesystem = |f: &PlannedFilesystem| HeldFilesystem {
            mount_point: f.mount_point.clone(),
            fstype: f.fstype.clone(),
            method: f.method,
        };
        Self {
            version: VERSION,
            run_id: job.run.clone(),
            plan: job.plan.name.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            filesystems: job.plan.filesystems.iter().map(filesystem).collect(),
            volumes: job.plan.volumes.iter().map(|v| v.id.clone()).collect(),
            until: None,
            times: Times::default(),
            held: None,
            requested: job.requested,
            achieved: None,
            reason: None,
            hint: None,
            frozen_ms: 0.0,
            unwitnessed: Vec::new(),
            still_frozen: Vec::new(),
            missing: job.plan.lacks(),
            hooks: Vec::new(),
            after: Vec::new(),
            exit: Exit::Ok,
        }
    }

    /// Completes the record of a freeze whose process died, where that process has not done it.
    #[must_use]
    pub fn died(mut self) -> Self {
        if self.held.is_none() {
            self.held = Some(false);
            self.achieved = Some(Consistency::Crash);
            self.reason = Some("the process that held the freeze died".to_owned());
            self.exit = Exit::NotHeld;
        }
        self
    }

    /// Is everything frozen, as far as this record says?
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.times.frozen.is_some() && self.held.is_none()
    }

    /// The exit code of a `thaw` that receives this record.
    #[must_use]
    pub(crate) fn thaw_exit(&self) -> Exit {
        match self.exit {
            // A freeze that never came about did not hold either.
            Exit::Ok | Exit::Lower | Exit::After if self.held != Some(true) => Exit::NotHeld,
            Exit::Ok | Exit::Lower | Exit::After | Exit::StillFrozen => self.exit,
            _ => Exit::NotHeld,
        }
    }
}
