//! A replica: its SQL thread stands still for the set, and runs again whatever dies.

use nix::sys::signal::{Signal, kill};
use rig::Rig;
use rig::mysql::{Load, Place, SECRET, Server, checksums, install, prepare};
use rig::probe::{assert_clean, assert_settled, database_process};
use rig::window::in_the_window;

use super::{await_so, facts, place, two};

/// A replica on the rig's volumes, and its source, which is on none of them.
fn replica(rig: &Rig) -> (Server, Server) {
    let data = rig.path("source-data");
    install(&data);
    let binlog = Some(data.clone());
    let source = Server::start(rig, "source", &Place { data, binlog, id: 1, more: Vec::new() });
    let mut place = place(rig);
    // With an fsync for each transaction it would not catch up within the test.
    place.more.push("--innodb-flush-log-at-trx-commit=2".to_owned());
    install(&place.data);
    std::fs::create_dir_all(place.binlog.as_ref().unwrap()).unwrap();
    let replica = Server::start(rig, "original", &place);
    let mut client = source.client();
    client.run(&format!("CREATE USER repl@'127.0.0.1' IDENTIFIED BY '{SECRET}'"));
    client.run("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'");
    let mut client = replica.client();
    client.run(&format!(
        "CHANGE MASTER TO master_host = '127.0.0.1', master_port = {}, master_user = 'repl', \
         master_password = '{SECRET}', master_use_gtid = slave_pos",
        source.port
    ));
    client.run("START SLAVE");
    prepare(&source);
    caught_up(&source, &replica);
    (source, replica)
}

fn caught_up(source: &Server, replica: &Server) {
    let end = source.client().one("SELECT @@GLOBAL.gtid_binlog_pos");
    let mut client = replica.client();
    let waited = client.one(&format!("SELECT MASTER_GTID_WAIT('{end}', 30)"));
    assert_eq!(waited, "0", "{} {}", client.replica("Last_SQL_Error"), client.replica("Last_IO_Error"));
}

#[test]
fn a_replica_stands_still_for_the_set_and_runs_again_even_when_the_agent_is_killed() {
    let rig = two();
    let (source, held) = replica(&rig);
    rig.configure(&held.section("stop_replica = true"));
    let sql = || held.client().replica("Slave_SQL_Running");
    // The status of a replica waits for what it writes to a frozen filesystem; the list of threads does not.
    let sql_threads = || {
        let query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Slave_SQL'";
        held.client().one(query)
    };
    assert_eq!(sql_threads(), "1");
    let load = Load::start(&source, 1);
    load.goes_on();

    // A set: the SQL thread stands still in the window, and runs after it.
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert_eq!(sql_threads(), "0");
    let record = run.end().exits(0).record();
    assert_eq!(sql(), "Yes");
    let facts = facts(&record);
    assert!(facts["source_log_file"].as_str().unwrap().starts_with("bin."), "{facts:#}");
    assert_eq!(facts["source_host"], "127.0.0.1");

    // The agent is killed: the process that quiesces the server sees that, and releases it by itself.
    let run = in_the_window(&rig, &["snapshot", "--window", "30s"]);
    run.signal(Signal::SIGKILL);
    run.end();
    nothing_is_locked_soon(&held);
    let mut client = held.client();
    await_so("the SQL thread runs", || client.replica("Slave_SQL_Running") == "Yes");
    load.stop();
    rig.run(&["thaw"]).exits(0);
    assert_eq!(sql(), "Yes");
    assert_clean(&rig);

    // The process that quiesces it is killed as well: the locks go with its connection, and the recovery
    // starts the SQL thread.
    let killed = || {
        rig.await_quiet();
        let run = in_the_window(&rig, &["snapshot", "--window", "30s"]);
        assert_eq!(sql_threads(), "0");
        kill(database_process(&run).expect("a process that holds the server"), Signal::SIGKILL).unwrap();
        run.signal(Signal::SIGKILL);
        run.end();
        nothing_is_locked_soon(&held);
        assert_eq!(sql(), "No", "nobody was there to start it yet");
        rig.run(&["thaw"]).exits(0);
        assert_clean(&rig);
    };
    killed();
    assert_eq!(sql(), "Yes");

    // An SQL thread that somebody else had stopped is left stopped, whatever happens to the agent.
    held.client().run("STOP SLAVE SQL_THREAD");
    killed();
    assert_eq!(sql(), "No", "somebody else had stopped it");
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(sql(), "No", "somebody else had stopped it");

    held.client().run("START SLAVE SQL_THREAD");
    caught_up(&source, &held);
    assert_eq!(checksums(&mut held.client(), "t"), checksums(&mut source.client(), "t"));
    assert_settled(&rig);
}

fn nothing_is_locked_soon(server: &Server) {
    let mut client = server.client();
    client.run("SET lock_wait_timeout = 10");
    client.run("CREATE OR REPLACE TABLE t.probe (id INT) ENGINE=MyISAM");
    client.run("DROP TABLE t.probe");
}
