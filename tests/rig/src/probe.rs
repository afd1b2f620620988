//! What can be seen of a freeze from outside: blocked writers, watchdogs, images.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Rig;
use crate::program::{Run, await_some};

/// Is it frozen? Answered by a child that thaws, so that afterwards it is not: EINVAL means that it was not.
pub fn was_frozen(mount: &Path) -> bool {
    let output = Command::new("fsfreeze").arg("--unfreeze").arg(mount).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("Invalid argument"), "fsfreeze: {said}");
    output.status.success()
}

/// Is it frozen? Answered by a write that is given 200 ms; it stays so. The writer ends when it is thawed.
pub fn is_frozen(mount: &Path) -> bool {
    let writer = BlockedWrite::start(mount);
    writer.done(Duration::from_millis(200)).is_none()
}

/// Is it thawed? Answered by a write that has time enough on a busy machine, where one that takes 200 ms
/// looks frozen.
pub fn is_thawed(mount: &Path) -> bool {
    BlockedWrite::start(mount).done(Duration::from_secs(5)).is_some()
}

/// A write that ends when the filesystem is thawed.
pub struct BlockedWrite {
    done: Receiver<Instant>,
}

impl BlockedWrite {
    /// Starts to write, in a thread that nobody waits for: it cannot be stopped while the filesystem is
    /// frozen.
    pub fn start(mount: &Path) -> Self {
        let file = mount.join(format!("probe-{:?}", std::thread::current().id()));
        let (tell, done) = channel();
        std::thread::spawn(move || {
            std::fs::write(file, "probe").unwrap();
            let _ = tell.send(Instant::now());
        });
        Self { done }
    }

    /// One that is certainly blocked now: the filesystem is frozen.
    pub fn certain(mount: &Path) -> Self {
        let (write, since, time) = (Self::start(mount), Instant::now(), jiff::Timestamp::now());
        if let Some(end) = write.done(Duration::from_millis(60)) {
            let took = end.duration_since(since);
            panic!("{} is not frozen: a write at {time} took {took:?}", mount.display());
        }
        write
    }

    /// When it was through, if it is within this time.
    pub fn done(&self, limit: Duration) -> Option<Instant> {
        self.done.recv_timeout(limit).ok()
    }
}

/// Watchdogs of this rig.
pub fn watchdogs(rig: &Rig) -> Vec<Pid> {
    companions(rig, b"__watchdog")
}

/// Freezers of this rig.
pub fn freezers(rig: &Rig) -> Vec<Pid> {
    companions(rig, b"__freezer")
}

/// Everybody who would thaw for a run of this rig.
pub fn guards(rig: &Rig) -> Vec<Pid> {
    [watchdogs(rig), freezers(rig)].concat()
}

/// Kills a run and whoever would thaw for it: what it has frozen stays frozen. Stopped first, none of them sees
/// another one die.
pub fn kill_with_guards(rig: &Rig, agent: Pid) {
    let guards = guards(rig);
    let all = |signal| guards.iter().for_each(|guard| kill(*guard, signal).unwrap());
    all(Signal::SIGSTOP);
    kill(agent, Signal::SIGKILL).unwrap();
    all(Signal::SIGKILL);
}

/// Those that hold a filesystem of this rig, found by their fds: runs of other tests have their own.
fn companions(rig: &Rig, argument: &[u8]) -> Vec<Pid> {
    let devices: Vec<u64> = rig.mounts().iter().map(|m| std::fs::metadata(m).unwrap().dev()).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // Processes come and go while this looks.
        let Ok(arguments) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if !arguments.split(|b| *b == 0).any(|a| a == argument) {
            continue;
        }
        let Ok(fds) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        let on_rig =
            |fd: std::fs::DirEntry| std::fs::metadata(fd.path()).is_ok_and(|m| devices.contains(&m.dev()));
        if fds.flatten().any(on_rig) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// Nothing is frozen, no watchdog and no freezer is left, no rescue was needed.
pub fn assert_clean(rig: &Rig) {
    assert!(!rig.rescued(), "the rescue had to thaw");
    for mount in rig.mounts() {
        assert!(!was_frozen(mount), "{} was left frozen", mount.display());
    }
    await_some("no watchdog left", || watchdogs(rig).is_empty().then_some(()));
    await_some("no freezer left", || freezers(rig).is_empty().then_some(()));
}

/// The same, and there is nothing that a next start would have to do.
pub fn assert_settled(rig: &Rig) {
    assert_clean(rig);
    assert_eq!(rig.journals(), Vec::<String>::new(), "a journal is left");
}

/// Appends and fsyncs without end: what makes an image taken without a freeze need its journal.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Writer {
    pub fn start(mount: &Path) -> Self {
        let mut file = std::fs::File::create(mount.join("log")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                file.write_all(&[b'x'; 512]).unwrap();
                file.sync_all().unwrap();
                written += 1;
            }
            written
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; how many records it wrote.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // never joined here: it may be blocked
    }
}

/// Does the ext4 image of a snapshot need its journal replayed?
pub fn needs_recovery(rig: &Rig, snapshot: &str) -> bool {
    let device = rig.sim(&["snapshot-device", snapshot, "--read-only"]);
    let output = Command::new("dumpe2fs").args(["-h", device.trim()]).stderr(Stdio::null()).output().unwrap();
    rig.sim(&["release-device", device.trim()]);
    let header = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && header.contains("has_journal"), "dumpe2fs: {header}");
    header.contains("needs_recovery")
}

/// A tag of a snapshot; empty when it is not there.
pub fn tag<'a>(snapshot: &'a Value, key: &str) -> &'a str {
    snapshot["tags"][key].as_str().unwrap_or_default()
}

/// Every snapshot there is carries this label for its set.
pub fn assert_labels(rig: &Rig, number: usize, label: &str) {
    let all = rig.snapshots();
    assert_eq!(all.len(), number, "{all:#?}");
    for snapshot in &all {
        assert_eq!(tag(snapshot, "stillpoint:consistency"), label, "{snapshot:#}");
        assert!(!tag(snapshot, "stillpoint:run").is_empty(), "{snapshot:#}");
    }
}

/// Unix nanoseconds of a time in a record.
pub fn nanoseconds(time: &Value) -> i128 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_nanosecond()
}

/// The process that asks or holds a database for this run.
pub fn database_process(run: &Run) -> Option<Pid> {
    let of = run.pid().to_string();
    let found = Command::new("pgrep")
        .args(["-P", &of, "-f", stillpoint::quiesce::databases::program::NAME])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap().trim().parse().ok().map(Pid::from_raw)
}
