//! Debian's PostgreSQL on a test's own volumes, a load whose invariants can be checked, and what a set restores to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::program::wait;
use super::rig::{Rig, ebs_sim, sh};

/// The system user and the role.
pub const POSTGRES: &str = "postgres";
const READY: Duration = Duration::from_secs(40);
/// Small, so that it fits the volumes and checkpoints are frequent.
const SETTINGS: &str = "listen_addresses = ''\nshared_buffers = 16MB\nmax_connections = 30\nmax_wal_size = 16MB\n\
                        min_wal_size = 4MB\nlc_messages = 'C'\nlog_checkpoints = on\nwal_level = replica\n";
/// root is the test, postgres is stillpoint.
const HBA: &str = "local replication postgres peer map=test\nlocal all postgres peer map=test\n\
                   local all with_password scram-sha-256\nlocal all refused reject\nlocal all all trust\n\
                   host all with_password 127.0.0.1/32 scram-sha-256\n";
const IDENT: &str = "test root postgres\ntest postgres postgres\n";

/// A program of the server's package.
pub fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("this test needs Debian's package postgresql")
        .map(|e| e.unwrap().path().join("bin").join(name))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no {name} in /usr/lib/postgresql"))
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
        let output = as_postgres(&program("initdb"))
            .args([
                "-k",
                "--no-sync",
                "--wal-segsize=1",
                "--auth=trust",
                "--locale=C",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(&data)
            .arg("--waldir")
            .arg(&wal)
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        append(&data.join("postgresql.conf"), &format!("{SETTINGS}{more}\n"));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        std::fs::write(data.join("pg_ident.conf"), IDENT).unwrap();
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
        let mut cluster =
            Self { run: run.to_owned(), data: data.to_owned(), child: command.spawn().unwrap() };
        let end = Instant::now() + READY;
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
        format!("[[postgresql]]\nhost = \"{}\"\ntimeout = \"20s\"\n{more}\n", self.run.display())
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
            let client = connect(&self.run).await?;
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

fn append(file: &Path, text: &str) {
    use std::io::Write as _;
    File::options().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(run: &Path) -> Result<Client, String> {
    let mut config = Config::new();
    config.host_path(run).user(POSTGRES).dbname(POSTGRES);
    let (client, connection) = config.connect(NoTls).await.map_err(|e| format!("{e:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Accounts of the load, and what each has at first.
pub const ACCOUNTS: i64 = 200;
pub const BALANCE: i64 = 1000;
const CLIENTS: usize = 3;

/// A transfer of a client, as it saw it.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Its number, from 1.
    pub number: i64,
    /// Before it was asked for, Unix nanoseconds.
    pub begun: i128,
    /// When its commit was acknowledged.
    pub acknowledged: i128,
}

/// Clients that transfer between accounts and note it in a table, without end.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Transfer>>>,
}

/// What the clients saw.
pub struct Seen {
    /// By client.
    pub transfers: BTreeMap<usize, Vec<Transfer>>,
}

impl Load {
    /// Makes the tables.
    pub fn prepare(cluster: &Cluster) {
        cluster.sql(&format!(
            "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL); \
             INSERT INTO account SELECT i, {BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) i; \
             CREATE TABLE history (client int, number bigint, source int, target int, amount int, filler text, \
             PRIMARY KEY (client, number)); CREATE INDEX ON history (source, target)"
        ));
    }

    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let (stop, run) = (Arc::clone(&stop), cluster.run.clone());
            std::thread::spawn(move || runtime().block_on(transfers(client, &run, &stop)))
        });
        Self { clients: clients.collect(), stop }
    }

    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        Seen { transfers: clients.into_iter().map(|c| c.join().unwrap()).enumerate().collect() }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // never joined here: they may be blocked
    }
}

fn now() -> i128 {
    jiff::Timestamp::now().as_nanosecond()
}

async fn transfers(client: usize, run: &Path, stop: &AtomicBool) -> Vec<Transfer> {
    let session = connect(run).await.unwrap();
    let mut done = Vec::new();
    let first = session
        .query_one_scalar::<i64, str>(
            "SELECT coalesce(max(number), 0) + 1 FROM history WHERE client = $1::int",
            &[&i32::try_from(client).unwrap()],
        )
        .await
        .unwrap();
    let mut random = 0x9e37_79b9_u64.wrapping_mul(client as u64 + 1);
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = ((random >> 33) % ACCOUNTS as u64, (random >> 45) % ACCOUNTS as u64);
        // Always in the same order: no deadlocks. The amount may be negative.
        let (source, target) = (a.min(b), a.max(b));
        let amount = i64::try_from(random >> 59).unwrap() - 16;
        let begun = now();
        let sql = format!(
            "BEGIN; UPDATE account SET balance = balance - {amount} WHERE id = {source}; \
             UPDATE account SET balance = balance + {amount} WHERE id = {target}; \
             INSERT INTO history VALUES ({client}, {number}, {source}, {target}, {amount}, repeat('x', 120)); COMMIT"
        );
        if session.batch_execute(&sql).await.is_err() {
            break; // the server was ended: what is not acknowledged may or may not be there
        }
        done.push(Transfer { number, begun, acknowledged: now() });
    }
    done
}

impl Seen {
    /// The longest time that a client waited for one transfer.
    pub fn longest(&self) -> Duration {
        let took = self.transfers.values().flatten().map(|t| t.acknowledged - t.begun);
        Duration::from_nanos(u64::try_from(took.max().unwrap()).unwrap())
    }

    pub fn count(&self) -> usize {
        self.transfers.values().map(Vec::len).sum()
    }

    /// The restored database is as it was between these times: what was acknowledged before `frozen` is there, what was begun after `point`
    /// is not, and nothing is half there.
    pub fn assert_restored(&self, restored: &Cluster, frozen: i128, point: i128) {
        for (client, transfers) in &self.transfers {
            let there = |what: &str| {
                let sql = format!("SELECT coalesce({what}, 0) FROM history WHERE client = {client}");
                restored.value(&sql).parse::<i64>().unwrap()
            };
            let last = |before: &dyn Fn(&Transfer) -> bool| {
                transfers.iter().filter(|t| before(t)).map(|t| t.number).max().unwrap_or(0)
            };
            let (acknowledged, begun) =
                (last(&|t| t.acknowledged < frozen), last(&|t: &Transfer| t.begun < point));
            let (number, count) = (there("max(number)"), there("count(*)"));
            assert!(
                acknowledged <= number && number <= begun,
                "client {client}: {acknowledged} acknowledged before the freeze, {number} there, {begun} begun"
            );
            assert_eq!(number, count, "client {client}: a gap");
        }
        assert_whole(restored);
    }
}

/// Sums, every balance by the history, every page and every index.
pub fn assert_whole(restored: &Cluster) {
    let sum = restored.value("SELECT sum(balance) FROM account");
    assert_eq!(sum, (ACCOUNTS * BALANCE).to_string(), "the sum");
    let wrong = restored.value(&format!(
        "SELECT count(*) FROM account a WHERE balance <> {BALANCE} \
         - (SELECT coalesce(sum(amount), 0) FROM history WHERE source = a.id) \
         + (SELECT coalesce(sum(amount), 0) FROM history WHERE target = a.id)"
    ));
    assert_eq!(wrong, "0", "balances that are not what the history says");
    let output = as_postgres(&program("pg_amcheck"))
        .args(["--all", "--install-missing", "--heapallindexed", "-U", POSTGRES, "-h"])
        .arg(&restored.run)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "pg_amcheck: {said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The volumes of a set, mounted next to the original.
pub struct Restored<'a> {
    rig: &'a Rig,
    devices: Vec<String>,
    mounts: Vec<PathBuf>,
    /// The data directory, its links pointing to the restored volumes.
    pub data: PathBuf,
    /// Folder of its socket.
    pub run: PathBuf,
}

impl<'a> Restored<'a> {
    /// `snapshots` by volume: of `data`, and of `wal`.
    pub fn mount(rig: &'a Rig, name: &str, data: &str, wal: &str) -> Self {
        rig.await_quiet();
        let (run, mut devices, mut mounts) = (rig.path(&format!("{name}-run")), Vec::new(), Vec::new());
        for (volume, snapshot) in [("data", data), ("wal", wal)] {
            let device = rig.sim(&["snapshot-device", snapshot]).trim().to_owned();
            let at = rig.path(&format!("{name}-{volume}"));
            std::fs::create_dir_all(&at).unwrap();
            // Two XFS of one UUID are not mounted at once without this.
            let options = if volume == "data" { "nouuid" } else { "defaults" };
            sh("mount", &["-o", options, &device, at.to_str().unwrap()]);
            devices.push(device);
            mounts.push(at);
        }
        let data = mounts[0].join("pgdata");
        std::fs::remove_file(data.join("postmaster.pid")).unwrap(); // the original's, which runs
        std::fs::remove_file(data.join("pg_wal")).unwrap();
        std::os::unix::fs::symlink(mounts[1].join("pg_wal"), data.join("pg_wal")).unwrap();
        Self { rig, devices, mounts, data, run }
    }

    /// Starts a server on them.
    pub fn start(&self, options: &[&str]) -> Result<Cluster, String> {
        Cluster::start(&self.data, &self.run, options)
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = Command::new("umount").arg(mount).status();
        }
        for device in &self.devices {
            // What runs in another copy of this host's mounts may still have it for a moment.
            let end = Instant::now() + Duration::from_secs(10);
            let release = || {
                let mut command = Command::new(ebs_sim());
                command.args(["release-device", device]).env("EBS_SIM_DIR", self.rig.path("sim"));
                command.output().is_ok_and(|o| o.status.success())
            };
            while !release() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// The snapshot of a volume in a record.
pub fn snapshot_of(rig: &Rig, record: &Value, volume: &str) -> String {
    let id = rig.id(volume);
    let all = record["snapshots"].as_array().unwrap();
    let found = all.iter().find(|s| s["volume_id"] == id.as_str()).unwrap_or_else(|| panic!("{record:#}"));
    found["id"].as_str().unwrap().to_owned()
}

/// What the section said of the set, in both phases.
pub fn facts(record: &Value) -> BTreeMap<String, String> {
    let hooks = record["hooks"].as_array().unwrap();
    let facts = hooks.iter().filter_map(|h| h["facts"].as_object()).flatten();
    facts.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()
}

/// A position in the WAL as a number.
pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    let hex = |t| u64::from_str_radix(t, 16).unwrap();
    hex(high) << 32 | hex(low)
}
