//! Units that are stopped before the unmount and started after the mount, and hooks around them.

use rig::Fs;
use rig::hooks::{hook, note};
use rig::namespace::{Background, Namespace};
use rig::program::await_some;
use rig::systemd::cgroups;

use super::{STOPPED_AND_STARTED, UNITS, nothing_left, with_units};

/// A process that holds a file of `a` open. It comes back once the shell has become `cat`.
fn holder(space: &Namespace) -> Background {
    let held = space.background(&format!("exec 9>{}/file; echo ready; exec cat", space.at("a")));
    await_some("exec", || {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", held.pid()));
        comm.is_ok_and(|c| c == "cat\n").then_some(())
    });
    held
}

/// Puts a process into the control group of a service of its own, and gives the group's folder.
fn in_a_unit(space: &Namespace, pid: u32) -> String {
    let root = cgroups().expect("this test needs cgroup2 to be mounted");
    let group = format!("{}/stillpoint-test-{pid}.service", root.display());
    space.sh(&format!("mkdir {group}; echo {pid} > {group}/cgroup.procs"));
    group
}

#[test]
fn units_that_run_are_stopped_and_started_in_reverse() {
    let space = with_units();
    let before = space.table();
    // A process of the first unit holds the filesystem, and goes when the unit is stopped.
    let held = holder(&space);
    let group = in_a_unit(&space, held.pid());
    std::fs::write(space.path("stopping/db.service"), format!("kill -9 {}\n", held.pid())).unwrap();
    let ended = space.run(&["snapshot", "-o", "json"]);
    drop(held);
    space.sh(&format!("rmdir {group}"));
    let record = ended.exits(0).record();
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    assert_eq!(record["achieved"], "filesystem");
    let names: Vec<_> =
        record["hooks"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["unit db.service", "unit other.service", "unit other.service", "unit db.service"]);
    nothing_left(&space, &before);
}

#[test]
fn a_holder_that_no_unit_has_is_refused_before_any_unit_is_stopped() {
    let space = with_units();
    let before = space.table();
    let held = holder(&space);
    space.run(&["snapshot"]).exits(21).says(&format!("process {} (cat)", held.pid()));
    assert_eq!(space.told(), Vec::<String>::new());
    nothing_left(&space, &before);
}

#[test]
fn a_holder_that_outlives_its_unit_is_refused_and_the_units_are_started() {
    let space = with_units();
    let before = space.table();
    let held = holder(&space);
    let group = in_a_unit(&space, held.pid());
    let ended = space.run(&["snapshot"]);
    let unit = format!("stillpoint-test-{}.service", held.pid());
    ended
        .exits(21)
        .says(&format!("process {} (cat, {unit})", held.pid()))
        .says(&format!("stop_units = [\"{unit}\"]"));
    drop(held);
    space.sh(&format!("rmdir {group}"));
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
}

#[test]
fn a_unit_that_does_not_stop_ends_the_run_and_is_started() {
    let space = with_units();
    let before = space.table();
    std::fs::write(space.path("stopping/other.service"), "exit 1\n").unwrap();
    space
        .run(&["snapshot"])
        .exits(21)
        .says("pre command of hook `unit other.service` failed with exit code 1");
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
    // A stop that takes longer than `unmount_timeout` is given up.
    std::fs::write(space.path("stopping/other.service"), "exec sleep 60\n").unwrap();
    space.unmounting(&["a"], &format!("{UNITS}\nunmount_timeout = \"3s\""));
    space.run(&["snapshot"]).exits(21).says("`unit other.service` timed out");
    nothing_left(&space, &before);
}

#[test]
fn a_unit_that_is_not_known_is_a_wrong_configuration() {
    let space = with_units();
    space.unmounting(&["a"], "stop_units = [\"nosuch.service\"]");
    space.run(&["snapshot"]).exits(78).says("`stop_units` names nosuch.service, which systemd does not know");
    assert_eq!(space.told(), Vec::<String>::new());
}

#[test]
fn what_would_start_a_stopped_unit_again_is_named() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.with_systemctl(&[
        ("db.service", "active"),
        ("db.socket", "active"),
        ("db.timer", "active"),
        ("db.path", "inactive"),
    ]);
    std::fs::write(space.path("triggers/db.service"), "db.path db.socket db.timer").unwrap();
    let before = space.table();
    let says = "db.socket and db.timer would start db.service while its filesystem is unmounted";
    space.unmounting(&["a"], "stop_units = [\"db.service\"]");
    let hint = "stop_units = [\"db.socket\", \"db.timer\", \"db.service\"]";
    space.run(&["snapshot"]).exits(21).says(says).says(hint);
    // The socket is stopped last here, so it could start the service again between the two stops.
    space.unmounting(&["a"], "stop_units = [\"db.timer\", \"db.service\", \"db.socket\"]");
    space.run(&["snapshot"]).exits(21).says("db.socket would start db.service");
    assert_eq!(space.told(), Vec::<String>::new());
    assert_eq!(space.rig.creates().len(), 0);
    nothing_left(&space, &before);
    space.unmounting(&["a"], "stop_units = [\"db.socket\", \"db.timer\", \"db.service\"]");
    space.run(&["snapshot"]).exits(0);
    assert_eq!(space.told()[3..], ["start db.service", "start db.timer", "start db.socket"]);
    nothing_left(&space, &before);
}

/// Hooks are released after the filesystem is mounted again and the units run: they may need both.
#[test]
fn hooks_are_released_last() {
    let space = with_units();
    let seen = format!("mountpoint -q {} && {}", space.at("a"), note(&space.rig, "post-mounted"));
    let hooks = hook("app", &note(&space.rig, "pre"), &seen, "");
    space.unmounting(&["a"], &format!("{UNITS}\n"));
    let text = std::fs::read_to_string(space.path("stillpoint.toml")).unwrap();
    space.rig.configure(&format!("{}\n{hooks}", text.replace(rig::NO_INTERVAL, "")));
    let record = space.run(&["snapshot", "-o", "json"]).exits(0).record();
    assert_eq!(record["achieved"], "application");
    let mut all = vec!["pre"];
    all.extend(STOPPED_AND_STARTED);
    all.push("post-mounted");
    assert_eq!(space.told(), all);
}
