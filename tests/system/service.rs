//! The unit as it is shipped, under a real systemd, when everything in its control group is killed in the
//! window. A drop-in says where the program and its folders are; nothing else is changed.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::hooks::{log, noting};
use rig::patience::WINDOW;
use rig::probe::{BlockedWrite, assert_clean, guards};
use rig::program::await_some;
use rig::systemd::Manager;
use rig::{Fs, Rig};

const SHIPPED: &str = include_str!("../../systemd/stillpoint@.service");
const UNIT: &str = "stillpoint@default.service";

/// A command as a line of a unit.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_str().unwrap().replace('%', "%%")).collect::<Vec<_>>().join(" ")
}

/// The shipped unit in its window, with the state of everything on the filesystem `a`, which is frozen.
struct Service {
    rig: Rig,
    manager: Manager,
    held: u64,
}

impl Service {
    fn in_the_window(more: &str) -> Option<Self> {
        let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
        let manager = Manager::start(&rig, &[])?;
        rig.configure(&noting(&rig, "db"));
        let state = rig.mount("a").join("state");
        std::fs::create_dir(&state).unwrap();
        manager.keep_state_on(&state);
        let folders = ["--state-dir", state.to_str().unwrap()];
        // Of two such options the one behind the command counts.
        let take = rig.command(&[&["snapshot", "--window", WINDOW], &folders[..]].concat());
        let recover = rig.bare_command(&[&["thaw", "--recover"], &folders[..]].concat());
        let at = |command: &Command| line(command).replacen("env ", "/usr/bin/env ", 1);
        let here = format!(
            "[Service]\nExecStart=\nExecStart={} %i\nExecStopPost=\nExecStopPost={}\n{more}",
            line(&take),
            at(&recover)
        );
        manager.put("stillpoint@.service", SHIPPED);
        manager.put(&format!("{UNIT}.d/here.conf"), &here);
        manager.ctl(&["daemon-reload"]);
        let fault = r#"{"action": "CreateSnapshots", "call": 1, "kind": "hold-before"}"#;
        let held = rig.control("POST", "faults", fault)["id"].as_u64().unwrap();
        manager.ctl(&["start", "--no-block", UNIT]);
        rig.control("GET", &format!("faults/{held}/held?within_ms=30000"), "");
        Some(Self { rig, manager, held })
    }

    fn blocked(&self) -> Vec<BlockedWrite> {
        self.rig.mounts().iter().map(|m| BlockedWrite::certain(m)).collect()
    }

    fn kill_group(&self) {
        let group: PathBuf = self.manager.group_of(UNIT);
        std::fs::write(group.join("cgroup.kill"), "1").unwrap();
    }

    /// EC2 answers, nothing is left, and the unit has ended.
    fn end(&self, state: &str) {
        self.rig.control("POST", &format!("faults/{}/release", self.held), "");
        await_some("the unit to end", || (self.manager.state(UNIT, "ActiveState") == state).then_some(()));
        assert_clean(&self.rig);
        self.rig.await_quiet();
    }
}

/// Waits for the writes; how long the last one took from `since`.
fn thawed_after(writes: &[BlockedWrite], since: Instant) -> Duration {
    let through = |w: &BlockedWrite| w.done(Duration::from_secs(20)).expect("not thawed");
    writes.iter().map(|w| through(w).duration_since(since)).max().unwrap()
}

/// The watchdog is not in the unit's control group: it thaws, and nothing else is needed for that.
#[test]
fn a_kill_of_the_whole_unit_leaves_the_watchdog() {
    let Some(service) = Service::in_the_window("ExecStopPost=\n") else { return };
    let writes = service.blocked();
    let killed = Instant::now();
    service.manager.ctl(&["kill", "--signal=KILL", "--kill-who=all", UNIT]);
    let took = thawed_after(&writes, killed);
    println!("thawed {took:?} after the kill");
    assert!(took < Duration::from_secs(4), "{took:?}");
    service.end("failed");
}

/// `systemctl stop`: the run thaws and ends, and its watchdog with it.
#[test]
fn a_stop_of_the_unit_thaws_and_leaves_nothing() {
    let Some(service) = Service::in_the_window("") else { return };
    let writes = service.blocked();
    let stopped = Instant::now();
    service.manager.ctl(&["stop", "--no-block", UNIT]);
    let took = thawed_after(&writes, stopped);
    println!("thawed {took:?} after the stop");
    assert!(took < Duration::from_secs(4), "{took:?}");
    service.rig.control("POST", &format!("faults/{}/release", service.held), "");
    await_some("the unit to end", || {
        ["failed", "inactive"].contains(&service.manager.state(UNIT, "ActiveState").as_str()).then_some(())
    });
    assert_clean(&service.rig);
    assert_eq!(log(&service.rig), ["pre-db", "post-db unknown"]);
    service.rig.await_quiet();
}

#[test]
fn a_freeze_of_the_unit_leaves_the_watchdog() {
    let Some(service) = Service::in_the_window("") else { return };
    let writes = service.blocked();
    let since = Instant::now();
    // What `systemctl freeze` does, which refuses a unit that is still being started, as this kind is.
    let group = service.manager.group_of(UNIT);
    std::fs::write(group.join("cgroup.freeze"), "1").unwrap();
    let took = thawed_after(&writes, since);
    println!("thawed {took:?} after the unit was frozen");
    assert!(took < Duration::from_secs(4), "{took:?}");
    std::fs::write(group.join("cgroup.freeze"), "0").unwrap();
    service.end("failed");
}

/// What is left is ExecStopPost=, and nothing that systemd does before it may wait for the frozen filesystem.
/// The window lasts for half a minute.
#[test]
fn with_agent_and_watchdog_killed_the_unit_thaws() {
    let Some(service) = Service::in_the_window("") else { return };
    let writes = service.blocked();
    // None must be there for a moment without the others: it would thaw.
    let guards = guards(&service.rig);
    let all = |signal: Signal| {
        guards.iter().for_each(|g| {
            let _ = kill(*g, signal);
        })
    };
    all(Signal::SIGSTOP);
    let killed = Instant::now();
    service.kill_group();
    all(Signal::SIGKILL);
    println!("thawed {:?} after the kill", thawed_after(&writes, killed));
    service.end("failed");
    assert_eq!(log(&service.rig), ["pre-db", "post-db unknown"], "what was quiesced is released");
}

/// The shipped unit fails for what is no full success, and systemd starts what its OnFailure= names; `status`
/// says what the timer will do, and how the last run ended.
#[test]
fn a_night_that_went_wrong_starts_the_unit_of_on_failure() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let Some(manager) = Manager::start(&rig, &[]) else { return };
    let here = format!(
        "[Unit]\nOnFailure=tell@%n.service\n[Service]\nExecStart=\nExecStart={} %i\nExecStopPost=\n",
        line(&rig.command(&["snapshot"]))
    );
    let told = rig.path("told");
    let teller = format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >> {}'\n", told.display());
    manager.put("stillpoint@.service", SHIPPED);
    manager.put(&format!("{UNIT}.d/here.conf"), &here);
    manager.put("tell@.service", &teller);
    manager.put("stillpoint@.timer", include_str!("../../systemd/stillpoint@.timer"));
    manager.ctl(&["daemon-reload"]);
    manager.ctl(&["start", "stillpoint@default.timer"]);
    let good = rig::hooks::hook("db", "exit 0", "exit 0", "on_failure = \"degrade\"");
    let bad = good.replacen("exit 0", "exit 9", 1);
    let kept = format!("[plan.default]\non_degraded = \"keep\"\n{bad}");
    let broken = "[defaults]\nwindow = \"5\"\n".to_owned();
    let lines = || std::fs::read_to_string(&told).unwrap_or_default().lines().count();
    let mut tellings = 0;
    for (configuration, fault, state, said) in [
        (&good, false, "inactive", "application-consistent, exit 0"),
        (&good, true, "failed", "NOTHING WAS TAKEN, exit 23"),
        (&bad, false, "failed", "filesystem-consistent, exit 22"),
        (&kept, false, "failed", "filesystem-consistent, exit 10"),
        (&broken, false, "failed", "NOTHING WAS TAKEN, exit 78"),
    ] {
        rig.configure(configuration);
        if fault {
            rig.fault("CreateSnapshots", "throttle", "0s");
        }
        let before = manager.state(UNIT, "InvocationID");
        manager.ctl(&["start", "--no-block", UNIT]);
        await_some("the unit to end", || {
            let ended = manager.state(UNIT, "ActiveState") == state;
            (ended && manager.state(UNIT, "InvocationID") != before).then_some(())
        });
        tellings += usize::from(state == "failed");
        await_some("the other unit to have told it", || (lines() == tellings).then_some(()));
        let text = rig::program::Run::start(rig.bare_command(&["status"])).end().out;
        assert!(text.contains(said) && text.contains("plan default: last run"), "{text}");
        assert!(text.contains("next by its timer: "), "{text}");
    }
    assert!(std::fs::read_to_string(&told).unwrap().lines().all(|l| l == UNIT));
}
