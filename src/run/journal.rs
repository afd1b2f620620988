//! The journal of a run in /run: what must be undone if the run dies here.
//!
//! In: what is about to be attempted, written *before* it is. Out: a file that the next start, and systemd's
//! ExecStopPost, read. The run owns it for its whole life ([`owned_file`]): that is how others know that it
//! lives. Must never: be written while anything is frozen, live on a disk, be touched by others while its run
//! lives, or be read where somebody else than root could have written it: a journal names commands that run
//! as root.

mod frozen;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::frozen::FrozenMount;
pub(crate) use self::frozen::{MayBeFrozen, will_freeze};
use super::held_record::HeldFreezeRecord;
use crate::config::settings::Hook;
use crate::host::file::{self, Lasts};
use crate::host::owned_file::{self, OwnedFile};
use crate::host::process::{self, ProcessId};
use crate::host::trust::{self, Trusted};
use crate::ids::{RunId, SnapshotId, VolumeId};
use crate::quiesce::HookEnv;
use crate::quiesce::orphans::SessionProcess;
use crate::unmount::Recipe;
use crate::window::expedite::Former;
use crate::window::page::Left;

/// Journals name processes of this machine, so they are looked up in the real /proc.
const ROOT: &str = "/";

/// How far the create call had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Created {
    /// No request has been sent, so there is nothing to look up.
    #[default]
    No,
    /// May have been sent; written before the freeze, since nothing is written while frozen.
    Maybe,
    /// These snapshots were made and still lack their verdict.
    Made(Vec<SnapshotId>),
}

/// Snapshots, and the tags that all of them get.
pub type Tagging = (Vec<SnapshotId>, Vec<(String, String)>);

/// The verdict of a set, as the tags of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Of the whole set, then of each part. Tagging is idempotent.
    pub tags: Vec<Tagging>,
    /// Are they on the snapshots, or is that not to be had?
    pub done: bool,
}

impl Given {
    /// The snapshots that have a verdict.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.tags.iter().flat_map(|(ids, _)| ids)
    }
}

/// What the snapshots of a set are still to be told, each for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// The volumes of the set, in the order of their numbers.
    pub volumes: Vec<VolumeId>,
    /// Lines that do not fit on every snapshot.
    pub spread: BTreeMap<VolumeId, Vec<(String, String)>>,
}

/// What a run may have stopped and unmounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToRemount {
    /// Units whose stop was attempted, in order. Started once everything is mounted: a database must not
    /// start on an empty folder.
    pub units: Vec<Hook>,
    /// Every mount that may be gone, and how to make it again. Those that are still mounted are left alone.
    pub(crate) recipe: Recipe,
    /// Automounts whose stop was attempted. Started before anything is mounted: systemd refuses afterwards.
    pub(crate) automounts: Vec<Hook>,
    /// Mount units that were active.
    pub(crate) mount_units: Vec<String>,
}

impl ToRemount {
    /// Is there nothing to mount or to start?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Names of the units that may be stopped, in the order in which they are started.
    pub fn stopped(&self) -> impl Iterator<Item = &str> {
        let hooks = self.automounts.iter().rev().chain(self.units.iter().rev());
        hooks.map(|h| h.name.strip_prefix("unit ").unwrap_or(&h.name))
    }
}

/// A freeze that is held for somebody else's snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFreeze {
    /// The watchdog's process id, once there is one.
    pub watchdog: Option<u32>,
    /// What is known before the freeze.
    pub record: HeldFreezeRecord,
}

/// What has to be undone if the run dies now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Also the name of the file.
    pub run: RunId,
    /// Wall time of the start.
    pub started: jiff::Timestamp,
    /// Name of the plan.
    pub plan: String,
    /// The process-id namespace that the process id below belongs to, where it is known.
    #[serde(default)]
    pub pid_namespace: Option<PathBuf>,
    /// The boot of the kernel in which it was started, where that is known.
    #[serde(default)]
    pub(crate) boot: Option<String>,
    /// The process of the run. While it exists, no recovery touches what the run has done.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Hooks that were attempted and are not yet released, in order.
    pub attempted: Vec<Hook>,
    /// Processes of those that are sessions.
    #[serde(default)]
    pub sessions: Vec<SessionProcess>,
    /// The environment that the hooks' post commands get.
    pub env: Option<HookEnv>,
    /// Filesystems that may be frozen.
    pub frozen: Vec<FrozenMount>,
    /// The process that freezes them, where it is not the run's own. It may be inside FIFREEZE for longer than
    /// the run lives.
    #[serde(default)]
    pub(crate) freezer: Option<ProcessId>,
    /// Filesystems that may be unmounted, and units that may be stopped for that.
    #[serde(default)]
    pub unmounted: ToRemount,
    /// When everything is thawed at the latest, by the watchdog if by nobody else; written before the freeze.
    #[serde(default)]
    pub thawed_by: Option<jiff::Timestamp>,
    /// Whether EC2 has to be asked for snapshots of this run.
    pub created: Created,
    /// Of each volume's snapshot alone: its share of the lines that describe the set. For a recovery; a run that
    /// has judged its set has these in the verdict.
    #[serde(default)]
    pub(crate) shares: Shares,
    /// Set once the run has judged its set. Nobody judges it again.
    #[serde(default)]
    pub verdict: Option<Given>,
    /// The run has come to its end, and left something to be done. Without this, it died.
    #[serde(default)]
    pub ended: bool,
    /// True for a rehearsal, which sends no create call: a recovery does not ask EC2 for snapshots.
    #[serde(default)]
    pub rehearsal: bool,
    /// True for a run that clones volumes: a recovery asks EC2 for clones, not for snapshots.
    #[serde(default)]
    pub cloning: bool,
    /// Set in runs of `freeze`.
    #[serde(default)]
    pub held_freeze: Option<HeldFreeze>,
    /// The host-wide setting that was raised for the freeze, as it was before.
    #[serde(default)]
    pub(crate) expedited: Option<Former>,
}

/// The journal file of this run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// The file itself, in the run that it is of.
    own: Option<OwnedFile>,
    /// What the file says, as of the last successful write.
    pub state: State,
}

impl Journal {
    /// Starts the journal of a run; `note` adds what its goal has to say from the first line on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(
        run_dir: &Path,
        run: &RunId,
        plan: &str,
        note: impl FnOnce(&mut State),
    ) -> std::io::Result<Self> {
        let folder = folder(run_dir);
        file::make_folder(&folder, 0o700)?;
        let mut state = State {
            run: run.clone(),
            started: jiff::Timestamp::now(),
            plan: plan.to_owned(),
            pid_namespace: pid_namespace(),
            boot: process::boot(ROOT.as_ref()),
            process: ProcessId::own(ROOT.as_ref()),
            attempted: Vec::new(),
            sessions: Vec::new(),
            env: None,
            frozen: Vec::new(),
            freezer: None,
            thawed_by: None,
            unmounted: ToRemount::default(),
            created: Created::No,
            shares: Shares::default(),
            verdict: None,
            ended: false,
            rehearsal: false,
            cloning: false,
            held_freeze: None,
            expedited: None,
        };
        note(&mut state);
        let path = folder.join(format!("{run}.json"));
        let own = OwnedFile::create(path.clone(), &bytes(&state)?, MODE)?;
        Ok(Self { path, own: Some(own), state })
    }

    /// Reads the journals of runs that are dead. Unreadable files are reported, never deleted.
    #[must_use]
    pub fn dead(run_dir: &Path) -> Vec<Result<Self, String>> {
        Self::all(run_dir).into_iter().filter(|j| !j.as_ref().is_ok_and(Self::lives)).collect()
    }

    /// Reads every journal there is.
    #[must_use]
    pub fn all(run_dir: &Path) -> Vec<Result<Self, String>> {
        let Ok(entries) = std::fs::read_dir(folder(run_dir)) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|x| x == "json"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Reads this one.
    ///
    /// # Errors
    /// Why it cannot be read, with its path.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let read = trust::open(path, Trusted::own())
            .map_err(|e| e.to_string())
            .and_then(|file| serde_json::from_reader(BufReader::new(file)).map_err(|e| e.to_string()));
        match read {
            Ok(state) => Ok(Self { path: path.to_owned(), own: None, state }),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Does the run live? A stopped process does, and so does one in a container that shares the run folder.
    #[must_use]
    pub fn lives(&self) -> bool {
        if self.is_of_another_boot() {
            return false;
        }
        // A process that was killed keeps its files while one of its threads hangs in the kernel. Its id
        // tells more, where it means the same process here.
        if self.pid_means_the_same() && !self.state.process.lives(ROOT.as_ref()) {
            return false;
        }
        // A run is not called dead because nobody can tell; one that has closed its journal is not either.
        owned_file::is_owned(&self.path).unwrap_or(true)
    }

    fn pid_means_the_same(&self) -> bool {
        self.state.pid_namespace.is_none() || self.state.pid_namespace == pid_namespace()
    }

    /// Has another process removed the journal of this run, or put another in its place? It may have thawed
    /// and released everything then.
    #[must_use]
    pub(crate) fn is_taken(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.is_in_place())
    }

    /// Was the machine started since? Then nothing of this run is frozen: a freeze is not stored anywhere.
    fn is_of_another_boot(&self) -> bool {
        let now = process::boot(ROOT.as_ref());
        now.is_some() && self.state.boot.is_some() && now != self.state.boot
    }

    /// The file of the page that the run shares with its watchdog.
    #[must_use]
    pub(crate) fn page(&self) -> PathBuf {
        self.path.with_extension("page")
    }

    /// The filesystems that may be frozen by this run now: those that the journal names, and neither the run
    /// nor its watchdog nor an earlier recovery has thawed.
    #[must_use]
    pub(crate) fn may_be_frozen(&self) -> MayBeFrozen {
        let mounts = if self.is_of_another_boot() { Vec::new() } else { self.state.frozen.clone() };
        MayBeFrozen { page: Left::read(&self.page()).map(Arc::new), mounts }
    }

    /// Changes the journal and writes it, atomically.
    ///
    /// # Errors
    /// When it cannot be written. Then the step that it was written for must not be attempted.
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> std::io::Result<()> {
        change(&mut self.state);
        self.write()
    }

    /// Notes the process of a session that was just started. Best effort: a session ends by itself when this
    /// process dies, unless it is broken.
    pub(crate) fn note_session(&mut self, hook: &str, pid: u32) {
        let Some(process) = i32::try_from(pid).ok().and_then(|pid| ProcessId::of_live(ROOT.as_ref(), pid))
        else {
            return;
        };
        let _ = self.update(|s| s.sessions.push(SessionProcess { hook: hook.to_owned(), process }));
    }

    /// Writes the file again, unchanged.
    pub(super) fn write(&mut self) -> std::io::Result<()> {
        let bytes = bytes(&self.state)?;
        match &mut self.own {
            Some(own) => own.replace(&bytes),
            None => file::replace(&self.path, &bytes, MODE, Lasts::UntilShutdown),
        }
    }

    /// The processes in which a FIFREEZE of the run may still be in progress, also when the run is dead.
    pub(crate) fn freezing(&self) -> Vec<ProcessId> {
        std::iter::once(self.state.process).chain(self.state.freezer).collect()
    }

    /// Does a thread of the run's process still exist, in exit(2) or in another call?
    #[must_use]
    pub(crate) fn lingers(&self) -> bool {
        if self.is_of_another_boot() {
            return false;
        }
        if self.pid_means_the_same() {
            self.state.process.lingers(ROOT.as_ref())
        } else {
            owned_file::is_owned(&self.path).unwrap_or(false)
        }
    }

    /// How long ago the run was started.
    #[must_use]
    pub(crate) fn age(&self) -> std::time::Duration {
        // Zero for a start in the future: the clock was set back, and "just now" is the safe assumption.
        jiff::Timestamp::now().duration_since(self.state.started).try_into().unwrap_or_default()
    }

    /// Removes the file: nothing is left to undo.
    pub fn close(self) {
        if self.is_taken() {
            return; // what is there now is another process's
        }
        // If it cannot be removed, the next start undoes everything once more, which is harmless. The page
        // goes last: without it, the journal's filesystems would count as frozen.
        let _ = std::fs::remove_file(&self.path);
        if !self.path.exists() {
            let _ = std::fs::remove_file(self.page());
        }
    }
}

/// The hooks' environments are in it, and may contain a password.
const MODE: u32 = 0o600;

fn bytes(state: &State) -> std::io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(state)?)
}

fn pid_namespace() -> Option<PathBuf> {
    process::namespace(ROOT.as_ref(), "self", "pid").ok()
}

/// Where journals are, and what else belongs to a run.
#[must_use]
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("runs")
}

#[cfg(test)]
mod tests;
