//! What is counted of each plan's runs and prunes, for metrics.
//!
//! In: how runs and prunes ended. Out: a file a plan, in the run folder, and one on disk that outlives a reboot: the
//! newer one counts. Must never: touch a disk while a filesystem may be frozen ([`super::textfile`] looks).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consistency::Consistency;
use crate::exit::Exit;
use crate::host::file::{self, Lasts};
use crate::host::trust::{self, Trusted};
use crate::sets::clones::{CloneRecord, ClonedVolume};
use crate::sets::record::SetRecord;

const FOLDER: &str = "tally";

/// What is known of one plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Name of the plan.
    pub plan: String,
    /// When it was written.
    pub written: Timestamp,
    /// How many runs ended with each exit code.
    pub runs: BTreeMap<Exit, u64>,
    /// The last run.
    pub last: Option<Ended>,
    /// When the last run ended that was all right.
    pub success: Option<Timestamp>,
    /// The newest set.
    pub set: Option<Set>,
    /// Its snapshots, and those of former sets, that were pending when the last run ended.
    pub pending: u64,
    /// The last prune.
    pub prune: Option<Pruned>,
    /// How many sets prunes have removed.
    pub removed: u64,
    /// The last verify.
    pub verify: Option<Ended>,
    /// How many verifies found a fault.
    #[serde(default)]
    pub verify_faults: u64,
    /// The runs of `clone`.
    #[serde(default)]
    pub clones: Option<Clones>,
}

/// What is known of the runs that cloned a plan's volumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clones {
    /// How many ended with each exit code.
    pub runs: BTreeMap<Exit, u64>,
    /// The last one.
    pub last: Ended,
    /// The newest clones.
    pub made: Option<Set>,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// With this code.
    pub exit_code: Exit,
}

/// A set, or clones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// Its point in time lies after this, by the time that EC2 takes to answer.
    pub requested: Timestamp,
    /// Its label.
    pub achieved: Consistency,
    /// Length of the frozen window, in milliseconds.
    pub window_ms: f64,
    /// Length of the call, in milliseconds.
    pub call_ms: Option<f64>,
    /// The longest that one filesystem was frozen, in milliseconds.
    pub stall_ms: Option<f64>,
}

impl Set {
    /// What this run has taken; none where it took nothing that counts.
    fn of(record: &SetRecord) -> Option<Self> {
        let achieved = record.achieved.filter(|_| record.exit.leaves_a_set())?;
        let requested = record.times.requested.or(record.times.frozen)?;
        let (window_ms, call_ms, stall_ms) = (record.window_ms, record.call_ms, record.stall_ms);
        Some(Self { requested, achieved, window_ms, call_ms, stall_ms })
    }
}

/// What a prune left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// The sets that it kept.
    pub sets: u64,
    /// Sizes of their volumes together, in bytes.
    pub bytes: u64,
}

impl Tally {
    fn of(plan: &str) -> Self {
        Self {
            plan: plan.to_owned(),
            written: Timestamp::UNIX_EPOCH,
            runs: BTreeMap::new(),
            last: None,
            success: None,
            set: None,
            pending: 0,
            prune: None,
            removed: 0,
            verify: None,
            verify_faults: 0,
            clones: None,
        }
    }

    /// A run has taken this, or nothing. `pending`: snapshots of the plan that EC2 is still at.
    pub(crate) fn took(&mut self, record: &SetRecord, pending: u64) {
        self.pending = pending;
        self.set = Set::of(record).or(self.set);
    }

    /// A run that clones ended with this code. `record`: none of one that was refused.
    pub(crate) fn cloned(&mut self, exit_code: Exit, record: Option<&CloneRecord>) {
        let last = Ended { at: Timestamp::now(), exit_code };
        let clones = self.clones.get_or_insert(Clones { runs: BTreeMap::new(), last, made: None });
        *clones.runs.entry(exit_code).or_default() += 1;
        clones.last = last;
        let there = record.filter(|r| r.clones.iter().any(ClonedVolume::stays));
        clones.made = there.and_then(|r| Set::of(&r.set)).or(clones.made);
    }

    /// A run ended with this code.
    pub(crate) fn ended(&mut self, exit_code: Exit) {
        let at = Timestamp::now();
        *self.runs.entry(exit_code).or_default() += 1;
        self.last = Some(Ended { at, exit_code });
        if exit_code == Exit::Ok {
            self.success = Some(at);
        }
    }

    /// A prune ended.
    pub(crate) fn pruned(&mut self, exit_code: Exit, removed: u64, sets: u64, bytes: u64) {
        let ended = Ended { at: Timestamp::now(), exit_code };
        self.prune = Some(Pruned { ended, sets, bytes });
        self.removed += removed;
    }

    /// A verify ended.
    pub(crate) fn verified(&mut self, exit_code: Exit) {
        self.verify = Some(Ended { at: Timestamp::now(), exit_code });
        self.verify_faults += u64::from(exit_code == Exit::Verify);
    }
}

fn folder(below: &Path) -> PathBuf {
    below.join(FOLDER)
}

fn read(path: &Path) -> Option<Tally> {
    let file = trust::open(path, Trusted::own()).ok()?;
    serde_json::from_reader(std::io::BufReader::new(file)).ok()
}

/// What is known of each plan, by name.
pub(super) fn all(folders: &[&Path]) -> BTreeMap<String, Tally> {
    let mut all: BTreeMap<String, Tally> = BTreeMap::new();
    for below in folders {
        for entry in std::fs::read_dir(folder(below)).into_iter().flatten().flatten() {
            let Some(found) = read(&entry.path()) else { continue };
            if all.get(&found.plan).is_none_or(|known| known.written < found.written) {
                all.insert(found.plan.clone(), found);
            }
        }
    }
    all
}

/// Changes what is known of a plan, as these folders have it, and writes it into each of them.
///
/// # Errors
/// When it cannot be written.
pub(super) fn change(folders: &[&Path], plan: &str, change: impl FnOnce(&mut Tally)) -> std::io::Result<()> {
    let mut tally = all(folders).remove(plan).unwrap_or_else(|| Tally::of(plan));
    change(&mut tally);
    tally.written = Timestamp::now();
    let bytes = serde_json::to_vec(&tally)?;
    for below in folders {
        let folder = folder(below);
        file::make_folder(&folder, 0o700)?;
        trust::check(&folder, Trusted::own()).map_err(std::io::Error::other)?;
        file::replace(&folder.join(format!("{plan}.json")), &bytes, 0o600, Lasts::OnDisk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_a_reboot_and_what_only_memory_has_is_not_lost_before() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = [run.path(), state.path()];
        for exit in [Exit::Ok, Exit::Hook, Exit::Ok] {
            change(&both, "db", |t| t.ended(exit)).unwrap();
        }
        change(&both, "other", |t| t.pruned(Exit::After, 3, 5, 7 << 30)).unwrap();
        // It may have left something frozen: the disk is not touched.
        change(&both[..1], "db", |t| t.ended(Exit::StillFrozen)).unwrap();
        let db = &all(&both)["db"];
        assert_eq!(db.runs, BTreeMap::from([(Exit::Ok, 2), (Exit::Hook, 1), (Exit::StillFrozen, 1)]));
        assert!(db.success.unwrap() < db.last.unwrap().at);
        change(&both, "db", |t| t.ended(Exit::Ok)).unwrap();
        std::fs::remove_dir_all(run.path().join(FOLDER)).unwrap();
        let all = all(&both);
        assert_eq!(all["db"].runs.values().sum::<u64>(), 5);
        assert_eq!((all["other"].removed, all["other"].prune.unwrap().bytes), (3, 7 << 30));
    }
}
