//! The watchdog on its own: nothing that stops or ends the agent's control group, or keeps it from the CPUs,
//! does so to the watchdog.
//!
//! In: the watchdog's process, before it has threads and before anything is frozen. Out: the same process
//! outside of the agent's control groups and with real-time priority; and what of that could not be. Must
//! never: fail because of it: a watchdog that shares something is better than none, and the run says so.
//!
//! A PID namespace cannot be left; a run in one is refused (see `doctor`).

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::host::{cgroup, kernel};

/// Leaves what can be left. What is still shared with the agent, each in a few words.
pub(super) fn stand() -> Vec<String> {
    // First the groups: a group may have no real-time bandwidth, and the root one has.
    let mut shares: Vec<String> = cgroup::leave().into_iter().map(|g| format!("control group {g}")).collect();
    if let Err(why) = run_first() {
        shares.push(format!("ordinary priority ({why})"));
    }
    shares
}

fn run_first() -> Result<(), String> {
    // With 0, no real-time thread runs at all (sched(7)).
    let bandwidth = std::fs::read_to_string("/proc/sys/kernel/sched_rt_runtime_us");
    if bandwidth.is_ok_and(|b| b.trim() == "0") {
        return Err("kernel.sched_rt_runtime_us is 0".to_owned());
    }
    // A thread that reaches this limit is killed (setrlimit(2)).
    setrlimit(Resource::RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY)
        .map_err(|e| format!("RLIMIT_RTTIME: {}", e.desc()))?;
    kernel::run_first().map_err(|e| e.desc().to_owned())
}
