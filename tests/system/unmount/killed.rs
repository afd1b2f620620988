//! After SIGKILL at any step, what was unmounted comes back, and what was stopped is started.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::namespace::Namespace;
use rig::probe::tag;
use rig::program::await_some;

use super::{STOPPED_AND_STARTED, nothing_left, with_units};

/// Kills a run in its window, when the filesystem is unmounted and the units are stopped.
fn killed_in_the_window(space: &Namespace) {
    let run = space.in_the_window(&["snapshot"]);
    assert_eq!(space.table(), Vec::<String>::new());
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(Signal::SIGKILL as i32));
    space.rig.await_quiet();
    assert_eq!(space.table(), Vec::<String>::new());
    assert_eq!(space.told(), STOPPED_AND_STARTED[..2]);
}

#[test]
fn after_sigkill_thaw_mounts_it_and_starts_the_units() {
    let space = with_units();
    let before = space.table();
    killed_in_the_window(&space);
    let status = |exit| space.run(&["status", "-o", "json"]).exits(exit).record();
    let dead = &status(41)["runs"][0];
    assert_eq!(dead["unmounted"], serde_json::json!([space.at("a")]));
    assert_eq!(dead["units"], serde_json::json!(["other.service", "db.service"]));
    let text = space.run(&["status"]).exits(41).out.clone();
    assert!(text.contains(&format!("may be unmounted: {}\n", space.at("a"))), "{text}");
    assert!(text.contains("may be stopped: other.service db.service\n"), "{text}");
    space.run(&["thaw"]).exits(0).says(&format!("mounted {}", space.at("a")));
    assert_eq!(space.rig.journals().len(), 1, "what it made is still to be looked up");
    status(0);
    assert_eq!(space.table(), before);
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    // Neither a second `thaw` nor the next run mounts or starts anything twice.
    space.run(&["thaw"]).exits(0);
    space.run(&["snapshot", "--exclude-mount", "/nonexistent"]).exits(78);
    assert_eq!(space.table(), before);
    assert_eq!(space.told(), STOPPED_AND_STARTED);
}

#[test]
fn after_sigkill_the_next_run_mounts_it_first() {
    let space = with_units();
    let before = space.table();
    killed_in_the_window(&space);
    space.run(&["snapshot"]).exits(0);
    assert_eq!(space.told(), [STOPPED_AND_STARTED, STOPPED_AND_STARTED].concat());
    let labels: Vec<_> =
        space.rig.snapshots().iter().map(|s| tag(s, "stillpoint:consistency").to_owned()).collect();
    assert_eq!(labels, ["crash", "filesystem"]);
    nothing_left(&space, &before);
}

#[test]
fn after_sigkill_while_a_unit_stops_it_is_started() {
    let space = with_units();
    let before = space.table();
    std::fs::write(space.path("stopping/other.service"), "exec sleep 4\n").unwrap();
    let run = space.spawn(&["snapshot"]);
    await_some("the stop", || (space.told().len() == 2).then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    space.run(&["thaw"]).exits(0);
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
}

/// The run is killed at every call that unmounts or mounts, in turn. At each the journal has to say enough
/// for the recovery.
#[test]
fn after_sigkill_at_any_mount_or_unmount_everything_comes_back() {
    let space = Namespace::empty(&[("a", Fs::Ext4), ("b", Fs::Btrfs)]);
    space.mount("a", "noatime");
    space.mount("b", "nodev,compress=zstd:1");
    let a = space.at("a");
    space.sh(&format!(
        "mkdir {a}/sub {a}-bind; mount --bind {a}/sub {a}-bind; mount -o remount,bind,ro {a}-bind"
    ));
    space.with_systemctl(&[("db.service", "active")]);
    space.unmounting(&["a", "b"], "stop_units = [\"db.service\"]");
    let before = space.table();
    assert_eq!(before.len(), 3);
    let mut died = 0;
    // strace counts the calls of each thread. The main one unmounts, and makes the first two calls of
    // mount_setattr to check that this kernel has it. open_tree, right before a mount_setattr, is also called
    // while nothing is unmounted yet, and by the process that reads superblocks.
    for (call, nth) in
        [("umount2", 1..=3), ("fsmount", 1..=2), ("mount_setattr", 3..=9), ("move_mount", 1..=3)]
    {
        for n in nth {
            let ended = space.run_injected(&format!("{call}:signal=SIGKILL:when={n}"), &["snapshot"]);
            space.rig.await_quiet();
            if ended.signal != Some(Signal::SIGKILL as i32) {
                assert_eq!(call, "mount_setattr", "{ended:?}"); // as many as there are
                ended.exits(0);
                continue;
            }
            died += 1;
            let thaw = space.run(&["thaw"]);
            thaw.exits(0);
            assert_eq!(space.table(), before, "{call} {n}: {}", thaw.err);
            let told = space.told();
            assert_eq!(told[told.len() - 2..], ["stop db.service", "start db.service"], "{call} {n}");
        }
    }
    assert!(died >= 13, "{died}");
    space.run(&["snapshot"]).exits(0);
    nothing_left(&space, &before);
}

/// A run that was killed between two unmounts, or between two mounts, leaves some mounts there and some not.
#[test]
fn after_sigkill_halfway_only_what_is_missing_is_mounted() {
    let space = Namespace::start(&[("a", Fs::Btrfs), ("b", Fs::Xfs)]);
    let (a, device) = (space.at("a"), space.rig.device("a"));
    space.sh(&format!(
        "btrfs -q subvolume create {a}/one; btrfs -q subvolume create {a}/two; umount {a}; mkdir {a}-two {a}-bind; \
         mount -o subvol=one,noatime {device} {a}; mount -o subvol=two,nosuid {device} {a}-two; mount --bind {a} {a}-bind"
    ));
    space.unmounting(&["a", "b"], "");
    let before = space.table();
    assert_eq!(before.len(), 4);
    let run = space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    space.rig.await_quiet();
    space.sh(&format!(
        "mount -o subvol=one,noatime {device} {a}; mount {} {}",
        space.rig.device("b"),
        space.at("b")
    ));
    let ended = space.run(&["thaw"]);
    ended.exits(0).says(&format!("mounted {a}-two\n")).says(&format!("mounted {a}-bind\n"));
    assert!(!ended.err.contains(&format!("mounted {a}\n")), "{}", ended.err);
    assert_eq!(space.table(), before);
}

#[test]
fn after_sigkill_the_others_are_thawed_too() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.unmounting(&["a"], "");
    let before = space.table();
    let run = space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    space.rig.await_quiet();
    space.sh(&format!("timeout 5 touch {}/x", space.at("b"))); // the watchdog has thawed it
    space.run(&["thaw"]).exits(0);
    assert_eq!(space.table(), before);
}
