//! systemd units around a real window, under a real systemd: a user manager of the test's own (tests/rig),
//! which orders, stops, freezes and thaws by the same code as the system's. What stands in between is one
//! script that adds `--user`.

use nix::sys::signal::Signal;
use rig::hooks::log;
use rig::probe::{assert_labels, assert_settled};
use rig::program::{Ended, Run, await_some, put_executable};
use rig::systemd::Manager;
use rig::window::{InWindow, in_the_window_of};
use rig::{Fs, Rig};
use std::process::Command;

fn service(rig: &Rig, name: &str, more: &str) -> (String, String) {
    let log = rig.path("log");
    let note = |word: &str| format!("/bin/sh -c 'echo {word} {name} >> {}'", log.display());
    let text = format!(
        "[Unit]\n{more}\n[Service]\nExecStartPre={}\nExecStart=/bin/sleep 300\nExecStop={}\n",
        note("start"),
        note("stop")
    );
    (format!("{name}.service"), text)
}

/// A rig, and a manager in which db runs, app that requires it, and web that is part of app; idle does not.
fn started(section: &str) -> Option<(Rig, Manager)> {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let units = [
        service(&rig, "db", ""),
        service(&rig, "app", "Requires=db.service\nAfter=db.service"),
        service(&rig, "web", "PartOf=app.service\nAfter=app.service"),
        service(&rig, "idle", "Requires=db.service"),
    ];
    let units: Vec<_> = units.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let manager = Manager::start(&rig, &units)?;
    manager.ctl(&["start", "app.service", "web.service"]);
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.configure(section);
    Some((rig, manager))
}

/// With a PATH of whoever called: what is in it is not started.
fn command(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = rig.command(arguments);
    let evil = rig.path("evil");
    std::fs::create_dir_all(&evil).unwrap();
    put_executable(&evil.join("systemctl"), format!("#!/bin/sh\ntouch {}/ran\n", evil.display()));
    command.env("PATH", format!("{}:/usr/bin:/bin", evil.display()));
    command
}

fn run(rig: &Rig, arguments: &[&str]) -> Ended {
    let ended = Run::start(command(rig, arguments)).end();
    assert!(!rig.path("evil/ran").exists(), "a program of the caller's PATH was started");
    ended
}

fn snapshot_in_the_window(rig: &Rig) -> InWindow<'_> {
    in_the_window_of(rig, command(rig, &["snapshot", "-o", "json"]))
}

fn states(manager: &Manager, property: &str) -> Vec<String> {
    ["db", "app", "web", "idle"].map(|n| manager.state(&format!("{n}.service"), property)).to_vec()
}

const RUNNING: [&str; 4] = ["active", "active", "active", "inactive"];
const STOP: &str = "[[systemd]]\nunits = [\"db.service\", \"idle.service\"]\ntimeout = \"10s\"\n";
const FREEZE: &str = "[[systemd]]\nunits = [\"db.service\", \"app.service\", \"idle.service\"]\nmethod = \"freeze\"\ntimeout = \"10s\"\n";

#[test]
fn units_are_stopped_with_what_hangs_on_them_and_only_what_ran_is_started() {
    let Some((rig, manager)) = started(STOP) else { return };
    let window = snapshot_in_the_window(&rig);
    assert_eq!(states(&manager, "ActiveState"), ["inactive"; 4]);
    let ended = window.end();
    assert_eq!(ended.exits(0).record()["achieved"], "application");
    assert_eq!(states(&manager, "ActiveState"), RUNNING);
    let all = ["stop web", "stop app", "stop db", "start db", "start app", "start web"];
    assert_eq!(log(&rig), all, "in the order of systemd");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn units_are_frozen_and_one_that_was_frozen_before_stays_so() {
    let Some((rig, manager)) = started(FREEZE) else { return };
    manager.ctl(&["freeze", "app.service"]);
    let window = snapshot_in_the_window(&rig);
    assert_eq!(states(&manager, "FreezerState"), ["frozen", "frozen", "running", "running"]);
    window.end().exits(0);
    assert_eq!(states(&manager, "FreezerState"), ["running", "frozen", "running", "running"]);
    assert_eq!(states(&manager, "ActiveState"), RUNNING);
    assert_settled(&rig);
}

fn killed(section: &str, property: &str, held: [&str; 4], after: [&str; 4]) {
    let Some((rig, manager)) = started(section) else { return };
    let window = snapshot_in_the_window(&rig);
    window.signal(Signal::SIGKILL);
    window.end();
    assert_eq!(states(&manager, property), held, "nobody was there yet");
    run(&rig, &["thaw", "--recover"]).exits(0);
    assert_eq!(states(&manager, property), after);
    rig.await_quiet();
}

#[test]
fn stopped_units_of_a_killed_agent_are_started_by_the_recovery() {
    killed(STOP, "ActiveState", ["inactive"; 4], RUNNING);
}

#[test]
fn frozen_units_of_a_killed_agent_are_thawed_by_the_recovery() {
    let held = ["frozen", "frozen", "running", "running"];
    killed(FREEZE, "FreezerState", held, ["running"; 4]);
}

/// A unit that was stopped and runs again in the window may write to what is being taken.
fn lowered(section: &str, verb: &str, says: &str) {
    let Some((rig, manager)) = started(section) else { return };
    let window = snapshot_in_the_window(&rig);
    manager.ctl(&[verb, "db.service"]);
    let ended = window.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert!(record["reason"].as_str().unwrap().contains(says), "{}", record["reason"]);
    assert_eq!(states(&manager, "ActiveState"), RUNNING);
    assert_eq!(states(&manager, "FreezerState"), ["running"; 4]);
    assert_settled(&rig);
}

#[test]
fn a_unit_that_somebody_started_meanwhile_lowers_the_label() {
    lowered(STOP, "start", "db.service was active before it was started again");
}

#[test]
fn a_unit_that_somebody_thawed_meanwhile_lowers_the_label() {
    lowered(FREEZE, "thaw", "db.service was running before it was thawed");
}

#[test]
fn what_triggers_a_unit_is_stopped_with_it() {
    let Some((rig, manager)) = started(&STOP.replace("db.service", "echo.service")) else { return };
    let socket = format!("[Socket]\nListenStream={}\n", rig.path("echo.socket").display());
    let put = |name: &str, text: &str| std::fs::write(rig.path("systemd/units").join(name), text).unwrap();
    put("echo.socket", &socket);
    put("echo.service", &service(&rig, "echo", "").1);
    manager.ctl(&["daemon-reload"]);
    manager.ctl(&["start", "echo.socket", "echo.service"]);
    std::fs::remove_file(rig.path("log")).unwrap();
    let window = snapshot_in_the_window(&rig);
    assert_eq!(manager.state("echo.socket", "ActiveState"), "inactive", "a connection would start it");
    window.end().exits(0);
    for unit in ["echo.socket", "echo.service"] {
        assert_eq!(manager.state(unit, "ActiveState"), "active");
    }
}

#[test]
fn what_cannot_be_held_is_refused_and_what_does_not_run_is_nothing_to_hold() {
    let Some((rig, manager)) = started("[[systemd]]\nunits = [\"none.service\"]\n") else { return };
    run(&rig, &["snapshot"]).exits(20).says("there is no unit none.service");
    rig.configure("[[systemd]]\nunits = [\"base.target\"]\nmethod = \"freeze\"\n");
    run(&rig, &["snapshot"]).exits(20).says("base.target cannot be frozen here").says("systemd 246");
    let text = service(&rig, "stays", "RefuseManualStop=yes").1;
    std::fs::write(rig.path("systemd/units/stays.service"), text).unwrap();
    manager.ctl(&["daemon-reload"]);
    manager.ctl(&["start", "stays.service"]);
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.configure("[[systemd]]\nunits = [\"stays.service\"]\n");
    run(&rig, &["snapshot"]).exits(20).says("stays.service cannot be stopped and started by hand");
    assert_eq!(rig.creates().len(), 0);
    rig.configure("[[systemd]]\nunits = [\"idle.service\"]\n");
    run(&rig, &["snapshot"]).exits(0);
    assert_eq!(states(&manager, "ActiveState"), RUNNING);
    assert_eq!(log(&rig), Vec::<String>::new());
    assert_settled(&rig);
}

/// SIGTERM while a unit takes its time to stop: the run ends, and the unit is started.
#[test]
fn a_stop_that_is_cut_off_is_started_again() {
    let Some((rig, manager)) = started(&STOP.replace("db.service", "slow.service")) else { return };
    let text = "[Service]\nExecStart=/bin/sleep 300\nExecStop=/bin/sleep 5\n";
    std::fs::write(rig.path("systemd/units/slow.service"), text).unwrap();
    manager.ctl(&["daemon-reload"]);
    manager.ctl(&["start", "slow.service"]);
    let running = Run::start(command(&rig, &["snapshot"]));
    await_some("the stop", || (manager.state("slow.service", "ActiveState") == "deactivating").then_some(()));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().signal, Some(Signal::SIGTERM as i32));
    assert_eq!(manager.state("slow.service", "ActiveState"), "active");
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}
