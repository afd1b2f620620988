//! Whatever dies, stops or is told to stop: nothing stays frozen, and what was quiesced is released.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::hooks::{hook, log, note, noting};
use rig::patience::let_pass;
use rig::probe::{BlockedWrite, assert_clean, assert_labels, assert_settled, tag, watchdogs};
use rig::program::{Run, await_some};
use rig::window::in_the_window;
use rig::{Fs, Rig};

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

/// Writers that are blocked on every mount now.
fn blocked(rig: &Rig) -> Vec<BlockedWrite> {
    rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect()
}

/// How long after `since` the last of them was through.
fn thawed_after(writes: &[BlockedWrite], since: Instant) -> Duration {
    let times: Vec<_> =
        writes.iter().map(|w| w.done(Duration::from_secs(30)).expect("it was never thawed")).collect();
    times.into_iter().max().unwrap().saturating_duration_since(since)
}

/// SIGTERM or SIGINT while frozen: thawed at once, released, looked up, and ended by that signal.
fn signal_while_frozen(signal: Signal) {
    let rig = two();
    rig.configure(&noting(&rig, "db"));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let writes = blocked(&rig);
    let told = Instant::now();
    run.signal(signal);
    let took = thawed_after(&writes, told);
    println!("thawed {took:?} after {signal}");
    assert!(took < Duration::from_secs(4), "thawed {took:?} after {signal}");
    let ended = run.end();
    assert_eq!(ended.signal, Some(signal as i32), "{ended:?}");
    // What the aborted call made is found by its run id, reported and labelled.
    let record = ended.record();
    assert_eq!(record["achieved"], "crash");
    assert_eq!(record["snapshots"].as_array().unwrap().len(), 2);
    assert!(record["reason"].as_str().unwrap().contains(signal.as_str()), "{}", record["reason"]);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert_eq!(rig.creates().len(), 1);
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn sigterm_while_frozen_thaws_releases_and_ends_the_run() {
    signal_while_frozen(Signal::SIGTERM);
}

#[test]
fn sigint_while_frozen_thaws_releases_and_ends_the_run() {
    signal_while_frozen(Signal::SIGINT);
}

/// The set was taken and is good. A signal after that does not break off the rest of the run.
#[test]
fn a_signal_after_the_answer_changes_nothing() {
    let rig = two();
    let slow = hook("slow", "true", &format!("{}; sleep 4; {}", note(&rig, "begun"), note(&rig, "done")), "");
    rig.configure(&slow);
    for (number, signal) in [Signal::SIGTERM, Signal::SIGINT].into_iter().enumerate() {
        let run = rig.spawn(&["snapshot", "-o", "json"]);
        await_some("the post hook", || (log(&rig).len() == 2 * number + 1).then_some(()));
        run.signal(signal);
        let record = run.end().exits(0).record();
        assert_eq!(record["achieved"], "application", "{record:#}");
        assert_eq!(log(&rig).len(), 2 * number + 2, "the post hook was broken off");
    }
    assert_labels(&rig, 4, "application");
    assert_settled(&rig);
}

fn signal_during_a_hook(signal: Signal) {
    let rig = two();
    let slow = hook("slow", &format!("{}; sleep 30", note(&rig, "pre-slow")), &note(&rig, "post-slow"), "");
    let never = noting(&rig, "never");
    rig.configure(&format!("{}{}{never}", noting(&rig, "first"), slow.replace("10s", "40s")));
    let run = rig.spawn(&["snapshot"]);
    await_some("the slow hook", || log(&rig).contains(&"pre-slow".to_owned()).then_some(()));
    run.signal(signal);
    let ended = run.end();
    assert_eq!(ended.signal, Some(signal as i32), "{ended:?}");
    assert!(ended.took < Duration::from_secs(20), "the hook was waited for: {:?}", ended.took);
    assert_eq!(log(&rig), ["pre-first", "pre-slow", "post-slow", "post-first failed"]);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn sigterm_during_a_hook_stops_and_releases_it() {
    signal_during_a_hook(Signal::SIGTERM);
}

#[test]
fn sigint_during_a_hook_stops_and_releases_it() {
    signal_during_a_hook(Signal::SIGINT);
}

/// Kills the agent in its window and waits until the filesystems are thawed. The call is carried out later
/// on.
fn killed_while_frozen(rig: &Rig) {
    rig.configure(&noting(rig, "db"));
    let run = in_the_window(rig, &["snapshot", "--window", "30s"]);
    let writes = blocked(rig);
    let killed = Instant::now();
    run.signal(Signal::SIGKILL);
    let took = thawed_after(&writes, killed);
    println!("thawed {took:?} after SIGKILL");
    assert!(took < Duration::from_secs(4), "thawed {took:?} after SIGKILL");
    assert_eq!(run.end().signal, Some(Signal::SIGKILL as i32));
    assert_clean(rig);
    assert_eq!(log(rig), ["pre-db"], "nobody was there to release it yet");
    rig.await_quiet();
    assert_eq!(rig.snapshots().len(), 2, "the orphan set");
    assert_labels(rig, 2, "");
}

/// The next run has labelled the orphans and taken a set of its own.
fn assert_orphans_are_labelled(rig: &Rig, record: &serde_json::Value) {
    let own = record["run_id"].as_str().unwrap();
    let all = rig.snapshots();
    let labels: Vec<_> =
        all.iter().map(|s| (tag(s, "stillpoint:run") == own, tag(s, "stillpoint:consistency"))).collect();
    assert_eq!(labels, [(false, "crash"), (false, "crash"), (true, "application"), (true, "application")]);
    assert_settled(rig);
}

#[test]
fn sigkill_while_frozen_and_the_next_start_cleans_up() {
    let rig = two();
    killed_while_frozen(&rig);
    let ended = rig.run(&["snapshot", "-o", "json"]);
    ended.exits(0).says("died before its end").says("labelled crash");
    assert_eq!(log(&rig), ["pre-db", "post-db unknown", "pre-db", "post-db taken"]);
    assert_orphans_are_labelled(&rig, &ended.record());
}

#[test]
fn sigkill_while_frozen_and_thaw_releases_without_ec2() {
    let rig = two();
    killed_while_frozen(&rig);
    let mut command = rig.bare_command(&["thaw"]);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    Run::start(command)
        .end()
        .exits(0)
        .says("died before its end")
        .says("post command of hook `db` succeeded");
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    // A second recovery finds nothing more to release.
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    // What it made in EC2 is still looked up by the next run.
    let ended = rig.run(&["snapshot", "-o", "json"]);
    assert_orphans_are_labelled(&rig, &ended.exits(0).record());
}

#[test]
fn sigkill_during_a_hook_and_the_next_start_releases() {
    let rig = two();
    rig.configure(&hook(
        "slow",
        &format!("{}; exec sleep 8", note(&rig, "pre-slow")),
        &note(&rig, "post-slow"),
        "",
    ));
    let run = rig.spawn(&["snapshot"]);
    await_some("the hook", || log(&rig).contains(&"pre-slow".to_owned()).then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    rig.run(&["thaw"]).exits(0);
    assert_eq!(log(&rig), ["pre-slow", "post-slow"]);
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn sigstop_while_frozen_is_noticed_by_the_heartbeat() {
    let rig = two();
    let run = in_the_window(&rig, &["snapshot", "--window", "30s", "-o", "json"]);
    let writes = blocked(&rig);
    let stopped = Instant::now();
    run.signal(Signal::SIGSTOP);
    let took = thawed_after(&writes, stopped);
    println!("thawed {took:?} after SIGSTOP");
    assert!(took < Duration::from_secs(4), "thawed {took:?} after SIGSTOP");
    run.signal(Signal::SIGCONT);
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "crash", "{record:#}");
    assert_eq!(rig.creates().len(), 1);
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

/// Before everybody else: it has real-time priority, and would leave no CPU to anybody.
#[test]
fn a_watchdog_that_has_fired_uses_no_cpu() {
    let rig = two();
    let run = in_the_window(&rig, &["snapshot", "--window", "3s", "-o", "json"]);
    let guard = watchdogs(&rig)[0];
    run.signal(Signal::SIGSTOP);
    let writes = blocked(&rig);
    thawed_after(&writes, Instant::now());
    let_pass("the deadline, which comes after the heartbeat has fired", Duration::from_secs(3));
    // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{guard}/stat")).unwrap();
        let fields: Vec<i64> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        fields[10] + fields[11]
    };
    let (before, since) = (used(), Instant::now());
    let_pass("a time to measure over", Duration::from_secs(2));
    let (used, passed) = (used() - before, since.elapsed().as_millis() / 10);
    assert!(i64::try_from(passed).unwrap() > used * 4, "{used} of {passed} hundredths of a second");
    run.signal(Signal::SIGCONT);
    // Its own deadline has passed too, but that is not why.
    run.end().exits(22).says("heartbeat");
    assert_settled(&rig);
}

#[test]
fn without_its_watchdog_the_agent_thaws_at_once() {
    let rig = two();
    let run = in_the_window(&rig, &["snapshot", "--window", "30s", "-o", "json"]);
    let guards = watchdogs(&rig);
    assert_eq!(guards.len(), 1);
    let writes = blocked(&rig);
    let killed = Instant::now();
    kill(guards[0], Signal::SIGKILL).unwrap();
    let took = thawed_after(&writes, killed);
    println!("thawed {took:?} after the watchdog's death");
    assert!(took < Duration::from_secs(4), "thawed {took:?} after the watchdog's death");
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("watchdog"), "{}", record["reason"]);
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn signals_for_the_terminal_do_not_reach_the_watchdog() {
    let rig = two();
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let guards = watchdogs(&rig);
    assert_eq!(guards.len(), 1);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(guards[0], signal).unwrap();
    }
    run.end().exits(0);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}
