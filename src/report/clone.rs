//! The result of a run that clones, for people.
//!
//! In: a [`CloneRecord`]. Out: text for stderr. Must never: print (the caller does), or say more than the record.

use std::fmt::Write;

use crate::ec2::clones::CloneOf;
use crate::exit::Exit;
use crate::sets::clones::CloneRecord;

/// What a clone of a volume of so many GiB is asked for with.
#[must_use]
pub(crate) fn wanted(of: &CloneOf, gib: i32) -> String {
    let mut text = format!("  of {}  {} GiB {}", of.volume, of.size_gib.unwrap_or(gib), of.volume_type);
    if of.size_gib.is_some() {
        let _ = write!(text, " (the volume: {gib} GiB)");
    }
    if let Some(iops) = of.iops {
        let _ = write!(text, ", {iops} IOPS");
    }
    if let Some(mib) = of.throughput {
        let _ = write!(text, ", {mib} MiB/s");
    }
    text
}

/// The result in a few lines.
#[must_use]
pub fn human(record: &CloneRecord) -> String {
    let set = &record.set;
    let mut text = String::new();
    let left = record.clones.iter().filter(|c| c.stays()).count();
    match set.achieved {
        Some(reached) if left > 0 => {
            let planned = set.plan.volumes.len();
            let volumes = if planned == 1 { "volume" } else { "volumes" };
            let _ =
                writeln!(text, "clones {}: {reached}-consistent, {left} of {planned} {volumes}", set.run_id);
        }
        Some(_) => {
            let _ = writeln!(text, "run {}: nothing is left of an incomplete set of clones", set.run_id);
        }
        None => {
            let _ = writeln!(text, "run {}: nothing was cloned", set.run_id);
        }
    }
    for clone in &record.clones {
        let device = clone.device_name.as_deref().unwrap_or("not planned");
        let _ = writeln!(text, "  {}  {}  of {} {device}", clone.id, clone.state, clone.volume_id);
    }
    if left > 1 {
        let _ = writeln!(
            text,
            "{}",
            if record.one_instant {
                "one instant: nothing was written from the first request to the last answer"
            } else {
                "not one instant: each volume is as it was at its own request"
            }
        );
    }
    if set.window_ms > 0.0 {
        let _ = write!(text, "frozen window {:.1} ms", set.window_ms);
        let _ = match set.call_ms {
            Some(call) => writeln!(text, ", of which EC2's answers took {call:.1} ms"),
            None => writeln!(text),
        };
    }
    if let Some(reason) = &set.reason {
        let _ = match set.achieved {
            Some(_) => writeln!(text, "not {}-consistent: {reason}", set.requested),
            None => writeln!(text, "because: {reason}"),
        };
    }
    for trouble in &set.after {
        let _ = writeln!(text, "after the clones: {trouble}");
    }
    let policy = match (set.exit, left) {
        (Exit::After, 1..) => Some("the clones are there; exit 11 is about what failed after them"),
        (Exit::Lower, 1..) => Some("kept all the same: on_degraded is \"keep\" (exit 10)"),
        (Exit::NotHeld, 1..) => Some("the clones are there, under this label; exit 22: less than requested"),
        _ => None,
    };
    if let Some(policy) = policy {
        let _ = writeln!(text, "{policy}");
    }
    for mount in &set.not_mounted {
        let _ =
            writeln!(text, "NOT MOUNTED: {} (`stillpoint thaw` and the next run try again)", mount.display());
    }
    for mount in &set.still_frozen {
        let _ = writeln!(
            text,
            "STILL FROZEN: {} (the watchdog keeps trying; `stillpoint thaw --all` thaws everything)",
            mount.display()
        );
    }
    text
}
