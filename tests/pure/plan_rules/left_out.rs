//! What stays out of a set, and what is told about it.

use rig::fixture::{Host, plan_with, told, vol};
use stillpoint::plan::{Consistency, PlanError};

use super::{filesystem, host, left};

#[test]
fn a_filesystem_whose_one_device_is_gone_is_left_out() {
    let facts = host("mount 2 1 259:77 / /gone rw - ext4 /dev/nvme7n1 rw\n");
    let plan = plan_with(&facts, |_| {}).unwrap();
    assert_eq!(left(&plan, "/gone"), "its device 259:77 is gone");
    assert_eq!((plan.filesystems.len(), plan.best), (1, Consistency::Filesystem));
}

/// It may be on any volume: nothing freezes it, and nobody has flushed it.
#[test]
fn one_that_may_be_anywhere_lowers_the_whole_set_where_that_is_allowed() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nmount 2 1 0:50 / /b rw - btrfs /dev/lost rw\n\
         mount 3 1 259:1 / /a rw - xfs /dev/nvme1n1 rw\nattached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    assert!(matches!(plan_with(&facts, |_| {}), Err(PlanError::UnknownDevices { .. })));
    let plan = plan_with(&facts, |s| s.allow_partial = true).unwrap();
    assert_eq!(left(&plan, "/b"), "its devices cannot be told");
    assert!(plan.volumes.iter().all(|v| v.best == Consistency::Crash), "{:#?}", plan.volumes);
    assert_eq!(plan.best, Consistency::Crash);
    assert!(plan.notes.iter().any(|n| n.contains("/b (btrfs) may be on any of them")), "{:?}", plan.notes);
    // Who says that it is on none of them is believed.
    let plan = plan_with(&facts, |s| {
        s.allow_partial = true;
        s.exclude_mounts = vec!["/b".into()];
    });
    assert_eq!(plan.unwrap().best, Consistency::Filesystem);
}

#[test]
fn a_loop_device_over_a_disk_is_on_that_disk() {
    let facts = host(
        "ebs nvme1n1 259:1 9 vol-11111111111111111\nloop loop0 7:0 9 file=/dev/nvme1n1\n\
         mount 2 1 0:5 / /dev rw - devtmpfs devtmpfs rw\nmount 3 1 7:0 / /a rw - ext4 /dev/loop0 rw\n\
         attached vol-11111111111111111 /dev/sdf 1 gp3\n",
    );
    let plan = plan_with(&facts, |_| {}).unwrap();
    let found = filesystem(&plan, "/a");
    assert_eq!((&found.volumes, found.wave), (&vec![vol('1')], stillpoint::plan::Wave::Data));
}

#[test]
fn a_partition_that_has_no_room_for_data_is_watched_and_not_worth_a_note() {
    let noted = |mib: u64| {
        let facts = host(&format!("part nvme0n1p3 259:3 {mib} of=nvme0n1\n"));
        let plan = plan_with(&facts, |_| {}).unwrap();
        assert_eq!(plan.witnesses.len(), 1, "{mib} MiB: {:?}", plan.witnesses);
        plan.notes.iter().any(|n| n.contains("nvme0n1p3"))
    };
    assert_eq!([1, 8, 9].map(noted), [false, false, true]);
}

/// The error that there is nothing to do has no more than eight things that were seen.
#[test]
fn a_long_list_of_what_was_seen_is_cut() {
    let seen = |count: usize| {
        let mut text = String::from("disk vda 254:0 9\n");
        for i in 0..count {
            let mount = if i == 0 { "/".to_owned() } else { format!("/m{i}") };
            let parent = usize::from(i > 0);
            // Each has a type of its own, because those of one type share a line.
            text += &format!("mount {} {parent} 0:{} / {mount} rw - fuse.x{i} x rw\n", i + 1, i + 20);
        }
        told(&plan_with(&Host::of(&text).facts(), |_| {}).unwrap_err())
    };
    assert!(seen(8).contains("/m7 (fuse.x7)") && !seen(8).contains(" more"), "{}", seen(8));
    assert!(!seen(9).contains("/m8") && seen(9).contains("; 1 more\n"), "{}", seen(9));
    assert!(seen(11).contains("; 3 more\n"), "{}", seen(11));
}
