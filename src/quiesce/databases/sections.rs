//! Which section of the configuration quiesces which server, and the section to add where none does.
//!
//! In: the servers that were found, the configured hooks. Out: a [`Match`] a server. Must never: connect, or
//! call one configured that has no section.

use std::path::Path;

use super::server::RunningServer;
use crate::config::settings::Hook;

/// A server, and what the configuration does for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The server.
    pub server: RunningServer,
    /// The name of the section that quiesces it, if there is one.
    pub section: Option<String>,
    /// The lines to add to the configuration, when there is no section; none when no section is possible.
    pub suggestion: Option<String>,
}

/// Finds the section for each of these servers.
#[must_use]
pub fn matches(found: Vec<RunningServer>, hooks: &[Hook]) -> Vec<Match> {
    let kinds: Vec<_> = found.iter().map(|s| s.kind).collect();
    let describe = |server: RunningServer| {
        let alone = kinds.iter().filter(|k| **k == server.kind).count() == 1;
        let sections: Vec<&Hook> = hooks.iter().filter(|h| server.kind.is_for(&h.kind)).collect();
        let section = match sections.as_slice() {
            // Only one section of this kind, and only one server: it is meant, however the section connects.
            [one] if alone => Some(*one),
            several => several.iter().copied().find(|h| server.kind.leads_to(&h.kind, &server)),
        };
        let section = section.map(|h| h.name.clone());
        let name = (!alone || !sections.is_empty()).then(|| name(server.kind.id(), &server.data));
        // What runs in a container has paths and ports of its own: no section would reach it.
        let suggested = section.is_none() && !server.container;
        let suggestion = suggested.then(|| server.kind.suggestion(&server, name.as_deref()));
        Match { server, section, suggestion }
    };
    found.into_iter().map(describe).collect()
}

/// A name for a section: the last part of the data directory's path.
fn name(section: &str, data: &Path) -> String {
    let last = data.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let last: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let last = last.trim_matches('-');
    if last.starts_with(section) { last.to_owned() } else { format!("{section}-{last}") }
}

/// A section as it is written in a file. Keys without a value are left out.
pub(super) fn text(section: &str, name: Option<&str>, keys: &[(&str, Option<toml::Value>)]) -> String {
    let name = ("name", name.map(Into::into));
    let keys = [name].into_iter().chain(keys.iter().cloned());
    let lines = keys.filter_map(|(key, value)| Some(format!("{key} = {}\n", value?)));
    format!("[[{section}]]\n{}", lines.collect::<String>())
}

/// A path as a value of a section.
pub(super) fn path(path: &Path) -> toml::Value {
    path.to_string_lossy().into_owned().into()
}

/// A port as a value of a section.
pub(super) fn port(port: u16) -> toml::Value {
    i64::from(port).into()
}
