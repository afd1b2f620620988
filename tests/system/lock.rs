//! Sets that EC2 refuses to delete, in a simulated EC2 over real volumes.

use rig::{Fs, Rig};
use serde_json::Value;

fn take(rig: &Rig, more: &[&str]) -> String {
    let taken = rig.run(&[&["snapshot", "-o", "json"], more].concat());
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

fn members(rig: &Rig, set: &str) -> Vec<String> {
    let shown: Value = rig.run(&["show", set, "-o", "json"]).exits(0).record();
    let members = shown["members"].as_array().unwrap().iter();
    members.map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

fn with_a_set(scenario: &str) -> (Rig, String, Vec<String>) {
    let rig = Rig::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], scenario);
    rig.configure("");
    let set = take(&rig, &[]);
    rig.await_quiet();
    let members = members(&rig, &set);
    (rig, set, members)
}

/// What EC2 says of each: the state of its lock, its days, and when it ends.
fn locks(rig: &Rig, members: &[String]) -> Vec<Option<(String, u32, String)>> {
    let said = rig.sim(&["call", "DescribeLockedSnapshots"]);
    let part = |text: &str, tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let of = |id: &String| {
        let item = said.split("</item>").find(|item| item.contains(id.as_str()))?;
        let until = part(item, "lockExpiresOn").unwrap_or_default();
        Some((part(item, "lockState")?, part(item, "lockDuration")?.parse().unwrap(), until))
    };
    members.iter().map(of).collect()
}

fn states(rig: &Rig, members: &[String]) -> Vec<String> {
    locks(rig, members).into_iter().map(|lock| lock.map_or_else(|| "none".to_owned(), |l| l.0)).collect()
}

fn refuse(rig: &Rig, action: &str, call: Option<&str>, code: &str) -> String {
    let which = match call {
        Some(call) => ["--call", call],
        None => ["--times", "1000"],
    };
    let fault = ["faults", "add", "--action", action, "--kind", "error"];
    let message = "You are not authorized to perform this operation.";
    let error = ["--code", code, "--status", "403", "--message", message];
    rig.sim(&[&fault[..], &which, &error].concat()).trim().to_owned()
}

const DENIED: &str = "UnauthorizedOperation";

#[test]
fn a_governance_lock_holds_against_delete_and_is_taken_off() {
    let (rig, set, members) = with_a_set("");
    let dry = rig.run(&["lock", &set, "--governance", "--days", "3", "-n"]);
    dry.exits(0).says("would be locked in governance mode for 3 days");
    assert!(rig.calls("LockSnapshot").is_empty(), "a dry run locks nothing");
    let done = rig.run(&["lock", &set, "--governance", "--days", "3"]);
    done.exits(0).says("is locked (governance) until");
    assert!(members.iter().all(|m| done.out.contains(m)), "{}", done.out);
    for lock in locks(&rig, &members) {
        let (state, days, _) = lock.unwrap();
        assert_eq!((state.as_str(), days), ("governance", 3));
    }
    rig.run(&["delete", &set, "--including-the-last"]).exits(78).says("locked (governance)");

    // Shorter, by a date: the end of that day. A second time there is nothing to do.
    let day = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let day = day.to_zoned(jiff::tz::TimeZone::UTC).date();
    let until = ["lock", &set, "--governance", "--until", &day.to_string()];
    rig.run(&until).exits(0);
    let end = format!("{}T00:00:00.000Z", day.tomorrow().unwrap());
    for lock in locks(&rig, &members) {
        assert_eq!(lock.unwrap().2, end);
    }
    let so_far = rig.calls("LockSnapshot").len();
    rig.run(&until).exits(0).says("nothing had to be changed");
    assert_eq!(rig.calls("LockSnapshot").len(), so_far);

    rig.run(&["unlock", &set, "-n"]).exits(0).says("would be unlocked");
    assert_eq!(states(&rig, &members), ["governance", "governance"]);
    rig.run(&["unlock", &set]).exits(0).says("is unlocked");
    assert_eq!(states(&rig, &members), ["none", "none"]);
    rig.run(&["unlock", &set]).exits(0).says("nothing had to be changed");
    rig.run(&["delete", &set, "--including-the-last"]).exits(0);
}

#[test]
fn a_compliance_lock_is_said_twice_and_then_only_grows() {
    let (rig, set, members) = with_a_set("");
    let hard = ["lock", &set, "--compliance", "--days"];
    let with = |more: &[&str]| rig.run(&[&hard[..], more].concat());
    with(&["2"]).exits(64).says("--yes-nobody-can-undo-it");
    assert!(rig.calls("LockSnapshot").is_empty());
    with(&["2", "--cool-off", "24h"])
        .exits(0)
        .says("is locked (compliance-cooloff) until")
        .says("can be undone until");
    // Within the cooling-off period everything is possible, also to take it off.
    rig.run(&["unlock", &set]).exits(0);
    assert_eq!(states(&rig, &members), ["none", "none"]);

    with(&["2", "--yes-nobody-can-undo-it"]).exits(0).says("is locked (compliance) until");
    let so_far = rig.requests().len();
    rig.run(&["unlock", &set]).exits(78).says("nobody can unlock it");
    with(&["3", "--cool-off", "1h"]).exits(78).says("there is no second one");
    with(&["1", "--yes-nobody-can-undo-it"]).exits(78).says("nobody can make that shorter");
    rig.run(&["lock", &set, "--governance", "--days", "3"]).exits(78).says("governance would be weaker");
    let asked: Vec<Value> = rig.requests().split_off(so_far);
    let changing =
        asked.iter().filter(|r| ["LockSnapshot", "UnlockSnapshot"].contains(&r["action"].as_str().unwrap()));
    assert_eq!(changing.count(), 0, "refused before anything was asked for");
    with(&["3", "--yes-nobody-can-undo-it"]).exits(0);
    assert!(
        locks(&rig, &members).into_iter().all(|lock| lock.is_some_and(|l| l.0 == "compliance" && l.1 >= 3))
    );
    for wrong in [
        &["lock", &set, "--governance"][..],
        &["lock", &set, "--days", "3"],
        &["lock", &set, "--governance", "--days", "3", "--until", "2099-01-01"],
        &["lock", &set, "--governance", "--days", "0"],
        &["lock", &set, "--governance", "--days", "3", "--cool-off", "1h"],
        &["lock", &set, "--governance", "--days", "3", "--yes-nobody-can-undo-it"],
        &["lock", &set, "--compliance", "--days", "3", "--cool-off", "90m"],
        &["lock", &set, "--governance", "--until", "2001-01-01"],
        &["lock", &set, "--governance", "--until", "forever"],
    ] {
        rig.run(wrong).exits(64);
    }
}

/// A failed lock is its own result: 77 only where every one was denied, else 11, and each is told.
#[test]
fn what_is_not_locked_is_told_of_each_snapshot() {
    let (rig, set, members) = with_a_set("");
    let lock = ["lock", &set, "--governance", "--days", "3"];
    let fault = refuse(&rig, "LockSnapshot", None, DENIED);
    rig.run(&lock).exits(77).says("LockSnapshot");
    rig.sim(&["faults", "remove", &fault]);
    refuse(&rig, "LockSnapshot", Some("2"), DENIED);
    let part = rig.run(&lock);
    part.exits(11).says("is locked (governance)").says("is NOT locked in governance mode for 3 days");
    assert_eq!(states(&rig, &members).iter().filter(|s| *s == "none").count(), 1);
    rig.run(&["lock", &set, "--governance", "--days", "3"]).exits(0);
    assert_eq!(states(&rig, &members), ["governance", "governance"]);
    refuse(&rig, "UnlockSnapshot", Some("1"), "InvalidSnapshot.InUse");
    rig.run(&["unlock", &set]).exits(11).says("is STILL locked").says("is unlocked");
    let fault = refuse(&rig, "DescribeLockedSnapshots", None, DENIED);
    rig.run(&lock).exits(77).says("DescribeLockedSnapshots");
    rig.sim(&["faults", "remove", &fault]);
}

/// EC2 has locked it, and its answer never came: what it says afterwards counts.
#[test]
fn an_answer_that_got_lost_is_looked_up() {
    let (rig, set, members) = with_a_set("");
    let lost = ["faults", "add", "--action", "LockSnapshot", "--kind", "drop-after", "--times", "1000"];
    rig.sim(&lost);
    rig.run(&["lock", &set, "--governance", "--days", "3"]).exits(0).says("is locked (governance)");
    assert_eq!(states(&rig, &members), ["governance", "governance"]);
}

#[test]
fn a_request_that_got_lost_is_no_lock() {
    let (rig, set, members) = with_a_set("");
    rig.sim(&["faults", "add", "--action", "LockSnapshot", "--kind", "drop-before", "--times", "1000"]);
    rig.run(&["lock", &set, "--governance", "--days", "3"]).exits(11).says("is NOT locked");
    assert_eq!(states(&rig, &members), ["none", "none"]);
}

#[test]
fn a_pending_set_is_locked_and_told_when_its_days_begin() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    rig.sim(&["faults", "add", "--action", "CreateSnapshots", "--kind", "slow-progress", "--delay", "900s"]);
    let set = take(&rig, &[]);
    let done = rig.run(&["lock", &set, "--governance", "--days", "3"]);
    done.exits(0).says("for 3 days from its completion").says("2 of its snapshots are pending");
    assert_eq!(states(&rig, &members(&rig, &set)), ["governance", "governance"]);
    let again = rig.run(&["lock", &set, "--governance", "--days", "3"]);
    again.exits(0).says("nothing had to be changed");
}

#[test]
fn a_set_that_is_doubtful_or_on_its_way_out_is_not_locked() {
    let (rig, set, members) = with_a_set("");
    let tag = |call: &str, key: &str, value: &str| {
        let of = format!("ResourceId.1={}", members[1]);
        let (key, value) = (format!("Tag.1.Key={key}"), format!("Tag.1.Value={value}"));
        rig.sim(&["call", call, &of, &key, &value]);
    };
    let lock = ["lock", &set, "--governance", "--days", "3"];
    tag("CreateTags", "stillpoint:deleting", "prune");
    rig.run(&lock).exits(78).says("is being removed");
    tag("DeleteTags", "stillpoint:deleting", "prune");
    tag("CreateTags", "stillpoint:plan", "other");
    rig.run(&lock).exits(78).says("doubtful");
    rig.run(&["unlock", &set]).exits(78).says("doubtful");
    assert!(rig.calls("LockSnapshot").is_empty());
}

#[test]
fn a_plan_locks_its_sets_and_a_lock_that_fails_takes_nothing_away() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults.lock]\nmode = 'governance'\ndays = 7\n");
    rig.run(&["snapshot", "-n"]).exits(0).says("each snapshot is locked in governance mode for 7 days");
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).says("2 of 2 snapshots are locked in governance mode for 7 days");
    let set = taken.record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    for lock in locks(&rig, &members(&rig, &set)) {
        let (state, days, _) = lock.unwrap();
        assert_eq!((state.as_str(), days), ("governance", 7));
    }
    let other = take(&rig, &["--lock", "compliance:2d:1h"]);
    let free = take(&rig, &["--lock", "off"]);
    rig.await_quiet();
    assert_eq!(states(&rig, &members(&rig, &other)), ["compliance-cooloff", "compliance-cooloff"]);
    assert_eq!(states(&rig, &members(&rig, &free)), ["none", "none"]);
    rig.run(&["snapshot", "--lock", "compliance:2d"]).exits(78).says("nobody could ever undo");

    let fault = refuse(&rig, "LockSnapshot", None, DENIED);
    let failed = rig.run(&["snapshot", "-o", "json"]);
    failed.exits(11).says("is NOT locked in governance mode for 7 days");
    let record = failed.record();
    assert_eq!(
        (&record["exit_code"], &record["achieved"]),
        (&11.into(), &"filesystem".into()),
        "its own result"
    );
    assert_eq!(
        record["after"].as_array().unwrap().len(),
        3,
        "each snapshot, and what to do: {}",
        record["after"]
    );
    let kept = rig.path("state").join(format!("sets/{}.json", record["run_id"].as_str().unwrap()));
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!((&kept["exit_code"], &kept["after"]), (&record["exit_code"], &record["after"]));
    let tags = rig.snapshots().into_iter().filter(|s| s["tags"]["stillpoint:run"] == record["run_id"]);
    assert!(tags.into_iter().all(|s| s["tags"]["stillpoint:consistency"] == "filesystem"));
    rig.sim(&["faults", "remove", &fault]);
}

/// What is less than the plan asks for would be kept, and billed, for all the days of the lock.
#[test]
fn a_set_that_the_plan_does_not_accept_is_not_locked() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults.lock]\nmode = 'governance'\ndays = 7\n");
    rig.fault("CreateSnapshots", "drop-after", "0s");
    let lost = rig.run(&["snapshot", "-o", "json"]);
    assert!(![Some(0), Some(10), Some(11)].contains(&lost.code), "{:?} {}", lost.code, lost.err);
    assert!(!lost.record()["snapshots"].as_array().unwrap().is_empty(), "{}", lost.out);
    lost.says("is not locked in governance mode");
    assert!(rig.calls("LockSnapshot").is_empty());
}

#[test]
fn a_lock_that_ends_before_the_rules_let_a_set_go_is_told_by_lock_and_prune() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("[defaults.keep]\nwithin = \"30d\"\n");
    let set = take(&rig, &[]);
    rig.await_quiet();
    let told = "the rules of plan default keep it for longer than the lock";
    rig.run(&["lock", &set, "--governance", "--days", "3", "-n"]).exits(0).says(told);
    rig.run(&["lock", &set, "--governance", "--days", "3"]).exits(0).says(told);
    let prune = rig.run(&["prune", "-n"]);
    prune.exits(0);
    assert!(prune.out.contains("ends before the rules let it go"), "{}", prune.out);
    let long = rig.run(&["lock", &set, "--governance", "--days", "60"]);
    long.exits(0);
    assert!(!long.err.contains(told), "{}", long.err);
    let prune = rig.run(&["prune", "-n"]);
    prune.exits(0);
    assert!(!prune.out.contains("before the rules let"), "{}", prune.out);
}
