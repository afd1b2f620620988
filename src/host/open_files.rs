//! Files that processes have open.
//!
//! In: `/proc` below a root. Out: plain facts. Must never: follow a descriptor into its filesystem (only the
//! text of the links in /proc is read), run while anything is frozen, or take what could not be read for
//! "none".

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fdinfo::FdInfo;
use super::mountinfo;
use super::process::{Process, pids};
use crate::ids::DevNo;
use crate::path_encoding;

/// A file that a process has open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenFile {
    pub process: Process,
    /// mountinfo's `major:minor` of the file's superblock.
    pub dev: DevNo,
    /// Its path, as the process opened it.
    #[serde(serialize_with = "path_encoding::path")]
    pub path: PathBuf,
}

/// The result of a look at all processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub found: Vec<T>,
    /// Processes whose files cannot be seen (another user's, without CAP_SYS_PTRACE).
    pub hidden: usize,
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
        let info = FdInfo::of_process(root, pid, fd).filter(FdInfo::is_writable);
        let Some(id) = info.and_then(|i| i.mount()) else { return };
        let Some(dev) = mounts.superblock(pid, id).filter(|d| on.contains(d)) else {
            return;
        };
        if !found.iter().any(|o| o.process.pid == pid && o.path == target) {
            found.push(OpenFile { process: Process::read(root, pid), dev, path: target.to_path_buf() });
        }
    })?;
    Ok(Found { found, hidden })
}

/// Calls `visit` with each open file of each process; how many processes could not be looked at.
pub(super) fn each_fd(root: &Path, mut visit: impl FnMut(i32, &str, &Path)) -> io::Result<usize> {
    let mut hidden = 0;
    for pid in pids(root)? {
        let fds = match of_process(root, pid) {
            Ok(fds) => fds,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                hidden += 1;
                continue;
            }
            Err(_) => continue, // gone meanwhile
        };
        fds.for_each(|(fd, target)| visit(pid, &fd, &target));
    }
    Ok(hidden)
}

/// The open files of a process: each descriptor, and the text of its link. The link is not followed, because
/// that could block.
///
/// # Errors
/// When the process is gone, or another user's.
pub(crate) fn of_process(root: &Path, pid: i32) -> io::Result<impl Iterator<Item = (String, PathBuf)>> {
    let fds = fs::read_dir(root.join(format!("proc/{pid}/fd")))?;
    Ok(fds
        .flatten()
        .filter_map(|fd| Some((fd.file_name().into_string().ok()?, fs::read_link(fd.path()).ok()?))))
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
        let lines = mountinfo::read(self.root, pid).unwrap_or_default().lines;
        self.known.extend(lines.into_iter().map(|l| (l.id, l.dev)));
    }

    /// The superblock of a mount that this process sees.
    pub(crate) fn superblock(&mut self, pid: i32, id: u32) -> Option<DevNo> {
        if !self.known.contains_key(&id) {
            self.learn(&pid.to_string());
        }
        self.known.get(&id).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a file descriptor leads to, and its fdinfo.
    pub(in super::super) type Fd = (&'static str, &'static str);

    /// A /proc with these processes: pid, name, file descriptors.
    pub(in super::super) fn host(processes: &[(i32, &str, &[Fd])]) -> tempfile::TempDir {
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
}
