//! A running ebs-sim, mounts that go away, and the writer whose records tell a true point in time.

pub mod curl;
pub mod ec2;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub const EBS_SIM: &str = env!("CARGO_BIN_EXE_ebs-sim");

/// Without the limit of 15 s between two snapshots of a volume, which would make every test slow.
pub const QUICK: &str =
    "[limits]\nper_volume_interval = '0s'\nthrottling = false\n[snapshots]\nseconds_to_complete = 0.2\n";

/// These tests make devices. One that cannot run must not look passed.
pub fn needs_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes loop devices and mounts: run it as root");
}

/// Runs a command that must succeed, and gives its stdout.
pub fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the command can be run");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Starts `ebs-sim serve` and gives its first line, which is empty when it ended instead.
pub fn serve(dir: &Path, arguments: &[&str]) -> (Vec<u8>, Child) {
    let mut child = Command::new(EBS_SIM)
        .args(["serve", "--die-with-parent", "--dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ebs-sim starts");
    let mut line = Vec::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut byte = [0];
    while stdout.read(&mut byte).expect("stdout is read") == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    (line, child)
}

/// A running `ebs-sim serve`, which is stopped when dropped.
pub struct Sim {
    /// What it announced.
    pub ready: Value,
    /// A folder for the test's own files, beside the simulation's.
    pub temp: TempDir,
    child: Option<Child>,
}

impl Sim {
    /// Starts one with these volumes.
    pub fn start(scenario: &str, volumes: &[&str]) -> Self {
        let temp = TempDir::new().expect("a temporary folder");
        let file = temp.path().join("scenario.toml");
        std::fs::write(&file, scenario).expect("the scenario is written");
        let mut arguments = vec!["--scenario", file.to_str().expect("UTF-8")];
        arguments.extend(volumes.iter().flat_map(|volume| ["--volume", volume]));
        Self::launch(temp, &arguments)
    }

    /// Starts one in TEMP/sim; it must come up.
    pub fn launch(temp: TempDir, arguments: &[&str]) -> Self {
        let (ready, child) = serve(&temp.path().join("sim"), arguments);
        let Ok(ready) = serde_json::from_slice(&ready) else {
            let output = child.wait_with_output().expect("it ended");
            panic!("ebs-sim did not start: {}", String::from_utf8_lossy(&output.stderr));
        };
        Self { ready, temp, child: Some(child) }
    }

    /// Ends this one with a signal and starts another in the same folder.
    pub fn restart(mut self, signal: nix::sys::signal::Signal, arguments: &[&str]) -> Self {
        self.end(signal);
        let temp = std::mem::replace(&mut self.temp, TempDir::new().expect("a temporary folder"));
        Self::launch(temp, arguments)
    }

    /// Its folder.
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("sim")
    }

    /// A volume by name.
    pub fn volume(&self, name: &str) -> &Value {
        let volumes = self.ready["volumes"].as_array().expect("volumes");
        volumes.iter().find(|volume| volume["name"] == name).expect("a volume of this name")
    }

    /// A volume's device.
    pub fn device(&self, name: &str) -> String {
        self.volume(name)["loop"].as_str().expect("a path").to_owned()
    }

    /// A volume's id.
    pub fn id(&self, name: &str) -> String {
        self.volume(name)["id"].as_str().expect("an id").to_owned()
    }

    /// Runs one of ebs-sim's own commands.
    pub fn command(&self, arguments: &[&str]) -> Output {
        Command::new(EBS_SIM)
            .args(arguments)
            .env("EBS_SIM_DIR", self.dir())
            .output()
            .expect("ebs-sim can be run")
    }

    /// The same; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// Runs a shell script in the view.
    pub fn exec(&self, script: &str) -> Output {
        self.command(&["exec", "--", "sh", "-c", script])
    }

    /// A POST to the control API: the status.
    pub fn post(&self, path: &str, body: &str) -> u16 {
        let url = format!("{}/_ebs-sim/{path}", self.ready["control"].as_str().expect("a URL"));
        let mut command = Command::new("curl");
        curl::answer(command.args(["--silent", "--write-out", "\n%{http_code}", "--data", body, &url])).status
    }

    /// One CreateSnapshots of the whole instance: the snapshots' ids, in the order of attachment.
    pub fn create_snapshots(&self) -> Vec<String> {
        let instance = self.ready["instance_id"].as_str().expect("an id");
        let xml =
            self.ok(&["call", "CreateSnapshots", &format!("InstanceSpecification.InstanceId={instance}")]);
        values(&xml, "snapshotId")
    }

    /// One CreateSnapshot.
    pub fn create_snapshot(&self, name: &str) -> String {
        let xml = self.ok(&["call", "CreateSnapshot", &format!("VolumeId={}", self.id(name))]);
        values(&xml, "snapshotId").remove(0)
    }

    /// A device of a private copy of a snapshot.
    pub fn snapshot_device(&self, snapshot: &str) -> String {
        self.ok(&["snapshot-device", snapshot])
    }

    /// Gives such a device back.
    pub fn release_device(&self, device: &str) {
        let output = self.command(&["release-device", device]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || used_by_others(&self.dir(), &stderr), "{device}: {stderr}");
    }

    /// The log's entries of one action.
    pub fn requests(&self, action: &str) -> Vec<Value> {
        let log: Value = serde_json::from_str(&self.ok(&["requests"])).expect("json");
        log.as_array().expect("a list").iter().filter(|entry| entry["action"] == action).cloned().collect()
    }

    /// Sends a signal to the server and waits for its end: exit code and stderr.
    pub fn end(&mut self, signal: nix::sys::signal::Signal) -> (Option<i32>, String) {
        let child = self.child.take().expect("it runs");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it can be signalled");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if self.child.is_some() {
            let (code, stderr) = self.end(nix::sys::signal::Signal::SIGTERM);
            if !std::thread::panicking() {
                let later = code == Some(1) && used_by_others(&self.dir(), &stderr);
                assert!(code == Some(0) || later, "{code:?}: {stderr}");
            }
        }
    }
}

/// Whether only others keep what is said to be still in use: a mount namespace that another test made
/// meanwhile has a copy of every mount, and udev looks at devices. Of the store there must be no copy, and
/// what this process mounts is the test's own.
fn used_by_others(dir: &Path, stderr: &str) -> bool {
    let mut complaints = stderr.lines().filter_map(|line| line.strip_prefix("ebs-sim: ")).peekable();
    complaints.peek().is_some()
        && complaints.all(|complaint| match complaint.split_once(" is still in use") {
            Some((device, users)) if users.starts_with(": mounted on ") => {
                !users.contains(&format!("mounted on {}/", dir.display())) && !is_mounted_here(device)
            }
            Some((device, _)) => goes_by_itself(device),
            None => false,
        })
}

/// Whether this process sees a mount of a device or of its partitions.
fn is_mounted_here(device: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut sources = mounts.lines().filter_map(|line| line.split(' ').next());
    sources.any(|source| {
        source.strip_prefix(device).is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
    })
}

/// Whether a device that was held open for a moment shows its file no more; its number may be another's by
/// then.
fn goes_by_itself(device: &str) -> bool {
    let file = Path::new("/sys/block").join(device.replace("/dev/", "")).join("loop/backing_file");
    let shown = || std::fs::read_to_string(&file).ok();
    let (first, deadline) = (shown(), Instant::now() + Duration::from_secs(10));
    while first.is_some() && shown() == first {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// The texts of all elements of this name.
pub fn values(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned())).collect()
}

/// A mount, undone when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a device in a new folder.
    pub fn new(sim: &Sim, name: &str, device: &str, options: &str) -> Self {
        let path = sim.temp.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        sh("mount", &["-o", options, device, path.to_str().expect("UTF-8")]);
        Self(path)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Writes record n to A, fsyncs, then the same to B: any true point in time over both has
/// nB <= nA <= nB + 1.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

const RECORD: usize = 128;

fn record(number: u64) -> String {
    format!("{:x<width$}\n", format!("{number:010} "), width = RECORD - 1)
}

impl Writer {
    /// Begins to write.
    pub fn start(a: &Path, b: &Path) -> Self {
        let open = |folder: &Path| {
            OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("the log opens")
        };
        let mut files = [open(a), open(b)];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (begun, wait) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                for file in &mut files {
                    file.write_all(record(number).as_bytes()).expect("a record is written");
                    file.sync_data().expect("it is synced");
                }
                let _ = begun.send(());
            }
            number
        });
        // On a busy machine the first snapshot could otherwise come before the first record.
        wait.recv().expect("the first record");
        Self { stop, thread: Some(thread) }
    }

    /// Ends it and says how many records it wrote.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("it wrote without errors")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many records were written to the log so far.
pub fn written(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("log")).expect("there is a log").len() / RECORD as u64
}

/// How many whole records the log holds. A torn or wrong record fails the test.
pub fn records(folder: &Path) -> u64 {
    let mut text = Vec::new();
    File::open(folder.join("log")).expect("there is a log").read_to_end(&mut text).expect("it reads");
    let mut count = 0;
    for chunk in text.chunks(RECORD) {
        count += 1;
        assert_eq!(chunk, record(count).as_bytes(), "record {count} in {}", folder.display());
    }
    count
}

/// Waits until `done`, for at most half a minute: on a slow machine each look takes its time.
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        // The simulator throttles what asks more often, and an answer of that kind looks like the end of
        // something.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One HTTP request on an open connection: the status, the head and the body.
pub fn http(stream: &mut TcpStream, head: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let mut request = format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        answer.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
        .expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head, String::from_utf8_lossy(&body).into_owned())
}

/// The loop devices that show a file under `dir`.
pub fn loops_under(dir: &Path) -> Vec<String> {
    let shown = sh("losetup", &["--noheadings", "--list", "--output", "NAME,BACK-FILE"]);
    shown.lines().filter(|line| line.contains(dir.to_str().expect("UTF-8"))).map(str::to_owned).collect()
}
