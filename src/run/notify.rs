//! Tells the commands of `[[notify]]` how a run or a prune ended.
//!
//! In: what happened, as events. Out: each command that asked for one of them has run, with all of these on its
//! standard input. Must never: be called while anything is frozen that a run holds, or change how it ended.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::settings::{Notify, NotifyOn};
use crate::exit::Exit;
use crate::path_encoding::printable_json;
use crate::quiesce::told;
use crate::report::event::{self, Event};
use crate::report::log;

/// Version of the JSON below; raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// What a command gets on its standard input.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    /// The worst of its events.
    outcome: NotifyOn,
    /// `snapshot`, `prune`, `wait` or `verify`.
    command: &'a str,
    plan: &'a str,
    host: String,
    time: Timestamp,
    exit_code: Exit,
    events: Vec<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    outcome: NotifyOn,
    message_id: &'static str,
    #[serde(flatten)]
    event: &'a Event,
}

/// Runs those that ask for one of these events, one after the other.
pub(crate) async fn tell(notify: &[Notify], command: &str, plan: &str, exit_code: Exit, events: &[Event]) {
    for notify in notify {
        let told: Vec<_> = events
            .iter()
            .map(|event| Told { outcome: event.kind.outcome(), message_id: event.kind.message_id(), event })
            .filter(|told| notify.on.contains(&told.outcome))
            .collect();
        let Some(outcome) = told.iter().map(|t| t.outcome).max() else { continue };
        let vars = [
            ("STILLPOINT_PLAN", plan.to_owned()),
            ("STILLPOINT_COMMAND", command.to_owned()),
            ("STILLPOINT_OUTCOME", outcome.as_str().to_owned()),
            ("STILLPOINT_EXIT_CODE", exit_code.code().to_string()),
        ];
        let document = Document {
            version: VERSION,
            outcome,
            command,
            plan,
            host: super::planned::hostname(),
            time: Timestamp::now(),
            exit_code,
            events: told,
        };
        // Plain values: this does not fail.
        let json = serde_json::to_string(&document).unwrap_or_default();
        let ended = told::tell(notify, &vars, format!("{}\n", printable_json(&json)).as_bytes()).await;
        if !ended.succeeded() {
            let last = ended.output.lines().rev().find(|line| !line.trim().is_empty());
            let last = last.map_or_else(String::new, |l| format!("; its last line was: {}", l.trim()));
            let why = format!("[[notify]] `{}` {}{last}", notify.name, ended.status);
            log::tell(&event::notify_failed(plan, &notify.name, &why));
            tracing::warn!("{why}");
        }
    }
}
