//! A freeze that is somebody else's is not thawed: what a run and its watchdog have thawed is known to every
//! recovery, whoever freezes it afterwards.

use std::path::Path;

use nix::sys::signal::Signal;
use rig::hooks::{hook, log, note, noting};
use rig::probe::{assert_settled, guards, is_frozen, is_thawed, kill_with_guards, was_frozen};
use rig::program::{Run, await_some};
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};

fn freeze(mount: &Path) {
    sh("fsfreeze", &["--freeze", mount.to_str().unwrap()]);
}

/// The agent is killed in its window, and its watchdog has thawed.
fn killed() -> Rig {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
    rig.configure(&noting(&rig, "db"));
    let run = in_the_window(&rig, &["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("the guards' end", || guards(&rig).is_empty().then_some(()));
    assert!(rig.mounts().iter().all(|m| is_thawed(m)));
    rig
}

#[test]
fn a_recovery_leaves_what_was_frozen_after_the_watchdogs_thaw() {
    let rig = killed();
    for name in ["a", "b", "c"] {
        freeze(&rig.mount(name));
    }
    let status = Run::start(rig.bare_command(&["status"])).end();
    assert!(!status.exits(0).out.contains("may be frozen"), "{}", status.out);
    let ended = Run::start(rig.bare_command(&["thaw", "--recover"])).end();
    ended.exits(0).says("died before its end");
    assert_eq!(log(&rig), ["pre-db", "post-db unknown"], "what was quiesced is released all the same");
    assert!(!ended.err.contains("thawed"), "{}", ended.err);
    // The next start does not thaw it either.
    rig.run(&["snapshot"]).exits(21);
    for name in ["a", "b", "c"] {
        assert!(was_frozen(&rig.mount(name)), "{name} was thawed");
    }
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

/// The watchdog died with the agent, or before it had thawed: then the recovery thaws.
#[test]
fn a_recovery_thaws_what_nobody_has_thawed() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let run = in_the_window(&rig, &["snapshot"]);
    kill_with_guards(&rig, run.pid());
    run.end();
    let status = Run::start(rig.bare_command(&["status"])).end();
    assert!(status.exits(40).out.contains("may be frozen"), "{}", status.out);
    let ended = Run::start(rig.bare_command(&["thaw", "--recover"])).end();
    for name in ["a", "b"] {
        ended.exits(0).says(&format!("thawed {}", rig.mount(name).display()));
        assert!(is_thawed(&rig.mount(name)));
    }
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

/// Some of it was thawed, by a recovery that did not come to its end.
#[test]
fn a_recovery_that_was_broken_off_is_not_repeated_on_what_it_has_thawed() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let slow = hook("db", "true", &format!("{}; exec sleep 60", note(&rig, "post")), "");
    rig.configure(&slow.replace("10s", "40s"));
    let run = in_the_window(&rig, &["snapshot"]);
    kill_with_guards(&rig, run.pid());
    run.end();
    let first = Run::start(rig.bare_command(&["thaw", "--recover"]));
    await_some("its post hook", || (!log(&rig).is_empty()).then_some(()));
    first.signal(Signal::SIGKILL);
    first.end();
    freeze(&rig.mount("a"));
    rig.configure(&noting(&rig, "db"));
    let ended = Run::start(rig.bare_command(&["status"])).end();
    assert!(!ended.out.contains("may be frozen"), "{}", ended.out);
    let second = Run::start(rig.bare_command(&["thaw", "--recover"]));
    await_some("the second recovery's post hook", || (log(&rig).len() > 1).then_some(()));
    second.signal(Signal::SIGKILL);
    second.end();
    assert!(is_frozen(&rig.mount("a")), "somebody else's freeze was thawed");
    assert!(was_frozen(&rig.mount("a")));
    rig.await_quiet();
}

/// The agent has thawed, and dies before it can note that in its journal.
#[test]
fn a_recovery_leaves_what_was_frozen_after_the_agents_own_thaw() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let mut run = in_the_window(&rig, &["snapshot"]);
    // Where the journal is written, there is a folder now: it stays as it was in the window.
    let name = rig.journals().remove(0);
    std::fs::create_dir(rig.path("run/runs").join(format!("{name}.new"))).unwrap();
    rig.fault("CreateTags", "hang", "0ms");
    run.release();
    await_some("the thaw", || is_thawed(&rig.mount("a")).then_some(()));
    await_some("the call that labels", || (!rig.calls("CreateTags").is_empty()).then_some(()));
    run.signal(Signal::SIGKILL);
    run.end();
    std::fs::remove_dir(rig.path("run/runs").join(format!("{name}.new"))).unwrap();
    freeze(&rig.mount("b"));
    Run::start(rig.bare_command(&["thaw", "--recover"])).end().exits(0);
    assert!(was_frozen(&rig.mount("b")), "somebody else's freeze was thawed");
}
