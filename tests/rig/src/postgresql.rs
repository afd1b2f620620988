//! Debian's PostgreSQL on a test's own volumes, a load whose invariants can be checked, and what a set
//! restores to.

mod load;
mod restored;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::program::wait;
use crate::{Rig, patience, sh, template};
pub use load::{Load, Seen};
pub use restored::{Restored, restored};

/// The system user and the role.
pub const POSTGRES: &str = "postgres";
/// Small, so that it fits the volumes and checkpoints are frequent.
const SETTINGS: &str = "listen_addresses = ''\nshared_buffers = 16MB\nmax_connections = 30\nmax_wal_size = 16MB\n\
                        min_wal_size = 4MB\nlc_messages = 'C'\nlog_checkpoints = on\nwal_level = replica\n\
                        password_encryption = 'scram-sha-256'\njit = off\n";
/// root is the test, postgres is stillpoint.
const HBA: &str = "local replication postgres peer map=test\nlocal all postgres peer map=test\n\
                   local all with_password scram-sha-256\nlocal all refused reject\nlocal all all trust\n\
                   host all with_password 127.0.0.1/32 scram-sha-256\n";
const IDENT: &str = "test root postgres\ntest postgres postgres\n";

/// A program of the server's package: the newest there is, or of the version whose programs are in
/// `STILLPOINT_POSTGRESQL`.
pub fn program(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = match std::env::var_os("STILLPOINT_POSTGRESQL") {
        Some(folder) => vec![folder.into()],
        None => std::fs::read_dir("/usr/lib/postgresql")
            .expect("this test needs Debian's package postgresql")
            .map(|e| e.unwrap().path().join("bin"))
            .collect(),
    };
    folders.sort();
    folders.pop().unwrap().join(name)
}

/// A command of the system user, which ends with this thread.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=QUIT"]).arg(program);
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A folder that the system user owns.
pub fn folder(path: &Path) -> PathBuf {
    std::fs::create_dir_all(path).unwrap();
    sh("chown", &["postgres:", path.to_str().unwrap()]);
    path.to_owned()
}

/// A running server.
pub struct Cluster {
    /// Where its socket and its log are.
    pub run: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    pub port: u16,
    child: Child,
}

impl Cluster {
    /// A new one: data below `data`, WAL below `wal`, socket and log in the rig's folder `run`.
    pub fn create(rig: &Rig, data: &Path, wal: &Path, run: &str, more: &str) -> Self {
        // The system user has to get through it.
        sh("chmod", &["755", rig.path("").to_str().unwrap()]);
        let (data, wal) = (data.join("pgdata"), wal.join("pg_wal"));
        for parent in [data.parent(), wal.parent()].into_iter().flatten() {
            folder(parent);
        }
        initialized(&data);
        // As --waldir of initdb does.
        sh("mv", &[data.join("pg_wal").to_str().unwrap(), wal.to_str().unwrap()]);
        std::os::unix::fs::symlink(&wal, data.join("pg_wal")).unwrap();
        append(&data.join("postgresql.conf"), &format!("{SETTINGS}{more}\n"));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        std::fs::write(data.join("pg_ident.conf"), IDENT).unwrap();
        // What is not on the disk yet would be missing from a snapshot that is taken without a freeze, and
        // say nothing.
        for path in [&data, &wal] {
            sh("sync", &["-f", path.to_str().unwrap()]);
        }
        Self::start(&data, &rig.path(run), &[]).unwrap_or_else(|log| panic!("{log}"))
    }

    /// Starts it on what is there; its log when it does not come up.
    pub fn start(data: &Path, run: &Path, options: &[&str]) -> Result<Self, String> {
        folder(run);
        let file = run.join("log");
        let log = File::options().create(true).append(true).open(&file).unwrap();
        let mut command = as_postgres(&program("postgres"));
        command.arg("-D").arg(data).arg("-k").arg(run);
        for option in options {
            command.args(["-c", option]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let settings = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
        let port = settings.lines().find_map(|l| l.strip_prefix("port = ")?.trim().parse().ok());
        let (run, data, port) = (run.to_owned(), data.to_owned(), port.unwrap_or(5432));
        let mut cluster = Self { run, data, port, child: command.spawn().unwrap() };
        let end = Instant::now() + patience::SERVER;
        loop {
            if cluster.child.try_wait().unwrap().is_some() || Instant::now() > end {
                return Err(std::fs::read_to_string(&file).unwrap());
            }
            if cluster.try_sql("SELECT 1").is_ok() {
                return Ok(cluster);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A section for it.
    pub fn section(&self, more: &str) -> String {
        let port = if self.port == 5432 { String::new() } else { format!("port = {}\n", self.port) };
        format!("[[postgresql]]\nhost = \"{}\"\n{port}timeout = \"20s\"\n{more}\n", self.run.display())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run.join("log")).unwrap()
    }

    /// Rows, columns as text.
    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// One value.
    pub fn value(&self, sql: &str) -> String {
        self.sql(sql).remove(0).remove(0)
    }

    fn try_sql(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        runtime().block_on(async {
            let client = connect(&self.run, self.port).await?;
            let messages = client.simple_query(sql).await.map_err(|e| format!("{e:?}"))?;
            let rows = messages.into_iter().filter_map(|m| match m {
                SimpleQueryMessage::Row(r) => {
                    Some((0..r.len()).map(|i| r.get(i).unwrap_or_default().to_owned()).collect())
                }
                _ => None,
            });
            Ok(rows.collect())
        })
    }

    /// Its major version.
    pub fn version(&self) -> u32 {
        self.value("SHOW server_version_num").parse::<u32>().unwrap() / 10_000
    }

    /// The postmaster.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sessions of stillpoint, as the server sees them.
    pub fn sessions(&self) -> Vec<String> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'stillpoint%'";
        self.sql(sql).into_iter().map(|mut row| row.remove(0)).collect()
    }

    /// SIGINT ends it at once and properly, SIGQUIT as a crash does.
    pub fn stop(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_none() {
            kill(self.pid(), signal).unwrap();
            if wait(&mut self.child, Duration::from_secs(15)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
    }
}

/// What initdb makes, in this folder.
fn initialized(data: &Path) {
    let initdb = program("initdb");
    let options =
        ["-k", "--no-sync", "--wal-segsize=1", "--auth=trust", "--locale=C", "--encoding=UTF8", "-D"];
    let version = sh(initdb.to_str().unwrap(), &["--version"]);
    template::copy("postgresql", &format!("{version}{options:?}"), data, |data| {
        let output = as_postgres(&initdb).args(options).arg(data).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    });
}

fn append(file: &Path, text: &str) {
    use std::io::Write as _;
    File::options().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(run: &Path, port: u16) -> Result<Client, String> {
    let mut config = Config::new();
    config.host_path(run).port(port).user(POSTGRES).dbname(POSTGRES);
    let (client, connection) = config.connect(NoTls).await.map_err(|e| format!("{e:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// The snapshot of a volume in a record.
pub fn snapshot_of(rig: &Rig, record: &Value, volume: &str) -> String {
    let id = rig.id(volume);
    let all = record["snapshots"].as_array().unwrap();
    let found = all.iter().find(|s| s["volume_id"] == id.as_str()).unwrap_or_else(|| panic!("{record:#}"));
    found["id"].as_str().unwrap().to_owned()
}

/// What the section said of the set.
pub fn facts(record: &Value) -> BTreeMap<String, String> {
    let all = record["applications"].as_array().unwrap();
    let ours = all.iter().find(|a| a["type"] == "postgresql").unwrap_or_else(|| panic!("{record:#}"));
    let facts = ours["facts"].as_object().unwrap();
    facts.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
}

/// A position in the WAL as a number.
pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    let hex = |t| u64::from_str_radix(t, 16).unwrap();
    hex(high) << 32 | hex(low)
}
