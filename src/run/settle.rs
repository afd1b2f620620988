//! What follows a run: the look-up of a lost answer, the labels, the record.
//!
//! In: a run whose window is over. Out: tags on the snapshots, the record on disk. Must never: run while
//! anything is frozen, write to what may still be frozen, or label a set higher than its record says.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::job::Job;
use super::journal::Given;
use crate::ec2::reconcile::Outcome;
use crate::ec2::{CreateRequest, Ec2, Ec2Error, RUN_TAG, SnapshotView};
use crate::host::superblock;
use crate::ids::RunId;
use crate::sets::clones::{self, CloneRecord};
use crate::sets::record::{self, SetRecord};
use crate::sets::tags;

/// Writes to the kernel's log what may still be frozen: that works even if every filesystem hangs. True when
/// the record would be written to one of these filesystems.
pub(super) fn warn_of_frozen(state_dir: &Path, still_frozen: &[PathBuf]) -> bool {
    if still_frozen.is_empty() {
        return false;
    }
    let names: Vec<_> = still_frozen.iter().map(|m| m.display().to_string()).collect();
    let line = format!("<2>stillpoint: may still be frozen: {}\n", names.join(" "));
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut f| f.write_all(line.as_bytes()));
    let on = |path: &Path| std::fs::File::open(path).ok().and_then(superblock::of_fd);
    let nearest = state_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let state = on(nearest);
    state.is_none() || still_frozen.iter().any(|m| on(m) == state)
}

/// Writes the record to the state folder. Returns why it was not written, if so.
pub(super) fn keep(state_dir: &Path, record: &SetRecord) -> Option<String> {
    keep_by(state_dir, record, || record::keep(state_dir, record))
}

/// The same of clones.
pub(super) fn keep_clones(state_dir: &Path, record: &CloneRecord) -> Option<String> {
    keep_by(state_dir, &record.set, || clones::keep(state_dir, record))
}

fn keep_by(
    state_dir: &Path,
    record: &SetRecord,
    keep: impl FnOnce() -> std::io::Result<PathBuf>,
) -> Option<String> {
    let blocked = warn_of_frozen(state_dir, &record.still_frozen);
    if record.not_mounted.iter().any(|m| state_dir.starts_with(m)) {
        return Some("no record is kept: its filesystem is not mounted".to_owned());
    }
    if blocked {
        return Some("no record is kept: its filesystem may still be frozen".to_owned());
    }
    keep().err().map(|e| format!("cannot keep the record in {}: {e}", state_dir.display()))
}

/// Adds the result of the look-up by run id to the failure.
pub(super) fn look_up(
    run: &RunId,
    made: &mut Vec<SnapshotView>,
    failure: &mut Option<Failure>,
    outcome: Outcome,
) {
    let found = match outcome {
        Outcome::Made(found) => {
            for snapshot in found {
                if !made.iter().any(|s| s.id == snapshot.id) {
                    made.push(snapshot);
                }
            }
            format!("{} snapshots of this run exist all the same", made.len())
        }
        Outcome::NoneSeen => "no snapshot of this run is to be seen".to_owned(),
        Outcome::Unknown(e) => format!("it is not known whether snapshots were made ({e})"),
    };
    if let Some(failure) = failure {
        failure.reason = format!("{}; {found}", failure.reason);
        failure.hint.get_or_insert(format!("snapshots of this run carry the tag {RUN_TAG}={run}"));
    }
}

/// The verdict of a set as tags: of the whole set, then of each part, then what the create call could not copy
/// of the volumes' own. None where nothing was made.
pub(super) fn given(job: &Job<'_>, request: &CreateRequest, record: &SetRecord) -> Option<Given> {
    if record.snapshots.is_empty() {
        return None;
    }
    let ids = record.snapshots.iter().map(|s| s.id.clone()).collect();
    let mut set = tags::verdict(record);
    set.extend(tags::applications(&record.applications, job.settings));
    let parts = tags::parts(record, &request.spread_tags).into_iter().map(|(id, own)| (vec![id], own));
    // Last: a tag policy may refuse a copied tag, and the verdict must not fail by that.
    let copied = record.snapshots.iter().filter_map(|s| {
        let of_volume = request.copied_tags.get(&s.volume_id)?;
        request.call.is_one_for_all().then(|| (vec![s.id.clone()], of_volume.clone()))
    });
    Some(Given { tags: std::iter::once((ids, set)).chain(parts).chain(copied).collect(), done: false })
}

/// Puts a verdict on its snapshots.
///
/// # Errors
/// When EC2 does not take all of it. `given` is done where trying again is of no use.
pub(super) async fn label<E: Ec2>(ec2: &E, given: &mut Given) -> Result<(), Ec2Error> {
    for (ids, tags) in &given.tags {
        if let Err(e) = ec2.tag(ids, tags).await {
            // A start every night that lacks the permission would leave a journal every night. The record has
            // the verdict.
            given.done = e.denied();
            return Err(e);
        }
    }
    given.done = true;
    Ok(())
}
