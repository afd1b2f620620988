//! Hooks: applications are held before the window and let go after it.
//!
//! ```text
//! Quiesce::new ── attempt() ─→ journal ─→ run_pre ─┐   one at a time, in order
//!                    ↑                             │
//!                    └─────────────────────────────┘
//!                 release() ─→ run_post of every attempted hook, in reverse, past failures
//! ```
//!
//! In: hooks in order and what they are told ([`HookEnv`]). Out: one [`HookOutcome`] a command. Must never: run inside the
//! frozen window, leave an attempted hook without its post command, or outlive a hook's timeout by more than
//! [`command::GRACE`] twice.

use std::future::{Future, pending};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use crate::config::settings::{Hook, OnFailure};

pub mod command;
mod env;
mod outcome;
#[cfg(test)]
mod tests;
pub mod units;

pub use env::{HookEnv, PATH, RunResult};
pub use outcome::{Exit, HookOutcome, HookStatus, Phase};

/// The hooks of a run, and how far it came with them.
#[derive(Debug)]
#[must_use = "attempted hooks have to be released"]
pub struct Quiesce<'a> {
    hooks: &'a [Hook],
    attempted: usize,
}

impl<'a> Quiesce<'a> {
    /// Nothing attempted yet.
    pub fn new(hooks: &'a [Hook]) -> Self {
        Self { hooks, attempted: 0 }
    }

    /// Marks the next hook as attempted and returns it; none after the last. The caller journals
    /// [`Quiesce::attempted`] before it starts the hook, since from then on the post command is owed.
    pub fn attempt(&mut self) -> Option<&'a Hook> {
        let hook = self.hooks.get(self.attempted)?;
        self.attempted += 1;
        Some(hook)
    }

    /// The hooks that are owed their post command, in the order they were attempted.
    #[must_use]
    pub fn attempted(&self) -> &'a [Hook] {
        &self.hooks[..self.attempted]
    }

    /// Runs what is owed; see [`release`].
    #[must_use = "a hook may not have been released"]
    pub async fn release(self, env: &HookEnv) -> Vec<HookOutcome> {
        release(self.attempted(), env).await
    }
}

/// Runs the pre command to its end or its timeout. A hook without one succeeds at once.
///
/// Dropping the future kills the command's process group at once (SIGKILL).
pub async fn run_pre(hook: &Hook, env: &HookEnv) -> HookOutcome {
    run_pre_until(hook, env, pending()).await
}

/// [`run_pre`], stopped early when `cancel` completes: SIGTERM, then SIGKILL after [`command::GRACE`]. The post command is
/// owed all the same.
pub async fn run_pre_until(hook: &Hook, env: &HookEnv, cancel: impl Future<Output = ()>) -> HookOutcome {
    run(hook, Phase::Pre, env, cancel).await
}

/// Runs the post command to its end or its timeout. A hook without one succeeds at once.
pub async fn run_post(hook: &Hook, env: &HookEnv) -> HookOutcome {
    run(hook, Phase::Post, env, pending()).await
}

/// Runs the post commands of `attempted` in reverse order, going on past failures. It cannot be cancelled short of dropping
/// it: a signal that stops the run must not stop this.
#[must_use = "a hook may not have been released"]
pub async fn release(attempted: &[Hook], env: &HookEnv) -> Vec<HookOutcome> {
    let mut outcomes = Vec::with_capacity(attempted.len());
    for hook in attempted.iter().rev() {
        outcomes.push(release_one(hook, env).await);
    }
    outcomes
}

/// One of these. A failure is logged.
#[must_use = "a hook may not have been released"]
pub async fn release_one(hook: &Hook, env: &HookEnv) -> HookOutcome {
    let outcome = run_post(hook, env).await;
    if !outcome.succeeded() {
        tracing::error!(hook = hook.name, "{outcome}");
    }
    outcome
}

async fn run(hook: &Hook, phase: Phase, env: &HookEnv, cancel: impl Future<Output = ()>) -> HookOutcome {
    let argv = match phase {
        Phase::Pre => &hook.pre,
        Phase::Post => &hook.post,
    };
    let Some(argv) = argv else {
        return HookOutcome {
            name: hook.name.clone(),
            phase,
            status: HookStatus::Ok,
            duration: Duration::ZERO,
            output: String::new(),
        };
    };
    let vars = env.vars(&hook.name, phase);
    command::run(&hook.name, phase, argv, &vars, hook.timeout, cancel).await
}

/// What a failed pre command does to the run.
#[must_use]
pub fn aborts(hook: &Hook, outcome: &HookOutcome) -> bool {
    match outcome.status {
        HookStatus::Ok => false,
        // Somebody wants the run to end, whatever the hook's policy says.
        HookStatus::Cancelled => true,
        _ => hook.on_failure == OnFailure::Abort,
    }
}

/// A hook whose command cannot be run. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[error("hook `{hook}`: cannot run its {phase} command {}", program.display())]
pub struct NotExecutable {
    /// The hook.
    pub hook: String,
    /// Which of its commands.
    pub phase: Phase,
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
    let commands =
        hooks.iter().flat_map(|h| [(h, Phase::Pre, &h.pre), (h, Phase::Post, &h.post)].into_iter());
    commands.filter_map(|(hook, phase, argv)| {
        let program = argv.as_ref()?.first()?;
        let source = executable(Path::new(program)).err()?;
        Some(NotExecutable { hook: hook.name.clone(), phase, program: program.into(), source })
    })
}

fn executable(program: &Path) -> io::Result<()> {
    if !std::fs::metadata(program)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    // Asked of the kernel rather than read from the mode: a noexec mount counts.
    access(program, AccessFlags::X_OK).map_err(io::Error::from)
}
