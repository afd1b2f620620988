//! Sets that are waited for: by `snapshot --wait`, with the commands for the end, and what systemd hears.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;
use rig::program::{Run, await_some};
use rig::{Fs, Rig};
use serde_json::Value;

/// A plan whose hook tells of its end, in a file.
fn with_hook(more: &str) -> (Rig, std::path::PathBuf) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let told = rig.path("told");
    let tell = |what: &str| {
        format!(
            "['/bin/sh', '-c', 'echo {what} $STILLPOINT_RESULT $STILLPOINT_REASON >> {}']",
            told.display()
        )
    };
    rig.configure(&format!(
        "{more}\n[[hook]]\nname = 'app'\ntimeout = '20s'\npre = ['/bin/true']\ncompleted = {}\nfailed = {}\n",
        tell("completed"),
        tell("failed")
    ));
    (rig, told)
}

fn lines(told: &Path) -> Vec<String> {
    std::fs::read_to_string(told).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The snapshots stay pending until [`complete`].
fn hold(rig: &Rig) {
    rig.fault("CreateSnapshots", "slow-progress", "36000s");
}

fn complete(rig: &Rig) {
    rig.sim(&["clock", "--advance", "11h"]);
}

fn await_pending(run: &mut Run) {
    await_some("the run to wait for its snapshots", || run.said().contains(": pending").then_some(()));
}

fn record(rig: &Rig, run: &str) -> Value {
    let kept = rig.path("state").join(format!("sets/{run}.json"));
    serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap()
}

#[test]
fn a_run_that_waits_tells_of_its_end_when_every_snapshot_is_completed() {
    let (rig, told) = with_hook("");
    hold(&rig);
    let mut run = rig.spawn(&["snapshot", "--wait"]);
    await_pending(&mut run);
    assert_eq!(lines(&told), Vec::<String>::new(), "no snapshot is completed");
    // Nothing is locked: another run only finds that five snapshots of a volume may be pending.
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(lines(&told), ["completed taken"], "of the run that does not wait");
    complete(&rig);
    let ended = run.end();
    ended.exits(0).says("every snapshot is completed");
    assert_eq!(lines(&told), ["completed taken"; 2]);
    assert_eq!(ended.out.lines().filter(|l| l.starts_with("snap-")).count(), 2, "{}", ended.out);
}

#[test]
fn a_set_that_ec2_cannot_complete_is_told_to_those_who_wait() {
    let (rig, told) = with_hook("[defaults]\nwait = true\n");
    rig.sim(&["faults", "add", "--action", "CreateSnapshots", "--kind", "snapshot-error"]);
    let lost = rig.run(&["snapshot", "-o", "json"]);
    lost.exits(11).says("EC2 could not complete the set");
    let said = lost.record();
    assert_eq!(said["exit_code"], 11);
    let why = said["after"][0].as_str().unwrap().to_owned();
    assert_eq!(lines(&told), [format!("failed failed {why}")]);
    assert_eq!(record(&rig, said["run_id"].as_str().unwrap()), said, "the record has it too");
}

/// The set is there, and it is not known whether it will be complete: nobody is told either.
#[test]
fn a_signal_ends_the_wait_and_no_command_tells_of_an_end() {
    let (rig, told) = with_hook("");
    hold(&rig);
    let mut run = rig.spawn(&["snapshot", "--wait"]);
    await_pending(&mut run);
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.signal, Some(Signal::SIGTERM as i32));
    ended.says("goes on");
    assert_eq!(lines(&told), Vec::<String>::new());
    let ids: Vec<&str> = ended.out.lines().collect();
    let mut wait = rig.spawn(&["wait", ids[0]]);
    await_pending(&mut wait);
    complete(&rig);
    wait.end().exits(0);
}

#[test]
fn systemd_hears_how_far_the_snapshots_are() {
    let (rig, _) = with_hook("");
    hold(&rig);
    let path = rig.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = rig.command(&["snapshot", "--wait"]);
    command.env("NOTIFY_SOCKET", &path);
    let run = Run::start(command);
    socket.set_read_timeout(Some(rig::patience::RUN)).unwrap();
    let mut buffer = [0; 4096];
    let n = socket.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    assert!(text.contains("STATUS=0 of 2 snapshots completed"), "{text}");
    let more = text.lines().find_map(|l| l.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap();
    assert!(more.parse::<u64>().unwrap() > 300_000_000, "{text}");
    complete(&rig);
    run.end().exits(0);
}

/// The EBS direct APIs may not know a snapshot that is completed.
#[test]
fn what_is_completed_is_waited_for_until_it_can_be_read() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "readable_after = '10h'\n");
    rig.configure("");
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    rig.run(&["wait", &set]).exits(0);
    rig.run(&["wait", &set, "--readable", "--timeout", "1s"])
        .exits(11)
        .says("completed, not readable yet")
        .says("is not complete and readable yet");
    let run = rig.spawn(&["wait", &set, "--readable"]);
    await_some("the wait for the data", || run.said().contains("not readable yet").then_some(()));
    complete(&rig);
    run.end().exits(0).says("is complete and readable");
}
