//! Processes that may delay an open or a freeze.
//!
//! In: `/proc` below a root. Out: findings with pid and name. Must never: signal one.

use std::path::Path;
use std::time::Duration;

use super::{Finding, Set};
use crate::exit::Exit;
use crate::host::fanotify::{self, Listener};
use crate::host::open_files::{self, OpenFile};
use crate::host::process::{self, Process};
use crate::host::tasks::{self, Waiting};
use crate::host::write_access::{self, Holder};
use crate::path_encoding::shown;

/// A task that does not move for this long in state D is reported.
pub const STILL: Duration = Duration::from_secs(2);

/// Other programs that freeze filesystems, by their names in /proc/PID/comm.
const FREEZERS: [&str; 5] = ["qemu-ga", "vmtoolsd", "hv_vss_daemon", "fsfreeze", "xfs_freeze"];

/// Processes that the kernel asks for permission at each open (fanotify), on the set's filesystems and
/// elsewhere.
#[must_use]
pub fn fanotify(root: &Path, set: &Set<'_>) -> Vec<Finding> {
    const ID: &str = "fanotify";
    let listeners = match fanotify::listeners(root) {
        Ok(listeners) => listeners,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc: {e}"))],
    };
    let deciding: Vec<&Listener> = listeners.found.iter().filter(|l| l.permission).collect();
    let mut found: Vec<Finding> = deciding
        .iter()
        .map(|listener| {
            let on: Vec<String> = listener.on.iter().filter(|d| set.has(**d)).map(|d| set.name(*d)).collect();
            let place = if on.is_empty() { "elsewhere".to_owned() } else { format!("on {}", on.join(", ")) };
            let what =
                format!("{} is asked by the kernel to permit opens or reads {place}", listener.process);
            Finding::warning(ID, what)
                .at(std::iter::once(format!("pid {}", listener.process.pid)).chain(on))
                .why(
                    "when it stops answering, every open hangs: a run then ends with code 21 before anything \
                     is frozen. If it writes to a frozen filesystem, such as its own log, it stops answering \
                     for the window",
                )
                .remedy(
                    "keep its log and its state off the set's filesystems; or exclude those in its \
                     configuration, or stop it by a hook",
                )
        })
        .collect();
    if found.is_empty() && listeners.hidden == 0 {
        found.push(Finding::ok(ID, "no process has to permit opens (fanotify)"));
    }
    if listeners.hidden > 0 {
        found.push(hidden(ID, listeners.hidden));
    }
    found
}

fn hidden(id: &'static str, n: usize) -> Finding {
    Finding::not_checked(id, format!("the files of {n} processes cannot be seen without CAP_SYS_PTRACE"))
        .remedy("run it with sudo")
}

/// Tasks that are in state D, or in a call that holds write access to the set, at two readings, [`STILL`]
/// apart, and have not moved.
pub async fn still(root: &Path, set: &Set<'_>) -> Vec<Finding> {
    const ID: &str = "hung-tasks";
    let look = || Ok::<_, std::io::Error>((tasks::waiting(root)?, write_access::holders(root, set.devs())?));
    let looks = async {
        let (tasks, holders) = look()?;
        if tasks.is_empty() && holders.is_empty() {
            return Ok((tasks, holders));
        }
        tokio::time::sleep(STILL).await;
        let (tasks_now, holders_now) = look()?;
        let still = tasks::still_waiting(&tasks, tasks_now);
        Ok::<_, std::io::Error>((still, write_access::still_holding(&holders, holders_now)))
    };
    let (mut stuck, mut holders) = match looks.await {
        Ok(stuck) => stuck,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc: {e}"))],
    };
    stuck.retain(|task| !holders.iter().any(|h| h.call.tid == task.tid));
    // What takes long by its nature has a check of its own.
    holders.retain(|holder| !holder.is_known_operation());
    if stuck.is_empty() && holders.is_empty() {
        return vec![Finding::ok(ID, "no process hangs in the kernel, or in a write to the set")];
    }
    let writers = open_files::writers(root, set.devs()).map(|w| w.found).unwrap_or_default();
    let stuck = stuck.iter().map(|task| still_finding(ID, task, set, &writers));
    holders.iter().map(|holder| holding_finding(ID, holder, set)).chain(stuck).collect()
}

fn holding_finding(id: &'static str, holder: &Holder, set: &Set<'_>) -> Finding {
    let still = humantime::format_duration(STILL);
    let what = format!("{} has been in {} for more than {still}", holder.call.process, holder.name);
    Finding::problem(id, Exit::Config, what)
        .at([
            format!("pid {}", holder.call.process.pid),
            format!("{} on {}", shown(&holder.file), set.name(holder.dev)),
        ])
        .why("inside this call it holds write access to a filesystem of the set: FIFREEZE waits for its end")
        .remedy("end that process, or give it what it waits for (splice from an empty pipe waits for data)")
}

fn still_finding(id: &'static str, task: &Waiting, set: &Set<'_>, writers: &[OpenFile]) -> Finding {
    let wchan = match task.wchan.as_str() {
        "" | "0" => String::new(),
        name => format!(" in {name}"),
    };
    let still = humantime::format_duration(STILL);
    let what = format!("{} has been waiting in the kernel{wchan} for more than {still}", task.process);
    let open: Vec<_> = writers.iter().filter(|w| w.process.pid == task.process.pid).collect();
    let at = std::iter::once(format!("pid {}", task.process.pid));
    if open.is_empty() {
        return Finding::warning(id, what)
            .at(at)
            .why("a task that waits inside a write keeps FIFREEZE waiting, and nobody can end that")
            .remedy(format!(
                "see what it waits for: cat /proc/{0}/stack; usually a disk or \
                 network filesystem that does not answer",
                task.process.pid
            ));
    }
    let places = open.iter().map(|w| format!("{} on {}", shown(&w.path), set.name(w.dev)));
    Finding::problem(id, Exit::Config, what)
        .at(at.chain(places))
        .why(
            "it has a file of the set open for writing: FIFREEZE may wait for it without end, or the \
             filesystem is frozen already",
        )
        .remedy(format!(
            "see what it waits for: cat /proc/{0}/stack; if something left the filesystem \
             frozen: stillpoint thaw --all",
            task.process.pid
        ))
}

/// Finds running programs that freeze filesystems too, such as another vendor's backup agent.
#[must_use]
pub(crate) fn freezers(root: &Path) -> Vec<Finding> {
    const ID: &str = "other-freezers";
    let pids = match process::pids(root) {
        Ok(pids) => pids,
        Err(e) => return vec![Finding::not_checked(ID, format!("/proc: {e}"))],
    };
    let running = pids.into_iter().map(|pid| Process::read(root, pid));
    let found: Vec<Finding> = running
        .filter(|p| FREEZERS.contains(&p.comm.as_str()))
        .map(|p| {
            Finding::warning(ID, format!("{p} freezes filesystems too"))
                .at([format!("pid {}", p.pid)])
                .why(
                    "stillpoint never thaws what another program froze: while that lasts, a run fails \
                      with code 21",
                )
                .remedy("make sure that the two do not run at the same time")
        })
        .collect();
    if found.is_empty() { vec![Finding::ok(ID, "no other program that freezes is running")] } else { found }
}
