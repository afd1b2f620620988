//! Restore that reads what it has restored: which blocks, of which disks, and that nobody has to wait for it.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};

fn one() -> (Namespace, String) {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.rig.configure("");
    space.sh(&format!("cd {0}; mkdir -p d/e; seq 1000 >d/f; ln -s / d/link; sync -f {0}", space.at("a")));
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    (space, set)
}

fn id_of(done: &Ended) -> String {
    let id = done.err.lines().find_map(|l| l.strip_prefix("restore ").filter(|id| id.len() == 36));
    id.unwrap().to_owned()
}

/// Bytes that were read of the disk that is mounted here, ever. Another disk may have had its number before.
fn read_of(space: &Namespace, place: &str) -> u64 {
    let disk = space.sh(&format!("basename $(findmnt -n -v -o SOURCE {place})"));
    let stat = std::fs::read_to_string(format!("/sys/class/block/{}/stat", disk.trim())).unwrap();
    stat.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap() * 512
}

const SIZE: u64 = 64 << 20;

#[test]
fn all_of_a_disk_is_read_or_what_the_snapshot_has_or_nothing() {
    let (space, set) = one();
    let target = space.at("back");
    let id = id_of(space.run(&["restore", &set, "--to", &target]).exits(0));
    let place = format!("{target}{}", space.at("a"));
    let warmed = |more: &[&str]| {
        let before = read_of(&space, &place);
        let done = space.run(&[&["restore", "--continue", &id], more].concat());
        done.exits(0);
        (done, read_of(&space, &place) - before)
    };
    let lists = || {
        let all = space.rig.requests();
        all.iter().filter(|r| r["action"].to_string().contains("ListSnapshotBlocks")).count()
    };
    let (_, none) = warmed(&[]);
    assert!(none < SIZE / 8, "{none}");
    let (all, bytes) = warmed(&["--warm", "all"]);
    all.says("64 MiB of 64 MiB read");
    assert!(bytes >= SIZE && lists() == 0, "{bytes}");
    let (used, bytes) = warmed(&["--warm", "used"]);
    assert!(lists() > 0);
    let line = used.err.lines().find(|l| l.contains(" read")).unwrap().to_owned();
    let mib: u64 = line.split(' ').next().unwrap().parse().unwrap();
    assert!(mib < 64 && bytes >= (mib - 1) << 20 && bytes < SIZE, "{line}: {bytes}");
}

#[test]
fn every_file_is_looked_at() {
    let (space, set) = one();
    let done = space.run(&["restore", &set, "--to", &space.at("back"), "--warm", "metadata"]);
    done.exits(0);
    let there = space.sh(&format!("find {}{} -mindepth 1 | wc -l", space.at("back"), space.at("a")));
    done.says(&format!("{} files and folders were looked at", there.trim()));
    // One that is done is read again, where that is asked.
    space
        .run(&["restore", "--continue", &id_of(&done), "--warm", "all"])
        .exits(0)
        .says("64 MiB of 64 MiB read");
}

#[test]
fn what_cannot_be_read_is_known_before_and_who_stops_it_keeps_the_restore() {
    let (space, set) = one();
    let target = space.at("back");
    let made = || space.rig.calls("CreateVolume").len();
    space.run(&["restore", &set, "--no-mount", "--warm", "metadata"]).exits(64).says("nothing is mounted");
    for with in ["--no-attach", "--in-place", "--root"] {
        space.run(&["restore", &set, with, "--warm", "all"]).exits(64);
    }
    space.rig.control("POST", "iam", "{\"deny\": [\"ebs:ListSnapshotBlocks\"]}");
    let denied = space.run(&["restore", &set, "--to", &target, "--warm", "used"]);
    denied.exits(77).says("iam-policy restore-warm");
    assert_eq!(made(), 0);
    space.rig.control("POST", "iam", "{\"deny\": []}");
    // The first is from before a volume is made.
    let hold =
        ["faults", "add", "--action", "ebs:ListSnapshotBlocks", "--call", "2", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--to", &target, "--warm", "used"]);
    space.rig.sim(&["faults", "wait", &held]);
    let said = || run.said().contains("is restored").then_some(());
    await_some("the restore is done", said);
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    ended.says("interrupted: the restore is done");
    assert_eq!(ended.signal, Some(15));
    space.rig.sim(&["faults", "clear"]);
    assert_eq!(space.sh(&format!("tail -n 1 {target}{}/d/f", space.at("a"))), "1000\n");
}
