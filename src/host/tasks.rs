//! Tasks that wait in the kernel without a way to interrupt them.
//!
//! In: `/proc` below a root. Out: [`Waiting`] tasks. Must never: call a task stuck that has run meanwhile.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::process::{Process, command_line, pids};

/// A task that waits in the kernel without a way to interrupt it (state D).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The process that the waiting thread belongs to.
    pub process: Process,
    pub(crate) tid: i32,
    /// The kernel function that it waits in (/proc/PID/wchan); empty when the kernel does not say.
    pub(crate) wchan: String,
    /// Context switches so far: while they stand still, the task has not run.
    switches: u64,
}

/// Tasks of user processes in state D.
///
/// # Errors
/// When /proc cannot be listed.
pub fn waiting(root: &Path) -> io::Result<Vec<Waiting>> {
    let mut found = Vec::new();
    for pid in pids(root)? {
        let of = root.join(format!("proc/{pid}"));
        // Kernel threads have no command line, and some of them wait in D for good.
        if command_line(root, pid).is_ok_and(|c| c.is_empty()) {
            continue;
        }
        let Ok(tasks) = fs::read_dir(of.join("task")) else { continue };
        for tid in tasks.flatten().filter_map(|t| t.file_name().to_str()?.parse::<i32>().ok()) {
            let task = of.join(format!("task/{tid}"));
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let field = |name| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
            if !field("State:").is_some_and(|s| s.starts_with('D')) {
                continue;
            }
            found.push(Waiting {
                process: Process::read(root, pid),
                tid,
                wchan: fs::read_to_string(task.join("wchan")).unwrap_or_default(),
                switches: switches(&task).unwrap_or_default(),
            });
        }
    }
    Ok(found)
}

/// Context switches of a thread so far, by its folder in /proc.
pub(super) fn switches(thread: &Path) -> Option<u64> {
    let status = fs::read_to_string(thread.join("status")).ok()?;
    let count = |name| status.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
    // The made hosts of tests have only one of them.
    Some(count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:").unwrap_or_default())
}

/// Of the tasks that waited at an earlier look, those that have not run since (as khungtaskd tells,
/// kernel/hung_task.c).
#[must_use]
pub(crate) fn still_waiting(before: &[Waiting], now: Vec<Waiting>) -> Vec<Waiting> {
    now.into_iter().filter(|w| before.iter().any(|b| b.tid == w.tid && b.switches == w.switches)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::open_files::tests::host;
    use super::*;

    #[test]
    fn a_task_that_has_run_since_is_not_stuck() {
        let root = host(&[(5, "dd", &[])]);
        let task = root.path().join("proc/5/task/5");
        fs::create_dir_all(&task).unwrap();
        fs::write(root.path().join("proc/5/cmdline"), "dd\0").unwrap();
        let state = |state: &str, switches: u32| {
            let status = format!("Name:\tdd\nState:\t{state}\nvoluntary_ctxt_switches:\t{switches}\n");
            fs::write(task.join("status"), status).unwrap();
            waiting(root.path()).unwrap()
        };
        let before = state("D (disk sleep)", 4);
        assert_eq!(before.len(), 1);
        assert_eq!(still_waiting(&before, state("D (disk sleep)", 4)).len(), 1);
        assert_eq!(still_waiting(&before, state("D (disk sleep)", 5)), []);
        assert_eq!(state("S (sleeping)", 4), []);
        // A kernel thread.
        fs::write(root.path().join("proc/5/cmdline"), "").unwrap();
        assert_eq!(state("D (disk sleep)", 4), []);
    }
}
