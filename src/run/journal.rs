//! The journal of a run in /run: what must be undone if the run dies here.
//!
//! In: what is about to be attempted, written *before* it is. Out: a file that the next start, and systemd's ExecStopPost,
//! read. Must never: be written while anything is frozen, or live on a disk.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::held_record::HeldFreezeRecord;
use crate::config::settings::Hook;
use crate::ids::{DevNo, RunId, SnapshotId};
use crate::plan::{Method, Plan};
use crate::quiesce::HookEnv;
use crate::unmount::Recipe;
use crate::window::expedite::Former;

/// How far the create call had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Created {
    /// Not sent.
    #[default]
    No,
    /// May have been sent; written before the freeze, since nothing is written while frozen.
    Maybe,
    /// These were made and still lack their verdict.
    Made(Vec<SnapshotId>),
}

/// A filesystem that the run may have frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenMount {
    /// Key of its superblock.
    pub dev: DevNo,
    /// Where it is reached.
    pub mount_point: PathBuf,
}

/// What a run may have stopped and unmounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToRemount {
    /// Units whose stop was attempted, in order. Started once everything is mounted: a database must not start on an empty folder.
    pub units: Vec<Hook>,
    /// Every mount that may be gone, and how to make it again. Nothing in it that is mounted needs anything.
    pub recipe: Recipe,
    /// Automounts whose stop was attempted. Started before anything is mounted: systemd refuses afterwards.
    pub automounts: Vec<Hook>,
    /// Mount units that were active.
    pub mount_units: Vec<String>,
}

impl ToRemount {
    /// Nothing is to be done.
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

/// A freeze that is held for somebody else: the run takes no snapshots itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFreeze {
    /// The watchdog's process id, once there is one.
    pub watchdog: Option<u32>,
    /// What is known before the freeze.
    pub record: HeldFreezeRecord,
}

/// The process of a session. It ends by itself when the agent is gone; the recovery makes sure of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProcess {
    /// Its hook.
    pub hook: String,
    /// Its process id, which is its group's too.
    pub pid: i32,
    /// Its start time, as in [`State::pid_start`].
    pub pid_start: u64,
}

/// What a run would leave behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The run.
    pub run: RunId,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// Its plan's name.
    pub plan: String,
    /// The agent's process id.
    pub pid: i32,
    /// The process's start time in clock ticks (field 22 of /proc/PID/stat): pids are used again.
    pub pid_start: u64,
    /// Hooks attempted and not yet released, in order.
    pub attempted: Vec<Hook>,
    /// Processes of those that are sessions.
    #[serde(default)]
    pub sessions: Vec<SessionProcess>,
    /// Their environment.
    pub env: Option<HookEnv>,
    /// Filesystems that may be frozen.
    pub frozen: Vec<FrozenMount>,
    /// Filesystems that may be unmounted, and units that may be stopped for that.
    #[serde(default)]
    pub unmounted: ToRemount,
    /// The create call.
    pub created: Created,
    /// It is a rehearsal: no create call will be sent.
    #[serde(default)]
    pub rehearsal: bool,
    /// Set in runs of `freeze`.
    #[serde(default)]
    pub held_freeze: Option<HeldFreeze>,
    /// The host-wide setting that was raised for the freeze, as it was before.
    #[serde(default)]
    pub expedited: Option<Former>,
}

/// The journal file of this run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// What it says.
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
        make_folder(&folder)?;
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let mut state = State {
            run: run.clone(),
            started: jiff::Timestamp::now(),
            plan: plan.to_owned(),
            pid,
            pid_start: start_time(pid).unwrap_or_default(),
            attempted: Vec::new(),
            sessions: Vec::new(),
            env: None,
            frozen: Vec::new(),
            unmounted: ToRemount::default(),
            created: Created::No,
            rehearsal: false,
            held_freeze: None,
            expedited: None,
        };
        note(&mut state);
        let journal = Self { path: folder.join(format!("{run}.json")), state };
        journal.write()?;
        Ok(journal)
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
        let mut found = Vec::new();
        for path in paths {
            let read = std::fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| serde_json::from_slice::<State>(&bytes).map_err(|e| e.to_string()));
            match read {
                Ok(state) => found.push(Ok(Self { path, state })),
                Err(e) => found.push(Err(format!("{}: {e}", path.display()))),
            }
        }
        found
    }

    /// Is the run's process there? A stopped one is.
    #[must_use]
    pub fn lives(&self) -> bool {
        match std::fs::read_to_string(format!("/proc/{}/stat", self.state.pid)) {
            // A zombie will run nothing more.
            Ok(text) => parse(&text).is_none_or(|(s, start)| s != 'Z' && start == self.state.pid_start),
            // Not to be had is not gone: of a run that lives, nothing may be undone.
            Err(e) => !is_gone(&e),
        }
    }

    /// Changes the journal and writes it, atomically.
    ///
    /// # Errors
    /// When it cannot be written; then what was about to be attempted must not be.
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> std::io::Result<()> {
        change(&mut self.state);
        self.write()
    }

    /// Notes the process of a session that was started a moment ago. Best effort: it ends without the agent, unless it is broken.
    pub fn note_session(&mut self, hook: &str, pid: u32) {
        let Ok(pid) = i32::try_from(pid) else { return };
        let Some(pid_start) = start_time(pid) else { return };
        let _ = self.update(|s| s.sessions.push(SessionProcess { hook: hook.to_owned(), pid, pid_start }));
    }

    /// Writes it as it stands.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let temporary = self.path.with_extension("new");
        // It has the hooks' environments in it, which may hold a password.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&self.state)?)?;
        drop(file);
        std::fs::rename(&temporary, &self.path)
    }

    /// Is a thread of the run's process left, in exit() or inside FIFREEZE?
    #[must_use]
    pub fn lingers(&self) -> bool {
        Self::left(self.state.pid, self.state.pid_start)
    }

    /// The same of a process by its id and start time.
    #[must_use]
    pub fn left(pid: i32, pid_start: u64) -> bool {
        // The leader, even as a zombie, keeps its start time: another one means that the pid is used again.
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) if parse(&text).is_some_and(|(_, start)| start != pid_start) => return false,
            Err(e) if is_gone(&e) => return false,
            _ => {}
        }
        let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
            Ok(threads) => threads,
            Err(e) => return !is_gone(&e),
        };
        threads.flatten().any(|t| {
            let path = t.path().join("stat");
            stat(&path.to_string_lossy()).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
        })
    }

    /// How long ago the run was started.
    #[must_use]
    pub fn age(&self) -> std::time::Duration {
        // Zero for a start in the future: the clock was set, and the careful reading is "just now".
        jiff::Timestamp::now().duration_since(self.state.started).try_into().unwrap_or_default()
    }

    /// Nothing is left to undo.
    pub fn close(self) {
        // A journal left behind is undone once more at the next start, which is harmless.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a plan freezes.
#[must_use]
pub fn will_freeze(plan: &Plan) -> Vec<FrozenMount> {
    let frozen = plan.filesystems.iter().filter(|f| f.method == Method::Freeze);
    frozen.map(|f| FrozenMount { dev: f.dev, mount_point: f.mount_point.clone() }).collect()
}

/// Makes a folder below /run, for root alone.
pub(super) fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Where journals are, and what else belongs to a run.
#[must_use]
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("runs")
}

/// Start time of a live process. A zombie has none: it will run nothing more.
fn start_time(pid: i32) -> Option<u64> {
    let (state, start) = stat(&format!("/proc/{pid}/stat"))?;
    (state != 'Z').then_some(start)
}

/// There is no such process any more: ENOENT at open, ESRCH at read.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

/// The process group and the start time of a process that is no zombie: fields 5 and 22 of /proc/PID/stat.
pub(crate) fn group_and_start(pid: i32) -> Option<(i32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, start) = parse(&text)?;
    let (_, rest) = text.rsplit_once(')')?;
    let group = rest.split_ascii_whitespace().nth(2)?.parse().ok()?;
    (state != 'Z').then_some((group, start))
}

/// State and start time: fields 3 and 22 of /proc/PID/stat. The command name in field 2 may hold spaces and parentheses.
fn stat(path: &str) -> Option<(char, u64)> {
    parse(&std::fs::read_to_string(path).ok()?)
}

fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_run_is_not_dead_and_a_reused_pid_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), &RunId::generate(), "p", |_| ()).unwrap();
        assert!(Journal::dead(dir.path()).is_empty());
        journal.update(|s| s.pid_start += 1).unwrap();
        let dead = Journal::dead(dir.path());
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].as_ref().unwrap().state.run, journal.state.run);
        journal.close();
        assert!(Journal::dead(dir.path()).is_empty());
    }

    /// No fd left, or hidden by hidepid: nothing says that it is dead.
    #[test]
    fn only_no_such_process_means_dead() {
        use std::io::Error;
        for errno in [nix::errno::Errno::ENOENT as i32, nix::errno::Errno::ESRCH as i32] {
            assert!(is_gone(&Error::from_raw_os_error(errno)));
        }
        for errno in [
            nix::errno::Errno::EMFILE as i32,
            nix::errno::Errno::ENFILE as i32,
            nix::errno::Errno::ENOMEM as i32,
            nix::errno::Errno::EACCES as i32,
        ] {
            assert!(!is_gone(&Error::from_raw_os_error(errno)));
        }
    }

    /// Hooks may have passwords in their environment.
    #[test]
    fn only_root_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let journal = Journal::start(&run_dir, &RunId::generate(), "p", |_| ()).unwrap();
        for path in [run_dir.as_path(), &run_dir.join("runs"), &journal.path] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn an_unreadable_journal_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("runs")).unwrap();
        let file = dir.path().join("runs/x.json");
        std::fs::write(&file, "{").unwrap();
        assert!(Journal::dead(dir.path())[0].is_err());
        assert!(file.exists());
    }
}
