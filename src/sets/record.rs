//! The record of one run: what `--output json` prints and what is kept under /var/lib/stillpoint.
//!
//! In: the run's results. Out: stable, documented JSON. Must never: leave out what a failed run has found
//! out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::group::GroupRecord;
use crate::discover::Identity;
use crate::exit::Exit;
use crate::host::file::{self, Lasts};
use crate::host::trust::{self, Trusted};
use crate::ids::{RunId, SnapshotId, VolumeId};
use crate::path_encoding;
use crate::plan::{Consistency, Plan};
use crate::quiesce::HookOutcome;
use crate::window::Times;

/// Version of the JSON below; raised when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;

/// The record of one run that was to take a set.
#[derive(Debug, Clone, Serialize)]
pub struct SetRecord {
    /// Version of this JSON: [`VERSION`].
    pub version: u32,
    /// The id of the run, and of the set that it took.
    pub run_id: RunId,
    /// The instance that took it.
    pub identity: Identity,
    pub(crate) hostname: String,
    /// The consistency that was requested.
    pub(crate) requested: Consistency,
    /// The consistency that was achieved; none when nothing was taken.
    pub achieved: Option<Consistency>,
    /// Why it is less than requested, or why nothing was taken.
    pub reason: Option<String>,
    /// The snapshots, boot volume first.
    pub snapshots: Vec<SnapshotRecord>,
    /// When the window started, was frozen, sent its request, had its response and was thawed.
    pub times: Times,
    /// Length of the frozen window in milliseconds: before the first FIFREEZE to after the last FITHAW.
    pub(crate) window_ms: f64,
    /// Length of the one call in milliseconds.
    pub(crate) call_ms: Option<f64>,
    /// The longest that one filesystem was frozen, in milliseconds: from the begin of its FIFREEZE to the return of
    /// its FITHAW. None where none was.
    pub(crate) stall_ms: Option<f64>,
    /// Mount points that may still be frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub still_frozen: Vec<PathBuf>,
    /// Mount points that were unmounted and could not be mounted again.
    #[serde(serialize_with = "path_encoding::paths")]
    pub(crate) not_mounted: Vec<PathBuf>,
    /// Devices whose write counter could not have shown a write in the window, each with why. It is no
    /// independent witness then; what is on them has another proof.
    pub(crate) unwitnessed: Vec<String>,
    /// What the watchdog shared with this process, so that both could have ended at once; empty where it
    /// stood alone.
    pub(crate) watchdog_shares: Vec<String>,
    /// The applications that the plan quiesces, each with its own label.
    pub(crate) applications: Vec<ApplicationRecord>,
    /// The hooks that ran, and the stops and starts of units for an unmount.
    pub hooks: Vec<HookOutcome>,
    /// What failed after the set was taken.
    pub after: Vec<String>,
    /// The group whose point in time was asked for; none where this host is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRecord>,
    /// The plan that was carried out.
    pub plan: Plan,
    /// The exit code of the run, as a number in the JSON.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
}

/// One snapshot of the set, with its own label.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotRecord {
    /// Such as `snap-0123456789abcdef0`.
    pub id: SnapshotId,
    pub(crate) volume_id: VolumeId,
    /// The attachment's device name, for volumes of the plan.
    pub device_name: Option<String>,
    /// Mount points on it that were frozen, unmounted or proven quiet.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mount_points: Vec<PathBuf>,
    /// The state that EC2's answer gave, usually `pending`.
    pub state: String,
    /// The label of this snapshot alone; the set has the lowest label of its parts.
    pub achieved: Consistency,
}

/// The outcome of one application: a hook of the plan, or an executable of a hook directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplicationRecord {
    /// The hook's name, as in the configuration.
    pub name: String,
    /// Its section: `hook`, `session`, `postgresql`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The label of the set for this application; none when nothing was taken.
    pub achieved: Option<Consistency>,
    /// Why it is not `application`; none when it is.
    pub reason: Option<String>,
    /// What the application reported about the point in time: positions, identities.
    pub facts: BTreeMap<String, String>,
}

/// Keeps the record as `DIR/sets/RUN.json`, readable by root only.
///
/// # Errors
/// When it cannot be written, or somebody else than root could lead it elsewhere. The snapshots and their
/// tags stay as they are.
pub fn keep(state_dir: &Path, record: &SetRecord) -> std::io::Result<PathBuf> {
    keep_as(state_dir, "sets", &record.run_id, record)
}

/// Keeps a record as `DIR/FOLDER/RUN.json`, readable by root only.
///
/// # Errors
/// When it cannot be written, or somebody else than root could lead it elsewhere.
pub(super) fn keep_as(
    state_dir: &Path,
    folder: &str,
    run: &RunId,
    record: &impl Serialize,
) -> std::io::Result<PathBuf> {
    let folder = state_dir.join(folder);
    file::make_folder(&folder, 0o750)?;
    trust::check(&folder, Trusted::own()).map_err(std::io::Error::other)?;
    let path = folder.join(format!("{run}.json"));
    file::replace(&path, &serde_json::to_vec_pretty(record)?, 0o640, Lasts::OnDisk)?;
    Ok(path)
}

/// How long EC2's answers took, from the kept records of this plan. Records that cannot be read are skipped.
#[must_use]
pub(crate) fn call_times(state_dir: &Path, plan: &str) -> Vec<std::time::Duration> {
    let Ok(folder) = std::fs::read_dir(state_dir.join("sets")) else { return Vec::new() };
    let time = |entry: std::fs::DirEntry| {
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
        let of_plan = record["plan"]["name"] == plan;
        let ms = record["call_ms"].as_f64().filter(|_| of_plan)?;
        std::time::Duration::try_from_secs_f64(ms / 1e3).ok()
    };
    folder.flatten().filter_map(time).collect()
}
