//! Which root is replaced by which snapshot, and what is refused before EC2 is asked.

use super::*;
use crate::consistency::Method;
use crate::sets::lines::SetFilesystem;
use crate::sets::set::tests_support::set as made;
use crate::sets::set::{CopyOf, Missing};

fn volume(number: usize) -> VolumeId {
    format!("vol-{number:017x}").parse().unwrap()
}

fn layout(volumes: usize) -> Layout {
    let one = |n: usize| SetVolume {
        id: volume(n),
        device_name: if n == 0 { "/dev/xvda".into() } else { format!("/dev/sd{}", (b'e' + n as u8) as char) },
        size_gib: 8,
        volume_type: "gp3".into(),
        iops: None,
        throughput: None,
        encrypted: false,
        boot: n == 0,
    };
    let filesystem = |n: usize| SetFilesystem {
        mount_point: if n == 0 { "/".into() } else { format!("/data{n}").into() },
        fstype: "ext4".into(),
        uuid: None,
        method: Method::Freeze,
        volumes: vec![volume(n)],
        stack: "nvme0n1".into(),
        options: "rw".into(),
        also: vec![],
        roots: vec![],
    };
    Layout {
        volumes: (0..volumes).map(one).collect(),
        filesystems: (0..volumes).map(filesystem).collect(),
        applications: vec![],
    }
}

fn running(attached: usize) -> RootView {
    RootView {
        state: "running".into(),
        instance_type: "m6i.large".into(),
        zone: "us-east-1a".into(),
        root_device_type: "ebs".into(),
        device_name: "/dev/xvda".into(),
        volume: Some(volume(0)),
        snapshot: None,
        size_gib: 8,
        attached: (0..attached).map(volume).collect(),
    }
}

fn asked() -> Asked {
    let instance = "i-0123456789abcdef0".parse().unwrap();
    Asked { instance, here: true, delete_replaced: false, initialization_rate: None }
}

fn refused(set: &SnapshotSet, root: &RootView) -> String {
    let refusal = plan(set, &layout(set.members.len()), root, &asked()).unwrap_err();
    format!("{refusal} / {}", refusal.hint)
}

#[test]
fn the_root_is_replaced_and_what_is_attached_stays() {
    let set = made(3);
    let plan = plan(&set, &layout(3), &running(2), &asked()).unwrap();
    assert_eq!((&plan.replaced, &plan.snapshot), (&volume(0), &set.members[0].id));
    let stays: Vec<_> = plan.stays.iter().map(|s| (s.volume.clone(), s.mounts.join(","))).collect();
    assert_eq!(stays, [(volume(1), "/data1".to_owned())]);
    let notes = plan.notes.join("\n");
    assert!(notes.contains("one instant") && notes.contains("--in-place"), "{notes}");
    assert!(notes.contains(&format!("/data2 was on {}", volume(2))) && notes.contains("nofail"), "{notes}");
    let request = plan.request();
    assert!(!request.delete_replaced && request.token == plan.id.as_str() && request.token.len() <= 64);
    let tag = |key: &str| request.tags.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    assert_eq!(tag(ROOT_TAG), Some(plan.id.as_str()));
    assert_eq!(tag(RESTORE_VOLUME_TAG), Some(volume(0).as_str()));
    assert_eq!(tag(crate::ec2::volumes::RESTORE_TAG), None, "no --undo takes it for a volume of a restore");
}

#[test]
fn a_root_alone_has_nothing_that_stays() {
    let plan = plan(&made(1), &layout(1), &running(1), &Asked { here: false, ..asked() }).unwrap();
    assert!(plan.stays.is_empty());
    let notes = plan.notes.join("\n");
    assert!(!notes.contains("one instant") && notes.contains("is not looked at"), "{notes}");
}

#[test]
fn a_former_root_of_the_instance_will_do_and_another_ones_will_not() {
    let replaced = RootView { volume: Some(volume(9)), ..running(2) };
    assert_eq!(plan(&made(2), &layout(2), &replaced, &asked()).unwrap().replaced, volume(9));
    let other = SnapshotSet { instance: "i-0000000000000000f".parse().unwrap(), ..made(2) };
    let said = refused(&other, &replaced);
    assert!(
        said.contains("i-0000000000000000f")
            && said.contains("stillpoint image")
            && said.contains("--no-attach"),
        "{said}"
    );
    // Its volume is the root here: somebody has moved it.
    assert!(plan(&other, &layout(2), &running(2), &asked()).is_ok());
}

#[test]
fn what_is_no_snapshot_of_a_root_or_not_ready_is_refused() {
    let copy = CopyOf { region: "us-east-1".into(), id: RunId::generate() };
    let said = refused(&SnapshotSet { copy_of: Some(copy), ..made(2) }, &running(2));
    assert!(
        said.contains("is a copy") && said.contains("us-east-1a") && said.contains("--image-id"),
        "{said}"
    );
    let mut no_root = layout(2);
    no_root.volumes.remove(0);
    let refusal = plan(&made(2), &no_root, &running(2), &asked()).unwrap_err();
    assert!(refusal.what.contains("no snapshot of a root device"), "{refusal}");
    let with = |change: fn(&mut SnapshotSet)| {
        let mut set = made(2);
        change(&mut set);
        refused(&set, &running(2))
    };
    assert!(with(|s| s.members[0].state = "pending".into()).contains("stillpoint wait"));
    assert!(with(|s| s.members[0].state = "error".into()).contains("is in error"));
    assert!(with(|s| s.members[0].tier = "archive").contains("--restore"));
    assert!(with(|s| s.deleting = true).contains("being removed"));
    assert!(with(|s| s.doubts.push("two".into())).contains("doubtful"));
    // The other members are not looked at: they stay as they are.
    let mut torn = made(2);
    let gone = torn.members.pop().unwrap();
    torn.missing.push(Missing { number: 1, volume_id: gone.volume_id });
    assert!(plan(&torn, &layout(2), &running(2), &asked()).is_ok());
}

#[test]
fn an_instance_of_which_ec2_replaces_no_root_is_refused() {
    let with = |root: RootView| refused(&made(1), &root);
    assert!(with(RootView { state: "stopped".into(), ..running(1) }).contains("running instance"));
    assert!(
        with(RootView { root_device_type: "instance-store".into(), ..running(1) }).contains("not on EBS")
    );
    assert!(with(RootView { instance_type: "m6i.metal".into(), ..running(1) }).contains("does not replace"));
    assert!(
        with(RootView { instance_type: "m7i.metal-24xl".into(), ..running(1) }).contains("does not replace")
    );
    assert!(with(RootView { volume: None, ..running(1) }).contains("has no root volume"));
    let mac = RootView { instance_type: "mac2.metal".into(), ..running(1) };
    assert!(plan(&made(1), &layout(1), &mac, &asked()).is_ok());
}
