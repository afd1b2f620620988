//! The call that fixes the point in time, and the limits EC2 sets it.

use rig::fixture::Host;
use rig::fixture::plan_with;
use stillpoint::discover::Facts;
use stillpoint::plan::{PlanError, PointInTimeCall};

/// `count` attached volumes, each with a filesystem; the first is the boot volume.
fn many(count: usize) -> Facts {
    let mut text = "root-device /dev/d0\n".to_owned();
    for i in 0..count {
        let mount = if i == 0 { "/".to_owned() } else { format!("/m{i}") };
        let parent = u32::from(i > 0);
        text += &format!(
            "ebs nvme{i}n1 259:{i} 1024 vol-{i:017x}\nattached vol-{i:017x} /dev/d{i} 1 gp3\n\
             mount {} {parent} 259:{i} / {mount} rw - ext4 /dev/nvme{i}n1 rw\n",
            i + 1
        );
    }
    Host::of(&text).facts()
}

#[test]
fn the_call_follows_from_the_volumes_in_the_set_and_beside_it() {
    let pick = |count: usize, mounts: &[&str]| {
        plan_with(&many(count), |s| s.mounts = mounts.iter().map(Into::into).collect()).unwrap()
    };
    let each = pick(45, &["/m1", "/m2"]);
    assert!(matches!(each.call, PointInTimeCall::CreateSnapshotEach { ref volumes } if volumes.len() == 2));
    assert!(each.notes.iter().any(|n| n.starts_with("42 data volumes stay out")), "{:?}", each.notes);
    // 43 attached: boot, two in, 40 out.
    match pick(43, &["/m1", "/m2"]).call {
        PointInTimeCall::CreateSnapshots { exclude_boot_volume: true, exclude_data_volumes } => {
            assert_eq!(exclude_data_volumes.len(), 40);
            assert!(!exclude_data_volumes.contains(&"vol-00000000000000000".parse().unwrap()));
        }
        other => panic!("{other:?}"),
    }
    let call = pick(3, &["/", "/m2"]).call;
    let one_out = vec!["vol-00000000000000001".parse().unwrap()];
    let expected =
        PointInTimeCall::CreateSnapshots { exclude_boot_volume: false, exclude_data_volumes: one_out };
    assert_eq!(call, expected);
    assert!(matches!(pick(3, &["/m2"]).call, PointInTimeCall::CreateSnapshot { .. }));
    assert_eq!(plan_with(&many(128), |_| {}).unwrap().volumes.len(), 128);
    assert_eq!(plan_with(&many(129), |_| {}), Err(PlanError::TooMany { count: 129 }));
}

#[test]
fn the_boot_volume_is_first_and_is_known_without_its_name() {
    let mut facts = many(12);
    let first: Vec<_> =
        plan_with(&facts, |_| {}).unwrap().volumes.into_iter().map(|v| v.device_name).collect();
    assert_eq!(
        (first[0].as_str(), first[2].as_str(), first[11].as_str()),
        ("/dev/d0", "/dev/d2", "/dev/d11")
    );
    facts.volumes.iter_mut().for_each(|v| v.boot = false);
    let plan = plan_with(&facts, |s| s.exclude_boot_volume = true).unwrap();
    let without_root =
        PointInTimeCall::CreateSnapshots { exclude_boot_volume: true, exclude_data_volumes: vec![] };
    assert_eq!(plan.call, without_root);
    let boot = "vol-00000000000000000".parse().unwrap();
    assert!(plan.volumes.len() == 11 && plan.volumes.iter().all(|v| v.id != boot), "the one under / is out");
    facts.filesystems.retain(|f| f.mount_point().to_str() != Some("/"));
    assert_eq!(plan_with(&facts, |s| s.exclude_boot_volume = true), Err(PlanError::BootUnknown));
}
