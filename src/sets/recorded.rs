//! The record that a host keeps of a set, beside what the set's tags say.
//!
//! In: the state folder; a set as it was read from tags. Out: what differs between the two; a record with what verify
//! has found. Must never: decide
//! anything by a record (other hosts and prunes go by the tags), or read one that others than root can write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::layout::Layout;
use super::ledger::Found;
use super::set::SnapshotSet;
use crate::consistency::Consistency;
use crate::host::file::{self, Lasts};
use crate::host::trust::{self, Trusted};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::shown;

/// No record of 128 volumes is nearly as large.
const MOST: u64 = 8 << 20;

/// What a record says that tags say too.
#[derive(Debug, Deserialize)]
pub struct Recorded {
    run_id: RunId,
    identity: RecordedIdentity,
    achieved: Option<Consistency>,
    snapshots: Vec<RecordedSnapshot>,
    plan: RecordedPlan,
}

#[derive(Debug, Deserialize)]
struct RecordedIdentity {
    instance_id: InstanceId,
}

#[derive(Debug, Deserialize)]
struct RecordedSnapshot {
    id: SnapshotId,
    volume_id: VolumeId,
    achieved: Consistency,
}

#[derive(Debug, Deserialize)]
struct RecordedPlan {
    name: String,
    filesystems: Vec<RecordedFilesystem>,
}

#[derive(Debug, Deserialize)]
struct RecordedFilesystem {
    mount_point: PathBuf,
    uuid: Option<String>,
}

/// The record of this run; none when this host has none.
///
/// # Errors
/// When there is one and it cannot be read, or others than root could have written it.
pub fn read(state_dir: &Path, run: &RunId) -> io::Result<Option<Recorded>> {
    Ok(bytes(&path(state_dir, run))?.map(|text| serde_json::from_slice(&text)).transpose()?)
}

fn path(state_dir: &Path, run: &RunId) -> PathBuf {
    state_dir.join("sets").join(format!("{run}.json"))
}

fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    trust::check(path.parent().unwrap_or(path), Trusted::own()).map_err(io::Error::other)?;
    trust::check(path, Trusted::own()).map_err(io::Error::other)?;
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Notes in the record of this run what verify has found: `verified` or `verify_fault`. False when this host has no
/// record of it.
///
/// # Errors
/// As [`read`], and when it cannot be written; it is then as it was.
pub fn note(state_dir: &Path, run: &RunId, found: &Found) -> io::Result<bool> {
    let path = path(state_dir, run);
    let Some(text) = bytes(&path)? else { return Ok(false) };
    let mut record: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)?;
    let (key, value) = match found {
        Found::NoFault(verified) => ("verified", serde_json::to_value(verified)?),
        Found::Fault(fault) => ("verify_fault", serde_json::to_value(fault)?),
    };
    record.insert(key.to_owned(), value);
    file::replace(&path, &serde_json::to_vec_pretty(&record)?, 0o640, Lasts::OnDisk)?;
    Ok(true)
}

impl Recorded {
    /// What the tags of this set say otherwise, a line each.
    #[must_use]
    pub fn differences(&self, set: &SnapshotSet, layout: Option<&Layout>) -> Vec<String> {
        let mut found = Vec::new();
        let mut differs = |what: &str, recorded: String, tagged: String| {
            if recorded != tagged {
                found.push(format!("{what} is {recorded} in the record, and {tagged} in the tags"));
            }
        };
        let label = |c: Option<Consistency>| c.map_or_else(|| "none".to_owned(), |c| c.to_string());
        differs("the id", self.run_id.to_string(), set.id.to_string());
        differs("the instance", self.identity.instance_id.to_string(), set.instance.to_string());
        differs("the plan", self.plan.name.clone(), set.plan.clone());
        differs("the label", label(self.achieved), label(set.achieved));
        for of in &self.snapshots {
            let Some(member) = set.members.iter().find(|m| m.id == of.id) else {
                found.push(format!("{} of {} is in the record alone", of.id, of.volume_id));
                continue;
            };
            let mut differs = |what: &str, recorded: String, tagged: String| {
                if recorded != tagged {
                    let id = &of.id;
                    found.push(format!(
                        "{what} of {id} is {recorded} in the record, and {tagged} in the tags"
                    ));
                }
            };
            differs("the volume", of.volume_id.to_string(), member.volume_id.to_string());
            differs("the label", of.achieved.to_string(), label(member.achieved));
        }
        let recorded: BTreeSet<_> = self.snapshots.iter().map(|s| &s.id).collect();
        let alone = set.members.iter().filter(|m| !recorded.contains(&m.id));
        found.extend(alone.map(|m| format!("{} of {} is in the tags alone", m.id, m.volume_id)));
        if let Some(layout) = layout {
            // A path that is not UTF-8 has replacement characters in the record.
            let key = |path: &Path| path.to_string_lossy().into_owned();
            let tagged: BTreeMap<_, _> =
                layout.filesystems.iter().map(|f| (key(&f.mount_point), f.uuid.as_deref())).collect();
            for filesystem in &self.plan.filesystems {
                let place = shown(&filesystem.mount_point);
                match tagged.get(&key(&filesystem.mount_point)) {
                    None => found.push(format!("the filesystem of {place} is in the record alone")),
                    Some(uuid) if *uuid != filesystem.uuid.as_deref() => found.push(format!(
                        "the UUID of {place} is {} in the record, and {} in the tags",
                        filesystem.uuid.as_deref().unwrap_or("none"),
                        uuid.unwrap_or("none")
                    )),
                    Some(_) => {}
                }
            }
            if layout.filesystems.len() > self.plan.filesystems.len() {
                found.push("the tags have a filesystem that is not in the record".to_owned());
            }
        }
        found
    }
}
