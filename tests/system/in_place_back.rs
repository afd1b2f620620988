//! Restore in place, the way back: what stands in it, what dies on it, and what is lost between EC2 and this host.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::await_some;

use super::in_place::{
    BOTH, NEW, OLD, as_mounted, attached, content, elements, listed, replaced, restore, two,
};

/// Restores in place, and returns the restore's id.
fn done(space: &Namespace, set: &str) -> String {
    let done = restore(space, &[set, "--in-place", "-o", "json"]).exits(0).record();
    done["restores"][0]["id"].as_str().unwrap().to_owned()
}

fn fault(space: &Namespace, action: &str, call: &str, kind: &[&str]) {
    space.rig.sim(&[&["faults", "add", "--action", action, "--call", call, "--kind"], kind].concat());
}

const DENIED: [&str; 7] =
    ["error", "--code", "UnauthorizedOperation", "--status", "403", "--message", "not now"];

/// Refuses every call of this action.
fn deny(space: &Namespace, action: &str) {
    space.rig.sim(&[&["faults", "add", "--action", action, "--kind"], &DENIED[..]].concat());
}

/// Kills this run when it has come to this call.
fn killed_at(space: &Namespace, action: &str, call: &str, run: &[&str]) {
    let hold = ["faults", "add", "--action", action, "--call", call, "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&[&["restore"], run].concat());
    space.rig.sim(&["faults", "wait", &held]);
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(9), "{action} {call}");
    space.rig.sim(&["faults", "clear"]);
}

/// Calls that change something, of this action.
fn calls(space: &Namespace, action: &str) -> usize {
    space.rig.calls(action).iter().filter(|c| c["dry_run"] != true).count()
}

/// Killed on the way back, the old ones come all the same, or the new ones again: as it is wanted.
#[test]
fn a_way_back_that_is_killed_is_gone_on_with_or_turned_round() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    let id = done(&space, &set);
    let now = attached(&space);
    killed_at(&space, "AttachVolume", "1", &["--undo", &id]);
    restore(&space, &["--continue", &id]).exits(0).says("goes on to the new volumes again");
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
    assert_eq!(as_mounted(&space, &BOTH), mounts);
    killed_at(&space, "AttachVolume", "2", &["--undo", &id]);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!((content(&space, &BOTH), attached(&space)), (NEW.map(str::to_owned).to_vec(), before));
    assert_eq!(as_mounted(&space, &BOTH), mounts);
}

/// Where the volumes were when the way back was begun is not forgotten with the process that has begun it.
#[test]
fn a_way_back_that_was_killed_and_does_not_pass_ends_with_the_new_volumes() {
    let (space, set) = two();
    let mounts = as_mounted(&space, &BOTH);
    let id = done(&space, &set);
    let now = attached(&space);
    killed_at(&space, "AttachVolume", "1", &["--undo", &id]);
    fault(&space, "AttachVolume", "1", &DENIED);
    restore(&space, &["--undo", &id])
        .exits(77)
        .says("not now")
        .says("the new volumes are put in place again")
        .says("the new volumes are in place");
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now.clone()));
    assert_eq!(as_mounted(&space, &BOTH), mounts);
    // An old one that is gone meanwhile: nothing more is asked for in vain.
    killed_at(&space, "DetachVolume", "1", &["--undo", &id]);
    let old = replaced(&space).into_iter().next().unwrap();
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={old}")]);
    restore(&space, &["--undo", &id]).exits(11).says(&old).says("the new volumes are in place");
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
}

/// An old volume that somebody deletes in the middle is not waited for without end.
#[test]
fn a_volume_that_ec2_does_not_show_is_no_reason_to_wait() {
    let (space, set) = two();
    let id = done(&space, &set);
    let now = attached(&space);
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", "--undo", &id]);
    space.rig.sim(&["faults", "wait", &held]);
    let old = replaced(&space).into_iter().next().unwrap();
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={old}")]);
    space.rig.sim(&["faults", "release", &held]);
    run.end().exits(11).says(&format!("{old} does not exist any more")).says("the new volumes are in place");
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
}

/// A lost answer is of a call that EC2 has carried out, or has not: whatever it says to the next one.
#[test]
fn a_lost_answer_before_a_refusal_is_not_nothing() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    // Attached it is: EC2 shows it, and so it goes on.
    fault(&space, "AttachVolume", "1", &["drop-after"]);
    fault(&space, "AttachVolume", "2", &DENIED);
    let id = done(&space, &set);
    assert_eq!(content(&space, &BOTH), OLD);
    restore(&space, &["--undo", &id]).exits(0);
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    space.rig.sim(&["faults", "clear"]);
    // Nothing shows that it is not: what may have been written to is kept.
    fault(&space, "AttachVolume", "1", &["drop-before"]);
    fault(&space, "AttachVolume", "2", &DENIED);
    restore(&space, &[&set, "--in-place"]).exits(77).says("kept with what was written");
    space.rig.sim(&["faults", "clear"]);
    assert_eq!((content(&space, &BOTH), attached(&space)), (NEW.map(str::to_owned).to_vec(), before));
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    assert_eq!(as_mounted(&space, &BOTH), mounts);
}

/// What EC2 may be detaching is not mounted again before EC2 says what it is, although its disk is still here.
#[test]
fn a_disk_that_may_be_on_its_way_is_not_taken_for_one_that_stays() {
    let (space, set) = two();
    let (mounts, before) = (as_mounted(&space, &BOTH), attached(&space));
    fault(&space, "DetachVolume", "1", &["drop-after"]);
    fault(&space, "DetachVolume", "2", &DENIED);
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let mut run = space.spawn(&["restore", &set, "--in-place"]);
    space.rig.sim(&["faults", "wait", &held]);
    // Something looks at the disks, which comes after it was looked who does: they stay until it is done.
    let (a, b) = (space.rig.device("a"), space.rig.device("b"));
    let looks = space.background(&format!("exec 3<{a} 4<{b}; echo ready; exec cat"));
    space.rig.sim(&["faults", "release", &held]);
    await_some("it turns round", || run.said().contains("the old volumes are put back").then_some(()));
    let asked = space.rig.calls("DescribeVolumes").len();
    while !run.over() && space.rig.calls("DescribeVolumes").len() < asked + 3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(looks);
    run.end().exits(77).says("not now");
    let shown = space.rig.sim(&["call", "DescribeVolumes"]);
    let states: Vec<&str> =
        elements(&shown, "attachmentSet").iter().flat_map(|set| elements(set, "status")).collect();
    assert_eq!((states, attached(&space)), (vec!["attached"; 2], before));
    assert_eq!(
        (content(&space, &BOTH), as_mounted(&space, &BOTH)),
        (NEW.map(str::to_owned).to_vec(), mounts)
    );
    assert!(listed(&space).is_empty(), "none of the new ones was asked to be attached");
}

/// EC2 gives a device name to one volume, and another restore may have the new ones in its keeping.
#[test]
fn what_stands_in_the_way_back_is_told_before_anything_is_touched() {
    let (space, set) = two();
    let id = done(&space, &set);
    let now = attached(&space);
    let told = calls(&space, "DetachVolume");
    // Somebody has taken a new volume away, and has put another one there.
    let (name, volume) = (now[0].0.clone(), now[0].1.clone());
    let shown = space.rig.sim(&["call", "DescribeVolumes", &format!("VolumeId.1={volume}")]);
    let (zone, instance) = (elements(&shown, "availabilityZone")[0], elements(&shown, "instanceId")[0]);
    space.sh(&format!("umount {} {}", space.at("a"), space.at("b")));
    space.rig.sim(&["call", "DetachVolume", &format!("VolumeId={volume}")]);
    let made = space.rig.sim(&["call", "CreateVolume", &format!("AvailabilityZone={zone}"), "Size=1"]);
    let other = elements(&made, "volumeId")[0].to_owned();
    let attach = |volume: &str| {
        let (volume, instance) = (format!("VolumeId={volume}"), format!("InstanceId={instance}"));
        let call = ["call", "AttachVolume", &volume, &instance, &format!("Device={name}")];
        await_some("it can be attached", || space.rig.try_sim(&call).ok());
    };
    attach(&other);
    restore(&space, &["--undo", &id])
        .exits(11)
        .says(&format!("{name} is taken by a volume that is not of this"));
    assert_eq!(calls(&space, "DetachVolume"), told + 1, "it was asked before");
    let detach = ["call", "DetachVolume", &format!("VolumeId={other}")];
    await_some("it can be detached", || space.rig.try_sim(&detach).ok());
    attach(&volume);
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(content(&space, &BOTH), NEW);
}

/// Without a tag, the records of this host say which restore has the new volumes in its keeping.
#[test]
fn what_another_restore_keeps_is_not_put_back() {
    let (space, first) = two();
    let one = done(&space, &first);
    let between = attached(&space);
    space.sh(&format!("for d in {} {}; do echo between >$d/f; done; sync", space.at("a"), space.at("b")));
    let second = space.take();
    let two = done(&space, &second);
    for (_, volume) in &between {
        let of = format!("ResourceId.1={volume}");
        space.rig.sim(&["call", "DeleteTags", &of, "Tag.1.Key=stillpoint:replaced-by"]);
    }
    let (now, told) = (attached(&space), calls(&space, "DetachVolume"));
    restore(&space, &["--undo", &one]).exits(11).says("was replaced by restore").says(&two);
    assert_eq!((attached(&space), calls(&space, "DetachVolume")), (now, told));
    restore(&space, &["--undo", &two]).exits(0);
    restore(&space, &["--undo", &one]).exits(0);
    assert_eq!(content(&space, &BOTH), NEW);
}

/// Of the same name, a subvolume and a bound folder are others in the set than they are now: both ways.
#[test]
fn what_was_made_anew_since_the_set_is_mounted_by_its_name() {
    let space = Namespace::empty(&[("c", Fs::Btrfs), ("d", Fs::Ext4)]);
    space.rig.configure("");
    space.mount("c", "defaults");
    space.mount("d", "defaults");
    let (c, d, device) = (space.at("c"), space.at("d"), space.rig.device("c"));
    let (home, bound) = (space.at("home"), space.at("bound"));
    let made = |what: &str| {
        space.sh(&format!(
            "btrfs -q subvolume create {c}/@home; mkdir -p {d}/x {home} {bound}; \
             mount -o subvol=@home {device} {home}; mount --bind {d}/x {bound}; \
             for f in {home} {bound}; do echo {what} >$f/f; done; sync"
        ));
    };
    made("old");
    let set = space.take();
    space.sh(&format!(
        "umount {home} {bound}; btrfs -q subvolume delete {c}/@home; rm -r {d}/x; mkdir {d}/y; \
         btrfs -q subvolume create {c}/@other"
    ));
    made("new");
    let names = ["home", "bound"];
    let mounts =
        || space.sh(&format!("for m in {home} {bound}; do findmnt -n -o TARGET,FSTYPE,FSROOT $m; done"));
    let before = mounts();
    let id = done(&space, &set);
    assert_eq!(
        (content(&space, &names), mounts()),
        (["old\n"; 2].map(str::to_owned).to_vec(), before.clone())
    );
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(
        (content(&space, &names), mounts()),
        (["new\n"; 2].map(str::to_owned).to_vec(), before.clone())
    );
    // Killed on the way there, the recipe is still that of the old ones.
    restore(&space, &["--undo", &id]).exits(0);
    fault(&space, "AttachVolume", "1", &DENIED);
    restore(&space, &[&set, "--in-place"]).exits(77);
    assert_eq!((content(&space, &names), mounts()), (["new\n"; 2].map(str::to_owned).to_vec(), before));
}

/// Killed once the new volumes are in place, it is done: what nothing depends on is made up for.
#[test]
fn what_is_killed_when_all_is_in_place_is_done() {
    let (space, set) = two();
    let before = attached(&space);
    killed_at(&space, "CreateTags", "1", &[&set, "--in-place"]);
    assert_eq!(content(&space, &BOTH), OLD);
    let told = calls(&space, "DetachVolume");
    space.rig.sim(&["faults", "clear"]);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--continue", &id]).exits(0).says("is done");
    assert_eq!(calls(&space, "DetachVolume"), told, "nothing was begun again");
    let tagged = calls(&space, "CreateTags");
    restore(&space, &["--continue", &id]).exits(0).says("is done");
    assert_eq!(calls(&space, "CreateTags"), tagged, "it was made up for");
    assert_eq!(replaced(&space), before.into_iter().map(|(_, volume)| volume).collect());
}

/// A unit that does not start is told by the exit code too where all the rest went as if nothing had been.
#[test]
fn a_unit_that_does_not_start_counts_also_where_nothing_is_left() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    killed_at(&space, "DetachVolume", "1", &[&set, "--in-place", "--stop-unit", "db.service"]);
    std::fs::write(space.path("stopping/start-db.service"), "exit 1\n").unwrap();
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    let undone = restore(&space, &["--undo", &id]);
    undone.exits(11).says("start it by hand").says("nothing is left");
    assert_eq!(content(&space, &BOTH), NEW);
}

/// Between the proof that nobody uses a disk and the moment it goes, nobody comes to.
#[test]
fn a_disk_is_claimed_until_it_goes() {
    let (space, set) = two();
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--in-place"]);
    space.rig.sim(&["faults", "wait", &held]);
    let is_free = |name: &&&str| {
        let claim = "use Fcntl; sysopen(F, $ARGV[0], O_RDONLY | O_EXCL) or exit 1";
        space.try_sh(&format!("perl -e '{claim}' {}", space.rig.device(name))).is_ok()
    };
    assert_eq!(BOTH.iter().filter(is_free).count(), 1, "the one that is just being detached");
    space.rig.sim(&["faults", "release", &held]);
    run.end().exits(0);
    assert_eq!(content(&space, &BOTH), OLD);
}

/// A tag that says that a volume is replaced, on one that is in place, would be in the way of older restores.
#[test]
fn a_mark_that_ec2_does_not_take_off_is_said_and_taken_off_later() {
    let (space, set) = two();
    let id = done(&space, &set);
    let old = replaced(&space);
    assert_eq!(old.len(), 2);
    deny(&space, "DeleteTags");
    let back = restore(&space, &["--undo", &id]);
    back.exits(11)
        .says("still with the tag stillpoint:replaced-by")
        .says("aws ec2 delete-tags --region us-east-1");
    for volume in &old {
        back.says(volume);
    }
    assert_eq!((content(&space, &BOTH), replaced(&space)), (NEW.map(str::to_owned).to_vec(), old));
    // The record is what knows of it: it is not forgotten, and so nothing is deleted.
    restore(&space, &["--undo", &id]).exits(11).says("nothing is deleted before that tag is off");
    assert_eq!(calls(&space, "DeleteVolume"), 0);
    space.rig.sim(&["faults", "clear"]);
    // One of them was deleted since: EC2 refuses the call for both.
    let gone = attached(&space).into_iter().find(|(_, v)| *v == space.rig.id("b")).unwrap().1;
    space.sh(&format!("umount {}", space.at("b")));
    let gone = format!("VolumeId={gone}");
    space.rig.sim(&["call", "DetachVolume", &gone]);
    await_some("it is detached", || space.rig.try_sim(&["call", "DeleteVolume", &gone]).ok());
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
    assert!(replaced(&space).is_empty(), "the mark is off before it is forgotten");
}

/// The other way, the mark is put on by --continue where EC2 has refused it.
#[test]
fn a_mark_that_ec2_does_not_put_on_is_said_and_put_on_later() {
    let (space, set) = two();
    deny(&space, "CreateTags");
    let done = restore(&space, &[&set, "--in-place", "-o", "json"]);
    done.exits(0).says("without the tag stillpoint:replaced-by").says("aws ec2 create-tags");
    let record = done.record();
    let id = record["restores"][0]["id"].as_str().unwrap().to_owned();
    assert!(replaced(&space).is_empty());
    space.rig.sim(&["faults", "clear"]);
    restore(&space, &["--continue", &id]).exits(0);
    assert_eq!(replaced(&space).len(), 2);
    // A mark of another restore is not this one's to take off.
    let other = space.rig.id("b");
    let tag = ["Tag.1.Key=stillpoint:replaced-by", "Tag.1.Value=another"];
    space.rig.sim(&[&["call", "CreateTags", &format!("ResourceId.1={other}")][..], &tag].concat());
    restore(&space, &["--undo", &id]).exits(0);
    assert_eq!(replaced(&space).into_iter().collect::<Vec<_>>(), [other]);
}

/// What would stand in the way is told by a dry run as by the real one.
#[test]
fn a_dry_run_of_the_way_back_looks_at_what_the_real_one_looks_at() {
    let (space, set) = two();
    let id = done(&space, &set);
    let now = attached(&space);
    restore(&space, &["--undo", &id, "-n"]).exits(0).says("would be put back as");
    let holder = space.background(&format!("cd {}; echo ready; exec cat", space.at("a")));
    restore(&space, &["--undo", &id, "-n"]).exits(11).says("cannot unmount").says("working directory");
    drop(holder);
    let reader =
        space.background(&format!("exec 3<$(findmnt -n -o SOURCE {}); echo ready; exec cat", space.at("b")));
    restore(&space, &["--undo", &id, "-n"]).exits(11).says("cat (pid").says(" open");
    drop(reader);
    await_some("nobody is there", || (restore(&space, &["--undo", &id, "-n"]).code == Some(0)).then_some(()));
    let old = replaced(&space).into_iter().next().unwrap();
    space.rig.sim(&["call", "DeleteVolume", &format!("VolumeId={old}")]);
    for dry in [&["-n"][..], &[]] {
        let refused = restore(&space, &[&["--undo", &id], dry].concat());
        refused.exits(11).says(&format!("{old} does not exist any more"));
    }
    assert_eq!((content(&space, &BOTH), attached(&space)), (OLD.map(str::to_owned).to_vec(), now));
}
