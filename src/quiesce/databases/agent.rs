//! The agent's side of a database: the same for all of them, since the process that talks to it knows the
//! rest.
//!
//! In: a section's settings. Out: what that process says, as outcomes. Must never: connect to a database
//! itself: the clients are not in the agent's program.

use std::ffi::OsString;
use std::future::Future;

use super::super::environment::HookEnv;
use super::super::outcome::{HookOutcome, HookStatus, Phase};
use super::super::process::{GRACE, Program};
use super::super::session;
use super::super::session_process::{self, Session};
use super::super::verbs::{Application, Narrowed, Verbs};
use super::{BUILD, Refusal, Start, Task, program};
use crate::config::settings::Hook;

/// A section for a database: what differs between databases before anybody connects. The rest is the same for
/// all of them: [`Verbs`].
pub(in crate::quiesce) trait DatabaseHook {
    /// As [`Verbs::narrow`].
    async fn narrow(&self, _app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        Ok(Narrowed::All)
    }

    /// As [`Verbs::variables`].
    fn variables(&self) -> Vec<(String, OsString)> {
        Vec::new()
    }
}

impl<D: DatabaseHook> Verbs for D {
    async fn check(&self, app: &Application<'_>) -> Option<HookOutcome> {
        Some(ask(app, Task::Check, Phase::Pre).await)
    }

    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        DatabaseHook::narrow(self, app).await
    }

    async fn quiesce(
        &self,
        app: &Application<'_>,
        noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        let (argv, first) = match started_with(app.hook, app.env, Task::Quiesce) {
            Ok(process) => process,
            Err(refusal) => return (app.refused(Phase::Pre, refusal.what, refusal.hint), None),
        };
        let vars = app.vars(Phase::Pre);
        let program = Program { argv: &argv, user: None, vars: &vars };
        // The process keeps to the timeout itself, and says what it waited for; this is for one that hangs.
        let limit = app.hook.timeout * 2 + GRACE;
        session_process::start(&app.hook.name, program, Some(&first), limit, noted, cancel).await
    }

    async fn release(&self, app: &Application<'_>, session: Option<Session>) -> HookOutcome {
        match session {
            Some(session) => session::end(self, app, session, app.hook.timeout + GRACE, true).await,
            None => self.recover(app).await,
        }
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        ask(app, Task::Recover, Phase::Post).await
    }

    fn variables(&self) -> Vec<(String, OsString)> {
        DatabaseHook::variables(self)
    }
}

/// Runs the process for a task that ends by itself.
pub(super) async fn ask(app: &Application<'_>, task: Task, phase: Phase) -> HookOutcome {
    let (argv, first) = match started_with(app.hook, app.env, task) {
        Ok(process) => process,
        // Not `Refused`: the database was not asked, and whatever is owed to it still is.
        Err(refusal) => {
            let outcome = app.outcome(phase, HookStatus::NotStarted(refusal.what));
            return HookOutcome { hint: refusal.hint, ..outcome };
        }
    };
    let vars = app.vars(phase);
    let program = Program { argv: &argv, user: None, vars: &vars };
    session_process::run(&app.hook.name, phase, program, &first, app.hook.timeout + GRACE).await
}

/// The argv of the process, and its first line.
fn started_with(hook: &Hook, env: &HookEnv, task: Task) -> Result<(Vec<String>, String), Refusal> {
    let program = program::find()?;
    let first = Start {
        build: BUILD.to_owned(),
        task,
        name: hook.name.clone(),
        run: env.run_id.clone(),
        kind: hook.kind.clone(),
        set: env.set.clone(),
        timeout: hook.timeout,
        quiesce_limit: env.quiesce_limit,
    };
    // Plain values: it cannot fail, and an empty order is refused by whoever reads it.
    let first = serde_json::to_string(&first).unwrap_or_default();
    Ok((vec![program], first))
}
