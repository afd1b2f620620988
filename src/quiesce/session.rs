//! `[[session]]`: a process of the user's that keeps an application quiesced until it is told to release it.
//!
//! In: its command, and one that undoes what it may have left. Out: outcomes, and the running process. Must
//! never: take one for released that nobody saw release.

use std::ffi::OsString;
use std::future::{Future, pending};
use std::time::Duration;

use super::outcome::{HookOutcome, HookStatus, Phase};
use super::process::Program;
use super::session_process::{self, Session};
use super::verbs::{Application, Verbs, variables};
use crate::config::settings::SessionHook;

impl Verbs for SessionHook {
    async fn quiesce(
        &self,
        app: &Application<'_>,
        noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>) {
        let vars = app.vars(Phase::Pre);
        if let Some(refused) = app.changeable(Phase::Pre, &self.command, &vars) {
            return (refused, None);
        }
        let program = Program { argv: &self.command, user: self.user.as_deref(), vars: &vars };
        session_process::start(&app.hook.name, program, None, app.hook.timeout, noted, cancel).await
    }

    async fn release(&self, app: &Application<'_>, session: Option<Session>) -> HookOutcome {
        match session {
            Some(session) => end(self, app, session, app.hook.timeout, self.release.is_some()).await,
            None => self.recover(app).await,
        }
    }

    async fn recover(&self, app: &Application<'_>) -> HookOutcome {
        match &self.release {
            Some(argv) => app.run(Phase::Post, argv, pending()).await,
            None => app.outcome(Phase::Post, HookStatus::Ok),
        }
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn variables(&self) -> Vec<(String, OsString)> {
        variables(&self.environment)
    }
}

/// Tells a session to release, and waits for its end. When it was killed or could not release, runs the
/// recovery of its `kind`, if that `undoes` anything that the end of the process does not.
pub(super) async fn end(
    kind: &impl Verbs,
    app: &Application<'_>,
    session: Session,
    limit: Duration,
    undoes: bool,
) -> HookOutcome {
    let outcome = session.release(limit).await;
    if outcome.lost {
        let undone = kind.recover(app).await;
        if !undoes || !undone.succeeded() {
            tracing::error!(hook = app.hook.name, "it may still be quiesced: {undone}");
        }
    }
    outcome
}
