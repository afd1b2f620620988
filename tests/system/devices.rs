//! Which devices a filesystem is on, as the kernel has it: not as names say that may lead elsewhere by now.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use rig::fuse::Fuse;
use rig::hooks::{log, noting};
use rig::probe::{assert_labels, assert_settled};
use rig::program::await_some;
use rig::{Fs, Rig, sh};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mount and a loop device of a test, undone before the rig's own.
struct Undone {
    at: PathBuf,
    device: Option<String>,
}

impl Undone {
    fn mount(arguments: &[&str], at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut words = arguments.to_vec();
        words.push(text(at));
        sh("mount", &words);
        Self { at: at.to_owned(), device: None }
    }

    /// A loop device over a file, mounted.
    fn image(device: String, at: &Path) -> Self {
        let mut undone = Self::mount(&[&device], at);
        undone.device = Some(device);
        undone
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
    }
}

fn loop_over(file: &Path) -> String {
    sh("losetup", &["-f", "--show", text(file)]).trim().to_owned()
}

fn plan(rig: &Rig, arguments: &[&str]) -> Value {
    let mut words = vec!["plan", "-o", "json"];
    words.extend(arguments);
    let ended = rig.run(&words);
    let plan: Value = serde_json::from_str(&ended.exits(0).out).unwrap();
    plan["plan"].clone()
}

/// The ids of a plan's volumes and why each is in the set.
fn reasons(plan: &Value) -> Vec<(String, String)> {
    let volumes = plan["volumes"].as_array().unwrap().iter();
    let of = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    volumes.map(|v| (of(v, "id"), of(v, "reason"))).collect()
}

/// Both volumes are in the set that one mount asks for, with these words for the second one.
fn assert_both(rig: &Rig, mount: &Path, words: &str) {
    let plan = plan(rig, &["--mount", text(mount)]);
    let mut found = reasons(&plan);
    found.sort_by_key(|(id, _)| *id != rig.id("a"));
    let expected = [
        (rig.id("a"), format!("holds {}", text(mount))),
        (rig.id("b"), format!("{words} of {}", text(mount))),
    ];
    assert_eq!(found, expected, "{plan:#}");
    let witnesses = plan["filesystems"][0]["witnesses"].as_array().unwrap();
    assert_eq!(witnesses.len(), 2, "the write counters of both are watched: {plan:#}");
    rig.run(&["snapshot", "--mount", text(mount)]).exits(0);
    assert_labels(rig, 2, "filesystem");
}

#[test]
fn an_external_journal_is_in_the_set_of_its_ext4() {
    let rig = Rig::formatted(&[("a", Fs::Ext4), ("b", Fs::Ext4)], "");
    sh("mke2fs", &["-q", "-F", "-b", "4096", "-O", "journal_dev", &rig.device("b")]);
    let journal = format!("device={}", rig.device("b"));
    sh("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", &journal, &rig.device("a")]);
    let mounted = Undone::mount(&[&rig.device("a")], &rig.mount("a"));
    assert_both(&rig, &mounted.at, "external journal");
    // With the journal's volume left out, nothing can be consistent.
    let ended = rig.run(&["snapshot", "--exclude-volume", &rig.id("b")]);
    ended.exits(78).says("only partly consistent");
    drop(mounted);
    rig.await_quiet();
}

#[test]
fn an_external_log_is_in_the_set_of_its_xfs() {
    let rig = Rig::formatted(&[("a", Fs::Xfs), ("b", Fs::Btrfs)], "");
    sh("wipefs", &["-q", "-a", &rig.device("b")]);
    let log = format!("logdev={}", rig.device("b"));
    sh("mkfs.xfs", &["-q", "-f", "-l", &format!("{log},size=64m"), &rig.device("a")]);
    // Mounted by a name that is gone afterwards, as a udev link would be.
    let link = PathBuf::from(format!("/dev/stillpoint-test-{}", std::process::id()));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(rig.device("b"), &link).unwrap();
    let mounted =
        Undone::mount(&["-o", &format!("logdev={}", text(&link)), &rig.device("a")], &rig.mount("a"));
    assert_both(&rig, &mounted.at, "external log");
    std::fs::remove_file(&link).unwrap();
    rig.run(&["plan"]).exits(78).says("external log").says("cannot be told");
    // The name is another device's now, which no filesystem has.
    let ended = loop {
        let free = sh("losetup", &["-f"]);
        std::os::unix::fs::symlink(free.trim(), &link).unwrap();
        let ended = rig.run(&["plan"]);
        std::fs::remove_file(&link).unwrap();
        // Another test may have taken it meanwhile.
        if !Path::new(&free.trim().replace("/dev/", "/sys/block/")).join("loop").exists() {
            break ended;
        }
    };
    ended.exits(78).says("cannot be told");
    drop(mounted);
    rig.await_quiet();
}

/// The seed is only read; without it the other half is nothing.
#[test]
fn the_seed_of_a_btrfs_is_in_its_set() {
    let rig = Rig::formatted(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)], "");
    sh("btrfstune", &["-S", "1", &rig.device("a")]);
    sh("wipefs", &["-q", "-a", &rig.device("b")]);
    let at = rig.mount("a");
    let seed = Undone::mount(&[&rig.device("a")], &at);
    // Where its mount is not seen: for btrfs, loops over one file are one device, which is mounted then.
    let add = "exec 9<\"$1\"; umount -l \"$1\"; exec btrfs -q device add -f \"$2\" /proc/self/fd/9";
    sh(
        "unshare",
        &["--mount", "--propagation", "private", "sh", "-c", add, "sh", text(&at), &rig.device("b")],
    );
    drop(seed);
    let mounted = Undone::mount(&[&rig.device("b")], &at);
    let plan = plan(&rig, &["--volume", &rig.id("b")]);
    assert_eq!(reasons(&plan).len(), 2, "{plan:#}");
    drop(mounted);
    rig.await_quiet();
}

/// The path of an image leads to another volume than when it was attached.
#[test]
fn an_image_is_where_the_kernel_has_its_file() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4), ("c", Fs::Btrfs)]);
    sh("umount", &[text(&rig.mount("b"))]);
    for outer in ["a", "c"] {
        let folder = rig.mount(outer).join("sub");
        std::fs::create_dir(&folder).unwrap();
        let image = folder.join("image");
        std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        sh("mkfs.ext4", &["-q", "-F", text(&image)]);
        let inner = Undone::image(loop_over(&image), &rig.path("inner"));
        let cover = Undone::mount(&[&rig.device("b")], &folder);
        let plan = plan(&rig, &["--mount", text(&inner.at)]);
        assert_eq!(reasons(&plan)[0].0, rig.id(outer), "{plan:#}");
        assert_eq!(reasons(&plan).len(), 1, "{plan:#}");
        rig.run(&["snapshot", "--mount", text(&inner.at)]).exits(0);
        drop(cover);
        drop(inner);
    }
    assert_settled(&rig);
}

/// As losetup makes one to give a disk another sector size, or to begin behind a header.
#[test]
fn a_loop_device_over_a_disk_is_on_that_disk() {
    let rig = Rig::formatted(&[("a", Fs::Ext4), ("b", Fs::Ext4)], "");
    let over = loop_over(Path::new(&rig.device("b")));
    sh("mkfs.ext4", &["-q", "-F", &over]);
    sh("mount", &[&rig.device("a"), text(&rig.mount("a"))]);
    let mounted = Undone::image(over, &rig.mount("b"));
    let plan = plan(&rig, &["--mount", text(&mounted.at)]);
    assert_eq!(
        reasons(&plan).iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
        [rig.id("b")],
        "{plan:#}"
    );
    drop(mounted);
    sh("umount", &[text(&rig.mount("a"))]);
    rig.await_quiet();
}

/// Subvolumes have numbers of their own, which no table of mounts has.
#[test]
fn an_image_in_a_subvolume_is_on_its_btrfs() {
    let rig = Rig::start(&[("a", Fs::Btrfs), ("b", Fs::Btrfs)]);
    let sub = rig.mount("b").join("sub");
    sh("btrfs", &["subvolume", "create", text(&sub)]);
    let image = sub.join("image");
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    sh("mkfs.ext4", &["-q", "-F", text(&image)]);
    let inner = Undone::image(loop_over(&image), &rig.path("inner"));
    for deleted in [false, true] {
        if deleted {
            std::fs::remove_file(&image).unwrap();
        }
        let plan = plan(&rig, &["--mount", text(&inner.at)]);
        assert_eq!(reasons(&plan).iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [rig.id("b")]);
    }
    // Its path leads nowhere now, and another mount of the subvolume is there.
    let other = Undone::mount(&["-o", "subvol=sub", &rig.device("b")], &rig.path("other"));
    let cover = Undone::mount(&["-t", "tmpfs", "cover"], &rig.mount("b"));
    assert_eq!(reasons(&plan(&rig, &["--mount", text(&inner.at)]))[0].0, rig.id("b"));
    drop((cover, other));
    drop(inner);
    assert_settled(&rig);
}

fn left_out<'a>(plan: &'a Value, what: &Path) -> &'a str {
    let lines = plan["left_out"].as_array().unwrap();
    let found = lines.iter().find(|l| l["what"] == text(what)).unwrap_or_else(|| panic!("{plan:#}"));
    found["reason"].as_str().unwrap()
}

#[test]
fn an_overlay_is_where_its_upper_layer_is() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let (a, b) = (rig.mount("a"), rig.mount("b"));
    for folder in ["l", "u", "w", "relative", "absolute", "linked"] {
        std::fs::create_dir(a.join(folder)).unwrap();
    }
    let to_a = format!("writes go to {}, which is made quiet", text(&a));
    let overlay = |options: &str, at: &Path| {
        let script = "cd \"$1\" && exec mount -t overlay overlay -o \"$2\" \"$3\"";
        sh("sh", &["-c", script, "sh", text(&a), options, text(at)]);
        Undone { at: at.to_owned(), device: None }
    };
    // As docker mounts an image of many layers.
    let relative = overlay("lowerdir=l,upperdir=u,workdir=w", &a.join("relative"));
    assert_eq!(left_out(&plan(&rig, &[]), &relative.at), to_a);
    drop(relative);

    let link = rig.path("link");
    std::os::unix::fs::symlink(&a, &link).unwrap();
    let options = |base: &Path| {
        let at = |name: &str| base.join(name).display().to_string();
        format!("lowerdir={},upperdir={},workdir={}", at("l"), at("u"), at("w"))
    };
    let linked = overlay(&options(&link), &a.join("linked"));
    assert_eq!(left_out(&plan(&rig, &[]), &linked.at), to_a, "its path begins on another filesystem");
    drop(linked);

    // Mounted, and then another volume over the folder of its layers.
    let absolute = overlay(&options(&a), &a.join("absolute"));
    sh("umount", &[text(&b)]);
    let cover = Undone::mount(&[&rig.device("b")], &a.join("u"));
    assert_eq!(left_out(&plan(&rig, &[]), &absolute.at), to_a);
    drop(cover);
    drop(absolute);
    sh("mount", &[&rig.device("b"), text(&b)]);
    assert_settled(&rig);
}

/// Anybody may mount a FUSE with any source; then nobody else's run may be refused for it.
#[test]
fn the_source_of_a_fuse_stops_no_run() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Ext4)]);
    let fuse = Fuse::mount(&rig.path("fuse"), &rig.device("b"), 0);
    fuse.fall_silent();
    rig.run(&["snapshot"]).exits(0);
    assert_labels(&rig, 2, "filesystem");
    drop(fuse);
    assert_settled(&rig);
}

/// Helpers of the program that still wait for a device.
fn waiting(at: &Path) -> usize {
    let at = text(at).as_bytes();
    let of_this_test = |entry: &std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let mounts = std::fs::read(entry.path().join("mountinfo")).ok()?;
        let inspects = command.split(|b| *b == 0).any(|word| word == b"__inspect");
        Some(inspects && mounts.windows(at.len()).any(|w| w == at))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(|e| of_this_test(e) == Some(true)).count()
}

/// A disk that nobody wants in the set, and that does not answer: as iSCSI whose server is gone.
#[test]
fn a_disk_outside_the_set_that_does_not_answer_holds_up_nothing() {
    let rig = Rig::start(&[("a", Fs::Ext4), ("b", Fs::Xfs)]);
    let fuse = Fuse::mount(&rig.path("fuse"), "server", 320 << 20);
    let disk = loop_over(&fuse.disk());
    sh("mkfs.xfs", &["-q", "-f", &disk]);
    let hung = Undone::image(disk, &rig.path("hung"));
    sh("sync", &["-f", text(&hung.at)]);
    fuse.fall_silent();
    let mut read = Command::new("dd");
    read.args(["count=1", "of=/dev/null", "status=none"]);
    let mut read = read.arg(format!("if={}", hung.device.as_ref().unwrap())).spawn().unwrap();
    assert!(rig::program::wait(&mut read, std::time::Duration::from_secs(3)).is_none(), "it answers");

    assert!(left_out(&plan(&rig, &[]), &hung.at).starts_with("its image file is on"));
    rig.configure(&format!("[plan.default]\n{}", noting(&rig, "db")));
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(log(&rig), ["pre-db", "post-db taken"]);
    assert_labels(&rig, 2, "application");
    drop(fuse);
    drop(hung);
    let _ = read.wait();
    await_some("the helpers to end", || (waiting(&rig.mount("a")) == 0).then_some(()));
    assert_settled(&rig);
}
