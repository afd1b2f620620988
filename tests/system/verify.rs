//! Verify: what was frozen is clean, and a label that says so of what was not is caught.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::FileExt;

use rig::{Fs, Rig};
use serde_json::Value;

pub fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    taken.exits(0).record()["run_id"].as_str().unwrap().to_owned()
}

/// Writes and syncs, so that a journal has something to replay until it is frozen or unmounted.
fn write(rig: &Rig, name: &str) {
    for mount in rig.mounts() {
        for n in 0..50 {
            let mut file = std::fs::File::create(mount.join(format!("{name}-{n}"))).unwrap();
            file.write_all(b"written").unwrap();
            file.sync_all().unwrap();
        }
    }
}

fn of_set<'a>(all: &'a [Value], set: &str) -> Vec<&'a Value> {
    all.iter().filter(|s| s["tags"]["stillpoint:run"] == set).collect()
}

/// The set's tags on snapshots that were taken at once and without a freeze; its own snapshots are gone.
pub fn without_a_freeze(rig: &Rig, set: &str) {
    let before = rig.snapshots();
    let own = of_set(&before, set);
    let instance = own[0]["tags"]["stillpoint:instance"].as_str().unwrap();
    rig.sim(&["call", "CreateSnapshots", &format!("InstanceSpecification.InstanceId={instance}")]);
    rig.await_quiet();
    for snapshot in rig.snapshots().iter().filter(|s| before.iter().all(|b| b["id"] != s["id"])) {
        let Some(like) = own.iter().find(|o| o["volume_id"] == snapshot["volume_id"]) else { continue };
        let mut words = vec!["call".to_owned(), "CreateTags".to_owned()];
        words.push(format!("ResourceId.1={}", snapshot["id"].as_str().unwrap()));
        for (n, (key, value)) in (1..).zip(like["tags"].as_object().unwrap()) {
            words.push(format!("Tag.{n}.Key={key}"));
            words.push(format!("Tag.{n}.Value={}", value.as_str().unwrap()));
        }
        rig.sim(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    for snapshot in own {
        rig.sim(&["call", "DeleteSnapshot", &format!("SnapshotId={}", snapshot["id"].as_str().unwrap())]);
    }
}

fn verdicts(said: &Value) -> Vec<&str> {
    said["findings"].as_array().unwrap().iter().map(|f| f["verdict"].as_str().unwrap()).collect()
}

#[test]
fn what_was_frozen_is_sound_and_a_false_label_is_caught() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    rig.configure("");
    write(&rig, "before");
    let set = take(&rig);
    rig.await_quiet();
    let sound = rig.run(&["verify", &set, "-o", "json"]).exits(0).record();
    assert_eq!((&sound["verdict"], verdicts(&sound)), (&"sound".into(), vec!["sound"; 3]), "{sound}");
    assert!(sound["blocks_read"].as_u64().unwrap() <= 100, "{sound}");
    let text = rig.run(&["verify", &set]);
    text.exits(0).says("sound, 3 of 3 filesystems");
    assert_eq!(text.out.lines().count(), 3, "{}", text.out);

    // The same label, and nothing was frozen.
    write(&rig, "unfrozen");
    without_a_freeze(&rig, &set);
    let caught = rig.run(&["verify", &set, "-o", "json"]).exits(24).record();
    assert_eq!((&caught["verdict"], verdicts(&caught)), (&"fault".into(), vec!["fault"; 3]), "{caught}");
    rig.run(&["verify", &set]).exits(24).says("do not rely on this set");
}

/// After an earlier freeze, XFS takes the change of one inode for the end of its log and leaves it there. It is written all
/// the same; without a freeze it is not.
#[test]
fn an_inode_in_a_log_counts_where_it_is_not_written() {
    let rig = Rig::start(&[("b", Fs::Xfs)]);
    rig.configure("");
    write(&rig, "before");
    take(&rig);
    let overwrite = |with: &[u8]| {
        let file = std::fs::OpenOptions::new().write(true).open(rig.mount("b").join("before-0")).unwrap();
        file.write_all_at(with, 0).unwrap();
        file.sync_all().unwrap();
    };
    overwrite(b"W");
    let set = take(&rig);
    rig.await_quiet();
    rig.run(&["verify", &set]).exits(0).says("sound, 1 of 1 filesystem");
    overwrite(b"w");
    without_a_freeze(&rig, &set);
    let caught = rig.run(&["verify", &set, "-o", "json"]).exits(24).record();
    assert_eq!(caught["findings"][0]["what"], "an item of its log has to be replayed", "{caught}");
}

#[test]
fn what_the_tags_alone_contradict_is_a_fault() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    let set = take(&rig);
    rig.await_quiet();
    rig.run(&["verify", &set, "--level", "arithmetic"]).exits(0).says("no data was read");
    assert!(rig.requests().iter().all(|r| r["action"] != "ebs:GetSnapshotBlock"));
    let all = rig.snapshots();
    let one = of_set(&all, &set)[1]["id"].as_str().unwrap().to_owned();
    rig.sim(&["call", "DeleteSnapshot", &format!("SnapshotId={one}")]);
    let torn = rig.run(&["verify", &set, "-o", "json"]).exits(24).record();
    assert!(torn.to_string().contains("it has no snapshot in the set"), "{torn}");
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_verdict() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    let set = take(&rig);
    rig.await_quiet();
    let fault = |body: Value| rig.control("POST", "faults", &body.to_string());
    fault(serde_json::json!({"action": "ebs:GetSnapshotBlock", "kind": "drop-before", "times": 3}));
    rig.run(&["verify", &set]).exits(0).says("sound, 1 of 1 filesystems");
    let denied = "User: arn:aws:sts::123456789012:assumed-role/r/s is not authorized to perform: \
                  ebs:ListSnapshotBlocks because no identity-based policy allows it";
    fault(serde_json::json!({
        "action": "ebs:ListSnapshotBlocks", "kind": "error", "code": "AccessDeniedException", "status": 403,
        "message": denied, "times": 100,
    }));
    let said = rig.run(&["verify", &set]);
    said.exits(77).says("ebs:ListSnapshotBlocks");
    assert!(!said.err.contains("sound"), "{}", said.err);
}

#[test]
fn a_whole_read_takes_every_block_and_names_the_place_of_a_damaged_one() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("");
    write(&rig, "before");
    let set = take(&rig);
    rig.await_quiet();
    let would = rig.run(&["verify", &set, "--level", "whole", "-n", "-o", "json"]);
    let would = would.exits(0).says("for about $0.0").record();
    assert_eq!((&would["dry_run"], &would["verdict"]), (&true.into(), &"not_looked".into()), "{would}");
    assert!(rig.requests().iter().all(|r| r["action"] != "ebs:GetSnapshotBlock"), "a dry run reads nothing");

    let sound = rig.run(&["verify", &set, "--level", "whole", "-o", "json"]).exits(0).record();
    assert_eq!(sound["verdict"], "sound", "{sound}");
    let snapshots = rig.snapshots();
    let ids: Vec<&str> = of_set(&snapshots, &set).iter().map(|s| s["id"].as_str().unwrap()).collect();
    // "all of its 123 blocks are …"
    let said = |id: &str| {
        let all = sound["findings"].as_array().unwrap();
        let of = all.iter().find(|f| f["snapshot_id"] == *id && f["mount_point"].is_null()).unwrap();
        of["what"].as_str().unwrap().split(' ').nth(3).unwrap().parse::<usize>().unwrap()
    };
    let each: Vec<usize> = ids.iter().map(|id| said(id)).collect();
    assert_eq!(would["cost"]["blocks"], each.iter().sum::<usize>(), "{sound}");
    let requests = rig.requests();
    let read = |id: &str| {
        let prefix = format!("/snapshots/{id}/blocks/");
        let paths = requests.iter().filter(|r| r["action"] == "ebs:GetSnapshotBlock");
        let block = |r: &Value| r["params"]["path"].as_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
        paths.filter_map(block).collect::<BTreeSet<u64>>()
    };
    assert_eq!(ids.iter().map(|id| read(id).len()).collect::<Vec<_>>(), each, "each block is read");

    // A block that no probe reads: only a whole read sees it.
    let damaged = *read(ids[1]).last().unwrap();
    let path = format!("/snapshots/{}/blocks/{damaged}", ids[1]);
    let body = serde_json::json!({
        "action": "ebs:GetSnapshotBlock", "kind": "corrupt", "path": path,
    });
    rig.control("POST", "faults", &body.to_string());
    rig.run(&["verify", &set]).exits(0);
    let caught = rig.run(&["verify", &set, "--level", "whole", "-o", "json"]).exits(24).record();
    let all = caught["findings"].as_array().unwrap();
    let fault = all.iter().find(|f| f["verdict"] == "fault").unwrap();
    assert_eq!(
        (&fault["snapshot_id"], &fault["offset"]),
        (&ids[1].into(), &(damaged << 19).into()),
        "{caught}"
    );
    let on = all.iter().find(|f| f["snapshot_id"] == *ids[1] && f["mount_point"].is_string()).unwrap();
    let mount = on["mount_point"].as_str().unwrap();
    assert!(fault["what"].as_str().unwrap().contains(mount), "{caught}");
    rig.run(&["verify", &set, "--level", "whole"]).exits(24).says("do not rely on this set");
}

#[test]
fn a_whole_read_goes_on_when_it_is_throttled() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    let set = take(&rig);
    rig.await_quiet();
    let throttled = serde_json::json!({
        "action": "ebs:GetSnapshotBlock", "kind": "throttle", "code": "RequestThrottledException/RESOURCE_LEVEL_THROTTLE",
        "status": 400, "probability": 0.3, "seed": 7, "times": 40,
    });
    rig.control("POST", "faults", &throttled.to_string());
    rig.run(&["verify", &set, "--level", "whole"]).exits(0).says("sound, 1 of 1 filesystems");
}
