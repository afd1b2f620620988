//! The steps before a backup as docs/before.md has them, each carried out: pgBackRest, a dump, a job of cron's.

use std::path::Path;
use std::process::Command;

use rig::mysql::{Place, Server, install};
use rig::postgresql::Cluster;
use rig::probe::{assert_settled, tag};
use rig::program::{Run, put_executable};
use rig::{Fs, Rig, sh};

const PAGE: &str = include_str!("../../docs/before.md");

/// The line of the page that has this.
fn documented(text: &str) -> &'static str {
    let mut lines = PAGE.lines().filter(|line| line.contains(text) && !line.starts_with(['#', '|']));
    let line = lines.next().unwrap_or_else(|| panic!("docs/before.md has no line with {text}"));
    assert_eq!(lines.next(), None, "docs/before.md has several lines with {text}");
    line
}

/// Has `stillpoint` by name in a folder, which it returns: the program in the view of the rig.
fn by_name(rig: &Rig) -> String {
    let folder = rig.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    rig.put_program(&folder.join("stillpoint"));
    folder.display().to_string()
}

/// Gives a line to a shell, with no more in its environment than this.
fn run(line: &str, path: &str, variables: &[(&str, &Path)]) -> rig::program::Ended {
    let mut command = Command::new("sh");
    command.args(["-c", line]).env_clear().env("PATH", path).env("SHELL", "/bin/sh").env("HOME", "/root");
    command.envs(variables.iter().copied());
    Run::start(command).end()
}

/// The set and its tags are as they have to be after a command that ended with 0.
fn assert_before(rig: &Rig, command: &str, keep: &str) {
    rig.await_quiet();
    let snapshots = rig.snapshots();
    assert!(!snapshots.is_empty());
    for s in &snapshots {
        assert!(tag(s, "stillpoint:before").starts_with(command), "{s}");
        assert!(tag(s, "stillpoint:before-ended").starts_with("status=0 at="), "{s}");
        assert_eq!(tag(s, "stillpoint:keep-until"), keep);
    }
    assert_settled(rig);
}

#[test]
fn pgbackrest() {
    let rig = Rig::start(&[("data", Fs::Xfs), ("wal", Fs::Ext4)]);
    let cluster = Cluster::create(&rig, &rig.mount("data"), &rig.mount("wal"), "pg", "");
    rig.configure(&format!("[plan.orders]\n\n{}", cluster.section("")));
    let config = rig.path("pgbackrest.conf");
    let repository = rig.path("repository");
    std::fs::write(
        &config,
        format!(
            "[global]\nrepo1-path={}\nlog-path={}\nlock-path={}\nlog-level-file=off\narchive-check=n\n\
             [orders]\npg1-path={}\npg1-socket-path={}\npg1-user=postgres\n",
            repository.display(),
            rig.path("").display(),
            rig.path("locks").display(),
            cluster.data.display(),
            cluster.run.display(),
        ),
    )
    .unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", by_name(&rig));
    let variables = [("PGBACKREST_CONFIG", config.as_path())];
    run("pgbackrest --stanza=orders stanza-create", &path, &variables).exits(0);
    let line = documented("pgbackrest --stanza");
    run(line, &path, &variables).exits(0).says("application-consistent");
    let info = run("pgbackrest --stanza=orders --output=json info", &path, &variables);
    let info: serde_json::Value = serde_json::from_str(&info.exits(0).out).unwrap();
    let backups = info[0]["backup"].as_array().unwrap();
    assert_eq!((backups.len(), &backups[0]["error"]), (1, &false.into()), "{info}");
    assert_before(&rig, "pgbackrest --stanza=orders backup", "2027-02-28");
}

#[test]
fn a_dump_of_mariadb() {
    let rig = Rig::start(&[("data", Fs::Ext4)]);
    let data = rig.mount("data").join("mysql");
    install(&data);
    let place = Place { data, ..Place::default() };
    let server = Server::start(&rig, "db", &place);
    let mut client = server.client();
    client.run("CREATE DATABASE orders");
    client.run("CREATE TABLE orders.paid (i int) AS SELECT 41 AS i");
    rig.configure(&format!("[plan.orders]\n\n{}", server.section("")));
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", by_name(&rig));
    let dump = rig.path("all.sql");
    let line = documented("mariadb-dump").replace("/backup/all.sql", dump.to_str().unwrap());
    std::fs::write(rig.path(".my.cnf"), format!("[client]\nsocket={}\n", server.socket.display())).unwrap();
    run(&line, &path, &[("HOME", &rig.path(""))]).exits(0).says("application-consistent");
    let dumped = std::fs::read_to_string(&dump).unwrap();
    assert!(dumped.contains("INSERT INTO `paid` VALUES\n(41)") || dumped.contains("VALUES (41)"), "{dumped}");
    assert_before(&rig, "sh -c", "forever");
}

/// cron gives a job these variables and no terminal (crontab(5)).
#[test]
fn a_job_in_the_environment_of_cron() {
    let rig = Rig::start(&[("data", Fs::Ext4)]);
    rig.configure("[plan.orders]\n");
    let folder = by_name(&rig);
    let job = rig.path("bin/maintain-orders");
    let done = rig.mount("data").join("maintained");
    put_executable(&job, format!("#!/bin/sh\ntouch {}\n", done.display()));
    let line =
        documented("maintain-orders").replace("/usr/local/sbin/maintain-orders", job.to_str().unwrap());
    // Minute, hour, day, month, weekday, user.
    let words: Vec<_> = line.splitn(7, ' ').collect();
    assert_eq!(words[5], "root");
    let ended = run(words[6], &format!("{folder}:/usr/bin:/bin"), &[("LOGNAME", Path::new("root"))]);
    ended.exits(0);
    assert!(done.exists());
    assert_before(&rig, job.to_str().unwrap(), "forever");
    sh("rm", &[done.to_str().unwrap()]);
}
