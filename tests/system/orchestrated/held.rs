//! A freeze that is held: what it says, who may ask, and what else may run meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::hooks::{log, noting};
use rig::patience::let_pass;
use rig::probe::{Writer, assert_clean, assert_settled, guards, nanoseconds, needs_recovery};
use rig::program::await_some;
use rig::{Fs, Rig, sh};

use super::{RELEASED, all_done, blocked, freeze, id, status, thaw, two};

/// The orchestrator takes the snapshot, and only its `thaw` could mount the filesystem again: too late for
/// whatever uses it.
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
    // A post script that is run twice gets the same answer.
    thaw(&rig, &["--run", run]).exits(0);
    thaw(&rig, &[]).exits(0);
    assert_eq!(log(&rig), RELEASED, "and releases nothing twice");
}

#[test]
fn what_nobody_knows_of_did_not_hold() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    thaw(&rig, &["--run", "0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11"]).exits(22).says("no freeze of this run");
}

/// The holder has no fd left to accept a client with, for a while. It must accept the next one all the same.
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

#[test]
fn while_a_freeze_is_held_nothing_else_starts_and_recorded_leaves_it_alone() {
    let rig = two();
    let record = freeze(&rig, "60s");
    rig.run(&["freeze", "--for", "5s"]).exits(75).says("holds a freeze").says("stillpoint thaw");
    rig.run(&["snapshot"]).exits(75).says("holds a freeze");
    thaw(&rig, &["--recover"]).exits(0).says("no run left anything behind");
    drop(blocked(&rig));
    // A client that connects and says nothing does not end the freeze.
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
fn what_cannot_be_meant_is_refused() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.run(&["freeze", "--for", "11m"]).exits(64).says("outside");
    rig.run(&["freeze", "--for", "30"]).exits(64).says("without a unit");
    rig.run(&["freeze"]).exits(64).says("--for");
    rig.run(&["freeze", "--for", "30s", "--window", "3s"]).exits(64).says("'--window'");
    rig.run(&["thaw", "--all", "--recover"]).exits(64);
    // The command would write its own output to a filesystem that it has frozen, and hang.
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
    let guards = guards(&rig);
    assert_eq!(guards.len(), 2, "watchdog and freezer");
    for guard in guards {
        strace.args(["-p", &guard.to_string()]);
    }
    strace.stderr(std::process::Stdio::null());
    let mut strace = strace.spawn().expect("this test needs strace");
    await_some("the trace", || {
        std::fs::read_to_string(&trace).is_ok_and(|t| t.lines().count() > 20).then_some(())
    });
    // An orchestrator may ask for the status while everything is frozen.
    status(&rig, &[]).exits(0);
    thaw(&rig, &["--run", id(&record)]).exits(0);
    // strace sometimes waits for a thread that has ended, and then reacts to SIGKILL alone.
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
