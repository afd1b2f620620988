//! What is taken: mounts, volumes and tags that are chosen or left out.

use rig::fixture::{Host, facts, plan_with, told, vol};
use stillpoint::plan::{Consistency, Method, PlanError, PointInTimeCall};

use super::{filesystem, host, left, mounts, volumes};

#[test]
fn one_mount_takes_its_volumes_and_all_that_is_mounted_on_them() {
    let plan = plan_with(&facts("stacks"), |s| s.mounts = vec!["/mnt/deep".into()]).unwrap();
    assert_eq!(mounts(&plan), ["/mnt/deep", "/mnt/luks", "/mnt/part"]);
    assert_eq!(filesystem(&plan, "/mnt/luks").reason, format!("shares {} with /mnt/deep", vol('5')));
    assert_eq!(plan.call, PointInTimeCall::CreateSnapshot { volume: vol('5') });
}

#[test]
fn sharing_goes_on_over_stripes() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nebs nvme2n1 259:2 9 vol-22222222222222222\n\
         ebs nvme3n1 259:3 9 vol-33333333333333333\nebs nvme4n1 259:4 9 vol-44444444444444444\n\
         dm dm-0 254:0 9 name=a uuid=LVM-a on=nvme1n1,nvme2n1\ndm dm-1 254:1 9 name=b uuid=LVM-b on=nvme2n1,nvme3n1\n\
         dm dm-2 254:2 9 name=c uuid=LVM-c on=nvme3n1\n\
         mount 2 1 254:0 / /a rw - xfs /dev/a rw\nmount 3 1 254:1 / /b rw - xfs /dev/b rw\n\
         mount 4 1 254:2 / /c rw - xfs /dev/c rw\nmount 5 1 259:4 / /d rw - xfs /dev/d rw\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
         attached vol-33333333333333333 /dev/sdh 1 gp3\nattached vol-44444444444444444 /dev/sdi 1 gp3\n",
    );
    let plan = plan_with(&facts, |s| s.mounts = vec!["/a".into()]).unwrap();
    assert_eq!((mounts(&plan), volumes(&plan).as_str()), (vec!["/a", "/b", "/c"], "123"));
}

/// The kernel has a thin volume on its pool alone, and that on its data and its metadata.
#[test]
fn a_thin_volume_takes_every_disk_of_its_pool() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nebs nvme2n1 259:2 9 vol-22222222222222222\n\
         ebs nvme3n1 259:3 9 vol-33333333333333333\nebs nvme4n1 259:4 9 vol-44444444444444444\n\
         dm dm-0 254:0 9 name=vg0-pool_tmeta uuid=LVM-a-tmeta on=nvme3n1\n\
         dm dm-1 254:1 9 name=vg0-pool_tdata uuid=LVM-b-tdata on=nvme1n1,nvme2n1\n\
         dm dm-2 254:2 9 name=vg0-pool-tpool uuid=LVM-c-tpool on=dm-0,dm-1\n\
         dm dm-3 254:3 9 name=vg0-data uuid=LVM-d on=dm-2\ndm dm-4 254:4 9 name=vg0-snap uuid=LVM-e on=dm-2\n\
         mount 2 1 254:3 / /data rw - ext4 /dev/mapper/vg0-data rw\n\
         mount 3 1 254:4 / /snap rw - ext4 /dev/mapper/vg0-snap rw\n\
         mount 4 1 259:4 / /d rw - xfs /dev/d rw\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
         attached vol-33333333333333333 /dev/sdh 1 gp3\nattached vol-44444444444444444 /dev/sdi 1 gp3\n",
    );
    let plan = plan_with(&facts, |s| s.mounts = vec!["/data".into()]).unwrap();
    assert_eq!((mounts(&plan), volumes(&plan).as_str()), (vec!["/data", "/snap"], "123"));
    let stack = "dm-3 (lvm vg0-data) → dm-2 (lvm vg0-pool-tpool) → dm-0 (lvm vg0-pool_tmeta) + dm-1 (lvm vg0-pool_tdata) → \
                 nvme3n1 + nvme1n1 + nvme2n1";
    assert_eq!(filesystem(&plan, "/data").stack, stack, "as a restore reads it");
}

#[test]
fn an_excluded_mount_takes_its_volume_out_unless_something_else_is_on_it() {
    let facts = facts("stacks");
    let plan = plan_with(&facts, |s| s.exclude_mounts = vec!["/mnt/bind".into()]).unwrap();
    assert_eq!(volumes(&plan), "0345");
    assert_eq!(left(&plan, "/mnt/lv"), "excluded by `exclude_mounts`");
    assert_eq!(
        left(&plan, "vol-1"),
        "/mnt/lv is excluded by `exclude_mounts`; dm-1 vg0-small has no mounted filesystem"
    );

    let error = plan_with(&facts, |s| s.exclude_mounts = vec!["/mnt/part".into()]).unwrap_err();
    insta::assert_snapshot!(told(&error), @"
    /mnt/part on vol-55555555555555555 would be only partly consistent: excluded by `exclude_mounts`, but shares vol-55555555555555555 with /mnt/luks
    hint: take the filesystem whole, leave out its other volumes too, or set `allow_partial = true`, which makes the set crash-consistent at best
    ");
    let plan = plan_with(&facts, |s| {
        s.exclude_mounts = vec!["/mnt/part".into()];
        s.allow_partial = true;
    })
    .unwrap();
    assert!(!mounts(&plan).contains(&"/mnt/part"));
    let why = format!("excluded by `exclude_mounts`, but shares {} with /mnt/luks", vol('5'));
    assert_eq!(left(&plan, "/mnt/part"), why);
    assert_eq!(plan.best, Consistency::Crash);
    let crash: Vec<_> = plan.volumes.iter().filter(|v| v.best == Consistency::Crash).map(|v| &v.id).collect();
    assert_eq!(crash, [&vol('5')], "the other volumes keep their own label");
    assert!(plan.notes[0].starts_with("/mnt/part on vol-5"), "{:?}", plan.notes);
}

#[test]
fn names_must_be_exact_and_errors_offer_the_nearest() {
    let facts = facts("stacks");
    let mount = |m: &str| told(&plan_with(&facts, |s| s.mounts = vec![m.into()]).unwrap_err());
    insta::assert_snapshot!(mount("/mnt/lv/u"), @"
    `mounts` names /mnt/lv/u, which is not a mount point
    hint: it is a folder of the mount /mnt/lv
    ");
    insta::assert_snapshot!(mount("/mnt/prat"), @"
    `mounts` names /mnt/prat, which is not a mount point
    hint: it is a folder of the mount /; named similarly: /mnt/part
    ");
    let excluded = told(&plan_with(&facts, |s| s.exclude_mounts = vec!["/x".into()]).unwrap_err());
    assert!(excluded.starts_with("`exclude_mounts` names /x"), "{excluded}");
    let methods = told(&plan_with(&facts, |s| s.methods.extend([("/x".into(), Method::Sync)])).unwrap_err());
    assert!(methods.starts_with("`methods` names /x"), "{methods}");

    let other = "vol-5555555555555555a".parse().unwrap();
    let error = plan_with(&facts, |s| s.volumes = vec![other]).unwrap_err();
    insta::assert_snapshot!(told(&error), @"
    `volumes` names vol-5555555555555555a, which is not attached to this instance
    hint: attached are vol-55555555555555555
    ");
    assert!(plan_with(&facts, |s| s.exclude_volumes = vec![vol('9')]).is_err());
    let plan = plan_with(&facts, |s| s.mounts = vec!["/mnt/bind/".into()]).unwrap();
    assert_eq!(mounts(&plan), ["/mnt/lv"], "by its bind mount, with a slash at the end");
}

#[test]
fn mounts_and_volumes_add_up_and_tags_narrow() {
    let facts = facts("stacks");
    let plan = plan_with(&facts, |s| {
        s.mounts = vec!["/mnt/md".into()];
        s.volumes = vec![vol('5')];
    })
    .unwrap();
    assert_eq!(volumes(&plan), "345");
    let tags = |list: &[(&str, &str)], mounts: &[&str]| {
        plan_with(&facts, |s| {
            s.volume_tags = list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            s.mounts = mounts.iter().map(Into::into).collect();
        })
    };
    assert_eq!(volumes(&tags(&[("Role", "data"), ("Tier", "lv")], &[]).unwrap()), "12");
    let any = tags(&[("Tier", "")], &[]).unwrap();
    assert_eq!(volumes(&any), "12345", "an empty value is any value");
    assert_eq!(left(&any, "vol-0"), "without the tag Tier");
    assert_eq!(volumes(&tags(&[("Tier", "lv")], &["/mnt/lv", "/mnt/md"]).unwrap()), "12");
    assert!(matches!(tags(&[("Tier", "x")], &[]), Err(PlanError::NoTagMatch { .. })));

    let mut half = facts.clone();
    half.volumes.iter_mut().find(|v| v.id == vol('2')).unwrap().tags.clear();
    let error = plan_with(&half, |s| s.volume_tags = [("Tier".into(), "lv".into())].into()).unwrap_err();
    assert!(matches!(error, PlanError::Partial { .. }), "{error}");
}

#[test]
fn a_choice_that_cannot_be_had_is_an_error() {
    let nitro = facts("nitro");
    for (mount, reason) in [
        ("/scratch", "instance store nvme1n1: not snapshottable"),
        ("/mnt/shared", "network"),
        ("/tmp", "in memory or made by the kernel"),
        ("/run/live", "its files are on another filesystem, which must be named instead"),
    ] {
        match plan_with(&nitro, |s| s.mounts = vec![mount.into()]) {
            Err(PlanError::NotOnEbs { reason: told, .. }) => assert_eq!(told, reason, "{mount}"),
            other => panic!("{mount}: {other:?}"),
        }
    }
    let by_id = |digit| plan_with(&nitro, |s| s.volumes = vec![vol(digit)]);
    assert!(matches!(by_id('5'), Err(PlanError::NoFilesystem { .. })));
    assert!(matches!(by_id('6'), Err(PlanError::NoDisk { .. })));
    let raw = plan_with(&nitro, |s| {
        s.volumes = vec![vol('5')];
        s.unmounted_volumes = stillpoint::config::settings::UnmountedVolumes::Crash;
    })
    .unwrap();
    assert_eq!((volumes(&raw).as_str(), raw.best), ("5", Consistency::Crash));
    assert!(raw.witnesses.is_empty(), "a raw volume at crash needs no witness");

    let against = |change: fn(&mut stillpoint::config::settings::PlanSettings)| plan_with(&nitro, change);
    for error in [
        against(|s| (s.mounts, s.exclude_mounts) = (vec!["/srv".into()], vec!["/srv/logs".into()])),
        against(|s| (s.mounts, s.exclude_boot_volume) = (vec!["/".into()], true)),
        against(|s| (s.volumes, s.exclude_volumes) = (vec![vol('2')], vec![vol('2')])),
    ] {
        assert!(matches!(error, Err(PlanError::Contradiction { .. })), "{error:?}");
    }
    let error =
        against(|s| (s.volumes, s.exclude_mounts) = (vec![vol('0')], vec!["/".into(), "/boot/efi".into()]));
    assert!(matches!(error, Err(PlanError::Partial { .. })), "{error:?}");
}

#[test]
fn a_read_only_image_file_is_left_out_and_a_read_only_disk_is_taken() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nloop loop0 7:0 9 file=/a.snap\n\
         mount 2 1 259:1 / /a ro - squashfs /dev/nvme1n1 ro\nmount 3 1 7:0 / /b ro - squashfs /dev/loop0 ro\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert_eq!(mounts(&plan), ["/", "/a"]);
    assert_eq!(filesystem(&plan, "/a").method, Method::Sync, "nothing to freeze on a disk of its own");
    assert_eq!(left(&plan, "/b"), "read-only image");
}

#[test]
fn images_elsewhere_are_left_out() {
    let facts = host(
        "disk vda 254:0 9\nloop loop0 7:0 9 file=/run/a.img\nloop loop1 7:1 9 file=/other/b.img\n\
         mount 2 1 0:20 / /run rw - tmpfs tmpfs rw\nmount 3 1 254:0 / /other rw - ext4 /dev/vda rw\n\
         mount 4 1 7:0 / /a rw - ext4 /dev/loop0 rw\nmount 5 1 7:1 / /b rw - ext4 /dev/loop1 rw\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert_eq!(mounts(&plan), ["/"]);
    assert_eq!(left(&plan, "/a"), "its image file is on /run (tmpfs)");
    assert_eq!(left(&plan, "/b"), "on disk vda, which is not an EBS volume");
}

#[test]
fn nothing_to_do_says_what_was_seen() {
    let facts = Host::of(
        "disk vda 254:0 9\nmount 1 0 254:0 / / rw - ext4 /dev/vda rw\nmount 2 1 0:20 / /run rw - tmpfs tmpfs rw\n\
         ebs nvme1n1 259:1 9 vol-11111111111111111\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    )
    .facts();
    insta::assert_snapshot!(told(&plan_with(&facts, |_| {}).unwrap_err()), @r#"
    nothing to snapshot: / (ext4): on disk vda, which is not an EBS volume; vol-11111111111111111 (/dev/sdf): no mounted filesystem; take it with `unmounted_volumes = "crash"`; 1 kernel and memory filesystem is on no disk
    hint: every mounted filesystem on an attached EBS volume is taken unless a setting leaves it out; volumes without one need `unmounted_volumes = "crash"`
    "#);
}
