//! A set that is restored, and the databases in it checked by their own programs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rig::postgresql::Cluster;
use rig::{Fs, Rig, sh};
use serde_json::Value;

fn take(rig: &Rig) -> String {
    let set = rig.run(&["snapshot", "-o", "json"]).exits(0).record()["run_id"].as_str().unwrap().to_owned();
    rig.await_quiet();
    set
}

fn check(database: &str, data: &Path) -> String {
    format!("[[check]]\ndatabase = \"{database}\"\ndata = \"{}\"\ntimeout = \"2m\"\n", data.display())
}

/// Exit code and finding of the check.
fn verify(rig: &Rig, set: &str, exit: i32) -> String {
    let ended = rig.run(&["verify", set, "--level", "restore", "-o", "json"]);
    let said: Value = ended.exits(exit).record();
    let finding = said["findings"].as_array().unwrap().iter().find(|f| f["check"].is_string());
    let finding = finding.unwrap_or_else(|| panic!("nothing was checked: {said}\n{}", ended.err));
    let what = format!("{}: {}", finding["verdict"].as_str().unwrap(), finding["what"].as_str().unwrap());
    let left = rig.run(&["restore", "--list", "-o", "json"]).exits(0).record();
    assert_eq!(left["restores"].as_array().unwrap().len(), 0, "{left}");
    format!("{what}\n{}", ended.err)
}

/// Overwrites the middle of a file.
fn damage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 3000], at).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn postgresql_is_started_on_what_was_restored_and_checked() {
    let rig = Rig::start(&[("data", Fs::Xfs), ("wal", Fs::Ext4)]);
    let mut cluster = Cluster::create(&rig, &rig.mount("data"), &rig.mount("wal"), "pg", "");
    cluster.sql("CREATE TABLE t (i int PRIMARY KEY, t text)");
    cluster.sql("INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(1, 20000) g");
    let index = cluster.data.join(cluster.value("SELECT pg_relation_filepath('t_pkey')"));
    // Nothing of its own settings is read: with these, no server would start.
    let hostile =
        "shared_preload_libraries = 'no_such_library'\narchive_mode = on\narchive_command = 'false'\n";
    std::fs::write(cluster.data.join("postgresql.auto.conf"), hostile).unwrap();
    rig.configure(&format!("{}{}", cluster.section(""), check("postgresql", &cluster.data)));
    let set = take(&rig);
    let live = cluster.pid();
    let said = verify(&rig, &set, 0);
    assert!(said.starts_with("sound: "), "{said}");
    assert_eq!(cluster.pid(), live);
    assert_eq!(cluster.value("SELECT count(*) FROM t"), "20000", "the original goes on");

    cluster.stop(nix::sys::signal::Signal::SIGINT);
    damage(&index, 9000);
    rig.configure(&check("postgresql", &cluster.data));
    let set = take(&rig);
    let said = verify(&rig, &set, 24);
    assert!(said.starts_with("fault: ") && said.contains("pg_amcheck finds errors"), "{said}");
}

#[test]
fn postgresql_runs_on_a_copy_by_what_restore_prints() {
    let rig = Rig::start(&[("data", Fs::Ext4), ("wal", Fs::Xfs)]);
    let cluster = Cluster::create(&rig, &rig.mount("data"), &rig.mount("wal"), "pg", "");
    runs_on_a_copy(&rig, &cluster, &cluster.data);
}

/// Of a link on a filesystem that is not in the set, nothing is restored: what is printed is of where it leads.
#[test]
fn postgresql_runs_on_a_copy_also_where_its_folders_are_reached_by_links() {
    let rig = Rig::start(&[("data", Fs::Ext4), ("wal", Fs::Xfs)]);
    let mut cluster = Cluster::create(&rig, &rig.mount("data"), &rig.mount("wal"), "pg", "");
    let (data, wal) = (cluster.data.clone(), cluster.data.join("pg_wal"));
    cluster.stop(nix::sys::signal::Signal::SIGINT);
    let (to_data, to_wal) = (rig.path("to-data"), rig.path("to-wal"));
    symlink(rig.mount("data"), &to_data).unwrap();
    symlink(std::fs::read_link(&wal).unwrap(), &to_wal).unwrap();
    std::fs::remove_file(&wal).unwrap();
    symlink(&to_wal, &wal).unwrap();
    let by_link = Cluster::start(&to_data.join("pgdata"), &rig.path("pg"), &[]);
    let cluster = by_link.unwrap_or_else(|log| panic!("{log}"));
    let says = cluster.value("SHOW data_directory");
    assert_eq!(Path::new(&says), to_data.join("pgdata"), "the server itself calls it by the link");
    runs_on_a_copy(&rig, &cluster, &data);
}

/// What `restore` prints is given to a shell as it is, and then the copy runs beside its original. `data` is where its
/// data directory lies.
fn runs_on_a_copy(rig: &Rig, cluster: &Cluster, data: &Path) {
    let tablespace = rig::postgresql::folder(&rig.mount("wal").join("fast"));
    cluster.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", tablespace.display()));
    cluster.sql("CREATE TABLE t TABLESPACE fast AS SELECT g FROM generate_series(1, 20000) g");
    rig.configure(&cluster.section(""));
    let set = take(rig);
    cluster.sql("DROP TABLE t");

    let to = rig.path("copy");
    let words = rig.tail(Command::new(rig::stillpoint()), &["restore", &set, "--to", to.to_str().unwrap()]);
    let words: Vec<_> = std::iter::once(words.get_program()).chain(words.get_args()).collect();
    let restore = words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let run = rig::postgresql::folder(&rig.path("copy-run"));
    let script = format!(
        "set -e; {restore} 2>{run}/said || {{ cat {run}/said; exit 1; }}
         sed -n '/^before a database/,$p' {run}/said | sed 1d >{run}/commands; sh -e {run}/commands
         start=$(sed -n 's/^ *# start: postgres//p' {run}/commands)
         readlink -f {to}{data}/pg_wal {to}{data}/pg_tblspc/*
         setpriv --reuid=postgres --regid=postgres --init-groups --pdeathsig=QUIT \\
             sh -c \"exec {postgres} $start -k {run}\" >{run}/log 2>&1 &
         for n in $(seq 300); do {psql} -h {run} -p 5433 -U postgres -tAc 'SELECT count(*) FROM t' 2>/dev/null && exit; sleep 0.1; done
         cat {run}/log; exit 1",
        run = run.display(),
        to = to.display(),
        data = data.display(),
        postgres = rig::postgresql::program("postgres").display(),
        psql = rig::postgresql::program("psql").display(),
    );
    let ended = rig.view("sh", &["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    let lines: Vec<&str> = said.lines().filter(|l| !l.starts_with("vol-")).collect();
    assert!(lines[..2].iter().all(|link| link.starts_with(to.to_str().unwrap())), "{said}");
    assert_eq!(lines.last(), Some(&"20000"), "{said}");
    assert_eq!(
        cluster.value("SELECT count(*) FROM pg_class WHERE relname = 't'"),
        "0",
        "the original goes on"
    );
}

#[test]
fn mariadb_is_started_on_what_was_restored_and_checked() {
    use rig::mysql::{Place, Server, install};
    let rig = Rig::start(&[("data", Fs::Xfs)]);
    let data = rig.mount("data").join("mysql");
    install(&data);
    let server =
        Server::start(&rig, "original", &Place { data: data.clone(), binlog: None, id: 7, more: Vec::new() });
    let mut client = server.client();
    client.run("CREATE DATABASE d");
    client.run("USE d");
    client.run("CREATE TABLE d.t (i int PRIMARY KEY, t varchar(50)) ENGINE=InnoDB");
    client.run("INSERT INTO d.t SELECT seq, repeat('x', 40) FROM seq_1_to_20000");
    client.run("CREATE TABLE d.m (i int PRIMARY KEY) ENGINE=MyISAM");
    client.run("INSERT INTO d.m SELECT seq FROM seq_1_to_1000");
    client.run("FLUSH TABLES");
    // As packages install it; the rig's server is root's.
    sh("chmod", &["755", rig.path("").to_str().unwrap()]);
    rig.configure(&check("mariadb", &data));
    let set = take(&rig);
    let said = verify(&rig, &set, 0);
    assert!(said.contains("belongs to root"), "nothing is run as root: {said}");
    sh("chown", &["-R", "mysql:", data.to_str().unwrap()]);
    let set = take(&rig);
    let said = verify(&rig, &set, 0);
    assert!(said.starts_with("sound: "), "{said}");

    drop(server);
    damage(&data.join("d/m.MYI"), 1030);
    let set = take(&rig);
    let said = verify(&rig, &set, 24);
    assert!(said.starts_with("fault: ") && said.contains("d.m"), "{said}");
}

#[test]
fn files_of_redis_are_checked() {
    use rig::redis::{on, one};
    let rig = one(Fs::Xfs);
    let server = on(&rig, &[]);
    for n in 0..1000 {
        let _: String = server.ask(&format!("SET key:{n} {n}"));
    }
    let _: String = server.ask("SAVE");
    sh("chmod", &["755", rig.path("").to_str().unwrap()]);
    sh("chown", &["-R", "redis:", server.dir.to_str().unwrap()]);
    rig.configure(&format!("{}{}", server.section(""), check("redis", &server.dir)));
    let set = take(&rig);
    let said = verify(&rig, &set, 0);
    assert!(said.starts_with("sound: "), "{said}");

    let folder = server.dir.join("appendonlydir");
    let file = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let file = file
        .filter(|p| p.extension().is_some_and(|e| e == "aof"))
        .max_by_key(|p| p.metadata().unwrap().len());
    damage(&file.unwrap(), 1000);
    let set = take(&rig);
    let said = verify(&rig, &set, 24);
    assert!(said.starts_with("fault: ") && said.contains("is not whole"), "{said}");
}
