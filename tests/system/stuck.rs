//! A FIFREEZE that cannot return: a writer inside the kernel that waits for something else. Nobody can abort
//! it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rig::hooks::hook;
use rig::patience::let_pass;
use rig::probe::{
    BlockedWrite, assert_clean, assert_labels, assert_settled, freezers, guards, is_frozen, is_thawed,
    kill_with_guards, was_frozen, watchdogs,
};
use rig::program::{Run, await_some};
use rig::window::{before_the_freeze, in_the_window};
use rig::{Fs, Rig, sh};

/// `splice` from an empty pipe into a file holds the filesystem's write access until it is killed; no
/// privilege is needed.
pub fn stuck_writer(rig: &Rig, name: &str) -> Child {
    let file = rig.mount(name).join("stuck");
    let code = format!(
        "import os,sys\nr,w=os.pipe()\nf=os.open({:?},os.O_CREAT|os.O_WRONLY)\nprint('in',flush=True)\nos.splice(r,f,4096)",
        file.to_str().unwrap()
    );
    let mut child = Command::new("python3")
        .args(["-c", &code])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let pid = child.id();
    // The kernel names the system call only once the process is inside: 275 is splice on x86-64.
    await_some("the writer inside splice", || {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
        (call.starts_with("275 ") || call.starts_with("76 ")).then_some(())
    });
    child.stdout.take();
    child
}

/// journald may itself wait for what is stuck, and reads nothing then: the exit code has to come out without
/// it.
#[test]
fn the_end_does_not_wait_for_journald_while_something_is_stuck() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    // More than its socket and the queue of the log take.
    rig.configure(&hook("chatty", "seq 1 300000", "true", "").replace("10s", "60s"));
    sh("mount", &["-t", "tmpfs", "stillpoint-test", "/run"]);
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let _nobody_reads = std::os::unix::net::UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    let mut writer = stuck_writer(&rig, "a");
    let plain = rig.command(&["snapshot", "--window", "2s"]);
    let mut command = std::process::Command::new("sh");
    let script = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2); export JOURNAL_STREAM; exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    let run = Run::start(command);
    await_some("the freeze", || {
        let journal = std::fs::read(rig.path("run/runs").join(rig.journals().first()?)).ok()?;
        let state: serde_json::Value = serde_json::from_slice(&journal).ok()?;
        state["frozen"].as_array().is_some_and(|f| !f.is_empty()).then_some(())
    });
    // The writer is still inside, and nobody reads the log.
    run.end().exits(40);
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("the guards to go", || guards(&rig).is_empty().then_some(()));
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

#[test]
fn the_others_thaw_at_once_and_the_stuck_one_as_soon_as_its_writer_leaves() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let mut writer = stuck_writer(&rig, "a");
    let run = rig.spawn(&["snapshot", "--window", "6s", "-o", "json"]);
    let stuck = rig.mount("a");
    // `b` was frozen, and is thawed at the freeze limit (half of the window) while `a` is still stuck.
    await_some("b to be frozen", || is_frozen(&rig.mount("b")).then_some(()));
    let other = BlockedWrite::start(&rig.mount("b"));
    assert!(other.done(Duration::from_secs(5)).is_some(), "b is still frozen");
    // The run ends without waiting for the writer, which is named.
    let ended = run.end();
    ended
        .exits(40)
        .says("STILL FROZEN")
        .says(stuck.to_str().unwrap())
        .says("because: freezing took longer than")
        .says(&format!("(pid {}) in splice on {}", writer.id(), stuck.join("stuck").display()));
    let record = ended.record();
    assert_eq!(record["still_frozen"][0].as_str(), stuck.to_str());
    assert_eq!(rig.creates().len(), 0);
    assert_eq!(freezers(&rig).len(), 1, "whoever is inside FIFREEZE stays");
    // While it is in progress nobody says that nothing is frozen.
    rig.run(&["thaw"]).exits(40).says("cannot thaw").says(stuck.to_str().unwrap());
    rig.run(&["snapshot"]).exits(40);
    writer.kill().unwrap();
    writer.wait().unwrap();
    // The watchdog, or the freezer itself, thaws it the moment FIFREEZE returns.
    assert!(is_thawed(&stuck), "a stays frozen");
    await_some("the guards to go", || guards(&rig).is_empty().then_some(()));
    // What is left is in the journal, and the next start clears it.
    assert_eq!(rig.journals().len(), 1);
    rig.run(&["snapshot"]).exits(0).says("left something to be done");
    assert_settled(&rig);
}

/// A run whose FIFREEZE of `a` is in progress, while `b` is frozen.
fn stuck_run(rig: &Rig) -> (Child, Run) {
    rig.configure("[defaults]\nwindow = \"30s\"\nfreeze_timeout = \"15s\"\n");
    let writer = stuck_writer(rig, "a");
    let run = rig.spawn(&["snapshot"]);
    await_some("b to be frozen", || {
        BlockedWrite::start(&rig.mount("b")).done(Duration::from_secs(2)).is_none().then_some(())
    });
    (writer, run)
}

/// A kill of everything, while a FIFREEZE is still in progress. Nobody is left to thaw when it completes, so the
/// rescue must not say "fine" before, and must thaw after.
#[test]
fn with_everybody_gone_the_rescue_does_not_give_up_on_a_freeze_in_progress() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (mut writer, run) = stuck_run(&rig);
    kill_with_guards(&rig, run.pid());
    run.end();

    let first = rig.run(&["thaw"]);
    first.exits(40).says("cannot thaw").says(rig.mount("a").to_str().unwrap());
    assert_eq!(rig.journals().len(), 1, "the journal stays");

    // The writer leaves, FIFREEZE completes, and its process is gone: frozen for good.
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("its end", || guards(&rig).is_empty().then_some(()));
    rig.run(&["thaw"]).exits(0).says("thawed");
    assert!(is_thawed(&rig.mount("a")), "a stays frozen");
    assert!(!rig.rescued(), "the test's own rescue had to thaw");
}

/// It freezes late, for an agent and a watchdog that are gone.
#[test]
fn the_freezer_alone_thaws_what_it_has_frozen_late() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (mut writer, run) = stuck_run(&rig);
    let guards = watchdogs(&rig);
    guards.iter().for_each(|guard| kill(*guard, Signal::SIGSTOP).unwrap());
    run.signal(Signal::SIGKILL);
    guards.iter().for_each(|guard| kill(*guard, Signal::SIGKILL).unwrap());
    run.end();
    assert!(is_thawed(&rig.mount("b")), "b was frozen, and its agent is gone");
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("its end", || freezers(&rig).is_empty().then_some(()));
    assert!(!was_frozen(&rig.mount("a")), "a stays frozen");
    rig.run(&["snapshot"]).exits(0).says("died before its end");
    assert_clean(&rig);
}

/// The watchdog, which is left, waits for the freezer's FIFREEZE also when the agent is gone.
#[test]
fn the_watchdog_thaws_what_a_dead_freezer_froze_for_a_dead_agent() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (mut writer, run) = stuck_run(&rig);
    freezers(&rig).iter().for_each(|freezer| kill(*freezer, Signal::SIGKILL).unwrap());
    run.signal(Signal::SIGKILL);
    run.end();
    assert!(is_thawed(&rig.mount("b")));
    let_pass("a watchdog that would not wait to end", Duration::from_millis(500));
    assert_eq!(watchdogs(&rig).len(), 1, "the dead freezer is still inside FIFREEZE");
    writer.kill().unwrap();
    writer.wait().unwrap();
    await_some("the end of both", || guards(&rig).is_empty().then_some(()));
    assert!(!was_frozen(&rig.mount("a")), "a stays frozen");
    rig.run(&["snapshot"]).exits(0).says("died before its end");
    assert_clean(&rig);
}

/// Whether it had frozen before it died is not known: the agent makes sure that it is thawed, and says why the
/// freeze failed.
#[test]
fn a_freezer_that_dies_inside_fails_the_freeze() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (mut writer, run) = stuck_run(&rig);
    freezers(&rig).iter().for_each(|freezer| kill(*freezer, Signal::SIGKILL).unwrap());
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.end().exits(21).says("cannot freeze").says(rig.mount("a").to_str().unwrap()).says("the freezer died");
    assert_eq!(rig.creates().len(), 0);
    assert!(!was_frozen(&rig.mount("a")) && !was_frozen(&rig.mount("b")));
    assert_settled(&rig);
}

/// Frozen is frozen, whoever has called FIFREEZE; the agent thaws by itself.
#[test]
fn a_freezer_that_dies_or_stands_still_in_the_window_changes_nothing() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs), ("c", Fs::Btrfs)]);
        let run = in_the_window(&rig, &["snapshot"]);
        let freezers = freezers(&rig);
        assert_eq!(freezers.len(), 1);
        kill(freezers[0], signal).unwrap();
        run.end().exits(0);
        assert_labels(&rig, 3, "filesystem");
        assert_settled(&rig);
    }
}

/// It has not begun, and never will: nothing is frozen.
#[test]
fn a_freezer_that_stands_still_before_the_freeze_freezes_nothing_later() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults]\nwindow = \"4s\"\nfreeze_timeout = \"2s\"\n");
    let run = before_the_freeze(&rig, &["snapshot"]);
    let freezer = freezers(&rig)[0];
    kill(freezer, Signal::SIGSTOP).unwrap();
    run.end().exits(21).says("freezing took longer than");
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}
