//! The life of a set after its run: listed, shown, waited for, kept, pruned, deleted, in a simulated EC2 over real
//! volumes.

use rig::{Fs, Rig};
use serde_json::Value;

/// Sets of one minute count as one for `last`; for the floor, each counts.
const KEEP_TWO: &str = "[defaults.keep]\nlast = 1\nat_least = 2\n";

/// A host that has taken so many sets.
fn with_sets(n: usize, more: &str) -> (Rig, Vec<String>) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(more);
    let taken = (0..n).map(|_| take(&rig)).collect();
    rig.await_quiet();
    (rig, taken)
}

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn listed(rig: &Rig, more: &[&str]) -> Value {
    let said = rig.run(&[&["list", "-o", "json"], more].concat());
    said.exits(0).record()
}

fn ids(list: &Value) -> Vec<String> {
    list["sets"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

fn members(list: &Value, set: &str) -> Vec<String> {
    let set = list["sets"].as_array().unwrap().iter().find(|s| s["id"] == set).unwrap();
    set["members"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn sets_are_listed_and_shown_from_their_tags_alone() {
    let (rig, taken) = with_sets(2, "[defaults.keep]\nlast = \"all\"\n");
    std::fs::remove_dir_all(rig.path("state")).ok();
    let list = listed(&rig, &[]);
    assert_eq!(ids(&list), [taken[1].as_str(), &taken[0]], "newest first");
    for set in list["sets"].as_array().unwrap() {
        assert_eq!(
            (&set["state"], &set["achieved"], &set["plan"]),
            (&"completed".into(), &"filesystem".into(), &"default".into())
        );
        assert_eq!(set["departure"]["when"], "never", "{set}");
    }
    let text = rig.run(&["list"]);
    text.exits(0);
    assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
    assert!(text.out.contains(&taken[0][..13]) && text.out.contains("filesystem"), "{}", text.out);

    let shown = rig.run(&["show", &taken[0][..15], "-o", "json"]).exits(0).record();
    assert_eq!(shown["id"], taken[0].as_str());
    let layout = &shown["layout"];
    let mounts: Vec<_> = layout["filesystems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["mount_point"].as_str().unwrap())
        .collect();
    assert_eq!(mounts, [rig.mount("a").to_str().unwrap(), rig.mount("b").to_str().unwrap()]);
    assert_eq!(layout["volumes"].as_array().unwrap().len(), 2);
    let by_snapshot = rig.run(&["show", &members(&list, &taken[0])[1]]);
    by_snapshot.exits(0);
    assert!(by_snapshot.out.contains(&taken[0]) && by_snapshot.out.contains("xfs"), "{}", by_snapshot.out);
    rig.run(&["show", "deadbeef"]).exits(78).says("there is no set deadbeef");
    rig.run(&["show", "dead"]).exits(64).says("8 characters");
}

#[test]
fn what_may_not_be_asked_is_an_error_and_no_empty_list() {
    let (rig, _) = with_sets(1, KEEP_TWO);
    let denied = [
        "faults",
        "add",
        "--times",
        "1000",
        "--kind",
        "error",
        "--code",
        "UnauthorizedOperation",
        "--status",
        "403",
    ];
    let message = ["--message", "You are not authorized to perform this operation.", "--action"];
    let fault = rig.sim(&[&denied[..], &message[..], &["DescribeSnapshots"]].concat());
    for command in [&["list"][..], &["prune"], &["show", "0197f3c2"]] {
        rig.run(command).exits(77).says("DescribeSnapshots");
    }
    rig.sim(&["faults", "remove", fault.trim()]);
    for action in ["DescribeImages", "DescribeLockedSnapshots", "DescribeSnapshotAttribute"] {
        let fault = rig.sim(&[&denied[..], &message[..], &[action]].concat());
        let set = ids(&listed(&rig, &[])).remove(0);
        rig.run(&["delete", &set, "--including-the-last"]).exits(77).says(action);
        rig.sim(&["faults", "remove", fault.trim()]);
        assert_eq!(ids(&listed(&rig, &[])), [set]);
    }
}

#[test]
fn a_prune_removes_what_its_dry_run_names_and_nothing_else() {
    let (rig, taken) = with_sets(3, KEEP_TWO);
    let dry = rig.run(&["prune", "--dry-run"]);
    dry.exits(0);
    assert!(dry.out.contains(&format!("REMOVE {}", &taken[0][..13])), "{}", dry.out);
    assert_eq!(ids(&listed(&rig, &[])).len(), 3, "a dry run removes nothing");
    let done = rig.run(&["prune", "-o", "json"]).exits(0).record();
    assert_eq!(done["order"], serde_json::json!([taken[0]]));
    assert_eq!(done["removed"][0]["deleted"].as_array().unwrap().len(), 2);
    assert_eq!(ids(&listed(&rig, &[])), [taken[2].as_str(), &taken[1]]);
    let again = rig.run(&["prune", "-o", "json"]).exits(0).record();
    assert_eq!(again["order"], serde_json::json!([]), "a second prune removes nothing");
}

#[test]
fn more_than_half_goes_only_when_that_is_said() {
    let (rig, taken) = with_sets(4, "[defaults.keep]\nlast = 1\n");
    let refused = rig.run(&["prune"]);
    refused.exits(11);
    assert!(refused.out.contains("NOTHING IS REMOVED"), "{}", refused.out);
    assert_eq!(ids(&listed(&rig, &[])).len(), 4);
    rig.run(&["prune", "--yes"]).exits(0);
    assert_eq!(ids(&listed(&rig, &[])), [taken[3].as_str()]);
    rig.run(&["prune", "--all", "--yes"]).exits(0);
    assert_eq!(ids(&listed(&rig, &[])), [taken[3].as_str()], "the last good one");
    rig.run(&["delete", &taken[3]]).exits(78).says("last good set");
    rig.run(&["delete", &taken[3], "--including-the-last"]).exits(0);
    assert!(ids(&listed(&rig, &[])).is_empty());
}

#[test]
fn what_is_held_stays_whole_and_the_others_go() {
    let (rig, taken) = with_sets(4, KEEP_TWO);
    let list = listed(&rig, &[]);
    let of = members(&list, &taken[0]);
    rig.sim(&[
        "call",
        "LockSnapshot",
        &format!("SnapshotId={}", of[1]),
        "LockMode=governance",
        "LockDuration=5",
    ]);
    let dry = rig.run(&["prune", "--dry-run"]);
    dry.exits(0);
    assert!(dry.out.contains("locked (governance)"), "{}", dry.out);
    rig.run(&["prune"]).exits(0);
    assert_eq!(ids(&listed(&rig, &[])), [taken[3].as_str(), &taken[2], &taken[0]]);
    assert_eq!(members(&listed(&rig, &[]), &taken[0]), of, "not one of its snapshots");
    rig.run(&["delete", &taken[0]]).exits(78).says("locked (governance)");

    rig.sim(&["call", "UnlockSnapshot", &format!("SnapshotId={}", of[1])]);
    rig.run(&["keep", &taken[0], "--until", "2099-12-31"]).exits(0).says("is kept until 2099-12-31");
    rig.run(&["prune"]).exits(0);
    assert!(ids(&listed(&rig, &[])).contains(&taken[0]));
    rig.run(&["keep", &taken[0], "--until", "2001-12-31"]).exits(64).says("is over");
    rig.run(&["release", &taken[0]]).exits(0);
    rig.run(&["prune"]).exits(0);
    assert_eq!(ids(&listed(&rig, &[])), [taken[3].as_str(), &taken[2]]);
}

/// A refusal at the first snapshot leaves the set whole and unmarked; a later one leaves it torn, and the next prune
/// finishes it.
#[test]
fn a_set_that_is_refused_is_whole_or_finished_later() {
    let (rig, taken) = with_sets(4, KEEP_TWO);
    let refuse = |call: &str| {
        let fault = ["faults", "add", "--action", "DeleteSnapshot", "--call", call, "--kind", "error"];
        let error =
            ["--code", "InvalidSnapshot.InUse", "--status", "400", "--message", "currently in use by ami-1"];
        rig.sim(&[&fault[..], &error[..]].concat());
    };
    // Calls are counted from the fault on: the first of the first set, and the second of the second set.
    refuse("1");
    let first = rig.run(&["prune"]);
    first.exits(11).says("is NOT removed, and whole").says("ami-1");
    let list = listed(&rig, &[]);
    assert_eq!(ids(&list), [taken[3].as_str(), &taken[2], &taken[0]], "the other one went");
    assert_eq!(list["sets"][2]["deleting"], false);
    assert_eq!(members(&list, &taken[0]).len(), 2);

    let last = members(&list, &taken[0]).remove(1);
    refuse("2");
    rig.run(&["prune"]).exits(11).says("is removed IN PART").says(&last);
    let list = listed(&rig, &["--leftovers"]);
    assert_eq!((ids(&list), &list["sets"][0]["state"]), (vec![taken[0].clone()], &"torn".into()));
    rig.run(&["prune"]).exits(0).says("removed");
    assert_eq!(ids(&listed(&rig, &[])), [taken[3].as_str(), &taken[2]]);
}

#[test]
fn nobody_elses_snapshots_are_touched() {
    let (rig, taken) = with_sets(3, KEEP_TWO);
    let list = listed(&rig, &[]);
    let of = members(&list, &taken[0]);
    let volume = rig.id("a");
    let by_hand = rig.sim(&["call", "CreateSnapshot", &format!("VolumeId={volume}")]);
    assert!(by_hand.contains("snap-"), "{by_hand}");
    // The tags of a set, on a snapshot that is none of it.
    let forged = by_hand.split("snap-").nth(1).map(|t| format!("snap-{}", &t[..17])).unwrap();
    let tag = |key: &str, value: &str| {
        rig.sim(&[
            "call",
            "CreateTags",
            &format!("ResourceId.1={forged}"),
            &format!("Tag.1.Key={key}"),
            &format!("Tag.1.Value={value}"),
        ]);
    };
    tag("stillpoint:run", &taken[0]);
    rig.run(&["prune"]).exits(0);
    let left: Value = serde_json::from_str(&rig.sim(&["snapshots"])).unwrap();
    assert!(left.to_string().contains(&forged), "{left}");
    assert!(of.iter().all(|id| !left.to_string().contains(id)));
    let list = listed(&rig, &["--all-hosts"]);
    assert_eq!(list["strangers"][0]["id"], forged.as_str());
}

/// Tags are what everybody goes by, and anybody who may tag can change them: the host that took the set notices.
#[test]
fn what_the_record_of_the_host_says_otherwise_is_shown() {
    let (rig, taken) = with_sets(1, "");
    let shown = || rig.run(&["show", &taken[0], "-o", "json"]).exits(0).record();
    let before = shown();
    assert_eq!(before["record_differs"], serde_json::json!([]), "{before}");
    let one = members(&listed(&rig, &[]), &taken[0]).remove(0);
    let tag = ["Tag.1.Key=stillpoint:part", "Tag.1.Value=application"];
    rig.sim(&[&["call", "CreateTags", &format!("ResourceId.1={one}")], &tag[..]].concat());
    let said = format!("the label of {one} is filesystem in the record, and application in the tags");
    assert_eq!(shown()["record_differs"], serde_json::json!([said]));
    let text = rig.run(&["show", &taken[0]]);
    assert!(text.exits(0).out.contains(&said), "{}", text.out);
    std::fs::set_permissions(
        rig.path("state").join(format!("sets/{}.json", taken[0])),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    let said = shown()["record_differs"][0].as_str().unwrap().to_owned();
    assert!(said.starts_with("it cannot be read: "), "others could have written it: {said}");
}

#[test]
fn a_set_is_waited_for_until_its_state_says_so() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    let set = take(&rig);
    let done = rig.run(&["wait", &set]);
    done.exits(0).says("completed").says("is complete");
    assert_eq!(done.out.lines().filter(|l| l.starts_with("snap-")).count(), 2, "{}", done.out);

    rig.sim(&["faults", "add", "--action", "CreateSnapshots", "--kind", "snapshot-error"]);
    let lost = take(&rig);
    rig.run(&["wait", &lost]).exits(11).says("is lost");
    let list = listed(&rig, &["--leftovers"]);
    assert_eq!((ids(&list), &list["sets"][0]["state"]), (vec![lost], &"error".into()));
}

/// What a rule of the Recycle Bin matches comes back whole, with its tags.
#[test]
fn a_set_comes_back_from_the_recycle_bin() {
    let rule = "[[recycle_bin.rule]]\ndays = 7\n";
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], rule);
    rig.configure("");
    let set = take(&rig);
    rig.await_quiet();
    let before = listed(&rig, &[]);
    rig.run(&["delete", &set, "--including-the-last"]).exits(0);
    assert!(ids(&listed(&rig, &[])).is_empty());
    rig.run(&["undelete", "deadbeef"]).exits(78).says("the Recycle Bin of us-east-1 has nothing of deadbeef");
    let dry = rig.run(&["undelete", &set, "--dry-run"]);
    dry.exits(0).says("would come back");
    assert!(ids(&listed(&rig, &[])).is_empty());
    let back = rig.run(&["undelete", &set]);
    back.exits(0).says("2 of its snapshots in the Recycle Bin are back");
    // EC2 says `recovering` for a while.
    rig.run(&["wait", &set]).exits(0);
    assert_eq!(listed(&rig, &[]), before, "as it was, and not marked");
}

/// A year of runs, a set a day, and the rules of the documentation's example: the real program, asking page after
/// page.
#[test]
fn a_year_of_runs_is_thinned_as_the_rules_say() {
    let rules = "[defaults.keep]\ndaily = 7\nweekly = 4\nmonthly = 12\n";
    // EC2 would let five a second go: a minute that shows nothing.
    let bucket = |action: &str| format!("[limits.bucket.{action}]\nsize = 10000\nrefill = 1000\n");
    let buckets =
        ["DeleteSnapshot", "CreateTags", "DescribeSnapshotAttribute", "DescribeSnapshots"].map(bucket);
    let rig = Rig::with(&[("a", Fs::Ext4)], &buckets.concat());
    rig.configure(rules);
    let set = take(&rig);
    rig.await_quiet();
    let like = members(&listed(&rig, &[]), &set).remove(0);
    let vary = ["--vary", "stillpoint:run", "--every", "24h"];
    rig.sim(&[&["fill", "--sets", "364", "--like", &like], &vary[..]].concat());
    assert_eq!(ids(&listed(&rig, &[])).len(), 365);
    rig.run(&["prune"]).exits(11);
    assert_eq!(ids(&listed(&rig, &[])).len(), 365, "more than half needs --yes");
    let done = rig.run(&["prune", "--yes", "-o", "json"]).exits(0).record();
    let kept = ids(&listed(&rig, &[]));
    assert_eq!(done["order"].as_array().unwrap().len() + kept.len(), 365);
    // 7 days; 4 weeks, the newest of which is a day; 12 months, the newest of which is one too. How many of the
    // others fall together depends on today.
    assert!((7 + 2 + 10..=7 + 3 + 11).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&set));
    let again = rig.run(&["prune", "-o", "json"]).exits(0).record();
    assert_eq!(again["order"], serde_json::json!([]));
    // More than a page of EC2's.
    rig.sim(&["fill", "--sets", "1100", "--like", &like, "--vary", "stillpoint:run", "--every", "1h"]);
    assert_eq!(ids(&listed(&rig, &[])).len(), kept.len() + 1100);
}

/// EC2 goes on listing what is deleted for a while: that is no failure of the next prune.
#[test]
fn what_is_still_listed_after_its_deletion_is_gone() {
    let (rig, taken) = with_sets(3, KEEP_TWO);
    let fault = ["faults", "add", "--action", "DeleteSnapshot", "--kind", "late-deletion", "--times", "9"];
    rig.sim(&[&fault[..], &["--delay", "600s"]].concat());
    rig.run(&["prune"]).exits(0).says("removed");
    assert!(ids(&listed(&rig, &[])).contains(&taken[0]), "still listed");
    rig.run(&["prune"]).exits(0).says("removed");
    rig.run(&["delete", &taken[0]]).exits(0);
}
