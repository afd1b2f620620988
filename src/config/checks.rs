//! `[[check]]`: what `verify --level restore` lets look at the restored filesystems.
//!
//! In: its sections in files. Out: [`Check`]s. Must never: let one through that looks at nothing, has no limit, or names
//! a user for a database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::hooks::{CommandHook, Hook, HookKind, OnFailure, duration};
use super::input::{Input as _, input};
use super::node::Node;
#[cfg(test)]
use super::node::Table;
use super::reference::Key;

/// The section, without the brackets.
pub(super) const SECTION: &str = "check";

/// A database that is checked by its own programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckedDatabase {
    /// PostgreSQL.
    Postgresql,
    /// MariaDB or MySQL.
    Mysql,
    /// Redis.
    Redis,
}

const DATABASES: &[(&str, CheckedDatabase)] = &[
    ("postgresql", CheckedDatabase::Postgresql),
    ("mariadb", CheckedDatabase::Mysql),
    ("mysql", CheckedDatabase::Mysql),
    ("redis", CheckedDatabase::Redis),
];

/// A command, or a database's own programs, that looks at the restored filesystems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name, in messages and findings.
    pub name: String,
    /// The program and its arguments; none where a database is checked.
    pub command: Option<Vec<String>>,
    /// The database that is checked.
    pub database: Option<CheckedDatabase>,
    /// Its data directory.
    #[serde(serialize_with = "crate::path_encoding::optional")]
    pub data: Option<PathBuf>,
    /// Longest time that it may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// The user to run as; none means stillpoint's own.
    pub user: Option<String>,
    /// It may write to the restored filesystems, which are thrown away.
    pub writable: bool,
    /// Variables in addition to those that it gets.
    pub environment: BTreeMap<String, String>,
}

impl Check {
    /// The same as a hook that only informs: what is looked at of one before it is started is looked at of the other.
    #[must_use]
    pub(crate) fn as_hook(&self) -> Hook {
        let kind = CommandHook {
            completed: self.command.clone(),
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
        /// string, up to 64 characters | what it runs, or the database | used in messages and findings |
        /// `"orders"`
        name: String = |n: &Node<'_>| n.checked(check::hook_name);
        /// command | required, or `database` | looks at the restored filesystems; its exit code says whether they
        /// are as they should be | `["/usr/local/bin/program", "argument"]`
        command: Vec<String> = Node::argv;
        /// `"postgresql"`, `"mariadb"`, `"mysql"` or `"redis"` | required, or `command` | is [checked by its own
        /// programs](verify.md#databases), as the owner of its data directory | `"postgresql"`
        database: CheckedDatabase = |n: &Node<'_>| n.checked(|t| check::choice(t, DATABASES));
        /// path | required with `database` | its data directory, as it is on the host of the set |
        /// `"/var/lib/postgresql/15/main"`
        data: PathBuf = Node::path;
        /// time, more than 0, up to 1 day | required | longest time that it may take; then it is killed with
        /// all that it has started | `"30s"`
        timeout: Duration = |n: &Node<'_>| n.duration(check::HOOK_TIMEOUT);
        /// user name | stillpoint's own | the user that a command runs as, with all groups of that user |
        /// `"orders"`
        user: String = |n: &Node<'_>| n.checked(check::user_name);
        /// true or false | `false` | a command may write to the restored filesystems, which are thrown away
        writable: bool = Node::flag;
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
pub(super) struct CheckInput {
    check: Check,
    /// True when the user gave the name; else it is made from the command.
    named: bool,
    plans: Option<Vec<Sourced<String>>>,
    origin: Origin,
}

/// Reads one section.
pub(super) fn read(element: &Node<'_>) -> Result<CheckInput, ConfigError> {
    let keys = Keys::read(&element.table_as(format!("[[{SECTION}]]"))?)?;
    let fault = |problem: &str, hint: &str| Fault::new(problem).hint(hint).at(element.origin(), SECTION);
    let Some(timeout) = keys.timeout else {
        let hint = "give it the longest time that it may take: timeout = \"10m\"";
        return Err(fault("has no `timeout`", hint));
    };
    let called = match (&keys.command, &keys.database) {
        (Some(_), Some(_)) => return Err(fault("has `command` and `database`", "make two sections of it")),
        (None, None) => {
            let hint = "command = [\"/path/to/program\"], or database = \"postgresql\" and data = \"/path\"";
            return Err(fault("has neither `command` nor `database`", hint));
        }
        (Some(command), None) => {
            if keys.data.is_some() {
                return Err(fault(
                    "has `data`, which is a database's",
                    "leave it out, or name the `database`",
                ));
            }
            let program = command.value.first().map(String::as_str).unwrap_or_default();
            program.rsplit('/').next().unwrap_or(program).to_owned()
        }
        (None, Some(database)) => {
            if keys.data.is_none() {
                return Err(fault("has no `data`", "give it the data directory: data = \"/var/lib/mysql\""));
            }
            let given = [
                ("`user`", keys.user.is_some()),
                ("`writable`", keys.writable.is_some()),
                ("`environment`", !keys.environment.is_empty()),
            ];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                let hint = "leave it out: the database runs as the owner of its data directory, with settings of its own";
                return Err(fault(&format!("has {key}, which is a command's"), hint));
            }
            let names = DATABASES.iter().find(|(_, known)| *known == database.value);
            names.map_or("database", |(name, _)| name).to_owned()
        }
    };
    let named = keys.name.is_some();
    let name = match keys.name {
        Some(name) => name.value,
        None => check::hook_name(&called).map_err(|f| f.at(element.origin(), SECTION))?,
    };
    let check = Check {
        name,
        command: keys.command.map(|c| c.value),
        database: keys.database.map(|d| d.value),
        data: keys.data.map(|d| d.value),
        timeout: timeout.value,
        user: keys.user.map(|u| u.value),
        writable: keys.writable.is_some_and(|w| w.value),
        environment: keys.environment.into_iter().map(|(k, v)| (k, v.value)).collect(),
    };
    Ok(CheckInput { check, named, plans: keys.plans.map(|p| p.value), origin: element.origin() })
}

/// Adds those of a later file; one of the same name is replaced, where both have it from the user.
pub(super) fn overlay(all: &mut Vec<CheckInput>, later: Vec<CheckInput>) {
    for new in later {
        let same = |old: &&mut CheckInput| old.check.name == new.check.name && old.named && new.named;
        match all.iter_mut().find(same) {
            Some(slot) => *slot = new,
            None => all.push(new),
        }
    }
}

/// The plans that they name, with where they do.
pub(super) fn plans(all: &[CheckInput]) -> impl Iterator<Item = &Sourced<String>> {
    all.iter().flat_map(|c| c.plans.iter().flatten())
}

/// Those of this plan, each with its origin.
pub(super) fn of_plan(all: Vec<CheckInput>, plan: &str) -> Vec<(Check, Origin)> {
    let belongs = |c: &CheckInput| c.plans.as_ref().is_none_or(|p| p.iter().any(|p| p.value == plan));
    all.into_iter().filter(belongs).map(|c| (c.check, c.origin)).collect()
}
