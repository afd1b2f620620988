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

/// Nothing starts what was stopped, until everything is mounted: it is masked, in /run, and only then started.
#[test]
fn what_was_stopped_is_masked_until_everything_is_mounted() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active"), ("db.timer", "active"), ("idle.service", "inactive")]);
    std::fs::write(space.path("triggers/db.service"), "db.timer").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "--stop-unit", "idle.service"];
    let all = ["db.service", "db.timer", "idle.service"];
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let running = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    let (now, told) = space.masks();
    assert_eq!((&now[..], &told[..]), (&all.map(str::to_owned)[..], &all.map(|u| format!("mask {u}"))[..]));
    let start = |unit: &str| space.try_sh(&format!("/usr/local/sbin/systemctl start {unit}"));
    assert!(start("db.service").unwrap_err().contains("is masked"));
    assert!(
        start("idle.service").unwrap_err().contains("is masked"),
        "nobody starts what did not run either"
    );
    space.rig.sim(&["faults", "release", &held]);
    running.end().exits(0);
    assert_eq!(space.masks().0, [""; 0]);
    assert_eq!(space.told(), ["stop db.timer", "stop db.service", "start db.service", "start db.timer"]);

    // Killed in the middle, they stay so until it goes on or back.
    let held = space.rig.sim(&hold).trim().to_owned();
    let killed = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.end();
    space.rig.sim(&["faults", "clear"]);
    assert_eq!(space.masks().0, all);
    let id = listed(&space).iter().map(|r| r["id"].as_str().unwrap().to_owned()).max().unwrap();
    restore(&space, &["--clean-up"]).exits(11).says(&format!("--continue {id}"));
    assert_eq!(space.masks().0, all, "which volumes they would start on is not known");
    restore(&space, &["--continue", &id]).exits(0);
    assert_eq!(space.masks().0, [""; 0]);
    assert_eq!(content(&space, &BOTH), OLD);
}

/// Killed before anything was unmounted, the units can be started again: the timer does it, or --undo.
#[test]
fn units_of_one_that_was_killed_before_anything_went_run_again() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    let gate = "touch waiting; while [ -e waiting ]; do sleep 0.1; done\n";
    std::fs::write(space.path("stopping/mask-db.service"), gate).unwrap();
    let run = space.spawn(&["restore", &set, "--in-place", "--stop-unit", "db.service"]);
    await_some("the mask", || space.path("waiting").exists().then_some(()));
    run.signal(nix::sys::signal::Signal::SIGKILL);
    run.end();
    std::fs::remove_file(space.path("stopping/mask-db.service")).unwrap();
    std::fs::remove_file(space.path("waiting")).unwrap();
    assert_eq!(
        (space.masks().0, space.told()),
        (vec!["db.service".to_owned()], vec!["stop db.service".to_owned()])
    );
    restore(&space, &["--clean-up", "--dry-run"]).exits(0).says("has left units stopped");
    assert_eq!(space.masks().0, ["db.service"]);
    restore(&space, &["--clean-up"]).exits(0).says("they are started");
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    assert!(space.masks().0.is_empty());
    restore(&space, &["--clean-up"]).exits(0);
    assert_eq!(space.told().len(), 2, "once");
    assert_eq!(content(&space, &BOTH), NEW);
    let id = listed(&space)[0]["id"].as_str().unwrap().to_owned();
    restore(&space, &["--undo", &id]).exits(0).says("nothing is left");
}

/// A unit file in /etc counts more than a mask in /run/systemd/system, and less than one in system.control.
#[test]
fn a_unit_of_etc_is_masked_where_systemd_heeds_it_or_that_is_said() {
    let (space, set) = two();
    space.with_systemctl(&[("db.service", "active")]);
    std::fs::write(space.path("etc/db.service"), "").unwrap();
    let run = ["restore", &set, "--in-place", "--stop-unit", "db.service", "-o", "json"];
    // Without systemd, nothing reads such a folder.
    let done = space.run(&run).exits(0).says("db.service is not kept from being started meanwhile").record();
    restore(&space, &["--undo", done["restores"][0]["id"].as_str().unwrap()]).exits(0);
    space.sh("mount -t tmpfs stillpoint-test /run/systemd; mkdir /run/systemd/system");
    let hold = ["faults", "add", "--action", "DetachVolume", "--call", "1", "--kind", "hold-before"];
    let held = space.rig.sim(&hold).trim().to_owned();
    let running = space.spawn(&run);
    space.rig.sim(&["faults", "wait", &held]);
    let link = "/run/systemd/system.control/db.service";
    assert_eq!(space.sh(&format!("readlink {link}")), "/dev/null\n");
    assert!(space.try_sh("/usr/local/sbin/systemctl start db.service").unwrap_err().contains("is masked"));
    space.rig.sim(&["faults", "release", &held]);
    let ended = running.end();
    ended.exits(0);
    assert!(!ended.err.contains("is not kept"), "{}", ended.err);
    assert!(space.try_sh(&format!("test -L {link}")).is_err(), "the mask is taken off");
    assert!(space.masks().0.is_empty());
}

/// Whoever reads a disk would read errors, or the other volume.
#[test]
fn who_only_reads_a_disk_is_named_too() {
    let (space, set) = two();
    let device = space.rig.device("b");
    let reader = space.background(&format!("exec 3<{device}; echo ready; exec cat"));
    let refused = restore(&space, &[&set, "--in-place"]);
    refused.exits(78).says(&format!("has {device} open")).says("nothing was touched");
    assert!(!refused.err.contains("open for writing"), "{}", refused.err);
    assert!(space.rig.calls("CreateVolume").is_empty());
    drop(reader);
    await_some("nobody reads", || {
        restore(&space, &[&*set, "--in-place"]).err.contains("is restored in place").then_some(())
    });
}

/// A mount of another namespace is named, where nothing is mounted of it here.
#[test]
fn a_mount_of_another_namespace_is_named_with_its_process() {
    let (space, set) = two();
    let elsewhere = space.background("exec unshare -m --propagation private sh -c 'echo ready; exec cat'");
    space.sh(&format!("umount {}", space.at("b")));
    let refused = restore(&space, &[&set, "--in-place"]);
    refused.exits(78).says(&format!("is mounted on {} in the mount namespace of", space.at("b")));
    assert!(space.rig.calls("CreateVolume").is_empty());
    drop(elsewhere);
}

/// Nobody has a swap file open, and umount only says that it is busy.
#[test]
fn a_swap_file_on_what_would_go_is_refused_before_anything_is_touched() {
    let (space, set) = two();
    let file = format!("{}/swap", space.at("a"));
    space.sh(&format!(
        "dd if=/dev/zero of={file} bs=1M count=4 status=none; chmod 600 {file}; mkswap -q {file}"
    ));
    if let Err(why) = space.try_sh(&format!("swapon {file}")) {
        eprintln!("\n*** NOT TESTED: swapon: {why} ***\n");
        return;
    }
    let refused = restore(&space, &[&set, "--in-place"]);
    let off = space.try_sh(&format!("swapoff {file}"));
    refused.exits(78).says(&format!("{file} is used as swap")).says("swapoff");
    off.unwrap();
    assert!(space.rig.calls("CreateVolume").is_empty());
}
