//! Who holds a filesystem, so that it cannot be unmounted.
//!
//! In: the mounts in question, /proc below a root. Out: [`Holder`]s, with pid, command and path where they
//! have one. Must never: follow a path into any filesystem (a dead NFS server would hang it), or take longer
//! than it is given.
//!
//! Open files are told by the mount id in `fdinfo`, mapped ones by the device number in `maps`. What holds a
//! mount inside the kernel (an NFS export, an overlay's layer, a detached mount) is in neither: umount(2) and
//! the claim of the device have the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::host::cgroup::Cgroups;
use crate::host::fdinfo::FdInfo;
use crate::host::mountinfo::{self, MountLine};
use crate::host::process::{self, Process};
use crate::ids::DevNo;

/// The longest a look at all processes may take; a host with 100 000 open files takes about a second.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Something that keeps a filesystem from being unmounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// None when the holder is not a process, such as a swap file.
    pub pid: Option<i32>,
    /// The systemd unit of the process; none when it belongs to no service or scope.
    pub unit: Option<String>,
    /// A phrase for messages: the holder, and how it holds the filesystem.
    pub what: String,
    /// The mount point of what it holds: of the mount, or of the first one of the filesystem where only that is
    /// known.
    pub of: PathBuf,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// What holders are looked for on.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// mountinfo's ids of the mounts in our namespace, and their mount points.
    pub ids: BTreeMap<u32, PathBuf>,
    /// mountinfo's `major:minor` of these filesystems, and their first mount points.
    pub(crate) devs: BTreeMap<DevNo, PathBuf>,
    /// Peer groups of the mounts that they are mounted on: unmounting spreads along these.
    pub(crate) spreads: BTreeSet<String>,
}

/// Every process that holds one of the targets. The second value says that there was no time to look at all
/// of them.
#[must_use]
pub fn processes(root: &Path, targets: &Targets, limit: Duration) -> (Vec<Holder>, bool) {
    let (tx, rx) = channel();
    let (root, targets, end) = (root.to_path_buf(), targets.clone(), Instant::now() + limit);
    // In a thread: a read in /proc waits for the lock of a process that may hang.
    let started = std::thread::Builder::new().spawn(move || {
        let mut search = Search { root, targets, end, found: BTreeSet::new() };
        let cut = !search.all();
        let _ = tx.send((search.found.into_iter().collect(), cut));
    });
    // Without a thread nothing was looked at, and that is said; it is never done where it could hang.
    if started.is_err() {
        return (Vec::new(), true);
    }
    rx.recv_timeout(limit + Duration::from_millis(500)).unwrap_or((Vec::new(), true))
}

struct Search {
    root: PathBuf,
    targets: Targets,
    end: Instant,
    found: BTreeSet<Holder>,
}

impl Search {
    fn process(&self, pid: i32) -> PathBuf {
        self.root.join(format!("proc/{pid}"))
    }

    /// Looks at every process. False when the time ran out before the last one.
    fn all(&mut self) -> bool {
        let pids = process::pids(&self.root).unwrap_or_default();
        let mut namespaces: BTreeMap<PathBuf, i32> = BTreeMap::new();
        for pid in &pids {
            if let Ok(namespace) = process::namespace(&self.root, &pid.to_string(), "mnt") {
                namespaces.entry(namespace).or_insert(*pid);
            }
        }
        let own = process::namespace(&self.root, "self", "mnt").unwrap_or_default();
        for (_, pid) in namespaces.into_iter().filter(|(n, _)| *n != own) {
            self.namespace(pid);
        }
        for pid in pids {
            if Instant::now() > self.end {
                return false;
            }
            self.look_at(pid);
        }
        true
    }

    /// Mounts of the same filesystems in another mount namespace. Those that go when ours go are only
    /// remembered, for the open files on them; any other stays, and the filesystem with it.
    fn namespace(&mut self, pid: i32) {
        let lines = mountinfo::read(&self.root, &pid.to_string()).unwrap_or_default().lines;
        for line in &lines {
            let Some(of) = self.targets.devs.get(&line.dev).cloned() else { continue };
            self.targets.ids.insert(line.id, of.clone());
            if !goes_too(line, &lines, &self.targets.spreads) {
                let what = format!("has it mounted on {} in its mount namespace", line.mount_point.display());
                self.add(pid, of, &what);
            }
        }
    }

    fn look_at(&mut self, pid: i32) {
        let folder = self.process(pid);
        for (name, words) in [("cwd", "has its working directory in"), ("root", "has its root in")] {
            let link = folder.join(name);
            if let Some(of) = self.place_of(mount_id_of(&link)) {
                self.add(pid, of, &format!("{words} {}", target(&link)));
            }
        }
        for entry in fs::read_dir(folder.join("fdinfo")).into_iter().flatten().flatten() {
            let mount = FdInfo::read(&entry.path()).and_then(|i| i.mount());
            if let Some(of) = self.place_of(mount) {
                let file = target(&folder.join("fd").join(entry.file_name()));
                self.add(pid, of, &format!("has {file} open"));
            }
            if Instant::now() > self.end {
                return;
            }
        }
        let maps = fs::read(folder.join("maps")).unwrap_or_default();
        for line in maps.split(|b| *b == b'\n') {
            if let Some((path, of)) = mapped(&String::from_utf8_lossy(line), &self.targets.devs) {
                self.add(pid, of, &format!("has {path} mapped"));
            }
        }
    }

    fn place_of(&self, mount: Option<u32>) -> Option<PathBuf> {
        self.targets.ids.get(&mount?).cloned()
    }

    fn add(&mut self, pid: i32, of: PathBuf, how: &str) {
        let command = Process::read(&self.root, pid).comm;
        let unit = Cgroups::read(&self.root, &pid.to_string()).unwrap_or_default().unit().map(str::to_owned);
        let service = unit.as_ref().map_or_else(String::new, |u| format!(", {u}"));
        let what = format!("process {pid} ({command}{service}) {how}");
        self.found.insert(Holder { pid: Some(pid), unit, what, of });
    }
}

/// Will this mount of another namespace be unmounted together with ours? It is when what it is mounted on
/// receives from, or is a peer of, what ours is mounted on.
fn goes_too(line: &MountLine, lines: &[MountLine], spreads: &BTreeSet<String>) -> bool {
    let Some(parent) = lines.iter().find(|l| l.id == line.parent) else { return false };
    parent.optional.iter().any(|o| {
        ["shared:", "master:", "propagate_from:"]
            .iter()
            .any(|k| o.strip_prefix(k).is_some_and(|id| spreads.contains(id)))
    })
}

/// The mount that a link of /proc leads to. O_PATH: nothing is asked of the filesystem.
fn mount_id_of(link: &Path) -> Option<u32> {
    let file =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(link).ok()?;
    FdInfo::of_fd(&file)?.mount()
}

fn target(link: &Path) -> String {
    fs::read_link(link).map_or_else(|_| "a file".to_owned(), |p| crate::path_encoding::shown(&p))
}

/// The path of a line of `maps` when it is on one of these devices, and the mount point of that; device numbers
/// there are hexadecimal.
fn mapped(line: &str, devs: &BTreeMap<DevNo, PathBuf>) -> Option<(String, PathBuf)> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.nth(3)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let dev = DevNo { major: number(major)?, minor: number(minor)? };
    let path = fields.nth(1)?;
    devs.get(&dev).map(|of| (path.to_owned(), of.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_are_told_by_the_device() {
        let devs = BTreeMap::from([(DevNo { major: 259, minor: 10 }, "/data".into())]);
        let line = "7f00-7f01 r--p 00000000 103:0a 131 /data/lib.so";
        assert_eq!(mapped(line, &devs), Some(("/data/lib.so".to_owned(), "/data".into())));
        assert_eq!(mapped("7f00-7f01 r--p 00000000 103:0b 131 /data/lib.so", &devs), None);
        assert_eq!(mapped("7f00-7f01 rw-p 00000000 00:00 0", &devs), None);
    }

    #[test]
    fn a_mount_elsewhere_goes_too_when_its_parent_receives_from_ours() {
        let table = b"1 1 8:1 / / rw master:7 - ext4 /dev/a rw\n2 1 8:2 / /d rw master:8 - ext4 /dev/b rw\n";
        let lines = mountinfo::parse(table).lines;
        let spreads = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect();
        assert!(goes_too(&lines[1], &lines, &spreads(&["7"])));
        assert!(!goes_too(&lines[1], &lines, &spreads(&["8"])), "its own group says nothing");
        assert!(!goes_too(&lines[1], &lines, &spreads(&[])));
    }

    /// A `/proc` with one service that has files of two mounts open, and a namespace of its own.
    #[test]
    fn open_files_and_mounts_of_other_namespaces_are_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let link = |path: &str, target: &str| {
            let path = root.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        };
        link("self/ns/mnt", "mnt:[1]");
        link("8/ns/mnt", "mnt:[2]");
        write("8/comm", "db\n");
        write("8/cgroup", "0::/system.slice/db.service\n");
        write("8/mountinfo", "1 1 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /d rw - ext4 /dev/b rw\n");
        for (fd, mount) in [("3", 33), ("4", 44)] {
            link(&format!("8/fd/{fd}"), &format!("/data/{fd}"));
            write(&format!("8/fdinfo/{fd}"), &format!("flags:\t0100002\nmnt_id:\t{mount}\n"));
        }
        let targets = Targets {
            ids: BTreeMap::from([(33, "/data".into())]),
            devs: BTreeMap::from([(DevNo { major: 8, minor: 2 }, "/d".into())]),
            spreads: BTreeSet::new(),
        };
        let (found, cut) = processes(root.path(), &targets, LIMIT);
        let what: Vec<_> = found.iter().map(ToString::to_string).collect();
        let who = "process 8 (db, db.service)";
        let open = format!("{who} has /data/3 open");
        assert_eq!(what, [open, format!("{who} has it mounted on /d in its mount namespace")]);
        assert!(!cut && found.iter().all(|h| h.unit.as_deref() == Some("db.service")));
    }
}
