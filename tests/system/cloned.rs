//! Clones that are there: attached and mounted beside their originals, listed, deleted.

use rig::Fs;
use rig::namespace::Namespace;
use rig::program::{Ended, await_some};
use serde_json::Value;

/// Copies are initialised at once.
const AT_ONCE: &str =
    "[volumes]\nseconds_to_create = 0.2\nseconds_to_attach = 0.1\nseconds_to_initialize_copy = 0\n";

/// Two filesystems, one in the other, and a clone of both. Since then, a file of each is lost.
fn cloned() -> (Namespace, String) {
    let space = Namespace::with(&[("a", Fs::Ext4), ("b", Fs::Xfs)], AT_ONCE);
    space.rig.configure("");
    space.mount("a", "defaults");
    let a = space.at("a");
    let b = space.rig.device("b");
    space.sh(&format!("mkdir {a}/db; mount {b} {a}/db; echo log >{a}/log; echo data >{a}/db/f; sync"));
    let record = space.run(&["clone", "-o", "json"]).exits(0).record();
    space.sh(&format!("rm {a}/log {a}/db/f; sync"));
    (space, record["run_id"].as_str().unwrap().to_owned())
}

fn restore(space: &Namespace, more: &[&str]) -> Ended {
    space.run(&[&["restore"], more].concat())
}

fn listed(space: &Namespace) -> Vec<Value> {
    let said = space.run(&["clone", "--list", "-o", "json"]).exits(0).record();
    said["clones"].as_array().unwrap().clone()
}

#[test]
fn clones_are_mounted_beside_their_originals_and_stay_when_that_is_taken_back() {
    let (space, run) = cloned();
    let (a, to) = (space.at("a"), space.at("copy"));
    let dry = restore(&space, &[&run, "--to", &to, "-n"]);
    dry.exits(0)
        .says("a clone of vol-")
        .says("the clones stay")
        .says("each filesystem gets a UUID of its own");
    assert!(space.rig.calls("AttachVolume").iter().all(|c| c["dry_run"] == true));

    restore(&space, &[&run, "--to", &to]).exits(0).says("is restored");
    assert_eq!(space.sh(&format!("cat {to}/{a}/log {to}/{a}/db/f")), "log\ndata\n");
    space.sh(&format!("echo more >{to}/{a}/db/more; test ! -e {a}/db/more"));
    assert!(space.rig.calls("CreateVolume").is_empty(), "they are there already");
    let kept = &listed(&space)[0];
    assert_eq!(
        (&kept["run"], &kept["achieved"], &kept["one_instant"]),
        (&run.as_str().into(), &"filesystem".into(), &true.into()),
        "{kept}"
    );
    let attached = kept["volumes"].as_array().unwrap().iter().map(|v| v["attached_to"].as_str().unwrap());
    assert!(attached.clone().count() == 2 && attached.clone().all(|who| who.starts_with("i-")), "{kept}");
    space.run(&["clone", "--delete", &run, "--yes"]).exits(78).says("is attached to i-").says("--undo");
    restore(&space, &[&run, "--to", &space.at("other")]).exits(78).says("is attached to i-");

    let restores = restore(&space, &["--list", "-o", "json"]).exits(0).record();
    let id = restores["restores"][0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    assert!(space.rig.calls("DeleteVolume").is_empty(), "the clones are somebody's");
    assert!(!space.sh("cat /proc/self/mounts").contains(&to));
    assert_eq!(listed(&space)[0]["volumes"][0]["state"], "available");
    // Once more: what was written to them is there.
    restore(&space, &[&run, "--to", &to]).exits(0);
    assert_eq!(space.sh(&format!("cat {to}/{a}/db/more")), "more\n");
    restore(&space, &["--undo", &id]).exits(78).says("there is no restore");
}

#[test]
fn clones_are_deleted_by_their_run_and_nothing_else_is() {
    let (space, run) = cloned();
    // Whoever may tag can put the tag of a run on a copy of another volume.
    let made = space.rig.sim(&["call", "CreateVolume", "Size=1", "AvailabilityZone=us-east-1a"]);
    let stranger = made.split_once("<volumeId>").unwrap().1.split('<').next().unwrap().to_owned();
    await_some("the volume is made", || {
        let shown = space.rig.sim(&["call", "DescribeVolumes", &format!("VolumeId.1={stranger}")]);
        shown.contains("<status>available</status>").then_some(())
    });
    let copied = space.rig.sim(&["call", "CopyVolumes", &format!("SourceVolumeId={stranger}")]);
    let copy = copied.split_once("<volumeId>").unwrap().1.split('<').next().unwrap().to_owned();
    let (resource, value) = (format!("ResourceId.1={copy}"), format!("Tag.1.Value={run}"));
    space.rig.sim(&["call", "CreateTags", &resource, "Tag.1.Key=stillpoint:run", &value]);
    space.run(&["clone", "--delete", &run, "--yes"]).exits(78).says("which is not of");
    assert!(space.rig.calls("DeleteVolume").is_empty());
    space.rig.sim(&["call", "DeleteTags", &resource, "Tag.1.Key=stillpoint:run"]);

    // A colleague's copy of the same volume.
    let source = format!("SourceVolumeId={}", space.rig.id("b"));
    let copied = space.rig.sim(&["call", "CopyVolumes", &source]);
    let copy = copied.split_once("<volumeId>").unwrap().1.split('<').next().unwrap().to_owned();
    let resource = format!("ResourceId.1={copy}");
    space.rig.sim(&["call", "CreateTags", &resource, "Tag.1.Key=stillpoint:run", &value]);
    space.run(&["clone", "--delete", &run, "--yes"]).exits(78).says("are both copies of");
    restore(&space, &[&run]).exits(78).says("both clones of");
    assert!(space.rig.calls("DeleteVolume").is_empty());
    space.rig.sim(&["call", "DeleteTags", &resource, "Tag.1.Key=stillpoint:run"]);

    space.run(&["clone", "--delete", &run]).exits(64).says("--yes").says("nothing was done");
    let done = space.run(&["clone", "--delete", &run, "--yes", "-o", "json"]).exits(0).record();
    assert_eq!(done["clones"][0]["volumes"].as_array().unwrap().len(), 2, "{done}");
    assert!(listed(&space).is_empty());
    space.run(&["clone", "--delete", &run, "--yes"]).exits(78).says("there is no clone of");
    space.run(&["restore", &run]).exits(78).says("there is no set");
    space.run(&["clone", "--list"]).exits(0).says("there is no clone in");
}

#[test]
fn what_cannot_be_done_with_a_clone_is_refused_before_anything_is_attached() {
    let (space, run) = cloned();
    for (more, exit) in [
        (&["--no-attach", "--az", "us-east-1a"][..], 64),
        (&["--type", "gp3"], 78),
        (&["--warm", "used"], 64),
    ] {
        restore(&space, &[&[run.as_str()], more].concat()).exits(exit).says("clones");
    }
    let id = listed(&space)[0]["volumes"][1]["id"].as_str().unwrap().to_owned();
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={id}")]);
    restore(&space, &[&run]).exits(78);
    assert!(space.rig.calls("AttachVolume").iter().all(|c| c["dry_run"] == true));
}

/// Whoever may tag can put the id of a set on a copy: the snapshots are meant. And what one restore has, no other takes.
#[test]
fn a_set_is_no_clone_and_a_clone_is_of_one_restore() {
    let (space, run) = cloned();
    let taken = space.run(&["snapshot", "-o", "json"]);
    let set = taken.exits(0).record()["run_id"].as_str().unwrap().to_owned();
    space.rig.await_quiet();
    let copied = space.rig.sim(&["call", "CopyVolumes", &format!("SourceVolumeId={}", space.rig.id("b"))]);
    let copy = copied.split_once("<volumeId>").unwrap().1.split('<').next().unwrap().to_owned();
    let (resource, value) = (format!("ResourceId.1={copy}"), format!("Tag.1.Value={set}"));
    space.rig.sim(&["call", "CreateTags", &resource, "Tag.1.Key=stillpoint:run", &value]);
    let dry = restore(&space, &[&set, "--to", &space.at("of-set"), "-n"]);
    dry.exits(0).says("snap-").says("in the place of");
    assert!(!dry.err.contains("a clone of"), "{}", dry.err);

    let hang = ["faults", "add", "--action", "AttachVolume", "--call", "1", "--kind", "hang"];
    space.rig.sim(&hang);
    let killed = space.spawn(&["restore", &run, "--to", &space.at("one")]);
    let asked = || space.rig.calls("AttachVolume").iter().any(|c| c["dry_run"] == false).then_some(());
    await_some("it is attached", asked);
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(killed.end().signal, Some(9));
    space.rig.sim(&["faults", "clear"]);
    restore(&space, &[&run, "--to", &space.at("two")]).exits(78).says("is of restore").says("--continue");
    let listed = restore(&space, &["--list", "-o", "json"]).exits(0).record();
    let id = listed["restores"][0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0);
    restore(&space, &[&run, "--to", &space.at("two")]).exits(0);
}
