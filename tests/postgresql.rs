//! PostgreSQL on two volumes, under load: sets that are restored next to it, and how it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::postgresql::{Cluster, Load, Restored, facts, lsn, snapshot_of};
use common::probe::{assert_settled, nanoseconds};
use common::rig::{Fs, Rig};

/// Data on XFS, WAL on ext4.
const VOLUMES: [(&str, Fs); 2] = [("data", Fs::Xfs), ("wal", Fs::Ext4)];

fn cluster(rig: &Rig, more: &str) -> Cluster {
    Cluster::create(rig, &rig.mount("data"), &rig.mount("wal"), "pg", more)
}

#[test]
fn checkpointed_sets_under_load_recover_to_their_instant() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    rig.configure(&server.section(""));
    Load::prepare(&server);
    let load = Load::start(&server);
    let mut taken = Vec::new();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
        assert_eq!(record["consistency"], "application", "{record:#}");
        let point = rig.creates().pop().unwrap()["point_in_time_ns"].as_i64().unwrap();
        taken.push((record, i128::from(point)));
    }
    let seen = load.stop();
    println!("{} transfers, the longest took {:?}", seen.count(), seen.longest());
    assert_eq!(server.sessions(), Vec::<String>::new());
    for (i, (record, point)) in taken.iter().enumerate() {
        let (data, wal) = (snapshot_of(&rig, record, "data"), snapshot_of(&rig, record, "wal"));
        let volumes = Restored::mount(&rig, &format!("set-{i}"), &data, &wal);
        let restored = volumes.start(&[]).unwrap_or_else(|log| panic!("{log}"));
        let frozen = nanoseconds(&record["times"]["frozen"]);
        seen.assert_restored(&restored, frozen, *point);
        let facts = facts(record);
        println!("{facts:#?}");
        let log = restored.log();
        let redo = log.split("redo done at ").nth(1).expect(&log).split_whitespace().next().unwrap();
        assert!(
            lsn(&facts["lsn"]) <= lsn(redo) && lsn(redo) <= lsn(&facts["lsn_after"]),
            "{redo}: {facts:#?}"
        );
    }
    assert_settled(&rig);
}
