//! The steps of a run that depend on its goal. The order of steps is the same for every goal and is in
//! [`super::run`].
//!
//! ```text
//!                 take             clone             rehearse      freeze for others
//! preflight       permissions,     permissions,      permissions,  who will ask for the thaw
//!                 pending          copies under way  pending       is not frozen itself
//! before_freeze   warm             warm              warm          nobody has asked for the thaw
//! set             the group        –                 –             –
//! point_in_time   one create call  a copy of each    a timer       "thaw" on the control socket
//!                                  volume at once
//! thawed          look up a lost   look up a lost    who wrote     record for an early `thaw`
//!                 answer           answer
//! settle          tags, record     delete or tag,    measurements  record
//!                                  record
//! ```
//!
//! In: what a run has come to. Out: what its goal makes of it. Must never: change the order of a run.

use std::path::PathBuf;
use std::time::Duration;

use super::applications::Applications;
use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::journal::State;
use super::progress::{Progress, Window};
use crate::error::Error;
use crate::window::{Called, Limits, Prepared, Times};

/// The purpose of a run: to take a set, to clone its volumes, to rehearse, or to freeze for somebody else's snapshots.
pub(super) trait Goal<E> {
    /// The result of [`Goal::point_in_time`], such as EC2's answer.
    type Answer;
    /// What the run returns to the command.
    type Outcome;

    /// The limits of the frozen window.
    fn limits(&self, job: &Job<'_>) -> Limits {
        let settings = job.settings;
        Limits { window: settings.window, freeze: settings.freeze_timeout, flush: settings.flush_timeout }
    }

    /// How long the run waits for the end of an operation that a freeze would wait for: see [`super::busy`].
    fn patience(&self, job: &Job<'_>) -> Duration {
        job.settings.busy_timeout
    }

    /// What the watchdog starts once everything is thawed because this process is gone: a program and its
    /// arguments.
    fn recovery(&self, _env: &Environment<'_, E>) -> Option<Vec<PathBuf>> {
        None
    }

    /// Checks that only this goal has. Nothing has been touched, and nothing may be.
    async fn preflight(&mut self, env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error>;

    /// Adds what only this goal has to the journal's first version.
    fn note_start(&self, _state: &mut State) {}

    /// Applications are quiesced, and nothing is flushed yet.
    fn before_prepare(&mut self, _env: &Environment<'_, E>, _job: &Job<'_>) {}

    /// Everything is flushed and guarded, and nothing is frozen yet.
    async fn before_freeze(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        applications: &Applications,
    ) -> Result<(), Failure>;

    /// Nothing is left to do but to freeze.
    async fn set(&mut self, _env: &Environment<'_, E>) -> Result<(), Failure> {
        Ok(())
    }

    /// Adds to the journal, before the freeze, what a recovery has to know if this process dies while
    /// everything is frozen: the journal cannot be written then.
    fn note_freeze(&mut self, env: &Environment<'_, E>, prepared: &Prepared, state: &mut State);

    /// The one thing between the last FIFREEZE and the first FITHAW.
    async fn point_in_time(&mut self, env: &Environment<'_, E>, times: Times) -> Self::Answer;

    /// Judges the answer. By now everything is thawed.
    fn answered(&mut self, job: &Job<'_>, called: Called<Self::Answer>, state: &mut State)
    -> Option<Failure>;

    /// Puts the times of the one call in the place of those of everything that was waited for in the window.
    fn correct(&self, _times: &mut Times, _call: &mut Option<Duration>) {}

    /// The window is over, or there was none. Must not wait for anything.
    fn ended(&mut self, _window: &Window) {}

    /// Everything is thawed and mounted again, and applications are not released yet.
    async fn thawed(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress);

    /// The verdict, and all that comes after it. Applications are released.
    async fn settle(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        progress: &mut Progress,
    ) -> Self::Outcome;
}
