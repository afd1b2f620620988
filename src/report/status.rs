//! What may be frozen and what has to be undone, for people.
//!
//! In: a [`Status`]. Out: text. Must never: print (the caller does), or call anything thawed that was not
//! probed.

use std::fmt::Write;

use crate::exit::Exit;
use crate::path_encoding::{printable, shown};
use crate::run::status::{PlanStatus, Probed, RunStatus, Status};

/// Runs, then what the probe found.
#[must_use]
pub fn human(status: &Status) -> String {
    let mut text = String::new();
    for run in &status.runs {
        one(&mut text, run);
    }
    for journal in &status.unreadable {
        let _ = writeln!(text, "cannot read the journal {journal}");
    }
    match &status.probed {
        None if status.runs.is_empty() && status.unreadable.is_empty() => {
            let _ = writeln!(
                text,
                "no run holds anything or has left anything behind (--probe tests the filesystems themselves)"
            );
        }
        None => {}
        Some(probed) => all(&mut text, probed, &status.unread),
    }
    for plan in &status.plans {
        of_plan(&mut text, plan);
    }
    text
}

fn of_plan(text: &mut String, plan: &PlanStatus) {
    let _ = write!(text, "plan {}: ", plan.plan);
    let _ = match &plan.last {
        None => writeln!(text, "no run is known"),
        Some(last) if last.goes_on() => writeln!(text, "a run goes on since {:.0}", last.started),
        Some(last) => {
            let at = last.ended.unwrap_or(last.started);
            let how = match (last.exit_code, last.achieved) {
                (None, _) => "died before its end".to_owned(),
                (Some(exit), Some(achieved)) => format!("{achieved}-consistent, exit {}", exit.code()),
                (Some(exit), None) => format!("NOTHING WAS TAKEN, exit {}", exit.code()),
            };
            let _ = writeln!(text, "last run {at:.0}: {how}");
            match last.reason.as_ref().filter(|_| last.exit_code != Some(Exit::Ok)) {
                Some(reason) => writeln!(text, "  because: {}", printable(reason)),
                None => Ok(()),
            }
        }
    };
    if let Some(timer) = &plan.timer {
        let _ = match &timer.next {
            Some(next) => writeln!(text, "  next by its timer: {next}"),
            None => writeln!(text, "  its timer is {}: it starts no run", timer.state),
        };
    }
}

fn one(text: &mut String, run: &RunStatus) {
    let life = match (run.alive, run.ended) {
        (true, _) => "goes on",
        (false, true) => "left something to be done",
        (false, false) => "died before its end",
    };
    let _ = writeln!(text, "run {} ({} {}, pid {}) {life}", run.run_id, run.command, run.plan, run.pid);
    let _ = writeln!(text, "  started {:.0}", run.started);
    if !run.may_be_frozen.is_empty() {
        let mounts: Vec<_> = run.may_be_frozen.iter().map(|m| m.display().to_string()).collect();
        let _ = writeln!(text, "  may be frozen: {}", mounts.join(" "));
        if let Some(until) = run.until.filter(|_| run.alive) {
            let _ = writeln!(text, "  until {until:.0} at the latest");
        }
        if let Some(watchdog) = run.watchdog {
            let _ = writeln!(text, "  watchdog: pid {watchdog}");
        }
    }
    if !run.unmounted.is_empty() {
        let mounts: Vec<_> = run.unmounted.iter().map(|m| m.display().to_string()).collect();
        let _ = writeln!(text, "  may be unmounted: {}", mounts.join(" "));
    }
    if !run.units.is_empty() {
        let _ = writeln!(text, "  may be stopped: {}", run.units.join(" "));
    }
    if run.expedited {
        let _ = writeln!(text, "  may be raised: /sys/kernel/rcu_expedited");
    }
    if !run.owed.is_empty() {
        let _ = writeln!(text, "  post hooks are due: {}", run.owed.join(" "));
    }
    if run.snapshots_unknown {
        let _ = writeln!(text, "  it may have made snapshots");
    }
    if !run.unlabelled.is_empty() {
        let ids: Vec<_> = run.unlabelled.iter().map(crate::ids::SnapshotId::as_str).collect();
        let _ = writeln!(text, "  snapshots without a label: {}", ids.join(" "));
    }
    let nothing = run.may_be_frozen.is_empty() && run.unmounted.is_empty() && run.units.is_empty();
    let undo = match (nothing && !run.expedited && run.owed.is_empty(), run.alive) {
        (_, true) => return,
        (true, _) => "`stillpoint snapshot` looks at that at its next start",
        _ => "`stillpoint thaw --recover`, or the next start, undoes what it left",
    };
    let _ = writeln!(text, "  {undo}");
}

fn all(text: &mut String, probed: &[Probed], unread: &[String]) {
    for p in probed.iter().filter(|p| p.frozen != Some(false)) {
        let by = p.by.as_ref().map_or_else(|| "not by stillpoint".to_owned(), |run| format!("run {run}"));
        let name = shown(&p.mount_point);
        let word = if p.in_window { "frozen, in its window" } else { "FROZEN" };
        let _ = match p.waiting_pid {
            Some(pid) => writeln!(text, "{word}: {name} ({by}); probe {pid} waits there until it is thawed"),
            None => writeln!(text, "not known: {name} ({})", p.not_known.unwrap_or("it was not asked")),
        };
    }
    for what in unread {
        let _ = writeln!(text, "not known: {what}");
    }
    let thawed = probed.iter().filter(|p| p.frozen == Some(false)).count();
    let _ = writeln!(text, "{thawed} of {} filesystems answered: not frozen", probed.len());
}
