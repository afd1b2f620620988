//! A rehearsal: everything really freezes and thaws, and EC2 is asked for nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::hooks::{hook, log, note};
use rig::probe::{BlockedWrite, Writer, assert_settled, is_thawed};
use rig::program::await_some;
use rig::{Fs, Rig};
use serde_json::Value;

/// Nothing was made, tagged or kept, and nothing is left.
fn assert_nothing_taken(rig: &Rig) {
    assert_eq!(rig.creates(), Vec::<Value>::new());
    assert_eq!(rig.calls("CreateTags"), Vec::<Value>::new());
    assert_eq!(rig.snapshots(), Vec::<Value>::new());
    assert!(!rig.path("state").exists(), "a record is kept");
    assert_settled(rig);
}

/// Waits until it is frozen: a write that takes this long is no slow one.
fn await_frozen(mount: &Path) {
    await_some("a to be frozen", || {
        BlockedWrite::start(mount).done(Duration::from_secs(2)).is_none().then_some(())
    });
}

fn hooks(rig: &Rig) -> String {
    hook("db", &note(rig, "pre"), &note(rig, "post $STILLPOINT_RESULT"), "")
}

#[test]
fn it_freezes_thaws_and_releases_and_takes_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    rig.configure(&hooks(&rig));
    let writer = Writer::start(&rig.mount("a"));
    let ended = rig.run(&["rehearse", "--repeat", "2", "-o", "json"]);
    writer.stop();
    let said: Value = serde_json::from_str(&ended.exits(0).out).unwrap();
    let rounds = said["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_eq!(round["achieved"], "application", "{round:#}");
        assert_eq!(round["hooks"].as_array().unwrap().len(), 2);
        let window = round["window_ms"].as_f64().unwrap();
        for mount in round["mounts"].as_array().unwrap() {
            let of = |key: &str| mount[key].as_f64().unwrap_or_else(|| panic!("no {key}: {mount:#}"));
            assert!(of("freeze_ms") > 0.0 && of("flush_ms") > 0.0, "{mount:#}");
            // Each mount's own times lie within each other and within the window.
            assert!(of("freeze_ms") < of("stall_ms") && of("stall_ms") < window, "{window} {mount:#}");
        }
        // The test process itself writes to `a`, and is seen doing so.
        let own = std::process::id();
        let writers = round["mounts"][0]["writers"].as_array().unwrap();
        assert!(writers.iter().any(|w| w["pid"] == own && w["written"].as_u64() > Some(0)), "{writers:?}");
    }
    assert!(said["dry_runs_ms"].as_array().unwrap().len() >= 6, "{said:#}");
    assert!(said["suggestion"]["window_ms"].as_f64().unwrap() >= 2000.0);
    assert_eq!(log(&rig), ["pre", "post rehearsed", "pre", "post rehearsed"]);
    assert_nothing_taken(&rig);
}

#[test]
fn it_really_is_frozen_for_the_hold() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = rig.spawn(&["rehearse", "--hold", "6s", "-o", "json"]);
    let mount = rig.mount("a");
    await_frozen(&mount);
    let ended = run.end();
    let said: Value = serde_json::from_str(&ended.exits(0).out).unwrap();
    let round = &said["rounds"][0];
    let (hold, stall) =
        (round["hold_ms"].as_f64().unwrap(), round["mounts"][0]["stall_ms"].as_f64().unwrap());
    assert!(6000.0 <= hold && hold < stall, "{round:#}");
    // The hold is no part of what the window needs.
    let longest = said["suggestion"]["longest_ms"].as_f64().unwrap();
    assert!((longest - (round["window_ms"].as_f64().unwrap() - hold)).abs() < 0.01, "{said:#}");
    assert_nothing_taken(&rig);
}

#[test]
fn a_window_that_is_too_short_fails_as_it_would_in_a_run() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let ended = rig.run(&["rehearse", "--window", "3s", "--hold", "6s"]);
    ended.exits(23);
    assert!(ended.out.contains("the window of 3s ran out during the hold"), "{}", ended.out);
    assert!(is_thawed(&rig.mount("a")));
    assert_nothing_taken(&rig);
}

#[test]
fn its_exit_codes_are_those_of_a_run() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&hook("db", "exit 3", &note(&rig, "post $STILLPOINT_RESULT"), ""));
    let ended = rig.run(&["rehearse"]);
    ended.exits(20);
    assert!(ended.out.contains("exit code 3"), "{}", ended.out);
    assert_eq!(log(&rig), ["post failed"]);

    rig.configure("");
    let mount = rig.mount("a");
    assert!(Command::new("fsfreeze").arg("--freeze").arg(&mount).status().unwrap().success());
    let ended = rig.run(&["rehearse", "--repeat", "3"]);
    assert!(Command::new("fsfreeze").arg("--unfreeze").arg(&mount).status().unwrap().success());
    ended.exits(21).says("something else has frozen it");
    assert!(ended.out.contains("1 round"), "the first failure ends it: {}", ended.out);
    assert_nothing_taken(&rig);
}

#[test]
fn a_missing_permission_is_found_before_anything_freezes() {
    let rig = Rig::with(&[("a", Fs::Ext4)], "[iam]\ndeny = ['ec2:CreateSnapshot']\n");
    rig.run(&["rehearse"]).exits(77).says("ec2:CreateSnapshot is missing");
    assert_nothing_taken(&rig);
}

#[test]
fn a_signal_thaws_and_releases() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&hooks(&rig));
    let run = rig.spawn(&["rehearse", "--hold", "8s"]);
    let mount = rig.mount("a");
    await_frozen(&mount);
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.signal, Some(Signal::SIGTERM as i32), "{}{}", ended.out, ended.err);
    assert_eq!(log(&rig), ["pre", "post failed"]);
    assert_nothing_taken(&rig);
}

/// The watchdog thaws; the next start releases, and does not take it for a run that may have made something.
#[test]
fn one_that_is_killed_leaves_nothing_but_its_post_hooks_to_do() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&hooks(&rig));
    let run = rig.spawn(&["rehearse", "--hold", "8s"]);
    let mount = rig.mount("a");
    await_frozen(&mount);
    run.signal(Signal::SIGKILL);
    run.end();
    assert!(is_thawed(&mount), "the watchdog did not thaw");
    assert_eq!(rig.journals().len(), 1);
    let ended = rig.run(&["thaw"]);
    ended.exits(0).says("died before its end");
    assert!(!ended.err.contains("may have made snapshots"), "{}", ended.err);
    assert_eq!(log(&rig), ["pre", "post unknown"]);
    assert_nothing_taken(&rig);
}

/// Everything of a real run goes the same way: what it would have been called if the freeze had not held.
#[test]
fn a_thaw_by_somebody_else_is_told() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = rig.spawn(&["rehearse", "--hold", "6s", "-o", "json"]);
    let mount = rig.mount("a");
    await_frozen(&mount);
    assert!(Command::new("fsfreeze").arg("--unfreeze").arg(&mount).status().unwrap().success());
    let ended = run.end();
    let said: Value = serde_json::from_str(&ended.exits(22).out).unwrap();
    let round = &said["rounds"][0];
    assert_eq!(round["achieved"], "crash");
    assert!(round["reason"].as_str().unwrap().contains("thawed by something else"), "{round:#}");
    assert_nothing_taken(&rig);
}
