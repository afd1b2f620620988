//! `[[notify]]`: a command that is told how a run or a prune ended.
//!
//! In: its sections in files. Out: [`Notify`]s. Must never: let one through that has no command, no limit, or nothing
//! to be told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::hooks::{CommandHook, Hook, HookKind, OnFailure, duration};
use super::input::{Input as _, input};
use super::node::{Document, Node, Table};
use super::reference::Key;

/// The section, without the brackets.
pub(super) const SECTION: &str = "notify";

/// What a command is told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyOn {
    /// As it should be.
    Success,
    /// A set, at a lower consistency than was asked for.
    Lower,
    /// Everything else: somebody should look.
    Failure,
}

impl NotifyOn {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Lower => "lower",
            Self::Failure => "failure",
        }
    }
}

const ON: &[(&str, NotifyOn)] =
    &[("failure", NotifyOn::Failure), ("lower", NotifyOn::Lower), ("success", NotifyOn::Success)];

/// A command that is told how a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notify {
    /// Name, in messages.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What it is told about.
    pub on: Vec<NotifyOn>,
    /// Longest time that it may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The user to run as; none means stillpoint's own.
    pub user: Option<String>,
    /// Variables in addition to those that it gets.
    pub environment: BTreeMap<String, String>,
}

impl Notify {
    /// The same as a hook that only informs: what is checked of one, and how it is started and killed, is checked
    /// and done of the other.
    #[must_use]
    pub fn as_hook(&self) -> Hook {
        let kind = CommandHook {
            completed: Some(self.command.clone()),
            user: self.user.clone(),
            environment: self.environment.clone(),
            ..CommandHook::default()
        };
        let (name, kind) = (self.name.clone(), HookKind::Hook(kind));
        Hook { name, kind, timeout: self.timeout, on_failure: OnFailure::Degrade }
    }
}

input! {
    /// The keys of the section.
    Keys {
        /// string, up to 64 characters | what it runs | used in messages | `"orders"`
        name: String = |n: &Node<'_>| n.checked(check::hook_name);
        /// command | required | gets [what happened](schema/event-1.json) as JSON on its standard input |
        /// `["/usr/local/bin/program", "argument"]`
        command: Vec<String> = Node::argv;
        /// list of `"failure"`, `"lower"`, `"success"` | `["failure"]` | what it is told about
        on: Vec<NotifyOn> = |n: &Node<'_>| n.list(|n| n.checked(|t| check::choice(t, ON)));
        /// time, more than 0, up to 1 day | required | longest time that it may take; then it is killed with
        /// all its children | `"30s"`
        timeout: Duration = |n: &Node<'_>| n.duration(check::HOOK_TIMEOUT);
        /// user name | stillpoint's own | the user that it runs as, with all groups of that user | `"orders"`
        user: String = |n: &Node<'_>| n.checked(check::user_name);
        /// list of plan names | all plans | only for these plans | `["default"]`
        plans: Vec<Sourced<String>> = |n: &Node<'_>| n.list(|n| n.sourced(|n| n.checked(check::plan_name)));
    } per_entry {
        /// table of strings | `{}` | further variables; names that begin with `STILLPOINT_` are refused
        environment: String, String = |n: &Node<'_>| n.tags(check::variable);
    }
}

/// Every key, with what the documentation says of it.
pub(super) fn documented() -> Vec<Key> {
    Keys::documented()
}

/// Reads the keys alone, for the test that what the documentation says of a value is one.
#[cfg(test)]
pub(super) fn values(table: &Table<'_>) -> Result<(), ConfigError> {
    Keys::read(table).map(drop)
}

/// A section as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotifyInput {
    notify: Notify,
    /// True when the user gave the name; else it is made from the command.
    named: bool,
    plans: Option<Vec<Sourced<String>>>,
    origin: Origin,
}

/// Reads one section.
pub(super) fn read(element: &Node<'_>) -> Result<NotifyInput, ConfigError> {
    let keys = Keys::read(&element.table_as(format!("[[{SECTION}]]"))?)?;
    let fault = |problem: &str, hint: &str| Fault::new(problem).hint(hint).at(element.origin(), SECTION);
    let Some(command) = keys.command else {
        return Err(fault("has no `command`", "give it one: command = [\"/path/to/program\"]"));
    };
    let Some(timeout) = keys.timeout else {
        let hint = "give it the longest time that its command may take: timeout = \"30s\"";
        return Err(fault("has no `timeout`", hint));
    };
    let on = keys.on.map_or_else(|| vec![NotifyOn::Failure], |on| on.value);
    if on.is_empty() {
        return Err(fault(
            "is told nothing",
            "on = [\"failure\", \"lower\", \"success\"]: one of these at least",
        ));
    }
    let program = command.value.first().map(String::as_str).unwrap_or_default();
    let called = program.rsplit('/').next().unwrap_or(program);
    let named = keys.name.is_some();
    let name = match keys.name {
        Some(name) => name.value,
        None => check::hook_name(called).map_err(|f| f.at(element.origin(), SECTION))?,
    };
    let environment = keys.environment.into_iter().map(|(k, v)| (k, v.value)).collect();
    let user = keys.user.map(|u| u.value);
    let notify = Notify { name, command: command.value, on, timeout: timeout.value, user, environment };
    Ok(NotifyInput { notify, named, plans: keys.plans.map(|p| p.value), origin: element.origin() })
}

/// Those of one file that can be read, in its order. None of a text that is no TOML.
pub(super) fn readable(file: &std::path::Path, text: &str) -> Vec<NotifyInput> {
    let doc = Document { file: std::sync::Arc::from(file), text };
    let Ok(parsed) = toml::de::DeTable::parse(text) else { return Vec::new() };
    let nodes = Table::top(&doc, parsed.get_ref()).nodes();
    let sections = nodes.iter().filter(|n| n.name == SECTION);
    sections.flat_map(|n| n.elements().unwrap_or_default()).filter_map(|e| read(&e).ok()).collect()
}

/// Adds those of a later file; one of the same name is replaced, where both have it from the user.
pub(super) fn overlay(all: &mut Vec<NotifyInput>, later: Vec<NotifyInput>) {
    for new in later {
        let same = |old: &&mut NotifyInput| old.notify.name == new.notify.name && old.named && new.named;
        match all.iter_mut().find(same) {
            Some(slot) => *slot = new,
            None => all.push(new),
        }
    }
}

/// The plans that they name, with where they do.
pub(super) fn plans(all: &[NotifyInput]) -> impl Iterator<Item = &Sourced<String>> {
    all.iter().flat_map(|n| n.plans.iter().flatten())
}

/// Those of this plan, each with its origin.
pub(super) fn of_plan(all: Vec<NotifyInput>, plan: &str) -> Vec<(Notify, Origin)> {
    let belongs = |n: &NotifyInput| n.plans.as_ref().is_none_or(|p| p.iter().any(|p| p.value == plan));
    all.into_iter().filter(belongs).map(|n| (n.notify, n.origin)).collect()
}
