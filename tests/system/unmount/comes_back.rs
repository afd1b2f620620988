//! Mounted again exactly as it was: options, subvolumes, bind mounts, propagation, devices.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::namespace::Namespace;
use rig::patience::let_pass;
use rig::probe::{assert_labels, needs_recovery};
use rig::program::await_some;
use rig::{Fs, Rig, sh};
use serde_json::Value;
use stillpoint::host::mountinfo;
use stillpoint::ids::DevNo;
use stillpoint::unmount::{self, Device, Wanted, claim, remount};

/// A set was taken, everything is as before, and nothing is left to do.
fn comes_back(space: &Namespace, unmount: &[&str]) -> Value {
    space.unmounting(unmount, "");
    let before = space.table();
    let ended = space.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert_eq!(record["not_mounted"].as_array().unwrap().len(), 0);
    assert_eq!(space.table(), before);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
    record
}

#[test]
fn ext4_comes_back_with_its_options() {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.mount("a", "nosuid,nodev,noatime,errors=remount-ro,commit=7,data=journal");
    let shown = space.table();
    assert!(shown[0].contains("nosuid") && shown[0].contains("commit=7"), "{shown:?}");
    let record = comes_back(&space, &["a"]);
    assert_eq!(record["plan"]["filesystems"][0]["method"], "unmount");
    assert_labels(&space.rig, 1, "filesystem");
}

#[test]
fn xfs_comes_back_with_its_options() {
    let space = Namespace::empty(&[("a", Fs::Xfs)]);
    space.mount("a", "noexec,strictatime,nodiratime,logbsize=64k,inode32,allocsize=1m,wsync");
    let shown = space.table();
    assert!(shown[0].contains("logbsize=64k") && shown[0].contains("noexec"), "{shown:?}");
    comes_back(&space, &["a"]);
}

#[test]
fn a_read_only_mount_comes_back_read_only() {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.mount("a", "ro");
    space.mount("b", "defaults");
    space.sh(&format!("mount -o remount,bind,ro {}", space.at("b")));
    let shown = space.table();
    assert!(
        shown[0].ends_with(" ro") && shown[1].contains(" ro,relatime") && shown[1].contains("rw,"),
        "{shown:?}"
    );
    comes_back(&space, &["a", "b"]);
}

#[test]
fn subvolumes_come_back_each_with_its_own_options() {
    let space = Namespace::start(&[("a", Fs::Btrfs)]);
    let (a, device) = (space.at("a"), space.rig.device("a"));
    space.sh(&format!(
        "btrfs -q subvolume create {a}/home; btrfs -q subvolume create '{a}/it s,x'; mkdir {a}/home/ada; umount {a}; \
         mkdir {a}-home {a}-odd {a}-ada; \
         mount -o subvol=home,compress=zstd:3,noatime {device} {a}; \
         mount -o subvol='it s\\,x',nodev {device} {a}-odd || mount -o subvolid=257,nodev {device} {a}-odd; \
         mount --bind {a}/ada {a}-ada; mount -o remount,bind,ro {a}-ada"
    ));
    let shown = space.table();
    assert_eq!(shown.len(), 3, "{shown:#?}");
    assert!(shown[0].contains("compress=zstd:3") && shown[0].ends_with("subvol=/home"), "{shown:#?}");
    comes_back(&space, &["a"]);
}

/// Calls the library, not the program: in ebs-sim's view a btrfs does not show all of its devices.
#[test]
fn a_btrfs_over_two_devices_comes_back_though_the_kernel_forgot_them() {
    let rig = Rig::formatted(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)], "");
    let (one, two, place) = (rig.device("a"), rig.device("b"), rig.path("a"));
    sh("mkfs.btrfs", &["-q", "-f", "-d", "raid0", "-m", "raid1", &one, &two]);
    sh("mount", &["-o", "noatime", &one, place.to_str().unwrap()]);
    let line = || {
        mountinfo::read(Path::new("/"), "self").unwrap().lines.into_iter().find(|l| l.mount_point == place)
    };
    let before = line().unwrap();
    let device = |path: &String| Device { path: path.into(), dev: number(path) };
    let devices = vec![device(&one), device(&two)];
    let recipe =
        unmount::recipe(std::slice::from_ref(&before), &[Wanted { ids: vec![before.id], devices }]).unwrap();
    remount::check(&recipe).unwrap();
    unmount::unmount(&recipe, &recipe.mounts[0]).unwrap();
    assert_eq!(line(), None);
    // Another test's mount namespace, made meanwhile, may still have a copy of the mount.
    for path in [&one, &two] {
        await_some("the kernel to forget the device", || {
            let mut forget = Command::new("btrfs");
            forget.args(["device", "scan", "--forget", path]).stderr(Stdio::null());
            forget.status().unwrap().success().then_some(())
        });
    }
    let result = remount::remount(&recipe);
    assert_eq!((result.failed, result.differs), (vec![], vec![]));
    assert_eq!(result.mounted, std::slice::from_ref(&place));
    let after = line().unwrap();
    assert_eq!((after.options, after.super_options), (before.options, before.super_options));
    assert!(unmount::by_hand(&recipe, &recipe.mounts[0]).contains(&format!("device={two}")));
}

/// Somebody takes the device just before it is mounted again, and lets go of it a moment later. Calls the
/// library, not the program: that releases its claim and mounts at once, so no test could get in between.
#[test]
fn a_device_that_somebody_holds_for_a_moment_is_waited_for() {
    let rig = Rig::formatted(&[("a", Fs::Ext4)], "");
    let (path, place) = (rig.device("a"), rig.path("a"));
    sh("mount", &[&path, place.to_str().unwrap()]);
    let line = || {
        mountinfo::read(Path::new("/"), "self").unwrap().lines.into_iter().find(|l| l.mount_point == place)
    };
    let before = line().unwrap();
    let devices = vec![Device { path: (&path).into(), dev: number(&path) }];
    let recipe =
        unmount::recipe(std::slice::from_ref(&before), &[Wanted { ids: vec![before.id], devices }]).unwrap();
    unmount::unmount(&recipe, &recipe.mounts[0]).unwrap();
    let held = claim::claim(&recipe.filesystems[0].devices[0]).unwrap();
    let holder = std::thread::spawn(move || {
        let_pass("a remount that meets the holder", Duration::from_secs(1));
        drop(held);
    });
    let result = remount::remount(&recipe);
    holder.join().unwrap();
    assert_eq!((result.failed, result.differs), (vec![], vec![]));
    assert_eq!(line().map(|l| l.options), Some(before.options));
}

fn number(path: &str) -> DevNo {
    use std::os::unix::fs::MetadataExt as _;
    let rdev = std::fs::metadata(path).unwrap().rdev();
    let part = |n: u64| u32::try_from(n).unwrap();
    DevNo { major: part(nix::sys::stat::major(rdev)), minor: part(nix::sys::stat::minor(rdev)) }
}

#[test]
fn bind_mounts_and_propagation_come_back() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    let a = space.at("a");
    space.sh(&format!(
        "cd /; mkdir -p {a}/sub/deep; echo x > {a}/file; \
         for n in peer slave both none file; do mkdir -p {a}-$n; done; touch {a}-onto; \
         mount --make-shared {a}; \
         mount --bind {a} {a}-peer; \
         mount --bind {a}/sub {a}-slave; mount --make-slave {a}-slave; \
         mount --bind {a}/sub {a}-both; mount --make-slave {a}-both; mount --make-shared {a}-both; \
         mount --bind {a}/sub/deep {a}-none; mount --make-unbindable {a}-none; mount -o remount,bind,ro,nosuid {a}-none; \
         mount --bind {a}/file {a}-onto; mount --make-private {a}-onto"
    ));
    let shown = space.table();
    assert_eq!(shown.len(), 6, "{shown:#?}");
    assert!(shown[4].contains("shared:0") && shown[5].contains("master:0"), "{shown:#?}");
    comes_back(&space, &["a"]);
    // The peer group works: what is mounted in one shows in the other.
    space.sh(&format!("mount -t tmpfs t {a}/sub; mountpoint -q {a}-peer/sub; umount {a}/sub"));
}

#[test]
fn on_a_shared_parent_a_private_mount_stays_private() {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let (a, b) = (space.at("a"), space.at("b"));
    let (dev_a, dev_b) = (space.rig.device("a"), space.rig.device("b"));
    space.sh(&format!(
        "mkdir {a}/m {b}/m; mount -t tmpfs parent {a}; mount --make-shared {a}; mkdir {a}/m {a}/n; \
         mount {dev_a} {a}/m; mount --make-private {a}/m; mount {dev_b} {a}/n"
    ));
    let methods = format!("[defaults.methods]\n\"{a}/m\" = \"unmount\"\n\"{a}/n\" = \"unmount\"\n");
    space.rig.configure(&methods);
    let before = space.table();
    space.run(&["snapshot"]).exits(0);
    assert_eq!(space.table(), before);
    space.sh(&format!("umount {a}/m {a}/n {a}"));
}

/// After `mount -o loop`, umount(2) is the last close of the loop device, and the kernel would detach its
/// image: then there would be nothing left to mount again.
#[test]
fn a_loop_device_that_clears_itself_keeps_its_image() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    let (a, inner) = (space.at("a"), space.at("inner"));
    space.sh(&format!(
        "mkdir {inner}; truncate -s 16M {a}/image; mkfs.ext4 -q {a}/image; mount -o loop,noatime {a}/image {inner}; echo x > {inner}/file"
    ));
    let device = space.sh(&format!("findmnt -n -o SOURCE {inner}"));
    let cleared = format!("/sys/block/{}/loop/autoclear", device.trim().trim_start_matches("/dev/"));
    let clears = || std::fs::read_to_string(&cleared).unwrap();
    assert_eq!(clears(), "1\n");
    space.unmounting(&["inner"], "");
    let before = space.table();
    assert_eq!(before.len(), 2, "{before:#?}");
    let ended = space.run(&["snapshot"]);
    let after = space.table();
    space.try_sh(&format!("umount {inner}")).ok();
    ended.exits(0).says("filesystem-consistent");
    assert_eq!(after, before);
    // The loop device is still cleared with its last close, as before: else the image keeps `a` busy.
    space.sh(&format!("umount {a}"));
}

#[test]
fn one_is_unmounted_while_others_are_frozen_and_nested_ones_go_children_first() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Ext4)]);
    let (a, b) = (space.at("a"), space.at("b"));
    space.sh(&format!("mkdir {a}/in; umount {b}; mount {} {a}/in", space.rig.device("b")));
    space.rig.configure(&format!("[defaults.methods]\n\"{a}\" = \"unmount\"\n\"{a}/in\" = \"unmount\"\n"));
    let before = space.table();
    let ended = space.run(&["snapshot"]);
    ended.exits(0).says("filesystem-consistent, 3 of 3");
    for mount in [&a, &format!("{a}/in")] {
        ended.says(&format!("unmounted {mount}")).says(&format!("mounted {mount} again"));
    }
    assert_eq!(space.table(), before);
    assert_labels(&space.rig, 3, "filesystem");
    space.sh(&format!("umount {a}/in"));
}

#[test]
fn the_image_of_an_unmounted_filesystem_needs_no_recovery() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.sh(&format!(
        "for i in 1 2 3 4 5 6 7 8; do echo $i > {}/$i; sync -f {}/$i; done",
        space.at("a"),
        space.at("a")
    ));
    // The negative control: flushed, and still mounted.
    space.rig.sim(&["call", "CreateSnapshot", &format!("VolumeId={}", space.rig.id("a"))]);
    let live = space.rig.snapshots()[0]["id"].as_str().unwrap().to_owned();
    assert!(
        needs_recovery(&space.rig, &live),
        "the negative control needs no recovery: this test proves nothing"
    );
    space.rig.await_quiet();
    let record = comes_back(&space, &["a"]);
    assert!(!needs_recovery(&space.rig, record["snapshots"][0]["id"].as_str().unwrap()));
}
