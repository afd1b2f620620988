//! The state of a run: its journal, its applications, its window, and what it mounted again.
//!
//! In: the results of each stage of [`super::run`]. Out: the same, for the next stages. Must never: decide
//! anything.

use std::path::PathBuf;
use std::time::Duration;

use super::applications::Applications;
use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::journal::{Created, Journal, State};
use super::unmounted::Remounted;
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::window::{Recheck, Thawed};

#[derive(Debug, Default)]
pub(super) struct Window {
    /// What was measured; none when preparing failed, so that nothing was frozen.
    pub thawed: Option<Thawed>,
    /// What is asked once everything is thawed.
    pub recheck: Recheck,
    /// How long everything was frozen for the goal's one thing; none when it was not reached.
    pub call: Option<Duration>,
    /// Why the window failed, if it did.
    pub(crate) failure: Option<Failure>,
}

impl Window {
    /// The run failed before the window.
    pub fn never(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Waits for the last checks, for `limit` at most. Of a run that has failed nothing has to be proven.
    pub async fn recheck(&mut self, limit: Duration, interrupt: &mut Interrupt) {
        if let (Some(thawed), None) = (&mut self.thawed, &self.failure) {
            self.recheck.tell(thawed, limit, interrupt).await;
        }
    }

    /// Mount points that may still be frozen.
    pub fn still_frozen(&self) -> &[PathBuf] {
        self.thawed.as_ref().map(|t| t.still_frozen.as_slice()).unwrap_or_default()
    }
}

/// A run from the first line of its journal to its end.
#[derive(Debug)]
pub(super) struct Progress {
    pub journal: Journal,
    pub applications: Applications,
    pub window: Window,
    pub remounted: Remounted,
    /// What could have ended the watchdog together with this process.
    pub watchdog_shares: Vec<String>,
    /// Ends the repeating of calls once everything is thawed; nothing else heeds it then.
    pub interrupt: Interrupt,
}

impl Progress {
    /// Starts the journal: from here on something may have to be undone.
    ///
    /// `window` is the longest that everything may stay frozen; `note` adds to the journal what is special to
    /// the goal.
    pub fn begin<E>(
        env: &Environment<'_, E>,
        job: &Job<'_>,
        window: Duration,
        interrupt: &Interrupt,
        note: impl FnOnce(&mut State),
    ) -> Result<Self, Error> {
        let started = Journal::start(env.run_dir, &job.run, &job.plan.name, note);
        let journal = started.map_err(|e| {
            let what = format!("cannot write the journal in {}: {e}", env.run_dir.display());
            Error::new(Exit::Permission, what)
        })?;
        Ok(Self {
            journal,
            applications: Applications::new(job, window),
            window: Window::default(),
            remounted: Remounted::default(),
            watchdog_shares: Vec::new(),
            interrupt: interrupt.clone(),
        })
    }

    /// Updates the environment that hooks get, once everything is thawed and mounted again.
    pub fn inform_applications(&mut self) {
        let told = &mut self.applications.env;
        told.not_mounted = self.remounted.not_mounted();
        told.frozen = self.window.call.is_some();
    }

    /// Closes the journal when nothing is owed; else it stays, for the next start and ExecStopPost.
    pub fn close(mut self) {
        let state = &self.journal.state;
        let owed = !state.attempted.is_empty() || !state.unmounted.is_empty();
        // A look-up that found nothing proves nothing, so the next start looks again; it also tags what still
        // lacks its verdict.
        if state.created == Created::No && !owed && self.window.still_frozen().is_empty() {
            self.journal.close();
        } else {
            let _ = self.journal.update(|state| state.ended = true);
        }
    }
}
