//! What a run has come to so far: its journal, its applications, its window, what it mounted again.
//!
//! In: each stage of [`super::run`]. Out: what the next stages go by. Must never: decide anything.

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
use crate::window::Thawed;

/// What came of the window.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// What was seen; none when nothing was prepared to be frozen.
    pub thawed: Option<Thawed>,
    /// How long everything was frozen for the goal's one thing; none when it did not come to that.
    pub call: Option<Duration>,
    /// Why the run takes nothing, or nothing good.
    pub failure: Option<Failure>,
}

impl Window {
    /// It did not come to a window.
    pub fn never(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Mount points that may still be frozen.
    pub fn still_frozen(&self) -> &[PathBuf] {
        self.thawed.as_ref().map(|t| t.still_frozen.as_slice()).unwrap_or_default()
    }
}

/// A run that goes on.
#[derive(Debug)]
pub(super) struct Progress {
    pub journal: Journal,
    pub applications: Applications,
    pub window: Window,
    pub remounted: Remounted,
}

impl Progress {
    /// From here on something may be owed: the journal says so first.
    ///
    /// `window` is the longest that everything may stay frozen; `note` adds to the journal what only this
    /// goal has to say.
    pub fn begin<E>(
        env: &Environment<'_, E>,
        job: &Job<'_>,
        window: Duration,
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
        })
    }

    /// What hooks are told once everything is thawed and mounted again.
    pub fn tell_applications(&mut self) {
        let told = &mut self.applications.env;
        told.not_mounted = self.remounted.not_mounted();
        told.frozen = self.window.call.is_some();
    }

    /// Closes the journal where nothing is owed; else the next start and ExecStopPost go on from it.
    pub fn close(self) {
        let state = &self.journal.state;
        // A look-up that saw nothing is no proof, and snapshots that lack their verdict get it at the next
        // start.
        let unsettled = state.created != Created::No;
        if unsettled || !state.attempted.is_empty() || !self.window.still_frozen().is_empty() {
            return;
        }
        if self.journal.state.unmounted.is_empty() {
            self.journal.close();
        } else {
            // The set has its verdict: whoever mounts the rest must not label it again.
            let _ = self.journal.write();
        }
    }
}
