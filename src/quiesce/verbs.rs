//! What is done with an application, whatever its kind: four verbs, and the questions around them.
//!
//! ```text
//! check      could it be quiesced? Nothing is changed       (preflight, doctor)
//! quiesce    from here on it writes nothing that matters    (before the window)
//! release    what this run has quiesced goes on             (after the thaw)
//! recover    what a run that is gone may have left goes on  (the next start)
//! ```
//!
//! In: the settings of a kind, the run as hooks are told it. Out: one [`HookOutcome`] a verb. Must never: be
//! decided outside of the kind: whoever does something with an application asks through this trait.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::environment::HookEnv;
use super::outcome::{HookOutcome, HookStatus, Phase};
use super::process::{self, Program};
use super::session_process::Session;
use super::started;
use crate::config::hooks::with_settings;
use crate::config::settings::{Hook, HookKind};
use crate::host::trust::Trusted;

#[derive(Debug, Clone, Copy)]
pub(super) struct Application<'a> {
    pub hook: &'a Hook,
    pub env: &'a HookEnv,
}

/// The part of an application that can be quiesced now, found just before it goes into the journal.
pub(super) enum Narrowed {
    /// All that is configured.
    All,
    /// A part of it, or the same in more detail: the units that run, the ids of the named containers.
    Only(HookKind),
    /// The application does not run, so nothing was quiesced.
    Nothing,
}

/// A kind of application.
pub(super) trait Verbs {
    /// Finds out whether it could be quiesced, without changing anything. None for a kind that has no such
    /// check.
    async fn check(&self, _app: &Application<'_>) -> Option<HookOutcome> {
        None
    }

    /// Finds the part that can be quiesced now. An error means that this could not be found out, and that
    /// nothing was attempted.
    async fn narrow(&self, _app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        Ok(Narrowed::All)
    }

    /// Quiesces it. For a kind with a process that keeps it quiesced, `noted` is called with its id as soon
    /// as it runs. Once this has begun, a release is owed, however it ended.
    async fn quiesce(
        &self,
        app: &Application<'_>,
        noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>);

    /// Why it is not quiesced any more; none when it is, or when that cannot be seen from outside. Called
    /// before anything is released.
    async fn released_early(&self, _app: &Application<'_>) -> Option<String> {
        None
    }

    /// Releases it. `session` is the process that keeps it quiesced, if there is one. Without one, this
    /// does what [`Verbs::recover`] does.
    async fn release(&self, app: &Application<'_>, _session: Option<Session>) -> HookOutcome {
        self.recover(app).await
    }

    /// Undoes what a dead run may have left quiesced. It must do no harm when nothing is left.
    async fn recover(&self, app: &Application<'_>) -> HookOutcome;

    /// Runs the command for the end of a run (`completed`, `failed`). None when there is none.
    async fn finish(&self, _app: &Application<'_>, _phase: Phase) -> Option<HookOutcome> {
        None
    }

    /// The hooks that replace it in a run, such as one for each script of a directory. An error says what
    /// could not be read.
    fn members(&self, _hook: &Hook) -> Result<Vec<Hook>, String> {
        Ok(Vec::new())
    }

    /// Further files that it runs, and folders whose content it runs; `doctor` checks who can change them.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The program of this host that its commands are of, such as systemctl; or its name, and why there is none.
    /// None for a kind whose commands are the user's own.
    fn program(&self) -> Option<Result<PathBuf, (&'static str, String)>> {
        None
    }

    /// The user its commands run as; none means stillpoint's own.
    fn user(&self) -> Option<&str> {
        None
    }

    /// Variables of its own for its commands.
    fn variables(&self) -> Vec<(String, OsString)> {
        Vec::new()
    }
}

impl Application<'_> {
    /// An outcome that needed no process.
    pub fn outcome(&self, phase: Phase, status: HookStatus) -> HookOutcome {
        HookOutcome::new(&self.hook.name, phase, status, Duration::ZERO, String::new())
    }

    /// The outcome of a failure that is known without a process.
    pub fn refused(&self, phase: Phase, why: String, hint: Option<String>) -> HookOutcome {
        HookOutcome { hint, ..self.outcome(phase, HookStatus::Refused(why)) }
    }

    /// Runs one command within the hook's timeout.
    pub async fn run(&self, phase: Phase, argv: &[String], cancel: impl Future<Output = ()>) -> HookOutcome {
        let vars = self.vars(phase);
        if let Some(refused) = self.changeable(phase, argv, &vars) {
            return refused;
        }
        let program = Program { argv, user: self.user(), vars: &vars };
        process::run(&self.hook.name, phase, program, Stdio::null(), self.hook.timeout, cancel).await
    }

    /// The outcome of a command that is not started, because somebody else than root could change what it
    /// starts. That was looked at before anything was touched, and may have changed since. For a command of
    /// another user, its own process looks, once it has become that user.
    pub fn changeable(
        &self,
        phase: Phase,
        argv: &[String],
        vars: &[(String, OsString)],
    ) -> Option<HookOutcome> {
        if self.user().is_some() {
            return None;
        }
        let loose = started::check(argv, vars, Trusted::own()).err()?;
        let outcome = self.outcome(phase, HookStatus::NotStarted(super::not_started(&loose)));
        Some(HookOutcome { hint: Some(loose.remedy), ..outcome })
    }

    /// The user that the hook's commands run as.
    pub fn user(&self) -> Option<&str> {
        with_settings!(&self.hook.kind, settings => settings.user())
    }

    /// The whole environment of a command. A variable of the hook's own replaces the one of the same name,
    /// such as PATH or HOME.
    pub(crate) fn vars(&self, phase: Phase) -> Vec<(String, OsString)> {
        let own = with_settings!(&self.hook.kind, settings => settings.variables());
        let mut vars = self.env.vars(&self.hook.name, phase);
        if self.user().is_some() {
            // HOME is root's. It is left out here, and set once the process has become the user.
            vars.retain(|(k, _)| k != "HOME");
        }
        vars.retain(|(k, _)| !own.iter().any(|(name, _)| name == k));
        vars.extend(own);
        vars
    }
}

/// A map of variables as commands take them.
pub(super) fn variables(own: &std::collections::BTreeMap<String, String>) -> Vec<(String, OsString)> {
    own.iter().map(|(k, v)| (k.clone(), v.into())).collect()
}
