//! While it is away: nobody else mounts or writes to it, and a rehearsal does the same.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::program::await_some;
use serde_json::Value;

use super::{STOPPED_AND_STARTED, nothing_left, with_units};

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
fn everything_is_back_when_ec2_refuses() {
    let space = with_units();
    let before = space.table();
    let fault = ["--action", "CreateSnapshot", "--call", "1", "--kind", "error", "--status", "400"];
    let code = ["--code", "SnapshotCreationPerVolumeRateExceeded"];
    space.rig.sim(&[&["faults", "add"], &fault[..], &code[..]].concat());
    space.run(&["snapshot"]).exits(23);
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
}

#[test]
fn everything_is_back_after_a_signal_in_the_window() {
    let space = with_units();
    let before = space.table();
    let run = space.in_the_window(&["snapshot"]);
    assert_eq!(space.table(), Vec::<String>::new());
    run.signal(Signal::SIGTERM);
    // EC2 answers only after that: an answer that is there when the signal is noticed makes the set a good
    // one.
    await_some("the units", || (space.told() == STOPPED_AND_STARTED).then_some(()));
    assert_eq!(run.end().signal, Some(Signal::SIGTERM as i32));
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
}
