//! As whom the server is asked, where its files are, and that its password is seen by nobody else.

use std::process::{Command, Stdio};

use rig::mysql::{Load, SECRET, Server, faults, install, restored};
use rig::probe::assert_settled;
use rig::window::in_the_window;

use super::{binlog_is_the_data, copy, facts, nothing_is_locked, place, server, taken, two};

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
    let shipped = include_str!("../../../packaging/examples/mysql.toml");
    for line in rig::documented("mysql").lines() {
        assert!(shipped.lines().any(|l| l.starts_with(line)), "documented and not run: {line}");
    }
    // The example is run as it is shipped, but for the paths and for the boot volume, which this rig lacks.
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

/// `os_user` alone is enough for an account that the server knows by its system user: no password is needed.
#[test]
fn an_account_with_socket_authentication_is_reached_as_its_system_user() {
    let rig = two();
    let original = server(&rig);
    // The rig's folder is for root only, and the socket is below it.
    let folder = rig.path("x").parent().unwrap().to_owned();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, open).unwrap();
    rig.configure(&original.section("os_user = \"mysql\""));
    let ended = rig.run(&["snapshot"]);
    ended.exits(20).says("as `mysql`");
    let mut root = original.client();
    root.run("CREATE OR REPLACE USER mysql@localhost IDENTIFIED VIA unix_socket");
    root.run("GRANT RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO mysql@localhost");
    // The server runs as root here, so its folders belong to root; on a host they belong to this user.
    let status =
        Command::new("chown").args(["-R", "mysql"]).arg(rig.mount("data")).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
    let record = taken(&rig);
    assert_eq!(record["achieved"], "application");
    assert_settled(&rig);
}

/// Of a link, nothing is restored: recorded is the folder that it leads to.
#[test]
fn a_data_directory_that_is_reached_by_a_link_is_recorded_by_where_it_leads() {
    let rig = two();
    let real = place(&rig);
    install(&real.data);
    std::fs::create_dir_all(real.binlog.as_ref().unwrap()).unwrap();
    let link = rig.path("to-data");
    std::os::unix::fs::symlink(rig.mount("data"), &link).unwrap();
    let original =
        Server::start(&rig, "original", &rig::mysql::Place { data: link.join("mysql"), ..real.clone() });
    let says = original.client().one("SELECT @@GLOBAL.datadir");
    assert!(std::path::Path::new(&says).starts_with(&link), "the server itself calls it by the link: {says}");
    rig.configure(&original.section(""));
    let record = taken(&rig);
    assert_eq!(facts(&record)["data_directory"], real.data.to_str().unwrap());
    assert_settled(&rig);
}
