//! The command, the holder and the watchdog die or are stopped: everything is thawed, and hooks are released.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::hooks::{hook, log, note, noting};
use rig::probe::{BlockedWrite, assert_settled, kill_with_guards, watchdogs};
use rig::program::{Run, await_some};

use super::{RELEASED, all_done, await_log, blocked, did_not_hold, freeze, id, pid, status, thaw, two};

#[test]
fn the_holder_is_killed_and_the_watchdog_thaws_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    let killed = Instant::now();
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    let took = all_done(&writes, Duration::from_secs(10)).expect("it was never thawed") - killed;
    println!("thawed {took:?} after the holder's death");
    await_log(&rig, &RELEASED);
    await_some("the recovery's end", || rig.journals().is_empty().then_some(()));
    did_not_hold(&rig, &record, "died");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

#[test]
fn the_watchdog_is_killed_and_the_holder_thaws_and_the_hooks_run() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    let killed = Instant::now();
    watchdogs(&rig).into_iter().for_each(|w| kill(w, Signal::SIGKILL).unwrap());
    let took = all_done(&writes, Duration::from_secs(10)).expect("it was never thawed") - killed;
    println!("thawed {took:?} after the watchdog's death");
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "watchdog");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
}

/// The watchdog blocks all signals. The recovery that it starts must not, nor must the hooks of that.
#[test]
fn post_hooks_of_the_recovery_take_signals_and_it_has_a_path() {
    let rig = two();
    let said = rig.path("said");
    let post = format!(
        "grep ^SigBlk /proc/self/status >> {0}; tr '\\000' '\\n' < /proc/$PPID/environ | grep ^PATH= >> {0}; {1}",
        said.display(),
        note(&rig, "post-mask")
    );
    rig.configure(&hook("mask", "true", &post, ""));
    let record = freeze(&rig, "60s");
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    await_log(&rig, &["post-mask"]);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
    assert!(said.contains("PATH=/usr/local/sbin:"), "{said}");
    await_some("the recovery's end", || rig.journals().is_empty().then_some(()));
    assert_settled(&rig);
}

/// No process is left that could thaw, so `thaw` does, by what
/// the journal says.
#[test]
fn all_are_killed_at_once_and_thaw_undoes_it() {
    let rig = two();
    let record = freeze(&rig, "60s");
    kill_with_guards(&rig, pid(&record["pid"]));
    let writes = blocked(&rig);
    status(&rig, &[]).exits(40);
    let ended = thaw(&rig, &["--run", id(&record)]);
    ended.exits(22).says("died before its end").says("thawed").says("DID NOT HOLD");
    all_done(&writes, Duration::from_secs(5)).expect("it was not thawed");
    assert_eq!(log(&rig), RELEASED);
    assert_settled(&rig);
    status(&rig, &[]).exits(0);
}

#[test]
fn a_stopped_holder_is_thawed_past_and_releases_when_it_goes_on() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    kill(pid(&record["pid"]), Signal::SIGSTOP).unwrap();
    all_done(&writes, Duration::from_secs(5)).expect("the heartbeat was not missed");
    thaw(&rig, &["--run", id(&record)])
        .exits(22)
        .says("does not answer")
        .says("post hooks still have to run");
    assert_eq!(log(&rig), ["pre-first", "pre-second"]);
    kill(pid(&record["pid"]), Signal::SIGCONT).unwrap();
    await_log(&rig, &RELEASED);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    did_not_hold(&rig, &record, "watchdog");
    assert_settled(&rig);
}

#[test]
fn sigterm_to_the_holder_ends_it_in_order() {
    let rig = two();
    let record = freeze(&rig, "60s");
    let writes = blocked(&rig);
    kill(pid(&record["pid"]), Signal::SIGTERM).unwrap();
    all_done(&writes, Duration::from_secs(5)).expect("it was not thawed");
    await_log(&rig, &RELEASED);
    did_not_hold(&rig, &record, "SIGTERM");
    assert_settled(&rig);
}

/// The command dies before it has printed the run id: nobody could ask for the thaw.
#[test]
fn the_command_is_killed_before_the_freeze_and_nothing_is_frozen() {
    let rig = two();
    let slow =
        hook("slow", &format!("{}; exec sleep 8", note(&rig, "pre-slow")), &note(&rig, "post-slow"), "");
    rig.configure(&format!("{}{slow}", noting(&rig, "first")));
    let run = rig.spawn(&["freeze", "--for", "30s"]);
    await_log(&rig, &["pre-first", "pre-slow"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_log(&rig, &["pre-first", "pre-slow", "post-slow", "post-first unknown"]);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    thaw(&rig, &[]).exits(22).says("nothing was frozen");
    assert_settled(&rig);
}

/// The command dies after the freeze, and before it has said so: nobody could ask for the thaw either.
#[test]
fn the_command_is_killed_before_it_has_told_anyone_and_everything_is_thawed() {
    let rig = two();
    let go = rig.path("go");
    let pre = format!("{}; until [ -e {} ]; do sleep 0.05; done", note(&rig, "pre-slow"), go.display());
    rig.configure(&hook("slow", &pre, &note(&rig, "post-slow"), ""));
    let run = rig.spawn(&["freeze", "--for", "60s"]);
    await_log(&rig, &["pre-slow"]);
    run.signal(Signal::SIGSTOP);
    std::fs::write(go, "").unwrap();
    // A write that takes two seconds is blocked, not slow: everything is frozen.
    await_some("the freeze", || {
        let write = BlockedWrite::start(&rig.mount("b"));
        write.done(Duration::from_secs(2)).is_none().then_some(())
    });
    let writes = blocked(&rig);
    run.signal(Signal::SIGKILL);
    all_done(&writes, Duration::from_secs(5)).expect("nobody was told, and it stays frozen");
    run.end();
    await_log(&rig, &["pre-slow", "post-slow"]);
    await_some("its end", || rig.journals().is_empty().then_some(()));
    thaw(&rig, &[]).exits(22).says("DID NOT HOLD");
    assert_settled(&rig);
}

/// The freeze was over before the holder died, and had held. That stays true, and the post hooks run again.
#[test]
fn a_holder_that_is_killed_in_a_post_hook_had_held_and_the_hook_runs_again() {
    let rig = two();
    let once = format!(
        "{}; [ -e {1} ] || {{ touch {1}; sleep 8; }}",
        note(&rig, "post-slow"),
        rig.path("once").display()
    );
    rig.configure(&format!("{}{}", noting(&rig, "first"), hook("slow", "true", &once, "")));
    let record = freeze(&rig, "60s");
    let waits = Run::start(rig.bare_command(&["thaw", "--run", id(&record)]));
    await_log(&rig, &["pre-first", "post-slow"]);
    kill(pid(&record["pid"]), Signal::SIGKILL).unwrap();
    waits.end().exits(0).says("died before its end").says("the freeze held");
    assert_eq!(log(&rig), ["pre-first", "post-slow", "post-slow", "post-first unknown"]);
    assert_settled(&rig);
}
