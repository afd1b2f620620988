//! Who uses block devices that no mount here shows.
//!
//! In: device numbers, /proc and /sys below a root. Out: [`Users`], in words, with process and command. Must
//! never: go by the name of a node, follow a descriptor to a server that may be dead, take longer than it is
//! given, or take what could not be looked at for "nobody".
//!
//! Whether somebody has claimed a device (a mount, a driver above it) is found by claiming it:
//! [`super::device`]. [`mounts`] only says who that is. [`writers`] finds what no claim shows: a process that
//! has the device open for writing, or mapped, without O_EXCL, as a database on a raw device or a virtual
//! machine has. [`openers`] finds those that read it, too.
//!
//! Other users must not be able to make this take long. So the mappings of a process without any privilege
//! are not looked at (it would have to have opened the device with privileges, mapped it, closed it and given
//! them up), and tables of mounts are read only once a claim has failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::fdinfo::FdInfo;
use super::mountinfo;
use super::namespaces::{self, Place};
use super::process::{self, Process};
use crate::ids::DevNo;
use crate::path_encoding::shown;

/// The longest a look at all processes may take; a host with 100 000 open files takes a third of a second.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Who uses which device, and how.
    pub found: BTreeMap<DevNo, BTreeSet<String>>,
    /// Why others may have been missed; none when everything was looked at.
    pub incomplete: Option<String>,
}

/// Processes that may write to these devices, but for this one: they have them open for writing, or mapped.
#[must_use]
pub fn writers(root: &Path, devices: &BTreeSet<DevNo>, limit: Duration) -> Users {
    look(root, devices, limit, Search::writers)
}

/// Processes that have these devices open, for reading too, or mapped for writing, but for this one.
#[must_use]
pub fn openers(root: &Path, devices: &BTreeSet<DevNo>, limit: Duration) -> Users {
    look(root, devices, limit, |search| {
        search.readers = true;
        search.writers();
    })
}

/// Mounts of these devices in other mount namespaces. A namespace without a process, which a file or a
/// descriptor keeps, has no table to be read.
#[must_use]
pub fn mounts(root: &Path, devices: &BTreeSet<DevNo>, limit: Duration) -> Users {
    look(root, devices, limit, Search::mounts)
}

/// The same, and also in namespaces that only a thread is in, or that only a file or a descriptor keeps: more
/// work, for whoever has the time.
#[must_use]
pub fn mounts_anywhere(root: &Path, devices: &BTreeSet<DevNo>, limit: Duration) -> Users {
    look(root, devices, limit, Search::tables)
}

/// The type of a filesystem that the kernel still has on the device with this name, though it may be mounted
/// nowhere: one that was unmounted lazily, or in a namespace that no process is in.
#[must_use]
pub fn superblock(root: &Path, name: &str) -> Option<&'static str> {
    ["ext4", "xfs", "f2fs"].into_iter().find(|fstype| root.join("sys/fs").join(fstype).join(name).is_dir())
}

/// In a thread: a read in /proc waits for the lock of a process that may hang.
fn look(root: &Path, devices: &BTreeSet<DevNo>, limit: Duration, how: fn(&mut Search)) -> Users {
    let (tx, rx) = channel();
    let mut search = Search {
        root: root.to_path_buf(),
        devices: devices.clone(),
        end: Instant::now() + limit,
        servers: None,
        readers: false,
        users: Users::default(),
    };
    let started = std::thread::Builder::new().name("users".to_owned()).spawn(move || {
        how(&mut search);
        let _ = tx.send(search.users);
    });
    let unknown = |why: String| Users { incomplete: Some(why), ..Users::default() };
    match started {
        Ok(_) => rx
            .recv_timeout(limit + Duration::from_millis(500))
            .unwrap_or_else(|_| unknown(format!("looking at all processes takes longer than {limit:?}"))),
        Err(e) => unknown(format!("no thread could be started: {e}")),
    }
}

struct Search {
    root: PathBuf,
    devices: BTreeSet<DevNo>,
    end: Instant,
    /// Ids of mounts whose files are on another machine; none where there is no such mount.
    servers: Option<HashMap<u32, bool>>,
    /// Whoever only reads counts too.
    readers: bool,
    users: Users,
}

impl Search {
    fn process(&self, pid: i32) -> PathBuf {
        self.root.join(format!("proc/{pid}"))
    }

    fn missed(&mut self, why: String) {
        self.users.incomplete.get_or_insert(why);
    }

    fn add(&mut self, dev: DevNo, how: String) {
        self.users.found.entry(dev).or_default().insert(how);
    }

    /// Calls `look` with each process but this one, while there is time.
    fn each_process(&mut self, mut look: impl FnMut(&mut Self, i32)) {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let pids = match process::pids(&self.root) {
            Ok(pids) => pids,
            Err(e) => return self.missed(format!("cannot list /proc: {e}")),
        };
        for pid in pids.into_iter().filter(|pid| *pid != own) {
            if Instant::now() > self.end {
                return self.missed("there was no time to look at every process".to_owned());
            }
            look(self, pid);
        }
    }

    fn mounts(&mut self) {
        let own = fs::read_link(self.root.join("proc/self/ns/mnt")).ok();
        let mut seen: BTreeSet<PathBuf> = own.into_iter().collect();
        self.each_process(|search, pid| {
            let namespace = fs::read_link(search.process(pid).join("ns/mnt"));
            if !namespace.is_ok_and(|namespace| seen.insert(namespace)) {
                return;
            }
            let table = mountinfo::read(&search.root, &pid.to_string()).unwrap_or_default();
            for bad in &table.unread {
                if let Some(dev) = bad.dev.filter(|dev| search.devices.contains(dev)) {
                    let who = Process::read(&search.root, pid);
                    search.add(dev, format!("a mount in the mount namespace of {who}, {bad}"));
                }
            }
            for line in table.lines {
                if search.devices.contains(&line.dev) {
                    let who = Process::read(&search.root, pid);
                    let (fstype, place) = (&line.fstype, shown(&line.mount_point));
                    search.add(
                        line.dev,
                        format!("{fstype} is mounted on {place} in the mount namespace of {who}"),
                    );
                }
            }
        });
    }

    fn tables(&mut self) {
        let all = match namespaces::tables(&self.root) {
            Ok(all) => all,
            Err(e) => return self.missed(format!("cannot list the mounts: {e}")),
        };
        for table in all.tables.iter().filter(|t| t.place != Place::Own) {
            let of_devices = table.table.lines.iter().filter(|l| self.devices.contains(&l.dev));
            let lines: Vec<_> = of_devices.collect();
            let who = match (&table.place, lines.is_empty()) {
                (_, true) | (Place::Own, _) => continue,
                (Place::Threads(threads), _) => {
                    let pid = threads.first().and_then(|t| t.split('/').next()?.parse().ok());
                    pid.map_or_else(
                        || "a process".to_owned(),
                        |pid| Process::read(&self.root, pid).to_string(),
                    )
                }
                (Place::Kept(_), _) => "no process: a file or an open descriptor keeps it".to_owned(),
            };
            for line in lines {
                let (fstype, place) = (&line.fstype, shown(&line.mount_point));
                self.add(line.dev, format!("{fstype} is mounted on {place} in the mount namespace of {who}"));
            }
        }
        if let Some((who, e)) = all.hidden.first() {
            self.missed(format!("the mounts of {who} cannot be read: {e}"));
        }
        if let Some(why) = all.blind {
            self.missed(why);
        }
    }

    fn writers(&mut self) {
        let own = mountinfo::read(&self.root, "self").unwrap_or_default();
        let on_server = |l: &mountinfo::MountLine| is_on_server(&l.fstype);
        self.servers = own.lines.iter().any(on_server).then(HashMap::new);
        self.each_process(|search, pid| {
            search.open_files(pid);
            if search.is_privileged(pid) {
                search.mapped(pid);
            }
        });
    }

    fn open_files(&mut self, pid: i32) {
        let folder = self.process(pid);
        let fds = match fs::read_dir(folder.join("fd")) {
            Ok(fds) => fds,
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return self.missed(format!("the open files of process {pid} cannot be seen"));
            }
            Err(_) => return, // gone meanwhile
        };
        for entry in fds.flatten() {
            let info = folder.join("fdinfo").join(entry.file_name());
            if self.may_hang(pid, &info) {
                continue;
            }
            if let Some(dev) = self.device(&entry.path())
                && let Some(how) = self.open_how(FdInfo::read(&info))
            {
                let who = Process::read(&self.root, pid);
                let node = fs::read_link(entry.path()).map_or_else(|_| dev.to_string(), |p| shown(&p));
                self.add(dev, format!("{who} has {node} open{how}"));
            }
            if Instant::now() > self.end {
                return;
            }
        }
    }

    /// What is said of a descriptor that counts.
    fn open_how(&self, info: Option<FdInfo>) -> Option<&'static str> {
        match info {
            // By O_PATH, nothing of it can be read.
            Some(info) if self.readers && !info.is_writable() => (!info.is_path()).then_some(""),
            Some(info) if !info.is_writable() => None,
            _ => Some(" for writing"),
        }
    }

    /// Has it any capability, as root has?
    fn is_privileged(&self, pid: i32) -> bool {
        let status = fs::read_to_string(self.process(pid).join("status")).unwrap_or_default();
        let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
        effective.is_some_and(|caps| caps.bytes().any(|b| b != b'0'))
    }

    /// A descriptor may be closed, and what it has mapped for writing goes on.
    fn mapped(&mut self, pid: i32) {
        let maps = fs::read(self.process(pid).join("maps")).unwrap_or_default();
        for line in maps.split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(mode), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
                continue;
            };
            // Shared, and writable.
            if mode.get(1..2) != Some("w") || !mode.ends_with('s') || !path.starts_with('/') {
                continue;
            }
            if let Some(dev) = self.device(&self.process(pid).join("map_files").join(range)) {
                let who = Process::read(&self.root, pid);
                self.add(dev, format!("{who} has {} mapped for writing", shown(Path::new(path))));
            }
        }
    }

    /// Are the files of this mount on another machine, which may be dead?
    fn may_hang(&mut self, pid: i32, info: &Path) -> bool {
        let Some(servers) = &mut self.servers else { return false };
        let Some(id) = FdInfo::read(info).and_then(|i| i.mount()) else { return false };
        if !servers.contains_key(&id) {
            let table = mountinfo::read(&self.root, &pid.to_string()).unwrap_or_default();
            servers.extend(table.lines.into_iter().map(|l| (l.id, is_on_server(&l.fstype))));
        }
        // A mount that is in no table was unmounted lazily: nothing says what it is.
        *servers.entry(id).or_insert(false)
    }

    /// Which of the devices this link of /proc leads to. Nothing is asked of a server.
    fn device(&self, link: &Path) -> Option<DevNo> {
        let said = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
        if FileType::from_raw_mode(said.stx_mode.into()) != FileType::BlockDevice {
            return None;
        }
        let dev = DevNo { major: said.stx_rdev_major, minor: said.stx_rdev_minor };
        self.devices.contains(&dev).then_some(dev)
    }
}

/// Types for which the kernel asks a server when a path leads to one of its files, whatever the flags.
fn is_on_server(fstype: &str) -> bool {
    matches!(fstype, "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "afs" | "9p" | "lustre")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const DATA: DevNo = DevNo { major: 259, minor: 7 };

    /// A /proc in which process 7 shares our mount namespace and process 8 has one of its own.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (pid, namespace) in [("self", "mnt:[1]"), ("7", "mnt:[1]"), ("8", "mnt:[2]")] {
            let of = root.path().join("proc").join(pid);
            fs::create_dir_all(of.join("ns")).unwrap();
            fs::create_dir_all(of.join("fd")).unwrap();
            symlink(namespace, of.join("ns/mnt")).unwrap();
            fs::write(of.join("comm"), "lxd\n").unwrap();
        }
        root
    }

    #[test]
    fn a_mount_of_another_namespace_is_told_with_its_process() {
        let root = host();
        let table = "33 21 259:7 / /data rw - xfs /dev/b rw\n34 21 259:8 / /more rw - xfs /dev/c rw\n";
        fs::write(root.path().join("proc/8/mountinfo"), table).unwrap();
        let users = mounts(root.path(), &[DATA].into(), LIMIT);
        let how = "xfs is mounted on /data in the mount namespace of lxd (pid 8)".to_owned();
        assert_eq!(users, Users { found: [(DATA, [how].into())].into(), incomplete: None });
    }

    #[test]
    fn a_mount_that_cannot_be_read_is_told_by_its_number() {
        let root = host();
        let table = "33 21 259:7 / data rw - xfs /dev/b rw\n34 21 259:8 / more rw - xfs /dev/c rw\n";
        fs::write(root.path().join("proc/8/mountinfo"), table).unwrap();
        let users = mounts(root.path(), &[DATA].into(), LIMIT);
        let said = users.found[&DATA].first().unwrap();
        assert!(said.contains("lxd (pid 8)") && said.contains("not an absolute path"), "{said}");
        assert_eq!(users.found.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nobody() {
        let root = host();
        let devices = BTreeSet::from([DATA]);
        assert_eq!(writers(root.path(), &devices, LIMIT), Users::default());
        let late = writers(root.path(), &devices, Duration::ZERO);
        assert!(late.incomplete.unwrap().contains("no time"));
        let nothing = writers(&root.path().join("nothing"), &devices, LIMIT);
        assert!(nothing.incomplete.unwrap().contains("/proc"));
    }

    #[test]
    fn a_superblock_without_a_mount_is_still_in_sysfs() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/fs/xfs/nvme1n1p2")).unwrap();
        assert_eq!(superblock(root.path(), "nvme1n1p2"), Some("xfs"));
        assert_eq!(superblock(root.path(), "nvme1n1p3"), None);
    }
}
