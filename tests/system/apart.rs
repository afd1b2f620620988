//! The watchdog does not share the agent's fate: what stops or ends everything in a control group, or takes
//! the CPUs from it, leaves the watchdog, which thaws. Where that cannot be, in a PID namespace, a run is
//! refused.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::control_group::{ControlGroup, Hierarchy};
use rig::hooks::{log, noting};
use rig::probe::{BlockedWrite, assert_clean, assert_labels, assert_settled, guards, was_frozen, watchdogs};
use rig::program::{Run, await_some};
use rig::window::{InWindow, in_the_window_of};
use rig::{Fs, Rig, stillpoint};

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

fn blocked(rig: &Rig) -> Vec<BlockedWrite> {
    rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect()
}

/// Waits for the writes; how long the last one took from `since`. The window lasts for half a minute.
fn thawed_after(writes: &[BlockedWrite], since: Instant) -> Duration {
    let through = |w: &BlockedWrite| w.done(Duration::from_secs(20)).expect("not thawed");
    writes.iter().map(|w| through(w).duration_since(since)).max().unwrap()
}

fn assert_soon(took: Duration, what: &str) {
    println!("thawed {took:?} after {what}");
    assert!(took < Duration::from_secs(4), "thawed {took:?} after {what}");
}

/// A run in its window, within a control group.
fn in_a_group(rig: &Rig, hierarchy: Hierarchy) -> Option<(ControlGroup, InWindow<'_>)> {
    let group = ControlGroup::new(rig, hierarchy)?;
    let command = group.within(&rig.command(&["snapshot", "-o", "json", "--window", "30s"]));
    let run = in_the_window_of(rig, command);
    assert!(group.processes().contains(&run.pid().as_raw()), "the agent is not in its group");
    Some((group, run))
}

fn fields(pid: Pid, task: &str) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{task}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_watchdog_stands_alone() {
    let rig = two();
    let Some((_group, run)) = in_a_group(&rig, Hierarchy::Unified) else { return };
    let guards = watchdogs(&rig);
    assert_eq!(guards.len(), 1);
    let (guard, proc) = (guards[0], format!("/proc/{}", guards[0]));
    let groups = std::fs::read_to_string(format!("{proc}/cgroup")).unwrap();
    assert!(groups.lines().all(|l| l.ends_with(":/")), "{groups}");
    assert!(
        std::fs::read_to_string(format!("/proc/{}/cgroup", run.pid())).unwrap().contains("0::/stillpoint")
    );
    // Fields 40 and 41 of proc_pid_stat(5); the name in field 2 ends what is cut off.
    let tasks: Vec<_> = std::fs::read_dir(format!("{proc}/task")).unwrap().flatten().collect();
    assert_eq!(tasks.len(), 3, "one thread looks, and one thaws each filesystem");
    for task in tasks {
        let stat = fields(guard, task.file_name().to_str().unwrap());
        assert_eq!((stat[37].as_str(), stat[38].as_str()), ("99", "1"), "SCHED_FIFO: {stat:?}");
    }
    // What is the agent's or its unit's: a log, the run folder, a pipe. The socket is the one to the agent.
    let mounts: Vec<_> = rig.mounts().iter().map(|m| m.to_str().unwrap().to_owned()).collect();
    for fd in std::fs::read_dir(format!("{proc}/fd")).unwrap().flatten() {
        let to = std::fs::read_link(fd.path()).unwrap().to_str().unwrap().to_owned();
        let own = [
            "/dev/null",
            "/dev/kmsg",
            "/sys/kernel/rcu_expedited",
            "anon_inode:[timerfd]",
            "anon_inode:[pidfd]",
            "pidfd:",
        ];
        let known =
            mounts.contains(&to) || own.iter().any(|o| to.starts_with(o)) || to.starts_with("socket:");
        assert!(known, "it has {to} open");
    }
    assert_eq!(std::fs::read_link(format!("{proc}/cwd")).unwrap(), Path::new("/"));
    let record = run.end().exits(0).record();
    assert_eq!(record["watchdog_shares"], serde_json::json!([]), "{record:#}");
    assert_settled(&rig);
}

/// Signals to everybody (Ctrl-C, a shutdown), the OOM killer, swapping, a limit of the shell's.
#[test]
fn what_ends_others_does_not_end_the_guards() {
    let rig = two();
    let plain = rig.command(&["snapshot"]);
    let mut command = rig.exec(Path::new("prlimit"));
    command.arg("--rttime=1000000:unlimited").arg(plain.get_program()).args(plain.get_args());
    let run = in_the_window_of(&rig, command);
    let guards = guards(&rig);
    assert_eq!(guards.len(), 2);
    // Not in a container without CAP_SYS_RESOURCE. Tried now that both are started: they inherit it.
    let may_protect = std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
    for guard in guards {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{guard}/{name}")).unwrap();
        let status = read("status");
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let blocked = u64::from_str_radix(&field("SigBlk:"), 16).unwrap();
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            assert_ne!(blocked & 1 << (signal as i32 - 1), 0, "{signal} ends it");
        }
        let session = fields(guard, &guard.to_string())[3].clone();
        assert_eq!(session, guard.to_string(), "it is in the session of somebody else");
        assert!(!may_protect || read("oom_score_adj").trim() == "-1000", "{}", read("oom_score_adj"));
        assert_ne!(field("VmLck:"), "0 kB", "its memory may be swapped out");
        let limits = read("limits");
        let realtime = limits.lines().find(|l| l.starts_with("Max realtime timeout")).unwrap();
        // Behind the three words of its name: the soft limit.
        let soft = realtime.split_ascii_whitespace().nth(3);
        assert_eq!(soft, Some("unlimited"), "the kernel kills it: {realtime}");
    }
    run.end().exits(0);
    assert_settled(&rig);
}

/// `systemctl kill`, `docker kill`, the end of a stop timeout, an OOM kill of the whole group.
#[test]
fn a_kill_of_the_control_group_leaves_the_watchdog() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    let Some((group, run)) = in_a_group(&rig, Hierarchy::Unified) else { return };
    let writes = blocked(&rig);
    let killed = Instant::now();
    if !group.set("cgroup.kill", "1") {
        return;
    }
    assert_soon(thawed_after(&writes, killed), "the kill of its control group");
    assert_eq!(run.end().signal, Some(Signal::SIGKILL as i32));
    assert_clean(&rig);
    rig.run(&["thaw", "--recover"]).exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    rig.await_quiet();
}

fn frozen_group(hierarchy: Hierarchy, (file, freeze, thaw): (&str, &str, &str)) {
    let rig = two();
    let Some((group, run)) = in_a_group(&rig, hierarchy) else { return };
    let writes = blocked(&rig);
    let since = Instant::now();
    if !group.set(file, freeze) {
        return;
    }
    assert_soon(thawed_after(&writes, since), "its control group was frozen");
    group.set(file, thaw);
    let record = run.end().exits(22).record();
    assert_eq!(record["achieved"], "crash", "{record:#}");
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

/// `docker pause`, `systemctl freeze`.
#[test]
fn a_freeze_of_the_control_group_leaves_the_watchdog() {
    frozen_group(Hierarchy::Unified, ("cgroup.freeze", "1", "0"));
}

/// The same where control groups are of version 1, or of both.
#[test]
fn a_freeze_by_the_old_freezer_leaves_the_watchdog() {
    frozen_group(Hierarchy::Legacy("freezer"), ("freezer.state", "FROZEN", "THAWED"));
}

/// A thousandth of a CPU, which somebody else in the group uses up.
#[test]
fn a_control_group_without_cpu_leaves_the_watchdog() {
    let rig = two();
    let Some((group, run)) = in_a_group(&rig, Hierarchy::Legacy("cpu")) else { return };
    let writes = blocked(&rig);
    let since = Instant::now();
    if !(group.set("cpu.cfs_period_us", "1000000") && group.set("cpu.cfs_quota_us", "1000")) {
        return;
    }
    let mut burner = group.within(Command::new("sh").args(["-c", "while :; do :; done"])).spawn().unwrap();
    assert_soon(thawed_after(&writes, since), "its control group got no CPU");
    burner.kill().unwrap();
    group.set("cpu.cfs_quota_us", "-1");
    burner.wait().unwrap();
    run.end().exits(22);
    assert_settled(&rig);
}

/// Where it can leave none of them: the run goes on, and says so.
#[test]
fn what_the_watchdog_cannot_leave_is_in_the_record_and_in_the_log() {
    let rig = two();
    let Some(group) = ControlGroup::new(&rig, Hierarchy::Unified) else { return };
    // As in a container: the hierarchy that it sees begins at its own group, and may not be written to.
    let hidden = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
    let mut command = rig.exec(Path::new("unshare"));
    command.args(["--mount", "--cgroup", "sh", "-c", hidden, "sh", stillpoint()]);
    let command = rig.tail(command, &["snapshot", "-o", "json"]);
    let ended = Run::start(group.within(&command)).end();
    let record = ended.exits(0).record();
    let shares = record["watchdog_shares"].to_string();
    assert!(shares.contains("control group cgroup2 / (its root group is not mounted here)"), "{record:#}");
    ended.says("the watchdog shares with this process: control group cgroup2 /");
    assert_settled(&rig);
}

/// `stillpoint` as the child of the first process of a PID namespace.
fn contained(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = rig.exec(Path::new("unshare"));
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", "\"$@\"; exit $?", "sh", stillpoint()]);
    rig.tail(command, arguments)
}

#[test]
fn in_a_pid_namespace_of_its_own_a_run_is_refused_unless_it_is_allowed() {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    for command in [["snapshot"].as_slice(), &["rehearse"], &["freeze", "--for", "10s"]] {
        let ended = Run::start(contained(&rig, command)).end();
        ended.exits(78).says("PID namespace").says("--pid=host");
    }
    assert_eq!((log(&rig), rig.creates().len()), (Vec::<String>::new(), 0));
    let ended = Run::start(contained(&rig, &["snapshot", "--allow-pid-namespace", "-o", "json"])).end();
    assert_eq!(ended.exits(0).record()["achieved"], "application");
    assert_settled(&rig);
}

/// What is allowed there: everything is killed, and nothing is thawed before somebody does it.
#[test]
fn what_the_end_of_a_pid_namespace_leaves_is_thawed_by_the_recovery() {
    let rig = two();
    let mut command = contained(&rig, &["snapshot", "--allow-pid-namespace"]);
    command.stdin(Stdio::null());
    let run = in_the_window_of(&rig, command);
    let first = await_some("the first process of the namespace", || {
        let found = Command::new("pgrep").args(["-P", &run.pid().to_string()]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().trim().parse().ok()
    });
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    await_some("the watchdog's end", || watchdogs(&rig).is_empty().then_some(()));
    let writes = blocked(&rig);
    let since = Instant::now();
    rig.run(&["thaw", "--recover"]).exits(0).says("thawed");
    assert_soon(thawed_after(&writes, since), "the recovery");
    run.end();
    assert!(rig.mounts().iter().all(|m| !was_frozen(m)));
    rig.await_quiet();
}
