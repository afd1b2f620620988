//! What the kernel says of a btrfs: its exclusive operation, and scrubs.
//!
//! In: mounted btrfs. Out: operations. Must never: wait for one that does not answer longer than [`LIMIT`].

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::calls::Call;
use super::super::kernel::{self, Kernel as _, Linux};
use super::super::{superblock, thread};
use super::{Effect, Operation, SCRUB, Seen, Subject};
use crate::ids::DevNo;
use crate::path_encoding::{printable, shown};

/// Longest that the kernel is waited for. It takes microseconds, but opening a mount point may hang.
const LIMIT: Duration = Duration::from_secs(2);
/// Devices are numbered from 1, and numbers are not used again. A kernel that says more is not believed.
const MOST_DEVICES: u64 = 4096;

/// What the kernel has told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// sysfs's word for the exclusive operation, `none` included; none where the kernel has no such file
    /// (before Linux 5.10), or the UUID is not known.
    pub(super) exclusive: Option<String>,
    /// What only an open file of it can tell.
    by_file: ByFile,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ByFile {
    /// What is done of the exclusive operation, in percent.
    percent: Option<u8>,
    /// Scrubs that run.
    scrubs: Vec<Scrub>,
    /// Why scrubs could not be asked for.
    unseen: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scrub {
    device: u64,
    /// Bytes that it has read.
    read: u64,
    /// Bytes that are used there.
    of: u64,
}

/// Asks each btrfs, in a thread that is left behind when it does not answer. sysfs answers all the same.
pub(super) fn ask(root: &Path, subjects: &[Subject]) -> HashMap<DevNo, Told> {
    let btrfs = || subjects.iter().filter(|s| s.fstype == "btrfs");
    let (tx, rx) = channel();
    let mut asked = 0;
    for subject in btrfs().cloned() {
        let (tx, root) = (tx.clone(), root.to_path_buf());
        let work = move || {
            let _ = tx.send((subject.dev, by_file(&root, &subject)));
        };
        asked += usize::from(thread::start("ask-btrfs", work).is_ok());
    }
    let known = |s: &Subject| {
        let uuid = uuid::Uuid::parse_str(s.uuid.as_deref()?).ok()?;
        exclusive(root, uuid)
    };
    let silent = ByFile { unseen: Some("it does not answer".to_owned()), ..ByFile::default() };
    let mut told: HashMap<DevNo, Told> =
        btrfs().map(|s| (s.dev, Told { exclusive: known(s), by_file: silent.clone() })).collect();
    let end = Instant::now() + LIMIT;
    for _ in 0..asked {
        let left = end.saturating_duration_since(Instant::now());
        let Ok((dev, (exclusive, by_file))) = rx.recv_timeout(left) else { break };
        if let Some(told) = told.get_mut(&dev) {
            told.exclusive = told.exclusive.take().or(exclusive);
            told.by_file = by_file;
        }
    }
    told
}

/// The exclusive operation, where the UUID is known only by the file; and the rest.
fn by_file(root: &Path, subject: &Subject) -> (Option<String>, ByFile) {
    let opened = match &subject.open {
        Some(fd) => Ok(Arc::clone(fd)),
        None => Linux.open(&subject.mount_point).map(Arc::new),
    };
    let unseen = |why: &str| (None, ByFile { unseen: Some(why.to_owned()), ..ByFile::default() });
    let fd = match &opened {
        Ok(fd) if superblock::of_fd(fd) == Some(subject.dev) => fd.as_fd(),
        Ok(_) => return unseen("another filesystem is there by now"),
        Err(errno) => return unseen(errno.desc()),
    };
    let uuid = kernel::btrfs_uuid(fd).map(uuid::Uuid::from_bytes);
    let exclusive = uuid.ok().and_then(|uuid| exclusive(root, uuid));
    let mut told = ByFile::default();
    match exclusive.as_deref() {
        Some("balance") => {
            told.percent = kernel::btrfs_balanced(fd).ok().and_then(|(done, of)| percent(done, of));
        }
        Some("device replace") => {
            told.percent = kernel::btrfs_replaced(fd).ok().and_then(|done| percent(done, 1000));
            // It copies by a scrub of its own.
            return (exclusive, told);
        }
        _ => {}
    }
    match scrubs(fd) {
        Ok(scrubs) => told.scrubs = scrubs,
        Err(Errno::EPERM) => told.unseen = Some("only root may ask for them".to_owned()),
        Err(errno) => told.unseen = Some(errno.desc().to_owned()),
    }
    (exclusive, told)
}

fn exclusive(root: &Path, uuid: uuid::Uuid) -> Option<String> {
    let text =
        std::fs::read_to_string(root.join("sys/fs/btrfs").join(uuid.to_string()).join("exclusive_operation"))
            .ok()?;
    Some(text.trim().to_owned())
}

fn scrubs(fd: BorrowedFd<'_>) -> nix::Result<Vec<Scrub>> {
    let mut found = Vec::new();
    for device in 1..=kernel::btrfs_last_device(fd)?.min(MOST_DEVICES) {
        match kernel::btrfs_scrubbed(fd, device) {
            Ok(read) => {
                let of = kernel::btrfs_used(fd, device).unwrap_or_default();
                found.push(Scrub { device, read, of });
            }
            Err(Errno::ENOTCONN | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

fn percent(done: u64, of: u64) -> Option<u8> {
    let percent = done.saturating_mul(100).checked_div(of)?;
    Some(u8::try_from(percent.min(100)).unwrap_or(100))
}

/// Is this operation one that sysfs has a word for?
pub(super) fn is_exclusive(name: &str) -> bool {
    ["btrfs balance", "btrfs device remove", "btrfs device add", "btrfs resize"].contains(&name)
}

/// Puts what was told of a btrfs into `seen`.
pub(super) fn operations(
    root: &Path,
    subject: &Subject,
    told: &Told,
    calls: &[(&Subject, Call)],
    seen: &mut Seen,
) {
    let with =
        |name: String, effect, stop, percent| Operation { stop, percent, ..subject.operation(name, effect) };
    match told.exclusive.as_deref() {
        // A swap file only has to be kept from the others: it holds no write access.
        Some("none" | "balance paused" | "swap activate") => {}
        Some("balance") => {
            let stop = Some("btrfs balance pause");
            seen.found.push(with("btrfs balance".to_owned(), Effect::Blocks, stop, told.by_file.percent));
        }
        Some("device replace") => {
            let stop = Some("btrfs replace cancel");
            seen.found.push(with(
                "btrfs device replace".to_owned(),
                Effect::Writes,
                stop,
                told.by_file.percent,
            ));
        }
        // Also what a later kernel adds: that it does not block is not known.
        Some(other) => {
            seen.found.push(with(format!("btrfs {}", printable(other)), Effect::Blocks, None, None));
        }
        None => {
            let what = format!("the exclusive operation of {}", shown(&subject.mount_point));
            seen.unseen.push(format!("{what} (/sys does not say)"));
        }
    }
    let here =
        calls.iter().filter(|(s, call)| s.dev == subject.dev && call.arguments[1] & 0xffff_ffff == SCRUB);
    let only_read: Vec<u64> = here.filter_map(|(_, call)| only_reads(root, call)).collect();
    let told = &told.by_file;
    let writing = || told.scrubs.iter().filter(|scrub| !only_read.contains(&scrub.device));
    if writing().next().is_some() {
        let sum = |of: fn(&Scrub) -> u64| writing().map(of).fold(0, u64::saturating_add);
        let percent = percent(sum(|s| s.read), sum(|s| s.of));
        seen.found.push(with("btrfs scrub".to_owned(), Effect::Blocks, Some("btrfs scrub cancel"), percent));
    }
    if let Some(why) = &told.unseen {
        seen.unseen.push(format!("scrubs of {} ({why})", shown(&subject.mount_point)));
    }
}

/// The device whose scrub this call is, if it is a scrub that repairs nothing (`btrfs scrub start -r`): it
/// takes no write access. The kernel lets only root scrub.
fn only_reads(root: &Path, call: &Call) -> Option<u64> {
    let process = root.join(format!("proc/{}", call.process.pid));
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let ids = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    if ids.split_ascii_whitespace().nth(1) != Some("0") {
        return None;
    }
    // Of `struct btrfs_ioctl_scrub_args`: devid, start, end, flags.
    let mut words = [0; 32];
    let memory = std::fs::File::open(process.join("mem")).ok()?;
    memory.read_exact_at(&mut words, call.arguments[2]).ok()?;
    let word = |n: usize| words[n * 8..][..8].try_into().map(u64::from_ne_bytes).ok();
    (word(3)? & 1 == 1).then(|| word(0))?
}
