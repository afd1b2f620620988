//! Sets of several Regions, their copies, and what the Recycle Bin keeps, in a simulated EC2 over real volumes.

use rig::{Fs, Rig};
use serde_json::{Value, json};

const HOME: &str = "us-east-1";
const OTHER: &str = "us-west-2";

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn members(rig: &Rig, set: &str) -> Vec<String> {
    let shown: Value = rig.run(&["show", set, "-o", "json"]).exits(0).record();
    let members = shown["members"].as_array().unwrap().iter();
    members.map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

fn ids(list: &Value) -> Vec<&str> {
    list["sets"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect()
}

/// A set here, and what has the tags of a copy of it in another Region.
fn with_a_copy() -> (Rig, String) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    let set = take(&rig);
    rig.await_quiet();
    let of = members(&rig, &set);
    let like = ["--like", &of[0], "--like", &of[1], "--vary", "stillpoint:run", "--region", OTHER];
    rig.sim(&[&["fill", "--sets", "1"], &like[..]].concat());
    let source = format!("Tag.1.Value={HOME}/{set}");
    for snapshot in rig.snapshots().into_iter().filter(|s| s["region"] == OTHER) {
        let of = format!("ResourceId.1={}", snapshot["id"].as_str().unwrap());
        let call = ["call", "--region", OTHER, "CreateTags", &of];
        rig.sim(&[&call[..], &["Tag.1.Key=stillpoint:source", &source]].concat());
        let time = format!("Tag.1.Value={}", snapshot["started"].as_str().unwrap());
        rig.sim(&[&call[..], &["Tag.1.Key=stillpoint:source-time", &time]].concat());
    }
    (rig, set)
}

#[test]
fn every_region_is_looked_at_and_a_set_says_where_its_copies_are() {
    let (rig, set) = with_a_copy();
    let all = ["list", "--all-regions", "-o", "json"];
    let list = rig.run(&all).exits(0).record();
    assert_eq!(list["regions"], json!(["eu-central-1", HOME, OTHER]));
    assert_eq!((ids(&list).len(), &list["failed"]), (2, &json!([])));
    let own = list["sets"].as_array().unwrap().iter().find(|s| s["id"] == set.as_str()).unwrap();
    assert_eq!(
        (&own["copies"][0]["region"], &own["copies"][0]["state"]),
        (&OTHER.into(), &"completed".into())
    );
    let copy = list["sets"].as_array().unwrap().iter().find(|s| s["region"] == OTHER).unwrap();
    assert_eq!((&copy["copy_of"]["id"], &copy["instance_gone"]), (&set.as_str().into(), &false.into()));

    let two = rig.run(&["list", "--region", HOME, "--region", OTHER]);
    two.exits(0);
    assert!(two.out.contains("REGION") && two.out.contains("COPIES"), "{}", two.out);
    let one = rig.run(&["list", "-o", "json"]).exits(0).record();
    assert_eq!((ids(&one), &one["regions"]), (vec![set.as_str()], &json!([HOME])));
    rig.run(&["prune", "--region", HOME, "--region", OTHER]).exits(64).says("one Region");

    let shown = rig.run(&["show", &set, "--all-regions", "-o", "json"]).exits(0).record();
    assert_eq!(shown["copies"], json!([{"region": OTHER, "id": copy["id"], "state": "completed"}]));
    let text = rig.run(&["show", copy["id"].as_str().unwrap(), "--all-regions"]);
    text.exits(0);
    assert!(text.out.contains(&format!("a copy of {set} in {HOME}")), "{}", text.out);
    rig.run(&["show", "deadbeef", "--all-regions"]).exits(78).says("there is no set deadbeef");
}

fn deny(rig: &Rig, action: &str, which: &[&str]) -> String {
    let fault = ["faults", "add", "--action", action, "--kind", "error", "--code", "UnauthorizedOperation"];
    let error = ["--status", "403", "--message", "You are not authorized to perform this operation."];
    rig.sim(&[&fault[..], &error, which].concat()).trim().to_owned()
}

#[test]
fn a_region_that_does_not_answer_is_told_and_never_left_out() {
    let (rig, set) = with_a_copy();
    // They are asked in the order of their names.
    deny(&rig, "DescribeSnapshots", &["--call", "1"]);
    let part = rig.run(&["list", "--all-regions", "-o", "json"]);
    part.exits(11).says("NOT LOOKED AT, eu-central-1").says("DescribeSnapshots");
    let list = part.record();
    assert_eq!((ids(&list).len(), &list["failed"][0]["region"]), (2, &"eu-central-1".into()));
    deny(&rig, "DescribeSnapshots", &["--call", "1"]);
    rig.run(&["show", &set, "--all-regions"]).exits(11).says("NOT LOOKED AT, eu-central-1");
    let fault = deny(&rig, "DescribeSnapshots", &["--times", "1000"]);
    rig.run(&["list", "--all-regions"]).exits(77).says("DescribeSnapshots");
    rig.run(&["show", &set, "--all-regions"]).exits(77).says("DescribeSnapshots");
    rig.sim(&["faults", "remove", &fault]);
    // Where the set may be in the Region that does not answer, it is not said that there is none.
    deny(&rig, "DescribeSnapshots", &["--call", "2"]);
    rig.run(&["show", &set, "--all-regions"]).exits(77).says("DescribeSnapshots");
    let fault = deny(&rig, "DescribeRegions", &["--times", "1000"]);
    rig.run(&["list", "--all-regions"]).exits(77).says("DescribeRegions");
    rig.sim(&["faults", "remove", &fault]);
}

#[test]
fn filters_leave_only_what_they_name() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    let good = take(&rig);
    rig.sim(&["faults", "add", "--action", "CreateSnapshot*", "--kind", "snapshot-error"]);
    let lost = take(&rig);
    rig.await_quiet();
    let like = members(&rig, &good).remove(0);
    rig.sim(&["fill", "--sets", "1", "--like", &like, "--vary", "stillpoint:run", "--every", "240h"]);
    let list = |more: &[&str]| {
        let list = rig.run(&[&["list", "-o", "json"], more].concat()).exits(0).record();
        ids(&list).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(&[]).len(), 3);
    assert_eq!(list(&["--state", "error"]), [lost]);
    assert_eq!(list(&["--state", "error", "--state", "completed"]).len(), 3);
    assert_eq!(list(&["--since", "3d"]).len(), 2);
    assert_eq!(list(&["--since", "30d"]).len(), 3);
    assert_eq!(list(&["--since", "2099-01-01"]), [""; 0]);
    assert_eq!(list(&["--label", "filesystem"]).len(), 3);
    assert_eq!(list(&["--label", "crash"]), [""; 0]);
    assert_eq!(list(&["--label", "filesystem", "--since", "3d", "--state", "completed"]), [good]);
    for wrong in [["--label", "best"], ["--state", "broken"], ["--since", "yesterday"], ["--since", "3"]] {
        rig.run(&[&["list"][..], &wrong].concat()).exits(64);
    }
}

#[test]
fn the_recycle_bin_is_listed_by_sets() {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], "[[recycle_bin.rule]]\ndays = 7\n");
    rig.configure("");
    let set = take(&rig);
    take(&rig);
    rig.await_quiet();
    rig.run(&["list", "--bin"]).exits(0).says("the Recycle Bin has nothing of a set in us-east-1");
    let of = members(&rig, &set);
    rig.run(&["delete", &set]).exits(0);
    let bin = rig.run(&["list", "--bin", "-o", "json"]).exits(0).record();
    assert_eq!((&bin["bin"][0]["id"], bin["bin"].as_array().unwrap().len()), (&set.as_str().into(), 1));
    let mut there: Vec<_> =
        bin["bin"][0]["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    there.sort_unstable();
    let mut of: Vec<_> = of.iter().map(String::as_str).collect();
    of.sort_unstable();
    assert_eq!(there, of);
    let text = rig.run(&["list", "--bin"]);
    text.exits(0);
    assert!(text.out.contains(&set) && text.out.contains("GONE FOR GOOD"), "{}", text.out);
    rig.run(&["list", "--bin", "--leftovers"]).exits(64);
    deny(&rig, "ListSnapshotsInRecycleBin", &["--times", "1000"]);
    rig.run(&["list", "--bin"]).exits(77).says("ListSnapshotsInRecycleBin");
}
