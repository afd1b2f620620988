//! PostgreSQL that cannot be held, is lost while it is held, or is asked as the wrong one: refused in time,
//! with a hint, and nothing stays.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::hooks::hook;
use rig::patience::let_pass;
use rig::postgresql::{Cluster, Load, Restored, facts, folder, program, snapshot_of};
use rig::probe::{assert_clean, assert_labels, assert_settled, database_process};
use rig::program::{Ended, Run, await_some, await_within};
use rig::window::in_the_window;
use rig::{Fs, Rig};

const VOLUMES: [(&str, Fs); 2] = [("data", Fs::Xfs), ("wal", Fs::Ext4)];
/// A password that must be seen nowhere.
const SECRET: &str = "s3cr3t-of-the-test";

fn cluster(rig: &Rig, more: &str) -> Cluster {
    Cluster::create(rig, &rig.mount("data"), &rig.mount("wal"), "pg", more)
}

/// A run that is refused before anything is frozen, with these words.
fn refused(rig: &Rig, section: &str, arguments: &[&str], words: &[&str]) -> Ended {
    let before = rig.creates().len();
    rig.configure(section);
    let ended = rig.run(&[&["snapshot"], arguments].concat());
    ended.exits(20);
    for word in words {
        ended.says(word);
    }
    assert_eq!(rig.creates().len(), before);
    ended
}

/// A session ends a moment after its process. One whose process is left stays for minutes.
fn no_session(server: &Cluster) {
    await_some("no session", || server.sessions().is_empty().then_some(()));
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap())
}

#[test]
fn what_cannot_be_restored_or_is_not_allowed_is_refused_with_a_hint() {
    let rig = Rig::start(&VOLUMES);
    let mut server = cluster(&rig, "");
    let section = |more: &str| server.section(more);
    let data = rig.mount("data").to_str().unwrap().to_owned();

    // Where it is.
    refused(
        &rig,
        &section("port = 5999"),
        &[],
        &["cannot connect to PostgreSQL on", ".s.PGSQL.5999", "is it running?"],
    );
    refused(
        &rig,
        &section(""),
        &["--mount", &data],
        &[
            "the WAL directory",
            "/wal/pg_wal is not on a filesystem of the set",
            "take that filesystem into the plan",
        ],
    );
    let wal = rig.mount("wal").to_str().unwrap().to_owned();
    refused(
        &rig,
        &section(""),
        &["--mount", &wal],
        &["the data directory", "is not on a filesystem of the set"],
    );
    let space = folder(&rig.path("space"));
    server.sql(&format!("CREATE TABLESPACE outside LOCATION '{}'", space.display()));
    refused(&rig, &section(""), &[], &["the tablespace `outside`", "is not on a filesystem of the set"]);
    server.sql("DROP TABLESPACE outside");
    let file = server.data.join("postmaster.pid");
    let genuine = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, genuine.replacen(&server.pid().to_string(), "1", 1)).unwrap();
    refused(
        &rig,
        &section(""),
        &[],
        &["does not run on this host, or runs in a container", "no child of process 1"],
    );
    std::fs::write(&file, genuine).unwrap();

    // As whom.
    refused(
        &rig,
        &section("user = \"nobody_here\""),
        &[],
        &["role \"nobody_here\" does not exist", "pg_ident.conf"],
    );
    server.sql("CREATE ROLE limited LOGIN; CREATE ROLE refused LOGIN");
    refused(&rig, &section("user = \"refused\""), &[], &["pg_hba.conf rejects", "see pg_hba.conf"]);
    refused(&rig, &section("database = \"none\""), &[], &["database \"none\" does not exist"]);
    refused(&rig, &section("os_user = \"no_such\""), &[], &["there is no system user `no_such`"]);
    // A role that may log in, and nothing else, needs these and no more.
    let limited = section("user = \"limited\"");
    refused(
        &rig,
        &limited,
        &[],
        &[
            "does not let role `limited` see where its data directory",
            "GRANT pg_read_all_settings TO \"limited\"",
        ],
    );
    server.sql("GRANT pg_read_all_settings TO limited");
    let new = server.version() >= 15;
    let hint =
        if new { "GRANT pg_checkpoint TO \"limited\"" } else { "before version 15 only a superuser may" };
    refused(&rig, &limited, &[], &["does not let role `limited` run CHECKPOINT", hint]);
    let backup = section("user = \"limited\"\nmode = \"backup\"");
    for function in if new {
        ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
    } {
        let hint = format!("GRANT EXECUTE ON FUNCTION {function} TO \"limited\"");
        refused(&rig, &backup, &[], &["does not let role `limited` call", &hint]);
        server.sql(&format!("GRANT EXECUTE ON FUNCTION {function} TO limited"));
    }
    rig.configure(&backup);
    rig.run(&["snapshot"]).exits(0);
    server.sql(if new { "GRANT pg_checkpoint TO limited" } else { "ALTER ROLE limited SUPERUSER" });
    rig.configure(&limited);
    rig.run(&["snapshot"]).exits(0);
    no_session(&server);
    server.stop(Signal::SIGINT);
    let minimal =
        Cluster::start(&server.data, &server.run, &["wal_level=minimal", "max_wal_senders=0"]).unwrap();
    let words = ["has wal_level = minimal", "use mode = \"checkpoint\""];
    refused(&rig, &minimal.section("mode = \"backup\""), &[], &words);
    rig.configure(&minimal.section(""));
    rig.run(&["snapshot"]).exits(0);
    assert_labels(&rig, 6, "application");
    assert_settled(&rig);
}

/// Every file below, and every process: its arguments and environment.
fn assert_nowhere(secret: &str, below: &Path) {
    let grep = std::process::Command::new("grep").args(["-rlF", secret]).arg(below).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "a password was written down");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(process.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(secret), "{}/{file}", process.path().display());
        }
    }
}

#[test]
fn passwords_come_from_their_files_and_go_nowhere() {
    let rig = Rig::start(&VOLUMES);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = cluster(&rig, &format!("listen_addresses = '127.0.0.1'\nport = {port}"));
    server.sql(&format!("CREATE ROLE with_password LOGIN SUPERUSER PASSWORD '{SECRET}'"));
    let secrets = rig.path("secrets");
    let (passfile, services) = (secrets.join("pgpass"), secrets.join("services"));
    std::fs::create_dir(&secrets).unwrap();
    let write = |text: &str, mode: u32| {
        std::fs::write(&passfile, text).unwrap();
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let by_socket = server.section("user = \"with_password\"");
    let by_file = format!("{by_socket}passfile = \"{}\"\n", passfile.display());
    refused(&rig, &by_socket, &[], &["as role `with_password`", "put it into ~/.pgpass"]);
    refused(&rig, &by_file, &[], &["the password file", "is not there"]);
    let line = format!("{}:{port}:postgres:with_password:{SECRET}\n", server.run.display());
    write(&line, 0o640);
    refused(&rig, &by_file, &[], &["has group or world access (mode 0640)", "chmod 0600"]);
    write(&line.replace(SECRET, &format!("{SECRET}-wrong")), 0o600);
    let wrong =
        refused(&rig, &by_file, &[], &["password authentication failed", "28P01", "correct its line"]);
    assert!(!wrong.err.contains(SECRET), "{}", wrong.err);

    // root's file, which the system user cannot read.
    write(&line, 0o600);
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o700)).unwrap();
    rig.configure(&by_file);
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert_nowhere(SECRET, &rig.path("run"));
    let ended = run.end();
    ended.exits(0);
    assert!(!ended.err.contains(SECRET) && !ended.out.contains(SECRET), "{}{}", ended.err, ended.out);

    // A service on TCP, whose password file is its own.
    write(&format!("*:*:*:with_password:{SECRET}\n"), 0o600);
    std::fs::write(
        &services,
        format!("[ours]\nhost=127.0.0.1\nport={port}\nuser=with_password\ndbname=postgres\n[tls]\nhost=127.0.0.1\nsslmode=require\n"),
    )
    .unwrap();
    let service = |name: &str| {
        format!(
            "[[postgresql]]\nservice = \"{name}\"\nservice_file = \"{}\"\npassfile = \"{}\"\n",
            services.display(),
            passfile.display()
        )
    };
    rig.configure(&service("ours"));
    rig.run(&["snapshot"]).exits(0);
    for (name, words) in [("none", "there is no service `none` in"), ("tls", "asks for sslmode=require")] {
        rig.configure(&service(name));
        rig.run(&["snapshot"]).exits(20).says(words);
    }
    std::fs::remove_dir_all(&secrets).unwrap();
    assert_nowhere(SECRET, &rig.path("run"));
    assert_nowhere(SECRET, &rig.path("state"));
    assert!(!server.log().contains(&format!("{SECRET}-wrong")));
    assert_settled(&rig);
}

/// Where every libpq looks: the home of the system user, which here is a folder of the test's, mounted over
/// the real one in the view alone.
#[test]
fn the_system_users_own_files_are_looked_at() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    server.sql(&format!("CREATE ROLE with_password LOGIN SUPERUSER PASSWORD '{SECRET}'"));
    let home = folder(&rig.path("home"));
    let write = |name: &str, text: &str, mode: u32| {
        let file = home.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        rig::sh("chown", &["postgres:", file.to_str().unwrap()]);
    };
    let run = || {
        let script = "mount --bind \"$0\" \"$(getent passwd postgres | cut -d: -f6)\" && exec \"$@\"";
        let command = rig.view("sh", &["-c", script, home.to_str().unwrap(), rig::stillpoint()]);
        Run::start(rig.tail(command, &["snapshot"])).end()
    };
    rig.configure("[[postgresql]]\nservice = \"mine\"\n");
    run().exits(20).says("there is no service `mine` in").says(".pg_service.conf");
    write(".pg_service.conf", &format!("[mine]\nhost={}\nuser=with_password\n", server.run.display()), 0o644);
    run().exits(20).says("it asks for a password");
    let line = format!("{}:5432:postgres:with_password:{SECRET}\n", server.run.display());
    write(".pgpass", &line, 0o604);
    run().exits(20).says("has group or world access (mode 0604)");
    write(".pgpass", &line, 0o600);
    run().exits(0);
    // The system user may not read what only root may, whatever its own files name.
    let of_root = rig.path("of-root");
    std::fs::write(&of_root, &line).unwrap();
    std::fs::set_permissions(&of_root, std::fs::Permissions::from_mode(0o600)).unwrap();
    let named = format!(
        "[mine]\nhost={}\nuser=with_password\npassfile={}\n",
        server.run.display(),
        of_root.display()
    );
    write(".pg_service.conf", &named, 0o644);
    run().exits(20).says("cannot read the password file");
    assert_settled(&rig);
}

#[test]
fn a_standby_is_held_when_that_is_allowed() {
    let rig = Rig::start(&VOLUMES);
    let mut primary = cluster(&rig, "");
    Load::prepare(&primary);
    primary.stop(Signal::SIGINT);
    let (data, copy) = (&primary.data, rig.mount("data").join("standby"));
    let (data_text, copy_text) = (data.to_str().unwrap(), copy.to_str().unwrap());
    rig::sh("cp", &["-a", data_text, copy_text]);
    rig::sh("cp", &["-a", rig.mount("wal").join("pg_wal").to_str().unwrap(), &format!("{copy_text}/wal")]);
    rig::sh("ln", &["-sfn", &format!("{copy_text}/wal"), &format!("{copy_text}/pg_wal")]);
    rig::sh("touch", &[&format!("{copy_text}/standby.signal")]);
    let primary = Cluster::start(data, &primary.run, &[]).unwrap();
    let from = format!("primary_conninfo=host={} user=postgres", primary.run.display());
    let standby = Cluster::start(&copy, &rig.path("standby-run"), &[&from]).unwrap();

    refused(&rig, &standby.section(""), &[], &["is a standby", "allow_standby = true"]);
    let load = Load::start(&primary);
    let mut records = Vec::new();
    for mode in ["checkpoint", "backup"] {
        let_pass("transfers", Duration::from_millis(300));
        rig.configure(&standby.section(&format!("allow_standby = true\nmode = \"{mode}\"")));
        records.push(rig.run(&["snapshot", "-o", "json"]).exits(0).record());
    }
    let seen = load.stop();
    for record in &records {
        assert_eq!(record["achieved"], "application", "{record:#}");
        let facts = facts(record);
        assert_eq!((facts["role"].as_str(), facts["timeline"].as_str()), ("standby", "1"));
        assert!(!facts["lsn"].is_empty() && !facts["lsn_after"].is_empty(), "{facts:#?}");
    }
    assert!(facts(&records[1])["backup_label"].contains("BACKUP FROM: standby"), "{:#?}", facts(&records[1]));
    // Promoted between the thaw and its own release, by what is held after it.
    let promote = format!(
        "exec runuser -u postgres -- {} promote -w -D {}",
        program("pg_ctl").display(),
        copy.display()
    );
    let promoting = hook("promoter", "true", &promote, "");
    rig.configure(&format!("{}{promoting}", standby.section("allow_standby = true")));
    let lowered = rig.run(&["snapshot", "-o", "json"]);
    let record = lowered.exits(22).record();
    lowered.says("was not quiesced all the time: it was promoted");
    assert_eq!(record["achieved"], "filesystem", "{record:#}");

    // What was replayed is whole; how far that was, a standby does not promise.
    let of = |volume| snapshot_of(&rig, &records[1], volume);
    let volumes = Restored::mount_folder(&rig, "restored", &of("data"), &of("wal"), "standby");
    std::fs::remove_file(volumes.data.join("standby.signal")).unwrap();
    let restored = volumes.start(&[]).unwrap_or_else(|log| panic!("{log}"));
    seen.assert_restored(&restored, 0, i128::MAX);
    assert_settled(&rig);
}

/// The server ends the session while everything is frozen.
fn lost(mode: &str) {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    rig.configure(&server.section(&format!("mode = \"{mode}\"")));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let sessions = server.sessions();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    // By hand, as the kernel would: asking the server would be another session on frozen volumes.
    kill(pid(&sessions[0]), Signal::SIGTERM).unwrap();
    let ended = run.end();
    let record = ended.exits(22).record();
    ended.says("was not quiesced all the time: it has closed the connection");
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert!(
        record["reason"].as_str().unwrap().contains("was not quiesced all the time"),
        "{}",
        record["reason"]
    );
    assert_labels(&rig, 2, "filesystem");
    no_session(&server);
    assert_eq!(server.log().contains("aborting backup"), mode == "backup", "{}", server.log());
    assert_settled(&rig);
}

#[test]
fn a_session_that_the_server_ends_is_no_hold() {
    lost("checkpoint");
}

#[test]
fn a_backup_whose_session_ends_is_none() {
    lost("backup");
}

#[test]
fn a_checkpoint_that_does_not_end_is_given_up_in_time() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let checkpointer = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    for mode in ["checkpoint", "backup"] {
        kill(pid(&checkpointer), Signal::SIGSTOP).unwrap();
        let section = server.section(&format!("mode = \"{mode}\"")).replace("20s", "5s");
        let ended =
            refused(&rig, &section, &[], &["within", "it waited for the checkpointer", "longer `timeout`"]);
        kill(pid(&checkpointer), Signal::SIGCONT).unwrap();
        // Else it is stopped in the middle, with locks that nobody else waits for with a limit.
        server.sql("CHECKPOINT");
        println!("{mode}: given up after {:?}: {}", ended.took, ended.err);
        assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
        assert_eq!(server.sessions(), Vec::<String>::new());
    }
    let ended = rig.run(&["snapshot"]);
    ended.exits(0);
    assert_settled(&rig);
}

/// Killed in the middle of it, with the agent or alone, while the server can do nothing but wait.
#[test]
fn what_is_killed_while_the_checkpoint_runs_leaves_no_session() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let checkpointer = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    rig.configure(&server.section("mode = \"backup\""));
    for agent_too in [false, true] {
        kill(pid(&checkpointer), Signal::SIGSTOP).unwrap();
        let run = rig.spawn(&["snapshot"]);
        await_some("the backup's start", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stillpoint%' AND \
                         query LIKE '%backup%' AND pid <> pg_backend_pid() AND wait_event LIKE 'Checkpoint%'";
            (server.value(waits) == "1").then_some(())
        });
        let holder = holder(&rig);
        if agent_too {
            run.signal(Signal::SIGKILL);
        }
        kill(holder, Signal::SIGKILL).unwrap();
        if agent_too {
            assert_eq!(run.end().signal, Some(9));
            // Nobody is left to end it: the server looks every second whether somebody still listens.
            await_some("the end of its session", || server.sessions().is_empty().then_some(()));
        } else {
            run.end().exits(20).says("SIGKILL");
            assert_eq!(server.sessions(), Vec::<String>::new(), "it was not ended");
        }
        kill(pid(&checkpointer), Signal::SIGCONT).unwrap();
    }
    rig.run(&["snapshot"]).exits(0);
    assert_settled(&rig);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    kill(server.pid(), Signal::SIGSTOP).unwrap();
    let section = server.section("").replace("20s", "1s");
    let ended = refused(&rig, &section, &[], &["PostgreSQL on", "did not answer within 750ms"]);
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);

    // While it is asked, a signal ends the run as it would anywhere else.
    rig.configure(&server.section("").replace("20s", "60s"));
    for (command, signal) in [("snapshot", Signal::SIGTERM), ("rehearse", Signal::SIGINT)] {
        let run = rig.spawn(&[command]);
        await_some("the question", || database_process(&run));
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.signal, Some(signal as i32), "{}", ended.err);
        ended.says(&format!("interrupted by {signal}, before anything was touched"));
    }
    assert_eq!(rig.creates().len(), 0);
    kill(server.pid(), Signal::SIGCONT).unwrap();
    assert_settled(&rig);
}

/// The process that holds is stopped, and does not go on: the server ends the session by itself.
#[test]
fn a_holder_that_is_stopped_loses_its_session() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    let kind = format!(
        r#""type":"postgresql","mode":"backup","host":"{}","allow_standby":false"#,
        server.run.display()
    );
    let mounts: Vec<_> = rig.mounts().iter().map(|m| set_mount(m)).collect();
    let order = format!(
        r#"{{"version":"{}","task":"quiesce","name":"pg","run":"0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11","kind":{{{kind}}},"set":[{}],"timeout":"20s","quiesce_limit":"1s"}}"#,
        env!("CARGO_PKG_VERSION"),
        mounts.join(",")
    );
    let mut child = std::process::Command::new(rig::stillpoint_databases())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{order}\n").as_bytes()).unwrap();
    await_some("the hold", || {
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stillpoint%' \
                    AND state = 'idle' AND query LIKE '%redo_lsn%'";
        (server.value(idle) == "1").then_some(())
    });
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGSTOP).unwrap();
    // The server waits for half a minute.
    await_within("the end of its session", Duration::from_secs(90), || {
        server.sessions().is_empty().then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(server.log().contains("idle-session timeout"), "{}", server.log());
}

/// As the agent tells it.
fn set_mount(mount: &Path) -> String {
    let dev = rig::sh("findmnt", &["-no", "MAJ:MIN", mount.to_str().unwrap()]);
    format!(r#"{{"mount_point":"{}","dev":"{}"}}"#, mount.display(), dev.trim())
}

/// The process that holds, by the session that it has.
fn holder(rig: &Rig) -> Pid {
    let run = rig.path("run");
    let run = run.to_str().unwrap();
    await_some("the process that holds", || {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().to_owned();
            let of_parent = std::fs::read(format!("/proc/{parent}/cmdline")).ok()?;
            let ours = arguments.starts_with(rig::stillpoint_databases().as_bytes())
                && String::from_utf8_lossy(&of_parent).contains(run);
            ours.then(|| pid(&entry.file_name().to_string_lossy()))
        })
    })
}

#[test]
fn a_killed_agent_leaves_no_session_and_no_backup() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    Load::prepare(&server);
    let load = Load::start(&server);
    rig.configure(&server.section("mode = \"backup\""));
    let run = in_the_window(&rig, &["snapshot"]);
    let held = server.sessions();
    assert_eq!(held.len(), 1, "{held:?}");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().signal, Some(9));
    await_some("the end of its session", || server.sessions().is_empty().then_some(()));
    await_some("transfers that go on", || {
        let count = || server.value("SELECT count(*) FROM history").parse::<u64>().unwrap();
        let before = count();
        let_pass("transfers", Duration::from_millis(100));
        (count() > before).then_some(())
    });
    load.stop();
    assert_clean(&rig);
    // What became of the request is asked at the next start.
    rig.await_quiet();
    rig.run(&["snapshot"]).exits(0);
    no_session(&server);
    assert_settled(&rig);
}

#[test]
fn a_killed_holder_is_no_hold_and_leaves_no_backup() {
    let rig = Rig::start(&VOLUMES);
    let server = cluster(&rig, "");
    rig.configure(&server.section("mode = \"backup\""));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    kill(holder(&rig), Signal::SIGKILL).unwrap();
    let record = run.end().exits(22).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    assert_eq!(server.sessions(), Vec::<String>::new());
    assert!(server.log().contains("aborting backup"), "{}", server.log());
    assert_settled(&rig);
}
