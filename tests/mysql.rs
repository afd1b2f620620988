//! MariaDB held across a real window: what a set is worth then, and what becomes of the server whatever fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::mysql::{
    Client, Load, Place, Restored, SECRET, Server, checksums, faults, install, median, prepare,
};
use common::probe::{assert_clean, assert_labels, assert_settled};
use common::rig::{Fs, Rig};
use serde_json::Value;

/// How many sets are taken under load: more in a long run.
fn rounds(few: usize) -> usize {
    if std::env::var_os("STILLPOINT_LONG").is_some() { few * 10 } else { few }
}

fn two() -> Rig {
    Rig::start(&[("data", Fs::Xfs), ("log", Fs::Ext4)])
}

fn place(rig: &Rig) -> Place {
    let data = rig.mount("data").join("mysql");
    let binlog = rig.mount("log").join("mysql");
    Place { data, binlog: Some(binlog), id: 7, more: Vec::new() }
}

/// A server with its data on one volume and its binary log on the other.
fn server(rig: &Rig) -> Server {
    let place = place(rig);
    install(&place.data);
    std::fs::create_dir_all(place.binlog.as_ref().unwrap()).unwrap();
    let server = Server::start(rig, "original", &place);
    prepare(&server);
    server
}

/// A server on the volumes of a set.
fn copy(rig: &Rig, binlog: bool) -> Server {
    let binlog = binlog.then(|| rig.path("copy-log").join("mysql"));
    let more = vec!["--log-slave-updates".to_owned()];
    let more = if binlog.is_some() { more } else { Vec::new() };
    Server::start(rig, "copy", &Place { data: rig.path("copy-data").join("mysql"), binlog, id: 8, more })
}

fn facts(record: &Value) -> &Value {
    let hooks = record["hooks"].as_array().unwrap();
    &hooks.iter().find(|h| h["name"] == "db" && h["phase"] == "pre").unwrap()["facts"]
}

/// Takes a set.
fn taken(rig: &Rig) -> Value {
    rig.run(&["snapshot", "-o", "json"]).exits(0).record()
}

/// The copy's binary log ends where the record says, and what is in it makes the tables what they are.
fn binlog_is_the_data(rig: &Rig, client: &mut Client, facts: &Value) {
    let text = |key: &str| facts[key].as_str().unwrap().to_owned();
    let (file, position) = (text("binlog_file"), text("binlog_position"));
    let path = rig.path("copy-log").join("mysql").join(&file);
    assert_eq!(std::fs::metadata(&path).unwrap().len().to_string(), position, "{file}");
    client.run("SET sql_log_bin = 0");
    client.run("CREATE DATABASE r");
    let script = format!(
        "mariadb-binlog --no-defaults --disable-log-bin --rewrite-db='t->r' --stop-position={position} {} \
         | sed -e 's/CREATE DATABASE t/CREATE DATABASE IF NOT EXISTS r/' \
         | mariadb --no-defaults -uroot -S {}",
        path.display(),
        rig.path("copy.sock").display()
    );
    let replayed = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    assert_eq!(checksums(client, "r"), checksums(client, "t"));
}

/// The copy takes up where the record says, as a replica of the original, and becomes equal to it.
fn catches_up(original: &Server, client: &mut Client, facts: &Value) {
    let mut source = original.client();
    source.run(&format!("CREATE OR REPLACE USER repl@'127.0.0.1' IDENTIFIED BY '{SECRET}'"));
    source.run("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'");
    client.run(&format!("SET GLOBAL gtid_slave_pos = '{}'", facts["gtid"].as_str().unwrap()));
    client.run(&format!(
        "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {}, master_user = 'repl', \
         master_password = '{SECRET}', master_use_gtid = slave_pos",
        original.port
    ));
    client.run("START SLAVE");
    let end = source.one("SELECT @@GLOBAL.gtid_binlog_pos");
    let waited = client.one(&format!("SELECT MASTER_GTID_WAIT('{end}', 20)"));
    assert_eq!(waited, "0", "{} {}", client.replica("Last_SQL_Error"), client.replica("Last_IO_Error"));
    assert_eq!(checksums(client, "t"), checksums(&mut source, "t"));
}

fn whole_under_load(method: &str, few: usize) {
    let rig = two();
    let original = server(&rig);
    rig.configure(&original.section(&format!("method = \"{method}\"")));
    let load = Load::start(&original, 4);
    load.goes_on();
    let mut stalls = Vec::new();
    let rounds = rounds(few);
    let mut last = None;
    for round in 1..=rounds {
        load.stall();
        let record = taken(&rig);
        stalls.push(load.stall());
        assert_eq!(record["consistency"], "application", "{record:#}");
        load.goes_on();
        let restored = Restored::of(&rig, &record, &["data", "log"]);
        let server = copy(&rig, true);
        let mut client = server.client();
        assert_eq!(faults(&mut client), Vec::<String>::new(), "{}", server.said());
        if round < rounds {
            drop((client, server, restored));
            continue;
        }
        last = Some((record, client, server, restored));
    }
    println!("{method}: {rounds} sets restored; longest stall of a client, median: {:?}", median(stalls));
    let (record, mut client, _server, _restored) = last.unwrap();
    assert!(load.done() > 100, "there was no load: {}", load.done());
    load.stop();
    binlog_is_the_data(&rig, &mut client, facts(&record));
    catches_up(&original, &mut client, facts(&record));
    drop(original);
    assert_settled(&rig);
}

#[test]
fn sets_taken_under_load_are_whole_and_seed_a_replica() {
    whole_under_load("backup", 3);
}

#[test]
fn sets_taken_with_the_read_lock_are_whole_and_seed_a_replica() {
    whole_under_load("read-lock", 1);
}

/// The control: the same load and the same freeze, with nobody telling the server.
#[test]
fn without_the_hold_tables_without_transactions_are_broken() {
    let rig = two();
    let original = server(&rig);
    let load = Load::start(&original, 4);
    load.goes_on();
    let mut stalls = Vec::new();
    for _ in 0..rounds(1) {
        load.stall();
        let record = taken(&rig);
        stalls.push(load.stall());
        assert_eq!(record["consistency"], "filesystem");
        let _restored = Restored::of(&rig, &record, &["data", "log"]);
        let server = copy(&rig, true);
        let found = faults(&mut server.client());
        println!("without the hold: {found:#?}");
        for table in ["t.m|", "t.m_log|", "t.a0|", "t.a0_log|"] {
            let broken =
                found.iter().any(|f| f.starts_with(table) && f.contains("closed the table properly"));
            assert!(broken, "{table}: {found:#?}");
        }
        assert!(!found.iter().any(|f| f.starts_with("t.i")), "{found:#?}");
    }
    println!("without the hold: longest stall of a client, median: {:?}", median(stalls));
    load.stop();
}
