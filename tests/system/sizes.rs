//! What only one set holds, by the EBS direct APIs, in a simulated EC2 over real volumes.

use std::io::Write as _;

use rig::{Fs, Rig};
use serde_json::Value;

const DATA: usize = 8 << 20;

/// Writes over the file where it is.
fn write(rig: &Rig, byte: u8) {
    let path = rig.mount("a").join("data");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    file.write_all(&vec![byte; DATA]).unwrap();
    file.sync_all().unwrap();
}

fn take(rig: &Rig) -> String {
    let taken = rig.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn only(rig: &Rig, set: &str) -> u64 {
    let list = rig.run(&["list", "--sizes", "-o", "json"]).exits(0).record();
    let of = list["sets"].as_array().unwrap().iter().find(|s| s["id"] == set).unwrap().clone();
    of["only_bytes"].as_u64().unwrap_or_else(|| panic!("{of}"))
}

#[test]
fn a_set_holds_alone_what_was_written_over_before_the_next() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    write(&rig, 1);
    let first = take(&rig);
    write(&rig, 2);
    let second = take(&rig);
    write(&rig, 3);
    let third = take(&rig);
    // The filesystem's own blocks are few.
    let data = DATA as u64;
    for set in [&first, &second, &third] {
        let bytes = only(&rig, set);
        assert!((data..data + (4 << 20)).contains(&bytes), "{bytes}");
    }
    let text = rig.run(&["list", "--sizes"]);
    text.exits(0);
    assert!(text.out.contains("ONLY HERE") && text.out.contains("MiB"), "{}", text.out);
    assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
    // A snapshot that is none of ours has the same blocks.
    rig.sim(&["call", "CreateSnapshot", &format!("VolumeId={}", rig.id("a"))]);
    rig.await_quiet();
    assert!(only(&rig, &third) < data);
    let without: Value = rig.run(&["list", "-o", "json"]).exits(0).record();
    assert!(without["sets"][0].get("only_bytes").is_none());
    rig.run(&["delete", &second]).exits(0);
    assert!(only(&rig, &first) >= data);
}

#[test]
fn what_may_not_be_asked_is_an_error() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure("");
    take(&rig);
    let policy = rig.run(&["iam-policy", "list"]).exits(0).record();
    rig.control("POST", "iam", &serde_json::json!({ "policy": policy }).to_string());
    rig.run(&["list"]).exits(0);
    rig.run(&["list", "--sizes"]).exits(77).says("ListSnapshotBlocks");
    let policy = rig.run(&["iam-policy", "list", "sizes"]).exits(0).record();
    rig.control("POST", "iam", &serde_json::json!({ "policy": policy }).to_string());
    rig.run(&["list", "--sizes"]).exits(0);
}
