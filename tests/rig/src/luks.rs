//! LUKS without device mapper: stand-ins of cryptsetup and dmsetup, and what the kernel would say of what they open.
//!
//! Real LUKS is opened in a guest with a kernel of its own (`tests/guest`). Here it is what stillpoint does around it: when,
//! with which keys, what it takes for open, and what is left. What is "in" it is a loop device behind the header, and its
//! bytes are not encrypted.
//!
//! In: a namespace. Out: filesystems in LUKS, mounted. Must never leave a loop device behind.

use std::path::{Path, PathBuf};

use crate::namespace::Namespace;
use crate::program::{HOST_PROGRAMS, await_some, put_executable};

const PROGRAM: &str = include_str!("luks.sh");
/// Where it shows what is open.
const MAPPED: &str = "/sys/devices/stillpoint-mapped/block";

/// The stand-ins, in a namespace.
pub struct Luks<'s> {
    space: &'s Namespace,
}

impl<'s> Luks<'s> {
    /// Puts them where stillpoint looks for the host's programs.
    pub fn new(space: &'s Namespace) -> Self {
        let holds = space.path("holds");
        std::fs::create_dir_all(&holds).unwrap();
        std::fs::create_dir_all(space.path("bin")).unwrap();
        let text = PROGRAM.replace("@HOLDS@", holds.to_str().unwrap());
        put_executable(&space.path("bin/cryptsetup"), &text);
        put_executable(&space.path("bin/dmsetup"), &text);
        space.sh(&format!(
            "mount -t tmpfs -o mode=755 stillpoint-test {HOST_PROGRAMS}; cp {} {} {HOST_PROGRAMS}/",
            space.at("bin/cryptsetup"),
            space.at("bin/dmsetup")
        ));
        Self { space }
    }

    /// A file with a key, which root alone can read.
    pub fn key(&self, name: &str) -> PathBuf {
        let path = self.space.path(name);
        self.space.sh(&format!("umask 077; echo the key {name} >{}", path.display()));
        path
    }

    /// Puts LUKS on a volume that is not mounted, a filesystem in it, and mounts that where the volume would be.
    pub fn make(&self, volume: &str, key: &Path, mkfs: &str) {
        let (device, at, key) = (self.space.rig.device(volume), self.space.at(volume), key.display());
        let name = format!("{volume}-crypt");
        self.space.sh(&format!(
            "cryptsetup luksFormat {device} {key}
             cryptsetup open --type luks --key-file - {device} {name} <{key}"
        ));
        let node = self.node(&name);
        self.space.sh(&format!("{mkfs} {node} && mount {node} {at}"));
    }

    /// The node of what is open under this name.
    fn node(&self, name: &str) -> String {
        let script = format!(
            "for d in {MAPPED}/dm-*; do [ \"$(cat $d/dm/name)\" != {name} ] || echo /dev/loop${{d##*dm-}}; done"
        );
        self.space.sh(&script).trim().to_owned()
    }

    /// Names of what is open.
    pub fn open(&self) -> Vec<String> {
        let names = self.space.sh(&format!("cat {MAPPED}/dm-*/dm/name 2>/dev/null || true"));
        names.lines().map(str::to_owned).collect()
    }

    /// The next time that this step is reached, it waits.
    pub fn hold(&self, step: &str) {
        std::fs::write(self.file(step, "hold"), "").unwrap();
    }

    /// Waits until it does.
    pub fn await_held(&self, step: &str) {
        await_some(step, || self.file(step, "held").exists().then_some(()));
    }

    /// Lets it go on.
    pub fn release(&self, step: &str) {
        std::fs::remove_file(self.file(step, "held")).unwrap();
    }

    /// Does one of them run, whoever started it?
    pub fn runs(&self) -> bool {
        let files = std::fs::read_dir(self.space.path("holds")).unwrap().flatten().map(|e| e.path());
        let pids = files.filter(|path| path.extension().is_some_and(|e| e == "pid"));
        let exe = |path: PathBuf| path.file_stem().map(|pid| Path::new("/proc").join(pid).join("exe"));
        pids.filter_map(exe).any(|exe| exe.read_link().is_ok())
    }

    fn file(&self, step: &str, state: &str) -> PathBuf {
        self.space.path("holds").join(format!("{step}.{state}"))
    }
}

impl Drop for Luks<'_> {
    fn drop(&mut self) {
        // A loop device outlives the namespace, and would keep the volume's from going.
        let script = format!(
            "for d in {MAPPED}/dm-*; do n=${{d##*dm-}}; umount -l /dev/loop$n || true; losetup -d /dev/loop$n || true; done"
        );
        let _ = self.space.try_sh(&script);
    }
}
