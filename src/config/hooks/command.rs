//! `[[hook]]`: a pair of commands, and two more for the end of the run.
//!
//! In: its keys. Out: [`CommandHook`]. Must never: let one through that runs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, entries, file_name, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// Two commands: one before the window, one after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandHook {
    /// Run before the window.
    pub pre: Option<Vec<String>>,
    /// Run after the thaw, in reverse order of the hooks, when pre was attempted.
    pub post: Option<Vec<String>>,
    /// Run at the end of a run that took a set, once its label is known.
    #[serde(default)]
    pub completed: Option<Vec<String>>,
    /// Run at the end of a run that took none.
    #[serde(default)]
    pub failed: Option<Vec<String>>,
    /// The user to run as, by name; none means stillpoint's own.
    #[serde(default)]
    pub user: Option<String>,
    /// Variables in addition to those that every hook gets.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

keys! { Keys {
    pre: Vec<String> = Node::argv;
    post: Vec<String> = Node::argv;
    completed: Vec<String> = Node::argv;
    failed: Vec<String> = Node::argv;
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry { environment: String, String = |n: &Node<'_>| n.tags(check::variable); } }

impl Kind for CommandHook {
    const SECTION: &'static str = "hook";

    /// A hook without `pre` only informs, so it is no evidence for the label.
    fn quiesces(&self) -> bool {
        self.pre.is_some()
    }

    fn commands(&self) -> Vec<(&'static str, &[String])> {
        let all = [
            ("pre", &self.pre),
            ("post", &self.post),
            ("completed", &self.completed),
            ("failed", &self.failed),
        ];
        all.into_iter().filter_map(|(edge, argv)| Some((edge, argv.as_deref()?))).collect()
    }
}

impl Section for CommandHook {
    type Keys = Keys;

    const TIMEOUT: Option<Duration> = None;

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let hook = Self {
            pre: value(k.pre),
            post: value(k.post),
            completed: value(k.completed),
            failed: value(k.failed),
            user: value(k.user),
            environment: entries(k.environment),
        };
        let first = [&hook.pre, &hook.post, &hook.completed, &hook.failed].into_iter().flatten().next();
        let Some(program) = first.and_then(|argv| argv.first()) else {
            let hint = "give it a command: pre = [\"/path/to/program\"]";
            return Err(fault("has neither `pre` nor `post`", hint));
        };
        let called = file_name(program);
        Ok((common, called, hook))
    }
}
