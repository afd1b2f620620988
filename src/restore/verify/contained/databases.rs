//! Databases of a restored set: started, or looked at, and checked by their own programs.
//!
//! ```text
//! PostgreSQL       a server on the data directory, recovered as after a crash; pg_amcheck of every database
//! MariaDB, MySQL   the same; CHECK TABLE of every table
//! Redis            redis-check-rdb and redis-check-aof of its files
//! ```
//!
//! A data directory can name commands and libraries that its server would run. So none of its configuration is read:
//! what a server needs is written for it, and replication, archiving, events and plugins are off.
//!
//! In: a data directory, in process 1 of the namespaces, as its owner. Out: the exit code. Must never: run as root, reach
//! a network, or read a configuration from what was restored.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::SCRATCH;
use crate::config::settings::CheckedDatabase;
use crate::quiesce::{PATH, query};

/// Between two looks whether a server answers.
const PAUSE: Duration = Duration::from_millis(200);
/// The exit code of a check that found something.
const FAULT: u8 = 1;
/// Lines of a server's log that are shown where it does not start.
const LINES: usize = 10;

/// Checks it.
///
/// # Errors
/// Why it could not be looked at.
pub(super) fn check(database: CheckedDatabase, data: &Path) -> Result<ExitCode, String> {
    match database {
        CheckedDatabase::Postgresql => postgresql(data),
        CheckedDatabase::Mysql => mysql(data),
        CheckedDatabase::Redis => redis(data),
    }
}

/// Are its programs here? Which version of PostgreSQL is needed, only the data says.
///
/// # Errors
/// What to install.
pub(crate) fn installed(database: CheckedDatabase) -> Result<(), String> {
    match database {
        CheckedDatabase::Postgresql => {
            let versions = |folder: &str| {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                entries.map(|e| e.path().join("bin/pg_ctl")).any(|p| p.exists())
            };
            let here = versions("/usr/lib/postgresql")
                || std::fs::read_dir("/usr").into_iter().flatten().flatten().any(|e| {
                    e.file_name().to_string_lossy().starts_with("pgsql-")
                        && e.path().join("bin/pg_ctl").exists()
                });
            if here {
                Ok(())
            } else {
                program(&["pg_ctl"]).map(drop).map_err(|e| format!("{e}: install PostgreSQL"))
            }
        }
        CheckedDatabase::Mysql => {
            let install = |e| format!("{e}: install the server and its client");
            program(&SERVERS).and(program(&ADMINS)).and(program(&CHECKS)).map(drop).map_err(install)
        }
        CheckedDatabase::Redis => {
            let both = program(&["redis-check-rdb"]).and(program(&["redis-check-aof"]));
            both.map(drop).map_err(|e| format!("{e}: install redis-tools"))
        }
    }
}

const SERVERS: [&str; 2] = ["mariadbd", "mysqld"];
const ADMINS: [&str; 2] = ["mariadb-admin", "mysqladmin"];
const CHECKS: [&str; 2] = ["mariadb-check", "mysqlcheck"];

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([
        ("PATH", PATH),
        ("LC_ALL", "C.UTF-8"),
        ("HOME", SCRATCH),
        ("TMPDIR", SCRATCH),
        ("PGCONNECT_TIMEOUT", "60"),
    ]);
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn scratch(name: &str) -> PathBuf {
    Path::new(SCRATCH).join(name)
}

fn put(name: &str, text: &str) -> Result<PathBuf, String> {
    let path = scratch(name);
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// The end of a server's log.
fn show_log(path: &Path) {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).for_each(|l| say(l));
}

/// The first of these that is there.
fn program(names: &[&str]) -> Result<PathBuf, String> {
    let mut said = Err("no program".to_owned());
    for name in names {
        said = query::program(name);
        if said.is_ok() {
            break;
        }
    }
    said
}

/// What a data directory must not bring along: settings of its own, and what makes it a replica.
const NOT_OF_POSTGRESQL: [&str; 6] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf",
    "recovery.conf",
    "recovery.signal",
    "standby.signal",
];

fn postgresql(data: &Path) -> Result<ExitCode, String> {
    let version = short(&data.join("PG_VERSION"))?;
    if !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') || version.is_empty() {
        return Err(format!("{} is no data directory of PostgreSQL", data.display()));
    }
    let folders = [
        format!("/usr/lib/postgresql/{version}/bin"),
        format!("/usr/pgsql-{version}/bin"),
        "/usr/bin".into(),
    ];
    let folder =
        folders.iter().map(Path::new).find(|f| f.join("postgres").exists() && f.join("pg_ctl").exists());
    let folder = folder.ok_or_else(|| format!("PostgreSQL {version} is not installed here"))?;
    for name in NOT_OF_POSTGRESQL {
        match std::fs::remove_file(data.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{name}: {e}")),
            _ => {}
        }
    }
    let (hba, ident) = (put("pg_hba.conf", "local all all trust\n")?, put("pg_ident.conf", "")?);
    let settings = format!(
        "listen_addresses = ''\nunix_socket_directories = '{SCRATCH}'\nport = 5432\n\
         hba_file = '{}'\nident_file = '{}'\nssl = off\nlogging_collector = off\nautovacuum = off\n\
         dynamic_shared_memory_type = mmap\nmax_worker_processes = 8\n",
        hba.display(),
        ident.display()
    );
    let settings = put("postgresql.conf", &settings)?;
    let log = scratch("log");
    let started = command(&folder.join("pg_ctl"))
        .args(["-w", "-t", "86400", "-s", "-D"])
        .arg(data)
        .arg("-l")
        .arg(&log)
        .args(["-o", &format!("-c config_file={}", settings.display()), "start"])
        .status()
        .map_err(|e| format!("pg_ctl: {e}"))?;
    if !started.success() {
        show_log(&log);
        say("PostgreSQL does not start on it");
        return Ok(ExitCode::from(FAULT));
    }
    let login = ["-h", SCRATCH, "-U", "postgres"];
    let amcheck = folder.join("pg_amcheck");
    let (name, checked) = if amcheck.exists() {
        let mut check = command(&amcheck);
        check
            .args(login)
            .args(["--all", "--install-missing"])
            .env("PGOPTIONS", "-c client_min_messages=warning");
        ("pg_amcheck", check.status())
    } else {
        // Before PostgreSQL 14: every row is read.
        let mut dump = command(&folder.join("pg_dumpall"));
        ("pg_dumpall", dump.args(login).args(["-f", "/dev/null"]).status())
    };
    let checked = checked.map_err(|e| format!("{name}: {e}"))?;
    if checked.success() {
        return Ok(ExitCode::SUCCESS);
    }
    show_log(&log);
    say(&format!("{name} finds errors ({checked})"));
    Ok(ExitCode::from(FAULT))
}

/// A file of one short line.
fn short(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.take(16).read_to_string(&mut text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn mysql(data: &Path) -> Result<ExitCode, String> {
    let server = program(&SERVERS)?;
    let admin = program(&ADMINS)?;
    let check = program(&CHECKS)?;
    if !data.join("mysql").is_dir() {
        return Err(format!("{} is no data directory of MariaDB or MySQL", data.display()));
    }
    let (socket, log) = (scratch("sock"), scratch("log"));
    let output = std::fs::File::create(&log).map_err(|e| e.to_string())?;
    let errors = output.try_clone().map_err(|e| e.to_string())?;
    let of = |name: &str, value: &Path| format!("--{name}={}", value.display());
    let mut running = command(&server)
        .arg("--no-defaults")
        .args([
            of("datadir", data),
            of("socket", &socket),
            of("pid-file", &scratch("pid")),
            of("tmpdir", Path::new(SCRATCH)),
        ])
        // Without grants, neither plugins of its tables nor its events are loaded.
        .args([
            "--skip-networking",
            "--skip-grant-tables",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=128M",
        ])
        .args([
            "--loose-skip-slave-start",
            "--loose-event-scheduler=OFF",
            "--loose-persisted-globals-load=OFF",
        ])
        .args(["--loose-mysqlx=OFF", "--loose-innodb-use-native-aio=0"])
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("{}: {e}", server.display()))?;
    let login = of("socket", &socket);
    loop {
        if let Ok(Some(ended)) = running.try_wait() {
            show_log(&log);
            say(&format!("the server does not start on it ({ended})"));
            return Ok(ExitCode::from(FAULT));
        }
        let mut ping = command(&admin);
        ping.args(["--no-defaults", &login, "ping"]).stdout(Stdio::null()).stderr(Stdio::null());
        if ping.status().is_ok_and(|s| s.success()) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    let said = command(&check)
        .args(["--no-defaults", &login, "--all-databases", "--check", "--silent"])
        .output()
        .map_err(|e| format!("{}: {e}", check.display()))?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().for_each(say);
    // Its exit code is 0 also where a table is corrupt.
    let bad = text.lines().any(|l| l.trim_start().to_ascii_lowercase().starts_with("error"));
    let died = matches!(running.try_wait(), Ok(Some(_)));
    if said.status.success() && !bad && !died {
        return Ok(ExitCode::SUCCESS);
    }
    if died {
        show_log(&log);
    }
    say("CHECK TABLE finds errors");
    Ok(ExitCode::from(FAULT))
}

fn redis(data: &Path) -> Result<ExitCode, String> {
    let (mut found, mut bad) = (0, 0);
    for folder in [data.to_owned(), data.join("appendonlydir")] {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_file()).collect();
        files.sort();
        for file in files {
            let kind = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
            // The files of a manifest are checked by it.
            let tool = match kind {
                "rdb" if folder == data => "redis-check-rdb",
                "manifest" => "redis-check-aof",
                "aof" if folder == data => "redis-check-aof",
                _ => continue,
            };
            let tool = program(&[tool])?;
            let checked =
                command(&tool).arg(&file).status().map_err(|e| format!("{}: {e}", tool.display()))?;
            found += 1;
            if !checked.success() {
                say(&format!("{} is not whole ({checked})", file.display()));
                bad += 1;
            }
        }
    }
    match (found, bad) {
        (0, _) => {
            Err(format!("{} has no file of Redis: neither *.rdb nor an append-only file", data.display()))
        }
        (_, 0) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(FAULT)),
    }
}
