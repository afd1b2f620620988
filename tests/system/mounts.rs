//! Mounts as they really are: nested, bound, read-only, stacked on one another, gone during the window.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use rig::hooks::{log, noting};
use rig::patience::let_pass;
use rig::probe::{BlockedWrite, assert_labels, assert_settled, is_thawed, needs_recovery};
use rig::program::{Run, await_some, wait};
use rig::window::in_the_window;
use rig::{Fs, Rig, sh};

/// A further mount of a test, undone before the rig's own.
struct Also(PathBuf);

impl Also {
    fn mount(arguments: &[&str], at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut words = arguments.to_vec();
        words.push(at.to_str().unwrap());
        sh("mount", &words);
        Self(at.to_owned())
    }
}

impl Drop for Also {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A run that must freeze all, take all, and leave nothing.
fn takes_all(rig: &Rig, volumes: usize) -> serde_json::Value {
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_labels(rig, volumes, "filesystem");
    record
}

#[test]
fn a_filesystem_mounted_on_another_of_the_set_is_frozen_with_it() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let inner = rig.mount("a").join("deep/inner");
    sh("umount", &[text(&rig.mount("b"))]);
    let nested = Also::mount(&[&rig.device("b")], &inner);
    takes_all(&rig, 2);
    std::fs::write(inner.join("file"), "it thawed").unwrap();
    drop(nested);
    assert_settled(&rig);
}

#[test]
fn bind_mounts_and_subvolumes_are_frozen_once() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Btrfs)]);
    std::fs::create_dir(rig.mount("a").join("dir")).unwrap();
    sh("btrfs", &["subvolume", "create", text(&rig.mount("b").join("sub"))]);
    let _bound = Also::mount(&["--bind", text(&rig.mount("a").join("dir"))], &rig.path("bound"));
    let _sub = Also::mount(&["-o", "subvol=sub", &rig.device("b")], &rig.path("sub"));
    let record = takes_all(&rig, 2);
    // A second FIFREEZE of one superblock would have said EBUSY and failed the run.
    assert!(record["reason"].is_null(), "{record:#}");
    assert_settled(&rig);
}

/// One filesystem over two volumes: both are one set, and what they hold at that point in time is one
/// filesystem again.
#[test]
fn a_btrfs_over_two_volumes_is_taken_whole() {
    // Never mounted one by one: a parallel test's mount namespace could hold a copy of such a mount for a
    // moment.
    let rig = Rig::formatted(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)], "");
    sh("mkfs.btrfs", &["-q", "-f", "-m", "raid1", "-d", "raid0", &rig.device("a"), &rig.device("b")]);
    let both = Also::mount(&[&rig.device("a")], &rig.path("both"));
    let data: Vec<u8> = (0..8_u32 << 20).map(|n| (n / 4096) as u8).collect();
    std::fs::write(both.0.join("file"), &data).unwrap();
    let record = takes_all(&rig, 2);
    assert_eq!(record["plan"]["filesystems"].as_array().unwrap().len(), 1);
    std::fs::remove_file(both.0.join("file")).unwrap();
    drop(both);
    rig.await_quiet();

    // btrfs finds its devices by its UUID: the originals have to be gone first. Another test's mount
    // namespace, made meanwhile, may still have a copy of the mount.
    for name in ["a", "b"] {
        await_some("the kernel to forget the device", || {
            let mut forget = Command::new("btrfs");
            forget.args(["device", "scan", "--forget", &rig.device(name)]).stderr(Stdio::null());
            forget.status().unwrap().success().then_some(())
        });
        sh("wipefs", &["-q", "-a", &rig.device(name)]);
    }
    let snapshots = record["snapshots"].as_array().unwrap();
    let image =
        |s: &serde_json::Value| rig.sim(&["snapshot-device", s["id"].as_str().unwrap()]).trim().to_owned();
    let images: Vec<String> = snapshots.iter().map(image).collect();
    sh("btrfs", &["device", "scan", &images[0], &images[1]]);
    let restored = Also::mount(&[&images[0]], &rig.path("restored"));
    assert!(std::fs::read(restored.0.join("file")).unwrap() == data, "the file differs");
    drop(restored);
    for device in &images {
        rig.sim(&["release-device", device]);
    }
    // Nothing of the rig's own is mounted; that it was thawed is shown by the file that was removed.
    assert!(!rig.rescued(), "the rescue had to thaw");
    assert_eq!(rig.journals(), Vec::<String>::new(), "a journal is left");
}

#[test]
fn a_read_only_mount_freezes_too() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    sh("mount", &["-o", "remount,ro", text(&rig.mount("a"))]);
    takes_all(&rig, 2);
    assert_settled(&rig);
}

#[test]
fn an_overlay_waits_with_its_upper_layer() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    for folder in ["a/upper", "a/work", "lower"] {
        std::fs::create_dir(rig.path(folder)).unwrap();
    }
    let layer = |name: &str| rig.path(name).display().to_string();
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", layer("lower"), layer("a/upper"), layer("a/work"));
    let overlay = Also::mount(&["-t", "overlay", "-o", &layers, "overlay"], &rig.path("merged"));
    let run = in_the_window(&rig, &["snapshot"]);
    let write = BlockedWrite::certain(&rig.path("merged"));
    run.end().exits(0);
    assert!(write.done(Duration::from_secs(5)).is_some(), "the overlay still waits");
    drop(overlay);
    assert_settled(&rig);
}

/// An image file on `a` with a filesystem of its own, mounted; the loop device goes with the mount.
fn image_on(rig: &Rig, name: &str) -> Also {
    let image = rig.mount(name).join("image");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    sh("mkfs.ext4", &["-q", "-F", text(&image)]);
    Also::mount(&["-o", "loop", text(&image)], &rig.path(&format!("in-{name}")))
}

/// Freezing the outer one first would hang the inner freeze for good. Both orders of mounting are here: `a`
/// holds an image from before, and `b` was mounted again after its image.
#[test]
fn an_image_is_frozen_before_what_holds_it() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let in_a = image_on(&rig, "a");
    let in_b = image_on(&rig, "b");
    let again = Also::mount(&[&rig.device("b")], &rig.path("again"));
    sh("umount", &["--lazy", text(&rig.mount("b"))]);
    let ended = rig.run(&["snapshot", "-o", "json"]);
    let record = ended.exits(0).record();
    assert_eq!(record["achieved"], "filesystem", "{record:#}");
    for folder in [&in_a, &in_b, &again] {
        assert!(is_thawed(&folder.0), "{} stays frozen", folder.0.display());
    }
    drop((in_a, in_b, again));
    assert_settled(&rig);
}

/// Is this process inside a flush, waiting for a disk?
fn flushes(run: &Run) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", run.pid())) else { return false };
    let stats = threads.flatten().filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.contains(" (flush) D "))
}

/// `a` holds an image and is frozen by somebody else; `b` is free. Starts a run, and gives `b` back while
/// they still hold `a`.
fn on_a_foreign_freeze(rig: &Rig, dirty: bool) -> (Also, Run) {
    let inner = image_on(rig, "a");
    if dirty {
        std::fs::write(inner.0.join("dirty"), "data").unwrap();
    }
    sh("fsfreeze", &["--freeze", text(&rig.mount("a"))]);
    let run = rig.spawn(&["snapshot", "--window", "6s"]);
    if dirty {
        await_some("the flush", || flushes(&run).then_some(()));
        let_pass("more than the window of 6 s, which must not have begun", Duration::from_secs(8));
    } else {
        await_some("the verdict", || run.said().contains("STILL FROZEN").then_some(()));
    }
    assert!(is_thawed(&rig.mount("b")), "b stays frozen");
    (inner, run)
}

fn assert_free(mounts: &[&Path]) {
    for mount in mounts {
        assert!(is_thawed(mount), "{} stays frozen", mount.display());
    }
}

/// Flushing the image waits for them: nothing of ours is frozen meanwhile, and the set is taken once they are
/// done.
#[test]
fn a_dirty_image_on_what_somebody_else_froze_is_waited_for() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (inner, run) = on_a_foreign_freeze(&rig, true);
    sh("fsfreeze", &["--unfreeze", text(&rig.mount("a"))]);
    run.end().exits(0);
    assert_free(&[&inner.0, &rig.mount("a"), &rig.mount("b")]);
    drop(inner);
    assert_settled(&rig);
}

/// A run whose flush does not come back, up to the moment that it is in it.
fn in_the_flush(rig: &Rig, timeout: &str) -> (Also, Run) {
    let inner = image_on(rig, "a");
    std::fs::write(inner.0.join("dirty"), "data").unwrap();
    sh("fsfreeze", &["--freeze", text(&rig.mount("a"))]);
    rig.configure(&format!("[plan.default]\nflush_timeout = \"{timeout}\"\n{}", noting(rig, "db")));
    let run = rig.spawn(&["snapshot"]);
    await_some("the pre hook", || (log(rig) == ["pre-db"]).then_some(()));
    (inner, run)
}

/// The applications are not held for as long as somebody else likes. The process itself cannot go before its
/// syncfs returns.
#[test]
fn a_flush_that_does_not_come_back_ends_the_run_and_releases_the_applications() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (inner, mut run) = in_the_flush(&rig, "3s");
    await_some("the post hook, while they still hold it", || log(&rig).into_iter().nth(1));
    await_some("the report", || run.said().contains("hint: ").then_some(()));
    assert!(!run.over(), "nothing hung: this test shows nothing");
    assert_free(&[&rig.mount("b")]);
    sh("fsfreeze", &["--unfreeze", text(&rig.mount("a"))]);
    let ended = run.end();
    ended
        .exits(21)
        .says(&format!("flushing takes longer than 3s: {}", inner.0.display()))
        .says("flush_timeout");
    assert_eq!(log(&rig), ["pre-db", "post-db failed"]);
    assert_eq!(rig.creates().len(), 0);
    assert_free(&[&inner.0, &rig.mount("a")]);
    drop(inner);
    assert_settled(&rig);
}

#[test]
fn a_signal_ends_a_flush_that_does_not_come_back() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (inner, mut run) = in_the_flush(&rig, "10m");
    await_some("the flush", || flushes(&run).then_some(()));
    assert_eq!(log(&rig), ["pre-db"]);
    run.signal(Signal::SIGTERM);
    await_some("the post hook, while they still hold it", || log(&rig).into_iter().nth(1));
    await_some("the report", || run.said().contains("interrupted by SIGTERM").then_some(()));
    assert!(!run.over(), "nothing hung: this test shows nothing");
    sh("fsfreeze", &["--unfreeze", text(&rig.mount("a"))]);
    assert_eq!(run.end().signal, Some(Signal::SIGTERM as i32));
    assert_eq!(log(&rig), ["pre-db", "post-db failed"]);
    assert_eq!(rig.creates().len(), 0);
    assert_free(&[&inner.0, &rig.mount("a"), &rig.mount("b")]);
    drop(inner);
    assert_settled(&rig);
}

/// Freezing the image writes to it, which hangs until they thaw: it is told, nothing is taken, and it is
/// thawed as soon as it can be.
#[test]
fn a_clean_image_on_what_somebody_else_froze_is_stuck_and_told() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let (inner, run) = on_a_foreign_freeze(&rig, false);
    sh("fsfreeze", &["--unfreeze", text(&rig.mount("a"))]);
    run.end().exits(40).says("STILL FROZEN").says(text(&inner.0)).says("freezing took longer than");
    assert_eq!(rig.creates().len(), 0);
    assert_free(&[&inner.0, &rig.mount("a"), &rig.mount("b")]);
    rig.run(&["thaw"]).exits(0);
    drop(inner);
    assert_settled(&rig);
}

#[test]
fn a_filesystem_lazily_unmounted_during_the_window_is_thawed_all_the_same() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let run = in_the_window(&rig, &["snapshot", "-o", "json"]);
    // In the agent's own namespace: mounts of the test's namespace do not reach it.
    let agent = run.pid().to_string();
    sh("nsenter", &["--mount", "--target", &agent, "umount", "--lazy", text(&rig.mount("a"))]);
    sh("umount", &["--lazy", text(&rig.mount("a"))]);
    let record = run.end().exits(0).record();
    // The held fd kept it: FITHAW said 0, and its write counter did not move.
    assert_eq!(record["achieved"], "filesystem");
    sh("mount", &[&rig.device("a"), text(&rig.mount("a"))]);
    assert!(is_thawed(&rig.mount("a")), "a stays frozen");
    let snapshot =
        record["snapshots"].as_array().unwrap().iter().find(|s| s["volume_id"] == rig.id("a").as_str());
    assert!(!needs_recovery(&rig, snapshot.unwrap()["id"].as_str().unwrap()));
    assert_settled(&rig);
}

/// A process with a mount namespace of its own, in which a filesystem is mounted that nobody else sees.
pub(crate) struct Elsewhere(Child);

impl Elsewhere {
    pub(crate) fn mount(device: &str, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let script =
            "mount \"$1\" \"$2\" && touch \"$2/there\" && sync -f \"$2\" && echo up && exec sleep 600";
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", device, text(at)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        Self(child)
    }

    /// Writes to it without end, as its owner would.
    fn write_on(&self, at: &Path) -> Busy {
        let script = "while :; do echo x >> \"$1/log\"; sync -f \"$1\"; done";
        let target = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &target, "sh", "-c", script, "sh", text(at)]);
        Busy(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A writer that ends with its test.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = wait(&mut self.0, Duration::from_secs(5));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = wait(&mut self.0, Duration::from_secs(5));
    }
}

/// Nobody can freeze what he does not see; its volume stays out of the set, or takes the label down.
#[test]
fn what_is_mounted_only_in_another_namespace_is_never_called_consistent() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    sh("umount", &[text(&rig.mount("b"))]);
    let elsewhere = Elsewhere::mount(&rig.device("b"), &rig.path("elsewhere"));
    let writer = elsewhere.write_on(&rig.path("elsewhere"));

    takes_all(&rig, 1);
    rig.configure("[plan.default]\nunmounted_volumes = \"crash\"\n");
    let ended = rig.run(&["snapshot", "--on-degraded", "keep", "-o", "json"]);
    let record = ended.exits(10).record();
    assert_eq!(record["achieved"], "crash", "{record:#}");
    drop(writer);
    drop(elsewhere);
    sh("mount", &[&rig.device("b"), text(&rig.mount("b"))]);
    assert_settled(&rig);
}

/// Who has it is named by plan and doctor, by process; also where no process is left.
#[test]
fn what_other_namespaces_hold_is_named() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4), ("c", Fs::Xfs)]);
    sh("umount", &[text(&rig.mount("b"))]);
    sh("umount", &[text(&rig.mount("c"))]);
    let findings = || {
        let doctor = rig.run(&["doctor", "-o", "json"]).record();
        let all = doctor["findings"].as_array().unwrap().clone();
        let of = all.into_iter().filter(|f| f["id"] == "other-namespaces" || f["id"] == "device-in-use");
        of.collect::<Vec<_>>()
    };
    let fine = findings();
    assert_eq!((fine.len(), &fine[0]["severity"]), (1, &"ok".into()), "{fine:?}");

    let at = rig.path("elsewhere");
    let elsewhere = Elsewhere::mount(&rig.device("b"), &at);
    let who = format!("ext4 is mounted on {} in the mount namespace of", at.display());
    let pid = format!("sleep (pid {})", elsewhere.0.id());
    let plan = rig.run(&["plan", "-o", "json"]).record();
    let left = plan["plan"]["left_out"].to_string();
    assert!(left.contains(&who) && left.contains(&pid), "{left}");
    let found = findings();
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&finding["severity"], &finding["where"][0]), (&"warning".into(), &rig.id("b").into()));
    let what = finding["what"].as_str().unwrap();
    assert!(what.contains(&who) && what.contains(&pid), "{what}");
    assert!(finding["why"].as_str().unwrap().contains("not in the set"), "{finding}");

    // In the set at `crash`, with the same name for it.
    rig.configure("[plan.default]\nunmounted_volumes = \"crash\"\non_degraded = \"keep\"\n");
    let plan = rig.run(&["plan", "-o", "json"]).record();
    assert!(plan["plan"]["notes"].to_string().contains(&pid), "{plan:#}");
    let why = findings()[0]["why"].to_string();
    assert!(why.contains("only crash-consistent in the set"), "{why}");
    rig.configure("");

    // A namespace in which no process is.
    let kept = rig.path("kept");
    let other = Elsewhere::mount(&rig.device("c"), &kept);
    let file = std::fs::File::open(format!("/proc/{}/ns/mnt", other.0.id())).unwrap();
    drop(other);
    let found = findings();
    assert_eq!(found.len(), 2, "{found:?}");
    let what = found.iter().map(|f| f["what"].to_string()).find(|w| w.contains("xfs is mounted")).unwrap();
    assert!(what.contains(text(&kept)) && what.contains("no process"), "{what}");
    drop(file);
    drop(elsewhere);
    sh("mount", &[&rig.device("b"), text(&rig.mount("b"))]);
    sh("mount", &[&rig.device("c"), text(&rig.mount("c"))]);
    assert_settled(&rig);
}

/// Seen here and in another namespace, it is one filesystem: frozen once, and the other side waits too.
#[test]
fn what_is_mounted_here_and_elsewhere_is_frozen_for_both() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let elsewhere = Elsewhere::mount(&rig.device("a"), &rig.path("elsewhere"));
    let writer = elsewhere.write_on(&rig.path("elsewhere"));
    takes_all(&rig, 2);
    drop(writer);
    drop(elsewhere);
    assert_settled(&rig);
}
