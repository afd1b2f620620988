//! The host's processes, as far as they can hold up a freeze: fanotify listeners, tasks that wait in the
//! kernel, writers.
//!
//! In: `/proc` below a root. Out: plain facts. Must never: follow a process's file descriptor or folder into
//! a filesystem (only the links in /proc are read), run while anything is frozen, or take what could not be
//! read for "none".

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fdinfo::FdInfo;
use super::mountinfo;
use crate::ids::DevNo;
use crate::path_encoding;

/// Marks for which the kernel waits for the listener's answer: FAN_OPEN_PERM, FAN_ACCESS_PERM,
/// FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS (include/uapi/linux/fanotify.h).
const PERMISSION_EVENTS: u64 = 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name, at most 15 bytes (/proc/PID/comm).
    pub comm: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.comm, self.pid)
    }
}

/// A process that listens by fanotify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Who.
    pub process: Process,
    /// It listens for permission events: the kernel waits for its answer at each open or read.
    pub permission: bool,
    /// Superblocks it has marked, or on which it has marked a mount, folder or file; with
    /// [`Listener::permission`], only with such a mark.
    pub on: Vec<DevNo>,
}

/// A task that waits in the kernel without a way to interrupt it (state D).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Its process.
    pub process: Process,
    /// The thread.
    pub tid: i32,
    /// Where in the kernel, as far as it says.
    pub wchan: String,
    /// Context switches so far: while they stand still, the task has not run.
    switches: u64,
}

/// A file that a process has open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenFile {
    /// Who.
    pub process: Process,
    /// Superblock of the file.
    pub dev: DevNo,
    /// Its path, as the process opened it.
    #[serde(serialize_with = "path_encoding::path")]
    pub path: PathBuf,
}

/// What was found, and how much could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// What was found.
    pub found: Vec<T>,
    /// Processes whose files cannot be seen (another user's, without CAP_SYS_PTRACE).
    pub hidden: usize,
}

/// Every process id.
///
/// # Errors
/// When /proc cannot be listed.
pub fn pids(root: &Path) -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = fs::read_dir(root.join("proc"))?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The process of this id, by its name.
#[must_use]
pub fn process(root: &Path, pid: i32) -> Process {
    let comm = fs::read_to_string(root.join(format!("proc/{pid}/comm"))).unwrap_or_default();
    Process { pid, comm: if comm.is_empty() { "?".to_owned() } else { comm.trim_end().to_owned() } }
}

/// Every process that listens by fanotify.
///
/// # Errors
/// When /proc cannot be listed.
pub fn listeners(root: &Path) -> io::Result<Found<Listener>> {
    let mut mounts = MountIds::new(root);
    let mut found: Vec<Listener> = Vec::new();
    let hidden = each_fd(root, |pid, fd, target| {
        if target.as_os_str() != "anon_inode:[fanotify]" {
            return;
        }
        let Some(info) = FdInfo::read(&root.join(format!("proc/{pid}/fdinfo/{fd}"))) else { return };
        let marks = marks(info.text());
        let permission = marks.iter().any(|m| m.permission);
        let on = marks
            .iter()
            .filter(|m| m.permission == permission)
            .filter_map(|m| mounts.superblock_at(pid, m.marked));
        let mut on: Vec<DevNo> = on.collect();
        on.sort_unstable();
        on.dedup();
        found.push(Listener { process: process(root, pid), permission, on });
    })?;
    Ok(Found { found, hidden })
}

/// Listeners for permission events, to name them when an open does not return. Empty when none can be seen.
#[must_use]
pub fn permission_listeners(root: &Path) -> Vec<Listener> {
    let listeners = listeners(root).map(|l| l.found).unwrap_or_default();
    listeners.into_iter().filter(|l| l.permission).collect()
}

/// A fanotify mark, from a line of fdinfo (proc_pid_fdinfo(5)).
struct Mark {
    marked: Marked,
    permission: bool,
}

#[derive(Clone, Copy)]
enum Marked {
    Mount(u32),
    Superblock(DevNo),
}

fn marks(info: &str) -> Vec<Mark> {
    let mark = |line: &str| {
        let fields: HashMap<&str, &str> =
            line.strip_prefix("fanotify ")?.split(' ').filter_map(|f| f.split_once(':')).collect();
        let hex = |name| u64::from_str_radix(fields.get(name)?, 16).ok();
        let marked = match hex("mnt_id") {
            Some(id) => Marked::Mount(u32::try_from(id).ok()?),
            // The kernel's own packing: 12 bits major, 20 bits minor (include/linux/kdev_t.h).
            None => {
                let dev = u32::try_from(hex("sdev")?).ok()?;
                Marked::Superblock(DevNo { major: dev >> 20, minor: dev & 0xf_ffff })
            }
        };
        Some(Mark { marked, permission: hex("mask")? & PERMISSION_EVENTS != 0 })
    };
    info.lines().filter_map(mark).collect()
}

/// Mount ids → superblocks. Ids are unique on the host, but a process of another namespace has mounts that we
/// do not list.
pub(crate) struct MountIds<'a> {
    root: &'a Path,
    known: HashMap<u32, DevNo>,
}

impl<'a> MountIds<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        let mut ids = Self { root, known: HashMap::new() };
        ids.learn("self");
        ids
    }

    fn learn(&mut self, pid: &str) {
        let table = fs::read(self.root.join("proc").join(pid).join("mountinfo")).unwrap_or_default();
        self.known.extend(mountinfo::parse(&table).unwrap_or_default().into_iter().map(|l| (l.id, l.dev)));
    }

    /// The superblock of a mount that this process sees.
    pub(crate) fn superblock(&mut self, pid: i32, id: u32) -> Option<DevNo> {
        self.superblock_at(pid, Marked::Mount(id))
    }

    fn superblock_at(&mut self, pid: i32, marked: Marked) -> Option<DevNo> {
        match marked {
            Marked::Superblock(dev) => Some(dev),
            Marked::Mount(id) => {
                if !self.known.contains_key(&id) {
                    self.learn(&pid.to_string());
                }
                self.known.get(&id).copied()
            }
        }
    }
}

/// Tasks of user processes in state D.
///
/// # Errors
/// When /proc cannot be listed.
pub fn waiting(root: &Path) -> io::Result<Vec<Waiting>> {
    let mut found = Vec::new();
    for pid in pids(root)? {
        let of = root.join(format!("proc/{pid}"));
        // Kernel threads have no command line, and some of them wait in D for good.
        if fs::read(of.join("cmdline")).is_ok_and(|c| c.is_empty()) {
            continue;
        }
        let Ok(tasks) = fs::read_dir(of.join("task")) else { continue };
        for tid in tasks.flatten().filter_map(|t| t.file_name().to_str()?.parse::<i32>().ok()) {
            let task = of.join(format!("task/{tid}"));
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let field = |name| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
            if !field("State:").is_some_and(|s| s.starts_with('D')) {
                continue;
            }
            let count = |name| field(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
            found.push(Waiting {
                process: process(root, pid),
                tid,
                wchan: fs::read_to_string(task.join("wchan")).unwrap_or_default(),
                switches: count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:"),
            });
        }
    }
    Ok(found)
}

/// Of the tasks that waited at an earlier look, those that have not run since (as khungtaskd tells,
/// kernel/hung_task.c).
#[must_use]
pub fn still_waiting(before: &[Waiting], now: Vec<Waiting>) -> Vec<Waiting> {
    now.into_iter().filter(|w| before.iter().any(|b| b.tid == w.tid && b.switches == w.switches)).collect()
}

/// Files open for writing on these superblocks, of every process but this one.
///
/// # Errors
/// When /proc cannot be listed.
pub fn writers(root: &Path, on: &[DevNo]) -> io::Result<Found<OpenFile>> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut mounts = MountIds::new(root);
    let mut found: Vec<OpenFile> = Vec::new();
    let hidden = each_fd(root, |pid, fd, target| {
        if pid == own || !target.is_absolute() {
            return;
        }
        let info = FdInfo::read(&root.join(format!("proc/{pid}/fdinfo/{fd}"))).filter(FdInfo::is_writable);
        let Some(id) = info.and_then(|i| i.mount()) else { return };
        let Some(dev) = mounts.superblock_at(pid, Marked::Mount(id)).filter(|d| on.contains(d)) else {
            return;
        };
        if !found.iter().any(|o| o.process.pid == pid && o.path == target) {
            found.push(OpenFile { process: process(root, pid), dev, path: target.to_path_buf() });
        }
    })?;
    Ok(Found { found, hidden })
}

/// Bytes that a process has caused to be written to storage so far; none when it is gone or another user's.
#[must_use]
pub fn written(root: &Path, pid: i32) -> Option<u64> {
    let io = fs::read_to_string(root.join(format!("proc/{pid}/io"))).ok()?;
    io.lines().find_map(|l| l.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Calls `visit` with each open file of each process; how many processes could not be looked at.
fn each_fd(root: &Path, mut visit: impl FnMut(i32, &str, &Path)) -> io::Result<usize> {
    let mut hidden = 0;
    for pid in pids(root)? {
        let fds = match fs::read_dir(root.join(format!("proc/{pid}/fd"))) {
            Ok(fds) => fds,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                hidden += 1;
                continue;
            }
            Err(_) => continue, // gone meanwhile
        };
        for fd in fds.flatten() {
            let name = fd.file_name();
            // The link's text only: to follow it could block.
            if let (Some(name), Ok(target)) = (name.to_str(), fs::read_link(fd.path())) {
                visit(pid, name, &target);
            }
        }
    }
    Ok(hidden)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a file descriptor leads to, and its fdinfo.
    type Fd = (&'static str, &'static str);

    /// A /proc with these processes: pid, name, file descriptors.
    fn host(processes: &[(i32, &str, &[Fd])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc");
        fs::create_dir_all(proc.join("self")).unwrap();
        let table = "21 1 259:1 / / rw - ext4 /dev/a rw\n33 21 259:7 / /data rw - xfs /dev/b rw\n";
        fs::write(proc.join("self/mountinfo"), table).unwrap();
        for (pid, comm, files) in processes {
            let of = proc.join(pid.to_string());
            fs::create_dir_all(of.join("fd")).unwrap();
            fs::create_dir_all(of.join("fdinfo")).unwrap();
            fs::write(of.join("comm"), format!("{comm}\n")).unwrap();
            for (fd, (target, info)) in files.iter().enumerate() {
                symlink(target, of.join(format!("fd/{fd}"))).unwrap();
                fs::write(of.join(format!("fdinfo/{fd}")), info).unwrap();
            }
        }
        root
    }

    const DATA: DevNo = DevNo { major: 259, minor: 7 };

    #[test]
    fn marks_are_told_by_mount_and_by_superblock() {
        let asked = "pos:\t0\nflags:\t02\nfanotify flags:4 event-flags:8000\n\
                     fanotify mnt_id:21 mflags:0 mask:10000 ignored_mask:0\n\
                     fanotify sdev:10300007 mflags:0 mask:8 ignored_mask:0\n";
        let told =
            "fanotify flags:0 event-flags:0\nfanotify ino:2 sdev:10300007 mflags:0 mask:8 ignored_mask:0\n";
        let root = host(&[
            (7, "fapolicyd", &[("anon_inode:[fanotify]", asked)]),
            (9, "indexer", &[("/data/x", ""), ("anon_inode:[fanotify]", told)]),
        ]);
        let found = listeners(root.path()).unwrap();
        assert_eq!(found.hidden, 0);
        // mnt_id is hexadecimal: 0x21 is 33.
        let of = |pid, comm: &str, permission| Listener {
            process: Process { pid, comm: comm.into() },
            permission,
            on: vec![DATA],
        };
        assert_eq!(found.found, [of(7, "fapolicyd", true), of(9, "indexer", false)]);
        assert_eq!(permission_listeners(root.path()).len(), 1);
    }

    #[test]
    fn writers_are_those_that_opened_for_writing_there() {
        let root = host(&[(
            8,
            "db",
            &[
                ("/data/wal", "flags:\t0100001\nmnt_id:\t33\n"),
                ("/data/read", "flags:\t0100000\nmnt_id:\t33\n"),
                ("/etc/other", "flags:\t0100002\nmnt_id:\t21\n"),
                ("socket:[1]", "flags:\t02\nmnt_id:\t9\n"),
                ("/data/rw", "flags:\t0100002\nmnt_id:\t33\n"),
            ],
        )]);
        let found = writers(root.path(), &[DATA]).unwrap().found;
        let mut paths: Vec<_> = found.iter().map(|o| o.path.to_str().unwrap()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/data/rw", "/data/wal"]);
    }

    #[test]
    fn a_task_that_has_run_since_is_not_stuck() {
        let root = host(&[(5, "dd", &[])]);
        let task = root.path().join("proc/5/task/5");
        fs::create_dir_all(&task).unwrap();
        fs::write(root.path().join("proc/5/cmdline"), "dd\0").unwrap();
        let state = |state: &str, switches: u32| {
            let status = format!("Name:\tdd\nState:\t{state}\nvoluntary_ctxt_switches:\t{switches}\n");
            fs::write(task.join("status"), status).unwrap();
            waiting(root.path()).unwrap()
        };
        let before = state("D (disk sleep)", 4);
        assert_eq!(before.len(), 1);
        assert_eq!(still_waiting(&before, state("D (disk sleep)", 4)).len(), 1);
        assert_eq!(still_waiting(&before, state("D (disk sleep)", 5)), []);
        assert_eq!(state("S (sleeping)", 4), []);
        // A kernel thread.
        fs::write(root.path().join("proc/5/cmdline"), "").unwrap();
        assert_eq!(state("D (disk sleep)", 4), []);
    }
}
