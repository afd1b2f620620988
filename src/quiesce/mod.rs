//! Applications are quiesced before the window and released after it.
//!
//! ```text
//! expand ─→ due ─→ journal ─→ quiesce ─┐   one at a time, in order
//!            ↑                         │   (sessions go on: Quiesced)
//!            └─────────────────────────┘
//!                     release of every attempted hook, in reverse, past failures
//!                     finish: commands for the end of the run
//! ```
//!
//! What differs between kinds of applications is in a file each (`command`, `session`, `directory`,
//! `systemd`, `container`, and a folder a database), behind one trait: [`verbs`]. The rest is here, and the
//! same for all.
//!
//! In: hooks in order and what they are told ([`HookEnv`]). Out: one [`HookOutcome`] a command. Must never:
//! run anything inside the frozen window, leave an attempted hook without its release, or outlive a hook's
//! timeout by more than [`process::GRACE`] twice.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use self::session_process::Session;
use self::verbs::{Application, Narrowed, Verbs as _};
use crate::config::hooks::with_settings;
use crate::config::settings::{Hook, OnFailure};
use crate::host::trust::{self, Loose, Trusted};

mod command;
mod container;
pub mod databases;
mod directory;
pub(crate) mod environment;
pub(crate) mod orphans;
mod outcome;
pub mod process;
pub(crate) mod protocol;
pub(crate) mod query;
mod session;
pub(crate) mod session_process;
mod shell_words;
mod started;
pub(crate) mod systemctl;
mod systemd;
#[cfg(test)]
mod tests;
pub(crate) mod told;
pub mod trial;
pub mod user;
mod verbs;

pub(crate) use environment::PATH;
pub use environment::{HookEnv, RunResult, SetMount};
pub use outcome::{Exit, HookOutcome, HookStatus, Phase};

/// What this process has quiesced, by the hooks' names. It is empty in a recovery of a dead run, whose
/// sessions have ended with it.
#[derive(Debug, Default)]
pub(crate) struct Quiesced {
    /// Processes that keep something quiesced.
    sessions: BTreeMap<String, Session>,
    /// Hooks that need no process to stay quiesced, such as stopped units and paused containers. Somebody
    /// else could start or unpause these.
    unattended: BTreeSet<String>,
    /// Those of them that somebody else has released, and the reason for saying so.
    released_early: BTreeMap<String, String>,
}

impl Quiesced {
    /// Finds what somebody else has released. All are examined before the first release, because starting
    /// one unit may start another.
    pub async fn find_released_early(&mut self, hooks: &[Hook], env: &HookEnv) {
        for hook in hooks {
            if !self.unattended.remove(&hook.name) {
                continue;
            }
            let app = Application { hook, env };
            if let Some(why) = with_settings!(&hook.kind, settings => settings.released_early(&app).await) {
                self.released_early.insert(hook.name.clone(), why);
            }
        }
    }

    /// True when a session of this hook runs.
    #[must_use]
    pub fn has_session(&self, hook: &str) -> bool {
        self.sessions.contains_key(hook)
    }
}

/// Replaces each hook that stands for several, such as a hook directory, by those.
///
/// # Errors
/// When it cannot be read what a hook stands for; the text names the hook.
pub(crate) fn expand(hooks: &[Hook]) -> Result<Vec<Hook>, String> {
    let mut all = Vec::with_capacity(hooks.len());
    for hook in hooks {
        let members = with_settings!(&hook.kind, settings => settings.members(hook))?;
        if members.is_empty() {
            all.push(hook.clone());
        }
        all.extend(members);
    }
    Ok(all)
}

/// Finds out whether this hook could be quiesced, without changing anything. None for a kind that has no
/// such check.
pub async fn check(hook: &Hook, env: &HookEnv) -> Option<HookOutcome> {
    let app = Application { hook, env };
    with_settings!(&hook.kind, settings => settings.check(&app).await)
}

/// What there is to quiesce of this hook: the hook itself, less of it (units that do not run), or nothing.
///
/// # Errors
/// When this cannot be found out: the hook has failed, and was not attempted.
pub(crate) async fn due(hook: &Hook, env: &HookEnv) -> Result<Option<Hook>, HookOutcome> {
    let app = Application { hook, env };
    Ok(match with_settings!(&hook.kind, settings => settings.narrow(&app).await)? {
        Narrowed::All => Some(hook.clone()),
        Narrowed::Only(kind) => Some(Hook { kind, ..hook.clone() }),
        Narrowed::Nothing => None,
    })
}

/// Quiesces one application, to the hook's timeout at most. When `cancel` completes it is stopped: SIGTERM,
/// then SIGKILL after [`process::GRACE`]. The release is owed all the same.
///
/// Dropping the future kills the process group at once (SIGKILL).
pub(crate) async fn quiesce_one(
    hook: &Hook,
    env: &HookEnv,
    quiesced: &mut Quiesced,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    quiesce_one_noting(hook, env, quiesced, |_| (), cancel).await
}

/// As [`quiesce_one`]; calls `noted` with the process id of a session as soon as there is one.
pub(crate) async fn quiesce_one_noting(
    hook: &Hook,
    env: &HookEnv,
    quiesced: &mut Quiesced,
    noted: impl FnOnce(u32),
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let app = Application { hook, env };
    let (outcome, session) =
        with_settings!(&hook.kind, settings => settings.quiesce(&app, noted, cancel).await);
    if let Some(session) = session {
        quiesced.sessions.insert(hook.name.clone(), session);
    } else if outcome.succeeded() {
        quiesced.unattended.insert(hook.name.clone());
    }
    outcome
}

/// Releases one hook, and logs a failure. A signal that ends the run does not cancel this.
#[must_use = "a hook may not have been released"]
pub(crate) async fn release_one(hook: &Hook, env: &HookEnv, quiesced: &mut Quiesced) -> HookOutcome {
    let app = Application { hook, env };
    let session = quiesced.sessions.remove(&hook.name);
    let mut outcome = with_settings!(&hook.kind, settings => settings.release(&app, session).await);
    if let Some(why) = quiesced.released_early.remove(&hook.name) {
        outcome.lost = true;
        if outcome.succeeded() {
            outcome.status = HookStatus::Refused(why);
        }
    }
    if !outcome.succeeded() {
        tracing::error!(hook = hook.name, "{outcome}");
    }
    outcome
}

/// Releases hooks that no process keeps quiesced, in reverse order, going on past failures.
#[must_use = "a hook may not have been released"]
pub async fn release(attempted: &[Hook], env: &HookEnv) -> Vec<HookOutcome> {
    let mut outcomes = Vec::with_capacity(attempted.len());
    for hook in attempted.iter().rev() {
        outcomes.push(release_one(hook, env, &mut Quiesced::default()).await);
    }
    outcomes
}

/// The commands for the end of a run, of the hooks that were attempted, in their order.
pub async fn finish(attempted: &[Hook], phase: Phase, env: &HookEnv) -> Vec<HookOutcome> {
    let mut outcomes = Vec::new();
    for hook in attempted {
        let app = Application { hook, env };
        outcomes.extend(with_settings!(&hook.kind, settings => settings.finish(&app, phase).await));
    }
    outcomes
}

/// Files that a hook starts, as far as its commands tell, and folders whose content it starts.
#[must_use]
pub(crate) fn files(hook: &Hook) -> Vec<PathBuf> {
    let vars = with_settings!(&hook.kind, settings => settings.variables());
    let mut all = with_settings!(&hook.kind, settings => settings.files());
    let programs: Vec<_> = all.iter().map(|p| vec![p.to_string_lossy().into_owned()]).collect();
    all.extend(programs.iter().flat_map(|argv| started::files(argv, &vars)));
    all.extend(hook.commands().flat_map(|(_, argv)| started::files(argv, &vars)));
    all
}

/// Those of them that somebody else could change, each with the place by which. A hook that runs as another
/// user may start what is that user's.
#[must_use]
pub(crate) fn loose(hook: &Hook) -> Vec<(PathBuf, Loose)> {
    let files = files(hook);
    let found = |trusted| -> Vec<_> {
        let of = |file: &PathBuf| {
            let loose = trust::follow(file, trusted).loose;
            loose.into_iter().map(|l| (file.clone(), l)).collect::<Vec<_>>()
        };
        files.iter().flat_map(of).collect()
    };
    let own = found(Trusted::own());
    // The user is looked up only where it matters, because that may ask a directory server.
    let name = with_settings!(&hook.kind, settings => settings.user()).filter(|_| !own.is_empty());
    match name.and_then(|name| user::ids(name).ok()) {
        Some((user, group)) => found(Trusted::own().and(user, group)),
        None => own,
    }
}

/// Why a command is not started.
fn not_started(loose: &Loose) -> String {
    format!("{loose}: whoever can change it could run commands as root")
}

/// True when this outcome has to end the run.
#[must_use]
pub fn aborts(hook: &Hook, outcome: &HookOutcome) -> bool {
    match outcome.status {
        HookStatus::Ok | HookStatus::NotRunning => false,
        // A signal came: the run ends, whatever `on_failure` says.
        HookStatus::Cancelled => true,
        _ => hook.on_failure == OnFailure::Abort,
    }
}

/// A hook whose command cannot be run. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[error("hook `{hook}`: cannot run its {edge} command {}", program.display())]
pub(crate) struct NotExecutable {
    pub hook: String,
    /// The setting that has the command: `pre`, `post`, …
    pub edge: &'static str,
    pub program: PathBuf,
    pub source: io::Error,
}

impl NotExecutable {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let program = self.program.display();
        let there = self.program.exists();
        match self.source.kind() {
            io::ErrorKind::NotFound if there => Some(format!(
                "install what it needs, or correct its first line (line ends of Windows: sed -i 's/\\r$//' {program})"
            )),
            io::ErrorKind::NotFound => Some(format!("install {program}, or correct the hook's argv")),
            io::ErrorKind::PermissionDenied => Some(format!(
                "chmod +x {program}, and see that its filesystem is not mounted noexec and that the hook's `user` \
                 can reach it"
            )),
            io::ErrorKind::InvalidInput => Some("create that user, or correct the hook's `user`".to_owned()),
            _ if executable(&self.program).is_ok() => Some(format!(
                "a script needs a first line such as #!/bin/sh, and a program has to be of this machine: see `file \
                 {program}`"
            )),
            _ => None,
        }
    }
}

fn executable(program: &Path) -> io::Result<()> {
    if !std::fs::metadata(program)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    // access(2) instead of the file's mode, because a noexec mount counts too.
    access(program, AccessFlags::X_OK).map_err(io::Error::from)
}
