//! What may be frozen now, and what still has to be undone: from the journals, and on request from a probe of
//! every filesystem.
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

/// How long a probe may take. A filesystem whose probe takes longer counts as frozen.
pub const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// What `status` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// 1.
    pub version: u32,
    /// Runs that are in progress, and dead runs that still have to be undone.
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
    /// Does that process exist?
    pub alive: bool,
    /// Its watchdog's process id, where the journal has it.
    pub watchdog: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// For `freeze`: when everything is thawed at the latest.
    pub until: Option<Timestamp>,
    /// Mount points that it may have frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub may_be_frozen: Vec<PathBuf>,
    /// Mount points that it may have unmounted.
    #[serde(serialize_with = "path_encoding::paths")]
    pub unmounted: Vec<PathBuf>,
    /// Units that it may have stopped for that, in the order in which they will be started again.
    pub units: Vec<String>,
    /// May `rcu_expedited` still be raised by it?
    pub expedited: bool,
    /// Hooks whose post command is due, in the order in which they will run.
    pub owed: Vec<String>,
    /// May it have made snapshots whose ids are not known?
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
    /// False when a probe returned in time, true when none did; null when none could be started.
    pub frozen: Option<bool>,
    /// The probe's process, which waits in state D until the filesystem is thawed.
    pub waiting_pid: Option<u32>,
    /// The run that froze it, as far as the journals say.
    pub by: Option<RunId>,
}

/// Reads the journals. With `program`, this binary, it also probes.
///
/// # Errors
/// When the mounts cannot be listed for the probe.
pub fn read(run_dir: &Path, program: Option<&Path>) -> std::io::Result<Status> {
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
        // For a filesystem that could not be probed, the journals decide.
        Some(all) => all.iter().any(|p| p.frozen.unwrap_or(p.by.is_some())),
    };
    // A run whose process exists mounts and starts again itself what it has unmounted and stopped.
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
    // A filesystem that a journal names and no mount table has cannot be probed; it is still reported.
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
