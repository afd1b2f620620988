//! What the journal gets of a run that somebody may have to be woken for: an entry with a MESSAGE_ID and fields for
//! each event, read back from journald's socket.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;
use rig::hooks::{hook, log, noting};
use rig::journald::{Entry, Journald};
use rig::probe::{assert_settled, guards, is_thawed, kill_with_guards};
use rig::program::{Ended, Run, await_some};
use rig::window::in_the_window_of;
use rig::{Fs, Rig};
use stillpoint::report::event::Kind;

use crate::stuck::stuck_writer;

fn two(configuration: &str) -> (Rig, Journald) {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(configuration);
    (rig, Journald::start())
}

fn run(rig: &Rig, journald: &Journald, arguments: &[&str]) -> Ended {
    Run::start(journald.of(rig.command(arguments))).end()
}

/// The entry has this id, this priority, and these fields.
fn is(entry: &Entry, kind: Kind, priority: &str, fields: &[(&str, &str)]) {
    assert_eq!(entry["MESSAGE_ID"], kind.message_id(), "{entry:#?}");
    assert_eq!(entry["PRIORITY"], priority, "{entry:#?}");
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "stillpoint");
    for (name, value) in fields {
        let name = format!("STILLPOINT_{name}");
        assert_eq!(entry.get(&name).map(String::as_str), Some(*value), "{name}: {entry:#?}");
    }
}

fn last_set(rig: &Rig) -> String {
    let list = rig.run(&["list", "-o", "json"]).exits(0).record();
    list["sets"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_set_that_is_as_it_should_be_is_one_notice() {
    let (rig, journald) = two("");
    run(&rig, &journald, &["snapshot"]).exits(0);
    let entry = journald.take("set-taken");
    let set = last_set(&rig);
    let fields = [("PLAN", "default"), ("RUN", &set), ("SET", &set), ("LABEL", "filesystem")];
    is(&entry, Kind::SetTaken, "5", &fields);
    is(&entry, Kind::SetTaken, "5", &[("EXIT_CODE", "0"), ("REQUESTED", "filesystem")]);
    assert_eq!(entry["STILLPOINT_SNAPSHOTS"].split(' ').count(), 2);
    assert!(entry["STILLPOINT_WINDOW_MS"].parse::<f64>().unwrap() > 0.0);
    assert_eq!(journald.names(), Vec::<String>::new(), "it was one");
    // Whoever reads stderr sees none of this.
    let plain = rig.run(&["snapshot"]);
    assert!(!plain.err.contains("MESSAGE_ID") && !plain.err.contains("run ended"), "{}", plain.err);
    assert_eq!(journald.names(), Vec::<String>::new());
    // A filter of the log's does not keep it back.
    rig.await_quiet();
    let mut quiet = journald.of(rig.command(&["snapshot"]));
    quiet.env("STILLPOINT_LOG", "off");
    Run::start(quiet).end().exits(0);
    journald.take("set-taken");
}

#[test]
fn less_than_was_asked_for_and_nothing_at_all_have_entries_of_their_own() {
    let degrade = |on_degraded: &str| {
        let app = hook("app", "printf \"no \\033[31m way\\n\"; exit 1", "true", "on_failure = \"degrade\"");
        format!("[defaults]\non_degraded = \"{on_degraded}\"\n{app}")
    };
    let (rig, journald) = two(&degrade("keep"));
    run(&rig, &journald, &["snapshot"]).exits(10);
    let entry = journald.take("set-lower");
    is(&entry, Kind::SetLower, "4", &[("LABEL", "filesystem"), ("REQUESTED", "application")]);
    is(&entry, Kind::SetLower, "4", &[("EXIT_CODE", "10"), ("SET", &last_set(&rig))]);
    let reason = &entry["STILLPOINT_REASON"];
    assert!(
        reason.contains("exit code 1") && reason.contains("\\u{1b}") && !reason.contains('\x1b'),
        "{reason}"
    );

    rig.configure(&degrade("fail"));
    run(&rig, &journald, &["snapshot"]).exits(22);
    is(&journald.take("set-lower"), Kind::SetLower, "3", &[("EXIT_CODE", "22")]);

    rig.configure(&hook("app", "exit 1", "true", ""));
    run(&rig, &journald, &["snapshot"]).exits(20);
    let entry = journald.take("set-failed");
    is(&entry, Kind::SetFailed, "3", &[("EXIT_CODE", "20"), ("PLAN", "default")]);
    assert!(!entry.contains_key("STILLPOINT_SET"), "there is none: {entry:#?}");

    rig.configure("nonsense = 1\n");
    run(&rig, &journald, &["snapshot"]).exits(78);
    let entry = journald.take("set-failed");
    is(&entry, Kind::SetFailed, "3", &[("EXIT_CODE", "78"), ("PLAN", "default")]);
    assert!(entry["STILLPOINT_REASON"].contains("nonsense"), "{entry:#?}");
}

#[test]
fn an_application_that_may_still_be_held_is_named() {
    let (rig, journald) = two(&hook("app", "true", "echo stuck; exit 1", ""));
    run(&rig, &journald, &["snapshot"]).exits(11);
    let entries = journald.await_names(&["set-taken", "after-failed", "left-held"]);
    let set = last_set(&rig);
    is(&entries[0], Kind::SetTaken, "5", &[("EXIT_CODE", "11"), ("SET", &set)]);
    is(&entries[1], Kind::AfterFailed, "4", &[("SET", &set), ("EXIT_CODE", "11")]);
    is(&entries[2], Kind::LeftHeld, "3", &[("RUN", &set), ("HOOKS", "app"), ("PLAN", "default")]);
    assert!(entries[2]["STILLPOINT_REASON"].contains("its last line was: stuck"), "{entries:#?}");
}

#[test]
fn a_watchdog_that_fired_is_told() {
    let (rig, journald) = two("");
    let run = in_the_window_of(&rig, journald.of(rig.command(&["snapshot"])));
    run.signal(Signal::SIGSTOP);
    assert!(rig.mounts().iter().all(|mount| is_thawed(mount)));
    run.signal(Signal::SIGCONT);
    run.end().exits(22);
    let entry = journald.take("watchdog-fired");
    is(&entry, Kind::WatchdogFired, "3", &[("REASON", "the agent's heartbeat stopped"), ("PLAN", "default")]);
    assert_settled(&rig);
}

#[test]
fn what_may_still_be_frozen_is_told_at_once() {
    let (rig, journald) = two("");
    let mut writer = stuck_writer(&rig, "a");
    run(&rig, &journald, &["snapshot", "--window", "6s"]).exits(40);
    let mount = rig.mount("a");
    let entry = journald.take("still-frozen");
    is(&entry, Kind::StillFrozen, "3", &[("MOUNTS", mount.to_str().unwrap()), ("EXIT_CODE", "40")]);
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(is_thawed(&mount), "it stays frozen");
    await_some("the guards to go", || guards(&rig).is_empty().then_some(()));
    run(&rig, &journald, &["snapshot"]).exits(0);
    is(&journald.take("run-recovered"), Kind::RunRecovered, "4", &[]);
    assert_settled(&rig);
}

#[test]
fn what_a_dead_run_had_left_is_told_when_it_is_undone() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure(&noting(&rig, "db"));
    let journald = Journald::start();
    let run_ = in_the_window_of(&rig, journald.of(rig.command(&["snapshot"])));
    kill_with_guards(&rig, run_.pid());
    drop(run_);
    let command = journald.of(rig.bare_command(&["thaw", "--recover"]));
    Run::start(command).end().exits(0);
    let entry = journald.take("run-recovered");
    is(&entry, Kind::RunRecovered, "4", &[("HOOKS", "db")]);
    let mounts: BTreeSet<_> = entry["STILLPOINT_MOUNTS"].split(' ').collect();
    assert_eq!(mounts, rig.mounts().iter().map(|m| m.to_str().unwrap()).collect());
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"]);
    assert!(entry["STILLPOINT_RUN"].len() == 36, "{entry:#?}");
    assert!(rig.mounts().iter().all(|mount| is_thawed(mount)));
}

#[test]
fn a_set_that_ec2_could_not_complete_is_told_by_whoever_sees_it_first() {
    let (rig, journald) = two("");
    let lose = || {
        rig.sim(&["faults", "add", "--action", "CreateSnapshots", "--kind", "snapshot-error"]);
        let taken = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
        taken["run_id"].as_str().unwrap().to_owned()
    };
    let lost = lose();
    rig.await_quiet();
    run(&rig, &journald, &["wait", &lost]).exits(11);
    let entry = journald.take("wait-failed");
    is(&entry, Kind::WaitFailed, "3", &[("SET", &lost), ("PLAN", "default"), ("EXIT_CODE", "11")]);
    assert!(entry["STILLPOINT_SNAPSHOTS"].starts_with("snap-"), "{entry:#?}");
    run(&rig, &journald, &["snapshot"]).exits(11);
    let entry = journald.take("set-lost");
    is(&entry, Kind::SetLost, "3", &[("SET", &lost), ("PLAN", "default")]);
    assert!(entry["STILLPOINT_SNAPSHOTS"].starts_with("snap-"), "{entry:#?}");
}

#[test]
fn a_prune_tells_what_it_removed_what_it_could_not_and_that_it_held_back() {
    let (rig, journald) = two("[defaults.keep]\nlast = 1\n");
    let take = || {
        let taken = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
        taken["run_id"].as_str().unwrap().to_owned()
    };
    let taken: Vec<String> = (0..3).map(|_| take()).collect();
    rig.await_quiet();
    run(&rig, &journald, &["prune", "--dry-run"]).exits(11);
    run(&rig, &journald, &["prune"]).exits(11);
    let entry = journald.take("prune-held-back");
    is(&entry, Kind::PruneHeldBack, "4", &[("PLAN", "default"), ("EXIT_CODE", "11")]);
    assert!(entry["STILLPOINT_REASON"].contains("2 of 3 sets would go"), "{entry:#?}");
    let fault = ["faults", "add", "--action", "DeleteSnapshot", "--call", "1", "--kind", "error"];
    let error = ["--code", "InvalidSnapshot.InUse", "--status", "400", "--message", "in use by ami-1"];
    rig.sim(&[&fault[..], &error].concat());
    run(&rig, &journald, &["prune", "--yes"]).exits(11);
    // And nothing of the dry run.
    let events = journald.await_names(&["set-not-removed", "set-removed"]);
    is(&events[0], Kind::SetNotRemoved, "3", &[("SET", &taken[0])]);
    assert!(events[0]["STILLPOINT_REASON"].contains("ami-1"), "{events:#?}");
    is(&events[1], Kind::SetRemoved, "5", &[("SET", &taken[1]), ("PLAN", "default")]);
    assert_eq!(events[1]["STILLPOINT_SNAPSHOTS"].split(' ').count(), 2);
}

/// By systemd's own tool: it takes the catalog, and has a text for each id.
#[test]
fn systemd_takes_the_catalog() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("usr/lib/systemd/catalog");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::create_dir_all(root.path().join("var/lib/systemd/catalog")).unwrap();
    let catalog = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/stillpoint.catalog");
    std::fs::copy(catalog, folder.join("stillpoint.catalog")).unwrap();
    let journalctl = |arguments: &[&str]| {
        let mut command = Command::new("journalctl");
        let output =
            command.arg(format!("--root={}", root.path().display())).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    journalctl(&["--update-catalog"]);
    let list = journalctl(&["--list-catalog"]);
    assert_eq!(list.lines().count(), Kind::ALL.len(), "{list}");
    for kind in Kind::ALL {
        let text = journalctl(&["--dump-catalog", kind.message_id()]);
        assert!(text.contains("Defined-By: stillpoint"), "{}: {text}", kind.name());
    }
}
