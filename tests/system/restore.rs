//! Restore: filesystems of a set come back beside their originals, from tags alone, and go without a trace.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};
use serde_json::Value;

/// Two filesystems with something in them.
fn two() -> Namespace {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure("");
    for name in ["a", "b"] {
        space.sh(&format!("seq 1000 >{0}/before; mkdir {0}/d; sync -f {0}", space.at(name)));
    }
    space
}

fn restore(space: &Namespace, more: &[&str]) -> Ended {
    space.run(&[&["restore"], more].concat())
}

fn listed(space: &Namespace) -> Vec<Value> {
    let listed = restore(space, &["--list", "-o", "json"]).exits(0).record();
    listed["restores"].as_array().unwrap().clone()
}

fn uuid(space: &Namespace, place: &str) -> String {
    space.sh(&format!("blkid -p -o value -s UUID $(findmnt -n -v -o SOURCE {place})")).trim().to_owned()
}

/// Rules for udev of restores that this test has begun.
fn rules(id: &str) -> usize {
    let folder = std::fs::read_dir("/run/udev/rules.d").into_iter().flatten().flatten();
    folder.filter(|e| e.file_name().to_string_lossy().contains(id)).count()
}

/// What must not change while something is restored beside it.
fn originals(space: &Namespace) -> String {
    space.sh(&format!(
        "for m in {} {}; do findmnt -n -o TARGET,SOURCE,UUID,OPTIONS $m; find $m -type f | sort | xargs cat | sha256sum; done",
        space.at("a"),
        space.at("b")
    ))
}

fn nothing_is_left(space: &Namespace, id: &str, target: &str) {
    let left = listed(space);
    assert!(left.is_empty(), "volumes are left: {left:?}");
    assert_eq!(rules(id), 0, "rules for udev are left");
    assert!(!std::path::Path::new(target).exists(), "{target} is left");
    assert!(!space.sh("cat /proc/self/mountinfo").contains(target), "a mount is left");
}

#[test]
fn a_set_is_mounted_beside_its_originals_and_taken_back() {
    let space = two();
    let set = space.take();
    for name in ["a", "b"] {
        space.sh(&format!("echo later >{0}/later; rm {0}/before; sync -f {0}", space.at(name)));
    }
    let before = originals(&space);
    let target = space.at("back");
    let dry = restore(&space, &[&set, "--to", &target, "-n"]);
    dry.exits(0).says("each filesystem gets a UUID of its own");
    assert!(dry.err.lines().filter(|l| !l.contains(&target)).all(|l| l.chars().count() <= 80), "{}", dry.err);
    assert!(
        space.rig.calls("AttachVolume").is_empty() && listed(&space).is_empty(),
        "a dry run makes nothing"
    );
    let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
    let of = &done["restores"][0];
    let id = of["id"].as_str().unwrap();
    assert_eq!((of["volumes"].as_array().unwrap().len(), &of["state"]), (2, &"done".into()), "{done}");
    for name in ["a", "b"] {
        let (original, copy) = (space.at(name), format!("{target}{}", space.at(name)));
        assert_eq!(space.sh(&format!("tail -n 1 {copy}/before")), "1000\n");
        space.sh(&format!("test ! -e {copy}/later && echo x >{copy}/new && sync -f {copy}"));
        assert_ne!(uuid(&space, &original), uuid(&space, &copy), "two filesystems with one UUID on a host");
        let mount = of["mounts"].as_array().unwrap().iter().find(|m| m["mount_point"] == copy.as_str());
        assert_eq!(mount.unwrap()["uuid"], uuid(&space, &copy).as_str());
        let options = space.sh(&format!("findmnt -n -o OPTIONS {copy}"));
        assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    }
    assert_eq!(originals(&space), before, "the originals are as they were");
    assert_eq!(rules(id), 1, "nothing is hidden any more, and the names of the originals stay theirs");
    assert_eq!(listed(&space)[0]["id"], id);
    // As they were made: the type is the volume's, the tags say whose they are.
    let call = &space.rig.calls("CreateVolume")[0]["params"];
    assert_eq!(
        (&call["VolumeType"], &call["AvailabilityZone"]),
        (&"gp3".into(), &"us-east-1a".into()),
        "{call}"
    );
    let busy = space.background(&format!("cd {target}{} && echo ready && exec cat", space.at("a")));
    restore(&space, &["--undo", id]).exits(11).says("cannot be unmounted").says("fuser");
    drop(busy);
    restore(&space, &["--undo", id]).exits(0).says("nothing is left");
    nothing_is_left(&space, id, &target);
    assert_eq!(originals(&space), before);
    restore(&space, &["--undo", id]).exits(78).says("there is no restore");
}

#[test]
fn a_look_writes_nothing_and_keeps_the_identity() {
    let space = two();
    let set = space.take();
    let target = space.at("look");
    let done =
        restore(&space, &[&set, "--to", &target, "--read-only", "--mount", &space.at("b"), "-o", "json"]);
    let done = done.exits(0).record();
    let of = &done["restores"][0];
    assert_eq!(of["volumes"].as_array().unwrap().len(), 1, "only what is needed is made");
    let copy = format!("{target}{}", space.at("b"));
    assert_eq!(uuid(&space, &space.at("b")), uuid(&space, &copy));
    assert!(space.try_sh(&format!("echo x >{copy}/new")).is_err(), "it can be written to");
    let id = of["id"].as_str().unwrap();
    assert_ne!(rules(id), 0, "with the original's UUID, it stays hidden from the host");
    // The rules that hide it are gone after a boot.
    let doubled = || {
        let report = space.run(&["doctor", "-o", "json"]).record();
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().find(|f| f["id"] == "doubled-uuid" && f["severity"] == "warning")
    };
    let told = doubled().unwrap();
    assert!(told["what"].as_str().unwrap().contains(&uuid(&space, &copy)), "{told}");
    assert!(told["remedy"].as_str().unwrap().contains(&format!("restore --undo {id}")), "{told}");
    restore(&space, &["--undo", id]).exits(0);
    assert_eq!(doubled(), None);
    nothing_is_left(&space, id, &target);
}

#[test]
fn btrfs_comes_back_with_its_subvolumes_and_an_identity_of_its_own() {
    let space = Namespace::empty(&[("c", Fs::Btrfs), ("home", Fs::Tiny)]);
    space.rig.configure("");
    space.mount("c", "defaults");
    let device = space.rig.device("c");
    space.sh(&format!(
        "btrfs -q subvolume create {0}/@; btrfs -q subvolume create {0}/@home; echo root >{0}/@/f; echo home >{0}/@home/f; \
         umount {0}; mount -o subvol=@ {device} {0}; mount -o subvol=@home {device} {1}",
        space.at("c"),
        space.at("home")
    ));
    let set = space.take();
    let original = uuid(&space, &space.at("c"));
    // Two loop devices over one file are one device to btrfs-progs, and it refuses what is mounted.
    space.sh(&format!("umount {} {}", space.at("home"), space.at("c")));
    let target = space.at("back");
    let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
    for (name, text) in [("c", "root\n"), ("home", "home\n")] {
        let place = format!("{target}{}", space.at(name));
        assert_eq!(space.sh(&format!("cat {place}/f")), text);
        assert_ne!(uuid(&space, &place), original);
    }
    let id = done["restores"][0]["id"].as_str().unwrap();
    restore(&space, &["--undo", id]).exits(0);
    nothing_is_left(&space, id, &target);
}

/// A restore that EC2 refuses somewhere is taken back at once, and touches nothing of the originals.
#[test]
fn what_fails_halfway_is_taken_back() {
    let space = two();
    let set = space.take();
    let before = originals(&space);
    let target = space.at("back");
    let refused =
        ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];
    for (action, call) in [("CreateVolume", "2"), ("AttachVolume", "1"), ("AttachVolume", "2")] {
        let add = ["faults", "add", "--action", action, "--call", call];
        space.rig.sim(&[&add[..], &refused].concat());
        let failed = restore(&space, &[&set, "--to", &target]);
        failed.exits(77).says("not now").says("is taken back");
        let id = failed.err.lines().find_map(|l| l.strip_prefix("restore ").filter(|id| id.len() == 36));
        nothing_is_left(&space, id.unwrap(), &target);
        assert_eq!(originals(&space), before, "{action} {call}");
    }
    // What cannot work is refused before anything is made.
    space.sh(&format!("mkdir {target}; touch {target}/x"));
    let made = space.rig.calls("CreateVolume").len();
    restore(&space, &[&set, "--to", &target]).exits(78).says("is not empty");
    restore(&space, &[&set, "--to", &space.at("a")]).exits(78);
    restore(&space, &[&set, "--az", "us-east-1b"]).exits(78).says("is not the zone");
    space.rig.control("POST", "iam", "{\"deny\": [\"ec2:CreateVolume\"]}");
    restore(&space, &[&set, "--to", &space.at("new")]).exits(77).says("CreateVolume");
    let after = space.rig.calls("CreateVolume").len();
    assert_eq!(made, after, "nothing was made");
    assert!(listed(&space).is_empty());
}

/// Killed between any two steps, it is gone on with or taken back, and no volume is made twice.
#[test]
fn a_restore_that_is_killed_is_gone_on_with_or_taken_back() {
    let space = two();
    let set = space.take();
    let before = originals(&space);
    for (n, (action, call, go_on)) in [
        ("CreateVolume", "2", true),
        ("CreateVolume", "1", false),
        ("AttachVolume", "1", true),
        ("AttachVolume", "2", false),
    ]
    .into_iter()
    .enumerate()
    {
        let target = space.at(&format!("back{n}"));
        let hold = ["faults", "add", "--action", action, "--call", call, "--kind", "hold-after"];
        let held = space.rig.sim(&hold).trim().to_owned();
        let run = space.spawn(&["restore", &set, "--to", &target]);
        space.rig.sim(&["faults", "wait", &held]);
        let begun = || {
            let said = run.said();
            said.lines()
                .find_map(|l| Some(l.strip_prefix("restore ").filter(|id| id.len() == 36)?.to_owned()))
        };
        let id = await_some("the restore has begun", begun);
        if action == "AttachVolume" {
            assert_ne!(rules(&id), 0, "the disks are hidden before they are attached");
        }
        run.signal(Signal::SIGKILL);
        assert_eq!(run.end().signal, Some(9));
        space.rig.sim(&["faults", "release", &held]);
        if go_on {
            restore(&space, &["--continue", &id]).exits(0);
            assert_eq!(space.sh(&format!("tail -n 1 {target}{}/before", space.at("a"))), "1000\n");
            let volumes = listed(&space)[0]["volumes"].as_array().unwrap().len();
            assert_eq!(volumes, 2, "the same volumes, and no others");
            // Once more changes nothing.
            restore(&space, &["--continue", &id]).exits(0);
            assert_eq!(listed(&space)[0]["volumes"].as_array().unwrap().len(), 2);
        }
        restore(&space, &["--undo", &id]).exits(0);
        nothing_is_left(&space, &id, &target);
        assert_eq!(originals(&space), before, "{action} {call}");
    }
}

/// Anybody who may tag can put the tag of a restore on a volume that is in use.
#[test]
fn no_tag_makes_undo_delete_what_no_restore_has_made() {
    let space = two();
    let set = space.take();
    let before = originals(&space);
    let target = space.at("back");
    let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let victim = space.rig.id("a");
    space.rig.sim(&[
        "call",
        "CreateTags",
        &format!("ResourceId.1={victim}"),
        "Tag.1.Key=stillpoint:restore",
        &format!("Tag.1.Value={id}"),
        "Tag.2.Key=stillpoint:restore-of",
        &format!("Tag.2.Value={set}"),
    ]);
    restore(&space, &["--undo", &id, "-n"]).exits(0).says("would stay");
    restore(&space, &["--undo", &id]).exits(11).says(&victim).says("stays");
    assert_eq!(originals(&space), before, "the victim is mounted and whole");
    assert!(space.rig.calls("DeleteVolume").iter().all(|c| c["params"]["VolumeId"] != victim.as_str()));
}

#[test]
fn volumes_alone_are_made_in_any_zone_and_by_other_measures() {
    let space = two();
    let set = space.take();
    let made =
        restore(&space, &[&set, "--no-attach", "--az", "us-east-1b", "--type", "standard", "-o", "json"]);
    let made = made.exits(0).record();
    let of = &made["restores"][0];
    let call = space.rig.calls("CreateVolume").pop().unwrap();
    assert_eq!((&call["params"]["VolumeType"], &call["params"]["Iops"]), (&"standard".into(), &Value::Null));
    assert_eq!(call["params"]["AvailabilityZone"], "us-east-1b");
    assert!(space.rig.calls("AttachVolume").is_empty());
    let id = of["id"].as_str().unwrap();
    restore(&space, &["--undo", id]).exits(0);
    assert!(listed(&space).is_empty());
    restore(&space, &[&set, "--no-attach", "--region", "us-east-1"]).exits(78).says("in which zone");
}

/// Of a snapshot of the set, too: only what this restore has made is its own.
#[test]
fn no_volume_of_the_same_snapshot_goes_with_a_restore_that_has_not_made_it() {
    let space = two();
    let set = space.take();
    let target = space.at("back");
    let snapshot =
        space.rig.snapshots().iter().find(|s| s["tags"]["stillpoint:run"] == set.as_str()).unwrap()["id"]
            .clone();
    let of = format!("SnapshotId={}", snapshot.as_str().unwrap());
    let made = space.rig.sim(&["call", "CreateVolume", &of, "AvailabilityZone=us-east-1a", "VolumeType=gp3"]);
    let victim = format!("vol-{}", &made.split("vol-").nth(1).unwrap()[..17]);
    let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let tag = |victim: &str| {
        let resource = format!("ResourceId.1={victim}");
        let (value, set) = (format!("Tag.1.Value={id}"), format!("Tag.2.Value={set}"));
        let tags = ["Tag.1.Key=stillpoint:restore", &value, "Tag.2.Key=stillpoint:restore-of", &set];
        space.rig.sim(&[&["call", "CreateTags", &resource][..], &tags].concat());
    };
    tag(&victim);
    restore(&space, &["--undo", &id]).exits(11).says(&victim).says("stays");
    assert!(space.rig.calls("DeleteVolume").iter().all(|c| c["params"]["VolumeId"] != victim.as_str()));
    assert!(!std::path::Path::new(&target).exists());
}

#[test]
fn an_answer_that_is_lost_and_a_volume_that_is_shown_late_leave_nothing_behind() {
    let space = two();
    let set = space.take();
    let target = space.at("back");
    for (action, kind) in
        [("CreateVolume", "drop-after"), ("AttachVolume", "drop-after"), ("AttachVolume", "drop-before")]
    {
        space.rig.fault(action, kind, "0s");
        let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
        let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(listed(&space)[0]["volumes"].as_array().unwrap().len(), 2, "{action} {kind}");
        space.rig.fault("DetachVolume", kind, "0s");
        space.rig.fault("DeleteVolume", kind, "0s");
        restore(&space, &["--undo", &id]).exits(0);
        nothing_is_left(&space, &id, &target);
        space.rig.sim(&["faults", "clear"]);
    }
    // The first is made and not shown for a while, the second is refused.
    let add = |call: &str, more: &[&str]| {
        space.rig.sim(&[&["faults", "add", "--action", "CreateVolume", "--call", call][..], more].concat());
    };
    add("1", &["--kind", "late-visibility", "--delay", "4s"]);
    add("2", &["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403"]);
    let failed = restore(&space, &[&set, "--to", &target]);
    failed.exits(77).says("is deleted");
    assert!(listed(&space).is_empty(), "{}", failed.err);
    rig::patience::let_pass("it would be shown by then", std::time::Duration::from_secs(5));
    assert!(listed(&space).is_empty(), "it is shown now");
}

/// Somebody works with it: going on with it again mounts what is not mounted, and takes nothing back.
#[test]
fn a_restore_that_is_done_keeps_what_was_written_to_it() {
    let space = two();
    let set = space.take();
    let target = space.at("back");
    let done = restore(&space, &[&set, "--to", &target, "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let copy = format!("{target}{}", space.at("a"));
    space.sh(&format!("echo mine >{copy}/mine; sync -f {copy}; umount {copy} {target}{}", space.at("b")));
    restore(&space, &["--continue", &id]).exits(0);
    assert_eq!(space.sh(&format!("cat {copy}/mine")), "mine\n");
    // Something else is in its place.
    space.sh(&format!("umount {copy}; mount -t tmpfs none {copy}"));
    restore(&space, &["--continue", &id]).exits(11).says("something is mounted at").says("--undo");
    space.sh(&format!("umount {copy}"));
    restore(&space, &["--continue", &id]).exits(0);
    assert_eq!(space.sh(&format!("cat {copy}/mine")), "mine\n");
    // One at a time.
    let hold = ["faults", "add", "--action", "CreateVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--to", &space.at("other")]);
    space.rig.sim(&["faults", "wait", &held]);
    restore(&space, &["--undo", &id]).exits(75).says("restores a set");
    restore(&space, &["--list"]).exits(0);
    space.rig.sim(&["faults", "release", &held]);
    run.end().exits(0);
    let all: Vec<String> = listed(&space).iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all.len(), 2);
    for id in all {
        restore(&space, &["--undo", &id]).exits(0);
    }
    assert!(listed(&space).is_empty());
}

/// Whoever looks at all disks has one open for a moment, and EC2 says that it is busy: it is detached all the same.
#[test]
fn a_disk_that_somebody_looks_at_is_detached_when_he_lets_go() {
    let space = two();
    let set = space.take();
    let mount = space.at("a");
    let done = restore(&space, &[&set, "--no-mount", "--mount", &mount, "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap();
    let made = &done["restores"][0]["volumes"][0]["id"];
    let ready: Value =
        serde_json::from_slice(&std::fs::read(space.path("sim/ebs-sim.json")).unwrap()).unwrap();
    let volumes = ready["volumes"].as_array().unwrap();
    let device = volumes.iter().find(|v| v["id"] == *made).unwrap()["loop"].as_str().unwrap().to_owned();
    let looking = space.background(&format!("exec 7<{device}; echo ready; exec cat"));
    let run = space.spawn(&["restore", "--undo", id]);
    await_some("it is busy", || {
        space.rig.sim(&["call", "DescribeVolumes"]).contains("<status>busy</status>").then_some(())
    });
    drop(looking);
    run.end().exits(0).says("nothing is left");
}
