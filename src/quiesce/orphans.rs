//! A session whose agent is dead: it should have ended with it, and is made to.
//!
//! In: what the journal says of its process. Out: nothing when it ended by itself, else an outcome. Must
//! never: signal a process that only has the same id, or wait without a limit.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::process::GRACE;
use super::{Hook, HookEnv, HookOutcome, HookStatus, Phase};
use crate::host::process::{self, ProcessId, Stat};

/// The process of a session, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProcess {
    pub hook: String,
    /// Its process, whose id is its group's too.
    #[serde(flatten)]
    pub process: ProcessId,
}

/// Gives it the hook's timeout to release by itself, since its standard input has ended; then SIGTERM, then
/// SIGKILL to its group.
pub(crate) async fn end_session(session: &SessionProcess, env: &HookEnv, hook: &Hook) -> Option<HookOutcome> {
    let started = Instant::now();
    if gone_within(session, env, hook.timeout).await {
        return None;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if is_alive(session, env) {
            let _ = killpg(Pid::from_raw(session.process.pid), signal);
        }
        if gone_within(session, env, GRACE).await {
            break;
        }
    }
    tracing::warn!(
        hook = hook.name,
        "its process {} had to be killed: it does not end with stillpoint",
        session.process.pid
    );
    let outcome =
        HookOutcome::new(&hook.name, Phase::Post, HookStatus::TimedOut, started.elapsed(), String::new());
    Some(HookOutcome { lost: true, ..outcome })
}

/// Ends what still quiesces the application in the name of a dead run: a `pre` command that goes on would
/// finish after its `post`. What such a command has left behind on purpose is no leader of the group it was
/// started in, and is left alone.
pub(crate) async fn end_commands(env: &HookEnv, hook: &Hook) {
    let wanted = [
        format!("STILLPOINT_RUN_ID={}", env.run_id),
        format!("STILLPOINT_HOOK={}", hook.name),
        format!("STILLPOINT_PHASE={}", Phase::Pre),
    ];
    let running = || -> Vec<i32> {
        other_processes()
            .filter(|pid| leads_its_group(*pid) && process::has_variables(Path::new("/"), *pid, &wanted))
            .collect()
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let found = running();
        for pid in &found {
            tracing::warn!(hook = hook.name, "its pre command still runs (process {pid}): {signal}");
            let _ = killpg(Pid::from_raw(*pid), signal);
        }
        let end = Instant::now() + GRACE;
        while !found.is_empty() && !running().is_empty() && Instant::now() < end {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// True for the leader of a process group that leads no session: stillpoint starts commands like that.
fn leads_its_group(pid: i32) -> bool {
    let id = Pid::from_raw(pid);
    nix::unistd::getpgid(Some(id)) == Ok(id) && nix::unistd::getsid(Some(id)).is_ok_and(|sid| sid != id)
}

async fn gone_within(session: &SessionProcess, env: &HookEnv, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while is_alive(session, env) {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The leader, or another process of its group. As long as the group has a member, the kernel gives its id
/// to no other process.
fn is_alive(session: &SessionProcess, env: &HookEnv) -> bool {
    let ProcessId { pid, start } = session.process;
    match running(pid) {
        Some(leader) => leader.start == start,
        None => other_processes()
            .any(|other| running(other).is_some_and(|s| s.group == pid) && is_of_the_run(other, env)),
    }
}

/// A process that is no zombie.
fn running(pid: i32) -> Option<Stat> {
    Stat::read(Path::new("/"), pid).ok().flatten().filter(|s| !s.is_zombie())
}

fn other_processes() -> impl Iterator<Item = i32> {
    process::pids(Path::new("/")).unwrap_or_default().into_iter()
}

fn is_of_the_run(pid: i32, env: &HookEnv) -> bool {
    process::has_variables(Path::new("/"), pid, &[format!("STILLPOINT_RUN_ID={}", env.run_id)])
}
