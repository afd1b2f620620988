//! The real program as a child, and how it ended. Every wait is bounded.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{MEMORY, patience, schema};

/// Waits for a child, at most this long.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status),
            None if Instant::now() > end => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Waits until `done` gives something.
pub fn await_some<T>(what: &str, done: impl Fn() -> Option<T>) -> T {
    await_within(what, patience::CONDITION, done)
}

/// The same, where the bound is a part of what is tested.
pub fn await_within<T>(what: &str, limit: Duration, done: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes an executable file, by a process of its own. Written here, a child that another test forks
/// meanwhile would have the file open for writing, too, until it executes: whoever runs the file then gets
/// ETXTBSY.
pub fn put_executable(path: &Path, text: impl AsRef<[u8]>) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut child = install.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_ref()).unwrap();
    assert!(child.wait().unwrap().success(), "{}", path.display());
}

/// A program of the host, for this test alone: stillpoint looks for those in fixed folders. It is put into an
/// empty filesystem over one of them, in the mount namespace of the test's own (scripts/lib/in-namespace).
pub fn put_host_program(name: &str, text: impl AsRef<[u8]>) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let own = mounts.lines().any(|l| l.starts_with("stillpoint-test /dev/shm "));
    assert!(own, "this would change the machine: run it by scripts/test");
    crate::sh("mount", &["-t", "tmpfs", "-o", "mode=755", "stillpoint-test", HOST_PROGRAMS]);
    put_executable(&Path::new(HOST_PROGRAMS).join(name), text);
}

/// The first of the folders in which stillpoint looks for the host's programs.
pub(crate) const HOST_PROGRAMS: &str = "/usr/local/sbin";

/// The value of JOURNAL_STREAM that stands for whatever stderr is (systemd.exec(5)).
pub(crate) const IS_JOURNAL: &str = "stderr";

/// The program, running.
pub struct Run {
    child: Child,
    out: File,
    err: File,
    started: Instant,
    schema: Option<String>,
}

impl Run {
    /// Starts it with stdout and stderr in files, which never fill up.
    pub fn start(mut command: Command) -> Self {
        let (out, err) = (tempfile::tempfile_in(MEMORY).unwrap(), tempfile::tempfile_in(MEMORY).unwrap());
        let schema = schema::of(command.get_args());
        if command.get_envs().any(|(k, v)| k == "JOURNAL_STREAM" && v.is_some_and(|v| v == IS_JOURNAL)) {
            let of = err.metadata().unwrap();
            command.env("JOURNAL_STREAM", format!("{}:{}", of.dev(), of.ino()));
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        Self { started: Instant::now(), child: command.spawn().unwrap(), out, err, schema }
    }

    /// The agent's process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Has it ended?
    pub fn over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        let mut bytes = vec![0; 64 << 10];
        // Not read: the child's offset is this one too.
        let n = std::os::unix::fs::FileExt::read_at(&self.err, &mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    /// Waits for its end. What it printed as JSON has to be as its schema says.
    pub fn end(mut self) -> Ended {
        let Some(status) = wait(&mut self.child, patience::RUN) else {
            let _ = self.child.kill();
            panic!("stillpoint did not end within {:?}: {}", patience::RUN, text(&mut self.err));
        };
        let took = self.started.elapsed();
        let out = text(&mut self.out);
        // A command that is refused prints nothing.
        if let Some(schema) = self.schema.as_ref().filter(|_| !out.is_empty()) {
            schema::check_text(schema, &out);
        }
        Ended { code: status.code(), signal: status.signal(), out, err: text(&mut self.err), took }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = wait(&mut self.child, Duration::from_secs(20));
            println!("stillpoint: {status:?}\n{}{}", text(&mut self.out), text(&mut self.err));
        }
    }
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Ended {
    /// What `--output json` printed.
    pub fn record(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("no record ({e}): {}{}", self.out, self.err))
    }

    /// The exit code, which must be this one.
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "signal {:?}\n{}{}", self.signal, self.out, self.err);
        self
    }

    /// stderr must say this.
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "`{text}` is not in:\n{}", self.err);
        self
    }
}
