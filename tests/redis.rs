//! Redis is held, and what is restored is what it had acknowledged: real servers, real volumes, under load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::hooks::in_the_window;
use common::probe::{assert_labels, assert_settled};
use common::redis::{Load, Pairs, Restored, Server};
use common::rig::{Fs, Rig};

/// How many sets are taken under load and restored.
fn sets() -> usize {
    if std::env::var_os("STILLPOINT_LONG").is_some() { 40 } else { 3 }
}

fn newest(rig: &Rig) -> String {
    rig.snapshots().last().unwrap()["id"].as_str().unwrap().to_owned()
}

/// What a server started on this folder has: both counters.
fn counters(rig: &Rig, restored: &Restored<'_>) -> (u64, u64) {
    let server = Server::start(rig, &restored.at.join("redis"), &["--aof-load-truncated", "no"]);
    server.ask("MGET a b")
}

#[test]
fn sets_taken_under_load_hold_every_acknowledged_write() {
    let mut rig = Rig::start(&[("data", Fs::Xfs)]);
    let server = Server::start(&rig, &rig.mount("data").join("redis"), &[]);
    let pairs = Pairs::start(&server);
    let _load = Load::start(&server);
    rig.configure(&server.section(""));
    let mut stalls = Vec::new();
    for _ in 0..sets() {
        rig.renew_rescue();
        pairs.goes_on(100, Duration::from_secs(10));
        pairs.longest();
        let run = in_the_window(&rig, "delay-before", "500ms", &["snapshot", "-o", "json"]);
        let acknowledged = pairs.standing();
        let ended = run.end();
        let record = ended.exits(0).record();
        assert_eq!(record["consistency"], "application", "{record:#}");
        pairs.goes_on(10, Duration::from_secs(5));
        stalls.push(pairs.longest());
        rig.await_quiet();
        let restored = Restored::mount(&rig, &newest(&rig));
        restored.check_aof("redis");
        assert_eq!(counters(&rig, &restored), (acknowledged, acknowledged));
    }
    println!("longest stalls of a client, 500 ms of them the answer: {stalls:?}");
    assert_labels(&rig, sets(), "application");
    assert_settled(&rig);
}
