//! A run's result for people.
//!
//! In: a [`SetRecord`]. Out: text for stderr. Must never: print (the caller does), or say more than the
//! record.

use std::fmt::Write;

use crate::exit::Exit;
use crate::sets::group::{GroupRecord, Instant};
use crate::sets::record::SetRecord;

const WIDTH: usize = 80;

/// What became of a set that was waited for, after its result was told with `known` troubles.
#[must_use]
pub(crate) fn completed(record: &SetRecord, known: usize) -> String {
    let mut text = String::new();
    let done = record.snapshots.iter().all(|s| s.state == "completed");
    if done {
        let _ = writeln!(text, "set {}: every snapshot is completed", record.run_id);
    }
    for trouble in record.after.iter().skip(known) {
        let _ = writeln!(text, "after the set: {trouble}");
    }
    if done && record.exit == Exit::After {
        let _ = writeln!(text, "the set is there; exit 11 is about what failed after it");
    }
    text
}

/// The line about the group.
fn of_group(group: &GroupRecord) -> String {
    let GroupRecord { name, member, .. } = group;
    let others: Vec<_> =
        group.members.iter().filter(|m| m.member != *member).map(|m| m.member.as_str()).collect();
    let epoch = group.epoch.as_ref().map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
    let why = group.reason.as_deref().unwrap_or("the others are not known to have held");
    match group.instant {
        Some(Instant::Group) => format!("group {name}: one instant with {}{epoch}", others.join(", ")),
        Some(Instant::Host) => format!("group {name}: the instant of this host alone{epoch}: {why}"),
        None => format!("group {name}: no set of {member}{epoch}"),
    }
}

/// The result in a few lines.
#[must_use]
pub fn human(record: &SetRecord) -> String {
    let mut text = String::new();
    match record.achieved {
        Some(reached) => {
            let planned = record.plan.volumes.len();
            let _ = writeln!(
                text,
                "set {}: {reached}-consistent, {} of {planned} {}",
                record.run_id,
                record.snapshots.len(),
                if planned == 1 { "volume" } else { "volumes" },
            );
        }
        None => {
            let _ = writeln!(text, "run {}: nothing was taken", record.run_id);
        }
    }
    for s in &record.snapshots {
        let mounts: Vec<_> = s.mount_points.iter().map(|m| m.display().to_string()).collect();
        let line =
            format!("  {}  {}  {}", s.id, s.volume_id, s.device_name.as_deref().unwrap_or("not planned"));
        let mounts = mounts.join(" ");
        let _ = match line.len() + 2 + mounts.len() {
            _ if mounts.is_empty() => writeln!(text, "{line}"),
            n if n <= WIDTH => writeln!(text, "{line}  {mounts}"),
            _ => writeln!(text, "{line}\n    {mounts}"),
        };
    }
    for app in &record.applications {
        let label = app.achieved.map_or_else(|| "not taken".to_owned(), |c| format!("{c}-consistent"));
        let _ = writeln!(text, "  {} ({}): {label}", app.name, app.kind);
    }
    if record.window_ms > 0.0 {
        let _ = write!(text, "frozen window {:.1} ms", record.window_ms);
        let _ = match record.call_ms {
            Some(call) => writeln!(text, ", of which EC2's answer took {call:.1} ms"),
            None => writeln!(text),
        };
    }
    for device in &record.unwitnessed {
        let _ = writeln!(text, "no independent witness: {device}");
    }
    if let Some(reason) = &record.reason {
        let _ = match record.achieved {
            Some(_) => writeln!(text, "not {}-consistent: {reason}", record.requested),
            None => writeln!(text, "because: {reason}"),
        };
    }
    if let Some(group) = &record.group {
        let _ = writeln!(text, "{}", of_group(group));
    }
    for missing in record.plan.lacks() {
        let _ = writeln!(text, "should be mounted and is not: {missing}");
    }
    for trouble in &record.after {
        let _ = writeln!(text, "after the set: {trouble}");
    }
    let policy = match (record.exit, record.achieved) {
        (Exit::After, Some(_)) => Some("the set is there; exit 11 is about what failed after it"),
        (Exit::Lower, Some(_)) => Some("kept all the same: on_degraded is \"keep\" (exit 10)"),
        (Exit::NotHeld, Some(_)) => Some("the set is there, under this label; exit 22: less than requested"),
        _ => None,
    };
    if let Some(policy) = policy {
        let _ = writeln!(text, "{policy}");
    }
    for mount in &record.not_mounted {
        let _ =
            writeln!(text, "NOT MOUNTED: {} (`stillpoint thaw` and the next run try again)", mount.display());
    }
    for mount in &record.still_frozen {
        let _ = writeln!(
            text,
            "STILL FROZEN: {} (the watchdog keeps trying; `stillpoint thaw --all` thaws everything)",
            mount.display()
        );
    }
    text
}
