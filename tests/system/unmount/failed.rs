//! What cannot be unmounted is undone; what cannot be mounted again is loud, and is tried again.

use nix::sys::signal::Signal;
use rig::Fs;
use rig::hooks::{hook, note};
use rig::listener::Listener;
use rig::namespace::Namespace;
use rig::probe::assert_labels;
use rig::program::{Run, await_some};
use serde_json::Value;

use super::{STOPPED_AND_STARTED, nothing_left, with_units};

/// Found before anything is touched, and by `doctor` before any run.
#[test]
fn a_kernel_that_could_not_mount_again_is_found_first() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    let finding = |injected: Option<&str>| {
        let ended = match injected {
            Some(call) => space.run_injected(&format!("{call}:error=ENOSYS"), &["doctor", "-o", "json"]),
            None => space.run(&["doctor", "-o", "json"]),
        };
        let found = ended.record()["findings"].as_array().unwrap().clone();
        found.into_iter().find(|f| f["id"] == "unmount")
    };
    assert_eq!(finding(None), None, "no mount has the method `unmount`");
    space.unmounting(&["a"], "");
    assert_eq!(finding(None).unwrap()["severity"], "ok");
    for (call, name) in [("fsopen", "fsopen (5.2)"), ("mount_setattr", "mount_setattr (5.12)")] {
        let found = finding(Some(call)).unwrap();
        assert_eq!((&found["severity"], &found["where"][0]), (&"problem".into(), &space.at("a").into()));
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(found["what"], format!("this kernel ({}) lacks {name}", release.trim()));
        let before = space.table();
        let ended = space.run_injected(&format!("{call}:error=ENOSYS"), &["snapshot"]);
        ended.exits(21).says(&format!("cannot unmount {}: this kernel lacks {name}", space.at("a")));
        nothing_left(&space, &before);
    }
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

/// Adds a hook that notes with which result it is released, and which mounts it is told to be missing.
fn with_a_hook(space: &Namespace) {
    let told = note(&space.rig, "post $STILLPOINT_RESULT [$STILLPOINT_NOT_MOUNTED]");
    let text = std::fs::read_to_string(space.path("stillpoint.toml")).unwrap();
    let hook = hook("app", "true", &told, "");
    space.rig.configure(&format!("{}\n{hook}", text.replace(rig::NO_INTERVAL, "")));
}

/// A database must not be started on an empty folder. So its post hook is told what is not mounted, by the
/// run, a rehearsal and the recovery alike.
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

/// A fanotify listener lets the exec of the watchdog hang. The run has to find that out while everything is
/// still mounted: later the hanging child would keep the devices claimed.
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
    // EBUSY although no process holds it: as when the kernel itself does.
    let ended = space.run_injected("umount2:error=EBUSY:when=2+", &["snapshot"]);
    ended
        .exits(21)
        .says(&format!("cannot unmount {}: ", space.at("a")))
        .says("no process that can be seen holds it");
    assert_eq!(space.rig.creates().len(), 0);
    assert_eq!(space.told(), ["stop db.service", "start db.service"]);
    nothing_left(&space, &before);
}

/// The first of two mounts fails, and the second has to be made all the same.
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

/// The mount point is gone when the filesystem is to be mounted again.
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
    // The set was taken before that, and keeps its label.
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
    // The next run must not relabel this set, as it does with a set that a dead run left without a verdict.
    space.run(&["snapshot"]).exits(0);
    assert_labels(&space.rig, 2, "filesystem");
}

/// A rehearsal that cannot mount again ends with that: neither a further round nor a signal may hide it.
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
    // After the commands the recovery has nothing more to do.
    let ended = space.run(&["thaw"]);
    ended.exits(0);
    assert!(!ended.err.contains("mounted"), "{}", ended.err);
    nothing_left(&space, &before);
}
