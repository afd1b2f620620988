//! Sets of former runs whose snapshots were pending when these ended: EC2 may not have completed them.
//!
//! A run does not wait for that. The next one looks, so that a set that was lost later is not forgotten.
//!
//! In: what is kept of former sets, EC2's answer. Out: what has become of them, in sentences. Must never: relabel
//! a set (its label says what its point in time is worth), or forget one before it was told.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::ec2::{Describe, SnapshotView};
use crate::host::file::{self, Lasts};
use crate::host::trust::{self, Trusted};
use crate::ids::{RunId, SnapshotId};
use crate::sets::record::SetRecord;

const FILE: &str = "pending.json";
/// Sets that are kept at most; the oldest are dropped.
const MOST: usize = 100;

/// A set, and its snapshots that were pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    run_id: RunId,
    plan: String,
    pending: Vec<SnapshotId>,
}

/// What former runs left pending.
#[derive(Debug, Default)]
pub(super) struct Formers {
    /// Those that still are.
    left: Vec<Former>,
    /// What failed, for the record of this run.
    pub failed: Vec<String>,
    /// The same, set by set.
    pub lost: Vec<Lost>,
}

/// A set of a former run that EC2 could not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The run that took it.
    pub run_id: RunId,
    /// Its plan.
    pub plan: String,
    /// The snapshots that EC2 could not complete.
    pub snapshots: Vec<SnapshotId>,
}

impl Formers {
    /// Asks EC2. When it does not say, nothing is known, and nothing is forgotten.
    pub(super) async fn look<E: Describe>(env: &Environment<'_, E>) -> Self {
        let known = read(env.state_dir);
        let ids: Vec<_> = known.iter().flat_map(|f| f.pending.iter().cloned()).collect();
        if ids.is_empty() {
            return Self::default();
        }
        match env.patient().states(&ids).await {
            Ok(states) => {
                let found = judge(known, &states);
                found.failed.iter().for_each(|what| tracing::error!("{what}"));
                found
            }
            Err(e) => {
                tracing::warn!("cannot ask what became of the snapshots of former runs: {e}");
                Self { left: known, ..Self::default() }
            }
        }
    }

    /// Keeps those that still are pending, and this set's.
    pub(super) fn keep(&mut self, state_dir: &Path, record: &SetRecord) -> std::io::Result<()> {
        let pending: Vec<_> =
            record.snapshots.iter().filter(|s| s.state == "pending").map(|s| s.id.clone()).collect();
        if !pending.is_empty() {
            let (run_id, plan) = (record.run_id.clone(), record.plan.name.clone());
            self.left.push(Former { run_id, plan, pending });
        }
        let from = self.left.len().saturating_sub(MOST);
        let kept = &self.left[from..];
        let path = state_dir.join(FILE);
        if kept.is_empty() && !path.exists() {
            return Ok(());
        }
        file::make_folder(state_dir, 0o750)?;
        file::replace(&path, &serde_json::to_vec(kept)?, 0o640, Lasts::OnDisk)
    }
}

fn read(state_dir: &Path) -> Vec<Former> {
    let file = trust::open(&state_dir.join(FILE), Trusted::own());
    file.ok().and_then(|f| serde_json::from_reader(std::io::BufReader::new(f)).ok()).unwrap_or_default()
}

/// How many snapshots of the plan are pending, as far as this run knows: its own, and those of former sets.
pub(crate) fn pending(state_dir: &Path, record: &SetRecord) -> u64 {
    let own = record.snapshots.iter().filter(|s| s.state == "pending").count();
    let former = read(state_dir);
    let former = former.iter().filter(|f| f.plan == record.plan.name && f.run_id != record.run_id);
    let former = former.map(|f| f.pending.len()).sum::<usize>();
    u64::try_from(own + former).unwrap_or(u64::MAX)
}

/// A snapshot that EC2 does not show any more was deleted by somebody who knew of it.
fn judge(known: Vec<Former>, states: &[SnapshotView]) -> Formers {
    let state = |id: &SnapshotId| states.iter().find(|s| s.id == *id).map(|s| &*s.state);
    let mut found = Formers::default();
    for Former { run_id, plan, pending } in known {
        let in_state = |wanted: &str| -> Vec<SnapshotId> {
            pending.iter().filter(|id| state(id) == Some(wanted)).cloned().collect()
        };
        let lost = in_state("error");
        if !lost.is_empty() {
            let names: Vec<_> = lost.iter().map(SnapshotId::as_str).collect();
            found.failed.push(format!(
                "a former set is lost: of run {run_id} (plan {plan}), EC2 could not complete {}",
                names.join(", ")
            ));
            found.lost.push(Lost { run_id: run_id.clone(), plan: plan.clone(), snapshots: lost });
        }
        let pending = in_state("pending");
        if !pending.is_empty() {
            found.left.push(Former { run_id, plan, pending });
        }
    }
    found
}
