//! EC2 hangs, drops, refuses and lies: thawed in time, never asked twice, and no label that is not true.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::hooks::in_the_window;
use common::probe::{BlockedWrite, assert_clean, assert_labels, assert_settled, tag, was_frozen};
use common::program::Ended;
use common::rig::{Fs, Rig, sh};
use serde_json::Value;

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

/// Look-ups by this run's id, after the create call.
fn look_ups(rig: &Rig, record: &Value) -> usize {
    let sent = rig.creates()[0]["started_ns"].as_u64();
    let by_run = |r: &&Value| {
        r["params"]["Filter.1.Name"] == "tag:stillpoint:run"
            && r["params"]["Filter.1.Value.1"] == record["run_id"]
            && r["started_ns"].as_u64() > sent
    };
    rig.calls("DescribeSnapshots").iter().filter(by_run).count()
}

/// A run whose one create call meets this fault. Never a second one.
fn met(rig: &Rig, fault: &[&str], arguments: &[&str]) -> Ended {
    rig.sim(&[&["faults", "add", "--action", "CreateSnapshots", "--call", "1"], fault].concat());
    let ended = rig.run(&[&["snapshot", "-o", "json"], arguments].concat());
    assert_eq!(rig.creates().len(), 1, "the create call is never repeated");
    assert_eq!(rig.creates()[0]["faults"].as_array().unwrap().len(), 1, "the fault was met");
    ended
}

#[test]
fn a_hanging_api_ends_with_the_window() {
    let rig = two();
    let run = in_the_window(&rig, "hang", "0s", &["snapshot", "--window", "1s", "-o", "json"]);
    let sent = Instant::now();
    let writes: Vec<_> = rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect();
    for write in &writes {
        let took = write.done(Duration::from_secs(10)).expect("thawed by itself").duration_since(sent);
        println!("thawed {took:?} after the request was seen, window 1 s");
        assert!(took < Duration::from_millis(1500), "thawed {took:?} after the request");
    }
    let ended = run.end();
    let record = ended.exits(23).record();
    ended.says("did not answer within the window of 1s").says("stillpoint:run=");
    assert_eq!(record["consistency"], Value::Null);
    assert!(record["window_ms"].as_f64().unwrap() < 1100.0, "{}", record["window_ms"]);
    assert!(look_ups(&rig, &record) >= 3, "EC2 is eventually consistent: one look is not enough");
    assert_eq!(rig.creates().len(), 1);
    assert_eq!(rig.snapshots().len(), 0);
    assert_clean(&rig);
    // Nothing was seen, which is no proof so soon after: the next start looks again, and only a later one gives up.
    let journals = rig.journals();
    assert_eq!(journals.len(), 1);
    rig.run(&["snapshot"]).exits(0).says("EC2 shows no snapshots of it");
    assert_eq!(rig.journals(), journals);
    let journal = rig.path("run/runs").join(&journals[0]);
    sh("sed", &["-i", r#"s/"started": "20../"started": "2000/"#, journal.to_str().unwrap()]);
    rig.run(&["snapshot"]).exits(0).says("EC2 shows no snapshots of it");
    assert_settled(&rig);
}

/// Carried out, but the answer is lost.
fn lost_answer(fault: &[&str], says: &str) {
    let rig = two();
    let ended = met(&rig, fault, &["--window", "1s"]);
    let record = ended.exits(23).record();
    ended.says(says);
    assert_eq!(record["consistency"], "crash", "{record:#}");
    assert_eq!(record["snapshots"].as_array().unwrap().len(), 2, "found by the run id");
    assert!(look_ups(&rig, &record) >= 1);
    assert_labels(&rig, 2, "crash");
    for snapshot in rig.snapshots() {
        assert_eq!(tag(&snapshot, "stillpoint:part"), "crash");
        assert!(!tag(&snapshot, "stillpoint:reason").is_empty());
    }
    assert_settled(&rig);
}

#[test]
fn an_answer_that_never_comes() {
    lost_answer(&["--kind", "hang-after"], "2 snapshots of this run exist all the same");
}

#[test]
fn an_answer_lost_with_its_connection() {
    lost_answer(&["--kind", "drop-after"], "2 snapshots of this run exist all the same");
}

#[test]
fn an_answer_that_ends_in_the_middle() {
    // It can still be read in part, and then lacks a volume: not taken for the whole.
    lost_answer(&["--kind", "malformed"], "2 snapshots of this run exist all the same");
}

#[test]
fn an_error_after_the_deed() {
    lost_answer(&["--kind", "error-after", "--code", "InternalError", "--status", "500"], "HTTP 500");
}

#[test]
fn an_answer_that_comes_late_but_within_the_window_is_good() {
    let rig = two();
    let ended = met(&rig, &["--kind", "delay-after", "--delay", "600ms"], &["--window", "5s"]);
    assert!(ended.exits(0).record()["window_ms"].as_f64().unwrap() > 600.0);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}

#[test]
fn a_refusal_is_final() {
    let rig = two();
    let fault = ["--kind", "error", "--code", "SnapshotCreationPerVolumeRateExceeded", "--status", "400"];
    let ended = met(&rig, &fault, &[]);
    let record = ended.exits(23).record();
    ended
        .says("SnapshotCreationPerVolumeRateExceeded")
        .says("hint: EC2 allows one snapshot of a volume every 15 s");
    assert_eq!(record["consistency"], Value::Null);
    assert_eq!(look_ups(&rig, &record), 0, "a refusal leaves nothing to look up");
    assert_eq!(rig.snapshots().len(), 0);
    assert_settled(&rig);
}

#[test]
fn a_server_error_says_nothing_about_the_deed() {
    let rig = two();
    let ended = met(&rig, &["--kind", "http-500"], &[]);
    let record = ended.exits(23).record();
    assert!(look_ups(&rig, &record) >= 3);
    ended.says("no snapshot of this run is to be seen");
    assert_clean(&rig);
}

#[test]
fn a_missing_permission_is_found_before_anything_is_touched() {
    for (denied, says) in [("CreateSnapshots", "volume/*"), ("CreateTags", "snapshot/*")] {
        let rig =
            Rig::with(&[("a", Fs::Ext4), ("b", Fs::Ext4)], &format!("[iam]\ndeny = ['ec2:{denied}']\n"));
        let log = rig.path("hook-ran");
        let touch = format!("pre = ['/usr/bin/touch', '{}']", log.display());
        rig.configure(&format!("[[hook]]\nname = 'db'\n{touch}\ntimeout = '5s'\n"));
        let ended = rig.run(&["snapshot"]);
        ended.exits(77).says("UnauthorizedOperation").says(&format!("ec2:{denied} is missing")).says(says);
        assert!(ended.err.contains(r#"{"Effect":"Allow","Action":"ec2:"#), "{}", ended.err);
        assert!(!log.exists(), "a hook ran");
        assert_eq!(rig.creates().len(), 0);
        assert_settled(&rig);
    }
}

#[test]
fn a_permission_taken_away_meanwhile() {
    let rig = two();
    // Both DryRuns pass; by the time of the real call the policy has changed.
    let fault = ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403"];
    let ended = met(&rig, &fault, &[]);
    ended.exits(77).says("ec2:CreateSnapshots is missing");
    assert_settled(&rig);
}

#[test]
fn a_volume_attached_meanwhile_was_not_frozen() {
    let rig = two();
    let ended = met(&rig, &["--kind", "extra-volume"], &[]);
    let record = ended.exits(22).record();
    assert_eq!(record["consistency"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("attached meanwhile"), "{}", record["reason"]);
    assert_labels(&rig, 3, "crash");
    // The parts that were frozen say so.
    let parts: Vec<_> = record["snapshots"].as_array().unwrap().iter().map(|s| &s["consistency"]).collect();
    assert_eq!(parts, ["filesystem", "filesystem", "crash"]);
    assert_settled(&rig);
}

#[test]
fn a_volume_that_ec2_does_not_know_is_refused() {
    let rig = two();
    rig.control("POST", "volumes/b/detach", "");
    let ended = rig.run(&["snapshot", "--mount", rig.mount("b").to_str().unwrap()]);
    ended.exits(78).says(rig.mount("b").to_str().unwrap());
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

fn fsfreeze(what: &str, mount: &Path) {
    assert!(Command::new("fsfreeze").arg(what).arg(mount).status().unwrap().success());
}

fn foreign_thaw(arguments: &[&str], code: i32) {
    let rig = two();
    let run =
        in_the_window(&rig, "delay-before", "700ms", &[&["snapshot", "-o", "json"], arguments].concat());
    fsfreeze("--unfreeze", &rig.mount("a"));
    let ended = run.end();
    let record = ended.exits(code).record();
    assert_eq!(record["consistency"], "crash");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("thawed by something else") && reason.contains("/a"), "{reason}");
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn a_foreign_thaw_takes_the_label() {
    foreign_thaw(&[], 22);
}

#[test]
fn a_foreign_thaw_is_kept_where_the_policy_says_so() {
    foreign_thaw(&["--on-lower", "keep"], 10);
}

#[test]
fn a_foreign_thaw_and_freeze_is_seen_by_the_write_counter() {
    let rig = two();
    let run = in_the_window(&rig, "delay-before", "1s", &["snapshot", "-o", "json"]);
    let mount = rig.mount("a");
    fsfreeze("--unfreeze", &mount);
    let mut file = std::fs::File::create(mount.join("meanwhile")).unwrap();
    std::io::Write::write_all(&mut file, b"written while it should be frozen").unwrap();
    file.sync_all().unwrap();
    fsfreeze("--freeze", &mount);
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["consistency"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("was written to"), "{}", record["reason"]);
    assert_labels(&rig, 2, "crash");
    assert_settled(&rig);
}

#[test]
fn a_foreign_freeze_is_left_alone() {
    let rig = two();
    let foreign = rig.mount("b");
    fsfreeze("--freeze", &foreign);
    let ended = rig.run(&["snapshot"]);
    ended
        .exits(21)
        .says(foreign.to_str().unwrap())
        .says("Device or resource busy")
        .says("never thaws what it did not freeze");
    assert_eq!(rig.creates().len(), 0);
    assert!(!was_frozen(&rig.mount("a")), "what it froze itself is thawed");
    assert!(was_frozen(&foreign), "somebody else's freeze is not ours to thaw");
    assert_settled(&rig);
}
