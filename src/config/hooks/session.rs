//! `[[session]]`: one process that keeps an application quiesced for as long as it is told to.
//!
//! In: its keys. Out: [`SessionHook`]. Must never: let one through that runs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, entries, file_name, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// One process that keeps an application quiesced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHook {
    /// Program and arguments. It prints `ready` once the application is quiesced.
    pub command: Vec<String>,
    /// Run when the session, or stillpoint, was killed, so that it is not known whether the application was
    /// released. It must do no harm when nothing is quiesced.
    #[serde(default)]
    pub release: Option<Vec<String>>,
    /// As in [`CommandHook`](super::CommandHook).
    #[serde(default)]
    pub user: Option<String>,
    /// As in [`CommandHook`](super::CommandHook).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

keys! { Keys {
    /// command | required | quiesces, prints `ready`, waits for the line `thaw`, releases, and exits 0 |
    /// `["/usr/local/bin/queue-session"]`
    command: Vec<String> = Node::argv;
    /// command | not set | run if the session, or stillpoint, was killed before the session had confirmed its
    /// release | `["/usr/local/bin/queue-release"]`
    release: Vec<String> = Node::argv;
    /// user name | stillpoint's own | the user that the commands run as, with all groups of that user |
    /// `"orders"`
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry {
    /// table of strings | `{}` | further variables; names that begin with `STILLPOINT_` are refused
    environment: String, String = |n: &Node<'_>| n.tags(check::variable);
} }

impl Kind for SessionHook {
    const SECTION: &'static str = "session";

    fn is_session(&self) -> bool {
        true
    }

    fn commands(&self) -> Vec<(&'static str, &[String])> {
        let release = self.release.as_deref().map(|argv| ("release", argv));
        [("session", self.command.as_slice())].into_iter().chain(release).collect()
    }
}

impl Section for SessionHook {
    type Keys = Keys;

    const TITLE: &'static str = "A process that keeps an application quiesced";

    const TIMEOUT: Option<Duration> = None;

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let Some(command) = value(k.command) else {
            let hint = "give it one that prints `ready` and waits: command = [\"/path/to/program\"]";
            return Err(fault("has no `command`", hint));
        };
        let called = file_name(&command[0]);
        let session = Self {
            command,
            release: value(k.release),
            user: value(k.user),
            environment: entries(k.environment),
        };
        Ok((common, called, session))
    }
}
