//! What may be frozen now, and what still has to be undone: from the journals, and on request from a probe of
//! every filesystem.
//!
//! In: journals in /run; with a probe, every superblock of this host. Out: a [`Status`]. Must never: open a
//! file on a filesystem that may be frozen (the probe's children do), or change anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::journal::{Created, Journal};
use super::last::{self, Last};
use super::rescue;
use crate::exit::Exit;
use crate::host::namespaces::Place;
use crate::host::reach::{Target, Way};
use crate::ids::{DevNo, RunId, SnapshotId};
use crate::path_encoding;
use crate::quiesce::systemctl::Timer;
use crate::window::probe::{self, Answer};

/// How long a probe may take. Of a filesystem whose probe takes longer it is not known whether it is frozen.
pub const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long after its deadline a run may still be at thawing.
const GRACE: SignedDuration = SignedDuration::from_secs(2);

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
    /// Mounts that the probe could not look at, in sentences.
    pub unread: Vec<String>,
    /// Each plan that has run or has a timer.
    pub plans: Vec<PlanStatus>,
    /// 0, 40, 41 or 42.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
}

/// One plan: how its last run of `snapshot` ended, and when its timer starts the next.
#[derive(Debug, Serialize)]
pub struct PlanStatus {
    /// Its name.
    pub plan: String,
    /// Its last run; none where none is known.
    pub last: Option<Last>,
    /// What systemd says of its timer; none where there is none.
    pub timer: Option<Timer>,
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
    /// It has come to its end, and left something to be done.
    pub ended: bool,
    /// Its watchdog's process id, where the journal has it.
    pub watchdog: Option<u32>,
    /// When it was started.
    pub started: Timestamp,
    /// When everything is thawed at the latest.
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
    /// It may have left something frozen: it died in its window, or is past its deadline.
    #[serde(skip)]
    pub is_overdue: bool,
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
    /// False when the probe returned, true when it waits for the thaw; null when neither is known.
    pub frozen: Option<bool>,
    /// Why it is not known.
    pub not_known: Option<&'static str>,
    /// The probe's process, which waits in state D until the filesystem is thawed.
    pub waiting_pid: Option<u32>,
    /// The run that froze it, as far as the journals say.
    pub by: Option<RunId>,
    /// That run lives and is within its deadline: it will thaw it.
    pub in_window: bool,
}

/// Reads the journals. With `program`, this binary, it also probes.
///
/// `state_dir` is read for the last runs where no run may have left a filesystem frozen, since it may be on one.
///
/// # Errors
/// When the mounts cannot be listed for the probe.
pub fn read(
    run_dir: &Path,
    state_dir: &Path,
    program: Option<&Path>,
    timers: BTreeMap<String, Timer>,
) -> std::io::Result<Status> {
    let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
    for journal in Journal::all(run_dir) {
        match journal {
            Ok(journal) => runs.push(of(&journal)),
            Err(e) => unreadable.push(e),
        }
    }
    let (probed, unread) = program.map(|program| probe_all(program, &runs)).transpose()?.unzip();
    let unread = unread.unwrap_or_default();
    let left = |p: &Probed| !p.in_window && p.frozen.unwrap_or(p.by.is_some());
    let frozen = match &probed {
        None => !unreadable.is_empty() || runs.iter().any(|r| r.is_overdue),
        // For a filesystem of which the probe knows nothing, the journals decide.
        Some(all) => all.iter().any(left),
    };
    let not_known = !unread.is_empty() || probed.iter().flatten().any(|p| p.frozen.is_none() && !p.in_window);
    // A run whose process exists mounts and starts again itself what it has unmounted and stopped.
    let away = runs.iter().filter(|r| !r.alive).any(|r| !r.unmounted.is_empty() || !r.units.is_empty());
    let exit = match (frozen, away) {
        (true, _) => Exit::StillFrozen,
        (false, true) => Exit::NotMounted,
        (false, false) if not_known => Exit::NotKnown,
        (false, false) => Exit::Ok,
    };
    let frozen = frozen || !unreadable.is_empty() || runs.iter().any(|r| !r.may_be_frozen.is_empty());
    let plans = plans(last::all(run_dir, (!frozen).then_some(state_dir)), timers);
    Ok(Status { version: 1, runs, unreadable, probed, unread, plans, exit })
}

fn plans(mut runs: BTreeMap<String, Last>, mut timers: BTreeMap<String, Timer>) -> Vec<PlanStatus> {
    let names: BTreeSet<String> = runs.keys().chain(timers.keys()).cloned().collect();
    let of = |plan: String| PlanStatus { last: runs.remove(&plan), timer: timers.remove(&plan), plan };
    names.into_iter().map(of).collect()
}

fn of(journal: &Journal) -> RunStatus {
    let state = &journal.state;
    let hold = state.held_freeze.as_ref();
    let alive = journal.lives();
    let until = hold.and_then(|h| h.record.until).or(state.thawed_by);
    let past = until.is_none_or(|until| Timestamp::now().duration_since(until) > GRACE);
    let frozen = journal.may_be_frozen();
    RunStatus {
        run_id: state.run.clone(),
        command: match hold {
            Some(_) => "freeze",
            None if state.rehearsal => "rehearse",
            None => "snapshot",
        },
        plan: state.plan.clone(),
        pid: state.process.pid,
        alive,
        ended: journal.state.ended,
        watchdog: hold.and_then(|h| h.watchdog),
        started: state.started,
        until,
        may_be_frozen: frozen.mounts().map(|f| f.mount_point.clone()).collect(),
        unmounted: state.unmounted.recipe.mounts.iter().map(|m| m.mount_point.clone()).collect(),
        units: state.unmounted.stopped().map(str::to_owned).collect(),
        expedited: state.expedited.is_some(),
        owed: state.attempted.iter().rev().map(|h| h.name.clone()).collect(),
        snapshots_unknown: state.created == Created::Maybe,
        unlabelled: match &state.created {
            Created::Made(ids) => ids.clone(),
            _ => Vec::new(),
        },
        is_overdue: frozen.mounts().next().is_some() && (!alive || past),
        devices: frozen.mounts().map(|f| f.dev).collect(),
    }
}

fn probe_all(program: &Path, runs: &[RunStatus]) -> std::io::Result<(Vec<Probed>, Vec<String>)> {
    let (_tables, mut targets, unread) = rescue::all()?;
    // A filesystem that a journal names and no mount table has cannot be probed; it is still reported.
    for run in runs {
        for (dev, path) in run.devices.iter().zip(&run.may_be_frozen) {
            if !targets.iter().any(|t| t.dev == *dev) {
                let way = Way { place: Arc::new(Place::Own), mount: 0, path: path.clone() };
                targets.push(Target { dev: *dev, fstype: String::new(), ways: vec![way] });
            }
        }
    }
    let answers = probe::ask(program, &targets, PROBE_LIMIT);
    let probed = targets.into_iter().zip(answers).map(|(target, answer)| {
        let by = runs.iter().find(|r| r.devices.contains(&target.dev));
        let (frozen, not_known, waiting_pid) = match answer {
            Answer::Thawed => (Some(false), None, None),
            Answer::Frozen { pid } => (Some(true), None, Some(pid)),
            Answer::Late => (None, Some("it did not answer in time"), None),
            Answer::Unreached => (None, Some("no path leads to it"), None),
        };
        Probed {
            mount_point: target.name(),
            dev: target.dev,
            frozen,
            not_known,
            waiting_pid,
            by: by.map(|r| r.run_id.clone()),
            in_window: by.is_some_and(|r| !r.is_overdue),
        }
    });
    Ok((probed.collect(), unread))
}
