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
use std::time::Duration;

use super::environment::HookEnv;
use super::outcome::{HookOutcome, HookStatus, Phase};
use super::process::{self, Program};
use super::session_process::Session;
use crate::config::hooks::with_settings;
use crate::config::settings::{Hook, HookKind};

/// One application of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Application<'a> {
    pub hook: &'a Hook,
    pub env: &'a HookEnv,
}

/// What there is to quiesce of an application, just before it is noted in the journal.
pub(super) enum Narrowed {
    /// All that is configured.
    All,
    /// Less of it, or in more detail: the units that run, the ids that names stand for.
    Only(HookKind),
    /// Nothing: it does not run.
    Nothing,
}

/// A kind of application.
pub(super) trait Verbs {
    /// Could it be quiesced? None where nobody is to be asked.
    async fn check(&self, _app: &Application<'_>) -> Option<HookOutcome> {
        None
    }

    /// What there is to quiesce now. An error says that this could not be found out: nothing was attempted.
    async fn narrow(&self, _app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        Ok(Narrowed::All)
    }

    /// Quiesces it. The process that keeps it so, where the kind has one, is `noted` by its id as soon as it
    /// is there. Once this was begun a release is owed, however it ended.
    async fn quiesce(
        &self,
        app: &Application<'_>,
        noted: impl FnOnce(u32),
        cancel: impl Future<Output = ()>,
    ) -> (HookOutcome, Option<Session>);

    /// Why it is not quiesced any more, where that can be seen from outside. Asked before anything is
    /// released.
    async fn released_early(&self, _app: &Application<'_>) -> Option<String> {
        None
    }

    /// Releases it. `session` is the process that keeps it quiesced, if there is one; without one there is
    /// only what a run that is gone would have left.
    async fn release(&self, app: &Application<'_>, _session: Option<Session>) -> HookOutcome {
        self.recover(app).await
    }

    /// Undoes what may be left of a quiesce that nobody has a process of any more. It has to be right when
    /// nothing is.
    async fn recover(&self, app: &Application<'_>) -> HookOutcome;

    /// The command for the end of a run of this phase, where the kind has one.
    async fn finish(&self, _app: &Application<'_>, _phase: Phase) -> Option<HookOutcome> {
        None
    }

    /// The hooks that take its place in a run. An error says what could not be read.
    fn members(&self, _hook: &Hook) -> Result<Vec<Hook>, String> {
        Ok(Vec::new())
    }

    /// Files that it runs, beside the commands of its settings, and folders whose content it runs.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
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

    /// It cannot be quiesced, or was not released, and that is known.
    pub fn refused(&self, phase: Phase, why: String, hint: Option<String>) -> HookOutcome {
        HookOutcome { hint, ..self.outcome(phase, HookStatus::Refused(why)) }
    }

    /// Runs one command within the hook's timeout.
    pub async fn run(&self, phase: Phase, argv: &[String], cancel: impl Future<Output = ()>) -> HookOutcome {
        let vars = self.vars(phase);
        let program = Program { argv, user: self.user(), vars: &vars };
        process::run(&self.hook.name, phase, program, self.hook.timeout, cancel).await
    }

    /// The user that the hook's commands run as.
    pub fn user(&self) -> Option<&str> {
        with_settings!(&self.hook.kind, settings => settings.user())
    }

    /// The whole environment of a command. The hook's own variables come first: stillpoint's cannot be had
    /// otherwise.
    pub fn vars(&self, phase: Phase) -> Vec<(String, OsString)> {
        let own = with_settings!(&self.hook.kind, settings => settings.variables());
        let mut vars = self.env.vars(&self.hook.name, phase);
        if self.user().is_some() {
            // Root's home is not that user's; theirs is looked up once it is them.
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
