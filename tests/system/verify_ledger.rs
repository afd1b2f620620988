//! What verify has found is noted: in tags, in the record, and never in place of the verdict.

use rig::{Fs, Rig};
use serde_json::{Value, json};

fn with_a_set() -> (Rig, String) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    let taken = rig.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    (rig, set)
}

fn show(rig: &Rig, set: &str) -> Value {
    rig.run(&["show", set, "-o", "json"]).exits(0).record()
}

/// This tag of each snapshot.
fn tags(rig: &Rig, key: &str) -> Vec<String> {
    let all = rig.snapshots();
    all.iter().map(|s| s["tags"][key].as_str().unwrap_or_default().to_owned()).collect()
}

fn damage(rig: &Rig) {
    let all = json!({"action": "ebs:GetSnapshotBlock", "kind": "corrupt"});
    rig.control("POST", "faults", &all.to_string());
}

fn record(rig: &Rig, set: &str) -> Value {
    let path = rig.path("state").join("sets").join(format!("{set}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_was_found_is_in_the_tags_in_the_record_and_in_what_lists_sets() {
    let (rig, set) = with_a_set();
    assert!(show(&rig, &set)["verified"].is_null());
    let before = tags(&rig, "stillpoint:verified");
    for keeps in [["--no-ledger"].as_slice(), &["-n"]] {
        let said = rig.run(&[&["verify", &set, "-o", "json"], keeps].concat()).exits(0).record();
        assert!(said["ledger"].is_null(), "{said}");
    }
    assert_eq!(tags(&rig, "stillpoint:verified"), before, "nothing is noted that was not to be");

    let said = rig.run(&["verify", &set, "-o", "json"]).exits(0).record();
    assert_eq!(said["ledger"], json!({"tag": "stillpoint:verified", "record": true, "error": null}));
    let verified = &show(&rig, &set)["verified"];
    assert_eq!((&verified["level"], &verified["sound"]), (&json!("probe"), &json!(2)), "{verified}");
    assert!(verified["by"].as_str().unwrap().starts_with("i-"), "{verified}");
    assert_eq!(record(&rig, &set)["verified"], *verified, "the record has the same");
    assert!(show(&rig, &set)["record_differs"].as_array().unwrap().is_empty());
    let listed = rig.run(&["list"]);
    listed.exits(0);
    assert!(listed.out.contains("filesystem ✓"), "{}", listed.out);
    assert!(listed.out.lines().all(|l| l.chars().count() <= 80), "{}", listed.out);
    let shown = rig.run(&["show", &set]);
    assert!(shown.exits(0).out.contains("2 of 2 filesystems sound (probe, i-"), "{}", shown.out);

    // Deeper takes its place, and less deep does not.
    rig.run(&["verify", &set, "--level", "whole"]).exits(0);
    let said = rig.run(&["verify", &set, "-o", "json"]).exits(0).record();
    assert!(said["ledger"]["tag"].is_null(), "{said}");
    assert_eq!(show(&rig, &set)["verified"]["level"], "whole");

    // A fault stands beside it.
    damage(&rig);
    let said = rig.run(&["verify", &set, "-o", "json"]).exits(24).record();
    assert_eq!(said["ledger"]["tag"], "stillpoint:verify-fault");
    let shown = show(&rig, &set);
    assert!(shown["verify_fault"]["what"].as_str().unwrap().contains("checksum"), "{shown}");
    assert_eq!(record(&rig, &set)["verify_fault"], shown["verify_fault"]);
    let listed = rig.run(&["list"]);
    assert!(listed.exits(0).out.contains("filesystem, FAULT"), "{}", listed.out);
    let text = rig.run(&["show", &set]);
    assert!(text.exits(0).out.contains("VERIFY FOUND A FAULT: snap-"), "{}", text.out);
}

#[test]
fn a_ledger_that_cannot_be_written_hides_no_verdict() {
    let (rig, set) = with_a_set();
    let denied = json!({
        "action": "CreateTags", "kind": "error", "code": "UnauthorizedOperation", "status": 403,
        "message": "You are not authorized to perform this operation.", "times": 100,
    });
    rig.control("POST", "faults", &denied.to_string());
    let said = rig.run(&["verify", &set]);
    said.exits(11).says("sound, 2 of 2 filesystems").says("what was found is NOT noted").says("CreateTags");
    let said = rig.run(&["verify", &set, "-o", "json"]).exits(11).record();
    assert_eq!((&said["verdict"], &said["ledger"]["tag"]), (&json!("sound"), &Value::Null), "{said}");
    assert!(said["ledger"]["error"].is_string(), "{said}");
    rig.run(&["verify", &set, "--no-ledger"]).exits(0);
    damage(&rig);
    rig.run(&["verify", &set]).exits(24).says("what was found is NOT noted");
}

#[test]
fn what_one_snapshot_alone_says_proves_nothing_and_a_fault_of_one_counts() {
    let (rig, set) = with_a_set();
    rig.run(&["verify", &set]).exits(0);
    let all = rig.snapshots();
    let one = all[0]["id"].as_str().unwrap();
    let tag = |key: &str, value: &str| {
        let words =
            [format!("ResourceId.1={one}"), format!("Tag.1.Key={key}"), format!("Tag.1.Value={value}")];
        rig.sim(&["call", "CreateTags", &words[0], &words[1], &words[2]]);
    };
    tag("stillpoint:verified", "whole at=2027-01-31T03:00:00Z by=elsewhere sound=2/2");
    assert!(show(&rig, &set)["verified"].is_null(), "they do not agree");
    tag("stillpoint:verify-fault", "probe at=2027-01-31T03:00:00Z by=elsewhere what=made%20up");
    assert_eq!(show(&rig, &set)["verify_fault"]["what"], "made up");
    let listed = rig.run(&["list"]);
    assert!(listed.exits(0).out.contains("FAULT"), "{}", listed.out);
}
