//! FITHAW from outside of a run: on what a dead run left frozen, on what a run that hangs has frozen, or on
//! everything that is frozen on this host.
//!
//! In: a journal's mounts, or every mount namespace. Out: what was thawed, what could not be thawed, and why;
//! what could not be looked at. It is done in a process of its own (see [`process`]), where each superblock
//! gets threads of its own and a limit. Must never: wait for one before it starts the others, thaw a mount
//! point that now leads to another filesystem, or what the run's page says is thawed already (unless
//! everything is to be thawed), or count what it could not look at as not frozen.

pub mod process;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::process::Task;
use super::journal::{FrozenMount, Journal, MayBeFrozen};
use crate::host::calls::{self, Call};
use crate::host::kernel::{Kernel, Linux};
use crate::host::mountinfo::BadLine;
use crate::host::namespaces::{self, Place, Tables};
use crate::host::process::ProcessId;
use crate::host::reach::{self, Target, may_freeze};
use crate::host::{hidden_mounts, superblock, thread};
use crate::ids::DevNo;
use crate::path_encoding::shown;

/// How long to wait for a FIFREEZE that is still in progress in a thread of the dead run.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than that the whole thaw of a dead run may take.
const MARGIN: Duration = Duration::from_secs(5);

/// Thaws one superblock: true when it was frozen.
type Work = Box<dyn FnOnce() -> Result<bool, Errno> + Send>;

/// What was frozen and is thawed now; what could not be thawed, and why.
pub type Thaws = (Vec<PathBuf>, Vec<(PathBuf, Errno)>);

/// FITHAW on each filesystem that this dead run may have left frozen. EINVAL means that it is not frozen,
/// which counts as success.
pub(super) fn recorded(journal: &Journal) -> Thaws {
    if journal.may_be_frozen().mounts().next().is_none() {
        return Thaws::default();
    }
    elsewhere_or(&Task::Recorded(journal.path().to_owned()), || recorded_here(journal))
}

/// Has another process thaw: FITHAW may hang. Where that cannot be, this one does.
fn elsewhere_or(task: &Task, here: impl FnOnce() -> Thaws) -> Thaws {
    match process::elsewhere(task) {
        Some(Ok(everything)) => everything.thaws,
        _ => here(),
    }
}

fn recorded_here(journal: &Journal) -> Thaws {
    thaw_all(journal, Some(journal.freezing()))
}

fn thaw_all(journal: &Journal, dead: Option<Vec<ProcessId>>) -> Thaws {
    let frozen = journal.may_be_frozen();
    let work = frozen.mounts().map(|m| {
        let (mount, frozen, dead) = (m.clone(), frozen.clone(), dead.clone());
        (m.mount_point.clone(), Box::new(move || thaw_one(&mount, &frozen, dead.as_deref())) as Work)
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
fn thaw_one(mount: &FrozenMount, frozen: &MayBeFrozen, dead: Option<&[ProcessId]>) -> Result<bool, Errno> {
    let Some(fd) = reached(&mount.mount_point, mount.dev)? else {
        return Ok(false); // the filesystem no longer exists
    };
    let end = Instant::now() + PATIENCE;
    loop {
        // The watchdog has it, or has had it: what is frozen from then on is somebody else's.
        if !frozen.still(mount) {
            return Ok(false);
        }
        // Read before the thaw: while a thread of the dead run or of its freezer exists, EINVAL may mean that
        // its FIFREEZE is still in progress.
        let lingering = dead.unwrap_or_default().iter().any(|p| p.lingers(Path::new("/")));
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => {
                frozen.thawed(mount);
                return Ok(true);
            }
            Err(Errno::EINVAL) if !lingering => {
                // Of a run that lives, a FIFREEZE may still be in progress.
                if dead.is_some() {
                    frozen.thawed(mount);
                }
                return Ok(false);
            }
            Err(Errno::EINVAL) if Instant::now() > end => return Err(Errno::EBUSY),
            Err(errno) if Instant::now() > end => return Err(errno),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Thaws what a run has frozen whose process exists and does not answer.
#[must_use]
pub fn by_force(journal: &Journal) -> Thaws {
    elsewhere_or(&Task::Force(journal.path().to_owned()), || force_here(journal))
}

fn force_here(journal: &Journal) -> Thaws {
    thaw_all(journal, None)
}

/// An fd on this superblock: by its path, by any other mount of it in any namespace, below its covers, or by
/// mounting it again. None when it no longer exists.
fn reached(path: &Path, dev: DevNo) -> Result<Option<OwnedFd>, Errno> {
    if let Some(fd) = at_its_path(path, dev) {
        return Ok(Some(fd));
    }
    let tables = namespaces::tables(Path::new("/")).map_err(|_| Errno::EIO)?;
    let all = reach::targets(&tables);
    if let Some(target) = all.iter().find(|t| t.dev == dev) {
        return by_any_mount(target);
    }
    let lost = hidden_mounts::pathless(|d| d != dev || all.iter().any(|t| t.dev == d));
    lost.first().map(|lost| hidden_mounts::mounted_again(lost).map_err(|_| Errno::ENOLINK)).transpose()
}

/// Opens only what is on this superblock.
fn at_its_path(path: &Path, dev: DevNo) -> Option<OwnedFd> {
    let root = Place::Own.root().ok()?;
    let found = namespaces::walk(&root, path).ok().filter(|fd| superblock::of_fd(fd) == Some(dev))?;
    let fd = reach::is_plain(&found).ok()?.then(|| reach::reopened(&found))?.ok()?;
    (superblock::of_fd(&fd) == Some(dev)).then_some(fd)
}

fn by_any_mount(target: &Target) -> Result<Option<OwnedFd>, Errno> {
    match target.open(PATIENCE) {
        Ok(fd) => return Ok(Some(fd)),
        Err(Errno::ENOLINK) => {}
        Err(errno) => return Err(errno),
    }
    if let Some(fd) = hidden_mounts::covered(target)? {
        return Ok(Some(fd));
    }
    // The process that it was seen by may have ended, and the filesystem with it.
    let now = namespaces::tables(Path::new("/")).map_err(|_| Errno::EIO)?;
    let still = reach::targets(&now).iter().any(|t| t.dev == target.dev);
    if still { Err(Errno::ENOLINK) } else { Ok(None) }
}

/// What the rescue of everything came to.
#[derive(Debug)]
pub struct Everything {
    /// What was thawed and what was not.
    pub thaws: Thaws,
    /// What could not be looked at, in sentences: something there may still be frozen.
    pub unread: Vec<String>,
}

/// FITHAW on every filesystem of this host, in every mount namespace, below covers, and on those that were
/// unmounted while frozen. Returns what was thawed and what failed. One that hangs (its path leads through a
/// dead server) has failed.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn everything() -> Result<Everything, String> {
    process::elsewhere(&Task::Everything).unwrap_or_else(|| everything_here().map_err(|e| e.to_string()))
}

fn everything_here() -> std::io::Result<Everything> {
    let tables = namespaces::tables(Path::new("/"))?;
    let targets = reach::targets(&tables);
    let mut unread = unread(&tables, &targets);
    let freezing = calls::freezing(Path::new("/")).unwrap_or_else(|e| {
        unread.push(format!("cannot see whether a FIFREEZE is in progress: {e}"));
        Vec::new()
    });
    let freezing = Arc::new(freezing);
    let lost = hidden_mounts::pathless(|dev| targets.iter().any(|t| t.dev == dev));
    let mut work: Vec<(PathBuf, Work)> = Vec::new();
    for target in targets {
        let freezing = Arc::clone(&freezing);
        work.push((target.name(), Box::new(move || thaw_any(&target, &freezing))));
    }
    for lost in lost {
        let name = lost.device.clone();
        work.push((
            name,
            Box::new(move || {
                thaw_fd(&hidden_mounts::mounted_again(&lost).map_err(|_| Errno::ENOLINK)?, None)
            }),
        ));
    }
    // Reaching it and then waiting for a FIFREEZE that is in progress have a limit each.
    Ok(Everything { thaws: side_by_side(work, PATIENCE + MARGIN), unread })
}

/// Every superblock of this host that could be frozen, with every mount of it, and what could not be looked
/// at. Opens none of them.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn all() -> std::io::Result<(Tables, Vec<Target>, Vec<String>)> {
    let tables = namespaces::tables(Path::new("/"))?;
    let targets = reach::targets(&tables);
    let unread = unread(&tables, &targets);
    Ok((tables, targets, unread))
}

/// Most processes of which each gets a sentence.
const NAMED: usize = 5;

/// What could not be looked at, in sentences.
fn unread(tables: &Tables, known: &[Target]) -> Vec<String> {
    let (mut said, mut texts) = (Vec::new(), BTreeSet::new());
    for table in &tables.tables {
        // Namespaces that were copied have the same line once more.
        for bad in table.table.unread.iter().filter(|bad| hides(bad, table.foreign, known)) {
            if texts.insert(bad.text.clone()) {
                let whose = shown(&table.place.shown(Path::new("/")));
                said.push(format!("cannot read a line of the mounts below {whose}: {bad}"));
            }
        }
    }
    let hidden = tables.hidden.iter();
    said.extend(hidden.clone().take(NAMED).map(|(who, e)| format!("cannot read the mounts of {who}: {e}")));
    if let Some(more) = tables.hidden.len().checked_sub(NAMED).filter(|n| *n > 0) {
        said.push(format!("nor those of {more} others"));
    }
    said.extend(tables.blind.clone());
    said
}

/// May a filesystem that can be frozen be on this line alone? Who makes a user namespace can have any text
/// written into the tables of it (a line break in the options of an overlay). But what he mounts cannot be
/// frozen, and what he has inherited has a line with its device number: nothing else of his counts.
fn hides(bad: &BadLine, foreign: bool, known: &[Target]) -> bool {
    let Some(dev) = bad.dev.filter(|_| foreign) else { return !foreign };
    let can = bad.fstype.as_ref().is_none_or(|fstype| may_freeze(dev, fstype));
    can && !known.iter().any(|t| t.dev == dev)
}

/// FITHAW on one superblock, by the first path that leads to it.
fn thaw_any(target: &Target, freezing: &[(DevNo, Call)]) -> Result<bool, Errno> {
    let in_progress = freezing.iter().find(|(dev, _)| *dev == target.dev).map(|(_, call)| call);
    by_any_mount(target)?.map_or(Ok(false), |fd| thaw_fd(&fd, in_progress))
}

/// EBUSY when a FIFREEZE stays in progress: what it freezes will be frozen when it returns.
fn thaw_fd(fd: &OwnedFd, in_progress: Option<&Call>) -> Result<bool, Errno> {
    let end = Instant::now() + PATIENCE;
    loop {
        // Read before the thaw: only an EINVAL that comes after its end is final.
        let goes_on = in_progress.is_some_and(|call| call.goes_on(Path::new("/")));
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => return Ok(true),
            Err(Errno::EINVAL) if goes_on && Instant::now() > end => return Err(Errno::EBUSY),
            Err(Errno::EINVAL) if goes_on => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY) => return Ok(false),
            Err(errno) => return Err(errno),
        }
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

    /// Anybody can make a namespace in which a line looks as he likes.
    #[test]
    fn a_line_that_cannot_be_read_counts_unless_only_a_stranger_can_have_made_it() {
        let bad = |line: &str| crate::host::mountinfo::parse(line.as_bytes()).unread.remove(0);
        let known = [Target { dev: DevNo { major: 259, minor: 1 }, fstype: "ext4".into(), ways: vec![] }];
        for (line, foreign, counts) in [
            ("nonsense", false, true),
            ("1 2 0:5 / / rw - overlay", false, true),
            ("nonsense", true, false),
            ("1 2 0:5 / / rw - overlay", true, false),
            ("1 2 259:2 / / rw - ext4", true, true),
            ("1 2 0:5 / / rw", true, true),
            ("1 2 259:1 / / rw - ext4", true, false),
        ] {
            assert_eq!(hides(&bad(line), foreign, &known), counts, "{line} {foreign}");
        }
    }
}
