//! What becomes of a run that was refused before anything was touched: whoever is to be told is told.
//!
//! In: why it was refused. Out: an entry in the journal, a count, the commands for it have run. Must never: change how the
//! run ends.

use std::path::Path;
use std::time::Duration;

use super::start::ROOT;
use super::{Global, thaw};
use crate::config::{self, Loaded};
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::report::event::{self, Kind};
use crate::run::last::Last;
use crate::run::tally::Tally;
use crate::run::textfile::{self, Disk};
use crate::run::{applications, notify};

/// The command of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// `snapshot`.
    Snapshot,
    /// `clone`.
    Clone,
}

impl Command {
    /// What whoever is told is told of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Clone => "clone",
        }
    }

    fn failed(self) -> Kind {
        match self {
            Self::Snapshot => Kind::SetFailed,
            Self::Clone => Kind::ClonesFailed,
        }
    }
}

/// After such a run, may a disk be written to?
pub(super) fn disk(exit: Exit) -> Disk {
    if exit.hurts() { Disk::NotSafe } else { Disk::Safe }
}

/// A run with this configuration was refused.
pub(super) async fn tell(command: Command, loaded: &Loaded, error: &Error) {
    let plan = &loaded.settings.plan;
    let event = event::of_refusal(command.failed(), &plan.name, error);
    report::log::tell(&event);
    let count = |tally: &mut Tally| match command {
        Command::Snapshot => tally.ended(error.exit),
        Command::Clone => tally.cloned(error.exit, None),
    };
    textfile::update_alone(loaded, Duration::ZERO, disk(error.exit), count).await;
    applications::tell_refused(&plan.hooks, &plan.name, error).await;
    notify::tell(&plan.notify, command.name(), &plan.name, error.exit, &[event]).await;
}

/// A configuration that cannot be loaded: what can be read of it says whom to tell.
pub(super) async fn unreadable(command: Command, global: &Global, plan: Option<&str>, error: &Error) {
    let (root, file) = (Path::new(ROOT), global.config.as_deref());
    let hooks = config::readable_hooks(root, file, plan);
    let plan = plan.unwrap_or(config::DEFAULT_PLAN);
    // What is known of the last run is of those that take sets.
    if command == Command::Snapshot && config::is_plan_name(plan) {
        let (run_dir, state_dir) = thaw::folders(global);
        Last::begun(plan).refused(error).note(&run_dir, &state_dir);
    }
    let event = event::of_refusal(command.failed(), plan, error);
    report::log::tell(&event);
    applications::tell_refused(&hooks, plan, error).await;
    let told = config::readable_notify(root, file, plan);
    notify::tell(&told, command.name(), plan, error.exit, &[event]).await;
}
