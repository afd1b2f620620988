//! Restore in place: the same mounts, of other volumes; and back again, whatever fails or dies on the way.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, Run, await_some};
use serde_json::Value;

/// Two filesystems with something in them, of which a set is taken before they change.
pub fn two() -> (Namespace, String) {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.rig.configure("");
    space.mount("a", "noatime,data=writeback");
    space.mount("b", "nodev,logbufs=4");
    for name in ["a", "b"] {
        space.sh(&format!("echo old >{0}/f; mkdir {0}/d; sync -f {0}", space.at(name)));
    }
    let set = space.take();
    for name in ["a", "b"] {
        space.sh(&format!("echo new >{0}/f; rmdir {0}/d; sync -f {0}", space.at(name)));
    }
    (space, set)
}

pub fn restore(space: &Namespace, more: &[&str]) -> Ended {
    space.run(&[&["restore"], more].concat())
}

/// Everything of these mounts but what is in them and which disk they are of.
pub fn as_mounted(space: &Namespace, names: &[&str]) -> String {
    let each = names.iter().map(|n| space.at(n)).collect::<Vec<_>>().join(" ");
    space.sh(&format!(
        "for m in {each}; do findmnt -n -o TARGET,FSTYPE,UUID,OPTIONS,PROPAGATION,FSROOT $m; done"
    ))
}

pub fn content(space: &Namespace, names: &[&str]) -> Vec<String> {
    names.iter().map(|n| space.sh(&format!("cat {}/f", space.at(n)))).collect()
}

/// What is between this element's tags, each time.
pub fn elements<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let (from, to) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&from).skip(1).map(|rest| rest.split(&to).next().unwrap()).collect()
}

/// Device names and the volumes that have them.
pub fn attached(space: &Namespace) -> Vec<(String, String)> {
    let shown = space.rig.sim(&["call", "DescribeVolumes"]);
    let sets = elements(&shown, "attachmentSet");
    let one = |set: &&str| {
        Some((elements(set, "device").first()?.to_string(), elements(set, "volumeId")[0].to_owned()))
    };
    let mut all: Vec<(String, String)> = sets.iter().filter_map(one).collect();
    all.sort();
    all
}

/// The volumes that were replaced by a restore.
pub fn replaced(space: &Namespace) -> BTreeSet<String> {
    let filter = ["Filter.1.Name=tag-key", "Filter.1.Value.1=stillpoint:replaced-by"];
    let shown = space.rig.sim(&[&["call", "DescribeVolumes"][..], &filter].concat());
    elements(&shown, "volumeId").into_iter().map(str::to_owned).collect()
}

/// The id of the restore that this run has said that it begins.
pub fn id_of(run: &Run) -> String {
    let begun = || {
        let said = run.said();
        said.lines().find_map(|l| Some(l.strip_prefix("restore ").filter(|id| id.len() == 36)?.to_owned()))
    };
    await_some("the restore has begun", begun)
}

pub fn listed(space: &Namespace) -> Vec<Value> {
    let listed = restore(space, &["--list", "-o", "json"]).exits(0).record();
    listed["restores"].as_array().unwrap().clone()
}

pub const BOTH: [&str; 2] = ["a", "b"];
pub const OLD: [&str; 2] = ["old\n", "old\n"];
pub const NEW: [&str; 2] = ["new\n", "new\n"];

#[test]
fn a_set_comes_where_its_volumes_are_and_goes_again() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    let dry = restore(&space, &[&set, "--in-place", "-n"]);
    dry.exits(0).says("in place").says("is unmounted, and mounted from the set").says("is kept, detached");
    assert!(space.rig.calls("DetachVolume").iter().all(|c| c["dry_run"] == true));
    assert_eq!((content(&space, &BOTH), attached(&space)), (NEW.map(str::to_owned).to_vec(), before.clone()));

    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let of = &done["restores"][0];
    let id = of["id"].as_str().unwrap();
    assert_eq!((&of["state"], &of["in_place"]), (&"done".into(), &true.into()));
    assert_eq!(content(&space, &BOTH), OLD);
    assert_eq!(as_mounted(&space, &BOTH), mounts, "mounted as it was, with the same UUIDs");
    let now = attached(&space);
    for ((name, old), (now, new)) in before.iter().zip(&now) {
        assert!(name == now && old != new, "{name}: {old}, {new}");
        assert!(
            of["volumes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|v| v["id"] == new.as_str() && v["source"] == old.as_str())
        );
    }
    let old = before.iter().map(|(_, volume)| volume.clone()).collect();
    assert_eq!(replaced(&space), old, "the old ones say that others came");
    assert!(restore(&space, &["--list"]).exits(0).out.contains("in place"));
    restore(&space, &["--continue", id]).exits(0).says("is done");

    space.sh(&format!("echo later >{0}/f; sync -f {0}", space.at("a")));
    restore(&space, &["--undo", id, "-n"]).exits(0).says("would be put back");
    restore(&space, &["--undo", id]).exits(0).says("the old volumes are back").says("once more deletes them");
    assert_eq!((content(&space, &BOTH), attached(&space)), (NEW.map(str::to_owned).to_vec(), before.clone()));
    assert_eq!(as_mounted(&space, &BOTH), mounts);
    assert!(replaced(&space).is_empty());
    assert_eq!(listed(&space).len(), 1, "what was written to the new ones is kept");
    restore(&space, &["--continue", id]).exits(78).says("was taken back").says("begins anew");
    restore(&space, &["--undo", id]).exits(0).says("nothing is left");
    assert!(listed(&space).is_empty());
    assert_eq!(attached(&space), before);
}

/// What cannot work is refused before anything is made.
#[test]
fn what_is_in_use_or_not_here_is_refused_before_anything_is_made() {
    let (space, set) = two();
    let before = attached(&space);
    let refused = |more: &[&str], says: &str| {
        restore(&space, &[&[set.as_str(), "--in-place"], more].concat()).exits(78).says(says);
    };
    let busy = space.background(&format!("cd {} && echo ready && exec cat", space.at("a")));
    refused(&[], "has its working directory in");
    drop(busy);
    // A mount of its own in another mount namespace, as containers have it.
    let apart = space.background("unshare -m --propagation private sh -c 'echo ready; exec cat'");
    refused(&[], "in its mount namespace");
    drop(apart);
    space.sh(&format!("mkdir {0}/x; mount -t tmpfs none {0}/x", space.at("a")));
    refused(&[], "is mounted on what would go");
    space.sh(&format!("umount {}/x", space.at("a")));
    refused(&["--mount", "/nowhere"], "has no /nowhere");
    space.rig.control("POST", "iam", "{\"deny\": [\"ec2:DetachVolume\"]}");
    restore(&space, &[&set, "--in-place"]).exits(77).says("DetachVolume").says("restore-in-place");
    space.rig.control("POST", "iam", "{\"deny\": []}");
    let device = space.rig.device("b");
    space.sh(&format!("umount {}; mkswap -f {device} >/dev/null; swapon {device}", space.at("b")));
    let swap = restore(&space, &[&set, "--in-place"]);
    space.sh(&format!("swapoff {device}"));
    swap.exits(78).says("is used");
    assert!(space.rig.calls("CreateVolume").iter().all(|c| c["dry_run"] == true), "nothing was made");
    assert_eq!(attached(&space), before);
}

/// Whatever EC2 refuses in the middle, the old volumes are where they were, mounted as they were, and nothing is left.
#[test]
fn what_fails_halfway_puts_the_old_ones_back() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    let refused =
        ["--kind", "error", "--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];
    for (action, call, kept) in [
        ("CreateVolume", "2", false),
        ("DetachVolume", "1", false),
        ("DetachVolume", "2", false),
        ("AttachVolume", "1", false),
        // The first one was there: systemd may have mounted it, and something may have been written to it.
        ("AttachVolume", "2", true),
    ] {
        let add = ["faults", "add", "--action", action, "--call", call];
        space.rig.sim(&[&add[..], &refused].concat());
        let failed = restore(&space, &[&set, "--in-place"]);
        failed.exits(77).says("not now");
        space.rig.sim(&["faults", "clear"]);
        assert_eq!(content(&space, &BOTH), NEW, "{action} {call}: {}", failed.err);
        assert_eq!(
            (as_mounted(&space, &BOTH), attached(&space)),
            (mounts.clone(), before.clone()),
            "{action} {call}"
        );
        let left = listed(&space);
        assert_eq!(left.len(), usize::from(kept), "{action} {call}: {}", failed.err);
        for restore in left {
            failed.says("kept with what was written");
            space
                .run(&["restore", "--undo", restore["id"].as_str().unwrap()])
                .exits(0)
                .says("nothing is left");
        }
        assert!(listed(&space).is_empty());
    }
}

/// What is mounted again without EC2's help is, whatever EC2 says.
#[test]
fn what_never_left_is_mounted_again_although_ec2_refuses_everything() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--in-place"]);
    space.rig.sim(&["faults", "wait", &held]);
    space.rig.control("POST", "iam", "{\"deny\": [\"ec2:*\"]}");
    space.rig.sim(&["faults", "release", &held]);
    let ended = run.end();
    ended.exits(77).says("what is left: `stillpoint restore --undo");
    assert_eq!(
        (content(&space, &BOTH), as_mounted(&space, &BOTH)),
        (NEW.map(str::to_owned).to_vec(), mounts)
    );
    space.rig.control("POST", "iam", "{\"deny\": []}");
    assert_eq!(attached(&space), before);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    assert_eq!(attached(&space), before);
}

/// The new volumes stay where the old ones cannot come, and come back where they went in vain.
#[test]
fn what_cannot_be_put_back_leaves_the_new_ones_in_place() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let now = attached(&space);
    let in_place = || {
        assert_eq!(
            (content(&space, &BOTH), attached(&space)),
            (OLD.map(str::to_owned).to_vec(), now.clone())
        );
        assert_eq!(as_mounted(&space, &BOTH), mounts);
    };
    let told = space.rig.calls("DetachVolume").len();
    space.rig.control("POST", "iam", "{\"deny\": [\"ec2:AttachVolume\"]}");
    restore(&space, &["--undo", &id]).exits(77).says("AttachVolume");
    space.rig.control("POST", "iam", "{\"deny\": []}");
    assert!(
        space.rig.calls("DetachVolume")[told..].iter().all(|c| c["dry_run"] == true),
        "it was asked before"
    );
    in_place();

    let refused = ["--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];
    let add = ["faults", "add", "--action", "AttachVolume", "--call", "2", "--kind", "error"];
    space.rig.sim(&[&add[..], &refused].concat());
    restore(&space, &["--undo", &id])
        .exits(77)
        .says("not now")
        .says("the new volumes are put in place again");
    in_place();

    restore(&space, &["--undo", &id, "--dry-run"]).exits(0);
    restore(&space, &["--continue", &id, "--dry-run"]).exits(64);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(attached(&space), before);
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={}", now[0].1)]);
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
}

/// An old volume that somebody has deleted cannot come back.
#[test]
fn an_old_volume_that_is_gone_is_told_before_anything_is_touched() {
    let (space, set) = two();
    let before = attached(&space);
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let (now, calls) = (attached(&space), space.rig.calls("DetachVolume").len());
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={}", before[1].1)]);
    restore(&space, &["--undo", &id]).exits(11).says(&before[1].1).says("does not exist");
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
    assert_eq!(space.rig.calls("DetachVolume").len(), calls);
}

/// Of two restores in place, the last one is taken back first; what the other one has put there is its to keep.
#[test]
fn restores_in_place_are_taken_back_in_reverse() {
    let (space, first) = two();
    let before = attached(&space);
    let id = |done: Ended| done.exits(0).record()["restores"][0]["id"].as_str().unwrap().to_owned();
    let one = id(restore(&space, &[&first, "--in-place", "-o", "json"]));
    let between = attached(&space);
    space.sh(&format!("for d in {} {}; do echo between >$d/f; done; sync", space.at("a"), space.at("b")));
    let second = space.take();
    space.sh(&format!("for d in {} {}; do echo late >$d/f; done; sync", space.at("a"), space.at("b")));
    let two = id(restore(&space, &[&second, "--in-place", "-o", "json"]));
    assert_eq!(content(&space, &BOTH), ["between\n"; 2]);
    let now = attached(&space);
    restore(&space, &["--undo", &one]).exits(11).says("was replaced by restore").says(&two);
    // Without the tag and the first one's record, what the second one keeps is still not anybody's to delete.
    let record = space.path("state/restores").join(format!("{one}.json"));
    std::fs::rename(&record, record.with_extension("gone")).unwrap();
    for (_, volume) in &between {
        let tags = ["Tag.1.Key=stillpoint:replaced-by", "Tag.2.Key=stillpoint:restore-in-place"];
        let of = format!("ResourceId.1={volume}");
        space.rig.sim(&[&["call", "DeleteTags", of.as_str()][..], &tags].concat());
    }
    restore(&space, &["--undo", &one]).exits(11).says("keeps it for its --undo");
    std::fs::rename(record.with_extension("gone"), &record).unwrap();
    assert_eq!(attached(&space), now);
    restore(&space, &["--undo", &two]).exits(0);
    assert_eq!(
        (content(&space, &BOTH), attached(&space)),
        (["late\n"; 2].map(str::to_owned).to_vec(), between)
    );
    restore(&space, &["--undo", &one]).exits(0);
    assert_eq!((content(&space, &BOTH), attached(&space)), (NEW.map(str::to_owned).to_vec(), before));
}

/// What an image or a snapshot of another host has brought here is that host's.
#[test]
fn a_record_of_another_host_is_not_gone_on_with() {
    let (space, set) = two();
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let (now, file) = (attached(&space), space.path("state/restores").join(format!("{id}.json")));
    let text = std::fs::read_to_string(&file).unwrap();
    let own: Value = serde_json::from_str(&text).unwrap();
    let own = own["plan"]["instance"].as_str().unwrap();
    std::fs::write(&file, text.replace(own, "i-0fedcba9876543210")).unwrap();
    for way in ["--undo", "--continue"] {
        restore(&space, &[way, &id]).exits(78).says("was begun on i-0fedcba9876543210");
    }
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
}

/// What was made since the set was taken has no place in it.
#[test]
fn a_filesystem_that_is_younger_than_the_set_is_refused() {
    let (space, set) = two();
    let (b, device) = (space.at("b"), space.rig.device("b"));
    space.sh(&format!("umount {b}; mkfs.xfs -qf {device}; mount {device} {b}"));
    restore(&space, &[&set, "--in-place", "-n"])
        .exits(78)
        .says("was not on vol-")
        .says("when the set was taken");
    space.sh(&format!("umount {b}"));
    restore(&space, &[&set, "--in-place", "-n"]).exits(0);
}

/// Killed anywhere, it goes on to the new volumes, or back to the old ones.
#[test]
fn what_is_killed_goes_on_or_back() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    for (action, call, kind, on) in [
        ("CreateVolume", "2", "hold-after", true),
        ("DetachVolume", "1", "hold-before", true),
        ("DetachVolume", "1", "hold-after", false),
        ("DetachVolume", "2", "hold-after", true),
        ("AttachVolume", "1", "hold-after", false),
        ("AttachVolume", "2", "hold-after", true),
    ] {
        let hold = ["faults", "add", "--action", action, "--call", call, "--kind", kind];
        let held = space.rig.sim(&hold).trim().to_owned();
        let run = space.spawn(&["restore", &set, "--in-place"]);
        space.rig.sim(&["faults", "wait", &held]);
        // Between the first umount and the last mount, no signal counts.
        if action != "CreateVolume" {
            run.signal(Signal::SIGTERM);
        }
        let id: String = id_of(&run);
        run.signal(Signal::SIGKILL);
        assert_eq!(run.end().signal, Some(9), "{action} {call}");
        space.rig.sim(&["faults", "release", &held]);
        // From the first attachment on, something may have been written to them.
        if on {
            restore(&space, &["--continue", &id]).exits(0).says("is restored in place");
            assert_eq!(content(&space, &BOTH), OLD, "{action} {call}");
            assert_eq!(as_mounted(&space, &BOTH), mounts);
        }
        if on || action == "AttachVolume" {
            restore(&space, &["--undo", &id]).exits(0).says("once more deletes them");
        }
        restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
        assert_eq!(content(&space, &BOTH), NEW, "{action} {call}");
        assert_eq!(
            (as_mounted(&space, &BOTH), attached(&space)),
            (mounts.clone(), before.clone()),
            "{action} {call}"
        );
        assert!(listed(&space).is_empty(), "{action} {call}");
    }
}

/// A device name that was just freed is in use for a while, and EC2 fails now and then: what passes is waited for.
#[test]
fn a_name_that_is_still_in_use_is_waited_for() {
    let (space, set) = two();
    let in_use = ["--kind", "error", "--code", "InvalidParameterValue", "--status", "400", "--message"];
    let message = "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use";
    let add = ["faults", "add", "--action", "AttachVolume", "--call", "1"];
    space.rig.sim(&[&add[..], &in_use, &[message]].concat());
    restore(&space, &[&set, "--in-place"]).exits(0);
    assert_eq!(content(&space, &BOTH), OLD);
}

/// No tag makes anybody take production for what a restore has made.
#[test]
fn a_host_without_its_memory_takes_nothing_away() {
    let (space, set) = two();
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let id = done["restores"][0]["id"].as_str().unwrap().to_owned();
    let mounts = as_mounted(&space, &BOTH);
    let state = space.path("state/restores");
    std::fs::rename(&state, state.with_extension("gone")).unwrap();
    restore(&space, &["--undo", &id]).exits(11).says("was put in the place of").says("stays");
    assert_eq!(
        (content(&space, &BOTH), as_mounted(&space, &BOTH)),
        (OLD.map(str::to_owned).to_vec(), mounts)
    );
}

#[test]
fn btrfs_with_subvolumes_and_mounts_in_each_other() {
    let space = Namespace::empty(&[("c", Fs::Btrfs), ("a", Fs::Ext4)]);
    space.rig.configure("");
    space.mount("c", "defaults");
    let (c, device) = (space.at("c"), space.rig.device("c"));
    space.sh(&format!(
        "btrfs -q subvolume create {c}/@; btrfs -q subvolume create {c}/@home; umount {c}; \
         mount -o subvol=@ {device} {c}; mkdir {c}/home {c}/inner; mount -o subvol=@home,noexec {device} {c}/home; \
         mount {} {c}/inner; mkdir {c}/inner/x; mount --bind {c}/inner/x {}; \
         for d in {c} {c}/home {c}/inner; do echo old >$d/f; done; sync",
        space.rig.device("a"),
        space.at("a"),
    ));
    let set = space.take();
    space.sh(&format!("for d in {c} {c}/home {c}/inner; do echo new >$d/f; done; sync"));
    let names = ["c", "c/home", "c/inner", "a"];
    let mounts = as_mounted(&space, &names);
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]).exits(0).record();
    let inside = ["c", "c/home", "c/inner"];
    assert_eq!(content(&space, &inside), ["old\n"; 3]);
    assert_eq!(as_mounted(&space, &names), mounts);
    restore(&space, &["--undo", done["restores"][0]["id"].as_str().unwrap()]).exits(0);
    assert_eq!(content(&space, &inside), ["new\n"; 3]);
    assert_eq!(as_mounted(&space, &names), mounts);
}
