//! How each filesystem is made quiet, in which order, and which counters prove it.

use std::cmp::Reverse;

use rig::fixture::{facts, plan_with, vol};
use stillpoint::discover::DeviceInUse;
use stillpoint::plan::{Consistency, Method, Plan, PlanError, Wave};

use super::{filesystem, host, left};

#[test]
fn a_method_counts_for_the_whole_filesystem_and_must_be_possible_there() {
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

/// What is mounted in another namespace, or raw in use, is in the snapshot and not frozen.
#[test]
fn a_device_that_is_in_use_without_a_mount_here_lowers_its_volume_and_says_who() {
    let mut facts = facts("nitro");
    let device = facts.devices.iter().find(|d| d.name == "nvme0n1p3").unwrap();
    let why = "ext4 is mounted on /x in the mount namespace of lxd (pid 7)".to_owned();
    facts.in_use = vec![DeviceInUse { name: device.name.clone(), dev: device.dev, why: why.clone() }];
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert_eq!(plan.best, Consistency::Crash);
    let lowered: Vec<_> = plan.volumes.iter().filter(|v| v.best == Consistency::Crash).collect();
    let said = format!("nvme0n1p3 cannot be taken for unused: {why}");
    assert_eq!(lowered.len(), 1, "its volume alone");
    assert_eq!((&lowered[0].id, lowered[0].limited_by.as_ref()), (&vol('0'), Some(&said)));
    assert!(
        plan.notes.contains(&format!("{} is only crash-consistent: {said}.", vol('0'))),
        "{:?}",
        plan.notes
    );
    assert_eq!(plan.witnesses, [], "nothing of that volume has to be proven quiet");
    assert!(plan_with(&facts, |s| s.mounts = vec!["/srv".into()]).unwrap().best > Consistency::Crash);
}

/// All other drivers claim what they are on. A loop device does not, so both can be in use.
#[test]
fn a_device_under_a_loop_device_is_claimed_too() {
    let facts = host(
        "ebs nvme1n1 259:1 99 vol-11111111111111111\npart nvme1n1p1 259:2 50 of=nvme1n1\n\
         part nvme1n1p2 259:3 49 of=nvme1n1\nloop loop0 7:0 49 file=/dev/nvme1n1p2\n\
         part nvme1n1p3 259:4 0 of=nvme1n1\n\
         mount 2 1 259:2 / /data rw - xfs /dev/nvme1n1p1 rw\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    let names =
        |ws: &[stillpoint::plan::WitnessDevice]| ws.iter().map(|w| w.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&plan.witnesses), ["loop0", "nvme1n1p2"], "not what has no size");
    assert_eq!(names(&plan.beneath), ["nvme1n1"]);
}
