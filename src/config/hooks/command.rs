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
    /// command | not set | run before the window; at least one of the four commands has to be set |
    /// `["/usr/local/bin/orders-ctl", "pause-writes"]`
    pre: Vec<String> = Node::argv;
    /// command | not set | run after the thaw, in reverse order, whenever `pre` was attempted |
    /// `["/usr/local/bin/orders-ctl", "resume-writes"]`
    post: Vec<String> = Node::argv;
    /// command | not set | run at the end of a run that took a set, once its label is known; of a plan that
    /// waits, once every snapshot is completed | `["/usr/local/bin/tell-somebody"]`
    completed: Vec<String> = Node::argv;
    /// command | not set | run at the end of a run that took none; of a plan that waits, also when EC2 could
    /// not complete the set | `["/usr/local/bin/page-somebody"]`
    failed: Vec<String> = Node::argv;
    /// user name | stillpoint's own | the user that the commands run as, with all groups of that user |
    /// `"orders"`
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry {
    /// table of strings | `{}` | further variables; names that begin with `STILLPOINT_` are refused
    environment: String, String = |n: &Node<'_>| n.tags(check::variable);
} }

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

    const TITLE: &'static str = "Commands before and after";

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
