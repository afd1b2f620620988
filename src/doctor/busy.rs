//! What goes on in the filesystems of the set that a freeze would have to wait for.
//!
//! In: one look at them. Out: findings. Must never: call a problem what a run waits for, or say "none" of
//! what could not be looked at.

use std::time::Duration;

use super::Finding;
use crate::host::busy::{Effect, Operation, Seen};
use crate::path_encoding::{printable, shown};

/// Name of the check.
pub const ID: &str = "busy";

/// Long operations that are in progress: scrub, balance, resize, defragment and the like.
#[must_use]
pub fn busy(seen: &Seen, busy_timeout: Duration) -> Vec<Finding> {
    let mut found: Vec<Finding> = seen.found.iter().map(|o| in_progress(o, busy_timeout)).collect();
    for unseen in &seen.unseen {
        let finding = Finding::not_checked(ID, printable(unseen));
        found.push(finding.remedy("run it with sudo, in the host's own namespaces"));
    }
    if found.is_empty() {
        found.push(Finding::ok(ID, "no scrub, balance, resize or the like is in progress on the set"));
    }
    found
}

fn in_progress(operation: &Operation, busy_timeout: Duration) -> Finding {
    let limit = humantime::format_duration(busy_timeout);
    let why = match operation.effect {
        Effect::Blocks => format!(
            "FIFREEZE waits for its end, and every writer behind FIFREEZE: a run waits before its hooks, \
             {limit} at most (busy_timeout), and is then refused with code 21"
        ),
        Effect::Writes => format!(
            "it goes on writing to a device while the filesystem is frozen, and the set is only `crash`: a run \
             waits before its hooks, {limit} at most (busy_timeout), and is then refused with code 21, unless \
             on_degraded = \"keep\""
        ),
    };
    let mount = shown(&operation.mount_point);
    let remedy = match operation.stop {
        Some(stop) => format!("let runs begin at another hour, or end it: {stop} {mount}"),
        None => "let it end, or let runs begin at another hour".to_owned(),
    };
    let process = operation.process.iter().map(|p| format!("pid {}", p.pid));
    Finding::warning(ID, format!("in progress: {operation}"))
        .at(std::iter::once(mount).chain(process))
        .why(why)
        .remedy(remedy)
}
