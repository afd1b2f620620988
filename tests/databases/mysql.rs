//! MariaDB held across a real window: what a set is worth then, and what becomes of the server whatever
//! fails.

mod access;
mod locks;
mod replica;
mod under_load;

use std::process::Command;
use std::time::{Duration, Instant};

use rig::mysql::{Client, Place, Server, checksums, install, prepare};
use rig::{Fs, Rig};
use serde_json::Value;

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

/// The binary log, replayed up to the position in the record, gives the same tables as the copy has.
fn binlog_is_the_data(rig: &Rig, log: &str, client: &mut Client, facts: &Value) {
    let text = |key: &str| facts[key].as_str().unwrap().to_owned();
    let (file, position) = (text("binlog_file"), text("binlog_position"));
    let path = rig.path(log).join("mysql").join(&file);
    if log != "log" {
        assert_eq!(std::fs::metadata(&path).unwrap().len().to_string(), position, "the copy's ends there");
    }
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

/// Waits until it is so. `so` should ask over one connection: the server takes its time to close those that
/// were left.
fn await_so(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No lock of stillpoint is left: every table can be written, and one can be made.
fn nothing_is_locked(server: &Server) {
    let mut client = server.client();
    client.run("SET lock_wait_timeout = 10");
    for table in ["i", "m", "a", "a0"] {
        client.run(&format!("UPDATE t.{table} SET amount = amount WHERE id = 1"));
    }
    client.run("CREATE TABLE t.new (id INT)");
    client.run("DROP TABLE t.new");
}
