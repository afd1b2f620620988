//! The examples in packaging/hooks. `sql-session` is run with Debian's PostgreSQL. `mongodb-fsynclock` is run
//! with a stand-in for mongosh, which this cannot do without: no mongosh is packaged for Debian. The stand-in
//! is node with mongosh's `connect`, `print`, `require` and top-level await, over a server that is a file
//! with its number of locks.

use nix::sys::signal::Signal;
use rig::probe::assert_settled;
use rig::program::{await_some, put_executable};
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/hooks");

#[test]
fn the_shells_find_nothing_to_say() {
    sh("shellcheck", &[&format!("{HOOKS}/sql-session"), &format!("{HOOKS}/mongodb-fsynclock")]);
    for name in ["sql-session", "mongodb-fsynclock"] {
        let mode = std::fs::metadata(format!("{HOOKS}/{name}")).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name}");
    }
}

/// A copy that only root can change: the clone may belong to somebody else.
fn installed(rig: &Rig) -> PathBuf {
    let folder = rig.path("hooks");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(HOOKS).unwrap() {
        let from = entry.unwrap().path();
        put_executable(&folder.join(from.file_name().unwrap()), std::fs::read(&from).unwrap());
    }
    folder
}

/// A PostgreSQL server on a socket in its own folder.
struct Postgres {
    folder: TempDir,
    bin: PathBuf,
}

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("stillpoint-test-pg-").tempdir_in("/dev/shm").unwrap();
        sh("chown", &["postgres", folder.path().to_str().unwrap()]);
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("the package `postgresql` is needed");
        let bin = versions.map(|v| v.unwrap().path().join("bin")).max().unwrap();
        let server = Self { folder, bin };
        let at = server.at();
        server.as_postgres(&["initdb", "-A", "trust", "-N", "-D", &format!("{at}/data")]);
        let options = format!("-c listen_addresses='' -c unix_socket_directories={at} -c fsync=off");
        let data = format!("{at}/data");
        server.as_postgres(&[
            "pg_ctl",
            "-w",
            "-D",
            &data,
            "-l",
            &format!("{at}/log"),
            "-o",
            &options,
            "start",
        ]);
        server
    }

    fn at(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    fn as_postgres(&self, argv: &[&str]) {
        let program = self.bin.join(argv[0]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]);
        let output = command.arg(program).args(&argv[1..]).current_dir("/").output().unwrap();
        assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn sql(&self, text: &str) -> Output {
        let mut command = Command::new("psql");
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", &self.at(), "-c", text]);
        command.output().unwrap()
    }

    /// Can a row be written?
    fn writable(&self) -> bool {
        self.sql("SET lock_timeout = '100ms'; INSERT INTO orders VALUES (1)").status.success()
    }

    fn section(&self, hooks: &Path, hold: &str, release: &str) -> String {
        format!(
            "[[session]]\nname = \"orders\"\ntimeout = \"20s\"\n\
             command = [\"{}/sql-session\", \"/usr/bin/psql\", \"--no-psqlrc\", \"--quiet\", \"--username=postgres\", \"--host={}\"]\n\
             [session.environment]\nSQL_QUIESCE = \"{hold}\"\nSQL_RELEASE = \"{release}\"\n",
            hooks.display(),
            self.at()
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = format!("{}/data", self.at());
        let stop = ["--", self.bin.join("pg_ctl").to_str().unwrap(), "-m", "immediate", "-D", &data, "stop"]
            .map(str::to_owned);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).args(stop);
        let _ = command.current_dir("/").output();
    }
}

const HOLD: &str = "BEGIN; SET lock_timeout = '5s'; LOCK TABLE orders IN EXCLUSIVE MODE;";

#[test]
fn an_sql_session_holds_a_real_lock_across_the_window_and_a_killed_agent_leaves_none() {
    let postgres = Postgres::start();
    assert!(postgres.sql("CREATE TABLE orders (id int)").status.success() && postgres.writable());
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let hooks = installed(&rig);

    rig.configure(&postgres.section(&hooks, HOLD, "COMMIT;"));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert!(!postgres.writable(), "held while frozen");
    assert_eq!(run.end().exits(0).record()["achieved"], "application");
    assert!(postgres.writable());

    let run = in_the_window(&rig, &["snapshot"]);
    assert!(!postgres.writable());
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("the lock's end", || postgres.writable().then_some(()));
    rig.await_quiet();
    rig.run(&["thaw", "--recover"]).exits(0);

    // The session's connection ends in the window, so nothing was held to the end.
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'orders'::regclass";
    assert!(postgres.sql(end).status.success());
    let ended = run.end();
    let record = ended.exits(22).record();
    assert_eq!(record["achieved"], "filesystem");
    assert!(
        record["reason"].as_str().unwrap().contains("was not released as it should be"),
        "{}",
        record["reason"]
    );

    let creates = rig.creates().len();
    for (hold, says) in
        [("SELECT no_such_thing; SELECT 1;", "no_such_thing"), ("LOCK TABLE orders;", "LOCK TABLE")]
    {
        rig.configure(&postgres.section(&hooks, hold, "COMMIT;"));
        rig.run(&["snapshot"]).exits(20).says(says);
    }
    assert_eq!(rig.creates().len(), creates);
    assert_settled(&rig);
}

/// The stand-in for mongosh, and its server: `locks` has the number of locks, `log` what was asked.
fn mongosh(rig: &Rig) -> PathBuf {
    let place = rig.path("mongo");
    std::fs::create_dir_all(&place).unwrap();
    let program = format!(
        r#"#!/usr/bin/env node
const fs = require('fs');
const place = '{}';
const locks = () => Number(fs.existsSync(place + '/locks') ? fs.readFileSync(place + '/locks', 'utf8') : 0);
const argv = process.argv.slice(2);
fs.writeFileSync(place + '/argv', argv.join(' '));
fs.writeFileSync(place + '/pid', String(process.pid));
const say = (o) => {{ fs.appendFileSync(place + '/log', JSON.stringify(o) + '\n'); }};
global.print = (text) => process.stdout.write(text + '\n');
global.require = require;
global.connect = (uri) => {{
    if (uri.includes('refused')) throw new Error('connect ECONNREFUSED');
    return {{ getSiblingDB: (name) => ({{ runCommand: (c) => {{
        if (!c.currentOp) say({{ ...c, name, uri }});
        if (c.fsync) {{ fs.writeFileSync(place + '/locks', String(locks() + 1)); return {{ ok: 1, lockCount: locks() }}; }}
        if (c.fsyncUnlock) {{
            if (!locks()) return {{ ok: 0, errmsg: 'fsyncUnlock called when not locked' }};
            fs.writeFileSync(place + '/locks', String(locks() - 1)); return {{ ok: 1, lockCount: locks() }};
        }}
        return {{ ok: 1, inprog: [], ...(locks() ? {{ fsyncLock: true }} : {{}}) }};
    }} }}) }};
}};
const text = fs.readFileSync(argv[argv.indexOf('--file') + 1], 'utf8');
new Function('return (async () => {{' + text + '}})()')();
"#,
        place.display()
    );
    let file = place.join("mongosh");
    put_executable(&file, program);
    place
}

#[test]
fn the_mongodb_session_locks_and_unlocks_whatever_happens() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (hooks, place) = (installed(&rig), mongosh(&rig));
    let uri = rig.path("mongodb.uri");
    let configure = |address: &str| {
        std::fs::write(&uri, format!("{address}\n")).unwrap();
        let environment = format!(
            "environment = {{ MONGODB_URI_FILE = \"{}\", PATH = \"{}:/usr/bin:/bin\" }}",
            uri.display(),
            place.display()
        );
        let program = hooks.join("mongodb-fsynclock");
        rig.configure(&format!(
            "[[session]]\nname = \"mongodb\"\ncommand = [\"{0}\"]\nrelease = [\"{0}\", \"unlock\"]\ntimeout = \"20s\"\n{environment}\n",
            program.display()
        ));
    };
    let locks = || std::fs::read_to_string(place.join("locks")).unwrap_or_default();
    configure("mongodb://backup:s3cret@127.0.0.1/");

    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    assert_eq!(locks(), "1", "held while frozen");
    let ended = run.end();
    assert_eq!(ended.exits(0).record()["achieved"], "application");
    assert_eq!(locks(), "0");
    let argv = std::fs::read_to_string(place.join("argv")).unwrap();
    assert!(
        !argv.contains("s3cret") && !ended.out.contains("s3cret") && !ended.err.contains("s3cret"),
        "{argv}"
    );
    assert!(std::fs::read_to_string(place.join("log")).unwrap().contains("s3cret"), "it was used");

    // The agent is killed: the session unlocks by itself.
    let run = in_the_window(&rig, &["snapshot"]);
    run.signal(Signal::SIGKILL);
    run.end();
    await_some("the unlock", || (locks() == "0").then_some(()));
    rig.await_quiet();
    rig.run(&["thaw", "--recover"]).exits(0);

    // The session is killed and the server stays locked, until the release of the hook unlocks it.
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    sh("kill", &["-9", &std::fs::read_to_string(place.join("pid")).unwrap()]);
    assert_eq!(locks(), "1");
    assert_eq!(run.end().exits(22).record()["achieved"], "filesystem");
    assert_eq!(locks(), "0");

    configure("mongodb://refused/");
    rig.run(&["snapshot"]).exits(20).says("ECONNREFUSED");
    assert_settled(&rig);
}
