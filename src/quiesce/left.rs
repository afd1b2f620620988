//! A session whose agent is dead: it should have ended with it, and is made to.
//!
//! In: what the journal says of its process. Out: nothing when it ended by itself, else an outcome. Must never: signal a process that only
//! has the same id, or wait without a limit.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::command::GRACE;
use super::{Hook, HookEnv, HookOutcome, HookStatus, Phase};
use crate::run::journal::{SessionProcess, group_and_start};

/// Gives it the hook's timeout to let go by itself, since its standard input has ended; then SIGTERM, then SIGKILL to its group.
pub(crate) async fn end(left: &SessionProcess, env: &HookEnv, hook: &Hook) -> Option<HookOutcome> {
    let started = Instant::now();
    if gone_within(left, env, hook.timeout).await {
        return None;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if is_there(left, env) {
            let _ = killpg(Pid::from_raw(left.pid), signal);
        }
        if gone_within(left, env, GRACE).await {
            break;
        }
    }
    tracing::warn!(
        hook = hook.name,
        "its process {} had to be killed: it does not end with stillpoint",
        left.pid
    );
    let outcome =
        HookOutcome::new(&hook.name, Phase::Post, HookStatus::TimedOut, started.elapsed(), String::new());
    Some(HookOutcome { lost: true, ..outcome })
}

async fn gone_within(left: &SessionProcess, env: &HookEnv, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while is_there(left, env) {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Its leader, or what its leader left in its group. While the group has a member, the kernel gives its id to no other process.
fn is_there(left: &SessionProcess, env: &HookEnv) -> bool {
    match group_and_start(left.pid) {
        Some((_, start)) => start == left.pid_start,
        None => others().any(|pid| {
            group_and_start(pid).is_some_and(|(group, _)| group == left.pid) && is_of_the_run(pid, env)
        }),
    }
}

fn others() -> impl Iterator<Item = i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn is_of_the_run(pid: i32, env: &HookEnv) -> bool {
    let wanted = format!("STILLPOINT_RUN_ID={}", env.run_id);
    let vars = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    vars.split(|b| *b == 0).any(|var| var == wanted.as_bytes())
}
