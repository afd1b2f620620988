//! A freeze that is held, or has ended, for people.
//!
//! In: a [`HeldFreezeRecord`]. Out: text for stderr. Must never: print (the caller does), or say more than
//! the record.

use std::fmt::Write;

use crate::exit::Exit;
use crate::run::held_record::HeldFreezeRecord;

/// A few lines: the filesystems, how long it may last or lasted, and whether the freeze held.
#[must_use]
pub fn human(record: &HeldFreezeRecord) -> String {
    let mut text = String::new();
    let mounts: Vec<_> = record.filesystems.iter().map(|f| f.mount_point.display().to_string()).collect();
    let mounts = mounts.join(" ");
    let run = &record.run_id;
    if record.lasts() {
        let until = record.until.map_or_else(|| "the deadline".to_owned(), |t| format!("{t:.0}"));
        let _ = writeln!(text, "run {run}: frozen until {until} at the latest: {mounts}");
        let _ = writeln!(text, "`stillpoint thaw --run {run}` ends it");
        return text;
    }
    let reason = record.reason.as_deref().unwrap_or("no reason is known");
    let label = record.achieved.map(|c| c.to_string()).unwrap_or_default();
    let never = matches!(record.exit, Exit::Hook | Exit::Freeze);
    let _ = match record.held {
        Some(true) => {
            writeln!(
                text,
                "run {run}: the freeze held for {:.1} ms, {label}-consistent: {mounts}",
                record.frozen_ms
            )
        }
        _ if never => writeln!(text, "run {run}: nothing was frozen: {reason}"),
        _ => writeln!(text, "run {run}: THE FREEZE DID NOT HOLD: {reason}"),
    };
    if record.held == Some(true) && record.reason.is_some() {
        let _ = writeln!(text, "not {}-consistent: {reason}", record.requested);
    }
    for device in &record.unwitnessed {
        let _ = writeln!(text, "no independent witness: {device}");
    }
    for missing in &record.missing {
        let _ = writeln!(text, "should be mounted and is not: {missing}");
    }
    for trouble in &record.after {
        let _ = writeln!(text, "after the thaw: {trouble}");
    }
    for mount in &record.still_frozen {
        let _ = writeln!(text, "STILL FROZEN: {} (`stillpoint thaw --all` is the rescue)", mount.display());
    }
    if let Some(hint) = &record.hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}
