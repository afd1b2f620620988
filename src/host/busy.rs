//! Operations that keep a filesystem busy for longer than a write does: scrub, balance, resize, defragment.
//!
//! In: mounted filesystems; `/proc` and `/sys` below a root. Out: [`Operation`]s, and what could not be
//! looked at. Must never: judge what it finds, take what could not be looked at for "none", be kept by a
//! filesystem that does not answer, or read the memory of a process that is not root's: whoever owns that
//! memory can let the reader hang (a page that a FUSE has to fetch).
//!
//! What holds write access, and so keeps FIFREEZE waiting, was found out by trying (Linux 6.18):
//! docs/frozen-window.md has the table. The kernel's own word counts where there is one: the thread that
//! balances after a mount is in no system call, and a call is not shown while its thread runs.

mod btrfs;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::calls::{self, Call};
use super::open_files::MountIds;
use super::process::Process;
use crate::ids::DevNo;
use crate::path_encoding::{self, shown};

/// A mounted filesystem to look at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// mountinfo's `major:minor`.
    pub dev: DevNo,
    /// As mountinfo names it.
    pub fstype: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its UUID, where it is known already.
    pub uuid: Option<String>,
    /// An open file of it, where there is one. Else the mount point is opened, where the kernel has to be
    /// asked.
    pub open: Option<Arc<OwnedFd>>,
}

/// What an operation does to a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It holds write access: FIFREEZE waits for its end, and every writer waits behind FIFREEZE.
    Blocks,
    /// It goes on writing to a device while the filesystem is frozen.
    Writes,
}

/// An operation in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The superblock.
    #[serde(skip)]
    pub dev: DevNo,
    /// Where it is mounted.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// Such as `btrfs scrub`.
    pub operation: String,
    /// What it does to a freeze.
    pub effect: Effect,
    /// How much of it is done, in percent; none where the kernel does not say.
    pub percent: Option<u8>,
    /// The process whose call it is, where it was found by that.
    pub process: Option<Process>,
    /// The command that ends it, without the mount point; none where there is no such command.
    #[serde(skip)]
    pub stop: Option<&'static str>,
    #[serde(skip)]
    call: Option<Call>,
    /// In how many looks in a row it was seen: see [`still`].
    #[serde(skip)]
    pub sightings: u32,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.operation, shown(&self.mount_point))?;
        match (&self.process, self.percent) {
            (Some(process), _) => write!(f, " by {process}"),
            (None, Some(percent)) => write!(f, ", {percent} % done"),
            (None, None) => Ok(()),
        }
    }
}

/// What one look has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Operations in progress.
    #[serde(rename = "operations")]
    pub found: Vec<Operation>,
    /// What could not be looked at, and why.
    #[serde(rename = "not_checked")]
    pub unseen: Vec<String>,
}

/// An ioctl that does a whole operation inside one call.
struct Request {
    number: u64,
    name: &'static str,
    /// How the types of filesystems begin that it blocks on; none for any.
    on: Option<&'static str>,
}

const fn request(number: u64, name: &'static str, on: Option<&'static str>) -> Request {
    Request { number, name, on }
}

/// BTRFS_IOC_SCRUB. The kernel's word about scrubs does not say which of them only read.
const SCRUB: u64 = 0xc400_941b;

const REQUESTS: [Request; 20] = [
    request(0xc400_9420, "btrfs balance", Some("btrfs")), // BTRFS_IOC_BALANCE_V2
    request(0x5000_940b, "btrfs device remove", Some("btrfs")), // BTRFS_IOC_RM_DEV
    request(0x5000_943a, "btrfs device remove", Some("btrfs")), // BTRFS_IOC_RM_DEV_V2
    request(0x5000_940a, "btrfs device add", Some("btrfs")), // BTRFS_IOC_ADD_DEV
    request(0x5000_9403, "btrfs resize", Some("btrfs")),  // BTRFS_IOC_RESIZE
    request(0x5000_9402, "btrfs defragment", Some("btrfs")), // BTRFS_IOC_DEFRAG
    request(0x4030_9410, "btrfs defragment", Some("btrfs")), // BTRFS_IOC_DEFRAG_RANGE
    request(0xc018_9436, "deduplication (FIDEDUPERANGE)", None),
    request(0x4004_9409, "reflink copy (FICLONE)", None),
    request(0x4020_940d, "reflink copy (FICLONERANGE)", None),
    request(0x4008_6610, "ext4 resize", Some("ext")), // EXT4_IOC_RESIZE_FS
    request(0x4008_6607, "ext4 resize", Some("ext")), // EXT4_IOC_GROUP_EXTEND
    request(0x4028_6608, "ext4 resize", Some("ext")), // EXT4_IOC_GROUP_ADD
    request(0xc028_660f, "ext4 defragment", Some("ext")), // EXT4_IOC_MOVE_EXT
    request(0x6609, "ext4 conversion to extents", Some("ext")), // EXT4_IOC_MIGRATE
    request(0xc018_5879, "trim (FITRIM)", Some("ext")), // others do not hold write access over it
    request(0x4010_586e, "xfs resize", Some("xfs")),  // XFS_IOC_FSGROWFSDATA
    request(0x4010_5870, "xfs resize", Some("xfs")),  // XFS_IOC_FSGROWFSRT
    request(0xc0c0_586d, "xfs defragment", Some("xfs")), // XFS_IOC_SWAPEXT
    request(0xc040_583c, "xfs scrub", Some("xfs")),   // XFS_IOC_SCRUB_METADATA
];

/// The operation that an ioctl does, by the arguments of its call.
#[must_use]
pub(super) fn name_of(arguments: &[u64; 6]) -> Option<&'static str> {
    let number = arguments[1] & 0xffff_ffff;
    let known = REQUESTS.iter().find(|r| r.number == number).map(|r| r.name);
    known.or_else(|| (number == SCRUB).then_some("btrfs scrub"))
}

/// Looks at each of these once.
#[must_use]
pub fn look(root: &Path, subjects: &[Subject]) -> Seen {
    let mut seen = Seen::default();
    if subjects.is_empty() {
        return seen;
    }
    let calls = match in_calls(root, subjects) {
        Ok((calls, 0)) => calls,
        Ok((calls, hidden)) => {
            let processes = if hidden == 1 { "process" } else { "processes" };
            seen.unseen.push(format!("the calls of {hidden} {processes} (no CAP_SYS_PTRACE for them)"));
            calls
        }
        Err(e) => {
            seen.unseen.push(format!("/proc: {e}"));
            Vec::new()
        }
    };
    let told = btrfs::ask(root, subjects);
    for subject in subjects.iter().filter(|s| s.fstype == "btrfs") {
        if let Some(told) = told.get(&subject.dev) {
            btrfs::operations(root, subject, told, &calls, &mut seen);
        }
    }
    for (subject, call) in calls {
        let number = call.arguments[1] & 0xffff_ffff;
        let known = REQUESTS.iter().find(|r| r.number == number);
        let Some(known) = known.filter(|r| r.on.is_none_or(|on| subject.fstype.starts_with(on))) else {
            continue;
        };
        // The kernel's own word about the same.
        let told = told.get(&subject.dev).is_some_and(|told| told.exclusive.is_some());
        if told && btrfs::is_exclusive(known.name) {
            continue;
        }
        let process = Some(call.process.clone());
        let operation = subject.operation(known.name, Effect::Blocks);
        seen.found.push(Operation { process, call: Some(call), ..operation });
    }
    seen
}

/// Of operations of an earlier look, those that go on, for all that can be seen. A call that is over may have
/// been followed by another one like it. While its thread runs the kernel does not say where: it may go on, and
/// that is no sighting.
#[must_use]
pub fn still(root: &Path, before: Vec<Operation>, now: &Seen) -> Vec<Operation> {
    let mut left = Vec::new();
    for mut operation in before {
        let like = |n: &&Operation| {
            (n.dev, &n.operation, &n.call) == (operation.dev, &operation.operation, &operation.call)
        };
        if now.found.iter().any(|n| like(&n)) {
            operation.sightings += 1;
        } else if !operation.call.as_ref().is_some_and(|call| call.goes_on(root)) {
            continue;
        }
        left.push(operation);
    }
    left
}

impl Subject {
    fn operation(&self, name: impl Into<String>, effect: Effect) -> Operation {
        Operation {
            dev: self.dev,
            mount_point: self.mount_point.clone(),
            operation: name.into(),
            effect,
            percent: None,
            process: None,
            stop: None,
            call: None,
            sightings: 1,
        }
    }
}

/// Threads inside one of the calls, on these filesystems; how many processes must not be looked at.
fn in_calls<'a>(root: &Path, subjects: &'a [Subject]) -> io::Result<(Vec<(&'a Subject, Call)>, usize)> {
    let mut mounts = MountIds::new(root);
    let by_dev: HashMap<DevNo, &Subject> = subjects.iter().map(|s| (s.dev, s)).collect();
    let seen = calls::look(root, |number, a| number == libc::SYS_ioctl && name_of(a).is_some())?;
    let on = |call: Call| {
        let dev = call.superblock(root, 0, &mut mounts)?;
        Some((*by_dev.get(&dev)?, call))
    };
    Ok((seen.found.into_iter().filter_map(on).collect(), seen.hidden))
}

#[cfg(test)]
mod tests;
