use super::*;
use crate::consistency::Method;
use crate::ec2::{SnapshotDetail, SnapshotView};
use crate::sets::set::tests_support::set;

fn layout(set: &SnapshotSet) -> Layout {
    let volumes = set.members.iter().map(|m| SetVolume {
        id: m.volume_id.clone(),
        device_name: format!("/dev/sd{}", char::from(b'f' + u8::try_from(m.number).unwrap())),
        size_gib: 8,
        volume_type: "gp3".into(),
        iops: Some(4000),
        throughput: Some(250),
        encrypted: false,
        boot: m.number == 0,
    });
    let filesystem = |m: &crate::sets::set::Member, place: &str| SetFilesystem {
        mount_point: place.into(),
        fstype: "xfs".into(),
        uuid: Some("0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".into()),
        method: Method::Freeze,
        volumes: vec![m.volume_id.clone()],
        stack: "nvme1n1p1".into(),
        options: "rw,noatime".into(),
        also: vec![],
        roots: vec![],
    };
    let places = ["/var/data", "/", "/var"];
    let filesystems = set.members.iter().zip(places).map(|(m, place)| filesystem(m, place));
    Layout { volumes: volumes.collect(), filesystems: filesystems.collect(), applications: vec![] }
}

fn snapshots(set: &SnapshotSet) -> Vec<TaggedSnapshot> {
    let tags = [("Team", "db"), ("stillpoint:run", "x"), ("aws:backup:source-resource", "x")];
    let one = |m: &crate::sets::set::Member| TaggedSnapshot {
        view: SnapshotView {
            id: m.id.clone(),
            volume: m.volume_id.clone(),
            state: "completed".into(),
            started: None,
            progress: None,
        },
        tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        detail: SnapshotDetail::default(),
    };
    set.members.iter().map(one).collect()
}

fn host(names: &[&str]) -> Host {
    Host {
        id: "i-0123456789abcdef0".parse().unwrap(),
        view: HostView {
            zone: "us-east-1a".into(),
            instance_type: "m6i.large".into(),
            device_names: names.iter().map(|n| (*n).to_owned()).collect(),
            interfaces: 1,
        },
        limit: None,
    }
}

fn asked() -> Asked {
    Asked {
        reach: Reach::Mounted,
        to: "/mnt/x".into(),
        mounts: vec![],
        read_only: false,
        zone: None,
        instead: Instead::default(),
        key: None,
        initialization_rate: None,
        until: None,
    }
}

fn planned(
    set: &SnapshotSet,
    change: impl FnOnce(&mut Layout),
    host: Option<&Host>,
    asked: &Asked,
) -> Result<RestorePlan, String> {
    let mut layout = layout(set);
    change(&mut layout);
    plan(set, &layout, &snapshots(set), host, asked).map_err(|refusal| refusal.to_string())
}

#[test]
fn volumes_are_as_they_were_and_carry_what_says_whose_they_are() {
    let set = set(3);
    let plan = planned(&set, |_| {}, Some(&host(&["/dev/xvda"])), &asked()).unwrap();
    assert_eq!((plan.volumes.len(), plan.zone.as_str()), (3, "us-east-1a"));
    let first = &plan.volumes[0];
    assert_eq!((first.volume_type.as_str(), first.iops, first.throughput), ("gp3", Some(4000), Some(250)));
    let tag = |key: &str| first.tags.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    assert_eq!(tag(RESTORE_TAG), Some(plan.id.as_str()));
    assert_eq!(tag(RESTORE_OF_TAG), Some(set.id.as_str()));
    assert_eq!(tag("Team"), Some("db"), "the user's own come with it");
    // What says of a snapshot that it is of a set must not say so of a volume, whose next snapshot would have it.
    assert_eq!((tag("stillpoint:run"), tag("aws:backup:source-resource")), (None, None));
    let tokens: Vec<String> = (0..3).map(|n| plan.request(n).unwrap().token).collect();
    assert!(tokens.iter().all(|t| t.len() <= 64 && t.starts_with(plan.id.as_str())));
    assert!(
        tokens[0] != tokens[1] && plan.request(0) == plan.request(0),
        "the same call makes the same volume"
    );
    // Another type has nothing of the old one's.
    let cheap = Asked { instead: Instead { kind: Some("st1".into()), ..Instead::default() }, ..asked() };
    let plan = planned(&set, |_| {}, Some(&host(&[])), &cheap).unwrap();
    assert!(plan.volumes.iter().all(|v| v.iops.is_none() && v.throughput.is_none()));
    // What EC2 would refuse is not left out in silence.
    let slow = Asked {
        instead: Instead { kind: Some("gp2".into()), iops: Some(4000), ..Instead::default() },
        ..asked()
    };
    assert!(planned(&set, |_| {}, Some(&host(&[])), &slow).unwrap_err().contains("no IOPS can be asked for"));
    let narrow = Asked { instead: Instead { throughput: Some(1001), ..Instead::default() }, ..asked() };
    assert!(
        planned(&set, |_| {}, Some(&host(&[])), &narrow).unwrap_err().contains("1001 MiB/s need 4004 IOPS")
    );
}

#[test]
fn what_is_mounted_on_another_filesystem_comes_after_it_and_all_of_it_beneath_the_target() {
    let plan = planned(&set(3), |_| {}, Some(&host(&[])), &asked()).unwrap();
    let places: Vec<PathBuf> =
        plan.filesystems.iter().flat_map(|f| f.mounts.iter().map(|m| plan.place(m))).collect();
    assert_eq!(places, ["/mnt/x", "/mnt/x/var", "/mnt/x/var/data"].map(PathBuf::from));
    assert!(plan.notes.iter().any(|n| n.contains("root device")), "{:?}", plan.notes);
}

#[test]
fn only_the_volumes_of_the_mounts_that_are_meant_are_made() {
    let one = Asked { mounts: vec!["/var".into()], ..asked() };
    let plan = planned(&set(3), |_| {}, Some(&host(&[])), &one).unwrap();
    assert_eq!((plan.volumes.len(), plan.filesystems.len()), (1, 1));
    assert_eq!(plan.filesystems[0].volume, 0);
    let none = Asked { mounts: vec!["/nowhere".into()], ..asked() };
    assert!(planned(&set(3), |_| {}, Some(&host(&[])), &none).unwrap_err().contains("has no /nowhere"));
}

#[test]
fn a_volume_group_is_restored_with_all_volumes_that_it_is_on() {
    let stacked = |l: &mut Layout| {
        l.filesystems[0].stack = "dm-0 (lvm vg0-data) → nvme1n1".into();
        l.filesystems[2].stack = "dm-1 (lvm vg0-var) → nvme3n1".into();
    };
    let one = Asked { mounts: vec!["/var/data".into()], ..asked() };
    let plan = planned(&set(3), stacked, Some(&host(&[])), &one).unwrap();
    assert_eq!((plan.volumes.len(), plan.filesystems.len()), (2, 1));
    assert_eq!(plan.stack.tops[&0].volumes.iter().collect::<Vec<_>>(), [&0]);
    // The numbers are those of the plan, in which they are mounted.
    let plan = planned(&set(3), stacked, Some(&host(&[])), &asked()).unwrap();
    let places: Vec<&Path> = plan.filesystems.iter().map(|f| f.source.as_path()).collect();
    assert_eq!(places, ["/", "/var", "/var/data"].map(Path::new));
    assert_eq!(plan.stack.tops.keys().collect::<Vec<_>>(), [&1, &2]);
    // No restore of volumes alone puts anything together.
    let attached = Asked { reach: Reach::Attached, ..asked() };
    assert!(planned(&set(3), stacked, Some(&host(&[])), &attached).unwrap().stack.is_empty());
}

#[test]
fn each_subvolume_is_mounted_where_it_was() {
    let change = |l: &mut Layout| {
        let f = &mut l.filesystems[1];
        f.fstype = "btrfs".into();
        f.also = vec!["/home".into()];
        f.roots = vec!["/@".into(), "/@home".into()];
    };
    let plan = planned(&set(2), change, Some(&host(&[])), &asked()).unwrap();
    let of = plan.filesystems.iter().find(|f| f.fstype == "btrfs").unwrap();
    let mounts: Vec<_> = of.mounts.iter().map(|m| (plan.place(m), m.root.clone())).collect();
    let expected = [("/mnt/x", "/@"), ("/mnt/x/home", "/@home")];
    assert_eq!(mounts, expected.map(|(at, root)| (PathBuf::from(at), PathBuf::from(root))));
}

#[test]
fn names_of_attachments_are_free_ones_and_no_alias_of_one_that_is_not() {
    let taken = host(&["/dev/xvda", "/dev/xvdp", "/dev/sdo1"]);
    let (mut names, spare) = names(&taken, 8).unwrap();
    assert_eq!((names.len(), &*names[0]), (8, "/dev/sdn"), "sdp and sdo are taken by another name");
    names.extend(spare);
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 12);
    assert!(!names.iter().any(|n| n.ends_with('p') || n.ends_with('o') || n.ends_with('a')));
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_made() {
    let here = host(&["/dev/xvda"]);
    let refused = |set: &SnapshotSet, change: &dyn Fn(&mut Layout), host: Option<&Host>, asked: &Asked| {
        planned(set, |l| change(l), host, asked).unwrap_err()
    };
    let whole = set(2);
    let as_it_is: &dyn Fn(&mut Layout) = &|_| {};
    let mut lost = whole.clone();
    lost.members[1].state = "error".into();
    assert!(refused(&lost, as_it_is, Some(&here), &asked()).contains("in error"));
    let mut pending = whole.clone();
    pending.members[0].state = "pending".into();
    assert!(refused(&pending, as_it_is, Some(&here), &asked()).contains("not completed yet"));
    let mut cold = whole.clone();
    cold.members[0].tier = "archive";
    assert!(refused(&cold, as_it_is, Some(&here), &asked()).contains("in the archive"));
    let mut torn = whole.clone();
    torn.deleting = true;
    assert!(refused(&torn, as_it_is, Some(&here), &asked()).contains("being removed"));
    let strange: &dyn Fn(&mut Layout) = &|l| l.volumes[0].volume_type = "gp3 --evil".into();
    assert!(refused(&whole, strange, Some(&here), &asked()).contains("not known"));
    let on: &dyn Fn(&mut Layout) = &|l| l.filesystems[0].stack = "nvme1n1; external journal nvme2n1".into();
    assert!(refused(&whole, on, Some(&here), &asked()).contains("beside its own"));
    let raid: &dyn Fn(&mut Layout) = &|l| {
        l.filesystems[0].stack = "dm-1 (lvm vg0-a) → dm-0 (lvm vg0-a_rimage_0) → nvme1n1".into();
    };
    assert!(refused(&whole, raid, Some(&here), &asked()).contains("LVM RAID"));
    let two: &dyn Fn(&mut Layout) = &|l| {
        let more = l.volumes[1].id.clone();
        l.filesystems[0].volumes.push(more);
    };
    assert!(refused(&whole, two, Some(&here), &asked()).contains("on 2 devices"));
    let other: &dyn Fn(&mut Layout) = &|l| l.filesystems[0].fstype = "zfs".into();
    assert!(refused(&whole, other, Some(&here), &asked()).contains("not mounted here"));
    let elsewhere = Asked { zone: Some("us-east-1b".into()), ..asked() };
    assert!(refused(&whole, as_it_is, Some(&here), &elsewhere).contains("is not the zone"));
    let nowhere = Asked { reach: Reach::Volumes, ..asked() };
    assert!(refused(&whole, as_it_is, None, &nowhere).contains("in which zone"));
    let limit = |most, shared, instance_store| Some(AttachmentLimit { most, shared, instance_store });
    let full = Host { limit: limit(2, false, 0), ..here.clone() };
    assert!(refused(&whole, as_it_is, Some(&full), &asked()).contains("2 more are needed"));
    let shared = Host { limit: limit(4, true, 1), ..here.clone() };
    assert!(refused(&whole, as_it_is, Some(&shared), &asked()).contains("can have 4 attachments"));
    let room = Host { limit: limit(4, true, 0), ..here.clone() };
    assert!(planned(&whole, |_| {}, Some(&room), &asked()).is_ok());
    let provisioned =
        Asked { instead: Instead { kind: Some("io2".into()), ..Instead::default() }, ..asked() };
    assert!(refused(&whole, as_it_is, Some(&here), &provisioned).contains("needs IOPS"));
}

#[test]
fn a_verify_puts_together_what_it_needs_no_key_for_and_mounts_it_to_be_looked_at() {
    use crate::restore::stack::Keys;
    use crate::restore::verify::restored;
    let set = set(3);
    let mut layout = layout(&set);
    let ids: Vec<VolumeId> = layout.volumes.iter().map(|v| v.id.clone()).collect();
    layout.filesystems.truncate(2);
    let [two, secret] = &mut layout.filesystems[..] else { panic!() };
    (two.fstype, two.stack) = ("btrfs".into(), "nvme1n1 + nvme2n1".into());
    two.volumes = ids[..2].to_vec();
    (secret.stack, secret.volumes) = ("dm-1 (luks x) → nvme3n1".into(), ids[2..].to_vec());
    let volume = restored::Volume::default();
    let planned =
        restored::planned(&set, &layout, &snapshots(&set), &host(&[]), &volume, &Keys::default()).unwrap();
    let [(place, why)] = &planned.left_out[..] else { panic!("{:?}", planned.left_out) };
    assert!(place == Path::new("/") && why.contains("LUKS"), "{why}");
    let plan = planned.plan.unwrap();
    let made: Vec<&VolumeId> = plan.volumes.iter().map(|v| &v.source).collect();
    assert_eq!(made, [&ids[0], &ids[1]], "no volume is made of what is not looked at");
    assert_eq!((plan.reach, plan.stack.tops.len()), (Reach::Attached, 1));
    assert_eq!(plan.filesystems[0].options.filesystem, ["ro", "rescue=nologreplay"]);
}
