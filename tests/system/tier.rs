//! Sets in the archive tier, in a simulated EC2 over real volumes.

use rig::program::await_some;
use rig::{Fs, Rig};
use serde_json::Value;

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn shown(rig: &Rig, set: &str) -> Value {
    rig.run(&["show", set, "-o", "json"]).exits(0).record()
}

fn members(rig: &Rig, set: &str) -> Vec<String> {
    let shown = shown(rig, set);
    let members = shown["members"].as_array().unwrap().iter();
    members.map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

fn tiers(rig: &Rig, set: &str) -> Vec<String> {
    let shown = shown(rig, set);
    let members = shown["members"].as_array().unwrap().iter();
    members.map(|m| m["tier"].as_str().unwrap().to_owned()).collect()
}

fn await_tiers(rig: &Rig, set: &str, tier: &str) {
    await_some("every snapshot in its tier", || tiers(rig, set).iter().all(|t| t == tier).then_some(()));
}

/// A set, and a newer one of the same volumes.
fn with_two_sets(config: &str) -> (Rig, String, String) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(config);
    let (old, new) = (take(&rig), take(&rig));
    rig.await_quiet();
    (rig, old, new)
}

fn moves(rig: &Rig) -> usize {
    rig.calls("ModifySnapshotTier").len() + rig.calls("RestoreSnapshotTier").len()
}

fn refuse(rig: &Rig, action: &str, call: &str, code: &str) -> String {
    let fault = ["faults", "add", "--action", action, "--kind", "error", "--code", code, "--status", "403"];
    let message = ["--message", "You are not authorized to perform this operation."];
    let which = if call == "all" { ["--times", "1000"] } else { ["--call", call] };
    rig.sim(&[&fault[..], &message, &which].concat()).trim().to_owned()
}

#[test]
fn a_set_goes_to_the_archive_and_comes_back() {
    let (rig, old, _) = with_two_sets("");
    let dry = rig.run(&["tier", &old, "--archive", "-n"]);
    dry.exits(0).says("2 snapshots as full copies into the archive").says("90 days are billed in any case");
    assert_eq!(moves(&rig), 0, "a dry run moves nothing");
    let done = rig.run(&["tier", &old, "--archive"]);
    done.exits(0).says("is on its way into the archive");
    assert!(members(&rig, &old).iter().all(|m| done.out.contains(m)), "{}", done.out);
    await_tiers(&rig, &old, "archive");
    let text = rig.run(&["show", &old]);
    text.exits(0);
    assert!(text.out.contains("is in the archive since"), "{}", text.out);
    assert!(text.out.contains("90 days are billed in any case"), "held: {}", text.out);
    let so_far = moves(&rig);
    rig.run(&["tier", &old, "--archive"]).exits(0).says("nothing had to be changed");
    assert_eq!(moves(&rig), so_far);
    rig.run(&["delete", &old]).exits(78).says("archived since");
    rig.run(&["share", &old, "--account", "111122223333"]).exits(78).says("in the archive");

    rig.run(&["tier", &old, "--restore", "--days", "3", "-n"]).exits(0).says("would come back for 3 days");
    assert_eq!(moves(&rig), so_far);
    rig.run(&["tier", &old, "--restore", "--days", "3"]).exits(0).says("is on its way back for 3 days");
    await_tiers(&rig, &old, "standard");
    let text = rig.run(&["show", &old]);
    assert!(text.out.contains("is out of the archive until"), "{}", text.out);
    rig.run(&["delete", &old]).exits(78).says("archived since");
    rig.run(&["tier", &old, "--restore"]).exits(0).says("is on its way back for good");
    let settled =
        || shown(&rig, &old)["members"].as_array().unwrap().iter().all(|m| m["restored_until"].is_null());
    await_some("out of the archive for good", || settled().then_some(()));
    rig.run(&["tier", &old, "--restore"]).exits(0).says("nothing had to be changed");
    for wrong in [
        &["tier", &old][..],
        &["tier", &old, "--archive", "--restore"],
        &["tier", &old, "--archive", "--days", "3"],
        &["tier", &old, "--restore", "--days", "181"],
        &["tier", "--archive"],
        &["tier", "nonsense", "--archive"],
        &["tier", "--restore", "--older-than", "90d"],
        &["tier", "--archive", "--older-than", "0h"],
    ] {
        rig.run(wrong).exits(64);
    }
}

#[test]
fn what_the_next_snapshot_needs_or_somebody_uses_stays() {
    let (rig, old, new) = with_two_sets("");
    rig.run(&["tier", &new, "--archive"]).exits(78).says("the newest snapshot of vol-");
    let of = members(&rig, &old);
    let register = rig.sim(&[
        "call",
        "RegisterImage",
        "Name=held",
        "RootDeviceName=/dev/sda1",
        "BlockDeviceMapping.1.DeviceName=/dev/sda1",
        &format!("BlockDeviceMapping.1.Ebs.SnapshotId={}", of[1]),
    ]);
    let image = register.split("<imageId>").nth(1).and_then(|t| t.split('<').next()).unwrap().to_owned();
    rig.run(&["tier", &old, "--archive"]).exits(78).says(&image);
    rig.sim(&["call", "DeregisterImage", &format!("ImageId={image}")]);
    rig.run(&["share", &old, "--account", "111122223333"]).exits(0);
    rig.run(&["tier", &old, "--archive"]).exits(78).says("shared with 111122223333");
    rig.run(&["unshare", &old]).exits(0);
    rig.run(&["delete", &new]).exits(0);
    rig.run(&["tier", &old, "--archive"]).exits(78).says("the newest snapshot of vol-");
    assert_eq!(moves(&rig), 0, "it was seen before");
}

#[test]
fn what_is_not_moved_is_told_of_each_snapshot() {
    let (rig, old, _) = with_two_sets("");
    let archive = ["tier", &old, "--archive"];
    let fault = refuse(&rig, "ModifySnapshotTier", "all", "UnauthorizedOperation");
    rig.run(&archive).exits(77).says("ModifySnapshotTier");
    rig.sim(&["faults", "remove", &fault]);
    refuse(&rig, "ModifySnapshotTier", "2", "ResourceLimitExceeded");
    rig.run(&archive).exits(11).says("is on its way into the archive").says("does NOT go to the archive");
    // The second time it is completed.
    rig.run(&archive).exits(0).says("stays as it is");
    await_tiers(&rig, &old, "archive");
    // Carried out, and no answer: what the tiers say counts.
    rig.sim(&["faults", "add", "--action", "RestoreSnapshotTier", "--kind", "drop-after", "--times", "1000"]);
    rig.run(&["tier", &old, "--restore"]).exits(0).says("is on its way back for good");
    await_tiers(&rig, &old, "standard");
    let fault = refuse(&rig, "DescribeSnapshotTierStatus", "all", "UnauthorizedOperation");
    rig.run(&archive).exits(77).says("DescribeSnapshotTierStatus");
    rig.sim(&["faults", "remove", &fault]);
}

/// By age: the older ones go, the newest stays whatever its age, and prune keeps what is there for 90 days.
#[test]
fn a_plan_archives_what_is_old_enough() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults.keep]\nlast = 1\n");
    let set = take(&rig);
    rig.await_quiet();
    let of = members(&rig, &set);
    let like = ["--like", &of[0], "--like", &of[1], "--vary", "stillpoint:run", "--every", "1440h"];
    rig.sim(&[&["fill", "--sets", "3"], &like[..]].concat());
    let list = rig.run(&["list", "-o", "json"]).exits(0).record();
    let ids: Vec<&str> = list["sets"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids[0]), (4, set.as_str()), "60, 120 and 180 days old");
    let old = ["tier", "default", "--archive", "--older-than", "100d"];
    let dry = rig.run(&[&old[..], &["-n"]].concat());
    dry.exits(0).says(ids[2]).says(ids[3]).says("warning: its rules let it go");
    assert!(!dry.err.contains(ids[1]) && moves(&rig) == 0, "{}", dry.err);
    rig.run(&old).exits(0);
    assert_eq!(moves(&rig), 4);
    await_tiers(&rig, ids[2], "archive");
    await_tiers(&rig, ids[3], "archive");
    rig.run(&old).exits(0).says("nothing had to be changed");
    assert_eq!(tiers(&rig, ids[1]), ["standard", "standard"]);
    let prune = rig.run(&["prune", "--yes"]);
    prune.exits(0);
    assert!(prune.out.contains("archived since"), "{}", prune.out);
    let list = rig.run(&["list", "-o", "json"]).exits(0).record();
    assert_eq!(list["sets"].as_array().unwrap().len(), 3, "the two in the archive, and the newest");
    rig.run(&["tier", "--archive", "--older-than", "3y"]).exits(0).says("no set that is older");
    rig.run(&["tier", "nowhere", "--archive", "--older-than", "3y"]).exits(78).says("nowhere");
}
