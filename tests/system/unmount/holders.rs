//! What holds a filesystem is named, and then nothing is touched.

use std::process::Command;

use rig::Fs;
use rig::namespace::{KEEP, Namespace};
use rig::probe::Writer;
use rig::program::await_some;

use super::{is_refused, nothing_left};

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

/// Of two filesystems that are to be unmounted, only what is busy is named.
#[test]
fn only_the_busy_mount_is_named() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Ext4), ("c", Fs::Xfs)]);
    space.unmounting(&["a", "b", "c"], "");
    let (a, b, c) = (space.at("a"), space.at("b"), space.at("c"));
    let inside = space.background(&format!("cd {b}; echo ready; exec cat"));
    await_exec(inside.pid(), "cat");
    let process = format!("process {} (cat) has its working directory in {b}", inside.pid());
    let ended = space.run(&["snapshot"]);
    ended.exits(21).says(&format!("because: cannot unmount {b}: {process}\n"));
    let device = space.sh(&format!("truncate -s 1M {c}/image; losetup --find --show {c}/image"));
    let name = device.trim().trim_start_matches("/dev/").to_owned();
    let ended = space.run(&["snapshot"]);
    space.sh(&format!("losetup --detach {}", device.trim()));
    let image = format!("{c}: the loop device {name} is over its file {c}/image");
    ended.exits(21).says(&format!("because: cannot unmount {image}; {b}: {process}\n"));
    assert!(!ended.err.contains(&format!("{a}:")), "{}", ended.err);
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
    is_refused(&space, &[&format!("the loop device {name} is over its file {image}")]);
    space.sh(&format!("losetup --detach {}", device.trim()));

    space.sh(&format!("dd if=/dev/zero of={a}/swap bs=1M count=4 status=none; chmod 600 {a}/swap; mkswap -q {a}/swap; swapon {a}/swap"));
    is_refused(&space, &[&format!("its file {a}/swap is used as swap")]);
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

/// A service with PrivateTmp= has such a namespace: what is unmounted here is unmounted there too.
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
    // A process in that namespace holds the filesystem through the mount there, and is found.
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

/// A process that keeps a file open and writes is a holder like any other. Once it has ended, the set is
/// taken.
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

/// No process is in the namespace that still has the mount, so nothing in /proc shows it. Only the exclusive
/// claim of the device fails.
#[test]
fn a_mount_that_nobody_can_see_is_found_by_the_claim() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let (before, kept) = (space.table(), space.at("kept"));
    space.sh(&format!("touch {kept}; mount --bind {kept} {kept}; mount --make-private {kept}"));
    space.sh(&format!("{KEEP}\nkeep {kept} --propagation private true"));
    let ended = space.run(&["snapshot"]);
    space.sh(&format!("umount {kept}; umount {kept}"));
    ended.exits(21).says("is unmounted, and something still uses it").says("lsns");
    assert_eq!(space.rig.creates().len(), 0);
    nothing_left(&space, &before);
    space.run(&["snapshot"]).exits(0);
}
