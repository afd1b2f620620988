//! The package is upgraded while a run goes on: the run, its watchdog and its recovery stay of one build.

use std::process::Command;

use nix::sys::signal::Signal;
use rig::hooks::{hook, log, note};
use rig::probe::{assert_labels, assert_settled, guards};
use rig::program::{Run, await_some, put_executable};
use rig::window::in_the_window_of;
use rig::{Fs, Rig, sh, stillpoint};

/// The program, installed in a folder of its own; the next version of it, which notes when it is started; and
/// the hook `upgrade`, by whose pre command it is installed.
fn installed() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    std::fs::create_dir(rig.path("bin")).unwrap();
    sh("cp", &[stillpoint(), rig.path("bin/stillpoint").to_str().unwrap()]);
    put_executable(&rig.path("next"), format!("#!/bin/sh\n{} $@\nexit 1\n", note(&rig, "next")));
    let install = format!("mv {} {}", rig.path("next").display(), rig.path("bin/stillpoint").display());
    rig.configure(&hook("upgrade", &install, &note(&rig, "post"), ""));
    rig
}

fn command(rig: &Rig, arguments: &[&str]) -> Command {
    rig.tail(rig.exec(&rig.path("bin/stillpoint")), arguments)
}

#[test]
fn the_watchdog_is_the_program_that_runs_and_not_the_one_that_was_installed_since() {
    let rig = installed();
    Run::start(command(&rig, &["snapshot"])).end().exits(0);
    assert_eq!(log(&rig), ["post"], "the next version was started");
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn so_are_the_process_that_holds_a_freeze_and_the_recovery_after_its_death() {
    let rig = installed();
    Run::start(command(&rig, &["freeze", "--for", "60s"])).end().exits(0);
    let status = Run::start(rig.bare_command(&["status", "-o", "json"])).end();
    let holder = status.record()["runs"][0]["pid"].as_i64().unwrap();
    let holder = nix::unistd::Pid::from_raw(i32::try_from(holder).unwrap());
    let name = std::fs::read_to_string(format!("/proc/{holder}/comm")).unwrap();
    assert_eq!(name.trim(), "stillpoint", "as `ps` and `pgrep` know it");
    nix::sys::signal::kill(holder, Signal::SIGKILL).unwrap();
    await_some("the recovery's post hook", || (!log(&rig).is_empty()).then_some(()));
    assert_eq!(log(&rig), ["post"], "the next version was started");
    await_some("the end of the recovery", || rig.journals().is_empty().then_some(()));
    assert_settled(&rig);
}

#[test]
fn watchdog_and_freezer_have_the_name_of_their_program() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let run = in_the_window_of(&rig, rig.command(&["snapshot"]));
    let guards = guards(&rig);
    assert_eq!(guards.len(), 2);
    for guard in guards {
        let name = std::fs::read_to_string(format!("/proc/{guard}/comm")).unwrap();
        assert_eq!(name.trim(), "stillpoint");
    }
    run.end().exits(0);
}
