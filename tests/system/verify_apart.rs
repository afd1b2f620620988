//! Filesystems whose journal or log is on a device of its own: what verify says of them, as the kernel wrote them.

use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use rig::{Fs, Rig, sh};
use serde_json::Value;

use crate::verify::{take, without_a_freeze};

/// Unmounted before the rig's volumes go.
struct Mounted(PathBuf);

impl Mounted {
    fn new(words: &[&str], at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        sh("mount", &[words, &[at.to_str().unwrap()]].concat());
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn write(at: &Path, name: &str) {
    for n in 0..50 {
        let mut file = std::fs::File::create(at.join(format!("{name}-{n}"))).unwrap();
        file.write_all(b"written").unwrap();
        file.sync_all().unwrap();
    }
}

/// Sound where it was frozen, and a fault under the same label where it was not.
fn frozen_and_not(rig: &Rig, at: &Path, fault: &str) {
    rig.configure("");
    write(at, "before");
    let set = take(rig);
    rig.await_quiet();
    let of = |code: i32| -> Value {
        let said = rig.run(&["verify", &set, "-o", "json"]).exits(code).record();
        assert_eq!(said["findings"].as_array().unwrap().len(), 1, "{said}");
        assert!(said["blocks_read"].as_u64().unwrap() <= 20, "{said}");
        said["findings"][0].clone()
    };
    assert_eq!(of(0)["what"], "nothing has to be recovered");
    write(at, "unfrozen");
    without_a_freeze(rig, &set);
    let what = of(24)["what"].as_str().unwrap().to_owned();
    assert!(what.contains(fault), "{what}");
}

#[test]
fn an_ext4_with_its_journal_elsewhere() {
    let rig = Rig::formatted(&[("a", Fs::Ext4), ("b", Fs::Ext4)], "");
    sh("mke2fs", &["-q", "-F", "-b", "4096", "-O", "journal_dev", &rig.device("b")]);
    let journal = format!("device={}", rig.device("b"));
    sh("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", &journal, &rig.device("a")]);
    let mounted = Mounted::new(&[&rig.device("a")], rig.mount("a"));
    frozen_and_not(&rig, &mounted.0, "has to be replayed");
    drop(mounted);
}

#[test]
fn an_xfs_with_its_log_elsewhere() {
    let rig = Rig::formatted(&[("a", Fs::Xfs), ("b", Fs::Btrfs)], "");
    sh("wipefs", &["-q", "-a", &rig.device("b")]);
    let log = format!("logdev={}", rig.device("b"));
    sh("mkfs.xfs", &["-q", "-f", "-l", &format!("{log},size=64m"), &rig.device("a")]);
    let mounted = Mounted::new(&["-o", &log, &rig.device("a")], rig.mount("a"));
    frozen_and_not(&rig, &mounted.0, "items of its log have to be replayed");
    drop(mounted);
}
