//! Verify chooses a set by itself, and whoever is to be told of a fault is told.

use rig::journald::Journald;
use rig::program::{Run, put_executable};
use rig::{Fs, Rig, schema};
use serde_json::{Value, json};
use stillpoint::report::event::Kind;

fn take(rig: &Rig, plan: &str) -> String {
    let taken = rig.run(&["snapshot", plan, "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn verify(rig: &Rig, more: &[&str]) -> Value {
    rig.run(&[&["verify", "-o", "json"], more].concat()).exits(0).record()
}

#[test]
fn chance_takes_what_nobody_has_looked_at_and_then_anything() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("[plan.one]\n[plan.two]\n");
    let mut sets: Vec<String> = (0..3).map(|_| take(&rig, "one")).collect();
    let other = take(&rig, "two");
    rig.run(&["verify", "--random", "--within", "1h", "three"])
        .exits(78)
        .says("no set of plan three within 1h");
    let latest = verify(&rig, &["--latest", "--no-ledger"]);
    assert_eq!(
        (&latest["set"], &latest["chosen"]),
        (&json!(other), &json!({"how": "latest", "of": 4, "unseen": null}))
    );
    let latest = verify(&rig, &["--latest", "one", "--no-ledger"]);
    assert_eq!(latest["set"], *sets[2], "{latest}");

    // Each of the plan once, in any order; then any again.
    let mut seen = Vec::new();
    for unseen in (0..3).rev() {
        let said = rig.run(&["verify", "--random", "--within", "1d", "one", "-o", "json"]);
        said.exits(0).says("by chance").says("of plan one within 1d");
        let said = said.record();
        assert_eq!(said["chosen"], json!({"how": "random", "of": 3, "unseen": unseen + 1}));
        seen.push(said["set"].as_str().unwrap().to_owned());
    }
    seen.sort();
    sets.sort();
    assert_eq!(seen, sets);
    assert_eq!(verify(&rig, &["--random", "one"])["chosen"]["unseen"], 0);
    let whole = verify(&rig, &["--random", "one", "--level", "whole"]);
    assert_eq!(whole["chosen"]["unseen"], 3, "a probe is no whole read");
    for wrong in
        [&["verify"][..], &["verify", "--random", "--latest"], &["verify", &sets[0], "--within", "3d"]]
    {
        rig.run(wrong).exits(64);
    }
}

#[test]
fn the_newest_verified_set_stays_where_the_rules_say_so() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("[plan.one.keep]\nlast = 1\nverified = 1\n");
    // Two sets of one minute are one to `last`.
    let sets: Vec<String> = (0..3).map(|_| take(&rig, "one")).collect();
    rig.run(&["verify", &sets[0]]).exits(0);
    let said = rig.run(&["prune", "one", "--yes", "--stale", "-o", "json"]).exits(0).record();
    let of = |id: &str| said["sets"].as_array().unwrap().iter().find(|s| s["id"] == *id).unwrap().clone();
    assert_eq!(of(&sets[0])["verdict"], "keep", "{said}");
    assert!(of(&sets[0]).to_string().contains("verified 1 of 1"), "{said}");
    let left = rig.run(&["list", "-o", "json"]).exits(0).record();
    assert!(left.to_string().contains(&sets[0]), "{left}");
}

#[test]
fn a_fault_is_an_event_a_metric_and_a_command_of_somebodys() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let (script, document, folder) = (rig.path("told.sh"), rig.path("told.json"), rig.path("metrics"));
    std::fs::create_dir(&folder).unwrap();
    put_executable(&script, format!("#!/bin/sh\ncat > {}\n", document.display()));
    let textfile = folder.join("stillpoint.prom");
    rig.configure(&format!(
        "textfile = \"{}\"\n[plan.one]\n[[notify]]\ncommand = [\"{}\"]\ntimeout = \"20s\"\n",
        textfile.display(),
        script.display()
    ));
    let set = take(&rig, "one");
    let journald = Journald::start();
    let run = || Run::start(journald.of(rig.command(&["verify", "--latest"]))).end();
    run().exits(0);
    assert_eq!(journald.names(), Vec::<String>::new(), "all is well");
    assert!(!document.exists());
    let metrics = || std::fs::read_to_string(&textfile).unwrap();
    assert!(metrics().contains("stillpoint_verify_exit_code{plan=\"one\"} 0\n"), "{}", metrics());

    rig.control("POST", "faults", &json!({"action": "ebs:GetSnapshotBlock", "kind": "corrupt"}).to_string());
    run().exits(24);
    let entry = journald.take("verify-fault");
    assert_eq!(
        (entry["MESSAGE_ID"].as_str(), entry["PRIORITY"].as_str()),
        (Kind::VerifyFault.message_id(), "3")
    );
    assert_eq!((&entry["STILLPOINT_SET"], entry["STILLPOINT_EXIT_CODE"].as_str()), (&set, "24"));
    assert!(entry["STILLPOINT_SNAPSHOTS"].starts_with("snap-"), "{entry:?}");
    assert!(entry["STILLPOINT_REASON"].contains("checksum"), "{entry:?}");
    let text = std::fs::read_to_string(&document).unwrap();
    schema::check_text("event-1", &text);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["command"], &told["events"][0]["event"]), (&json!("verify"), &json!("verify-fault")));
    let metrics = metrics();
    for line in ["exit_code{plan=\"one\"} 24\n", "faults_total{plan=\"one\"} 1\n"] {
        assert!(metrics.contains(&format!("stillpoint_verify_{line}")), "{metrics}");
    }
}
