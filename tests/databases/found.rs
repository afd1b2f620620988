//! The plan shows the servers that really run on its filesystems, and what is suggested for them takes a set.

use rig::mysql::{self, Place, install};
use rig::postgresql::Cluster;
use rig::probe::assert_settled;
use rig::redis;
use rig::{Fs, Rig};

#[test]
fn servers_of_each_kind_are_found_once_and_held_as_suggested() {
    let rig = Rig::start(&[("data", Fs::Xfs), ("wal", Fs::Xfs)]);
    let data = rig.mount("data");
    let postgres = Cluster::create(&rig, &data, &rig.mount("wal"), "pg", "");
    // The checkpointer keeps the WAL file open that it has written to.
    postgres.sql("CREATE TABLE t ()");
    postgres.sql("CHECKPOINT");
    let place = Place { data: data.join("mysql"), binlog: None, id: 1, more: Vec::new() };
    install(&place.data);
    let mariadb = mysql::Server::start(&rig, "mariadb", &place);
    let redis = redis::Server::start(&rig, &data.join("redis"), &[]);
    let found = || {
        let record = rig.run(&["plan", "-o", "json"]).exits(0).record();
        record["databases"].as_array().unwrap().clone()
    };
    let databases = found();
    let told: Vec<_> = databases
        .iter()
        .map(|d| {
            let mounts = d["mounts"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_owned());
            let text = |key: &str| d[key].as_str().unwrap_or_default().to_owned();
            (text("kind"), d["process"]["pid"].as_i64().unwrap(), text("data"), mounts.collect::<Vec<_>>())
        })
        .collect();
    let at = |mounts: &[&str]| -> Vec<String> {
        mounts.iter().map(|m| rig.mount(m).to_str().unwrap().to_owned()).collect()
    };
    let row = |kind: &str, pid: i64, folder: &std::path::Path, mounts: &[&str]| {
        (kind.to_owned(), pid, folder.to_str().unwrap().to_owned(), at(mounts))
    };
    let redis_pid = redis.info("process_id").parse().unwrap();
    let mut expected = vec![
        row("postgresql", postgres.pid().as_raw().into(), &postgres.data, &["data", "wal"]),
        row("mysql", mariadb.pid().into(), &place.data, &["data"]),
        row("redis", redis_pid, &redis.dir, &["data"]),
    ];
    expected.sort_by_key(|row| row.1);
    assert_eq!(told, expected);
    let suggestions: String = databases.iter().map(|d| d["suggestion"].as_str().unwrap()).collect();
    let text = rig.run(&["plan"]);
    assert_eq!(text.exits(0).out.matches("not configured").count(), 3, "{}", text.out);
    rig.configure(&suggestions);
    assert!(found().iter().all(|d| d["section"] == d["kind"] && d["suggestion"].is_null()), "{:#?}", found());
    let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    assert_eq!(record["achieved"], "application", "{suggestions}\n{record:#}");
    assert_settled(&rig);
}
