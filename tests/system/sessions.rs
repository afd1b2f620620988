//! Sessions around a real window, and what is left of them when the agent is killed.

use nix::sys::signal::Signal;
use rig::hooks::{log, note};
use rig::probe::{assert_labels, assert_settled};
use rig::program::await_some;
use rig::window::in_the_window;
use rig::{Fs, Rig};
use std::path::Path;

fn two() -> Rig {
    Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)])
}

fn session(rig: &Rig, script: &str, more: &str) -> String {
    let pid = rig.path("pid");
    format!(
        "[[session]]\nname = \"db\"\ncommand = [\"/bin/sh\", \"-c\", '''echo $$ > {}; {script}''']\ntimeout = \"10s\"\n{more}\n",
        pid.display()
    )
}

fn pid(rig: &Rig) -> String {
    std::fs::read_to_string(rig.path("pid")).unwrap().trim().to_owned()
}

/// A zombie counts as dead: when it disappears is up to its parent.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|text| !text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[test]
fn a_session_holds_until_after_the_thaw_and_its_facts_are_in_the_record() {
    let rig = two();
    let told = note(&rig, "told $word");
    rig.configure(&session(&rig, &format!("echo fact lsn 0/17; echo ready; read word; {told}"), ""));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert!(lives(&pid(&rig)) && log(&rig).is_empty(), "held while frozen");
    let ended = run.end();
    let record = ended.exits(0).record();
    assert_eq!(record["achieved"], "application");
    assert_eq!(record["hooks"][0]["facts"]["lsn"], "0/17", "{}", record["hooks"]);
    assert_eq!(log(&rig), ["told thaw"]);
    assert_labels(&rig, 2, "application");
    assert_settled(&rig);
}

#[test]
fn a_session_that_ends_in_the_window_lowers_the_label() {
    for (policy, code) in [("fail", 22), ("keep", 10)] {
        let rig = two();
        rig.configure(&session(&rig, "echo ready; read word", ""));
        let run = in_the_window(&rig, &["snapshot", "-o", "json", "--on-degraded", policy]);
        rig::sh("kill", &["-9", &pid(&rig)]);
        await_some("the end of the session", || (!lives(&pid(&rig))).then_some(()));
        let ended = run.end();
        let record = ended.exits(code).record();
        assert_eq!(record["achieved"], "filesystem");
        assert!(record["reason"].as_str().unwrap().contains("`db`"), "{}", record["reason"]);
        assert_labels(&rig, 2, "filesystem");
        assert_settled(&rig);
    }
}

#[test]
fn a_session_that_ends_with_success_in_the_window_lowers_the_label_too() {
    let rig = two();
    let go = rig.path("go");
    let script = format!("echo ready; while [ ! -e {} ]; do sleep 0.02; done; exit 0", go.display());
    rig.configure(&session(&rig, &script, ""));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    std::fs::write(&go, "").unwrap();
    await_some("the end of the session", || (!lives(&pid(&rig))).then_some(()));
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "filesystem");
    assert!(record["reason"].as_str().unwrap().contains("ended before it was told to release"));
    assert_settled(&rig);
}

#[test]
fn a_session_that_does_not_let_go_is_killed() {
    let rig = two();
    let stays = session(&rig, "trap '' TERM; echo ready; while :; do sleep 0.1; done", "");
    rig.configure(&stays.replace("10s", "4s"));
    let ended = rig.run(&["snapshot", "-o", "json"]);
    assert_eq!(ended.exits(22).record()["achieved"], "filesystem");
    ended.says("timed out and was killed");
    assert!(!lives(&pid(&rig)));
    assert_settled(&rig);
}

#[test]
fn a_session_that_is_not_ready_in_time_stops_the_run() {
    let rig = two();
    rig.configure(&session(&rig, "sleep 60", "").replace("10s", "3s"));
    rig.run(&["snapshot"]).exits(20).says("`db` timed out and was killed");
    assert!(!lives(&pid(&rig)));
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

/// With `on_failure = "degrade"` the set is taken, with a lower label.
#[test]
fn a_session_that_cannot_hold_may_degrade_the_set() {
    let rig = two();
    rig.configure(&session(&rig, "echo failed no room; exit 1", "on_failure = \"degrade\""));
    let ended = rig.run(&["snapshot", "-o", "json", "--on-degraded", "keep"]);
    let record = ended.exits(10).record();
    assert_eq!(record["achieved"], "filesystem");
    assert!(record["reason"].as_str().unwrap().contains("no room"), "{}", record["reason"]);
    assert_settled(&rig);
}

/// The session writes from before the freeze on, and the agent reads nothing until after the thaw. That must
/// not make the window any longer.
#[test]
fn a_session_that_writes_all_the_time_does_not_hold_the_window_up() {
    let rig = two();
    rig.configure(&session(&rig, "echo ready; yes $(seq -s- 100) | head -c 6000000; read word", ""));
    let ended = rig.run(&["snapshot", "-o", "json", "--window", "10s"]);
    assert_eq!(ended.exits(0).record()["achieved"], "application");
    assert_settled(&rig);
}

fn killed(rig: &Rig, script: &str) {
    rig.configure(&session(rig, script, ""));
    let run = in_the_window(rig, &["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
}

#[test]
fn a_session_sees_the_end_of_a_killed_agent_by_itself() {
    let rig = two();
    killed(&rig, &format!("echo ready; read word; {}", note(&rig, "let go $word")));
    await_some("the end of the session", || (!lives(&pid(&rig))).then_some(()));
    assert_eq!(log(&rig), ["let go"]);
    rig.await_quiet();
}

#[test]
fn a_session_that_does_not_notice_a_killed_agent_is_ended_by_the_recovery() {
    let rig = two();
    let child = rig.path("child");
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}; while :; do sleep 0.1; done' & \
         until [ -s {0} ]; do sleep 0.02; done; echo ready; while :; do sleep 0.1; done",
        child.display()
    );
    killed(&rig, &script);
    let child = std::fs::read_to_string(child).unwrap().trim().to_owned();
    assert!(lives(&pid(&rig)) && lives(&child) && Path::new(&format!("/proc/{child}")).exists());
    let ended = rig.run(&["thaw", "--recover"]);
    ended.says("it does not end with stillpoint");
    assert!(!lives(&pid(&rig)) && !lives(&child), "its whole group");
    rig.await_quiet();
}
