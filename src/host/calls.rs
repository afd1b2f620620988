//! The system calls that threads are in.
//!
//! In: `/proc/PID/task/TID/syscall` below a root (proc_pid_syscall(5); it needs CAP_SYS_PTRACE for others'
//! threads). Out: [`Call`]s. Must never: read the memory that an argument points to.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fdinfo::FdInfo;
use super::open_files::{Found, MountIds};
use super::process::{Process, pids};
use crate::ids::DevNo;

/// FIFREEZE, as an argument of ioctl(2): `_IOWR('X', 119, int)` (linux/fs.h).
const FIFREEZE: u64 = 0xc004_5877;

/// FITHAW (linux/fs.h).
const FITHAW: u64 = 0xc004_5878;

/// What the file says of a thread that runs, or that is about to.
const RUNS: &str = "running";

/// How often a thread that runs is looked at, and the pause before the next look.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(2);

/// A thread that waits inside a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its process.
    pub process: Process,
    /// The thread.
    pub tid: i32,
    /// Number of the call, as `libc::SYS_…`.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// May the thread still be in the same call? It may have ended and be in the next one like it. While it
    /// runs, the kernel does not say where.
    #[must_use]
    pub fn goes_on(&self, root: &Path) -> bool {
        std::fs::read_to_string(file(root, self.process.pid, self.tid))
            .is_ok_and(|text| text.trim() == RUNS || parse(&text) == Some((self.number, self.arguments)))
    }

    /// The superblock of a descriptor among its arguments.
    pub(crate) fn superblock(
        &self,
        root: &Path,
        argument: usize,
        mounts: &mut MountIds<'_>,
    ) -> Option<DevNo> {
        let fd = i32::try_from(self.arguments[argument] & 0xffff_ffff).ok()?;
        let pid = self.process.pid;
        // By the thread: the descriptors of the first one go when it ends.
        let info = FdInfo::read(&root.join(format!("proc/{pid}/task/{}/fdinfo/{fd}", self.tid)))?;
        mounts.superblock(pid, info.mount()?)
    }
}

/// Is the first thread of this process inside this call?
#[must_use]
pub fn is_in(root: &Path, pid: i32, number: i64) -> bool {
    read(root, pid, pid).is_some_and(|(n, _)| n == number)
}

/// Every thread that waits inside a call which `wanted` selects by its number and arguments.
///
/// # Errors
/// When /proc cannot be listed.
pub fn waiting(root: &Path, wanted: impl Fn(i64, &[u64; 6]) -> bool) -> io::Result<Vec<Call>> {
    look(root, wanted).map(|seen| seen.found)
}

/// The same, and how many processes must not be looked at.
///
/// # Errors
/// When /proc cannot be listed.
pub(super) fn look(root: &Path, wanted: impl Fn(i64, &[u64; 6]) -> bool) -> io::Result<Found<Call>> {
    let mut threads = Vec::new();
    for pid in pids(root)? {
        let Ok(tids) = std::fs::read_dir(root.join(format!("proc/{pid}/task"))) else { continue };
        let tids = tids.flatten().filter_map(|t| t.file_name().to_str()?.parse::<i32>().ok());
        threads.extend(tids.map(|tid| (pid, tid)));
    }
    let (mut found, mut hidden) = (Vec::new(), BTreeSet::new());
    let read = |&(pid, tid): &(i32, i32)| std::fs::read_to_string(file(root, pid, tid));
    // Its own threads run because they look.
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    at_rest(
        threads,
        |(pid, _)| *pid != own,
        read,
        |(pid, tid), said| match said {
            Ok(text) => {
                if let Some((number, arguments)) = parse(&text).filter(|(n, a)| wanted(*n, a)) {
                    found.push(Call { process: Process::read(root, pid), tid, number, arguments });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => drop(hidden.insert(pid)),
            Err(_) => {}
        },
    );
    Ok(Found { found, hidden: hidden.len() })
}

fn file(root: &Path, pid: i32, tid: i32) -> PathBuf {
    root.join(format!("proc/{pid}/task/{tid}/syscall"))
}

/// Is this FIFREEZE or FITHAW?
pub(super) fn is_freeze_or_thaw(number: i64, arguments: &[u64; 6]) -> bool {
    number == libc::SYS_ioctl && [FIFREEZE, FITHAW].contains(&(arguments[1] & 0xffff_ffff))
}

/// Superblocks that a FIFREEZE is in progress on, with the thread that is in it. FITHAW says of them what it
/// says of one that is not frozen.
///
/// # Errors
/// When /proc cannot be listed.
pub fn freezing(root: &Path) -> io::Result<Vec<(DevNo, Call)>> {
    let mut mounts = MountIds::new(root);
    let calls = waiting(root, |number, a| number == libc::SYS_ioctl && a[1] & 0xffff_ffff == FIFREEZE)?;
    Ok(calls.into_iter().filter_map(|c| Some((c.superblock(root, 0, &mut mounts)?, c))).collect())
}

/// What a look at each thread says; where the thread runs, what a later look says, after a pause for all of
/// them together. Whoever waits inside FIFREEZE wakes up for a moment now and then, and must not be overlooked
/// because of that.
fn at_rest<T>(
    mut threads: Vec<T>,
    may_rest: impl Fn(&T) -> bool,
    mut look: impl FnMut(&T) -> io::Result<String>,
    mut tell: impl FnMut(T, io::Result<String>),
) {
    for left in (0..LOOKS).rev() {
        let mut running = Vec::new();
        for thread in threads {
            match look(&thread) {
                Ok(text) if left > 0 && text.trim() == RUNS && may_rest(&thread) => running.push(thread),
                said => tell(thread, said),
            }
        }
        if running.is_empty() {
            return;
        }
        std::thread::sleep(PAUSE);
        threads = running;
    }
}

/// None of a thread that runs, that waits outside of a call (a page fault), or that must not be looked at.
fn read(root: &Path, pid: i32, tid: i32) -> Option<(i64, [u64; 6])> {
    parse(&std::fs::read_to_string(file(root, pid, tid)).ok()?)
}

fn parse(text: &str) -> Option<(i64, [u64; 6])> {
    let mut fields = text.split_ascii_whitespace();
    let number = fields.next()?.parse().ok().filter(|n| *n >= 0)?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((number, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_its_number_and_six_arguments() {
        let text = "275 0x3 0x0 0x5 0x0 0x1000 0x0 0x7ffd4 0x7f2a1\n";
        assert_eq!(parse(text), Some((275, [3, 0, 5, 0, 4096, 0])));
        for other in ["running\n", "-1 0x7ffd4 0x7f2a1\n", "", "275 0x3\n", "275 3 0 0 0 0 0\n"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_thread_that_wakes_up_for_a_moment_is_not_overlooked() {
        let call = "16 0x9 0x1 0x0 0x0 0x0 0x0 0x1 0x2\n";
        let after = |texts: &[&str]| {
            let mut texts = texts.iter();
            let look = |(): &()| texts.next().map(|t| (*t).to_owned()).ok_or(io::ErrorKind::NotFound.into());
            let mut said = None;
            at_rest(vec![()], |()| true, look, |(), at_last| said = at_last.ok());
            said.and_then(|text| parse(&text)).map(|(number, _)| number)
        };
        assert_eq!(after(&["running\n", "running\n", call]), Some(16));
        assert_eq!(after(&["running\n", "-1 0x7ffd4 0x7f2a1\n", call]), None, "it waits outside of a call");
        assert_eq!(after(&["running\n"]), None, "it has ended");
        assert_eq!(after(&["running\n"; LOOKS as usize + 1]), None, "not for ever");
    }

    #[test]
    fn a_freeze_in_progress_is_found_with_its_superblock() {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc");
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::write(proc.join("self/mountinfo"), "33 21 259:7 / /data rw - xfs /dev/b rw\n").unwrap();
        for (tid, request) in [(5, "0xc0045877"), (6, "0xc0045878"), (7, "0xffffffffc0045877")] {
            let task = proc.join(format!("5/task/{tid}"));
            std::fs::create_dir_all(task.join("fdinfo")).unwrap();
            let call = format!("{} 0x9 {request} 0x0 0x0 0x0 0x0 0x1 0x2\n", libc::SYS_ioctl);
            std::fs::write(task.join("syscall"), call).unwrap();
            std::fs::write(task.join("fdinfo/9"), "flags:\t0100000\nmnt_id:\t33\n").unwrap();
        }
        let found = freezing(root.path()).unwrap();
        let mut tids: Vec<_> = found.iter().map(|(dev, call)| (dev.to_string(), call.tid)).collect();
        tids.sort_unstable();
        assert_eq!(tids, [("259:7".to_owned(), 5), ("259:7".to_owned(), 7)]);
        assert!(found[0].1.goes_on(root.path()));
        let five = &found.iter().find(|(_, call)| call.tid == 5).unwrap().1;
        std::fs::write(proc.join("5/task/5/syscall"), "running\n").unwrap();
        assert!(five.goes_on(root.path()), "it may run inside the call");
        std::fs::write(proc.join("5/task/5/syscall"), "0 0x9 0x1 0x0 0x0 0x0 0x0 0x1 0x2\n").unwrap();
        assert!(!five.goes_on(root.path()));
        std::fs::remove_file(proc.join("5/task/5/syscall")).unwrap();
        assert!(!five.goes_on(root.path()), "it has ended");
    }
}
