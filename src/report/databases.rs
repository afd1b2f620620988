//! Databases on the filesystems of a plan: which of them the configuration quiesces, and the sections that
//! are missing for the others.
//!
//! In: the servers that run, each with the section that is for it; the plan. Out: a value for JSON, and text.
//! Must never: judge which section is for which server, or connect to one.

use std::path::PathBuf;

use serde::Serialize;

use super::page::{Page, whole};
use crate::config::settings::Hook;
use crate::path_encoding;
use crate::plan::Plan;
use crate::quiesce::databases::sections::{self, Match};
use crate::quiesce::databases::server::RunningServer;

/// A database, and what the configuration does for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnSet {
    /// The server.
    #[serde(flatten)]
    pub server: RunningServer,
    /// The mount points that it writes to, of the plan.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mounts: Vec<PathBuf>,
    /// The name of the section that quiesces it, if there is one.
    pub section: Option<String>,
    /// The lines to add to the configuration, when there is no section; none when no section is possible.
    pub suggestion: Option<String>,
}

/// These servers with their sections, and with the mounts of the plan that they write to.
#[must_use]
pub fn on_set(found: Vec<RunningServer>, hooks: &[Hook], plan: &Plan) -> Vec<OnSet> {
    let describe = |Match { server, section, suggestion }| {
        let on = plan.filesystems.iter().filter(|f| server.on.contains(&f.dev));
        OnSet { mounts: on.map(|f| f.mount_point.clone()).collect(), server, section, suggestion }
    };
    sections::matches(found, hooks).into_iter().map(describe).collect()
}

/// A section of the plan's text; nothing when there is no database.
pub(super) fn section(page: &mut Page, databases: &[OnSet]) {
    if databases.is_empty() {
        return;
    }
    page.heading("Databases on these filesystems");
    for found in databases {
        let OnSet { server, mounts, section, suggestion } = found;
        let mounts: Vec<String> = mounts.iter().map(|m| whole(m)).collect();
        let what = format!(
            "{}: {} in {}, on {}",
            server.kind,
            server.process,
            whole(&server.data),
            mounts.join(", ")
        );
        page.wrapped("  ", "    ", &what);
        let about = match (section, suggestion) {
            (Some(name), _) => format!("quiesced by the section `{name}`"),
            (None, Some(_)) => "not configured: nothing quiesces it. To have it quiesced, add".to_owned(),
            (None, None) => "it runs in a container, and nothing quiesces it that is seen here: \
                 a `[[container]]` or a `[[session]]` can"
                .to_owned(),
        };
        page.wrapped("    ", "    ", &about);
        for line in suggestion.iter().flat_map(|s| s.lines()) {
            page.line(&format!("      {line}"));
        }
    }
}
