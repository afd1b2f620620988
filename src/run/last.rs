//! How each plan's last run ended, for `status`: also of a run that was refused, and took nothing.
//!
//! In: what a run of `snapshot` says at its start and at its end. Out: a file a plan, in the run folder, and one
//! on disk that outlives a reboot. Must never: write to a disk, or read from one, while a filesystem may be
//! frozen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consistency::Consistency;
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::host::file::{self, Lasts};
use crate::host::process::ProcessId;
use crate::host::thread;
use crate::host::trust::{self, Trusted};
use crate::ids::RunId;
use crate::sets::record::SetRecord;

const FOLDER: &str = "last";
/// How long the disk may take.
const LIMIT: Duration = Duration::from_secs(2);
/// The process's own /proc.
const ROOT: &str = "/";

/// The last run of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Name of the plan.
    pub plan: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; none while it goes on, and where it died.
    pub ended: Option<Timestamp>,
    /// Its exit code.
    pub exit_code: Option<Exit>,
    /// Its run id, where it came to take a set.
    pub run_id: Option<RunId>,
    /// The consistency that was achieved; none when nothing was taken.
    pub achieved: Option<Consistency>,
    /// Why it was refused, why nothing was taken, or why less was achieved than requested.
    pub reason: Option<String>,
    /// Its process.
    #[serde(flatten)]
    process: ProcessId,
}

impl Last {
    /// A run that begins now.
    #[must_use]
    pub(crate) fn begun(plan: &str) -> Self {
        Self {
            plan: plan.to_owned(),
            started: Timestamp::now(),
            ended: None,
            exit_code: None,
            run_id: None,
            achieved: None,
            reason: None,
            process: ProcessId::own(Path::new(ROOT)),
        }
    }

    /// The same, ended with this record.
    #[must_use]
    pub(crate) fn with_record(self, record: &SetRecord) -> Self {
        let reason = record.reason.clone().or_else(|| record.after.first().cloned());
        Self {
            run_id: Some(record.run_id.clone()),
            achieved: record.achieved,
            ..self.with(record.exit, reason)
        }
    }

    /// The same, and its set was not copied.
    #[must_use]
    pub(crate) fn not_copied(self) -> Self {
        let reason = self.reason.clone().or_else(|| Some("the set was not copied whole".to_owned()));
        self.with(Exit::After, reason)
    }

    /// The same, refused.
    #[must_use]
    pub(crate) fn refused(self, error: &Error) -> Self {
        self.with(error.exit, Some(chain(error.what.as_ref())))
    }

    fn with(self, exit: Exit, reason: Option<String>) -> Self {
        Self { ended: Some(Timestamp::now()), exit_code: Some(exit), reason, ..self }
    }

    /// Does it go on?
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.ended.is_none() && self.process.lives(Path::new(ROOT))
    }

    /// Notes it. A run that goes on is not overwritten by one that has found the lock taken. Best effort: a run
    /// does not fail by this.
    pub(crate) fn note(&self, run_dir: &Path, state_dir: &Path) {
        let there = read(&folder(run_dir).join(self.file()));
        if there.is_some_and(|last| last.goes_on() && last.process != self.process) {
            return;
        }
        self.write(run_dir);
        // On disk where that cannot hang, and nothing is lost by it: what is on /run is gone after a reboot.
        if self.exit_code.is_some_and(|exit| !exit.hurts()) {
            self.write(state_dir);
        }
    }

    fn file(&self) -> String {
        format!("{}.json", self.plan)
    }

    fn write(&self, below: &Path) {
        let write = || {
            let folder = folder(below);
            file::make_folder(&folder, 0o700)?;
            trust::check(&folder, Trusted::own()).map_err(std::io::Error::other)?;
            file::replace(&folder.join(self.file()), &serde_json::to_vec(self)?, 0o600, Lasts::OnDisk)
        };
        if let Err(e) = write() {
            tracing::debug!("cannot note in {} how this run ended: {e}", below.display());
        }
    }
}

fn folder(below: &Path) -> PathBuf {
    below.join(FOLDER)
}

fn read(path: &Path) -> Option<Last> {
    let file = trust::open(path, Trusted::own()).ok()?;
    serde_json::from_reader(std::io::BufReader::new(file)).ok()
}

/// The last run of each plan, by name. `on_disk` is the folder that outlives a reboot; none where it must not be
/// touched.
#[must_use]
pub fn all(run_dir: &Path, on_disk: Option<&Path>) -> BTreeMap<String, Last> {
    let mut found = on_disk.map(within_limit).unwrap_or_default();
    for last in listed(run_dir) {
        let newer = found.get(&last.plan).is_none_or(|known| known.started <= last.started);
        if newer {
            found.insert(last.plan.clone(), last);
        }
    }
    found
}

fn listed(below: &Path) -> Vec<Last> {
    let entries = std::fs::read_dir(folder(below)).into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&entry.path())).collect()
}

/// In a thread: a disk may not answer.
fn within_limit(below: &Path) -> BTreeMap<String, Last> {
    let (tell, heard) = channel();
    let below = below.to_owned();
    let started = thread::start("last-runs", move || drop(tell.send(listed(&below))));
    let found = started.ok().and_then(|()| heard.recv_timeout(LIMIT).ok()).unwrap_or_default();
    found.into_iter().map(|last| (last.plan.clone(), last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_plan_is_known_also_after_a_reboot() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (run, state) = (run.path(), state.path());
        let begun = Last::begun("db");
        begun.note(run, state);
        assert!(all(run, Some(state))["db"].goes_on());
        let refused = begun.clone().refused(&Error::new(Exit::Imds, "no IMDS"));
        refused.note(run, state);
        let other = Last::begun("default").refused(&Error::new(Exit::Locked, "busy"));
        other.note(run, state);
        let seen = all(run, Some(state));
        assert_eq!(seen["db"], refused);
        assert_eq!((seen["db"].exit_code, seen["db"].reason.as_deref()), (Some(Exit::Imds), Some("no IMDS")));
        assert_eq!(seen["default"], other);
        std::fs::remove_dir_all(run.join(FOLDER)).unwrap();
        assert_eq!(all(run, Some(state)), seen);
        assert!(all(run, None).is_empty());
    }

    #[test]
    fn what_may_hang_is_not_written_to() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let frozen = Last::begun("db").refused(&Error::new(Exit::StillFrozen, "left frozen"));
        frozen.note(run.path(), state.path());
        assert!(!state.path().join(FOLDER).exists());
        assert_eq!(all(run.path(), None)["db"], frozen);
    }

    /// A run by hand finds the lock taken: the one of the timer is the one that counts.
    #[test]
    fn a_run_that_goes_on_is_not_overwritten_and_one_that_died_is() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of_live(Path::new(ROOT), i32::try_from(sleeper.id()).unwrap()).unwrap();
        let going = Last { process, ..Last::begun("db") };
        going.note(run.path(), state.path());
        let late = Last::begun("db").refused(&Error::new(Exit::Locked, "busy"));
        late.note(run.path(), state.path());
        assert_eq!(all(run.path(), None)["db"], going);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(!all(run.path(), None)["db"].goes_on());
        late.note(run.path(), state.path());
        assert_eq!(all(run.path(), None)["db"], late);
    }
}
