//! Applications are held before the window and let go after it.
//!
//! ```text
//! expand ─→ due ─→ journal ─→ hold ─┐   one at a time, in order
//!            ↑                      │   (sessions go on: Quiesced)
//!            └──────────────────────┘
//!                     release of every attempted hook, in reverse, past failures
//!                     finish: commands for the end of the run
//! ```
//!
//! In: hooks in order and what they are told ([`HookEnv`]). Out: one [`HookOutcome`] a command. Must never: run anything inside the
//! frozen window, leave an attempted hook without its release, or outlive a hook's timeout by more than [`process::GRACE`] twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::future::{Future, pending};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use self::databases::{Refusal, Start, Task};
use self::process::Program;
use self::session_process::Session;
use crate::config::settings::{CommandHook, Hook, HookKind, Mysql, OnFailure, SessionHook};

mod query;
pub mod databases;
pub mod process;
mod container;
mod directory;
mod environment;
pub(crate) mod orphans;
mod outcome;
pub mod protocol;
pub mod session_process;
#[cfg(test)]
mod tests;
pub mod systemd;
pub mod user;

pub use directory::expand;
pub use environment::{HookEnv, PATH, RunResult};
pub use outcome::{Exit, HookOutcome, HookStatus, Phase};

/// What holds, by the hooks' names. Whoever cleans up after a dead run has nothing here: sessions ended with it.
#[derive(Debug, Default)]
pub struct Quiesced {
    sessions: BTreeMap<String, Session>,
    /// Units and containers: nothing of this process keeps them as they are.
    unattended: BTreeSet<String>,
    /// Those of them that were not as they were left, and why.
    released_early: BTreeMap<String, String>,
}

impl Quiesced {
    /// Looks at all of them before the first is let go: starting one unit may start another.
    pub async fn find_released_early(&mut self, hooks: &[Hook], env: &HookEnv) {
        for hook in hooks {
            if self.unattended.remove(&hook.name)
                && let Some(why) = released_early(hook, env).await
            {
                self.released_early.insert(hook.name.clone(), why);
            }
        }
    }

    /// Is there a session of this hook?
    #[must_use]
    pub fn has_session(&self, hook: &str) -> bool {
        self.sessions.contains_key(hook)
    }
}

/// What there is to hold of this hook: the hook itself, less of it (units that do not run), or nothing.
///
/// # Errors
/// When it cannot be told: the hook has failed, and was not attempted.
pub async fn due(hook: &Hook, env: &HookEnv) -> Result<Option<Hook>, HookOutcome> {
    match &hook.kind {
        HookKind::Systemd(units) => systemd::due(hook, units, env).await,
        HookKind::Container(containers) => container::due(hook, containers, env).await,
        HookKind::Mysql(mysql) if mysql.stop_replica => {
            let asked = ask_database(hook, env, Task::Check, Phase::Pre).await;
            if !asked.succeeded() {
                return Err(asked);
            }
            // In the journal before anything is stopped: whoever cleans up starts what ran, and nothing else.
            let stopping = databases::running_sql_threads(&asked.facts);
            Ok(Some(Hook { kind: HookKind::Mysql(Mysql { stopping, ..mysql.clone() }), ..hook.clone() }))
        }
        _ => Ok(Some(hook.clone())),
    }
}

/// Holds one application, to the hook's timeout at most. A hook without anything to run succeeds at once. When `cancel` completes it
/// is stopped: SIGTERM, then SIGKILL after [`process::GRACE`]. The release is owed all the same.
///
/// Dropping the future kills the process group at once (SIGKILL).
pub async fn quiesce_one(
    hook: &Hook,
    env: &HookEnv,
    quiesced: &mut Quiesced,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    quiesce_one_noting(hook, env, quiesced, |_| (), cancel).await
}

/// The same; the process id of a session is `noted` as soon as there is one.
pub async fn quiesce_one_noting(
    hook: &Hook,
    env: &HookEnv,
    quiesced: &mut Quiesced,
    noted: impl FnOnce(u32),
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let vars = vars(hook, env, Phase::Pre);
    let (outcome, session) = match &hook.kind {
        HookKind::Session(s) => {
            let program = Program { argv: &s.command, user: s.user.as_deref(), vars: &vars };
            session_process::start(&hook.name, program, None, hook.timeout, noted, cancel).await
        }
        HookKind::Postgresql(_) | HookKind::Mysql(_) | HookKind::Redis(_) => {
            let (argv, first) = match database_process(hook, env, Task::Quiesce) {
                Ok(process) => process,
                Err(refusal) => return refused(hook, Phase::Pre, refusal),
            };
            let program = Program { argv: &argv, user: None, vars: &vars };
            // It keeps to the timeout itself, and says what it waited for; this is for one that hangs.
            let limit = hook.timeout * 2 + process::GRACE;
            session_process::start(&hook.name, program, Some(&first), limit, noted, cancel).await
        }
        kind => {
            let outcome = commands(hook, Phase::Pre, env, cancel).await;
            if outcome.succeeded() && matches!(kind, HookKind::Systemd(_) | HookKind::Container(_)) {
                quiesced.unattended.insert(hook.name.clone());
            }
            return outcome;
        }
    };
    if let Some(session) = session {
        quiesced.sessions.insert(hook.name.clone(), session);
    }
    outcome
}

/// Releases one hook. A failure is logged. It cannot be cancelled short of dropping it: a signal that stops the run must not stop this.
#[must_use = "a hook may not have been released"]
pub async fn release_one(hook: &Hook, env: &HookEnv, quiesced: &mut Quiesced) -> HookOutcome {
    let outcome = match (quiesced.sessions.remove(&hook.name), &hook.kind) {
        (Some(session), _) => {
            let limit = if matches!(hook.kind, HookKind::Session(_)) {
                hook.timeout
            } else {
                hook.timeout + process::GRACE
            };
            let outcome = session.release(limit).await;
            // It was killed, or could not let go: what a connection's end does not undo is undone from a new one.
            if outcome.lost {
                let undone = recover(hook, env).await;
                let none = matches!(&hook.kind, HookKind::Session(SessionHook { release: None, .. }));
                if none || !undone.succeeded() {
                    tracing::error!(hook = hook.name, "it may still be held: {undone}");
                }
            }
            outcome
        }
        // It never held, or its agent is dead, and it with it.
        (None, _) if hook.is_session() => recover(hook, env).await,
        (None, _) => {
            let released_early = quiesced.released_early.remove(&hook.name);
            let mut outcome = commands(hook, Phase::Post, env, pending()).await;
            if let Some(why) = released_early {
                outcome.lost = true;
                if outcome.succeeded() {
                    outcome.status = HookStatus::Refused(why);
                }
            }
            outcome
        }
    };
    if !outcome.succeeded() {
        tracing::error!(hook = hook.name, "{outcome}");
    }
    outcome
}

/// Releases commands that hold nothing themselves, in reverse order, going on past failures.
#[must_use = "a hook may not have been released"]
pub async fn release(attempted: &[Hook], env: &HookEnv) -> Vec<HookOutcome> {
    let mut outcomes = Vec::with_capacity(attempted.len());
    for hook in attempted.iter().rev() {
        outcomes.push(release_one(hook, env, &mut Quiesced::default()).await);
    }
    outcomes
}

/// Why what was held by somebody else's hand was not held until now. Nobody sees to it in between that it stays so.
async fn released_early(hook: &Hook, env: &HookEnv) -> Option<String> {
    match &hook.kind {
        HookKind::Systemd(units) => systemd::released_early(units, env).await,
        HookKind::Container(containers) => container::released_early(containers, env).await,
        _ => None,
    }
}

/// Undoes what a session may have left that is gone.
async fn recover(hook: &Hook, env: &HookEnv) -> HookOutcome {
    match &hook.kind {
        HookKind::Postgresql(_) | HookKind::Mysql(_) | HookKind::Redis(_) => {
            ask_database(hook, env, Task::Recover, Phase::Post).await
        }
        HookKind::Session(SessionHook { release: Some(argv), .. }) => {
            run(hook, Phase::Post, argv, env, pending()).await
        }
        _ => HookOutcome::new(&hook.name, Phase::Post, HookStatus::Ok, Duration::ZERO, String::new()),
    }
}

/// Could this hook hold? Only a database is asked; nothing is changed.
pub async fn check(hook: &Hook, env: &HookEnv) -> Option<HookOutcome> {
    match &hook.kind {
        HookKind::Postgresql(_) | HookKind::Mysql(_) | HookKind::Redis(_) => {
            Some(ask_database(hook, env, Task::Check, Phase::Pre).await)
        }
        _ => None,
    }
}

async fn ask_database(hook: &Hook, env: &HookEnv, task: Task, phase: Phase) -> HookOutcome {
    let vars = vars(hook, env, phase);
    let (argv, first) = match database_process(hook, env, task) {
        Ok(process) => process,
        Err(refusal) => return refused(hook, phase, refusal),
    };
    let program = Program { argv: &argv, user: None, vars: &vars };
    session_process::run(&hook.name, phase, program, &first, hook.timeout + process::GRACE).await
}

fn refused(hook: &Hook, phase: Phase, refusal: Refusal) -> HookOutcome {
    let Refusal { what, hint } = refusal;
    let status = HookStatus::Refused(what);
    HookOutcome { hint, ..HookOutcome::new(&hook.name, phase, status, Duration::ZERO, String::new()) }
}

/// The argv of the process that talks to a database, and its first line.
fn database_process(hook: &Hook, env: &HookEnv, task: Task) -> Result<(Vec<String>, String), Refusal> {
    let program = databases::program::find()?;
    let first = Start {
        version: databases::VERSION.to_owned(),
        task,
        name: hook.name.clone(),
        run: env.run_id.clone(),
        kind: hook.kind.clone(),
        set: env.set.clone(),
        timeout: hook.timeout,
        hold_limit: env.hold_limit,
    };
    // Plain values: it cannot fail, and an empty order is refused by whoever reads it.
    let first = serde_json::to_string(&first).unwrap_or_default();
    Ok((vec![program], first))
}

/// The commands for the end of a run, of the hooks that were attempted, in their order.
pub async fn finish(attempted: &[Hook], phase: Phase, env: &HookEnv) -> Vec<HookOutcome> {
    let mut outcomes = Vec::new();
    for hook in attempted.iter().filter(|h| argv(h, phase).is_some()) {
        outcomes.push(commands(hook, phase, env, pending()).await);
    }
    outcomes
}

/// What runs as plain commands.
async fn commands(hook: &Hook, phase: Phase, env: &HookEnv, cancel: impl Future<Output = ()>) -> HookOutcome {
    match &hook.kind {
        HookKind::Script(script) => directory::call(hook, script, phase, env, cancel).await,
        HookKind::Systemd(units) => systemd::call(hook, units, phase, env, cancel).await,
        HookKind::Container(containers) => container::call(hook, containers, phase, env, cancel).await,
        _ => match argv(hook, phase) {
            Some(argv) => run(hook, phase, argv, env, cancel).await,
            None => HookOutcome::new(&hook.name, phase, HookStatus::Ok, Duration::ZERO, String::new()),
        },
    }
}

/// One command of a hook.
async fn run(
    hook: &Hook,
    phase: Phase,
    argv: &[String],
    env: &HookEnv,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let vars = vars(hook, env, phase);
    let user = match &hook.kind {
        HookKind::Hook(CommandHook { user, .. }) | HookKind::Session(SessionHook { user, .. }) => {
            user.as_deref()
        }
        _ => None,
    };
    process::run(&hook.name, phase, Program { argv, user, vars: &vars }, hook.timeout, cancel).await
}

fn argv(hook: &Hook, phase: Phase) -> Option<&[String]> {
    let HookKind::Hook(h) = &hook.kind else { return None };
    let argv = match phase {
        Phase::Pre => &h.pre,
        Phase::Post => &h.post,
        Phase::Completed => &h.completed,
        Phase::Failed => &h.failed,
    };
    argv.as_deref()
}

/// The user's own variables come first: stillpoint's cannot be had otherwise.
fn vars(hook: &Hook, env: &HookEnv, phase: Phase) -> Vec<(String, OsString)> {
    let (own, user) = match &hook.kind {
        HookKind::Hook(CommandHook { environment, user, .. }) => (environment.clone(), user),
        HookKind::Session(s) => (s.environment.clone(), &s.user),
        _ => (BTreeMap::new(), &None),
    };
    let mut vars = env.vars(&hook.name, phase);
    if user.is_some() {
        // Root's home is not that user's; theirs is looked up once it is them.
        vars.retain(|(k, _)| k != "HOME");
    }
    vars.retain(|(k, _)| !own.contains_key(k));
    vars.extend(own.into_iter().map(|(k, v)| (k, v.into())));
    if matches!(&hook.kind, HookKind::Redis(redis) if redis.credential.is_some()) {
        // Where systemd put this service's credentials; the only variable of stillpoint's own that is handed on, and only to itself.
        let folder = std::env::var_os(databases::CREDENTIALS);
        vars.extend(folder.map(|folder| (databases::CREDENTIALS.to_owned(), folder)));
    }
    vars
}

/// What a failure to hold does to the run.
#[must_use]
pub fn aborts(hook: &Hook, outcome: &HookOutcome) -> bool {
    match outcome.status {
        HookStatus::Ok | HookStatus::NotRunning => false,
        // Somebody wants the run to end, whatever the hook's policy says.
        HookStatus::Cancelled => true,
        _ => hook.on_failure == OnFailure::Abort,
    }
}

/// A hook whose command cannot be run. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[error("hook `{hook}`: cannot run its {edge} command {}", program.display())]
pub struct NotExecutable {
    /// The hook.
    pub hook: String,
    /// Which of its commands.
    pub edge: &'static str,
    /// The program.
    pub program: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl NotExecutable {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let program = self.program.display();
        match self.source.kind() {
            io::ErrorKind::NotFound => Some(format!("install {program}, or correct the hook's argv")),
            io::ErrorKind::PermissionDenied => {
                Some(format!("chmod +x {program}, and see that its filesystem is not mounted noexec"))
            }
            _ => None,
        }
    }
}

/// Commands of hooks that cannot be run: not there, not a file or not executable. A post command that is missing has to be found
/// while nothing is held.
pub fn not_executable(hooks: &[Hook]) -> impl Iterator<Item = NotExecutable> {
    let commands = hooks.iter().flat_map(|h| h.commands().map(move |(edge, argv)| (h, edge, argv)));
    commands.filter_map(|(hook, edge, argv)| {
        let program = argv.first()?;
        let source = executable(Path::new(program)).err()?;
        Some(NotExecutable { hook: hook.name.clone(), edge, program: program.into(), source })
    })
}

fn executable(program: &Path) -> io::Result<()> {
    if !std::fs::metadata(program)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    // Asked of the kernel rather than read from the mode: a noexec mount counts.
    access(program, AccessFlags::X_OK).map_err(io::Error::from)
}
