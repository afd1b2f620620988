//! Several hosts, one point in time: the real program on three hosts, each with an EC2 of its own, over a real etcd.

use rig::Fs;
use rig::etcd::Etcd;
use rig::hosts::{GROUP, Hosts, NAMES, TIMES, Witness, are_of_one_instant};
use rig::probe::{assert_clean, assert_settled, needs_recovery, tag};
use rig::program::Ended;
use serde_json::Value;

const SNAPSHOT: &[&str] = &["snapshot", "--window", "30s", "--output", "json"];

/// No filesystem is frozen, and nothing is owed anywhere.
fn all_settled(hosts: &Hosts) {
    hosts.rigs.iter().for_each(assert_settled);
    hosts.assert_nothing_left();
}

fn codes(ended: &[Ended]) -> Vec<Option<i32>> {
    ended.iter().map(|e| e.code).collect()
}

/// The label `group` of every set that there is.
fn instants(hosts: &Hosts) -> Vec<Vec<String>> {
    let of =
        |rig: &rig::Rig| rig.snapshots().iter().map(|s| tag(s, "stillpoint:instant").to_owned()).collect();
    hosts.rigs.iter().map(of).collect()
}

#[test]
fn three_hosts_take_their_sets_at_one_instant() {
    let hosts = Hosts::start(Etcd::secured(GROUP), Fs::Ext4);
    let witness = Witness::start(&hosts.mounts());
    witness.await_rounds(5);
    let ended = hosts.run(SNAPSHOT);
    witness.await_rounds(1);
    witness.stop();
    assert_eq!(codes(&ended), [Some(0); 3], "{}", ended.iter().map(|e| e.err.as_str()).collect::<String>());
    let records: Vec<Value> = ended.iter().map(Ended::record).collect();
    let epoch = records[0]["group"]["epoch"].as_str().unwrap();
    for ((record, rig), name) in records.iter().zip(&hosts.rigs).zip(NAMES) {
        let group = &record["group"];
        assert_eq!((&group["instant"], &group["epoch"]), (&"group".into(), &epoch.into()), "{group:#}");
        assert_eq!((&group["name"], &group["member"]), (&GROUP.into(), &name.into()));
        assert_eq!(group["members"].as_array().unwrap().len(), 3);
        for (member, other) in group["members"].as_array().unwrap().iter().zip(&records) {
            assert_eq!((&member["run_id"], &member["label"]), (&other["run_id"], &"filesystem".into()));
        }
        let [snapshot] = &rig.snapshots()[..] else { panic!("one snapshot each") };
        let tags = ["group", "epoch", "instant", "consistency"];
        let tags = tags.map(|key| tag(snapshot, &format!("stillpoint:{key}")).to_owned());
        assert_eq!(tags, [GROUP, epoch, "group", "filesystem"]);
        assert!(!needs_recovery(rig, snapshot["id"].as_str().unwrap()));
        let at = |key: &str| rig::probe::nanoseconds(&record["times"][key]);
        let each = ["started", "frozen", "requested", "responded", "thawed"].map(at);
        assert!(each.is_sorted(), "{each:?}");
        // The times of EC2's call, not of the wait for the others.
        let call = record["call_ms"].as_f64().unwrap();
        let between = (each[3] - each[2]) as f64 / 1e6;
        assert!((call - between).abs() < 50.0, "{call} {between}");
    }
    // Without clocks: but on this one machine there is one, and it has to agree.
    let at = |record: &Value, key: &str| rig::probe::nanoseconds(&record["times"][key]);
    let most = |key: &str| records.iter().map(|r| at(r, key)).max().unwrap();
    let least = |key: &str| records.iter().map(|r| at(r, key)).min().unwrap();
    assert!(most("frozen") < least("requested") && most("responded") < least("thawed"));
    let numbers = hosts.numbers();
    assert!(numbers[2] > 0 && are_of_one_instant(&numbers), "{numbers:?}");
    ended.iter().for_each(|e| {
        e.says(&format!("group {GROUP}: one instant with "));
    });
    all_settled(&hosts);
}

/// The control: what the witness would say of sets that were not taken at one instant.
#[test]
fn sets_of_hosts_alone_are_of_different_instants() {
    let hosts = Hosts::start(Etcd::plain(), Fs::Ext4);
    let witness = Witness::start(&hosts.mounts());
    for rig in &hosts.rigs {
        witness.await_rounds(5);
        let ended = rig.run(&["snapshot", "--alone", "--output", "json"]);
        ended.exits(0);
        assert_eq!(ended.record()["group"], Value::Null);
    }
    witness.await_rounds(1);
    witness.stop();
    let numbers = hosts.numbers();
    assert!(!are_of_one_instant(&numbers), "{numbers:?}");
    assert_eq!(instants(&hosts), [[""]; 3], "nobody claims it");
    assert_eq!(hosts.etcd.leases(), 0, "etcd was not asked");
}

#[test]
fn a_member_that_does_not_come_ends_the_others_before_anything_is_touched() {
    let hosts = Hosts::start(Etcd::plain(), Fs::Ext4);
    let touched = hosts.rigs[0].path("touched");
    let hook = format!(
        "[[hook]]\nname = \"h\"\npre = [\"/usr/bin/touch\", \"{}\"]\ntimeout = \"9s\"\n",
        touched.display()
    );
    hosts.configure(&TIMES.replace("40s", "2s"), &hook);
    let runs: Vec<_> = hosts.rigs[..2].iter().map(|rig| rig.spawn(SNAPSHOT)).collect();
    for run in runs {
        let ended = run.end();
        ended.exits(25);
        assert!(ended.err.contains("not here within 2s: ") || ended.err.contains("left"), "{}", ended.err);
    }
    assert!(!touched.exists());
    hosts.rigs.iter().for_each(|rig| assert!(rig.creates().is_empty()));
    all_settled(&hosts);
}

#[test]
fn a_hook_that_fails_on_one_host_ends_all_and_nothing_is_taken() {
    let hosts = Hosts::start(Etcd::plain(), Fs::Ext4);
    hosts.configure_one(2, TIMES, "[[hook]]\nname = \"h\"\npre = [\"/bin/false\"]\ntimeout = \"9s\"\n");
    let ended = hosts.run(SNAPSHOT);
    assert_eq!(codes(&ended), [Some(25), Some(25), Some(20)]);
    ended[0].says("the member c of the group left: ");
    for (rig, ended) in hosts.rigs.iter().zip(&ended) {
        assert!(rig.creates().is_empty());
        assert_eq!(ended.record()["group"]["instant"], Value::Null);
    }
    all_settled(&hosts);
}

#[test]
fn what_ec2_refuses_to_one_host_is_no_set_of_the_group() {
    let hosts = Hosts::start(Etcd::plain(), Fs::Ext4);
    let refuses =
        r#"{"action": "CreateSnapshot", "call": 1, "kind": "error", "code": "SnapshotLimitExceeded"}"#;
    hosts.rigs[1].control("POST", "faults", refuses);
    let ended = hosts.run(SNAPSHOT);
    assert_eq!(ended[1].code, Some(23), "{}", ended[1].err);
    for n in [0, 2] {
        let group = &ended[n].record()["group"];
        // Its own answer may have come before it heard of the other's.
        assert!([Some(22), Some(25)].contains(&ended[n].code), "{}", ended[n].err);
        assert_eq!(
            group["instant"],
            if hosts.rigs[n].snapshots().is_empty() { Value::Null } else { "host".into() }
        );
        assert!(group["reason"].as_str().unwrap().contains("the member b of the group left: "), "{group}");
        for snapshot in hosts.rigs[n].snapshots() {
            let label = if ended[n].code == Some(22) { "filesystem" } else { "crash" };
            assert_eq!(tag(&snapshot, "stillpoint:consistency"), label);
        }
    }
    hosts.rigs.iter().for_each(assert_clean);
    hosts.assert_nothing_left();
}

#[test]
fn plan_dry_run_and_doctor_ask_etcd_and_change_nothing() {
    let hosts = Hosts::start(Etcd::secured(GROUP), Fs::Ext4);
    let rig = &hosts.rigs[0];
    for arguments in [&["plan"][..], &["snapshot", "--dry-run"]] {
        let ended = rig.run(arguments);
        ended.exits(0).says("group g: as a, at one instant with b, c");
        ended.says("as stillpoint: /stillpoint/g/a may be written");
    }
    let finding = |ended: &Ended| {
        let all = serde_json::from_str::<Value>(&ended.out).unwrap();
        all["findings"].as_array().unwrap().iter().find(|f| f["id"] == "group").unwrap().clone()
    };
    let doctor = &["doctor", "--output", "json"];
    assert_eq!(finding(&rig.run(doctor))["severity"], "ok");
    assert!(hosts.etcd.entries(GROUP).is_empty() && hosts.etcd.leases() == 0);

    // A role that does not reach so far.
    hosts.etcd.ctl(&["role", "revoke-permission", "group", "--prefix=true", "/stillpoint/g/"]);
    let ended = rig.run(&["plan"]);
    ended.exits(77).says("etcd refuses: etcdserver: permission denied");
    let found = finding(&rig.run(doctor));
    assert_eq!(found["severity"], "problem", "{found}");
    rig.run(SNAPSHOT).exits(77).says("permission denied");

    let away = rig.run(&["config", "show"]);
    away.exits(0);
    assert!(away.out.contains("[group]\nname = \"g\""), "{}", away.out);
    hosts.wires[0].close();
    rig.run(&["plan"]).exits(25).says("etcd cannot be reached");
    rig.run(SNAPSHOT).exits(25).says("etcd cannot be reached");
    assert!(rig.creates().is_empty());
}
