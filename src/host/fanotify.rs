//! Processes that listen by fanotify: the kernel may wait for them at each open.
//!
//! In: `/proc` below a root. Out: [`Listener`]s. Must never: take what could not be read for "none".

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::fdinfo::FdInfo;
use super::open_files::{Found, MountIds, each_fd};
use super::process::Process;
use crate::ids::DevNo;

/// Marks for which the kernel waits for the listener's answer: FAN_OPEN_PERM, FAN_ACCESS_PERM,
/// FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS (include/uapi/linux/fanotify.h).
const PERMISSION_EVENTS: u64 = 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;

/// A process with an open fanotify descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// The process that has the descriptor open; others may share it.
    pub process: Process,
    /// It listens for permission events: the kernel waits for its answer at each open or read.
    pub(crate) permission: bool,
    /// Superblocks it has marked, or on which it has marked a mount, folder or file; with
    /// [`Listener::permission`], only with such a mark.
    pub on: Vec<DevNo>,
}

/// Every process that listens by fanotify.
///
/// # Errors
/// When /proc cannot be listed.
pub(crate) fn listeners(root: &Path) -> io::Result<Found<Listener>> {
    let mut mounts = MountIds::new(root);
    let mut found: Vec<Listener> = Vec::new();
    let hidden = each_fd(root, |pid, fd, target| {
        if target.as_os_str() != "anon_inode:[fanotify]" {
            return;
        }
        let Some(info) = FdInfo::of_process(root, pid, fd) else { return };
        let marks = marks(info.text());
        let permission = marks.iter().any(|m| m.permission);
        let on = marks
            .iter()
            .filter(|m| m.permission == permission)
            .filter_map(|m| m.marked.superblock(&mut mounts, pid));
        let mut on: Vec<DevNo> = on.collect();
        on.sort_unstable();
        on.dedup();
        found.push(Listener { process: Process::read(root, pid), permission, on });
    })?;
    Ok(Found { found, hidden })
}

/// Listeners for permission events, to name them when an open does not return. Empty when none can be seen.
#[must_use]
pub(crate) fn permission_listeners(root: &Path) -> Vec<Listener> {
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

impl Marked {
    fn superblock(self, mounts: &mut MountIds<'_>, pid: i32) -> Option<DevNo> {
        match self {
            Self::Superblock(dev) => Some(dev),
            Self::Mount(id) => mounts.superblock(pid, id),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::open_files::tests::host;
    use super::*;

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
}
