//! Locks that cannot be had, and locks that are lost.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::probe::{assert_labels, assert_settled};
use rig::window::in_the_window;

use super::{await_so, nothing_is_locked, server, two};

#[test]
fn a_query_that_is_in_the_way_is_named_and_nobody_queues_up_behind_the_locks() {
    let rig = two();
    let original = server(&rig);
    let update = "UPDATE t.m SET amount = amount + SLEEP(300) + LENGTH('hidden') * 0 WHERE id = 1";
    for (method, statement, named) in [
        // The table lock blocks the first stage of BACKUP STAGE; the update lets the second pass and blocks
        // the third.
        ("backup", "LOCK TABLES t.m WRITE", "idle: perhaps with LOCK TABLES"),
        ("backup", update, "LENGTH('…')"),
        ("read-lock", update, "LENGTH('…')"),
    ] {
        rig.configure(&original.section(&format!("method = \"{method}\"\nlock_wait = \"3s\"\ntries = 2")));
        let mut long = original.client();
        let id = long.id();
        let (told, holds) = std::sync::mpsc::channel();
        let (enough, until) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let done = long.try_run(statement);
            told.send(()).unwrap();
            // A table lock lasts until its connection ends, so this one stays open for longer than all tries.
            if done.is_ok() {
                let _ = until.recv_timeout(Duration::from_secs(300));
            }
        });
        let mut root = original.client();
        if statement != update {
            holds.recv().unwrap();
        } else {
            let state = format!("SELECT state FROM information_schema.processlist WHERE id = {id}");
            await_so("the query has its lock", || root.one(&state) == "User sleep");
        }
        // The bystander writes a table that the long query does not hold. It may have to wait for one try,
        // and must go on between two.
        let mut other = original.client();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let bystander = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let since = Instant::now();
                other.run("UPDATE t.i SET amount = amount WHERE id = 2");
                longest = longest.max(since.elapsed());
            }
            longest
        });
        let ended = rig.run(&["snapshot", "-o", "json"]);
        let waiting =
            root.one("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting%'");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let longest = bystander.join().unwrap();
        ended.exits(20).says(&format!("thread {id} of `root`")).says(named).says("in 2 tries of 3s");
        assert!(!ended.err.contains("hidden"), "{}", ended.err);
        println!("{method}: a bystander waited {longest:?} at most, for tries of 3 s");
        // If the run waited for its lock until the query ends, so would the bystander.
        let there = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id}");
        assert_eq!(root.one(&there), "1", "the query has ended");
        // Nor does he wait for both tries, which are the most of the run.
        let (one, run) = (longest + Duration::from_millis(1500), ended.took);
        assert!(one < run, "a bystander waited {longest:?}, in a run of {run:?}");
        assert_eq!(waiting, "0");
        root.run(&format!("KILL {id}"));
        drop(enough);
        thread.join().unwrap();
        nothing_is_locked(&original);
    }
    assert_eq!(rig.creates().len(), 0);
    assert_settled(&rig);
}

#[test]
fn a_run_that_is_stopped_while_it_waits_leaves_nothing_waiting() {
    let rig = two();
    let original = server(&rig);
    let mut root = original.client();
    root.run("LOCK TABLES t.m WRITE");
    for method in ["backup", "read-lock"] {
        rig.configure(&original.section(&format!("method = \"{method}\"\nlock_wait = \"15s\"\ntries = 1")));
        let run = rig.spawn(&["snapshot"]);
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'BACKUP STAGE START%' \
                       OR info LIKE 'FLUSH TABLES WITH%'";
        let mut other = original.client();
        let end = Instant::now() + Duration::from_secs(15);
        while other.one(waiting) != "1" {
            assert!(Instant::now() < end, "it does not wait: {}", run.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = Instant::now();
        run.signal(Signal::SIGTERM);
        let ended = run.end();
        assert_eq!(ended.signal, Some(Signal::SIGTERM as i32), "{ended:?}");
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert_eq!(other.one(waiting), "0", "{method}: it would wait on for 15 s");
    }
    root.run("UNLOCK TABLES");
    nothing_is_locked(&original);
    assert_settled(&rig);
}

#[test]
fn a_connection_that_is_killed_in_the_window_takes_the_label_along() {
    let rig = two();
    let original = server(&rig);
    rig.configure(&original.section(""));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let mut root = original.client();
    let held = root.rows(&format!(
        "SELECT id FROM information_schema.processlist WHERE id <> {} AND command = 'Sleep' ORDER BY id",
        root.id()
    ));
    assert_eq!(held.len(), 2, "one holds, one looks on: {held:?}");
    root.run(&format!("KILL {}", held[0]));
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert!(record["reason"].as_str().unwrap().contains("its locks were lost"), "{}", record["reason"]);
    nothing_is_locked(&original);
    assert_labels(&rig, 2, "filesystem");
    assert_settled(&rig);
}
