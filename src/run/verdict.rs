//! The verdict: what the set may be called, and why not more.
//!
//! In: the plan, EC2's answer, the evidence of the window and of the hooks. Out: a [`Verdict`]. Pure. Must never: round up.

use crate::ec2::SnapshotView;
use crate::ids::VolumeId;
use crate::plan::{Consistency, Plan};
use crate::sets::record::SnapshotRecord;

/// What the set may be called.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The lowest of its parts.
    pub consistency: Consistency,
    /// Why it is less than the plan could have reached; none when it is not.
    pub reason: Option<String>,
    /// The parts, in the plan's order, then what was not planned.
    pub snapshots: Vec<SnapshotRecord>,
    /// Volumes of the plan of which there is no good snapshot: the set cannot be restored as a whole.
    pub missing: Vec<VolumeId>,
}

/// What is known about the window.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Why the freeze cannot be said to have held over the point in time, if so.
    pub doubt: Option<String>,
    /// Why the hooks do not count, if so.
    pub hooks: Option<String>,
}

/// Judges.
#[must_use]
pub fn verdict(plan: &Plan, made: &[SnapshotView], evidence: &Evidence) -> Verdict {
    let (base, mut reason) = match (&evidence.doubt, &evidence.hooks) {
        (Some(doubt), _) => (Consistency::Crash, Some(doubt.clone())),
        (None, Some(hooks)) => (Consistency::Filesystem, Some(hooks.clone())),
        (None, None) => (Consistency::Application, None),
    };
    let mut lower = None; // why a part is only `crash`: it says more than a missing hook
    let mut snapshots = Vec::new();
    let mut missing = Vec::new();
    for volume in &plan.volumes {
        let part = base.min(volume.best).min(plan.best.max(Consistency::Filesystem));
        match made.iter().find(|s| s.volume == volume.id) {
            Some(s) if s.state != "error" => {
                if volume.best == Consistency::Crash {
                    lower.get_or_insert(format!("{} cannot be made quiet: {}", volume.id, volume.reason));
                }
                snapshots.push(SnapshotRecord {
                    id: s.id.clone(),
                    volume_id: volume.id.clone(),
                    device_name: Some(volume.device_name.clone()),
                    mount_points: volume.mount_points.clone(),
                    state: s.state.clone(),
                    consistency: part,
                });
            }
            Some(s) => {
                // Made and already failed: it is there, it has to be reported, and it is worth nothing.
                missing.push(volume.id.clone());
                snapshots.push(SnapshotRecord {
                    id: s.id.clone(),
                    volume_id: volume.id.clone(),
                    device_name: Some(volume.device_name.clone()),
                    mount_points: volume.mount_points.clone(),
                    state: s.state.clone(),
                    consistency: Consistency::Crash,
                });
            }
            None => missing.push(volume.id.clone()),
        }
    }
    for extra in made.iter().filter(|s| !plan.volumes.iter().any(|v| v.id == s.volume)) {
        lower
            .get_or_insert(format!("{} is in the set but not in the plan: attached meanwhile", extra.volume));
        snapshots.push(SnapshotRecord {
            id: extra.id.clone(),
            volume_id: extra.volume.clone(),
            device_name: None,
            mount_points: Vec::new(),
            state: extra.state.clone(),
            consistency: Consistency::Crash,
        });
    }
    if base > Consistency::Crash {
        reason = lower.or(reason);
    }
    let mut consistency =
        snapshots.iter().map(|s| s.consistency).min().unwrap_or(Consistency::Crash).min(plan.best);
    if !missing.is_empty() {
        consistency = Consistency::Crash;
        let names: Vec<_> = missing.iter().map(VolumeId::as_str).collect();
        reason = Some(format!("incomplete: EC2 made no good snapshot of {}", names.join(", ")));
    }
    Verdict { consistency, reason, snapshots, missing }
}
