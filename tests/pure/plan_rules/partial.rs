//! What a set would hold only a part of, or not know to hold whole, is refused.

use std::path::Path;

use rig::fixture::{Host, facts, plan_with, told, vol};
use stillpoint::plan::{Consistency, PlanError};

use super::{ROOT, filesystem, host, left, mounts, volumes};

#[test]
fn the_image_of_a_filesystem_in_the_set_is_in_the_set() {
    let error = plan_with(&facts("stacks"), |s| s.exclude_mounts = vec!["/mnt/loop".into()]).unwrap_err();
    assert!(matches!(error, PlanError::Partial { ref mount, .. } if mount.ends_with("loop")), "{error}");
}

#[test]
fn a_stripe_with_one_half_left_out_is_refused_or_crash() {
    let facts = facts("stacks");
    let error = plan_with(&facts, |s| s.exclude_volumes = vec![vol('2')]).unwrap_err();
    assert_eq!(
        error,
        PlanError::Partial {
            mount: "/mnt/lv".into(),
            volumes: vec![vol('1')],
            why: format!("{} is excluded by `exclude_volumes`", vol('2')),
        }
    );
    let plan = plan_with(&facts, |s| {
        s.exclude_volumes = vec![vol('2')];
        s.allow_partial = true;
    })
    .unwrap();
    assert_eq!(plan.best, Consistency::Crash);
    assert_eq!(filesystem(&plan, "/mnt/lv").volumes, [vol('1')], "still frozen, for what it is worth");
}

#[test]
fn a_stack_that_is_half_on_instance_store_is_partial() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\n\
         disk nvme2n1 259:2 9 model=Amazon_EC2_NVMe_Instance_Storage serial=AWS1\n\
         md md0 9:0 9 level=raid0 on=nvme1n1,nvme2n1\nmount 2 1 9:0 / /a rw - xfs /dev/md0 rw\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let error = plan_with(&facts, |_| {}).unwrap_err();
    assert!(
        matches!(&error, PlanError::Partial { why, .. } if why.contains("instance store nvme2n1")),
        "{error}"
    );
    let plan = plan_with(&facts, |s| s.exclude_mounts = vec!["/a".into()]).unwrap();
    assert_eq!(volumes(&plan), "0");
}

#[test]
fn a_disk_that_ec2_does_not_list_is_refused() {
    let mut facts = facts("stacks");
    facts.volumes.retain(|v| v.id != vol('0'));
    facts.root_device_name = None;
    let error = plan_with(&facts, |_| {}).unwrap_err();
    insta::assert_snapshot!(told(&error), @r#"
    cannot take / (ext4): vol-00000000000000000 (nvme0n1) is not attached according to EC2
    hint: if it was attached or detached just now, try again; otherwise leave it out with `exclude_mounts = ["/"]`
    "#);
    assert_eq!(plan_with(&facts, |s| s.mounts = vec!["/".into()]), Err(error), "by name, too");
    for change in [
        (|s| s.exclude_mounts = vec!["/".into()]) as fn(&mut stillpoint::config::settings::PlanSettings),
        |s| s.allow_partial = true,
        |s| s.mounts = vec!["/mnt/md".into()],
    ] {
        let plan = plan_with(&facts, change).unwrap();
        assert!(!mounts(&plan).contains(&"/"));
        assert!(!left(&plan, "/").is_empty());
    }
    let mut half = rig::fixture::facts("stacks");
    half.volumes.retain(|v| v.id != vol('2'));
    let error = plan_with(&half, |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("vol-22222222222222222 (nvme2n1), which is not attached according to EC2")
    );
}

#[test]
fn a_filesystem_that_may_be_anywhere_is_refused() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nmount 2 1 0:50 / /b rw - btrfs /dev/lost rw\n\
         part nvme0n1p1 259:9 9 of=nvme0n1\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let error = plan_with(&facts, |_| {}).unwrap_err();
    assert!(matches!(error, PlanError::UnknownDevices { .. }), "{error}");
    let plan = plan_with(&facts, |s| s.exclude_mounts = vec!["/b".into()]).unwrap();
    assert_eq!(plan.witnesses[0].name, "nvme0n1p1", "should it be there after all, the counter tells");
}

/// The source in mountinfo names one device of the btrfs, which must not be taken for all of them.
#[test]
fn a_btrfs_whose_devices_are_not_all_known_is_refused() {
    let uuid = "0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11";
    let text = format!(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nebs nvme2n1 259:2 9 vol-22222222222222222\n\
         btrfs {uuid} nvme1n1 nvme2n1\nmount 2 1 0:50 / /b rw - btrfs /dev/nvme1n1 rw\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n"
    );
    let members = format!("sys/fs/btrfs/{uuid}");
    let plan = |change: &dyn Fn(&Path)| {
        let host = Host::of(&format!("{ROOT}{text}"));
        change(&host.path(&members));
        plan_with(&host.facts(), |_| {})
    };
    assert_eq!(plan(&|_| {}).unwrap().volumes.len(), 3);
    let unknown = |change: &dyn Fn(&Path)| {
        let error = plan(change).unwrap_err();
        assert!(matches!(error, PlanError::UnknownDevices { .. }), "{error}");
    };
    // A link that leads nowhere, a device that is missing, and a filesystem that sysfs does not know.
    unknown(&|at| {
        std::fs::remove_file(at.join("devices/nvme2n1")).unwrap();
        std::os::unix::fs::symlink("../nowhere/loop7", at.join("devices/loop7")).unwrap();
    });
    unknown(&|at| {
        std::fs::remove_file(at.join("devices/nvme2n1")).unwrap();
        for id in ["1", "2"] {
            std::fs::create_dir_all(at.join("devinfo").join(id)).unwrap();
        }
    });
    unknown(&|at| std::fs::remove_dir_all(at).unwrap());
}

#[test]
fn a_covered_filesystem_cannot_be_frozen_by_its_path() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nmount 2 1 259:1 / /a rw - ext4 /dev/a rw\n\
         mount 3 2 0:20 / /a rw - tmpfs tmpfs rw\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let error = plan_with(&facts, |_| {}).unwrap_err();
    assert!(matches!(&error, PlanError::Partial { why, .. } if why.contains("covers it")), "{error}");
    let plan = plan_with(&facts, |s| s.exclude_volumes = vec![vol('1')]).unwrap();
    assert_eq!(mounts(&plan), ["/"]);
    let plan = plan_with(&facts, |s| s.allow_partial = true).unwrap();
    assert_eq!((mounts(&plan), plan.best), (vec!["/"], Consistency::Crash));
}

#[test]
fn a_stack_in_a_circle_ends() {
    let mut facts = facts("thin");
    let names: Vec<String> = facts.devices.iter().map(|d| d.name.clone()).collect();
    for device in facts.devices.iter_mut().filter(|d| d.name.starts_with("dm")) {
        device.below.clone_from(&names);
    }
    let _ = plan_with(&facts, |_| {});
}
