//! Restore in place: the units that it stops, and who uses a disk without a mount.

use rig::program::await_some;

use super::in_place::{BOTH, NEW, OLD, attached, content, listed, restore, two};

/// Units are stopped before anything is unmounted, and started again in reverse, also when it fails.
#[test]
fn units_are_stopped_before_and_started_after() {
    let (space, set) = two();
    space.with_systemctl(&[
        ("db.service", "active"),
        ("idle.service", "inactive"),
        ("other.service", "active"),
    ]);
    let units = ["--stop-unit", "db.service", "--stop-unit", "idle.service", "--stop-unit", "other.service"];
    let told = ["stop db.service", "stop other.service", "start other.service", "start db.service"];
    let done = restore(&space, &[&[set.as_str(), "--in-place", "-o", "json"], &units[..]].concat())
        .exits(0)
        .record();
    assert_eq!(space.told(), told);
    restore(&space, &["--undo", done["restores"][0]["id"].as_str().unwrap()]).exits(0);
    assert_eq!(space.told(), [told, told].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    let add = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "error"];
    space.rig.sim(&[&add[..], &["--code", "UnauthorizedOperation", "--status", "403"]].concat());
    restore(&space, &[&[set.as_str(), "--in-place"], &units[..]].concat()).exits(77);
    assert_eq!(space.told(), [told, told, told].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    std::fs::write(space.path("stopping/start-db.service"), "exit 1\n").unwrap();
    let done = restore(&space, &[&[set.as_str(), "--in-place"], &units[..]].concat());
    done.exits(11).says("start it by hand").says("is restored in place");
    assert_eq!(content(&space, &BOTH), OLD);
    restore(&space, &[&set, "--in-place", "--stop-unit", "--now"]).exits(64);
}

/// What would start a unit on the empty folder is stopped before it, also where the unit does not run just now, and is
/// started again after a kill too.
#[test]
fn what_would_start_a_unit_in_between_is_stopped_too() {
    let (space, set) = two();
    space.with_systemctl(&[
        ("db.service", "active"),
        ("db.timer", "active"),
        ("db.path", "inactive"),
        ("idle.service", "inactive"),
        ("idle.socket", "active"),
    ]);
    std::fs::write(space.path("triggers/db.service"), "db.path db.timer").unwrap();
    std::fs::write(space.path("triggers/idle.service"), "idle.socket").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "idle.service"];
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let killed = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    let stopped = ["stop db.timer", "stop db.service", "stop idle.socket"];
    assert_eq!(space.told(), stopped);
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.end();
    space.rig.sim(&["faults", "clear"]);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0);
    let started = ["start idle.socket", "start db.service", "start db.timer"];
    assert_eq!(space.told(), [&stopped[..], &started[..]].concat());
    assert_eq!(content(&space, &BOTH), NEW);
    restore(&space, &[&set, "--in-place", "--stop-unit", "none.service"])
        .exits(78)
        .says("there is no unit none.service");
}

/// What somebody starts in between works with the folders below: it starts once more on what is mounted.
#[test]
fn a_unit_that_is_started_in_between_is_started_once_more() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let run = space.spawn(&["restore", &set, "--in-place", "--stop-unit", "db.service"]);
    space.rig.sim(&["faults", "wait", &held]);
    std::fs::write(space.path("units/db.service"), "active").unwrap();
    space.rig.sim(&["faults", "release", &held]);
    run.end().exits(0).says("db.service ran again before everything was mounted");
    assert_eq!(space.told(), ["stop db.service", "stop db.service", "start db.service"]);
}

/// No claim shows a process that has a disk open for writing: a database on a raw device, or dd.
#[test]
fn who_writes_to_a_disk_without_a_mount_is_named_before_anything_is_touched() {
    let (space, set) = two();
    space.sh(&format!("umount {}", space.at("b")));
    let (before, device) = (attached(&space), space.rig.device("b"));
    let raw = space.background(&format!("exec 3<>{device}; echo ready; exec cat"));
    restore(&space, &[&set, "--in-place"]).exits(78).says("open for writing");
    assert!(space.rig.calls("CreateVolume").iter().all(|c| c["dry_run"] == true));
    // One that a unit has is seen when that is stopped, and ends with it, or does not.
    space.with_systemctl(&[("db.service", "active")]);
    let unit = ["--stop-unit", "db.service"];
    restore(&space, &[&[&*set, "--in-place"], &unit[..]].concat()).exits(11).says("open for writing");
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    assert!(space.rig.calls("DetachVolume").iter().all(|c| c["dry_run"] == true), "nothing was touched");
    assert_eq!(attached(&space), before);
    drop(raw);
    await_some("nobody writes", || {
        let done = restore(&space, &[&[&*set, "--in-place"], &unit[..]].concat());
        done.err.contains("is restored in place").then_some(())
    });
}
