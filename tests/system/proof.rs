//! What a label rests on, and what takes it down: a proof that could not have failed proves nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use rig::namespace::Namespace;
use rig::probe::{assert_labels, assert_settled};
use rig::window::{after_the_plan, before_the_freeze, in_the_window};
use rig::{Fs, Rig, sh};
use serde_json::Value;
use stillpoint::host::kernel::{Kernel, Linux};
use stillpoint::host::superblock;
use stillpoint::interrupt::Interrupt;
use stillpoint::plan::{Method, PlannedFilesystem, Wave, WitnessDevice};
use stillpoint::window::guard::StartGuard;
use stillpoint::window::guard::process::Program;
use stillpoint::window::{Extras, Limits, Machine, Prepared};

use crate::mounts::Elsewhere;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a filesystem in an image file on `$1`, mounted at `$2`, whose free blocks have no room of their own.
const THIN: &str = "head -c 24M /dev/zero > $1/image; mkdir $2; \
    mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 $1/image; \
    mount -o loop $1/image $2; fstrim $2; sync -f $2; sync -f $1";
/// Fills what holds it, and writes to it all the same: write(2) succeeds, and writing back cannot.
const LOSE: &str = "for size in 1M 4k; do dd if=/dev/zero of=$1/fill-$size bs=$size status=none 2>/dev/null || :; done; \
    sync -f $1; head -c 4M /dev/zero | tr '\\0' p > $2/precious";

/// One of these, for `a` and a mount point `thin` beside it.
fn thin(script: &str, rig: &Rig) -> String {
    script.replace("$1", text(&rig.mount("a"))).replace("$2", text(&rig.path("thin")))
}

/// Unmounts it, however the test ends.
struct Thin(PathBuf);

impl Drop for Thin {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// What could not be written is known before the freeze, as long as there is a flush after it: then nothing is taken.
#[test]
fn a_write_that_was_lost_before_the_last_flush_ends_the_run() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    sh("sh", &["-euc", &thin(THIN, &rig)]);
    let mounted = Thin(rig.path("thin"));
    let witness = File::open(&mounted.0).unwrap();
    let run = before_the_freeze(&rig, &["snapshot", "--on-degraded", "keep"]);
    sh("sh", &["-euc", &thin(LOSE, &rig)]);
    let ended = run.end();
    assert!(nix::unistd::syncfs(witness.as_fd()).is_err(), "nothing was lost: this test shows nothing");
    ended.exits(21).says(&format!("cannot flush {}", mounted.0.display()));
    assert_eq!(rig.creates().len(), 0);
    drop((witness, mounted));
    sh("sh", &["-euc", &thin("rm $1/fill-*", &rig)]);
    assert_settled(&rig);
}

/// FIFREEZE and FITHAW return 0 on a filesystem whose last writes were lost on their way to the device, after the
/// last flush. The watchdog is the rescue of this window.
#[test]
fn a_write_that_was_lost_after_the_last_flush_is_a_doubt() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    sh("sh", &["-euc", &thin(THIN, &rig)]);
    let mounted = Thin(rig.path("thin"));
    let dev = superblock::of_fd(File::open(&mounted.0).unwrap()).unwrap();
    let stat = format!("/sys/dev/block/{dev}/stat").into();
    let filesystem = PlannedFilesystem {
        dev,
        mount_points: vec![mounted.0.clone()],
        roots: vec!["/".into()],
        mount_point: mounted.0.clone(),
        fstype: "ext4".into(),
        uuid: None,
        options: "rw".into(),
        method: Method::Freeze,
        wave: Wave::Data,
        stack: "loop".into(),
        witnesses: vec![WitnessDevice { name: "loop".into(), dev, stat }],
        volumes: vec![],
        reason: String::new(),
    };
    let plan = rig::made::plan(vec![filesystem]);
    let limits = Limits {
        window: Duration::from_secs(20),
        freeze: Duration::from_secs(10),
        flush: Duration::from_secs(60),
    };
    let kernel: Arc<dyn Kernel> = Arc::new(Linux);
    let watchdog: Arc<dyn StartGuard> = Arc::new(Program::new(rig::stillpoint()));
    let machine = Machine { root: Path::new("/"), kernel: &kernel, watchdog: &watchdog };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let doubt = runtime.block_on(async {
        let mut never = Interrupt::never();
        let prepared = Prepared::open(machine, &plan, limits, &mut never, Extras::default()).await.unwrap();
        sh("sh", &["-euc", &thin(LOSE, &rig)]);
        let frozen = prepared.freeze(&mut never).await.unwrap();
        rig::made::thawed(frozen).await.doubt()
    });
    let doubt = doubt.unwrap();
    assert!(doubt.contains("did not all reach its device") && doubt.contains(text(&mounted.0)), "{doubt}");
    drop(mounted);
    sh("sh", &["-euc", &thin("rm $1/fill-*", &rig)]);
}

/// What is unmounted over the window is asked as well, before it is unmounted: nobody can be asked
/// afterwards.
#[test]
fn what_is_to_be_unmounted_and_could_not_be_written_is_refused() {
    let space = Namespace::start(&[("a", Fs::Ext4)]);
    space.sh(&thin(THIN, &space.rig));
    space.unmounting(&["thin"], "");
    space.sh(&thin(LOSE, &space.rig));
    space.run(&["snapshot"]).exits(21).says(&format!("cannot flush {}", space.at("thin")));
    assert_eq!(space.rig.creates().len(), 0);
    space.sh(&thin("umount $2; rm $1/fill-*", &space.rig));
    assert_settled(&space.rig);
}

/// Whether the kernel counts the reads and writes of a rig's volume.
struct Counted(PathBuf);

impl Counted {
    fn switch(rig: &Rig, name: &str, on: bool) -> Self {
        let device = rig.device(name).replace("/dev/", "");
        let switch = Path::new("/sys/block").join(device).join("queue/iostats");
        std::fs::write(&switch, if on { "1" } else { "0" }).unwrap();
        Self(switch)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.0, "1");
    }
}

/// Writes and syncs without end, as a process of its own.
struct Busy(Child);

impl Busy {
    fn on(mount: &Path) -> Self {
        let script = "i=0; while :; do i=$((i+1)); echo $i > \"$1/w$((i%9))\"; sync -f \"$1\"; done";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", text(mount)]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn first_snapshot(record: &Value) -> &str {
    record["snapshots"][0]["id"].as_str().unwrap()
}

/// Of what is only synced, the write counter is the only proof. One that does not count stands still whatever
/// is written.
#[test]
fn a_counter_that_is_switched_off_does_not_prove_a_synced_filesystem_quiet() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&format!("[defaults]\nmethods = {{ \"{}\" = \"sync\" }}\n", text(&rig.mount("a"))));
    let off = Counted::switch(&rig, "a", false);
    let writer = Busy::on(&rig.mount("a"));
    let record = rig.run(&["snapshot", "-o", "json"]).exits(22).record();
    drop(writer);
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("nothing shows that") && reason.contains("statistics are switched off"),
        "{reason}"
    );
    assert_eq!(record["achieved"], "crash", "{record:#}");
    drop(off);

    let _on = Counted::switch(&rig, "a", true);
    let record = rig.run(&["snapshot", "-o", "json"]).exits(0).record();
    assert_eq!(record["achieved"], "filesystem", "a counter that counts proves it: {record:#}");
    assert_settled(&rig);
}

/// It counted before the window and not at its end: nobody knows since when.
#[test]
fn a_counter_that_is_switched_off_in_the_window_proves_nothing_either() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    rig.configure(&format!("[defaults]\nmethods = {{ \"{}\" = \"sync\" }}\n", text(&rig.mount("a"))));
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    let _off = Counted::switch(&rig, "a", false);
    let record = run.end().exits(22).record();
    assert!(record["reason"].as_str().unwrap().contains("not after it"), "{record:#}");
    assert_settled(&rig);
}

/// A freeze has a proof of its own: what FITHAW says. That the second one is missing is told.
#[test]
fn a_freeze_without_an_independent_witness_is_told() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let _off = Counted::switch(&rig, "b", false);
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["achieved"], "filesystem");
    let blind = record["unwitnessed"].as_array().unwrap();
    assert_eq!(blind.len(), 1, "b alone: {record:#}");
    rig.run(&["snapshot"]).exits(0).says("no independent witness: ");
    assert_settled(&rig);
}

/// A volume with two partitions, of which the first is mounted.
struct Partitioned {
    rig: Rig,
}

impl Partitioned {
    fn start() -> Self {
        let parts = Self { rig: Rig::formatted(&[("a", Fs::Ext4)], "") };
        for (number, start) in [("1", "2048"), ("2", "65536")] {
            sh("addpart", &[&parts.rig.device("a"), number, start, "61440"]);
            let not_lazy = "lazy_itable_init=0,lazy_journal_init=0";
            sh("mkfs.ext4", &["-q", "-F", "-E", not_lazy, &parts.node(number)]);
        }
        sh("mount", &[&parts.node("1"), text(&parts.rig.mount("a"))]);
        parts.rig.control("POST", "view", "");
        parts
    }

    fn node(&self, number: &str) -> String {
        format!("{}p{number}", self.rig.device("a"))
    }

    /// The set is refused, or labelled `crash` where that is allowed; either way it is said who it is.
    fn is_not_consistent(&self, why: &str) -> Value {
        let plan = self.rig.run(&["plan"]);
        let said = plan.exits(0).out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(why), "{said}");
        let before = self.rig.creates().len();
        self.rig.run(&["snapshot"]).exits(78).says("crash consistency at best");
        assert_eq!(self.rig.creates().len(), before, "refused before anything is touched");
        let record = self.rig.run(&["snapshot", "--on-degraded", "keep", "-o", "json"]).exits(10).record();
        assert_eq!(record["achieved"], "crash", "{record:#}");
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains("cannot be taken for unused") || reason.contains(why), "{reason}");
        record
    }

    fn is_consistent(&self) -> Value {
        let record = self.rig.run(&["snapshot", "-o", "json"]).exits(0).record();
        assert_eq!(record["achieved"], "filesystem", "{record:#}");
        record
    }
}

impl Drop for Partitioned {
    fn drop(&mut self) {
        let _ = umount2(&self.rig.mount("a"), MntFlags::MNT_DETACH);
        for number in ["1", "2"] {
            let _ = Command::new("delpart").args([&self.rig.device("a"), number]).status();
        }
    }
}

/// Nobody can freeze it, and it is on the same volume: what it holds was never flushed.
#[test]
fn a_partition_that_another_namespace_has_mounted_takes_the_label_down() {
    let parts = Partitioned::start();
    let at = parts.rig.path("elsewhere");
    let elsewhere = Elsewhere::mount(&parts.node("2"), &at);
    let record = parts.is_not_consistent("mounted on");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains(text(&at)) && reason.contains("(pid "), "where, and whose: {reason}");
    drop(elsewhere);
    parts.is_consistent();
    assert_settled(&parts.rig);
}

/// No table of mounts shows it any more, and it is written to all the same.
#[test]
fn a_filesystem_that_was_unmounted_lazily_takes_the_label_down() {
    let parts = Partitioned::start();
    let at = parts.rig.path("lazy");
    std::fs::create_dir(&at).unwrap();
    sh("mount", &[&parts.node("2"), text(&at)]);
    let mut file = File::create(at.join("file")).unwrap();
    sh("umount", &["--lazy", text(&at)]);
    file.write_all(b"not flushed").unwrap();
    parts.is_not_consistent("cannot be taken for unused");
    drop(file);
    parts.is_consistent();
    assert_settled(&parts.rig);
}

/// A database on a raw partition, or a virtual machine: it has claimed nothing.
#[test]
fn a_device_that_a_process_may_write_to_takes_the_label_down() {
    let parts = Partitioned::start();
    let open = |path: &str| OpenOptions::new().write(true).open(path).unwrap();
    let raw = open(&parts.node("2"));
    parts.is_not_consistent("open for writing");
    drop(raw);
    // The whole disk: what is written through it is in no partition's counter.
    let whole = open(&parts.rig.device("a"));
    parts.is_not_consistent("open for writing");
    drop(whole);
    // By a node of any name, for numbers count.
    let (other, node) = (format!("/dev/stillpoint-test-{}", std::process::id()), parts.node("2"));
    sh("sh", &["-euc", &format!("mknod {other} b $(stat -c '0x%t 0x%T' {node})")]);
    let raw = open(&other);
    std::fs::remove_file(&other).unwrap();
    parts.is_not_consistent("open for writing");
    drop(raw);
    let script = "import mmap, os, sys\nf = os.open(sys.argv[1], os.O_RDWR)\n\
                  m = mmap.mmap(f, 4096, mmap.MAP_SHARED)\nos.close(f)\nprint('up', flush=True)\n\
                  sys.stdin.read()";
    let mut python = Command::new("python3");
    python.args(["-c", script, &node]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let reads = File::open(&node).unwrap();
    parts.is_not_consistent("mapped for writing");
    drop(child.stdin.take());
    child.wait().unwrap();
    parts.is_consistent();
    drop(reads);
    assert_settled(&parts.rig);
}

/// One that nobody uses is held over the window, and given back after it. What the page cache had for it is
/// in the set.
#[test]
fn a_partition_that_nobody_uses_is_claimed_over_the_window() {
    let parts = Partitioned::start();
    let at = parts.rig.path("second");
    std::fs::create_dir(&at).unwrap();
    let mount = || Command::new("mount").arg(parts.node("2")).arg(&at).output().unwrap();
    // Somebody reads, so that the writer's close is not the last one, which would flush.
    let reader = File::open(parts.node("2")).unwrap();
    let writer = OpenOptions::new().write(true).open(parts.node("2")).unwrap();
    writer.write_all_at(b"written", 20 << 20).unwrap();
    drop(writer);
    let run = in_the_window(&parts.rig, &["snapshot", "-o", "json"]);
    assert!(!mount().status.success(), "it is free, and could be mounted");
    let record = run.end().exits(0).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    let image = parts.rig.sim(&["snapshot-device", first_snapshot(&record), "--read-only"]);
    let mut bytes = [0; 7];
    File::open(image.trim()).unwrap().read_exact_at(&mut bytes, 65536 * 512 + (20 << 20)).unwrap();
    parts.rig.sim(&["release-device", image.trim()]);
    assert_eq!(&bytes, b"written");
    drop(reader);
    let taken = mount();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    umount2(&at, MntFlags::empty()).unwrap();
    assert_settled(&parts.rig);
}

/// It was mounted elsewhere after the plan was made, before anything was claimed.
#[test]
fn what_came_into_use_after_the_plan_takes_the_label_down() {
    let parts = Partitioned::start();
    let run = after_the_plan(&parts.rig, &["snapshot", "-o", "json"]);
    let elsewhere = Elsewhere::mount(&parts.node("2"), &parts.rig.path("elsewhere"));
    let ended = run.end();
    let record = ended.exits(22).record();
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("cannot be taken for unused") && reason.contains("(pid "), "{reason}");
    assert_labels(&parts.rig, 1, "crash");
    drop(elsewhere);
    assert_settled(&parts.rig);
}
