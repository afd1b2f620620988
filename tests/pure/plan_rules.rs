//! The rules of the plan, one by one: each test fails when its rule is taken out.

use std::cmp::Reverse;
use std::path::Path;

use rig::fixture::{Host, facts};
use rig::fixture::{plan_with, told, vol};
use stillpoint::discover::Facts;
use stillpoint::plan::{Consistency, Method, Plan, PlanError, PlannedFilesystem, PointInTimeCall, Wave};

fn mounts(plan: &Plan) -> Vec<&str> {
    let mut mounts: Vec<_> = plan.filesystems.iter().map(|f| f.mount_point.to_str().unwrap()).collect();
    mounts.sort_unstable();
    mounts
}

fn volumes(plan: &Plan) -> String {
    plan.volumes.iter().map(|v| v.id.as_str().chars().last().unwrap()).collect()
}

fn filesystem<'a>(plan: &'a Plan, mount: &str) -> &'a PlannedFilesystem {
    plan.filesystems.iter().find(|f| f.mount_point.to_str() == Some(mount)).unwrap()
}

fn left<'a>(plan: &'a Plan, what: &str) -> &'a str {
    &plan.left_out.iter().find(|l| l.what.starts_with(what)).unwrap().reason
}

const ROOT: &str = "ebs nvme0n1 259:0 8192 vol-00000000000000000\n\
    mount 1 0 259:0 / / rw - ext4 /dev/nvme0n1 rw\nroot-device /dev/xvda\n\
    attached vol-00000000000000000 /dev/xvda 8 gp3\n";

/// A root on one volume, then `rest`.
fn host(rest: &str) -> Facts {
    Host::of(&format!("{ROOT}{rest}")).facts()
}

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

#[test]
fn an_excluded_mount_takes_its_volume_out_unless_something_else_is_on_it() {
    let facts = facts("stacks");
    let plan = plan_with(&facts, |s| s.exclude_mounts = vec!["/mnt/bind".into()]).unwrap();
    assert_eq!(volumes(&plan), "0345");
    assert_eq!(left(&plan, "/mnt/lv"), "excluded by `exclude_mounts`");
    assert_eq!(left(&plan, "vol-1"), "/mnt/lv is excluded by `exclude_mounts`");

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
    assert_eq!(plan.best, Consistency::Crash);
    let crash: Vec<_> = plan.volumes.iter().filter(|v| v.best == Consistency::Crash).map(|v| &v.id).collect();
    assert_eq!(crash, [&vol('5')], "the other volumes keep their own label");
    assert!(plan.notes[0].starts_with("/mnt/part on vol-5"), "{:?}", plan.notes);
}

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
fn a_disk_that_ec2_does_not_list_is_refused() {
    let mut facts = facts("stacks");
    facts.volumes.retain(|v| v.id != vol('0'));
    facts.root_device_name = None;
    let error = plan_with(&facts, |_| {}).unwrap_err();
    insta::assert_snapshot!(told(&error), @r#"
    cannot take / (ext4): vol-00000000000000000 (nvme0n1) is not attached according to EC2
    hint: if it was attached or detached just now, try again; otherwise leave it out with `exclude_mounts = ["/"]`
    "#);
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
fn methods() {
    let nitro = facts("nitro");
    let plan = plan_with(&nitro, |s| s.methods.extend([("/srv/logs".into(), Method::Sync)])).unwrap();
    assert_eq!(filesystem(&plan, "/boot/efi").method, Method::Sync, "vfat cannot freeze");
    assert_eq!(filesystem(&plan, "/").method, Method::Freeze);
    assert_eq!(filesystem(&plan, "/srv").method, Method::Sync, "asked for, by another of its mount points");
    assert_eq!(plan.best, Consistency::Filesystem, "quiet is as good as frozen");
    let error = plan_with(&nitro, |s| s.methods.extend([("/boot/efi".into(), Method::Freeze)])).unwrap_err();
    assert!(matches!(error, PlanError::CannotFreeze { .. }));
    let error = plan_with(&nitro, |s| s.methods.extend([("/".into(), Method::Unmount)])).unwrap_err();
    assert!(matches!(error, PlanError::CannotUnmount { .. }));
    let two = [("/srv".into(), Method::Sync), ("/srv/logs".into(), Method::Freeze)];
    let error = plan_with(&nitro, |s| s.methods.extend(two)).unwrap_err();
    assert!(matches!(error, PlanError::TwoMethods { .. }));
}

#[test]
fn what_cannot_freeze_is_offered_the_unmount_until_its_method_is_said() {
    let nitro = facts("nitro");
    let offers = |plan: &Plan| plan.notes.iter().filter(|n| n.contains("/boot/efi (vfat)")).count();
    assert_eq!(offers(&plan_with(&nitro, |_| {}).unwrap()), 1);
    for method in [Method::Sync, Method::Unmount] {
        let plan = plan_with(&nitro, |s| s.methods.extend([("/boot/efi".into(), method)])).unwrap();
        assert_eq!(filesystem(&plan, "/boot/efi").method, method);
        assert_eq!(offers(&plan), 0);
        assert_eq!(plan.best, Consistency::Filesystem);
    }
}

#[test]
fn read_only_images() {
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
fn images_freeze_before_what_holds_them_and_the_system_last() {
    let plan = plan_with(&facts("thin"), |_| {}).unwrap();
    let order: Vec<_> = plan.filesystems.iter().map(|f| (f.mount_point.to_str().unwrap(), f.wave)).collect();
    assert_eq!(
        order,
        [
            ("/mnt/inner", Wave::Inner(Reverse(2))),
            ("/mnt/outer", Wave::Inner(Reverse(1))),
            ("/one", Wave::Data),
            ("/var/lib/containers/storage/volumes", Wave::Data),
            ("/", Wave::System),
        ]
    );
    let volumes: Vec<_> = filesystem(&plan, "/mnt/inner").volumes.clone();
    assert_eq!(volumes, [vol('1'), vol('2')], "those of what holds it");
}

#[test]
fn what_holds_a_system_path_is_system() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nebs nvme2n1 259:2 9 vol-22222222222222222\n\
         mount 2 1 259:1 / /mnt/state rw - ext4 /dev/a rw\nmount 3 1 259:1 /log /var/log rw - ext4 /dev/a rw\n\
         mount 4 1 259:2 / /upper rw - ext4 /dev/b rw\n\
         mount 5 1 0:40 / /etc rw - overlay overlay rw,lowerdir=/etc,upperdir=/upper/u,workdir=/upper/w\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert!(plan.filesystems.iter().all(|f| f.wave == Wave::System), "{:#?}", plan.filesystems);
    assert_eq!(left(&plan, "/etc"), "writes go to /upper, which is made quiet");
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
fn witnesses_are_what_no_filesystem_of_the_set_covers() {
    let names = |ws: &[stillpoint::plan::WitnessDevice]| {
        ws.iter().map(|w| w.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let plan = plan_with(&facts("nitro"), |_| {}).unwrap();
    assert_eq!(
        names(&plan.witnesses),
        "nvme0n1p14 nvme0n1p3",
        "not swap, not the whole disk, not instance store"
    );
    assert_eq!(names(&filesystem(&plan, "/srv").witnesses), "nvme2n1 nvme3n1", "every member");
    assert_eq!(names(&filesystem(&plan, "/boot/efi").witnesses), "nvme0n1p128");
    let plan = plan_with(&facts("stacks"), |_| {}).unwrap();
    assert_eq!(names(&plan.witnesses), "dm-1", "a volume of LVM without a mount, not the disk it shares");
    assert_eq!(names(&filesystem(&plan, "/mnt/loop").witnesses), "loop0");
    let plan = plan_with(&facts("thin"), |_| {}).unwrap();
    assert_eq!(names(&plan.witnesses), "dm-5");
    let plan = plan_with(&facts("thin"), |s| s.mounts = vec!["/".into()]).unwrap();
    assert_eq!(names(&plan.witnesses), "", "nothing on volumes outside the set");
    assert!(plan_with(&facts("thin"), |_| {}).unwrap().witnesses[0].stat.ends_with("dm-5/stat"));
}

#[test]
fn a_device_below_swap_or_over_an_image_is_no_witness() {
    let facts = host(
        "ebs nvme1n1 259:1 99 vol-11111111111111111\npart nvme1n1p1 259:2 50 of=nvme1n1\n\
         part nvme1n1p2 259:3 49 of=nvme1n1\ndm dm-0 254:0 49 name=vg-swap uuid=LVM-a on=nvme1n1p2\n\
         loop loop0 7:0 50 file=/data/vm.img\nswap /dev/dm-0 partition 1 0 -2\n\
         mount 2 1 259:2 / /data rw - xfs /dev/nvme1n1p1 rw\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert_eq!(plan.witnesses, [], "the partition under swap counts swap's writes");
    assert_eq!(plan.notes, [format!("Swap is not data, so it is not watched: dm-0 vg-swap ({}).", vol('1'))]);
}

#[test]
fn what_holds_something_raises_what_can_be_reached_and_what_only_tells_does_not() {
    use stillpoint::config::settings::{CommandHook, Hook, HookKind, OnFailure};
    let command = || Some(vec!["/bin/true".to_owned()]);
    let best = |pre, post| {
        let hook = Hook {
            name: "pg".into(),
            kind: HookKind::Hook(CommandHook { pre, post, ..CommandHook::default() }),
            timeout: std::time::Duration::from_secs(1),
            on_failure: OnFailure::Abort,
        };
        plan_with(&facts("xen"), |s| s.hooks = vec![hook]).unwrap().best
    };
    assert_eq!(best(command(), None), Consistency::Application);
    assert_eq!(best(None, command()), Consistency::Filesystem);
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

/// Its source names one of its devices: that must not be taken for all of them.
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
