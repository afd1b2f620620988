//! One section of a file, such as `[[hook]]` or `[[mysql]]`: what all of them have in common.
//!
//! In: a section as it stands in a file. Out: a [`HookInput`], complete in itself, with its position. Must
//! never: let one through that has no limit.
//!
//! A kind of application brings its own keys and defaults as [`Section`]; [`SECTIONS`] is the list of those
//! that a file may have.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{
    CommandHook, ContainerHook, DirectoryHook, HookKind, Kind, Mysql, OnFailure, Postgresql, Redis,
    SessionHook, SystemdHook,
};
use crate::config::check::{self, Fault};
use crate::config::error::{ConfigError, Origin, Sourced};
use crate::config::input::Input;
use crate::config::node::{Node, Table};
use crate::config::reference::Key;

/// The default limit of kinds whose program is known, such as systemctl and docker.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

const ON_FAILURE: &[(&str, OnFailure)] = &[("abort", OnFailure::Abort), ("degrade", OnFailure::Degrade)];

/// A kind of section that a file may have.
pub(in crate::config) struct Readable {
    /// Its name, without the brackets.
    pub name: &'static str,
    /// What it quiesces, as a heading.
    pub title: &'static str,
    /// Its keys, each with what the documentation says of it.
    pub documented: fn() -> Vec<Key>,
    /// Reads its keys alone, for the test that what the documentation says of a value is one.
    #[cfg(test)]
    pub values: fn(&Table<'_>) -> Result<(), ConfigError>,
    /// Reads one element of it.
    pub read: fn(&Node<'_>) -> Result<HookInput, ConfigError>,
}

/// Every section.
pub(in crate::config) const SECTIONS: [Readable; 8] = [
    section::<CommandHook>(),
    section::<SessionHook>(),
    section::<DirectoryHook>(),
    section::<SystemdHook>(),
    section::<ContainerHook>(),
    section::<Postgresql>(),
    section::<Mysql>(),
    section::<Redis>(),
];

const fn section<S: Section>() -> Readable {
    Readable {
        name: S::SECTION,
        title: S::TITLE,
        documented: S::Keys::documented,
        #[cfg(test)]
        values: |table| S::Keys::read(table).map(drop),
        read: read::<S>,
    }
}

/// A kind of application that is configured by a section of its own.
pub(super) trait Section: Kind + Into<HookKind> {
    type Keys: Input;

    /// What is quiesced, as a heading.
    const TITLE: &'static str;

    /// The default limit of quiescing and of releasing. None for a kind that runs the user's own commands:
    /// only the user knows how long they take, so `timeout` has to be set.
    const TIMEOUT: Option<Duration>;

    /// The keys of the section, and the name that a section without `name` gets.
    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError>;
}

/// Makes a fault of the whole section: the problem, and the hint.
pub(super) type FaultAt<'a> = dyn Fn(&str, &str) -> ConfigError + 'a;

/// The keys that every section has; [`keys`] has what the documentation says of them.
pub(in crate::config) const COMMON: [&str; 4] = ["name", "timeout", "on_failure", "plans"];

/// The values of the keys that every section has.
pub(super) struct Common {
    pub name: Option<Sourced<String>>,
    pub timeout: Option<Sourced<Duration>>,
    pub on_failure: Option<Sourced<OnFailure>>,
    pub(crate) plans: Option<Sourced<Vec<Sourced<String>>>>,
}

/// A section as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct HookInput {
    pub name: String,
    /// True when the user gave the name; else it is made from the section.
    pub(crate) named: bool,
    pub kind: HookKind,
    pub timeout: Duration,
    pub on_failure: OnFailure,
    /// The plans it belongs to; none means all.
    pub(crate) plans: Option<Vec<Sourced<String>>>,
    pub(crate) origin: Origin,
}

/// The struct of a section's keys, with the ones that every section has.
macro_rules! keys {
    (
        $name:ident { $($(#[doc = $doc_key:literal])+ $key:ident: $type:ty = $read:expr;)* }
        per_entry { $($(#[doc = $doc_table:literal])+ $table:ident: $k:ty, $v:ty = $read_table:expr;)* }
    ) => {
        $crate::config::input::input! {
            /// The keys of a section.
            $name {
                /// string, up to 64 characters | what it runs or quiesces; `postgresql`, `mysql`, `redis` | used
                /// in messages, tags and the environment; unique within a file, across all these sections |
                /// `"orders"`
                name: String = |n: &$crate::config::node::Node<'_>| n.checked($crate::config::check::hook_name);
                $($(#[doc = $doc_key])+ $key: $type = $read;)*
                /// time, more than 0, up to 1 day | required for `[[hook]]`, `[[session]]` and
                /// `[[hook_directory]]`; else `"1m"` | longest time for quiescing, and again for releasing |
                /// `"30s"`
                timeout: std::time::Duration =
                    |n: &$crate::config::node::Node<'_>| n.duration($crate::config::check::HOOK_TIMEOUT);
                /// `"abort"`, `"degrade"` | `"abort"` | what happens when it cannot be quiesced: stop before
                /// anything is frozen (exit 20), or go on, with a set that is at most `filesystem`-consistent
                on_failure: super::OnFailure = super::section::on_failure;
                /// list of plan names | all plans | only for these plans; `[]` switches the section off |
                /// `["default"]`
                plans: Vec<$crate::config::error::Sourced<String>> = super::section::plans;
            } per_entry { $($(#[doc = $doc_table])+ $table: $k, $v = $read_table;)* }
        }

        impl $name {
            fn common(&mut self) -> super::section::Common {
                super::section::Common {
                    name: self.name.take(),
                    timeout: self.timeout.take(),
                    on_failure: self.on_failure.take(),
                    plans: self.plans.take(),
                }
            }
        }
    };
}
pub(super) use keys;

pub(super) fn on_failure(n: &Node<'_>) -> Result<OnFailure, ConfigError> {
    n.checked(|t| check::choice(t, ON_FAILURE))
}

pub(super) fn plans(n: &Node<'_>) -> Result<Vec<Sourced<String>>, ConfigError> {
    n.list(|n| n.sourced(|n| n.checked(check::plan_name)))
}

/// A value without its position.
pub(super) fn value<T>(sourced: Option<Sourced<T>>) -> Option<T> {
    sourced.map(|s| s.value)
}

/// The values of a table without their positions.
pub(super) fn entries(table: BTreeMap<String, Sourced<String>>) -> BTreeMap<String, String> {
    table.into_iter().map(|(k, v)| (k, v.value)).collect()
}

/// The name of a section that runs this file.
pub(super) fn file_name(path: &str) -> String {
    Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or(path).to_owned()
}

fn read<S: Section>(element: &Node<'_>) -> Result<HookInput, ConfigError> {
    let table = element.table_as(format!("[[{}]]", S::SECTION))?;
    let fault = |problem: &str, hint: &str| Fault::new(problem).hint(hint).at(element.origin(), S::SECTION);
    let (common, called, settings) = S::read(&table, &fault)?;
    let Some(timeout) = value(common.timeout).or(S::TIMEOUT) else {
        return Err(fault(
            "has no `timeout`",
            "give it the longest time that its commands may take: timeout = \"30s\"",
        ));
    };
    let named = common.name.is_some();
    let name = match common.name {
        Some(name) => name.value,
        None => check::hook_name(&called).map_err(|f| f.at(element.origin(), S::SECTION))?,
    };
    Ok(HookInput {
        name,
        named,
        kind: settings.into(),
        timeout,
        on_failure: value(common.on_failure).unwrap_or(OnFailure::Abort),
        plans: value(common.plans),
        origin: element.origin(),
    })
}
