//! The method `unmount`: away over the point in time, and back exactly as it was, whatever happens in
//! between.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::namespace::Namespace;
use rig::probe::{Writer, assert_labels, needs_recovery};
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

/// Refused with code 21; nothing was touched, nothing was asked of EC2.
fn is_refused(space: &Namespace, says: &[&str]) {
    // Ids and all: it must not even be unmounted and mounted again.
    let with_ids = || space.sh(&format!("grep {}/ /proc/self/mountinfo", space.at("").trim_end_matches('/')));
    let before = with_ids();
    let ended = space.run(&["snapshot"]);
    ended.exits(21);
    for text in says {
        ended.says(text);
    }
    assert_eq!(with_ids(), before);
    assert_eq!(space.rig.creates().len(), 0);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
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

/// Not through the program: in ebs-sim's view a btrfs does not show all of its devices.
#[test]
fn a_btrfs_over_two_devices_comes_back_though_the_kernel_forgot_them() {
    let rig = Rig::formatted(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)], "");
    let (one, two, place) = (rig.device("a"), rig.device("b"), rig.path("a"));
    sh("mkfs.btrfs", &["-q", "-f", "-d", "raid0", "-m", "raid1", &one, &two]);
    sh("mount", &["-o", "noatime", &one, place.to_str().unwrap()]);
    let line =
        || mountinfo::read(Path::new("/"), "self").unwrap().into_iter().find(|l| l.mount_point == place);
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

/// Somebody has taken the device just before it is to be mounted again, and lets go of it a moment later. Not
/// through the program: nothing can be between its letting go and its mounting.
#[test]
fn a_device_that_somebody_holds_for_a_moment_is_waited_for() {
    let rig = Rig::formatted(&[("a", Fs::Ext4)], "");
    let (path, place) = (rig.device("a"), rig.path("a"));
    sh("mount", &[&path, place.to_str().unwrap()]);
    let line =
        || mountinfo::read(Path::new("/"), "self").unwrap().into_iter().find(|l| l.mount_point == place);
    let before = line().unwrap();
    let devices = vec![Device { path: (&path).into(), dev: number(&path) }];
    let recipe =
        unmount::recipe(std::slice::from_ref(&before), &[Wanted { ids: vec![before.id], devices }]).unwrap();
    unmount::unmount(&recipe, &recipe.mounts[0]).unwrap();
    let held = claim::claim(&recipe.filesystems[0].devices[0]).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
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
    // Peers not only by their numbers: a mount in one shows in the other.
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

/// `mount -o loop`: umount(2) is the last close of the device, and the kernel would take its image away.
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
    // And it still clears itself.
    space.sh(&format!("umount {a}"));
}

#[test]
fn one_is_unmounted_while_others_are_frozen_and_nested_ones_go_children_first() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Ext4)]);
    let (a, b) = (space.at("a"), space.at("b"));
    space.sh(&format!("mkdir {a}/in; umount {b}; mount {} {a}/in", space.rig.device("b")));
    space.rig.configure(&format!("[defaults.methods]\n\"{a}\" = \"unmount\"\n\"{a}/in\" = \"unmount\"\n"));
    let before = space.table();
    space.run(&["snapshot"]).exits(0).says("filesystem-consistent, 3 of 3");
    assert_eq!(space.table(), before);
    assert_labels(&space.rig, 3, "filesystem");
    space.sh(&format!("umount {a}/in"));
}

#[test]
fn the_image_was_unmounted() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.sh(&format!(
        "for i in 1 2 3 4 5 6 7 8; do echo $i > {}/$i; sync -f {}/$i; done",
        space.at("a"),
        space.at("a")
    ));
    // The negative control: mounted, and flushed.
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

#[test]
fn nobody_else_can_mount_it_in_the_window() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let before = space.table();
    let run = space.in_the_window(&["snapshot", "-o", "json"]);
    assert_eq!(space.table(), Vec::<String>::new(), "it is not unmounted");
    std::fs::create_dir(space.path("x")).unwrap();
    let said = space.try_sh(&format!("mount {} {}", space.rig.device("a"), space.at("x"))).unwrap_err();
    assert!(said.contains("already mounted or mount point busy"), "{said}");
    let record = run.end().exits(0).record();
    assert_eq!(record["achieved"], "filesystem");
    assert_eq!(space.table(), before);
}

/// Somebody writes to the device past every filesystem.
#[test]
fn a_write_to_the_device_in_the_window_lowers_the_label() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let run = space.in_the_window(&["snapshot", "-o", "json"]);
    // The last block: ext4 keeps no data there in a new filesystem of this size.
    let device = space.rig.device("a");
    space.sh(&format!(
        "dd if=/dev/zero of={device} bs=4096 seek=16383 count=1 oflag=direct conv=notrunc status=none"
    ));
    let record = run.end().exits(22).record();
    assert_eq!(record["achieved"], "crash");
    assert!(record["reason"].as_str().unwrap().contains("written to"), "{}", record["reason"]);
    assert_eq!(space.table().len(), 1);
}

/// Waits until the process is this program: until then it is the shell that becomes it.
fn await_exec(pid: u32, name: &str) {
    await_some("exec", || {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|c| c.trim_end() == name).then_some(())
    });
}

#[test]
fn holders_are_named_and_nothing_is_touched() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let a = space.at("a");
    let open = space.background(&format!("exec 9>{a}/file; echo ready; exec cat"));
    await_exec(open.pid(), "cat");
    is_refused(
        &space,
        &[&format!("cannot unmount {a}: process {} (cat) has {a}/file open", open.pid()), "stop_units"],
    );
    drop(open);
    let inside = space.background(&format!("cd {a}; echo ready; exec cat"));
    await_exec(inside.pid(), "cat");
    is_refused(&space, &[&format!("process {} (cat) has its working directory in {a}", inside.pid())]);
    drop(inside);
    space.sh(&format!("mkdir {a}/bin; cp $(command -v sleep) {a}/bin/sleepy"));
    let running = space.background(&format!("echo ready; exec {a}/bin/sleepy 60"));
    await_exec(running.pid(), "sleepy");
    is_refused(&space, &[&format!("process {} (sleepy) has {a}/bin/sleepy mapped", running.pid())]);
    drop(running);
    space.run(&["snapshot"]).exits(0);
}

#[test]
fn what_holds_it_without_a_process_is_named() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let a = space.at("a");
    space.sh(&format!("mkdir {a}/t; mount -t tmpfs t {a}/t"));
    is_refused(&space, &[&format!("{a}/t (tmpfs) is mounted on it")]);
    space.sh(&format!("umount {a}/t"));

    space.sh(&format!(
        "mkdir {a}/up {a}/work {a}-low {a}-over; mount -t overlay -o lowerdir={a}-low,upperdir={a}/up,workdir={a}/work o {a}-over"
    ));
    is_refused(&space, &[&format!("the overlay on {a}-over writes to it")]);
    space.sh(&format!("umount {a}-over"));

    let image = format!("{a}/image");
    let device = space.sh(&format!("truncate -s 1M {image}; losetup --find --show {image}"));
    let name = device.trim().trim_start_matches("/dev/").to_owned();
    is_refused(&space, &[&format!("{name} is over its file {image}")]);
    space.sh(&format!("losetup --detach {}", device.trim()));

    space.sh(&format!("dd if=/dev/zero of={a}/swap bs=1M count=4 status=none; chmod 600 {a}/swap; mkswap -q {a}/swap; swapon {a}/swap"));
    is_refused(&space, &[&format!("swap is on its file {a}/swap")]);
    space.sh(&format!("swapoff {a}/swap"));
    space.run(&["snapshot"]).exits(0);
}

#[test]
fn a_mount_in_another_namespace_is_named() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let other = space.background("exec unshare --mount --propagation private sh -c 'echo ready; exec cat'");
    await_exec(other.pid(), "cat");
    let what =
        format!("process {} (cat) has it mounted on {} in its mount namespace", other.pid(), space.at("a"));
    is_refused(&space, &[&what]);
}

/// As services with namespaces of their own have it (PrivateTmp=): what is unmounted here goes there too.
#[test]
fn a_namespace_that_follows_ours_is_no_holder() {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    let (a, device) = (space.at("a"), space.rig.device("a"));
    space.sh(&format!(
        "mount -t tmpfs parent {a}; mount --make-shared {a}; mkdir {a}/m; mount {device} {a}/m"
    ));
    space.rig.configure(&format!("[defaults.methods]\n\"{a}/m\" = \"unmount\"\n"));
    let other = space.background("exec unshare --mount --propagation slave sh -c 'echo ready; exec cat'");
    let theirs = || std::fs::read_to_string(format!("/proc/{}/mountinfo", other.pid())).unwrap();
    let there = format!(" {a}/m ");
    assert!(theirs().contains(&there));
    let run = space.in_the_window(&["snapshot", "-o", "json"]);
    assert!(!theirs().contains(&there), "it did not go there");
    run.end().exits(0);
    assert!(theirs().contains(&there), "it did not come back there");
    // A process of theirs that holds it is found through its own namespace's mount.
    let holder = Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", other.pid()))
        .args(["--", "sh", "-c", &format!("cd {a}/m; exec sleep 30")])
        .spawn();
    let mut holder = holder.unwrap();
    await_exec(holder.id(), "sleep");
    let ended = space.run(&["snapshot"]);
    ended.exits(21).says(&format!("process {} (sleep) has its working directory in {a}/m", holder.id()));
    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(other);
    space.sh(&format!("umount {a}/m {a}"));
}

/// The counter of a mounted filesystem is no proof; the writer of this test would be a holder if it were not
/// gone by then.
#[test]
fn a_writer_that_stays_is_a_holder() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let root = std::path::PathBuf::from(format!("/proc/{}/root{}", space.pid(), space.at("a")));
    let writer = Writer::start(&root);
    let ended = space.run(&["snapshot"]);
    ended.exits(21).says(&format!("process {} ", std::process::id())).says("/log open");
    writer.stop();
    space.run(&["snapshot"]).exits(0);
}

/// A namespace where systemd seems to run, and the names of the units of `a`'s mount point.
fn booted() -> (Namespace, String, String) {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.sh("mkdir -p /run/systemd; mount -t tmpfs t /run/systemd; mkdir /run/systemd/system");
    let named = |kind| {
        space.sh(&format!("systemd-escape --path --suffix={kind} {}", space.at("a"))).trim().to_owned()
    };
    let (mount, automount) = (named("mount"), named("automount"));
    space.unmounting(&["a"], "");
    (space, mount, automount)
}

#[test]
fn an_automount_is_stopped_in_the_window_and_started_before_the_mount() {
    let (space, mount, automount) = booted();
    let a = space.at("a");
    // Nobody reads its pipe: what triggers it fails at once. Not triggered by its own process group.
    let autofs = format!(
        "mount -t autofs -o fd=1,pgrp=$(cut -d' ' -f5 /proc/self/stat),minproto=5,maxproto=5,direct systemd-1 {a} | true"
    );
    space.with_systemctl(&[(&mount, "active"), (&automount, "active")]);
    std::fs::write(space.path("stopping").join(&automount), format!("umount {a}\n")).unwrap();
    std::fs::write(space.path("stopping").join(format!("start-{automount}")), format!("{autofs}\n")).unwrap();
    std::fs::write(
        space.path("mount.sh"),
        format!("{autofs}\nmount -o noatime {} {a}\n", space.rig.device("a")),
    )
    .unwrap();
    space.sh(&format!("setsid sh -eu {}", space.at("mount.sh")));
    let kinds = || {
        let table = space.sh("cat /proc/self/mountinfo");
        let ours: Vec<_> = table.lines().filter(|l| l.contains(&format!(" {a} "))).collect();
        let top = ours
            .iter()
            .find(|l| l.contains(" - ext4 "))
            .map(|l| l.split(' ').skip(2).collect::<Vec<_>>().join(" "));
        (ours.iter().filter(|l| l.contains(" - autofs ")).count(), ours.len(), top)
    };
    let before = kinds();
    assert_eq!((before.0, before.1), (1, 2), "{before:?}");
    let run = space.in_the_window(&["snapshot"]);
    assert_eq!(kinds(), (0, 0, None));
    run.end().exits(0);
    assert_eq!(space.told(), [format!("stop {automount}"), format!("start {automount}")]);
    assert_eq!(kinds(), before);
    space.sh(&format!("test -d {a}/lost+found")); // on top of the automount, not below it
    space.sh(&format!("umount {a}; umount {a}"));
}

#[test]
fn an_automount_that_is_not_systemds_is_refused() {
    let (space, mount, automount) = booted();
    let a = space.at("a");
    let script = format!(
        "mount -t autofs -o fd=1,pgrp=$(cut -d' ' -f5 /proc/self/stat),minproto=5,maxproto=5,direct x {a} | true\n\
         mount {} {a}\n",
        space.rig.device("a")
    );
    std::fs::write(space.path("mount.sh"), script).unwrap();
    space.sh(&format!("setsid sh -eu {}", space.at("mount.sh")));
    space.with_systemctl(&[(&mount, "active")]);
    is_refused(&space, &["an automounter that is not systemd", &format!("{automount} is not active")]);
    space.sh(&format!("umount {a}; umount {a}"));
}

#[test]
fn a_unit_that_systemd_would_stop_with_the_mount_is_named() {
    let (space, mount, _) = booted();
    space.mount("a", "defaults");
    space.with_systemctl(&[(&mount, "active"), ("app.service", "active"), ("idle.service", "inactive")]);
    std::fs::write(space.path("bound").join(&mount), "idle.service app.service").unwrap();
    is_refused(&space, &[&format!("app.service is bound to {mount}"), "stop_units = [\"app.service\"]"]);
    space.unmounting(&["a"], "stop_units = [\"app.service\"]");
    space.run(&["snapshot"]).exits(0);
    assert_eq!(space.told(), ["stop app.service", "start app.service"]);
}

#[test]
fn a_mount_unit_that_does_not_come_back_is_told() {
    let (space, mount, _) = booted();
    space.mount("a", "defaults");
    space.with_systemctl(&[(&mount, "active")]);
    let run = space.in_the_window(&["snapshot"]);
    std::fs::write(space.path("units").join(&mount), "inactive").unwrap();
    run.end().exits(11).says(&format!("{mount} was active, and systemd does not see it mounted again"));
    assert_eq!(space.table().len(), 1);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}

#[test]
fn a_rehearsal_unmounts_and_mounts_again_and_takes_nothing() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.unmounting(&["a"], "");
    let before = space.table();
    let run = space.spawn(&["rehearse", "--hold", "3s", "-o", "json"]);
    await_some("a to be away", || (space.table().len() == 1).then_some(()));
    let ended = run.end();
    let said: Value = serde_json::from_str(&ended.exits(0).out).unwrap();
    let round = &said["rounds"][0];
    assert_eq!((&round["achieved"], &round["exit_code"]), (&"filesystem".into(), &0.into()), "{round:#}");
    assert_eq!(space.table(), before);
    assert_eq!((space.rig.creates().len(), space.rig.snapshots().len()), (0, 0));
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}

#[test]
fn a_rehearsal_that_cannot_mount_again_is_as_loud_as_a_run() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.unmounting(&["a"], "");
    let before = space.table();
    let ended = space.run_injected("move_mount:error=EIO:when=1", &["rehearse", "-o", "json"]);
    let said: Value = serde_json::from_str(&ended.exits(41).says(&space.at("a")).out).unwrap();
    assert_eq!(said["rounds"][0]["exit_code"], 41, "{said:#}");
    assert_ne!(space.table(), before);
    assert_eq!(space.rig.creates().len(), 0);
    assert_eq!(space.rig.journals().len(), 1, "what is owed is kept");
    space.run(&["thaw"]).exits(0).says(&format!("mounted {}", space.at("a")));
    assert_eq!(space.table(), before);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
}
