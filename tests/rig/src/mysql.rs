//! Real MariaDB servers with their files on a rig's volumes, a load of transfers on them, and their copies
//! out of snapshots.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row, Value};

use crate::copy::Copy;
use crate::program::{await_some, await_within};
use crate::{Rig, patience, sh, template};

/// A password that must be seen nowhere.
pub const SECRET: &str = "s3cretWord";
/// Accounts in every kind of table, each with this much.
const ACCOUNTS: u64 = 50;
const EACH: u64 = 1000;
/// The kinds of tables: `m` and `a0` are closed properly or they are broken, `a` has a log of its own.
pub const TABLES: [(&str, &str); 4] = [
    ("i", "InnoDB"),
    ("m", "MyISAM"),
    ("a", "Aria TRANSACTIONAL=1"),
    ("a0", "Aria TRANSACTIONAL=0 PAGE_CHECKSUM=0"),
];

/// A running server. It is gone with the test, however that ends.
pub struct Server {
    child: Child,
    pub socket: PathBuf,
    pub port: u16,
    pub error_log: PathBuf,
}

/// Everything a test may want to change.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// The folder of the binary log.
    pub binlog: Option<PathBuf>,
    pub id: u32,
    pub more: Vec<String>,
}

/// An empty database in this folder, which is made.
pub fn install(data: &Path) {
    let options = [
        "--no-defaults",
        "--user=root",
        "--auth-root-authentication-method=socket",
        "--skip-test-db",
        "--innodb-log-file-size=4M",
        "--innodb-buffer-pool-size=16M",
    ];
    let version = sh("mariadbd", &["--version"]);
    template::copy("mariadb", &format!("{version}{options:?}"), data, |data| {
        std::fs::create_dir(data).unwrap();
        let data = format!("--datadir={}", data.display());
        sh("mariadb-install-db", &[&options[..], &[&data]].concat());
    });
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts one and waits until it answers. Its socket and logs are in memory, beside the volumes.
    pub fn start(rig: &Rig, name: &str, place: &Place) -> Self {
        let (socket, port) = (rig.path(&format!("{name}.sock")), free_port());
        let error_log = rig.path(&format!("{name}.log"));
        // With the thread that started it gone, it is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "mariadbd", "--no-defaults", "--user=root"]);
        command.args(["--bind-address=127.0.0.1", "--skip-slave-start", "--max-connections=50"]);
        command.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--binlog-format=ROW"]);
        // What is broken is to be seen, and not repaired on the way.
        command.args(["--myisam-recover-options=OFF", "--aria-recover-options=OFF"]);
        command.arg(format!("--datadir={}", place.data.display()));
        // A server that starts removes the temporary tables of every other one with the same folder for them.
        let temporary = rig.path(&format!("{name}.tmp"));
        std::fs::create_dir_all(&temporary).unwrap();
        command.arg(format!("--tmpdir={}", temporary.display()));
        command.arg(format!("--socket={}", socket.display()));
        command.arg(format!("--pid-file={}", rig.path(&format!("{name}.pid")).display()));
        command.arg(format!("--port={port}")).arg(format!("--server-id={}", place.id));
        if let Some(folder) = &place.binlog {
            command.arg(format!("--log-bin={}", folder.join("bin").display()));
        }
        let log = std::fs::File::create(&error_log).unwrap();
        command.args(&place.more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let server = Self { child, socket, port, error_log };
        await_within(&format!("{name} answers: see its log"), patience::SERVER, || {
            Client::try_new(&server.socket, "root", None).ok()
        });
        server
    }

    /// A connection as root.
    pub fn client(&self) -> Client {
        Client::try_new(&self.socket, "root", None).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its error log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.error_log).unwrap()
    }

    /// The section of a configuration that holds it.
    pub fn section(&self, more: &str) -> String {
        let socket = self.socket.display();
        format!("[[mysql]]\nname = \"db\"\nsocket = \"{socket}\"\ntimeout = \"20s\"\n{more}\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} has written:\n{}", self.error_log.display(), self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is used from one thread.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    conn: Conn,
}

impl Client {
    pub fn try_new(socket: &Path, user: &str, password: Option<&str>) -> Result<Self, mysql_async::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let opts = OptsBuilder::default()
            .socket(Some(socket.to_str().unwrap()))
            .user(Some(user))
            .pass(password)
            .prefer_socket(false);
        let conn = runtime.block_on(Conn::new(opts))?;
        Ok(Self { runtime, conn })
    }

    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    pub fn try_run(&mut self, statement: &str) -> Result<(), mysql_async::Error> {
        self.runtime.block_on(self.conn.query_drop(statement))
    }

    pub fn run(&mut self, statement: &str) {
        self.try_run(statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    }

    /// All rows, each as its columns with `|` between.
    pub fn rows(&mut self, query: &str) -> Vec<String> {
        let rows: Vec<Row> =
            self.runtime.block_on(self.conn.query(query)).unwrap_or_else(|e| panic!("{query}: {e}"));
        let text = |v: Value| match v {
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::NULL => "NULL".to_owned(),
            other => other.as_sql(true),
        };
        rows.into_iter().map(|r| r.unwrap().into_iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }

    pub fn one(&mut self, query: &str) -> String {
        self.rows(query).into_iter().next().unwrap_or_default()
    }

    /// A column of the replica's status.
    pub fn replica(&mut self, column: &str) -> String {
        let rows: Vec<Row> = self.runtime.block_on(self.conn.query("SHOW ALL SLAVES STATUS")).unwrap();
        rows.first().and_then(|row| row.get::<Option<String>, _>(column).flatten()).unwrap_or_default()
    }
}

/// The tables that the load works on.
pub fn prepare(server: &Server) {
    let mut client = server.client();
    client.run("CREATE DATABASE t");
    client.run("USE t");
    for (table, engine) in TABLES {
        // Replayed under another name of the database: nothing here may name it.
        client.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, amount BIGINT) ENGINE={engine}"));
        client.run(&format!(
            "CREATE TABLE {table}_log (client INT, number BIGINT, filler VARCHAR(300), \
             PRIMARY KEY (client, number), KEY (filler)) ENGINE={engine}"
        ));
        let rows: Vec<String> = (1..=ACCOUNTS).map(|id| format!("({id}, {EACH})")).collect();
        client.run(&format!("INSERT INTO {table} VALUES {}", rows.join(",")));
    }
}

/// Clients that move money between the accounts of each table, and note each transfer.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Longest time one statement took since [`Load::stall`], in microseconds.
    longest: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(server: &Server, clients: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (longest, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads = (0..clients).map(|number| {
            let mut client = server.client();
            let (stop, longest, done) = (Arc::clone(&stop), Arc::clone(&longest), Arc::clone(&done));
            std::thread::spawn(move || {
                client.run("USE t");
                let mut random = u64::from(number) + 1;
                for turn in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (from, to) = (1 + (random >> 33) % ACCOUNTS, 1 + (random >> 40) % ACCOUNTS);
                    let table = TABLES[usize::try_from(turn % 4).unwrap()].0;
                    let note = format!(
                        "INSERT INTO {table}_log VALUES ({number}, {turn}, REPEAT('{}', 8))",
                        random >> 20
                    );
                    let statements = if table == "i" {
                        vec![
                            "BEGIN".to_owned(),
                            format!("UPDATE i SET amount = amount - 7 WHERE id = {from}"),
                            format!("UPDATE i SET amount = amount + 7 WHERE id = {to}"),
                            note,
                            "COMMIT".to_owned(),
                        ]
                    } else {
                        // Without transactions a statement is all there is.
                        vec![
                            format!(
                                "UPDATE {table} SET amount = amount + IF(id = {from}, -7, 0) + IF(id = {to}, 7, 0) \
                                 WHERE id IN ({from}, {to})"
                            ),
                            note,
                        ]
                    };
                    for statement in statements {
                        let since = Instant::now();
                        // A deadlock between two transfers: the server has rolled one of them back.
                        if client.try_run(&statement).is_err() {
                            break;
                        }
                        let took = u64::try_from(since.elapsed().as_micros()).unwrap();
                        longest.fetch_max(took, Ordering::Relaxed);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    // The volumes are small: a load without a pause fills them in a long run.
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        });
        Self { threads: threads.collect(), stop, longest, done }
    }

    /// The longest that any client waited for a statement since this was asked last.
    pub fn stall(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }

    /// Transfers so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until it has moved on: nothing holds it.
    pub fn goes_on(&self) {
        let before = self.done();
        await_some("the load goes on", || (self.done() > before + 8).then_some(()));
    }

    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|t| t.join().unwrap());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Volumes made of a set's snapshots, each by its name in the rig at `TEMP/copy-NAME`.
pub fn restored(rig: &Rig, record: &serde_json::Value, volumes: &[&str]) -> Vec<Copy> {
    let run = record["run_id"].as_str().unwrap();
    let all = rig.snapshots();
    let copy = |name: &&str| {
        let id = rig.id(name);
        let own = all.iter().find(|s| {
            s["tags"]["stillpoint:run"] == run
                && (s["volume"] == id.as_str() || s["volume_id"] == id.as_str())
        });
        let snapshot = own.unwrap_or_else(|| panic!("no snapshot of {id} in {all:#?}"));
        let snapshot = snapshot["id"].as_str().or(snapshot["snapshot_id"].as_str()).unwrap();
        Copy::mount(rig, snapshot, &format!("copy-{name}"))
    };
    volumes.iter().map(copy).collect()
}

/// What is wrong with the tables, if anything: sums, and CHECK TABLE's word on each.
pub fn faults(client: &mut Client) -> Vec<String> {
    let mut faults = Vec::new();
    client.run("USE t");
    for (table, _) in TABLES {
        for table in [table.to_owned(), format!("{table}_log")] {
            let said = client.rows(&format!("CHECK TABLE {table} EXTENDED"));
            if said.iter().any(|line| !line.ends_with("status|OK")) {
                faults.push(said.join("; "));
                client.run(&format!("REPAIR TABLE {table}"));
            }
        }
        let sum = client.one(&format!("SELECT SUM(amount) FROM {table}"));
        if sum != (ACCOUNTS * EACH).to_string() {
            faults.push(format!("the sum of {table} is {sum}"));
        }
    }
    faults
}

/// A checksum of each table of a database.
pub fn checksums(client: &mut Client, database: &str) -> Vec<String> {
    let names: Vec<String> = TABLES.iter().flat_map(|(t, _)| [(*t).to_owned(), format!("{t}_log")]).collect();
    client.run(&format!("USE {database}"));
    let query = format!("CHECKSUM TABLE {} EXTENDED", names.join(", "));
    client.rows(&query).iter().map(|row| row.split_once('.').unwrap().1.to_owned()).collect()
}

/// The middle one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
