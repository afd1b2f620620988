//! Sessions: quiesced until told, and never called quiesced when they were not.

use std::fs;
use std::future::pending;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::*;
use super::{dies, dir, env, lives, of, pid_in};
use crate::config::settings::{HookKind, SessionHook};
use crate::run::journal::Journal;

fn session(script: &str, timeout: Duration) -> Hook {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let kind =
        HookKind::Session(SessionHook { command, release: None, user: None, environment: BTreeMap::new() });
    Hook { timeout, ..of("s", kind) }
}

const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(20);

/// Quiesces it, does something, releases it.
async fn over(hook: &Hook, meanwhile: impl Future<Output = ()>) -> (HookOutcome, HookOutcome) {
    let mut quiesced = Quiesced::default();
    let outcome = quiesce_one(hook, &env(), &mut quiesced, pending()).await;
    meanwhile.await;
    (outcome, release_one(hook, &env(), &mut quiesced).await)
}

async fn nothing() {}

fn refused(outcome: &HookOutcome, why: &str) {
    match &outcome.status {
        HookStatus::Refused(text) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_stays_quiesced_until_it_is_told_to_release() {
    let (_dir, d) = dir();
    let script = format!(
        "echo fact lsn 0/17; echo note hello; echo ready; echo limit $STILLPOINT_QUIESCE_LIMIT >{d}/log; read word; \
         echo told $word >>{d}/log; echo fact end 0/18"
    );
    let log = format!("{d}/log");
    let hook = session(&script, LONG);
    let meanwhile = async {
        for _ in 0..1000 {
            if fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A word, were there one, takes a moment to get there.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(fs::read_to_string(&log).unwrap(), "limit 90\n", "nothing is said before it is time");
    };
    let (quiesced, released) = over(&hook, meanwhile).await;
    assert!(quiesced.succeeded() && released.succeeded() && !released.lost, "{quiesced} {released}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "limit 90\ntold thaw\n");
    assert_eq!((quiesced.facts["lsn"].as_str(), released.facts["end"].as_str()), ("0/17", "0/18"));
}

#[tokio::test]
async fn the_end_of_its_input_is_enough_and_ready_twice_is_once() {
    let (quiesced, released) =
        over(&session("echo ready; echo ready; cat >/dev/null", LONG), nothing()).await;
    assert!(quiesced.succeeded() && released.succeeded() && !released.lost, "{quiesced} {released}");
}

#[tokio::test]
async fn one_that_never_holds_is_killed_with_its_children() {
    let (_dir, d) = dir();
    let hook = session(&format!("sleep 60 & echo $! >{d}/pid; wait"), SHORT);
    let (quiesced, released) = over(&hook, nothing()).await;
    assert_eq!(quiesced.status, HookStatus::TimedOut);
    assert!(aborts(&hook, &quiesced) && released.succeeded());
    assert!(dies(pid_in(&Path::new(&d).join("pid")).await).await);
}

#[tokio::test]
async fn one_that_ends_or_closes_its_output_before_it_holds_does_not_hold() {
    let (quiesced, _) = over(&session("exit 0", LONG), nothing()).await;
    refused(&quiesced, "ended without a word");
    let (quiesced, _) = over(&session("echo nearly; exit 3", LONG), nothing()).await;
    assert_eq!(quiesced.status, HookStatus::Failed(Exit::Code(3)));
    assert_eq!(quiesced.output, "nearly\n");
    let (quiesced, _) = over(&session("echo hint later; echo failed busy; exit 1", LONG), nothing()).await;
    refused(&quiesced, "busy");
    assert_eq!(quiesced.hint.as_deref(), Some("later"));
    let (quiesced, _) = over(&session("exec >/dev/null 2>&1; sleep 60", LONG), nothing()).await;
    refused(&quiesced, "closed its output before it was ready");
}

#[tokio::test]
async fn one_that_ends_before_it_is_told_was_lost_however_well_it_ended() {
    let (_dir, d) = dir();
    let file = Path::new(&d).join("pid");
    let script = |end: &str| format!("echo $$ >{}; echo ready; {end}", file.display());
    let ended = || async { assert!(dies(pid_in(&file).await).await) };
    let (quiesced, released) = over(&session(&script("exit 0"), LONG), ended()).await;
    assert!(quiesced.succeeded() && released.lost);
    refused(&released, "ended before it was told");
    let (quiesced, released) = over(&session(&script("kill -9 $$"), LONG), ended()).await;
    assert!(quiesced.succeeded() && released.lost);
    assert_eq!(released.status, HookStatus::Failed(Exit::Signal(9)));
}

#[tokio::test]
async fn one_that_does_not_release_in_time_is_killed_and_lost() {
    let (_dir, d) = dir();
    let script = format!("trap '' TERM; echo $$ >{d}/pid; echo ready; while :; do sleep 0.1; done");
    let started = Instant::now();
    let (quiesced, released) = over(&session(&script, SHORT), nothing()).await;
    assert!(quiesced.succeeded() && released.lost);
    assert_eq!(released.status, HookStatus::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(dies(pid_in(&Path::new(&d).join("pid")).await).await);
}

#[tokio::test]
async fn one_that_fails_to_release_was_lost() {
    let (quiesced, released) =
        over(&session("echo ready; read word; echo failed gone; exit 1", LONG), nothing()).await;
    assert!(quiesced.succeeded() && released.lost);
    refused(&released, "gone");
}

#[tokio::test]
async fn megabytes_that_nobody_reads_hold_nothing_up() {
    let script = "echo ready; head -c 8000000 /dev/zero | tr '\\0' x; read word; exit 0";
    let wait = tokio::time::sleep(Duration::from_millis(500));
    let (quiesced, released) = over(&session(script, LONG), wait).await;
    assert!(quiesced.succeeded() && released.succeeded() && !released.lost, "{quiesced} {released}");
    assert!(released.output.len() <= process::TAIL);
    let facts = "for i in $(seq 1 500); do echo fact k$i v; done; echo ready; read word";
    let (quiesced, released) = over(&session(facts, LONG), nothing()).await;
    assert_eq!(quiesced.facts.len(), 64);
    assert!(released.succeeded());
}

#[tokio::test]
async fn one_that_closes_its_output_while_it_holds_is_told_all_the_same() {
    let (_dir, d) = dir();
    let script = format!("echo ready; exec >/dev/null 2>&1; read word; echo $word >{d}/log");
    let (quiesced, released) = over(&session(&script, LONG), nothing()).await;
    assert!(quiesced.succeeded() && released.succeeded(), "{quiesced} {released}");
    assert_eq!(fs::read_to_string(format!("{d}/log")).unwrap(), "thaw\n");
}

/// Its child may be what has the connection, and the lock.
#[tokio::test]
async fn children_that_it_leaves_are_ended() {
    let (_dir, d) = dir();
    let script = format!("sleep 60 & echo $! >{d}/pid; echo ready; read word; exit 0");
    let (quiesced, released) = over(&session(&script, LONG), nothing()).await;
    assert!(quiesced.succeeded() && released.succeeded() && !released.lost, "{quiesced} {released}");
    assert!(dies(pid_in(&Path::new(&d).join("pid")).await).await);
}

#[tokio::test]
async fn cancelling_ends_it_and_dropping_it_makes_it_release() {
    let (_dir, d) = dir();
    let hook = session(&format!("trap '' TERM; sleep 60 & echo $! >{d}/pid; wait"), LONG);
    let file = Path::new(&d).join("pid");
    let cancel = async {
        pid_in(&file).await;
    };
    let outcome = quiesce_one(&hook, &env(), &mut Quiesced::default(), cancel).await;
    assert_eq!(outcome.status, HookStatus::Cancelled);
    assert!(dies(pid_in(&file).await).await);
    // A panic of the agent drops it: it is not killed, so that it can release.
    let mut quiesced = Quiesced::default();
    let hook = session(&format!("echo ready; cat >/dev/null; sleep 0.2; echo $$ >{d}/released"), LONG);
    assert!(quiesce_one(&hook, &env(), &mut quiesced, pending()).await.succeeded());
    drop(quiesced);
    pid_in(&Path::new(&d).join("released")).await;
}

/// One that is stopped before it is ready sees the end of its input first: it may have half of a lock.
#[tokio::test]
async fn one_that_is_given_up_may_clean_up() {
    let (_dir, d) = dir();
    let (quiesced, _) =
        over(&session(&format!("cat >/dev/null; echo $$ >{d}/released"), SHORT), nothing()).await;
    assert_eq!(quiesced.status, HookStatus::TimedOut);
    pid_in(&Path::new(&d).join("released")).await;
}

#[tokio::test]
async fn what_was_lost_is_released_by_the_command_for_that_and_nothing_else_is() {
    for (script, released) in [("echo ready; read word; exit 3", true), ("echo ready; read word", false)] {
        let (_dir, d) = dir();
        let mut hook = session(script, LONG);
        let file = Path::new(&d).join("released");
        if let HookKind::Session(s) = &mut hook.kind {
            s.release = super::sh(&format!("echo $STILLPOINT_PHASE >{}", file.display()));
        }
        let (_, outcome) = over(&hook, nothing()).await;
        assert_eq!((outcome.lost, file.exists()), (released, released), "{script}");
        // The recovery has nobody to ask.
        assert!(release_one(&hook, &env(), &mut Quiesced::default()).await.succeeded());
        assert_eq!(fs::read_to_string(&file).unwrap(), "post\n");
    }
}

/// A journal as a killed agent leaves it, and a process that did not notice.
async fn orphan(d: &str, start: impl Fn(u64) -> u64, timeout: Duration) -> (Vec<HookOutcome>, i32) {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "trap '' TERM; while :; do sleep 0.1; done"]).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let pid = child.id().unwrap();
    let reaper = tokio::spawn(async move { child.wait().await });
    let hook = session("exit 9", timeout);
    let mut journal = Journal::start(Path::new(d), &env().run_id, "p", |_| ()).unwrap();
    journal.update(|s| s.attempted.push(hook)).unwrap();
    journal.note_session("s", pid);
    journal.update(|s| s.sessions[0].process.start = start(s.sessions[0].process.start)).unwrap();
    let outcomes =
        crate::run::release::owed(&mut journal, &env(), &mut Quiesced::default(), false, |_| ()).await;
    assert!(journal.state.attempted.is_empty() && journal.state.sessions.is_empty());
    let pid = i32::try_from(pid).unwrap();
    let alive = lives(pid);
    reaper.abort();
    (outcomes, if alive { pid } else { 0 })
}

#[tokio::test]
async fn a_session_that_outlives_its_agent_is_ended_by_the_recovery() {
    let (_dir, d) = dir();
    let (outcomes, alive) = orphan(&d, |start| start, SHORT).await;
    assert_eq!((outcomes[0].status.clone(), outcomes[0].lost, alive), (HookStatus::TimedOut, true, 0));
}

#[tokio::test]
async fn a_process_that_only_has_the_same_id_is_left_alone() {
    let (_dir, d) = dir();
    let (outcomes, alive) = orphan(&d, |start| start + 1, SHORT).await;
    assert!(outcomes[0].succeeded() && alive > 0, "{outcomes:?}");
}
