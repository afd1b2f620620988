//! Verify by a restore: what is really mounted and checked, and what is gone afterwards.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use serde_json::Value;

use crate::verify::without_a_freeze;

const LEVEL: [&str; 2] = ["--level", "restore"];

/// Three filesystems, with files that are open and deleted.
fn three() -> Namespace {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    space.rig.configure("");
    write(&space, "before");
    space
}

/// Writes and syncs, so that a journal has something to replay until it is frozen or unmounted.
fn write(space: &Namespace, name: &str) {
    let here = |volume: &&str| std::path::Path::new(&space.at(volume)).exists();
    let volumes: Vec<&str> = ["a", "b", "c"].into_iter().filter(here).collect();
    space.write(&volumes, name);
}

fn verify(space: &Namespace, set: &str, more: &[&str]) -> rig::program::Ended {
    space.run(&[&["verify", set], &LEVEL[..], more].concat())
}

fn listed(space: &Namespace) -> usize {
    let said = space.run(&["restore", "--list", "-o", "json"]).exits(0).record();
    said["restores"].as_array().unwrap().len()
}

/// What must not change while a set is verified beside it.
fn originals(space: &Namespace) -> String {
    let script =
        "findmnt -n -o TARGET,SOURCE,UUID,OPTIONS $m; find $m -type f | sort | xargs cat | sha256sum";
    let mounts = ["a", "b", "c"].map(|n| space.at(n)).join(" ");
    space.sh(&format!("for m in {mounts}; do [ ! -d $m ] || {{ {script}; }}; done"))
}

fn nothing_is_left(space: &Namespace) {
    assert_eq!(listed(space), 0, "volumes are left");
    // Other tests have rules there, too.
    let own = serde_json::to_string(&space.rig.calls("CreateVolume")).unwrap();
    let rules = std::fs::read_dir("/run/udev/rules.d").into_iter().flatten().flatten();
    for name in rules.map(|e| e.file_name().into_string().unwrap()) {
        let id = name.split_once("-restore-").map_or("none", |(_, id)| id.trim_end_matches(".rules"));
        assert!(!own.contains(id), "a rule for udev is left: {name}");
    }
    let protected = space.sh(
        "for l in $(losetup -n -O NAME,RO | awk '$2 == 1 {print $1}'); do losetup -n -O BACK-FILE $l; done",
    );
    assert!(!protected.contains(&space.at("")), "a disk is left that cannot be written to: {protected}");
    let records = space.path("state").join("restores");
    assert_eq!(std::fs::read_dir(records).map_or(0, Iterator::count), 0, "records are left");
}

fn verdicts(said: &Value) -> Vec<&str> {
    said["findings"].as_array().unwrap().iter().map(|f| f["verdict"].as_str().unwrap()).collect()
}

#[test]
fn a_set_is_restored_checked_and_gone() {
    let space = three();
    // Deleted while they are open: e2fsck and xfs_repair take what is left of them for errors.
    let open = ["a", "b", "c"].map(|n| space.at(n));
    let held = space.background(&format!(
        "exec 7>{0}/x 8>{1}/x 9>{2}/x; rm {0}/x {1}/x {2}/x; echo data | tee /dev/fd/7 /dev/fd/8 >&9; echo ready; exec cat",
        open[0], open[1], open[2]
    ));
    let set = take_in(&space);
    let before = originals(&space);
    let dry = verify(&space, &set, &["-n"]);
    dry.exits(0).says("that are deleted afterwards");
    let whole = |l: &&str| !l.contains(&set) && !l.contains("/stillpoint-test-");
    assert!(dry.err.lines().filter(whole).all(|l| l.chars().count() <= 80), "{}", dry.err);
    assert!(made(&space) == 0 && listed(&space) == 0, "a dry run makes nothing");

    let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
    assert_eq!((&said["verdict"], verdicts(&said)), (&"sound".into(), vec!["sound"; 3]), "{said}");
    for (finding, tool) in said["findings"].as_array().unwrap().iter().zip(["e2fsck", "xfs_repair", "btrfs"])
    {
        assert!(finding["what"].as_str().unwrap().contains(tool), "{finding}");
    }
    nothing_is_left(&space);
    drop(held);
    assert_eq!(originals(&space), before, "the originals are as they were");
    for call in space.rig.calls("CreateVolume").iter().filter(|c| c["dry_run"] == false) {
        let text = call.to_string();
        assert!(text.contains("stillpoint:until") && text.contains("stillpoint:restore"), "{text}");
        assert!(text.contains("gp3"), "{text}");
    }
    // It stands in the ledger.
    let shown = space.run(&["show", &set, "-o", "json"]).exits(0).record();
    assert_eq!(shown["verified"]["level"], "restore", "{shown}");
    verify(&space, &set, &[]).exits(0).says("restored; 3 of 3 filesystems are sound");
}

fn take_in(space: &Namespace) -> String {
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    set
}

fn made(space: &Namespace) -> usize {
    space.rig.calls("CreateVolume").len()
}

#[test]
fn a_false_label_is_caught_and_a_true_crash_label_is_recovered() {
    let space = three();
    let set = take_in(&space);
    write(&space, "unfrozen");
    without_a_freeze(&space.rig, &set);
    let said = verify(&space, &set, &["-o", "json"]).exits(24).record();
    assert_eq!(verdicts(&said), ["fault"; 3], "{said}");
    assert_eq!(made(&space), 0, "what the probe has caught costs no volume");

    // The same bytes under the label that they have.
    for snapshot in space.rig.snapshots().iter().filter(|s| s["tags"]["stillpoint:run"] == set.as_str()) {
        let id = format!("ResourceId.1={}", snapshot["id"].as_str().unwrap());
        for key in ["stillpoint:consistency", "stillpoint:part"] {
            if snapshot["tags"].get(key).is_some() {
                let key = format!("Tag.1.Key={key}");
                space.rig.sim(&["call", "CreateTags", &id, &key, "Tag.1.Value=crash"]);
            }
        }
    }
    let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
    assert_eq!(verdicts(&said), ["sound"; 3], "{said}");
    assert!(said.to_string().contains("a mount recovers it"), "{said}");
    nothing_is_left(&space);
}

/// The kernel remembers disks of a btrfs by their numbers, also when they are detached: where it does, it takes the volume
/// that comes under such a number for one of them.
#[test]
fn a_number_that_had_another_disk_before_is_no_fault_of_the_set() {
    let space = three();
    let set = take_in(&space);
    // Of two disks each: one disk alone is not remembered. The next volumes get the lowest free numbers, these.
    let folder = space.path("former");
    std::fs::create_dir(&folder).unwrap();
    let script = format!(
        "cd {} && for n in 1 2 3 4 5 6 7 8; do truncate -s 120M $n && losetup -f --show $n; done >disks
         set -- $(cat disks)
         while [ $# -gt 0 ]; do mkfs.btrfs -q -f $1 $2 && btrfs device scan $1 $2 && shift 2; done
         losetup -d $(cat disks)",
        folder.display()
    );
    space.sh(&script);
    let said = verify(&space, &set, &["-o", "json"]).exits(0).record();
    assert_eq!((&said["verdict"], verdicts(&said)), (&"sound".into(), vec!["sound"; 3]), "{said}");
    space.sh(&format!("btrfs device scan --forget $(cat {}/disks) || true", folder.display()));
    nothing_is_left(&space);
}

/// Refused by EC2, interrupted or killed at any step: nothing is left, at once or by the next one.
#[test]
fn nothing_is_left_of_one_that_fails_is_interrupted_or_killed() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure("");
    write(&space, "before");
    let set = take_in(&space);
    let before = originals(&space);
    let refused =
        ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];
    for (action, call) in [("CreateVolume", "2"), ("AttachVolume", "2")] {
        let add = ["faults", "add", "--action", action, "--call", call];
        space.rig.sim(&[&add[..], &refused].concat());
        let failed = verify(&space, &set, &[]);
        eprintln!("{}", failed.err); // why something is left, if it is
        failed.exits(77).says("not now");
        nothing_is_left(&space);
    }
    for (action, call) in
        [("CreateVolume", "1"), ("AttachVolume", "1"), ("DetachVolume", "1"), ("DeleteVolume", "1")]
    {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let hold = ["faults", "add", "--action", action, "--call", call, "--kind", "hold-after"];
            let held = space.rig.sim(&hold).trim().to_owned();
            let run = space.spawn(&[&["verify", &set], &LEVEL[..]].concat());
            space.rig.sim(&["faults", "wait", &held]);
            run.signal(signal);
            if signal == Signal::SIGKILL {
                run.end();
                space.rig.sim(&["faults", "release", &held]);
                assert_ne!(listed(&space), 0, "{action}: it was killed too late");
                let left = space.run(&["list", "--leftovers", "-o", "json"]).exits(0).record();
                let volumes = left["volumes"].as_array().unwrap();
                assert!(volumes.iter().any(|v| v["set"] == set.as_str() && v["until"].is_string()), "{left}");
                space.run(&["verify", "--clean-up"]).exits(0).says("verify that was killed");
            } else {
                space.rig.sim(&["faults", "release", &held]);
                eprintln!("{}", run.end().err);
            }
            nothing_is_left(&space);
            assert_eq!(originals(&space), before, "{action} {signal}");
        }
    }
    space.run(&["verify", "--clean-up"]).exits(0);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_made() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.rig.configure("");
    let set = take_in(&space);
    space.rig.control("POST", "iam", "{\"deny\": [\"ec2:CreateVolume\"]}");
    verify(&space, &set, &[]).exits(77).says("CreateVolume");
    space.rig.control("POST", "iam", "{\"deny\": []}");
    space.run(&["verify", &set, "--type", "gp3"]).exits(64).says("--level restore");
    // Without the program that checks it, nothing would be known of it.
    space.sh("mount --bind /dev/null $(command -v e2fsck)");
    verify(&space, &set, &[]).exits(78).says("e2fsprogs");
    assert_eq!(made(&space), 0);
}
