//! Sets taken under load are whole, and seed a replica; without the hold they are not.

use rig::mysql::{Client, Load, SECRET, Server, checksums, faults, median, restored};
use rig::probe::assert_settled;
use serde_json::Value;

use super::{binlog_is_the_data, copy, facts, server, taken, two};

/// How many sets are taken under load: more in a long run.
fn rounds(few: usize) -> usize {
    if std::env::var_os("STILLPOINT_LONG").is_some() { few * 10 } else { few }
}

/// The copy becomes a replica of the original from the GTID in the record on, and then equals it.
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
    let waited = client.one(&format!("SELECT MASTER_GTID_WAIT('{end}', 30)"));
    assert_eq!(waited, "0", "{} {}", client.replica("Last_SQL_Error"), client.replica("Last_IO_Error"));
    assert_eq!(checksums(client, "t"), checksums(&mut source, "t"));
}

fn whole_under_load(method: &str, few: usize) {
    let mut rig = two();
    let original = server(&rig);
    rig.configure(&original.section(&format!("method = \"{method}\"")));
    let load = Load::start(&original, 4);
    load.goes_on();
    let mut stalls = Vec::new();
    let rounds = rounds(few);
    let mut last = None;
    for round in 1..=rounds {
        rig.renew_rescue();
        load.stall();
        let record = taken(&rig);
        stalls.push(load.stall());
        assert_eq!(record["achieved"], "application", "{record:#}");
        load.goes_on();
        let copies = restored(&rig, &record, &["data", "log"]);
        let server = copy(&rig, true);
        let mut client = server.client();
        assert_eq!(faults(&mut client), Vec::<String>::new(), "{}", server.said());
        if round < rounds {
            drop((client, server, copies));
            continue;
        }
        last = Some((record, copies, server, client));
    }
    println!("{method}: {rounds} sets restored; longest stall of a client, median: {:?}", median(stalls));
    let (record, _copies, _server, mut client) = last.unwrap();
    assert!(load.done() > 100, "there was no load: {}", load.done());
    load.stop();
    binlog_is_the_data(&rig, "copy-log", &mut client, facts(&record));
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

/// The control: the same load and the same freeze, without any word to the server.
#[test]
fn without_the_hold_tables_without_transactions_are_broken() {
    let rig = two();
    let original = server(&rig);
    let load = Load::start(&original, 4);
    // A client writes one table after the other; after four rounds every table is open.
    (0..4).for_each(|_| load.goes_on());
    let mut stalls = Vec::new();
    for _ in 0..rounds(1) {
        load.stall();
        let record = taken(&rig);
        stalls.push(load.stall());
        assert_eq!(record["achieved"], "filesystem");
        let _copies = restored(&rig, &record, &["data", "log"]);
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
