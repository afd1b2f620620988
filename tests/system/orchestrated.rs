//! `freeze` and `thaw` for somebody else's snapshots: the freeze outlives its command, never its deadline,
//! and nothing is said of it that was not proven.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::hooks::{hook, log, note, noting};
use rig::patience::let_pass;
use rig::probe::{
    BlockedWrite, Writer, assert_clean, assert_settled, is_thawed, nanoseconds, needs_recovery, watchdogs,
};
use rig::program::{Ended, Run, await_some, put_executable};
use rig::{Fs, Rig, sh};
use serde_json::Value;

fn two() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&format!("{}{}", noting(&rig, "first"), noting(&rig, "second")));
    rig
}

const RELEASED: [&str; 4] = ["pre-first", "pre-second", "post-second unknown", "post-first unknown"];

/// Freezes, and gives what was said. Everything is frozen now.
fn freeze(rig: &Rig, lasts: &str) -> Value {
    let ended = rig.run(&["freeze", "--for", lasts, "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["held"], Value::Null, "{record:#}");
    record
}

/// `thaw` outside of the view: no EC2, no IMDS.
fn thaw(rig: &Rig, arguments: &[&str]) -> Ended {
    let mut command = rig.bare_command(&[&["thaw"], arguments].concat());
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    Run::start(command).end()
}

fn status(rig: &Rig, arguments: &[&str]) -> Ended {
    Run::start(rig.bare_command(&[&["status"], arguments].concat())).end()
}

fn blocked(rig: &Rig) -> Vec<BlockedWrite> {
    rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect()
}

fn all_done(writes: &[BlockedWrite], limit: Duration) -> Option<Instant> {
    writes.iter().map(|w| w.done(limit)).collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn pid(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap())
}

fn id(record: &Value) -> &str {
    record["run_id"].as_str().unwrap()
}

fn await_log(rig: &Rig, lines: &[&str]) {
    await_some("the hooks", || (log(rig) == lines).then_some(()));
}

/// `thaw` says 22, for this reason, however often it is asked.
fn did_not_hold(rig: &Rig, record: &Value, reason: &str) -> Value {
    let late = thaw(rig, &["--run", id(record), "-o", "json"]);
    let said = late.exits(22).record();
    assert_eq!((said["held"].as_bool(), said["achieved"].as_str()), (Some(false), Some("crash")), "{said:#}");
    assert!(said["reason"].as_str().unwrap().contains(reason), "{}", said["reason"]);
    thaw(rig, &["--run", id(record)]).exits(22);
    thaw(rig, &[]).exits(22);
    said
}

/// Whoever asks for the thaw has taken the snapshot: nothing would mount it again in time.
#[test]
fn a_plan_that_unmounts_is_refused_before_anything_is_touched() {
    let rig = two();
    let method = format!("[plan.default]\nmethods = {{ \"{}\" = \"unmount\" }}\n", rig.mount("a").display());
    rig.configure(&format!("{method}{}", noting(&rig, "first")));
    rig.run(&["freeze", "--for", "10s"]).exits(78).says("unmount").says(rig.mount("a").to_str().unwrap());
    assert_eq!(log(&rig), Vec::<String>::new());
    assert_settled(&rig);
}

#[test]
fn freeze_returns_while_frozen_and_thaw_says_that_it_held() {
    let rig = two();
    let ended = rig.run(&["freeze", "--for", "60s"]);
    ended.exits(0).says("frozen until").says(rig.mount("a").to_str().unwrap());
    let run = ended.out.trim();
    assert_eq!(log(&rig), ["pre-first", "pre-second"]);
    let writes = blocked(&rig);
    let asked = Instant::now();
    let thawed = thaw(&rig, &["--run", run, "-o", "json"]);
    let record = thawed.exits(0).says("the freeze held").record();
    let took = all_done(&writes, Duration::from_secs(5)).expect("it was not thawed") - asked;
    println!("thawed {took:?} after `thaw` was started");
    assert_eq!((record["held"].as_bool(), record["achieved"].as_str()), (Some(true), Some("application")));
    assert_eq!(log(&rig), RELEASED);
    assert_eq!(record["hooks"].as_array().unwrap().len(), 4);
    assert_settled(&rig);
    // A post script that is run again is told the same.
    thaw(&rig, &["--run", run]).exits(0);
    thaw(&rig, &[]).exits(0);
    assert_eq!(log(&rig), RELEASED, "and releases nothing twice");
}

#[test]
fn what_nobody_knows_of_did_not_hold() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    thaw(&rig, &["--run", "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11"]).exits(22).says("no freeze of this run");
}

#[test]
fn nobody_thaws_and_the_deadline_does_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "5s");
    let writes = blocked(&rig);
    let end = all_done(&writes, Duration::from_secs(15)).expect("it was never thawed");
    let since = jiff::Timestamp::now().as_nanosecond() - i128::try_from(end.elapsed().as_nanos()).unwrap();
    let late = since - nanoseconds(&record["until"]);
    println!("thawed {} ms after the deadline", late / 1_000_000);
    assert!(late < 2_000_000_000, "thawed {} ms after the deadline", late / 1_000_000);
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "deadline");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

#[test]
fn the_holder_is_killed_and_the_watchdog_thaws_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    let killed = Instant::now();
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    let took = all_done(&writes, Duration::from_secs(10)).expect("it was never thawed") - killed;
    println!("thawed {took:?} after the holder's death");
    await_log(&rig, &RELEASED);
    await_some("the recovery's end", || rig.journals().is_empty().then_some(()));
    did_not_hold(&rig, &record, "died");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

#[test]
fn the_watchdog_is_killed_and_the_holder_thaws_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    let killed = Instant::now();
    watchdogs(&rig).into_iter().for_each(|w| kill(w, Signal::SIGKILL).unwrap());
    let took = all_done(&writes, Duration::from_secs(10)).expect("it was never thawed") - killed;
    println!("thawed {took:?} after the watchdog's death");
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "watchdog");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// The watchdog has all signals blocked; what it starts, and what that starts, has not.
#[test]
fn post_hooks_of_the_recovery_take_signals_and_it_has_a_path() {
    let rig = two();
    let said = rig.path("said");
    let post = format!(
        "grep ^SigBlk /proc/self/status >> {0}; tr '\\000' '\\n' < /proc/$PPID/environ | grep ^PATH= >> {0}; {1}",
        said.display(),
        note(&rig, "post-mask")
    );
    rig.configure(&hook("mask", "true", &post, ""));
    let record = freeze(&rig, "60s");
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    await_log(&rig, &["post-mask"]);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
    assert!(said.contains("PATH=/usr/local/sbin:"), "{said}");
    await_some("the recovery's end", || rig.journals().is_empty().then_some(()));
    assert_settled(&rig);
}

/// No fd is left to the holder for a while: whoever comes later is heard all the same.
#[test]
fn a_client_that_could_not_be_accepted_is_not_the_last() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let holder = record["pid"].to_string();
    let limit = |soft: &str| sh("prlimit", &["--pid", &holder, &format!("--nofile={soft}:")]);
    let former = sh("prlimit", &["--pid", &holder, "--nofile", "--noheadings", "--output", "SOFT"]);
    limit("3");
    let socket = rig.path("run/runs").join(format!("{}.sock", id(&record)));
    let waiting = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let_pass("the client, which cannot be accepted", Duration::from_millis(300));
    limit(former.trim());
    thaw(&rig, &["--run", id(&record)]).exits(0).says("the freeze held");
    drop(waiting);
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// What a kill of the whole control group does. Nobody is left to thaw; `thaw` does, from the journal.
#[test]
fn both_are_killed_at_once_and_thaw_undoes_it() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let guards = watchdogs(&rig);
    // Stopped first, so that neither sees the other go.
    guards.iter().for_each(|w| kill(*w, Signal::SIGSTOP).unwrap());
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    guards.iter().for_each(|w| kill(*w, Signal::SIGKILL).unwrap());
    let writes = blocked(&rig);
    status(&rig, &[]).exits(40);
    let ended = thaw(&rig, &["--run", id(&record)]);
    ended.exits(22).says("died before its end").says("thawed").says("DID NOT HOLD");
    all_done(&writes, Duration::from_secs(5)).expect("it was not thawed");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
    status(&rig, &[]).exits(0);
}

#[test]
fn a_stopped_holder_is_thawed_past_and_releases_when_it_goes_on() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    kill(pid(&record["pid"]), Signal::SIGSTOP).unwrap();
    all_done(&writes, Duration::from_secs(5)).expect("the heartbeat was not missed");
    thaw(&rig, &["--run", id(&record)])
        .exits(22)
        .says("does not answer")
        .says("post hooks still have to run");
    assert_eq!(log(&rig), ["pre-first", "pre-second"]);
    kill(pid(&record["pid"]), Signal::SIGCONT).unwrap();
    await_log(&rig, &RELEASED);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    did_not_hold(&rig, &record, "watchdog");
    assert_settled(&rig);
}

#[test]
fn somebody_else_thaws_and_that_is_said() {
    let rig = two();
    let record = freeze(&rig, "60s");
    sh("fsfreeze", &["--unfreeze", rig.mount("b").to_str().unwrap()]);
    did_not_hold(&rig, &record, rig.mount("b").to_str().unwrap());
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// FITHAW cannot see this one: the write counter does.
#[test]
fn somebody_else_thaws_and_freezes_again_and_the_write_counter_moved() {
    let rig = two();
    let writes = {
        let record = freeze(&rig, "60s");
        let write = BlockedWrite::certain(&rig.mount("a"));
        let a = rig.mount("a");
        sh("fsfreeze", &["--unfreeze", a.to_str().unwrap()]);
        write.done(Duration::from_secs(5)).expect("it was not thawed");
        sh("fsfreeze", &["--freeze", a.to_str().unwrap()]);
        did_not_hold(&rig, &record, "written to")
    };
    assert_eq!(writes["still_frozen"], serde_json::json!([]));
    assert_settled(&rig);
}

#[test]
fn sigterm_to_the_holder_ends_it_in_order() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    kill(pid(&record["pid"]), Signal::SIGTERM).unwrap();
    all_done(&writes, Duration::from_secs(5)).expect("it was not thawed");
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "SIGTERM");
    assert_settled(&rig);
}

#[test]
fn while_a_freeze_is_held_nothing_else_starts_and_recorded_leaves_it_alone() {
    let rig = two();
    let record = freeze(&rig, "60s");
    rig.run(&["freeze", "--for", "5s"]).exits(75).says("holds a freeze").says("stillpoint thaw");
    rig.run(&["snapshot"]).exits(75).says("holds a freeze");
    thaw(&rig, &["--recover"]).exits(0).says("no run left anything behind");
    drop(blocked(&rig));
    // A client that says nothing ends nothing either.
    let socket = rig.path("run/runs").join(format!("{}.sock", id(&record)));
    drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    drop(blocked(&rig));
    thaw(&rig, &["--run", id(&record)]).exits(0);
    drop(silent);
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

#[test]
fn a_failed_pre_hook_freezes_nothing_and_releases() {
    let rig = two();
    let bad = hook("bad", "exit 3", &note(&rig, "post-bad"), "");
    rig.configure(&format!("{}{bad}", noting(&rig, "first")));
    let ended = rig.run(&["freeze", "--for", "30s", "-o", "json"]);
    let record = ended.exits(20).says("exit code 3").record();
    assert_eq!(log(&rig), ["pre-first", "post-bad", "post-first unknown"]);
    assert_eq!((record["held"].as_bool(), &record["times"]["frozen"]), (Some(false), &Value::Null));
    thaw(&rig, &["--run", id(&record)]).exits(22).says("nothing was frozen");
    assert_settled(&rig);
}

#[test]
fn a_failed_post_hook_is_said_and_the_freeze_held_all_the_same() {
    let rig = two();
    rig.configure(&format!("{}{}", noting(&rig, "first"), hook("bad", "true", "exit 4", "")));
    let record = freeze(&rig, "60s");
    let said = thaw(&rig, &["--run", id(&record), "-o", "json"]).exits(11).says("exit code 4").record();
    assert_eq!(said["held"], true);
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert_settled(&rig);
}

/// Somebody froze it already: nothing of ours stays, and what is theirs is theirs.
#[test]
fn a_filesystem_that_somebody_else_froze_is_refused_and_left_frozen() {
    let rig = two();
    sh("fsfreeze", &["--freeze", rig.mount("b").to_str().unwrap()]);
    let ended = rig.run(&["freeze", "--for", "30s"]);
    // xfs cannot even be flushed by us while frozen? It can: syncfs does not block. FIFREEZE says EBUSY.
    ended.exits(21).says("something else has frozen it");
    assert_eq!(ended.out, "");
    BlockedWrite::certain(&rig.mount("b"));
    sh("fsfreeze", &["--unfreeze", rig.mount("b").to_str().unwrap()]);
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// The command dies before it has told anyone: nobody would ever ask for the thaw.
#[test]
fn the_command_is_killed_before_the_freeze_and_nothing_is_frozen() {
    let rig = two();
    let slow =
        hook("slow", &format!("{}; exec sleep 8", note(&rig, "pre-slow")), &note(&rig, "post-slow"), "");
    rig.configure(&format!("{}{slow}", noting(&rig, "first")));
    let run = rig.spawn(&["freeze", "--for", "30s"]);
    await_log(&rig, &["pre-first", "pre-slow"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_log(&rig, &["pre-first", "pre-slow", "post-slow", "post-first unknown"]);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    thaw(&rig, &[]).exits(22).says("nothing was frozen");
    assert_settled(&rig);
}

/// It dies after the freeze, before it has said so: the same.
#[test]
fn the_command_is_killed_before_it_has_told_anyone_and_everything_is_thawed() {
    let rig = two();
    let slow =
        hook("slow", &format!("{}; exec sleep 4", note(&rig, "pre-slow")), &note(&rig, "post-slow"), "");
    rig.configure(&slow);
    let run = rig.spawn(&["freeze", "--for", "60s"]);
    await_log(&rig, &["pre-slow"]);
    run.signal(Signal::SIGSTOP);
    // Not only slow: by then everything is frozen.
    await_some("the freeze", || {
        let write = BlockedWrite::start(&rig.mount("b"));
        write.done(Duration::from_secs(2)).is_none().then_some(())
    });
    let writes = blocked(&rig);
    run.signal(Signal::SIGKILL);
    all_done(&writes, Duration::from_secs(5)).expect("nobody was told, and it stays frozen");
    run.end();
    await_log(&rig, &["pre-slow", "post-slow"]);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    thaw(&rig, &[]).exits(22).says("DID NOT HOLD");
    assert_settled(&rig);
}

/// The freeze was over by then and had been proven to hold: that stays true, and the post hooks still run.
#[test]
fn the_holder_is_killed_in_a_post_hook() {
    let rig = two();
    let once = format!(
        "{}; [ -e {1} ] || {{ touch {1}; sleep 8; }}",
        note(&rig, "post-slow"),
        rig.path("once").display()
    );
    rig.configure(&format!("{}{}", noting(&rig, "first"), hook("slow", "true", &once, "")));
    let record = freeze(&rig, "60s");
    let waits = Run::start(rig.bare_command(&["thaw", "--run", id(&record)]));
    await_log(&rig, &["pre-first", "post-slow"]);
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    waits.end().exits(0).says("died before its end").says("the freeze held");
    assert_eq!(log(&rig), ["pre-first", "post-slow", "post-slow", "post-first unknown"]);
    assert_settled(&rig);
}

/// A FIFREEZE that cannot return: the command says so in time, though its holder cannot end.
#[test]
fn a_stuck_writer_is_said_and_the_others_thaw() {
    let rig = two();
    rig.configure(&format!("[defaults]\nfreeze_timeout = \"3s\"\n{}", noting(&rig, "first")));
    let code = format!(
        "import os\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nos.splice(r,f,4096)",
        rig.mount("a").join("stuck").to_str().unwrap()
    );
    let mut writer = Command::new("python3").args(["-c", &code]).spawn().unwrap();
    let call = format!("/proc/{}/syscall", writer.id());
    await_some("the writer inside splice", || {
        let call = std::fs::read_to_string(&call).ok()?;
        (call.starts_with("275 ") || call.starts_with("76 ")).then_some(())
    });
    let ended = rig.run(&["freeze", "--for", "30s"]);
    ended.exits(40).says("STILL FROZEN").says(rig.mount("a").to_str().unwrap());
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert!(is_thawed(&rig.mount("b")), "b is still frozen");
    status(&rig, &[]).exits(40);
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("its end", || watchdogs(&rig).is_empty().then_some(()));
    thaw(&rig, &[]).exits(22);
    assert_eq!(log(&rig), ["pre-first", "post-first unknown"]);
    assert_settled(&rig);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.run(&["freeze", "--for", "11m"]).exits(64).says("outside");
    rig.run(&["freeze", "--for", "30"]).exits(64).says("without a unit");
    rig.run(&["freeze"]).exits(64).says("--for");
    rig.run(&["freeze", "--for", "30s", "--window", "3s"]).exits(64).says("'--window'");
    rig.run(&["thaw", "--all", "--recover"]).exits(64);
    // Its own word would be written to what is frozen.
    let mut command = rig.command(&["freeze", "--for", "30s"]);
    let on_it = std::fs::File::create(rig.mount("a").join("out")).unwrap();
    let ended = command.stdout(on_it).output().unwrap();
    assert_eq!(ended.status.code(), Some(78), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_settled(&rig);
}

#[test]
fn the_orchestrators_image_needs_no_recovery() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let writers = [Writer::start(&rig.mount("a")), Writer::start(&rig.mount("b"))];
    await_some("both to write", || {
        let written = |m: &std::path::PathBuf| std::fs::metadata(m.join("log")).unwrap().len() > 8192;
        rig.mounts().iter().all(written).then_some(())
    });
    let create = || {
        let before = rig.snapshots().len();
        let instance = rig.ready["instance_id"].as_str().unwrap();
        rig.sim(&["call", "CreateSnapshots", &format!("InstanceSpecification.InstanceId={instance}")]);
        let made = rig.snapshots().split_off(before);
        made.into_iter().find(|s| s["volume_id"] == rig.id("a").as_str()).unwrap()
    };
    let live = create();
    assert!(needs_recovery(&rig, live["id"].as_str().unwrap()), "the negative control proves nothing");
    rig.await_quiet();

    let record = freeze(&rig, "60s");
    let made = create();
    let thawed = thaw(&rig, &["--run", id(&record), "-o", "json"]).exits(0).record();
    writers.into_iter().for_each(|w| assert!(w.stop() > 0));
    assert_eq!(thawed["achieved"], "filesystem");
    assert!(!needs_recovery(&rig, made["id"].as_str().unwrap()));
    let point: i128 = rig.creates().pop().unwrap()["point_in_time_ns"].as_i64().unwrap().into();
    assert!(
        nanoseconds(&record["times"]["frozen"]) < point && point < nanoseconds(&thawed["times"]["responded"])
    );
    assert_settled(&rig);
}

/// While it is held, neither the holder nor its watchdog does anything but wait, send and receive.
#[test]
fn while_held_nothing_is_opened_written_or_started() {
    const ALLOWED: &[&str] = &[
        "accept4",
        "clock_gettime",
        "clock_nanosleep",
        "close",
        "epoll_ctl",
        "epoll_wait",
        "fcntl",
        "futex",
        "getsockname",
        "ioctl",
        "lseek",
        "poll",
        "read",
        "recvfrom",
        "restart_syscall",
        "sendto",
        "shutdown",
        "write",
        "writev",
    ];
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let record = freeze(&rig, "60s");
    let trace = rig.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-o"]).arg(&trace).args(["-p", &record["pid"].to_string()]);
    let guards = watchdogs(&rig);
    assert_eq!(guards.len(), 1);
    strace.args(["-p", &guards[0].to_string()]).stderr(std::process::Stdio::null());
    let mut strace = strace.spawn().expect("this test needs strace");
    await_some("the trace", || {
        std::fs::read_to_string(&trace).is_ok_and(|t| t.lines().count() > 20).then_some(())
    });
    // Asked of while frozen, as an orchestrator might.
    status(&rig, &[]).exits(40);
    thaw(&rig, &["--run", id(&record)]).exits(0);
    // Now and then it waits for a thread that is gone, and hears no signal but SIGKILL.
    let _ = kill(Pid::from_raw(i32::try_from(strace.id()).unwrap()), Signal::SIGTERM);
    for _ in 0..250 {
        if strace.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = strace.kill();
    let _ = strace.wait();
    let trace = std::fs::read_to_string(&trace).unwrap();
    let end = trace.find("FITHAW").expect("a FITHAW");
    let window: Vec<&str> = trace[..end].lines().collect();
    let window = &window[..window.len() - 1];
    assert!(window.len() > 20);
    for line in window {
        let Some((_, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // <... resumed>, +++ and ---
        }
        assert!(ALLOWED.contains(&name.as_str()), "not allowed while frozen: {line}");
        if matches!(name.as_str(), "write" | "writev" | "close" | "ioctl") {
            let on_a_path = rest.split_once('<').is_some_and(|(_, fd)| fd.starts_with('/'));
            assert!(!on_a_path, "done to a file while frozen: {line}");
        }
    }
    assert_settled(&rig);
}

#[test]
fn the_run_id_may_be_the_callers() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = "a1b2c3d4-1111-4222-8333-444455556666";
    for _ in 0..2 {
        let ended = rig.run(&["freeze", "--for", "60s", "--run", run]);
        assert_eq!(ended.exits(0).out.trim(), run);
        thaw(&rig, &["--run", run]).exits(0);
    }
    assert_clean(&rig);
}

/// The document for Systems Manager that is shipped, run as the agent runs it: its parameters filled in, in a
/// shell of its own each.
#[test]
fn the_example_document_for_data_lifecycle_manager() {
    let document = include_str!("../../packaging/examples/ssm-data-lifecycle-manager.yaml");
    let (_, script) = document.split_once("    - |\n").unwrap();
    let script: String =
        script.lines().map(|l| format!("{}\n", l.strip_prefix("      ").unwrap_or(l))).collect();
    let rig = two();
    // This host has no boot volume to leave out.
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", noting(&rig, "db")));
    let wrapper = rig.path("stillpoint");
    let plain = rig.command(&[]);
    let words = std::iter::once(plain.get_program()).chain(plain.get_args());
    let words: Vec<String> = words.map(|w| format!("'{}'", w.to_str().unwrap())).collect();
    put_executable(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")));
    let script = script.replace("/usr/bin/stillpoint", wrapper.to_str().unwrap());
    let script = script.replace("/run/stillpoint", rig.path("run").to_str().unwrap());
    let script = script.replace("{{ executionId }}", "None");
    let run = |command: &str| {
        let file = rig.path("_script.sh");
        std::fs::write(&file, script.replace("{{ command }}", command)).unwrap();
        let mut shell = Command::new("sh");
        shell.arg(file).env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        Run::start(shell).end()
    };
    run("dry-run").exits(0);
    run("post-script").exits(205);
    assert_eq!(log(&rig), Vec::<String>::new());

    run("pre-script").exits(0);
    drop(blocked(&rig));
    // Whoever comes in between is told so, and the one that holds it goes on.
    run("pre-script").exits(204);
    drop(blocked(&rig));
    run("post-script").exits(0);
    run("post-script").exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);

    run("pre-script").exits(0);
    sh("fsfreeze", &["--unfreeze", rig.mount("a").to_str().unwrap()]);
    run("post-script").exits(203);
    run("post-script").exits(203);
    rig.configure(&format!("[plan.dlm]\nwindow = \"10s\"\n{}", hook("bad", "false", "true", "")));
    run("pre-script").exits(201);
    assert_settled(&rig);
}
