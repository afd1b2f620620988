//! Who is inside a call that holds a filesystem's write access, and sleeps there: what FIFREEZE waits for.
//!
//! In: `/proc` below a root, superblocks. Out: [`Holder`]s, with the call and the file. Must never: follow a
//! file into its filesystem, or name one that waits for the thaw, as every writer after FIFREEZE does.
//!
//! These calls take the write access first (`file_start_write`, `mnt_want_write_file`; Linux 6.18,
//! fs/splice.c, fs/read_write.c, fs/open.c, fs/xattr.c) and may then sleep for as long as something else
//! likes: a pipe that stays empty, a page of their buffer that a FUSE program has to fetch, a device. Many of
//! them sleep interruptibly (state S), so the state of a task says nothing.

use std::io;
use std::path::{Path, PathBuf};

use super::busy;
use super::calls::{self, Call};
use super::open_files::MountIds;
use super::tasks;
use crate::ids::DevNo;

/// The call's number, the argument that is the file it changes, and its name.
const CALLS: [(i64, usize, &str); 16] = [
    (libc::SYS_splice, 2, "splice"),
    (libc::SYS_sendfile, 0, "sendfile"),
    (libc::SYS_copy_file_range, 2, "copy_file_range"),
    (libc::SYS_write, 0, "write"),
    (libc::SYS_pwrite64, 0, "pwrite"),
    (libc::SYS_writev, 0, "writev"),
    (libc::SYS_pwritev, 0, "pwritev"),
    (libc::SYS_pwritev2, 0, "pwritev2"),
    (libc::SYS_fallocate, 0, "fallocate"),
    (libc::SYS_ftruncate, 0, "ftruncate"),
    (libc::SYS_fsetxattr, 0, "fsetxattr"),
    (libc::SYS_ioctl, 0, "ioctl"),
    // By a folder: these change what is in it.
    (libc::SYS_openat, 0, "openat"),
    (libc::SYS_mkdirat, 0, "mkdirat"),
    (libc::SYS_unlinkat, 0, "unlinkat"),
    (libc::SYS_renameat2, 2, "renameat2"),
];

/// A thread that may hold write access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The thread and its call.
    pub call: Call,
    /// The call's name; of an ioctl that is known, the operation's.
    pub name: &'static str,
    /// The superblock.
    pub dev: DevNo,
    /// The file, as the process opened it.
    pub file: PathBuf,
    /// Context switches so far: while they stand still, the thread has not run.
    switches: Option<u64>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = crate::path_encoding::shown(&self.file);
        write!(f, "{} in {} on {file}", self.call.process, self.name)
    }
}

/// Threads that sleep in such a call on one of these superblocks, but for those that wait for a thaw.
///
/// # Errors
/// When /proc cannot be listed.
pub fn holders(root: &Path, on: &[DevNo]) -> io::Result<Vec<Holder>> {
    let mut mounts = MountIds::new(root);
    let known = |number: i64| CALLS.iter().find(|(n, ..)| *n == number);
    let calls = calls::waiting(root, |number, arguments| {
        known(number).is_some() && !calls::is_freeze_or_thaw(number, arguments)
    })?;
    let mut found = Vec::new();
    for call in calls {
        let Some((_, argument, name)) = known(call.number) else { continue };
        let Some(dev) = call.superblock(root, *argument, &mut mounts).filter(|d| on.contains(d)) else {
            continue;
        };
        let thread = root.join(format!("proc/{}/task/{}", call.process.pid, call.tid));
        let wchan = std::fs::read_to_string(thread.join("wchan")).unwrap_or_default();
        if wchan.contains("percpu") || wchan.contains("sb_start_write") {
            continue;
        }
        let fd = call.arguments[*argument] & 0xffff_ffff;
        let file = std::fs::read_link(thread.join(format!("fd/{fd}"))).unwrap_or_default();
        let switches = tasks::switches(&thread);
        let operation = (call.number == libc::SYS_ioctl).then(|| busy::name_of(&call.arguments)).flatten();
        let name = operation.unwrap_or(name);
        found.push(Holder { call, name, dev, file, switches });
    }
    Ok(found)
}

impl Holder {
    /// Is it in a long operation that [`busy`] looks for?
    #[must_use]
    pub fn is_known_operation(&self) -> bool {
        self.call.number == libc::SYS_ioctl && busy::name_of(&self.call.arguments).is_some()
    }
}

/// Of those of an earlier look, those that have not run since.
#[must_use]
pub fn still_holding(before: &[Holder], now: Vec<Holder>) -> Vec<Holder> {
    now.into_iter().filter(|h| h.switches.is_some() && before.contains(h)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A thread of process 5 in this call, with /data/log as its descriptor 4.
    fn host(call: &str, wchan: &str, switches: u32) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let task = root.path().join("proc/5/task/5");
        fs::create_dir_all(task.join("fdinfo")).unwrap();
        fs::create_dir_all(task.join("fd")).unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let table = "33 21 259:7 / /data rw - xfs /dev/b rw\n21 1 259:1 / / rw - ext4 /dev/a rw\n";
        fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
        fs::write(root.path().join("proc/5/comm"), "pv\n").unwrap();
        fs::write(task.join("syscall"), format!("{call} 0x1 0x2\n")).unwrap();
        fs::write(task.join("wchan"), wchan).unwrap();
        fs::write(task.join("status"), format!("voluntary_ctxt_switches:\t{switches}\n")).unwrap();
        symlink("/data/log", task.join("fd/4")).unwrap();
        fs::write(task.join("fdinfo/4"), "flags:\t0100001\nmnt_id:\t33\n").unwrap();
        fs::write(task.join("fdinfo/3"), "flags:\t0100000\nmnt_id:\t21\n").unwrap();
        root
    }

    const DATA: DevNo = DevNo { major: 259, minor: 7 };

    #[test]
    fn the_argument_that_is_written_to_decides() {
        let found = |call: &str, wchan: &str| {
            let host = host(call, wchan, 1);
            holders(host.path(), &[DATA]).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rest = "0x0 0x0 0x0";
        let splice = |from: &str, to: &str| format!("{} {from} 0x0 {to} {rest}", libc::SYS_splice);
        assert_eq!(found(&splice("0x3", "0x4"), "pipe_read"), ["pv (pid 5) in splice on /data/log"]);
        assert!(found(&splice("0x4", "0x3"), "pipe_read").is_empty(), "it reads there");
        let first = |call: i64| format!("{call} 0xffffffff00000004 0x9 0x9 {rest}");
        assert_eq!(found(&first(libc::SYS_pwrite64), ""), ["pv (pid 5) in pwrite on /data/log"]);
        assert_eq!(found(&first(libc::SYS_sendfile), "0"), ["pv (pid 5) in sendfile on /data/log"]);
        assert!(found(&first(libc::SYS_read), "").is_empty());
        // Whoever came after FIFREEZE waits for the thaw: it holds nothing.
        assert!(found(&first(libc::SYS_write), "percpu_rwsem_wait").is_empty());
        let ioctl = |request: &str| format!("{} 0x4 {request} 0x0 {rest}", libc::SYS_ioctl);
        assert!(found(&ioctl("0xc0045877"), "").is_empty() && found(&ioctl("0xc0045878"), "").is_empty());
        let clone = "pv (pid 5) in reflink copy (FICLONERANGE) on /data/log";
        assert_eq!(found(&ioctl("0x4020940d"), ""), [clone]);
        assert_eq!(found(&ioctl("0x1234"), ""), ["pv (pid 5) in ioctl on /data/log"]);
    }

    #[test]
    fn who_has_run_since_does_not_hold_it_for_good() {
        let call = format!("{} 0x3 0x0 0x4 0x0 0x0 0x0", libc::SYS_splice);
        let look = |switches| holders(host(&call, "pipe_read", switches).path(), &[DATA]).unwrap();
        assert_eq!(still_holding(&look(4), look(4)).len(), 1);
        assert_eq!(still_holding(&look(4), look(5)), []);
    }
}
