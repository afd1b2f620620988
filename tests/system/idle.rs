//! `status --wait-idle`: what a package asks before it removes the program.

use nix::sys::signal::Signal;
use rig::hooks::{hook, log, note};
use rig::probe::{assert_labels, assert_settled, watchdogs};
use rig::program::{Ended, Run, await_some};
use rig::window::in_the_window;
use rig::{Fs, Rig};

fn idle(rig: &Rig, wait: &str) -> Ended {
    Run::start(rig.bare_command(&["status", "--wait-idle", wait])).end()
}

#[test]
fn a_run_in_its_window_and_a_held_freeze_are_in_the_way_and_their_end_is_waited_for() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    assert!(!rig.path("run/lock").exists());
    idle(&rig, "1s").exits(0);
    let run = in_the_window(&rig, &["snapshot"]);
    let said = idle(&rig, "1s");
    said.exits(75)
        .says("goes on")
        .says("hint: wait for it, or end it, which thaws and releases first: kill ");
    // Waits for longer than the run lasts, and disturbs nothing.
    let waiting = Run::start(rig.bare_command(&["status", "--wait-idle", "10m"]));
    run.end().exits(0);
    waiting.end().exits(0);
    assert_labels(&rig, 1, "filesystem");

    rig.await_quiet();
    rig.run(&["freeze", "--for", "60s"]).exits(0);
    idle(&rig, "1s").exits(75).says("holds a freeze").says("hint: `stillpoint thaw` ends it");
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    idle(&rig, "10m").exits(0);
    assert_settled(&rig);
}

#[test]
fn what_a_dead_run_left_is_in_the_way_until_it_is_undone() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&hook("db", "true", &note(&rig, "post-db"), ""));
    let run = in_the_window(&rig, &["snapshot", "--window", "30s"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("the watchdog's end", || watchdogs(&rig).is_empty().then_some(()));
    idle(&rig, "1s")
        .exits(11)
        .says("has left something to be released")
        .says("hint: `stillpoint thaw` undoes what it left");
    assert!(log(&rig).is_empty(), "asking has run the post hook");
    Run::start(rig.bare_command(&["thaw"])).end().exits(0);
    assert_eq!(log(&rig), ["post-db"]);
    // Its snapshots still lack their label: nothing on this host waits for that.
    let said = Run::start(rig.bare_command(&["status", "--wait-idle", "1s", "-o", "json"])).end();
    assert_eq!(said.exits(0).record()["runs"].as_array().unwrap().len(), 1);
    std::fs::write(rig.path("run/runs/00000000-0000-7000-8000-000000000000.json"), "{").unwrap();
    idle(&rig, "1s")
        .exits(40)
        .says("hint: `stillpoint thaw --all` thaws whatever it froze; then remove the file");
}
