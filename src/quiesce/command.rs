//! `[[hook]]`: a command before the window and one after it; two more for the end of the run.
//!
//! In: the commands. Out: their outcomes. Must never: run `post` for a `pre` that was not attempted (the
//! journal says).

use std::ffi::OsString;
use std::future::{Future, pending};

use super::outcome::{HookOutcome, HookStatus, Phase};
use super::session_process::Session;
use super::verbs::{Application, Verbs, variables};
use crate::config::settings::CommandHook;

impl Verbs for CommandHook {
    async fn quiesce(
        &self,
        app: &Application<'_>,
        _noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        (run(app, Phase::Pre, self.pre.as_deref(), cancel).await, None)
    }

    /// Runs `post` with no knowledge of how far `pre` came before the run died: the command has to find
    /// that out.
    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        run(app, Phase::Post, self.post.as_deref(), pending()).await
    }

    async fn finish(&self, app: &Application<'_>, phase: Phase) -> Option<HookOutcome> {
        let argv = match phase {
            Phase::Completed => &self.completed,
            Phase::Failed => &self.failed,
            Phase::Pre | Phase::Post => &None,
        };
        match argv {
            Some(argv) => Some(app.run(phase, argv, pending()).await),
            None => None,
        }
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn variables(&self) -> Vec<(String, OsString)> {
        variables(&self.environment)
    }
}

/// Runs one command. A command that is not configured counts as a success.
async fn run(
    app: &Application<'_>,
    phase: Phase,
    argv: Option<&[String]>,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    match argv {
        Some(argv) => app.run(phase, argv, cancel).await,
        None => app.outcome(phase, HookStatus::Ok),
    }
}
