//! What may be frozen now, and what is owed: from the journals, and from a probe where one is asked for.
//!
//! In: journals in /run; with a probe, every superblock of this host. Out: a [`Status`]. Must never: open a
//! file on a filesystem that may be frozen (the probe's children do), or change anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::journal::{Created, Journal};
use super::rescue;
use crate::exit::Exit;
use crate::ids::{DevNo, RunId, SnapshotId};
use crate::path_encoding;
use crate::window::probe::{self, Answer};

/// How long a probe may take. A filesystem that answers later counts as frozen.
pub const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// What `status` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// 1.
    pub version: u32,
    /// Runs that go on, or have left something behind.
    pub runs: Vec<RunStatus>,
    /// Journals that cannot be read, and why.
    pub unreadable: Vec<String>,
    /// What the probe found; none without one.
    pub probed: Option<Vec<Probed>>,
    /// 0, 40 or 41.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct RunStatus {
    /// Its id.
    pub run_id: RunId,
    /// `snapshot`, `rehearse` or `freeze`.
    pub command: &'static str,
    /// Its plan's name.
    pub plan: String,
    /// Its process.
    pub pid: i32,
    /// Is that process there?
    pub alive: bool,
    /// Its watchdog's process, where the journal says it.
    pub watchdog: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// When everything is thawed at the latest, for `freeze`.
    pub until: Option<Timestamp>,
    /// What it may have frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub may_be_frozen: Vec<PathBuf>,
    /// What it may have unmounted.
    #[serde(serialize_with = "path_encoding::paths")]
    pub unmounted: Vec<PathBuf>,
    /// Units that it may have stopped for that, in the order in which they are started.
    pub units: Vec<String>,
    /// It may have raised `rcu_expedited`.
    pub expedited: bool,
    /// Hooks whose post command is due, in the order in which they will run.
    pub owed: Vec<String>,
    /// It may have made snapshots that nobody knows of.
    pub snapshots_unknown: bool,
    /// Snapshots that still lack their label.
    pub unlabelled: Vec<SnapshotId>,
    #[serde(skip)]
    devices: Vec<DevNo>,
}

/// One superblock, probed.
#[derive(Debug, Serialize)]
pub struct Probed {
    /// Where it is mounted.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// Its device number.
    pub dev: DevNo,
    /// False when a probe came back, true when none did in time; null when it could not be asked.
    pub frozen: Option<bool>,
    /// The probe that waits there, in state D, until it is thawed.
    pub waiting_pid: Option<u32>,
    /// The run that froze it, as far as journals say.
    pub by: Option<RunId>,
}

/// Looks. With `program`, this binary, it probes too.
///
/// # Errors
/// When the mounts cannot be listed for the probe.
pub fn look(run_dir: &Path, program: Option<&Path>) -> std::io::Result<Status> {
    let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
    for journal in Journal::all(run_dir) {
        match journal {
            Ok(journal) => runs.push(of(&journal)),
            Err(e) => unreadable.push(e),
        }
    }
    let probed = program.map(|program| probe_all(program, &runs)).transpose()?;
    let frozen = match &probed {
        None => !unreadable.is_empty() || runs.iter().any(|r| !r.may_be_frozen.is_empty()),
        // What could not be asked is believed to be as the journals say.
        Some(all) => all.iter().any(|p| p.frozen.unwrap_or(p.by.is_some())),
    };
    // While it lives, a run brings back itself what it took away.
    let away = runs.iter().filter(|r| !r.alive).any(|r| !r.unmounted.is_empty() || !r.units.is_empty());
    let exit = match (frozen, away) {
        (true, _) => Exit::StillFrozen,
        (false, true) => Exit::NotMounted,
        (false, false) => Exit::Ok,
    };
    Ok(Status { version: 1, runs, unreadable, probed, exit })
}

fn of(journal: &Journal) -> RunStatus {
    let state = &journal.state;
    let hold = state.held_freeze.as_ref();
    RunStatus {
        run_id: state.run.clone(),
        command: match hold {
            Some(_) => "freeze",
            None if state.rehearsal => "rehearse",
            None => "snapshot",
        },
        plan: state.plan.clone(),
        pid: state.process.pid,
        alive: journal.lives(),
        watchdog: hold.and_then(|h| h.watchdog),
        started: state.started,
        until: hold.and_then(|h| h.record.until),
        may_be_frozen: state.frozen.iter().map(|f| f.mount_point.clone()).collect(),
        unmounted: state.unmounted.recipe.mounts.iter().map(|m| m.mount_point.clone()).collect(),
        units: state.unmounted.stopped().map(str::to_owned).collect(),
        expedited: state.expedited.is_some(),
        owed: state.attempted.iter().rev().map(|h| h.name.clone()).collect(),
        snapshots_unknown: state.created == Created::Maybe,
        unlabelled: match &state.created {
            Created::Made(ids) => ids.clone(),
            _ => Vec::new(),
        },
        devices: state.frozen.iter().map(|f| f.dev).collect(),
    }
}

fn probe_all(program: &Path, runs: &[RunStatus]) -> std::io::Result<Vec<Probed>> {
    let mut targets = rescue::reach()?;
    // What a journal names and no mount table has is out of reach, and not to be passed over in silence.
    for run in runs {
        for (dev, path) in run.devices.iter().zip(&run.may_be_frozen) {
            if !targets.iter().any(|t| t.dev == *dev) {
                targets.push(probe::Target { dev: *dev, paths: vec![path.clone()] });
            }
        }
    }
    let answers = probe::ask(program, &targets, PROBE_LIMIT);
    let probed = targets.into_iter().zip(answers).map(|(target, answer)| Probed {
        mount_point: target.paths.into_iter().next().unwrap_or_default(),
        dev: target.dev,
        frozen: match answer {
            Answer::Thawed => Some(false),
            Answer::Blocked { .. } => Some(true),
            Answer::Unknown => None,
        },
        waiting_pid: match answer {
            Answer::Blocked { pid } => Some(pid),
            _ => None,
        },
        by: runs.iter().find(|r| r.devices.contains(&target.dev)).map(|r| r.run_id.clone()),
    });
    Ok(probed.collect())
}
