//! FITHAW from outside of a run: on what a dead run left frozen, on what a run that hangs has frozen, or on
//! everything that is frozen on this host.
//!
//! In: a journal's mounts, or every mount namespace. Out: what was thawed, what could not be thawed, and why.
//! Each superblock gets a thread of its own and a limit. Must never: wait for one before it starts the
//! others, or thaw a mount point that now leads to another filesystem (unless everything is to be thawed).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::hidden_mounts;
use super::journal::{FrozenMount, Journal};
use crate::host::kernel::{Kernel, Linux};
use crate::host::mountinfo::{self, MountLine};
use crate::host::process::{self, ProcessId};
use crate::host::{superblock, thread};
use crate::ids::DevNo;
use crate::window::probe::Target;

/// How long to wait for a FIFREEZE that is still in progress in a thread of the dead run.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than that the whole thaw of a dead run may take.
const MARGIN: Duration = Duration::from_secs(5);

/// Thaws one superblock: true when it was frozen.
type Work = Box<dyn FnOnce() -> Result<bool, Errno> + Send>;

/// What was frozen and is thawed now; what could not be thawed, and why.
pub type Thaws = (Vec<PathBuf>, Vec<(PathBuf, Errno)>);

/// FITHAW on each. EINVAL means that it is not frozen, which counts as success.
pub(super) fn recorded(mounts: &[FrozenMount], owner: Option<&Journal>) -> Thaws {
    let owner = owner.map(|j| j.state.process);
    let work = mounts.iter().map(|m| {
        let FrozenMount { dev, mount_point } = m.clone();
        (mount_point.clone(), Box::new(move || thaw_one(&mount_point, dev, owner)) as Work)
    });
    // Each FITHAW has a limit of its own, but opening or mounting may hang for longer.
    side_by_side(work.collect(), PATIENCE + MARGIN)
}

/// Runs each in a thread of its own and waits for all of them until `limit`: what has not ended by then has
/// failed with ETIMEDOUT. If a thread cannot be started, its work is done in this thread, last.
fn side_by_side(work: Vec<(PathBuf, Work)>, limit: Duration) -> Thaws {
    let (tx, rx) = std::sync::mpsc::channel();
    let mut results = vec![Err(Errno::ETIMEDOUT); work.len()];
    let (mut names, mut here) = (Vec::with_capacity(work.len()), Vec::new());
    for (index, (name, work)) in work.into_iter().enumerate() {
        names.push(name);
        let tx = tx.clone();
        let started = thread::start("thaw", move || {
            let _ = tx.send((index, work()));
        });
        here.extend(started.err());
    }
    drop(tx);
    for work in here {
        work();
    }
    let end = Instant::now() + limit;
    // Ends early when every thread has sent its result or has ended.
    while let Ok((index, result)) = rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
        results[index] = result;
    }
    let (mut thawed, mut failed) = (Vec::new(), Vec::new());
    for (name, result) in names.into_iter().zip(results) {
        match result {
            Ok(true) => thawed.push(name),
            Ok(false) => {}
            Err(errno) => failed.push((name, errno)),
        }
    }
    (thawed, failed)
}

/// True when it was frozen and is now thawed. EBUSY when a FIFREEZE of the dead run is still in progress;
/// ENOLINK when it exists, is mounted nowhere, and could not be reached either by mounting it.
fn thaw_one(path: &Path, dev: DevNo, owner: Option<ProcessId>) -> Result<bool, Errno> {
    let Some(fd) = reached(path, dev)? else {
        return Ok(false); // the filesystem no longer exists
    };
    let end = Instant::now() + PATIENCE;
    loop {
        // Read before the thaw: while a thread of the dead run exists, EINVAL may mean that its FIFREEZE is
        // still in progress.
        let lingering = owner.is_some_and(|p| p.lingers(Path::new("/")));
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => return Ok(true),
            Err(Errno::EINVAL) if !lingering => return Ok(false),
            Err(Errno::EINVAL) if Instant::now() > end => return Err(Errno::EBUSY),
            Err(errno) if Instant::now() > end => return Err(errno),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Thaws what a run has frozen whose process exists and does not answer.
#[must_use]
pub fn by_force(journal: &Journal) -> Thaws {
    recorded(&journal.state.frozen, None)
}

/// An fd on this superblock: by its path, by any other mount of it in any namespace, below its covers, or by
/// mounting it again.
fn reached(path: &Path, dev: DevNo) -> Result<Option<OwnedFd>, Errno> {
    let open = |p: &Path| Linux.open(p).ok().filter(|fd| superblock::of_opened(fd, p) == Some(dev));
    if let Some(fd) = open(path) {
        return Ok(Some(fd));
    }
    let all = reach().unwrap_or_default();
    let paths = all.iter().find(|t| t.dev == dev).map(|t| t.paths.as_slice()).unwrap_or_default();
    if let Some(fd) = paths.iter().find_map(|p| open(p)) {
        return Ok(Some(fd));
    }
    if let Some(fd) = hidden_mounts::covered(dev)? {
        return Ok(Some(fd));
    }
    let lost = hidden_mounts::pathless(|d| d != dev || all.iter().any(|t| t.dev == d));
    lost.first().map(|lost| hidden_mounts::mounted_again(lost).map_err(|_| Errno::ENOLINK)).transpose()
}

/// FITHAW on every filesystem of this host, in every mount namespace, below covers, and on those that were
/// unmounted while frozen. Returns what was thawed and what failed. One that hangs (its path leads through a
/// dead server) has failed.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn everything() -> std::io::Result<Thaws> {
    let reach = reach()?;
    let lost = hidden_mounts::pathless(|dev| reach.iter().any(|t| t.dev == dev));
    let mut work: Vec<(PathBuf, Work)> = Vec::new();
    for target in reach {
        let name = target.paths.first().cloned().unwrap_or_default();
        work.push((name, Box::new(move || thaw_any(&target))));
    }
    for lost in lost {
        let name = lost.device.clone();
        work.push((
            name,
            Box::new(move || thaw_fd(&hidden_mounts::mounted_again(&lost).map_err(|_| Errno::ENOLINK)?)),
        ));
    }
    Ok(side_by_side(work, PATIENCE))
}

/// Every superblock of this host that could be frozen, with every path to it, in every mount namespace. Opens
/// none of these paths.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn reach() -> std::io::Result<Vec<Target>> {
    let mut reach: BTreeMap<DevNo, Vec<PathBuf>> = BTreeMap::new();
    let mut collect = |table: Vec<MountLine>, root: &Path| {
        for line in table {
            // Only filesystems that can freeze, so that nothing is opened that may hang (NFS, FUSE, autofs).
            if (line.dev.major != 0 && !line.fstype.starts_with("fuse")) || line.fstype == "btrfs" {
                let path =
                    line.mount_point.strip_prefix("/").map_or_else(|_| root.to_path_buf(), |p| root.join(p));
                reach.entry(line.dev).or_default().push(path);
            }
        }
    };
    // If one table cannot be parsed, the filesystems in the other namespaces must still be thawed.
    match mountinfo::read(Path::new("/"), "self") {
        Ok(table) => collect(table.lines, Path::new("/")),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {}
        Err(e) => return Err(e),
    }
    for pid in process::pids(Path::new("/"))? {
        if let Ok(table) = mountinfo::read(Path::new("/"), &pid.to_string()).map(|t| t.lines) {
            collect(table, Path::new(&format!("/proc/{pid}/root")));
        }
    }
    Ok(reach.into_iter().map(|(dev, paths)| Target { dev, paths }).collect())
}

/// FITHAW through each path of one superblock: some paths are covered by another mount, some lead through a
/// process that has ended. Thawing the filesystem that such a path leads to instead is harmless here, because
/// everything is thawed.
fn thaw_any(target: &Target) -> Result<bool, Errno> {
    let (mut failed, mut thawed, mut reached) = (None, false, false);
    for path in &target.paths {
        let Ok(fd) = Linux.open(path) else { continue };
        reached |= superblock::of_opened(&fd, path) == Some(target.dev);
        match thaw_fd(&fd) {
            Ok(now) => thawed |= now,
            Err(errno) => failed = Some(errno),
        }
    }
    if !reached {
        match hidden_mounts::covered(target.dev).and_then(|fd| fd.map_or(Ok(false), |fd| thaw_fd(&fd))) {
            Ok(now) => thawed |= now,
            Err(errno) => failed = Some(errno),
        }
    }
    failed.filter(|_| !thawed).map_or(Ok(thawed), Err)
}

fn thaw_fd(fd: &OwnedFd) -> Result<bool, Errno> {
    match Linux.thaw(fd.as_fd()) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_has_failed_and_the_others_are_told() {
        let work: Vec<(PathBuf, Work)> = vec![
            (
                "/hangs".into(),
                Box::new(|| {
                    loop {
                        std::thread::park()
                    }
                }),
            ),
            ("/was".into(), Box::new(|| Ok(true))),
            ("/was-not".into(), Box::new(|| Ok(false))),
        ];
        let (thawed, failed) = side_by_side(work, Duration::from_millis(200));
        assert_eq!(thawed, [PathBuf::from("/was")]);
        assert_eq!(failed, [(PathBuf::from("/hangs"), Errno::ETIMEDOUT)]);
    }
}
