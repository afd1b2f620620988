//! The method `unmount` when something goes wrong: what was unmounted comes back, what was stopped is
//! started, and nothing of it is quiet.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::hooks::{hook, note};
use rig::listener::Listener;
use rig::namespace::{Background, Namespace};
use rig::probe::{assert_labels, tag};
use rig::program::{Run, await_some};
use rig::systemd::cgroups;

const UNITS: &str = "stop_units = [\"db.service\", \"other.service\", \"idle.service\"]";

/// A process that holds a file of `a` open, once it is called `cat`.
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

/// One ext4 at `a` with a table, and three units of which two run.
fn with_units() -> Namespace {
    let space = Namespace::empty(&[("a", Fs::Ext4)]);
    space.mount("a", "noatime,nodev,commit=9");
    space.with_systemctl(&[
        ("db.service", "active"),
        ("other.service", "active"),
        ("idle.service", "inactive"),
    ]);
    space.unmounting(&["a"], UNITS);
    space
}

/// The same with a hook that notes how it is released, and what it is told of what is not mounted.
fn with_a_hook(space: &Namespace) {
    let told = note(&space.rig, "post $STILLPOINT_RESULT [$STILLPOINT_NOT_MOUNTED]");
    let text = std::fs::read_to_string(space.path("stillpoint.toml")).unwrap();
    let hook = hook("app", "true", &told, "");
    space.rig.configure(&format!("{}\n{hook}", text.replace(rig::NO_INTERVAL, "")));
}

/// A database must not be let go onto an empty folder: its post hook knows, whoever runs it.
#[test]
fn a_post_hook_is_told_what_is_not_mounted() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    with_a_hook(&space);
    let before = space.table();
    let a = space.at("a");
    space.run(&["snapshot"]).exits(0);
    for (command, result) in [("snapshot", "taken"), ("rehearse", "rehearsed")] {
        space.run_injected("move_mount:error=EIO:when=1", &[command]).exits(41);
        assert_eq!(space.told().last(), Some(&format!("post {result} [{a}]")));
        space.run(&["thaw"]).exits(0);
    }
    let run = space.in_the_window(&["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    space.rig.await_quiet();
    std::fs::remove_dir(space.path("a")).unwrap();
    space.run(&["thaw"]).exits(41);
    assert_eq!(space.told().last(), Some(&format!("post unknown [{a}]")));
    std::fs::create_dir(space.path("a")).unwrap();
    space.run(&["thaw"]).exits(0);
    assert_eq!(space.table(), before);
    let told = space.told();
    assert_eq!(
        told,
        [
            "post taken []".to_owned(),
            format!("post taken [{a}]"),
            format!("post rehearsed [{a}]"),
            format!("post unknown [{a}]")
        ]
    );
}

const STOPPED_AND_STARTED: [&str; 4] =
    ["stop db.service", "stop other.service", "start other.service", "start db.service"];

fn nothing_left(space: &Namespace, before: &[String]) {
    assert_eq!(space.table(), before);
    assert_eq!(space.rig.journals(), Vec::<String>::new(), "a journal is left");
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
    // The time for stopping is bounded.
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
    let says = "db.socket and db.timer would start db.service while its filesystem is away";
    space.unmounting(&["a"], "stop_units = [\"db.service\"]");
    let hint = "stop_units = [\"db.socket\", \"db.timer\", \"db.service\"]";
    space.run(&["snapshot"]).exits(21).says(says).says(hint);
    // In the wrong order it could be started between the two stops.
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
    // Before the answer: one that is there when the signal is noticed would make the set a good one.
    await_some("the units", || (space.told() == STOPPED_AND_STARTED).then_some(()));
    assert_eq!(run.end().signal, Some(Signal::SIGTERM as i32));
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    nothing_left(&space, &before);
}

/// Kills a run in its window: unmounted, units stopped.
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
    // Once: neither mounted twice nor started twice.
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

/// Killed at every call that unmounts or mounts, in turn: the journal knows enough at each of them.
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
    // strace counts by threads: the main one unmounts, and makes the first two calls of mount_setattr, for
    // the check.
    for (call, nth) in [
        ("umount2", 1..=3),
        ("fsmount", 1..=2),
        ("open_tree", 1..=1),
        ("mount_setattr", 3..=9),
        ("move_mount", 1..=3),
    ] {
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
    assert!(died >= 14, "{died}");
    space.run(&["snapshot"]).exits(0);
    nothing_left(&space, &before);
}

/// The watchdog's exec would hang, and its child would keep the devices claimed: found out while everything
/// is still mounted.
#[test]
fn an_exec_that_hangs_is_found_before_anything_is_unmounted() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    let own = space.at("own");
    space.sh(&format!("mkdir {own}; mount -t tmpfs own {own}; cp {} {own}/stillpoint", rig::stillpoint()));
    let waits = format!("touch {0}/pre; until [ -e {0}/go ]; do sleep 0.05; done", space.at(""));
    space.unmounting(&["a"], "");
    let text = std::fs::read_to_string(space.path("stillpoint.toml")).unwrap().replace(rig::NO_INTERVAL, "");
    space.rig.configure(&format!("{text}\n{}", hook("app", &waits, "true", "")));
    let before = space.table();
    let plain = space.command(&["snapshot"]);
    let mut command = std::process::Command::new(plain.get_program());
    for word in plain.get_args() {
        let program = word == rig::stillpoint();
        command.arg(if program { format!("{own}/stillpoint").into() } else { word.to_os_string() });
    }
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::start(command);
    await_some("the hook", || space.path("pre").exists().then_some(()));
    let listener = Listener::start(std::path::Path::new(&format!("/proc/{}/root{own}", space.pid())));
    std::fs::write(space.path("go"), "").unwrap();
    let ended = run.end();
    let after = space.table();
    drop(listener);
    ended.exits(21).says("does not start within 5s");
    assert_eq!(after, before);
    assert_eq!(space.rig.journals(), Vec::<String>::new());
    await_some("its child's end", || space.try_sh(&format!("umount {own}")).ok());
}

#[test]
fn an_unmount_that_fails_halfway_is_undone() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.with_systemctl(&[("db.service", "active")]);
    space.unmounting(&["a", "b"], "stop_units = [\"db.service\"]");
    let before = space.table();
    // As something in the kernel would hold it that no process shows.
    let ended = space.run_injected("umount2:error=EBUSY:when=2+", &["snapshot"]);
    ended.exits(21).says(&format!("cannot unmount {}: ", space.at("a"))).says("no process holds it");
    assert_eq!(space.rig.creates().len(), 0);
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    nothing_left(&space, &before);
}

/// A mount in a namespace that no process is in: only the claim of the device sees it.
#[test]
fn a_mount_that_nobody_can_see_is_found_by_the_claim() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let (before, kept) = (space.table(), space.at("kept"));
    space.sh(&format!("touch {kept}; mount --bind {kept} {kept}; mount --make-private {kept}"));
    // Linux 6.18 refuses some: it takes ids for ages, and hands them out by CPU.
    let keep = format!("unshare --mount={kept} --propagation private true");
    space.sh(&format!("for n in $(seq 50); do {keep} 2>/dev/null && exit; done; {keep}"));
    let ended = space.run(&["snapshot"]);
    space.sh(&format!("umount {kept}; umount {kept}"));
    ended.exits(21).says("is unmounted here and still held").says("lsns");
    assert_eq!(space.rig.creates().len(), 0);
    nothing_left(&space, &before);
    space.run(&["snapshot"]).exits(0);
}

/// One cannot be mounted at first, the other can.
#[test]
fn one_failed_mount_does_not_keep_the_others_away() {
    let space = Namespace::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    space.unmounting(&["a", "b"], "");
    let before = space.table();
    let ended = space.run_injected("move_mount:error=EIO:when=1", &["snapshot", "-o", "json"]);
    assert_eq!(ended.exits(41).record()["not_mounted"].as_array().unwrap().len(), 1);
    assert_eq!(space.table().len(), 1);
    assert_labels(&space.rig, 2, "filesystem");
    space.run(&["thaw"]).exits(0);
    nothing_left(&space, &before);
}

/// What a run leaves that was killed between two unmounts, or between two mounts: some are there, some are
/// not.
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

/// Its folder is gone when it is to be mounted again.
#[test]
fn a_failed_mount_is_loud_and_tried_again() {
    let space = with_units();
    let before = space.table();
    let run = space.in_the_window(&["snapshot", "-o", "json"]);
    std::fs::remove_dir(space.path("a")).unwrap();
    let ended = run.end();
    let by_hand = format!(
        "mount -t ext4 -o rw,nodev,noatime,commit=9 {} {} && mount --make-private {}",
        space.rig.device("a"),
        space.at("a"),
        space.at("a")
    );
    ended
        .exits(41)
        .says(&format!("NOT MOUNTED: {}", space.at("a")))
        .says(&by_hand)
        .says("No such file or directory");
    let record = ended.record();
    assert_eq!(record["not_mounted"], serde_json::json!([space.at("a")]));
    assert_eq!(record["exit_code"], 41);
    // The set itself is good, and stays so.
    assert_labels(&space.rig, 1, "filesystem");
    assert_eq!(space.told(), STOPPED_AND_STARTED[..2], "a database must not start on an empty folder");
    assert_eq!(space.rig.journals().len(), 1);

    space.run(&["thaw"]).exits(41).says(&by_hand);
    space.run(&["snapshot"]).exits(41).says(&by_hand);
    assert_eq!(space.rig.journals().len(), 1);
    std::fs::write(space.path("a"), "a file now").unwrap();
    space.run(&["thaw"]).exits(41).says("its mount point is not a folder any more");

    std::fs::remove_file(space.path("a")).unwrap();
    std::fs::create_dir(space.path("a")).unwrap();
    space.run(&["thaw"]).exits(0).says(&format!("mounted {}", space.at("a")));
    assert_eq!(space.told(), STOPPED_AND_STARTED);
    assert_labels(&space.rig, 1, "filesystem");
    nothing_left(&space, &before);
    // Nobody takes its good set for one that a dead run left without a verdict.
    space.run(&["snapshot"]).exits(0);
    assert_labels(&space.rig, 2, "filesystem");
}

/// A rehearsal leaves it as it is, and says so: no further round, and no signal, hides that it is not
/// mounted.
#[test]
fn a_rehearsal_ends_with_what_is_not_mounted() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.unmounting(&["a"], "");
    let before = space.table();
    let ended = space.run_injected("move_mount:error=EIO:when=1", &["rehearse", "--repeat", "3"]);
    assert!(ended.exits(41).out.contains("1 round"), "{}", ended.out);
    assert_eq!(space.table(), Vec::<String>::new());
    space.run(&["thaw"]).exits(0);
    nothing_left(&space, &before);

    let run = space.spawn(&["rehearse", "--hold", "8s"]);
    await_some("the unmount", || space.table().is_empty().then_some(()));
    std::fs::remove_dir(space.path("a")).unwrap();
    assert_eq!(space.run(&["status", "-o", "json"]).record()["runs"][0]["command"], "rehearse");
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert!(ended.exits(41).out.contains("cannot mount"), "{}", ended.out);
    std::fs::create_dir(space.path("a")).unwrap();
    space.run(&["thaw"]).exits(0);
    nothing_left(&space, &before);
}

#[test]
fn the_command_by_hand_does_it() {
    let space = Namespace::start(&[("a", Fs::Btrfs)]);
    let (a, device) = (space.at("a"), space.rig.device("a"));
    space.sh(&format!("btrfs -q subvolume create {a}/'my home'; mkdir {a}/'my home'/sub '{a}-it'\\''s'; umount {a}; \
        mount -o subvol='my home',compress=lzo,nodev {device} {a}; mount --bind {a}/sub '{a}-it'\\''s'; mount -o remount,bind,ro,noexec '{a}-it'\\''s'"));
    let before = space.table();
    space.unmounting(&["a"], "");
    let run = space.in_the_window(&["snapshot"]);
    std::fs::remove_dir(space.path("a")).unwrap();
    let ended = run.end();
    ended.exits(41);
    std::fs::create_dir(space.path("a")).unwrap();
    let commands: Vec<_> = ended
        .err
        .lines()
        .filter(|l| l.starts_with("after the set"))
        .filter_map(|l| l.split_once("; by hand: "))
        .collect();
    assert_eq!(commands.len(), 2, "{}", ended.err);
    commands.iter().for_each(|(_, command)| drop(space.sh(command)));
    assert_eq!(space.table(), before);
    // And the rescue finds nothing more to do.
    let ended = space.run(&["thaw"]);
    ended.exits(0);
    assert!(!ended.err.contains("mounted"), "{}", ended.err);
    nothing_left(&space, &before);
}

/// Hooks enclose it all: they are released after the filesystem is back and the units run.
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
