//! What can be told of a set without reading its data.
//!
//! In: the set, its layout, EC2's views of its snapshots. Out: findings, a fault each. Pure. Must never: judge data.

use super::{Finding, Verdict};
use crate::sets::layout::{Layout, LayoutError};
use crate::sets::set::SnapshotSet;

/// Faults of a set: what keeps it from being restored whole, or contradicts its label.
#[must_use]
pub fn arithmetic(set: &SnapshotSet, layout: &Result<Layout, LayoutError>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut fault =
        |volume: Option<&crate::ids::VolumeId>, snapshot: Option<&crate::ids::SnapshotId>, what: String| {
            found.push(Finding {
                mount_point: None,
                fstype: None,
                volume_id: volume.cloned(),
                snapshot_id: snapshot.cloned(),
                check: None,
                offset: None,
                verdict: Verdict::Fault,
                what,
            });
        };
    for doubt in &set.doubts {
        fault(None, None, format!("its tags do not agree: {doubt}"));
    }
    for missing in &set.missing {
        fault(Some(&missing.volume_id), None, "it has no snapshot in the set".to_owned());
    }
    if set.achieved.is_none() {
        fault(None, None, "it has no verdict: its run did not end".to_owned());
    }
    if set.deleting {
        fault(None, None, "it is being removed".to_owned());
    }
    if let Err(e) = layout {
        fault(None, None, format!("its tags do not describe it: {e}"));
    }
    // A copy is made snapshot by snapshot; the source was one point in time.
    let first = set.members.first().and_then(|m| m.started);
    for m in &set.members {
        let (volume, id) = (Some(&m.volume_id), Some(&m.id));
        if m.state != "completed" {
            let why = m.error.as_deref().map_or_else(String::new, |why| format!(": {why}"));
            fault(volume, id, format!("the snapshot is {}{why}", m.state));
        }
        if m.tier == "archive" && m.restored_until.is_none() {
            fault(volume, id, "it is in the archive: `stillpoint tier --restore` brings it back".to_owned());
        }
        if set.copy_of.is_none() && m.started != first {
            fault(volume, id, "it was not started together with the others".to_owned());
        }
        if m.achieved.is_some_and(|own| set.achieved.is_some_and(|whole| own < whole)) {
            fault(volume, id, "its own label is lower than that of the set".to_owned());
        }
        if m.state == "completed" && m.full_bytes == Some(0) {
            fault(volume, id, "EC2 says that it has no data at all".to_owned());
        }
    }
    found
}
