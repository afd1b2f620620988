//! What keeps this program from being removed: a run that goes on, or what a dead one left that only this
//! program undoes.
//!
//! In: the run folder, and what `status` reads there. Out: each obstacle, with the command that ends it. Must
//! never: wait without a limit, or make the run folder where there is none.

use std::path::Path;
use std::time::Duration;

use super::status::{RunStatus, Status};
use crate::exit::Exit;
use crate::host::lock::{self, NoLock};
use crate::path_encoding::shown;

/// One obstacle.
#[derive(Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The exit code for it: 75 for what goes on, 40, 41 or 11 for what is left.
    pub exit: Exit,
    /// What it is.
    pub what: String,
    /// Which command ends it.
    pub hint: String,
}

/// Waits until no run has the lock of this run folder, for at most `limit`; returns the run that has it still.
///
/// # Errors
/// When the lock cannot be asked for: then it is not known whether there is a run.
pub async fn wait(run_dir: &Path, limit: Duration) -> std::io::Result<Option<Obstacle>> {
    let path = run_dir.join("lock");
    // Without the file there was no run since the last boot.
    if !path.try_exists()? {
        return Ok(None);
    }
    match lock::take(&path, limit).await {
        Ok(_free) => Ok(None),
        Err(NoLock::Unusable(e)) => Err(e),
        Err(NoLock::Taken { pid }) => {
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let hint = match pid {
                Some(pid) => format!("wait for it, or end it, which thaws and releases first: kill {pid}"),
                None => "wait for it".to_owned(),
            };
            let what = format!("a run{who} goes on: it holds {}", shown(&path));
            Ok(Some(Obstacle { exit: Exit::Locked, what, hint }))
        }
    }
}

/// Of what `status` read. Labels that snapshots still lack are no obstacle: nothing on this host waits for them.
#[must_use]
pub fn left(status: &Status) -> Vec<Obstacle> {
    let unreadable = status.unreadable.iter().map(|why| Obstacle {
        exit: Exit::StillFrozen,
        what: format!("the journal of a run cannot be read, which may have left something frozen: {why}"),
        hint: "`stillpoint thaw --all` thaws whatever it froze; then remove the file".to_owned(),
    });
    status.runs.iter().filter_map(of).chain(unreadable).collect()
}

fn of(run: &RunStatus) -> Option<Obstacle> {
    let id = &run.run_id;
    if run.alive {
        let (what, hint) = if run.command == "freeze" {
            (format!("run {id} holds a freeze"), "`stillpoint thaw` ends it".to_owned())
        } else {
            let hint = format!("wait for it, or end it, which thaws and releases first: kill {}", run.pid);
            (format!("run {id} ({} {}) goes on", run.command, run.plan), hint)
        };
        return Some(Obstacle { exit: Exit::Locked, what, hint });
    }
    let (exit, what) = if run.is_overdue {
        (Exit::StillFrozen, "may have left something frozen")
    } else if !run.unmounted.is_empty() || !run.units.is_empty() {
        (Exit::NotMounted, "has left something unmounted or stopped")
    } else if !run.owed.is_empty() || run.expedited {
        (Exit::After, "has left something to be released")
    } else {
        return None;
    };
    let hint = "`stillpoint thaw` undoes what it left".to_owned();
    Some(Obstacle { exit, what: format!("run {id}, which is dead, {what}"), hint })
}
