//! What is put together for which filesystem, and what is refused before anything is made.

use super::*;
use crate::consistency::Method;

fn id(n: usize) -> VolumeId {
    format!("vol-{n:017x}").parse().unwrap()
}

fn filesystem(place: &str, fstype: &str, stack: &str, on: &[usize]) -> SetFilesystem {
    SetFilesystem {
        mount_point: place.into(),
        fstype: fstype.into(),
        uuid: None,
        method: Method::Freeze,
        volumes: on.iter().map(|n| id(*n)).collect(),
        stack: stack.into(),
        options: "rw".into(),
        also: vec![],
        roots: vec![],
    }
}

fn layout(filesystems: Vec<SetFilesystem>) -> Layout {
    let volume = |n: usize| SetVolume {
        id: id(n),
        device_name: format!("/dev/sd{n}"),
        size_gib: 8,
        volume_type: "gp3".into(),
        iops: None,
        throughput: None,
        encrypted: false,
        boot: false,
    };
    Layout { volumes: (0..8).map(volume).collect(), filesystems, applications: vec![] }
}

/// The plan of the first filesystem.
fn planned(filesystems: Vec<SetFilesystem>, read_only: bool) -> Result<StackPlan, String> {
    let layout = layout(filesystems);
    let volumes: Vec<&SetVolume> = layout.volumes.iter().collect();
    let mut plan = StackPlan::of(&"0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".parse().unwrap());
    let added = plan.add(0, &layout.filesystems[0], &layout, &volumes, read_only);
    added.map(|()| plan).map_err(|refusal| refusal.to_string())
}

fn bottoms(plan: &StackPlan) -> Vec<(usize, Option<u32>)> {
    plan.bottoms.iter().map(|b| (b.volume, b.partition)).collect()
}

#[test]
fn a_volume_group_gets_a_name_of_its_own_and_what_is_needed_is_activated() {
    let data = filesystem("/data", "ext4", "dm-0 (lvm vg0-data) → nvme1n1 + nvme2n1", &[1, 2]);
    let other = filesystem("/log", "xfs", "dm-1 (lvm vg0-log) → nvme3n1p1", &[3]);
    let strange = filesystem("/x", "xfs", "dm-2 (lvm vg1-x) → nvme4n1", &[4]);
    let all = vec![data.clone(), other, strange];
    let needed = volumes_of(&layout(all.clone()), &[&data]);
    assert_eq!(
        needed.into_iter().collect::<Vec<_>>(),
        [id(1), id(2), id(3)],
        "a group is one with all of it"
    );
    let plan = planned(all, false).unwrap();
    assert_eq!(bottoms(&plan), [(1, None), (2, None), (3, Some(1))]);
    let group = &plan.groups["vg0"];
    assert_eq!((group.name.as_str(), plan.groups.len()), ("vg0_r1c0b9e11", 1));
    assert_eq!(group.volumes.iter().collect::<Vec<_>>(), ["data"]);
    let kind = TopKind::Logical { group: "vg0".into(), volume: "data".into() };
    assert_eq!(plan.tops[&0], Top { kind, volumes: BTreeSet::from([1, 2]) });
    assert!(plan.by_hand().iter().any(|c| c.contains("--basevgname vg0_r1c0b9e11")), "{:?}", plan.by_hand());
    assert!(plan.tools().iter().any(|(name, _)| *name == "vgimportclone"));
    assert!(!plan.luks && !plan.arrays);
    let long = filesystem("/l", "xfs", &format!("dm-0 (lvm {}-x) → nvme1n1", "v".repeat(120)), &[1]);
    let plan = planned(vec![long], false).unwrap();
    assert!(plan.groups.values().all(|g| g.name.len() < 127), "device mapper's names have an end");
}

#[test]
fn a_thin_volume_needs_the_program_that_checks_its_pool() {
    let pool = "dm-3 (lvm vg0-pool-tpool) → dm-1 (lvm vg0-pool_tdata) + dm-0 (lvm vg0-pool_tmeta) → nvme1n1 + nvme2n1";
    let thin = filesystem("/thin", "ext4", &format!("dm-5 (lvm vg0-data) → {pool}"), &[1, 2]);
    let snap = filesystem("/snap", "ext4", &format!("dm-6 (lvm vg0-snap) → {pool}"), &[1, 2]);
    let plain = filesystem("/plain", "xfs", "dm-7 (lvm vg0-plain) → nvme2n1", &[2]);
    let plan = planned(vec![thin.clone(), snap, plain.clone()], false).unwrap();
    assert_eq!(bottoms(&plan), [(1, None), (2, None)], "where the pool has its data and where its metadata");
    assert!(plan.groups["vg0"].thin && plan.tools().contains(&thin::CHECK));
    assert_eq!(plan.groups["vg0"].volumes.iter().collect::<Vec<_>>(), ["data"]);
    let plan = planned(vec![plain, thin], false).unwrap();
    assert!(!plan.groups["vg0"].thin, "the pool of another one is not activated");
}

#[test]
fn layers_are_put_together_below_one_another() {
    let deep = "dm-4 (lvm vg1-deep) → dm-3 (luks crypt1) → md0 (raid1) → nvme5n1p2 + nvme6n1p2";
    let plan = planned(vec![filesystem("/deep", "ext4", deep, &[5, 6])], false).unwrap();
    assert_eq!(bottoms(&plan), [(5, Some(2)), (6, Some(2))]);
    assert!(plan.arrays && plan.luks && plan.groups.contains_key("vg1"));
    let order: Vec<String> = plan.by_hand().iter().map(|c| c.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(
        order,
        ["mdadm", "mdadm", "mdadm", "mdadm", "cryptsetup", "cryptsetup", "vgimportclone", "lvchange"]
    );
    let luks = "dm-1 (luks secret → \") → nvme1n1";
    assert!(planned(vec![filesystem("/l", "ext4", luks, &[1])], false).is_err(), "a name with an arrow");
    let two = filesystem("/two", "btrfs", "nvme1n1 + nvme2n1", &[1, 2]);
    assert_eq!(planned(vec![two], false).unwrap().tops[&0].kind, TopKind::Members);
    let array = filesystem("/md", "xfs", "md0 (raid0) → nvme1n1 + nvme2n1", &[1, 2]);
    assert_eq!(planned(vec![array], true).unwrap().tops[&0].kind, TopKind::Array);
}

#[test]
fn what_is_not_put_together_is_refused_and_named() {
    for (fstype, stack, why) in [
        (
            "ext4",
            "dm-4 (lvm vg0-a) → dm-3 (lvm vg0-p-tpool) → dm-2 (lvm vg0-p_tdata) → dm-1 (lvm vg0-p_tdata_rimage_0) → nvme1n1",
            "RAID",
        ),
        ("ext4", "dm-4 (lvm vg0-a) → dm-3 (lvm vg0-p-tpool) + dm-2 (lvm vg0-o) → nvme1n1", "on another one"),
        ("ext4", "dm-4 (lvm vg0-a) → dm-3 (lvm vg0-a_rimage_0) + dm-2 (lvm vg0-a_rmeta_0) → nvme1n1", "RAID"),
        ("ext4", "dm-4 (lvm vg0-a) → dm-3 (lvm vg0-a_corig) + dm-2 (lvm vg0-c_cvol) → nvme1n1", "cache"),
        ("ext4", "dm-4 (lvm vg0-a) → dm-3 (lvm vg0-a-real) → nvme1n1", "snapshot"),
        ("ext4", "dm-4 (lvm vg0-a) → dm-3 (lvm vg1-b) → nvme1n1", "on another one"),
        ("ext4", "nvme1n1; external journal nvme2n1", "beside its own"),
        ("ext4", "dm-0 (multipath a) → nvme1n1", "not put together here"),
        ("ext4", "md0p1 → md0 (raid1) → nvme1n1", "not put together here"),
        ("ext4", "nvme1n1 + nvme2n1", "2 devices"),
        ("ext4", "dm-0 (lvm vg0-a)", "no disk"),
    ] {
        let said = planned(vec![filesystem("/a", fstype, stack, &[1, 2])], false).unwrap_err();
        assert!(said.contains("/a is on") && said.contains(why), "{stack}: {said}");
    }
    let lvm = || filesystem("/a", "ext4", "dm-0 (lvm vg0-a) → nvme1n1", &[1]);
    assert!(planned(vec![lvm()], true).unwrap_err().contains("another name"), "a new name is written");
    let two = filesystem("/a", "btrfs", "nvme1n1 + nvme2n1", &[1, 2]);
    assert!(planned(vec![two], true).unwrap_err().contains("several disks"));
    let elsewhere = filesystem("/a", "ext4", "dm-0 (lvm vg0-a) → nvme1n1", &[9]);
    assert!(planned(vec![elsewhere], false).unwrap_err().contains("not of the set"));
}
