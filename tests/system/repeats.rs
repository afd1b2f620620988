//! EC2 throttles, stumbles and loses connections: calls that change nothing are repeated, the create call is not.

use nix::sys::signal::Signal;
use rig::probe::{assert_labels, assert_settled, was_frozen};
use rig::program::await_some;
use rig::{Fs, Rig};
use serde_json::Value;

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)])
}

/// With as much time for repeats as a test may need.
fn patient(rig: &Rig, more: &str) {
    let text = format!("{more}\n[ec2]\nvolume_interval = '0s'\ncall_timeout = '5m'\nretry_timeout = '5m'\n");
    std::fs::write(rig.path("stillpoint.toml"), text).unwrap();
}

fn hook(rig: &Rig) -> String {
    let log = rig.path("hooks");
    format!(
        "[[hook]]\nname = 'app'\ntimeout = '20s'\npre = ['/bin/sh', '-c', 'echo pre >>{0}']\n\
         post = ['/bin/sh', '-c', 'echo post >>{0}']\n",
        log.display()
    )
}

fn dry_runs(rig: &Rig) -> Vec<Value> {
    let dry = |r: &Value| r["action"] == "CreateSnapshots" && r["params"]["DryRun"] == "true";
    rig.requests().into_iter().filter(dry).collect()
}

/// Each call that a run makes, failing once in each way; DryRun also when applications are held.
#[test]
fn a_call_that_fails_once_does_not_fail_the_run() {
    let rig = two();
    patient(&rig, &hook(&rig));
    let calls = [
        ("DescribeInstances", "1", "false"),
        ("DescribeVolumes", "1", "false"),
        ("DescribeSnapshots", "1", "false"),
        ("DescribeSnapshots", "2", "false"),
        ("CreateSnapshots", "1", "true"),
        ("CreateSnapshots", "2", "true"),
        ("CreateTags", "1", "false"),
        ("CreateTags", "2", "false"),
    ];
    let error = "error --code InternalError --status 500";
    for kind in ["throttle", "http-500", error, "drop-before", "reset-before", "truncated", "not-xml"] {
        rig.await_quiet();
        rig.control("POST", "reset", "");
        let words: Vec<_> = kind.split(' ').collect();
        for (action, call, dry_run) in calls {
            let fault = ["faults", "add", "--action", action, "--call", call, "--dry-run", dry_run, "--kind"];
            rig.sim(&[&fault[..], &words].concat());
        }
        let ended = rig.run(&["snapshot"]);
        ended.exits(0).says("was repeated once and went well");
        let met = rig.requests().iter().filter(|r| !r["faults"].as_array().unwrap().is_empty()).count();
        assert!(met >= calls.len() - 1, "{kind}: {met} faults were met");
        assert_eq!(rig.creates().len(), 1, "{kind}");
        rig.await_quiet();
        assert_labels(&rig, 2, "application");
        assert_settled(&rig);
    }
}

/// The log says how often, and why.
#[test]
fn the_log_has_a_line_with_the_count_and_the_causes() {
    let rig = two();
    patient(&rig, "");
    for (call, kind) in [("1", "throttle"), ("2", "throttle"), ("3", "http-500")] {
        rig.sim(&["faults", "add", "--action", "DescribeVolumes", "--call", call, "--kind", kind]);
    }
    let ended = rig.run(&["plan"]);
    ended
        .exits(0)
        .says("DescribeVolumes was repeated 3 times and went well: HTTP 500, RequestLimitExceeded × 2");
    assert_eq!(ended.err.matches("was repeated").count(), 1, "{}", ended.err);
}

#[test]
fn a_connection_that_is_reset_is_made_once_more() {
    let rig = two();
    patient(&rig, "");
    rig.sim(&["faults", "add", "--action", "connection", "--kind", "refuse", "--call", "1", "--times", "2"]);
    rig.run(&["snapshot"]).exits(0).says("was repeated");
    assert_settled(&rig);
}

/// As long as it throttles, the run waits; a signal ends that at once, and the application is released.
#[test]
fn a_signal_ends_the_repeating_while_applications_are_held() {
    let rig = two();
    patient(&rig, &hook(&rig));
    let throttle = ["--dry-run", "true", "--call", "2", "--times", "100000", "--kind", "throttle"];
    rig.sim(&[&["faults", "add", "--action", "CreateSnapshots"], &throttle[..]].concat());
    let run = rig.spawn(&["snapshot"]);
    await_some("some repeats", || (dry_runs(&rig).len() > 6).then_some(()));
    assert_eq!(std::fs::read_to_string(rig.path("hooks")).unwrap(), "pre\n");
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.signal, Some(Signal::SIGTERM as i32), "{}", ended.err);
    assert_eq!(std::fs::read_to_string(rig.path("hooks")).unwrap(), "pre\npost\n");
    assert_eq!(rig.creates().len(), 0);
    assert!(!was_frozen(&rig.mount("a")));
    assert_settled(&rig);
}

/// And before anything is touched.
#[test]
fn a_signal_ends_the_repeating_before_anything_is_touched() {
    let rig = two();
    patient(&rig, &hook(&rig));
    let throttle = ["--dry-run", "true", "--times", "100000", "--kind", "throttle"];
    rig.sim(&[&["faults", "add", "--action", "CreateSnapshots"], &throttle[..]].concat());
    let run = rig.spawn(&["snapshot"]);
    await_some("some repeats", || (dry_runs(&rig).len() > 3).then_some(()));
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.signal, Some(Signal::SIGTERM as i32), "{}", ended.err);
    assert!(!rig.path("hooks").exists(), "a hook ran");
    assert_settled(&rig);
}

/// A label that EC2 takes only at the fifth try is the run's own.
#[test]
fn tags_that_are_throttled_arrive() {
    let rig = two();
    patient(&rig, "");
    let throttle =
        ["faults", "add", "--action", "CreateTags", "--kind", "throttle", "--call", "1", "--times", "4"];
    rig.sim(&throttle);
    rig.run(&["snapshot"]).exits(0).says("CreateTags was repeated 4 times and went well");
    rig.await_quiet();
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}
