//! The plan of an ordinary user: what only root can find out is said, never guessed and never a refusal.

use rig::fixture::{Host, plan_with, told};

/// ext4 with its journal elsewhere or not, an image file, a btrfs, an overlay.
const HOST: &str = "ebs a 259:0 1024 vol-11111111111111111\nebs b 259:1 1024 vol-22222222222222222\n\
    ebs c 259:2 1024 vol-33333333333333333\nloop loop0 7:0 9 file=/a/image\njournal a\nbtrfs 0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11 c\n\
    attached vol-11111111111111111 /dev/sdf 1 gp3\nattached vol-22222222222222222 /dev/sdg 1 gp3\n\
    attached vol-33333333333333333 /dev/sdh 1 gp3\n\
    mount 1 0 259:0 / /a rw - ext4 /dev/a rw\nmount 2 1 259:1 / /b rw - xfs /dev/b rw\n\
    mount 3 1 0:40 / /c rw - btrfs /dev/c rw\nmount 4 1 7:0 / /image rw - xfs /dev/loop0 rw\n\
    mount 5 1 0:41 / /over rw - overlay overlay rw,lowerdir=/l,upperdir=/b/u,workdir=/b/w\n";

#[test]
fn what_only_root_can_find_out_is_said_and_refuses_nothing() {
    let facts = Host::of(&format!("{HOST}ordinary-user\n")).facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let mounts: Vec<_> = plan.filesystems.iter().map(|f| f.mount_point.to_str().unwrap()).collect();
    assert_eq!(mounts, ["/a", "/b", "/c"]);
    assert_eq!(plan.best.to_string(), "filesystem");
    let needs = "not checked, needs root";
    for note in [
        format!("/a: {needs}: whether the filesystem on a has devices beside it."),
        format!("/image: {needs}: which filesystem has the image file of loop0."),
    ] {
        assert!(plan.notes.contains(&note), "{note}: {:?}", plan.notes);
    }
    assert!(!plan.notes.iter().any(|n| n.starts_with("/b:") || n.starts_with("/c:")), "{:?}", plan.notes);
    let left = |what: &str| plan.left_out.iter().find(|l| l.what == what).unwrap().reason.clone();
    assert_eq!(left("/image"), format!("{needs}: which filesystem has the image file of loop0"));
    assert_eq!(left("/over"), format!("{needs}: where its writes go"));
}

/// Root would get a plan with it, so naming it is no mistake.
#[test]
fn a_mount_that_only_root_can_place_may_be_named() {
    let facts = Host::of(&format!("{HOST}ordinary-user\n")).facts();
    let plan = plan_with(&facts, |s| s.mounts = vec!["/a".into(), "/image".into()]).unwrap();
    assert!(plan.left_out.iter().any(|l| l.what == "/image" && l.reason.contains("needs root")));
}

/// A btrfs that sysfs does not show: only its root folder tells which one it is.
#[test]
fn a_btrfs_that_only_root_can_tell_is_left_out_with_that_reason() {
    let text = HOST.replace("btrfs 0f3b9a52-5f0e-4a52-9d3b-0a4e1d1f7c11 c\n", "");
    let facts = Host::of(&format!("{text}ordinary-user\n")).facts();
    let plan = plan_with(&facts, |_| {}).unwrap();
    let left = plan.left_out.iter().find(|l| l.what == "/c").unwrap();
    assert_eq!(left.reason, "not checked, needs root: which devices the btrfs on /c is on");
}

/// What no one can find out still refuses, whoever asks.
#[test]
fn for_root_nothing_is_left_open() {
    let error = plan_with(&Host::of(HOST).facts(), |_| {}).unwrap_err();
    assert!(told(&error).contains("its superblock cannot be read"), "{}", told(&error));
    let silent = Host::of(&format!("{HOST}silent a\nordinary-user\n")).facts();
    assert!(told(&plan_with(&silent, |_| {}).unwrap_err()).contains("does not answer"));
}
