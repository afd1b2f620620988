//! What a run that died left behind: thawed, mounted, released, and its snapshots found.
//!
//! In: journals in /run whose process is gone. Out: what was done about each. Must never: touch a run that lives, or
//! thaw a mount point that now leads to another filesystem.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::desk;
use super::journal::{Created, FrozenMount, Journal};
use super::uncover;
use super::unmounted::{self, Back};
use crate::discover::mountinfo;
use crate::ec2::reconcile::{self, Outcome};
use crate::ec2::{Ec2, Ec2Error};
use crate::exit::Exit;
use crate::ids::{DevNo, RunId, SnapshotId};
use crate::quiesce::HookOutcome;
use crate::window::expedite::Former;
use crate::window::kernel::{Kernel, Linux};
use crate::window::probe::Target;
use crate::window::superblock;

/// How long a FIFREEZE that the dead run left in progress is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this, what EC2 does not show does not exist.
const SETTLED: Duration = Duration::from_secs(600);

/// What was frozen and is thawed now; what could not be thawed, and why.
pub type Thaws = (Vec<PathBuf>, Vec<(PathBuf, Errno)>);

/// What was done about one dead run.
#[derive(Debug)]
pub struct Recovered {
    /// The run.
    pub run: RunId,
    /// Mount points that were still frozen and are thawed now.
    pub thawed: Vec<PathBuf>,
    /// Mount points that may still be frozen, and why.
    pub failed: Vec<(PathBuf, Errno)>,
    /// What was mounted again, and what could not be.
    pub back: Back,
    /// Post commands, as they ran.
    pub released: Vec<HookOutcome>,
    /// Its journal, where EC2 must still be asked what it made.
    pub unsettled: Option<Journal>,
    /// It was a run of `freeze`.
    pub hold: bool,
    /// `rcu_expedited` was still raised, and is as it was.
    pub put_back: bool,
}

/// Thaws, mounts and releases what dead runs left; unreadable journals come as text.
///
/// Thawing takes no lock, so that nothing can hold it up. Releasing does: two recoveries at once must not run a post command twice.
pub async fn local(run_dir: &Path) -> (Vec<Recovered>, Vec<String>) {
    let mut thaws = BTreeMap::new();
    for journal in Journal::dead(run_dir).into_iter().flatten() {
        thaws.insert(journal.state.run.clone(), thaw(&journal.state.frozen, Some(&journal)));
    }
    let _lock = release_lock(run_dir).await;
    let (mut done, mut unreadable) = (Vec::new(), Vec::new());
    for journal in Journal::dead(run_dir) {
        match journal {
            Ok(journal) => {
                // One that died since the first look has not been thawed yet.
                let thawed = thaws
                    .remove(&journal.state.run)
                    .unwrap_or_else(|| thaw(&journal.state.frozen, Some(&journal)));
                done.push(release(run_dir, journal, thawed).await);
            }
            Err(e) => unreadable.push(e),
        }
    }
    (done, unreadable)
}

/// None where it cannot be had (no run folder, nothing to release then).
async fn release_lock(run_dir: &Path) -> Option<Flock<std::fs::File>> {
    let mut file = std::fs::File::create(run_dir.join("recover.lock")).ok()?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Some(held),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err(_) => return None,
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn release(run_dir: &Path, mut journal: Journal, (thawed, failed): Thaws) -> Recovered {
    let put_back = match journal.state.expedited.as_ref().map(Former::recover) {
        Some(Err(e)) => {
            tracing::warn!("cannot put back /sys/kernel/rcu_expedited: {e}");
            false
        }
        put_back => put_back.is_some_and(Result::unwrap_or_default),
    };
    let record = journal.state.hold.clone().map(|hold| {
        // What it kept itself says more than what it knew before the freeze.
        desk::kept(run_dir, Some(&journal.state.run)).unwrap_or(hold.record).died()
    });
    let hold = record.is_some();
    let mut back = Back::default();
    if !journal.state.unmounted.is_empty() {
        // A thread of the dead run may still be inside umount(2) or mounting.
        let end = Instant::now() + PATIENCE;
        while journal.lingers() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        back = if journal.lingers() {
            unmounted::not_yet(&journal, "a thread of the dead run is still in the kernel")
        } else {
            unmounted::back(&mut journal, Vec::new()).await
        };
    }
    let released = match journal.state.env.clone() {
        Some(env) => journal.release(&env, |_| ()).await,
        None => Vec::new(),
    };
    if let Some(mut record) = record {
        record.after.extend(released.iter().filter(|h| !h.succeeded()).map(ToString::to_string));
        record.hooks.extend(released.iter().cloned());
        record.still_frozen.retain(|m| failed.iter().any(|(f, _)| f == m));
        if record.exit_code == Exit::StillFrozen.code() && record.still_frozen.is_empty() {
            record.exit_code = Exit::NotHeld.code();
        }
        if record.exit_code == Exit::Ok.code() && !record.after.is_empty() {
            record.exit_code = Exit::After.code();
        }
        desk::keep(run_dir, &record);
    }
    let run = journal.state.run.clone();
    let kept = journal.update(|state| {
        state.frozen.retain(|f| failed.iter().any(|(m, _)| *m == f.mount_point));
    });
    let done = failed.is_empty() && journal.state.unmounted.is_empty();
    let unsettled = if journal.state.created == Created::No && done && kept.is_ok() {
        journal.close();
        None
    } else {
        Some(journal)
    };
    Recovered { run, thawed, failed, back, released, unsettled, hold, put_back }
}

/// FITHAW on each, a thread each. EINVAL means that it was not frozen, which is what we want.
fn thaw(mounts: &[FrozenMount], owner: Option<&Journal>) -> Thaws {
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            mounts.iter().map(|m| scope.spawn(|| thaw_one(&m.mount_point, m.dev, owner))).collect();
        running.into_iter().map(|t| t.join().unwrap_or(Err(Errno::EIO))).collect()
    });
    let (mut thawed, mut failed) = (Vec::new(), Vec::new());
    for (mount, result) in mounts.iter().zip(results) {
        match result {
            Ok(true) => thawed.push(mount.mount_point.clone()),
            Ok(false) => {}
            Err(errno) => failed.push((mount.mount_point.clone(), errno)),
        }
    }
    (thawed, failed)
}

/// True when it was frozen and is not any more. EBUSY when a FIFREEZE of the dead run is still in progress; ENOLINK when it is
/// mounted nowhere and could not be reached all the same.
fn thaw_one(path: &Path, dev: DevNo, owner: Option<&Journal>) -> Result<bool, Errno> {
    let Some(fd) = reached(path, dev)? else {
        return Ok(false); // there is no such filesystem any more
    };
    let end = Instant::now() + PATIENCE;
    loop {
        // Looked at before the thaw: while a thread of the dead run is left, EINVAL may mean a FIFREEZE in progress.
        let lingering = owner.is_some_and(Journal::lingers);
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => return Ok(true),
            Err(Errno::EINVAL) if !lingering => return Ok(false),
            Err(Errno::EINVAL) if Instant::now() > end => return Err(Errno::EBUSY),
            Err(errno) if Instant::now() > end => return Err(errno),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Thaws what a run that lives and does not answer has frozen.
#[must_use]
pub fn by_force(journal: &Journal) -> Thaws {
    thaw(&journal.state.frozen, None)
}

/// An fd on this superblock: by its path, by any other mount of it in any namespace, below what covers it, or by mounting it again.
fn reached(path: &Path, dev: DevNo) -> Result<Option<OwnedFd>, Errno> {
    let open = |p: &Path| Linux.open(p).ok().filter(|fd| superblock::at(fd, p) == Some(dev));
    if let Some(fd) = open(path) {
        return Ok(Some(fd));
    }
    let all = reach().unwrap_or_default();
    let paths = all.iter().find(|t| t.dev == dev).map(|t| t.paths.as_slice()).unwrap_or_default();
    if let Some(fd) = paths.iter().find_map(|p| open(p)) {
        return Ok(Some(fd));
    }
    if let Some(fd) = uncover::covered(dev)? {
        return Ok(Some(fd));
    }
    let lost = uncover::pathless(|d| d != dev || all.iter().any(|t| t.dev == d));
    lost.first().map(|lost| uncover::mounted_again(lost).map_err(|_| Errno::ENOLINK)).transpose()
}

/// Finds what a dead run made, labels it `crash`, and closes its journal. Returns the ids.
///
/// EC2 is eventually consistent: where nothing is seen, the journal of a run that died a moment ago stays for the next start.
///
/// # Errors
/// When EC2 cannot be asked; the journal stays for the next start.
pub async fn settle<E: Ec2>(ec2: &E, journal: Journal) -> Result<Vec<SnapshotId>, Ec2Error> {
    let mut ids = match &journal.state.created {
        Created::Made(ids) => ids.clone(),
        _ => Vec::new(),
    };
    match reconcile::by_run(ec2, &journal.state.run, &reconcile::LOOKS[..2]).await {
        Outcome::Made(found) => {
            for snapshot in found {
                if !ids.contains(&snapshot.id) {
                    ids.push(snapshot.id);
                }
            }
        }
        Outcome::NoneSeen => {}
        Outcome::Unknown(error) => return Err(error),
    }
    if !ids.is_empty() {
        let tags = [
            ("stillpoint:consistency".to_owned(), "crash".to_owned()),
            ("stillpoint:reason".to_owned(), "the run died before its verdict".to_owned()),
        ];
        ec2.tag(&ids, &tags).await?;
    }
    if (!ids.is_empty() || journal.age() > SETTLED) && journal.state.unmounted.is_empty() {
        journal.close();
    }
    Ok(ids)
}

/// The rescue: FITHAW on every filesystem of this host, in every mount namespace, below covers, and on those that were unmounted
/// while frozen. Returns what was thawed and what failed; one that hangs (a dead server on the way to it) is given up.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn thaw_everything() -> std::io::Result<Thaws> {
    let reach = reach()?;
    let lost = uncover::pathless(|dev| reach.iter().any(|t| t.dev == dev));
    let mut names: Vec<PathBuf> = reach.iter().filter_map(|t| t.paths.first().cloned()).collect();
    names.extend(lost.iter().map(|l| l.device.clone()));
    let (tell, told) = std::sync::mpsc::channel();
    let mut spawn = 0..names.len();
    let mut start = |work: Box<dyn FnOnce() -> Result<bool, Errno> + Send>| {
        let (tell, index) = (tell.clone(), spawn.next());
        std::thread::spawn(move || {
            let _ = tell.send((index, work()));
        });
    };
    for target in reach {
        start(Box::new(move || thaw_any(&target)));
    }
    for lost in lost {
        start(Box::new(move || thaw_fd(&uncover::mounted_again(&lost).map_err(|_| Errno::ENOLINK)?)));
    }
    let mut results = vec![Err(Errno::ETIMEDOUT); names.len()];
    let end = Instant::now() + PATIENCE;
    for _ in 0..results.len() {
        let Ok((index, result)) = told.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            break;
        };
        if let Some(slot) = index.and_then(|i| results.get_mut(i)) {
            *slot = result;
        }
    }
    let (mut thawed, mut failed) = (Vec::new(), Vec::new());
    for (name, result) in names.into_iter().zip(results) {
        match result {
            Ok(true) => thawed.push(name),
            Ok(false) => {}
            Err(errno) => failed.push((name, errno)),
        }
    }
    Ok((thawed, failed))
}

/// Every superblock of this host that could be frozen, with every path to it, in every mount namespace. Opens none of them.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn reach() -> std::io::Result<Vec<Target>> {
    let mut reach: BTreeMap<DevNo, Vec<PathBuf>> = BTreeMap::new();
    let mut collect = |table: &[u8], root: &Path| {
        for line in mountinfo::parse(table).unwrap_or_default() {
            // Only what can freeze, so that nothing is opened that may hang (NFS, FUSE, autofs).
            if (line.dev.major != 0 && !line.fstype.starts_with("fuse")) || line.fstype == "btrfs" {
                let path =
                    line.mount_point.strip_prefix("/").map_or_else(|_| root.to_path_buf(), |p| root.join(p));
                reach.entry(line.dev).or_default().push(path);
            }
        }
    };
    collect(&std::fs::read("/proc/self/mountinfo")?, Path::new("/"));
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())
            && let Ok(table) = std::fs::read(entry.path().join("mountinfo"))
        {
            collect(&table, &entry.path().join("root"));
        }
    }
    Ok(reach.into_iter().map(|(dev, paths)| Target { dev, paths }).collect())
}

/// FITHAW through every path of one superblock: some are covered by another mount, some processes are gone by now. Thawing what such
/// a path leads to instead is harmless here, since everything is thawed.
fn thaw_any(target: &Target) -> Result<bool, Errno> {
    let (mut failed, mut thawed, mut reached) = (None, false, false);
    for path in &target.paths {
        let Ok(fd) = Linux.open(path) else { continue };
        reached |= superblock::at(&fd, path) == Some(target.dev);
        match thaw_fd(&fd) {
            Ok(now) => thawed |= now,
            Err(errno) => failed = Some(errno),
        }
    }
    if !reached {
        match uncover::covered(target.dev).and_then(|fd| fd.map_or(Ok(false), |fd| thaw_fd(&fd))) {
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
