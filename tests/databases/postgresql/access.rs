//! As whom the server is asked, and where its files are: what is not allowed or could not be restored is
//! refused with a hint, and a password goes nowhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use rig::Rig;
use rig::postgresql::{Cluster, folder};
use rig::probe::{assert_labels, assert_settled};
use rig::program::Run;
use rig::window::in_the_window;

use super::{VOLUMES, cluster, no_session, refused};

/// A password that must be seen nowhere.
const SECRET: &str = "s3cr3t-of-the-test";

#[test]
fn what_cannot_be_restored_or_is_not_allowed_is_refused_with_a_hint() {
    let rig = Rig::start(&VOLUMES);
    let mut server = cluster(&rig, "");
    let section = |more: &str| server.section(more);
    let data = rig.mount("data").to_str().unwrap().to_owned();

    // Where the server and its files are.
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
    // For temporary tables alone, it need not be in the set: recovery removes them.
    server.sql("ALTER SYSTEM SET temp_tablespaces = outside");
    server.sql("SELECT pg_reload_conf()");
    server.sql("CREATE TEMP TABLE gone AS SELECT generate_series(1, 1000)");
    rig.configure(&section(""));
    rig.run(&["rehearse"]).exits(0).says("it has temporary files alone");
    server.sql("CREATE TABLE stays (n int) TABLESPACE outside");
    refused(&rig, &section(""), &[], &["the tablespace `outside`", "is not on a filesystem of the set"]);
    server.sql("DROP TABLE stays");
    server.sql("CHECKPOINT");
    server.sql("ALTER SYSTEM RESET temp_tablespaces");
    server.sql("SELECT pg_reload_conf()");
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

    // As whom it is asked.
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

/// Looks into every file below this folder, and into the arguments and environment of every process.
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

    // The password file belongs to root, and the system user could not read it.
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

/// libpq looks into the home of the system user. Here that is a folder of the test, mounted over the real one
/// in the view alone.
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
    // The system user's own service file names a password file of root's: that must not be read for it.
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
