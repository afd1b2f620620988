//! What the agent knows of MySQL and MariaDB by itself.
//!
//! In: a section's settings. Out: what differs from other databases before anybody connects. Must never:
//! connect.

use super::super::super::outcome::{HookOutcome, Phase};
use super::super::super::verbs::{Application, Narrowed};
use super::super::Task;
use super::super::agent::{DatabaseHook, ask};
use super::replica::{RUNNING, channels};
use crate::config::settings::{HookKind, Mysql};

impl DatabaseHook for Mysql {
    /// A replica's SQL threads that run are named in the journal before they are stopped: whoever cleans up
    /// starts these, and no others.
    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        if !self.stop_replica {
            return Ok(Narrowed::All);
        }
        let checked = ask(app, Task::Check, Phase::Pre).await;
        if !checked.succeeded() {
            return Err(checked);
        }
        let stopping = channels(checked.facts.get(RUNNING));
        Ok(Narrowed::Only(HookKind::Mysql(Self { stopping, ..self.clone() })))
    }
}
