//! A FIFREEZE that cannot return: a writer inside the kernel that waits for something else. Nobody can abort
//! it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rig::hooks::hook;
use rig::patience::let_pass;
use rig::probe::{BlockedWrite, assert_settled, is_frozen, is_thawed, watchdogs};
use rig::program::{Run, await_some};
use rig::{Fs, Rig, sh};

/// `splice` from an empty pipe into a file holds the filesystem's write access until it is killed; no
/// privilege is needed.
fn stuck_writer(rig: &Rig, name: &str) -> Child {
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
    let_pass(
        "the freeze limit (1 s), the time for thawing (5 s), and as much again",
        Duration::from_secs(12),
    );
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.end().exits(40);
    await_some("the watchdog to go", || watchdogs(&rig).is_empty().then_some(()));
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
    // The run says 40 without waiting for the writer; its process cannot go before the writer does, so its
    // output is read later.
    await_some("the verdict", || run.said().contains("STILL FROZEN").then_some(()));
    writer.kill().unwrap();
    writer.wait().unwrap();
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
    // The watchdog, or the freezing thread itself, thaws it the moment FIFREEZE returns.
    assert!(is_thawed(&stuck), "a stays frozen");
    await_some("the watchdog to go", || watchdogs(&rig).is_empty().then_some(()));
    // What is left is in the journal, and the next start clears it.
    assert_eq!(rig.journals().len(), 1);
    rig.run(&["snapshot"]).exits(0).says("left something to be done");
    assert_settled(&rig);
}

/// What systemd does to a control group: agent and watchdog are killed at once, while a FIFREEZE is still in
/// progress. Nobody is left to thaw when it completes, so the rescue must not say "fine" before, and must
/// thaw after.
#[test]
fn with_agent_and_watchdog_gone_the_rescue_does_not_give_up_on_a_freeze_in_progress() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    rig.configure("[defaults]\nwindow = \"30s\"\nfreeze_timeout = \"15s\"\n");
    let mut writer = stuck_writer(&rig, "a");
    let run = rig.spawn(&["snapshot"]);
    // By the time `b` is frozen, FIFREEZE of `a` is in progress too.
    await_some("b to be frozen", || {
        BlockedWrite::start(&rig.mount("b")).done(Duration::from_secs(2)).is_none().then_some(())
    });
    for guard in watchdogs(&rig) {
        kill(guard, Signal::SIGKILL).unwrap();
    }
    run.signal(Signal::SIGKILL);

    let first = rig.run(&["thaw"]);
    first.exits(40).says("cannot thaw").says(rig.mount("a").to_str().unwrap());
    assert_eq!(rig.journals().len(), 1, "the journal stays");

    // The writer leaves, FIFREEZE completes, and its process is gone: frozen for good.
    writer.kill().unwrap();
    writer.wait().unwrap();
    run.end();
    rig.run(&["thaw"]).exits(0).says("thawed");
    assert!(is_thawed(&rig.mount("a")), "a stays frozen");
    assert!(!rig.rescued(), "the test's own rescue had to thaw");
}
