//! Debian's Redis on a volume of a rig, writers that know what was acknowledged, and servers started on what
//! was restored.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use redis::{Connection, FromRedisValue};
use stillpoint::config::settings::{self, HookKind, RedisMode};
use stillpoint::ids::RunId;
use stillpoint::quiesce::SetMount;
use stillpoint::quiesce::databases::{Start, Task, program};

use crate::program::{await_within, wait};
use crate::{Fs, Rig, patience, stillpoint_databases};

/// Long enough for whatever should happen.
pub const SOON: Duration = Duration::from_secs(10);

/// A rig with one volume, `data`.
pub fn one(fs: Fs) -> Rig {
    Rig::start(&[("data", fs)])
}

/// A server on it.
pub fn on(rig: &Rig, more: &[&str]) -> Server {
    Server::start(rig, &rig.mount("data").join("redis"), more)
}

/// The processes that hold a database for this agent.
pub fn holders(agent: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    let pids = children.split_whitespace().map(|p| Pid::from_raw(p.parse().unwrap()));
    let holds = |pid: &Pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).next().is_some_and(|first| first.ends_with(program::NAME.as_bytes()))
    };
    pids.filter(holds).collect()
}

/// A running redis-server, which dies with the test.
pub struct Server {
    child: Child,
    pub dir: PathBuf,
    pub socket: PathBuf,
    password: Option<String>,
}

impl Server {
    /// On this folder, with an append-only file unless `more` says otherwise.
    pub fn start(rig: &Rig, dir: &Path, more: &[&str]) -> Self {
        Self::under(rig, dir, &[], more)
    }

    /// The same under another program, such as strace.
    pub fn under(rig: &Rig, dir: &Path, wrapper: &[&str], more: &[&str]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let name = format!(
            "redis-{:x}",
            dir.to_str().unwrap().bytes().fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(b))
        );
        let socket = rig.path(&format!("{name}.sock"));
        let _ = std::fs::remove_file(&socket);
        let log = File::create(rig.path(&format!("{name}.log"))).unwrap();
        // setpriv: whatever becomes of this test, no server is left.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(wrapper).arg("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--dir"]).arg(dir);
        command.arg("--unixsocket").arg(&socket).args(more);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("setpriv (util-linux) and redis-server are needed by this test: {e}"));
        let password = more.iter().position(|w| *w == "--requirepass").map(|at| more[at + 1].to_owned());
        let mut server = Self { child, dir: dir.to_owned(), socket, password };
        let end = Instant::now() + patience::SERVER;
        while server.try_connect().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c)).is_err() {
            let over = Instant::now() > end || server.child.try_wait().unwrap().is_some();
            assert!(!over, "{}", std::fs::read_to_string(rig.path(&format!("{name}.log"))).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn try_connect(&self) -> redis::RedisResult<Connection> {
        let auth = self.password.as_ref().map(|p| format!("?pass={p}")).unwrap_or_default();
        redis::Client::open(format!("redis+unix://{}{auth}", self.socket.display()))?.get_connection()
    }

    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap()
    }

    /// One command.
    pub fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut command = redis::Cmd::new();
        words.split(' ').for_each(|w| {
            command.arg(w);
        });
        command.query(&mut self.connect()).unwrap_or_else(|e| panic!("{words}: {e}"))
    }

    /// A field of INFO.
    pub fn info(&self, field: &str) -> String {
        let text: String = self.ask("INFO");
        let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO without {field}:\n{text}")).trim().to_owned()
    }

    /// Does a write go through within this time?
    pub fn writes_within(&self, limit: Duration) -> Option<Duration> {
        let mut connection = self.connect();
        connection.set_read_timeout(Some(limit)).unwrap();
        let begun = Instant::now();
        redis::cmd("SET").arg("probe").arg(1).query::<()>(&mut connection).ok().map(|()| begun.elapsed())
    }

    /// The section that holds it.
    pub fn section(&self, more: &str) -> String {
        format!("[[redis]]\nsocket = \"{}\"\ntimeout = \"10s\"\n{more}\n", self.socket.display())
    }

    /// Stops it for as long as the result lives, and with it everything that its parts would do meanwhile.
    pub fn stand_still(&self) -> StandsStill {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        killpg(group, Signal::SIGSTOP).unwrap();
        StandsStill(group)
    }

    /// Ends it by force: nothing more is written.
    pub fn kill(&mut self) {
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL);
        let _ = wait(&mut self.child, Duration::from_secs(10));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that does nothing.
pub struct StandsStill(Pid);

impl Drop for StandsStill {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGCONT);
    }
}

/// Increments `a` and `b` in one transaction after the other.
pub struct Pairs {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    longest: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Pairs {
    pub fn start(server: &Server) -> Self {
        let [acknowledged, longest] = [0, 0].map(|n| Arc::new(AtomicU64::new(n)));
        let stop = Arc::new(AtomicBool::new(false));
        let (ack, long, stopped) = (Arc::clone(&acknowledged), Arc::clone(&longest), Arc::clone(&stop));
        let mut connection = server.connect();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let begun = Instant::now();
                let both = redis::pipe()
                    .atomic()
                    .cmd("INCR")
                    .arg("a")
                    .cmd("INCR")
                    .arg("b")
                    .query::<(u64, u64)>(&mut connection);
                let Ok((a, b)) = both else { return }; // the server was ended
                assert_eq!(a, b);
                ack.store(a, Ordering::SeqCst);
                long.fetch_max(u64::try_from(begun.elapsed().as_micros()).unwrap(), Ordering::SeqCst);
            }
        });
        Self { stop, acknowledged, longest, thread: Some(thread) }
    }

    /// The last value that the server said it had.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The same, while writers are held: it must not move any more, but for the reply that was on its way.
    pub fn standing(&self) -> u64 {
        let end = Instant::now() + Duration::from_secs(5);
        let mut before = self.acknowledged();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let value = self.acknowledged();
            if value == before {
                return value;
            }
            assert!(Instant::now() < end, "writes go on");
            before = value;
        }
    }

    /// The longest that a write has taken since the last call.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::SeqCst))
    }

    /// Waits until it has got further by this much.
    pub fn goes_on(&self, by: u64, limit: Duration) {
        let from = self.acknowledged();
        await_within("writes go on", limit, || (self.acknowledged() >= from + by).then_some(()));
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            let _ = thread.join();
        }
    }
}

/// redis-benchmark without end.
pub struct Load(Child);

impl Load {
    pub fn start(server: &Server) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "redis-benchmark", "-s"]).arg(&server.socket);
        command.args([
            "-q",
            "-l",
            "-c",
            "4",
            "-r",
            "500",
            "-n",
            "100000",
            "-d",
            "200",
            "-t",
            "set,incr,lpush,lpop,sadd,hset",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("setpriv and redis-benchmark (redis-tools): {e}")))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What redis-check-aof says of the append-only file below this folder: it must need no repair.
pub fn check_aof(folder: &Path) {
    let manifest = folder.join("appendonlydir/appendonly.aof.manifest");
    let output = Command::new("redis-check-aof").arg(&manifest).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("All AOF files and manifest are valid"), "{said}");
}

/// What a process that holds a database is told first.
pub fn order(
    task: Task,
    server: &Server,
    mounts: &[PathBuf],
    quiesce_limit: Duration,
    change: impl FnOnce(&mut settings::Redis),
) -> Start {
    let mut redis = settings::Redis {
        mode: RedisMode::Pause,
        socket: Some(server.socket.clone()),
        host: None,
        port: None,
        user: None,
        password_file: None,
        credential: None,
        pause_limit: None,
    };
    change(&mut redis);
    let set = mounts.iter().map(|m| {
        let dev = std::fs::metadata(m).unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
        SetMount { mount_point: m.clone(), dev: format!("{major}:{minor}").parse().unwrap() }
    });
    Start {
        build: stillpoint::build::ID.into(),
        task,
        name: "redis".into(),
        run: RunId::generate(),
        kind: HookKind::Redis(redis),
        set: set.collect(),
        timeout: Duration::from_secs(12),
        quiesce_limit,
    }
}

/// A process that holds a database, driven by hand.
pub struct Holder {
    pub child: Child,
    out: BufReader<ChildStdout>,
    /// What it has said.
    pub said: String,
}

impl Holder {
    pub fn start(order: &Start) -> Self {
        Self::with(order, |_| {})
    }

    /// With more of an environment.
    pub fn with(order: &Start, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(stillpoint_databases());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let line = serde_json::to_string(order).unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, said: String::new() }
    }

    /// Waits until it holds.
    pub fn ready(mut self) -> Self {
        while !self.said.ends_with("ready \n") {
            assert!(self.out.read_line(&mut self.said).unwrap() > 0, "not ready: {}", self.said);
        }
        self
    }

    /// Tells it to let go, and waits for its end.
    pub fn end(mut self) -> (bool, String) {
        drop(self.child.stdin.take());
        self.ended()
    }

    /// Waits for its end: did it say that all went well, and all that it said.
    pub fn ended(mut self) -> (bool, String) {
        self.out.read_to_string(&mut self.said).unwrap();
        let status = wait(&mut self.child, Duration::from_secs(15)).expect("its process ends");
        (status.success(), self.said)
    }
}
