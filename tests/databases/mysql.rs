//! MariaDB held across a real window: what a set is worth then, and what becomes of the server whatever
//! fails.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::mysql::{
    Client, Load, Place, SECRET, Server, checksums, faults, install, median, prepare, restored,
};
use rig::probe::{assert_clean, assert_labels, assert_settled, database_process};
use rig::window::in_the_window;
use rig::{Fs, Rig};
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

/// A binary log, up to where the record says, makes the copy's tables what they are.
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

/// The control: the same load and the same freeze, with nobody telling the server.
#[test]
fn without_the_hold_tables_without_transactions_are_broken() {
    let rig = two();
    let original = server(&rig);
    let load = Load::start(&original, 4);
    // Four times: a client goes from table to table, and each has to be open.
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

/// Waits until it is so. To be asked over one connection: the server takes its time to close those that were
/// left.
fn await_so(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody waits for a lock of ours, and everybody goes on.
fn nothing_is_locked(server: &Server) {
    let mut client = server.client();
    client.run("SET lock_wait_timeout = 10");
    for table in ["i", "m", "a", "a0"] {
        client.run(&format!("UPDATE t.{table} SET amount = amount WHERE id = 1"));
    }
    client.run("CREATE TABLE t.new (id INT)");
    client.run("DROP TABLE t.new");
}

#[test]
fn a_query_that_is_in_the_way_is_named_and_nobody_queues_up_behind_the_locks() {
    let rig = two();
    let original = server(&rig);
    let update = "UPDATE t.m SET amount = amount + SLEEP(15) + LENGTH('hidden') * 0 WHERE id = 1";
    for (method, statement, named) in [
        // The first of the stages is not to be had; the third is not, and the second was.
        ("backup", "LOCK TABLES t.m WRITE", "idle: perhaps with LOCK TABLES"),
        ("backup", update, "LENGTH('…')"),
        ("read-lock", update, "LENGTH('…')"),
    ] {
        rig.configure(&original.section(&format!("method = \"{method}\"\nlock_wait = \"1s\"\ntries = 2")));
        let mut long = original.client();
        let id = long.id();
        let (told, holds) = std::sync::mpsc::channel();
        let (enough, until) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let done = long.try_run(statement);
            told.send(()).unwrap();
            // A table lock lasts until the connection ends: longer than the tries.
            if done.is_ok() {
                let _ = until.recv_timeout(Duration::from_secs(15));
            }
        });
        let mut root = original.client();
        if statement != update {
            holds.recv().unwrap();
        } else {
            let state = format!("SELECT state FROM information_schema.processlist WHERE id = {id}");
            await_so("the query has its lock", || root.one(&state) == "User sleep");
        }
        // It writes nothing that the long one holds: it may wait for one try, and goes on between them.
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
        ended.exits(20).says(&format!("thread {id} of `root`")).says(named).says("in 2 tries of 1s");
        assert!(!ended.err.contains("hidden"), "{}", ended.err);
        assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
        println!("{method}: a bystander waited {longest:?} at most, for tries of 1 s");
        // Behind a lock that is waited for to the end, it would be nearly 15 s.
        assert!(longest < Duration::from_secs(5), "a bystander waited {longest:?}");
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

/// A replica of a source that is only a server beside it.
fn replica(rig: &Rig) -> (Server, Server) {
    let data = rig.path("source-data");
    install(&data);
    let binlog = Some(data.clone());
    let source = Server::start(rig, "source", &Place { data, binlog, id: 1, more: Vec::new() });
    let mut place = place(rig);
    // It has to catch up within the test.
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

    // A set: stopped in the window, running after it.
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert_eq!(sql_threads(), "0");
    let record = run.end().exits(0).record();
    assert_eq!(sql(), "Yes");
    let facts = facts(&record);
    assert!(facts["source_log_file"].as_str().unwrap().starts_with("bin."), "{facts:#}");
    assert_eq!(facts["source_host"], "127.0.0.1");

    // A killed agent: its session sees that and lets go by itself.
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

    // The session killed as well: the locks go with the connection, and the recovery starts the SQL thread.
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

    // One that somebody has stopped on purpose stays so, whatever happens to the agent.
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

#[test]
fn what_could_not_be_restored_or_held_is_refused_and_said() {
    let rig = two();
    let original = server(&rig);
    let refused = |section: &str, arguments: &[&str], says: &[&str]| {
        rig.configure(section);
        let ended = rig.run(&[&["snapshot"], arguments].concat());
        ended.exits(20);
        says.iter().for_each(|text| {
            ended.says(text);
        });
        assert!(!ended.err.contains(SECRET), "{}", ended.err);
    };
    let log = rig.mount("log").display().to_string();
    refused(
        &original.section(""),
        &["--mount", &log],
        &["the data directory", "is not on a filesystem of the set", "mounts"],
    );
    let mut root = original.client();
    root.run(&format!("CREATE OR REPLACE USER few@localhost IDENTIFIED BY '{SECRET}'"));
    root.run("GRANT RELOAD, PROCESS ON *.* TO few@localhost");
    let options = rig.path("few.cnf");
    std::fs::write(&options, format!("[client]\nuser = few\npassword = '{SECRET}'\n")).unwrap();
    let with = format!("defaults_file = \"{}\"", options.display());
    let grant = "GRANT BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'few'@'localhost';";
    refused(&original.section(&with), &[], &["lacks BINLOG MONITOR, SLAVE MONITOR", grant]);
    std::fs::write(&options, format!("[client]\nuser = few\npassword = '{SECRET}x'\n")).unwrap();
    refused(&original.section(&with), &[], &["Access denied for user 'few'@'localhost'", "defaults_file"]);
    let nowhere = original.section("").replace("original.sock", "nowhere.sock");
    refused(&nowhere, &[], &["nowhere.sock as `root`", "No such file"]);

    // A table on another filesystem.
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    root.run("USE t");
    let elsewhere =
        format!("CREATE TABLE far (id INT) ENGINE=InnoDB DATA DIRECTORY='{}'", outside.path().display());
    root.run(&elsewhere);
    refused(&original.section(""), &[], &["far.ibd", "is not on a filesystem of the set"]);
    root.run("DROP TABLE far");
    assert_eq!(rig.creates().len(), 0);
    nothing_is_locked(&original);

    // The binary log elsewhere is no reason to refuse: the tables are whole without it.
    rig.configure(&original.section(""));
    let load = Load::start(&original, 3);
    load.goes_on();
    let data = rig.mount("data").display().to_string();
    let record = rig.run(&["snapshot", "-o", "json", "--mount", &data]).exits(0).record();
    load.stop();
    assert_eq!(
        (&facts(&record)["binlog_in_set"], &record["achieved"]),
        (&"no".into(), &"application".into())
    );
    let _copies = restored(&rig, &record, &["data"]);
    let server = copy(&rig, false);
    let mut client = server.client();
    assert_eq!(faults(&mut client), Vec::<String>::new(), "{}", server.said());
    binlog_is_the_data(&rig, "log", &mut client, facts(&record));
    assert_settled(&rig);
}

#[test]
fn the_shipped_example_takes_a_set_and_a_password_is_seen_by_nobody_but_the_server() {
    let rig = two();
    let original = server(&rig);
    let mut root = original.client();
    root.run(&format!("CREATE USER st@localhost IDENTIFIED BY '{SECRET}'"));
    root.run("GRANT RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO st@localhost");
    let options = rig.path("st.cnf");
    std::fs::write(&options, format!("[stillpoint]\nuser = st\npassword = \"{SECRET}\"\n")).unwrap();
    let shipped = include_str!("../../packaging/examples/mysql.toml");
    for line in rig::documented("mysql").lines() {
        assert!(shipped.lines().any(|l| l.starts_with(line)), "documented and not run: {line}");
    }
    // As it is shipped, with the paths of this place, where there is no boot volume.
    let example = shipped
        .replace("exclude_boot_volume = true", "")
        .replace("\"/var/lib/mysql\"", &format!("{:?}", rig.mount("data")))
        .replace("\"/var/log/mysql\"", &format!("{:?}", rig.mount("log")))
        .replace("# socket = \"/run/mysqld/mysqld.sock\"", &format!("socket = {:?}", original.socket))
        .replace("# defaults_file = \"/etc/stillpoint/mysql.cnf\"", &format!("defaults_file = {options:?}"));
    assert!(!example.contains("/var/l") && !example.contains("# socket") && !example.contains("# defaults"));
    rig.configure(&example);
    let run = in_the_window(&rig, &["snapshot", "mysql", "-o", "json", "-v"]);
    let users = root.rows("SELECT DISTINCT user FROM information_schema.processlist WHERE user = 'st'");
    assert_eq!(users, ["st"]);
    let seen = |file: &str| {
        let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join(file));
        let mut texts = processes.filter_map(|f| std::fs::read(f).ok());
        texts.any(|text| String::from_utf8_lossy(&text).contains(SECRET))
    };
    assert!(!seen("cmdline") && !seen("environ"));
    let in_files = |folder: &str| {
        let found = Command::new("grep").args(["-r", SECRET]).arg(rig.path(folder)).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    };
    assert!(rig.path("run").exists());
    assert_eq!(in_files("run"), "");
    let ended = run.end();
    assert_eq!(ended.exits(0).record()["achieved"], "application");
    assert!(!ended.out.contains(SECRET) && !ended.err.contains(SECRET), "{}{}", ended.out, ended.err);
    assert_eq!(in_files("run") + &in_files("state"), "");
    assert!(!serde_json::to_string(&rig.requests()).unwrap().contains(SECRET));
    assert_settled(&rig);
}

/// `os_user` and the account of its name, without any password.
#[test]
fn an_account_with_socket_authentication_is_reached_as_its_system_user() {
    let rig = two();
    let original = server(&rig);
    // The rig's folder is root's alone.
    let folder = rig.path("x").parent().unwrap().to_owned();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, open).unwrap();
    rig.configure(&original.section("os_user = \"mysql\""));
    let ended = rig.run(&["snapshot"]);
    ended.exits(20).says("as `mysql`");
    let mut root = original.client();
    root.run("CREATE OR REPLACE USER mysql@localhost IDENTIFIED VIA unix_socket");
    root.run("GRANT RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO mysql@localhost");
    // The server runs as root here, and its folders are root's; on a host they are the user's.
    let status =
        Command::new("chown").args(["-R", "mysql"]).arg(rig.mount("data")).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
    let record = taken(&rig);
    assert_eq!(record["achieved"], "application");
    assert_settled(&rig);
}
