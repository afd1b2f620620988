//! What a run that died left behind: thawed, released, and its snapshots found.
//!
//! In: journals in /run whose process is gone. Out: what was done about each. Must never: touch a run that lives, or
//! thaw a mount point that now leads to another filesystem.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::journal::{Created, FrozenMount, Journal};
use crate::discover::mountinfo;
use crate::ec2::reconcile::{self, Outcome};
use crate::ec2::{Ec2, Ec2Error};
use crate::ids::{DevNo, RunId, SnapshotId};
use crate::quiesce::HookOutcome;
use crate::window::kernel::{Kernel, Linux};
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
    /// Post commands, as they ran.
    pub released: Vec<HookOutcome>,
    /// Its journal, where EC2 must still be asked what it made.
    pub unsettled: Option<Journal>,
}

/// Thaws and releases what dead runs left; unreadable journals come as text.
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
                let thawed = thaws.remove(&journal.state.run).unwrap_or_default();
                done.push(release(journal, thawed).await);
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

async fn release(mut journal: Journal, (thawed, failed): Thaws) -> Recovered {
    let released = match journal.state.env.clone() {
        Some(env) => journal.release(&env, |_| ()).await,
        None => Vec::new(),
    };
    let run = journal.state.run.clone();
    let kept = journal.update(|state| {
        state.frozen.retain(|f| failed.iter().any(|(m, _)| *m == f.mount_point));
    });
    let unsettled = if journal.state.created == Created::No && failed.is_empty() && kept.is_ok() {
        journal.close();
        None
    } else {
        Some(journal)
    };
    Recovered { run, thawed, failed, released, unsettled }
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

/// True when it was frozen and is not any more. EBUSY when a FIFREEZE of the dead run is still in progress.
fn thaw_one(path: &Path, dev: DevNo, owner: Option<&Journal>) -> Result<bool, Errno> {
    // Its path may be covered or gone by now; any other mount of it will do.
    let Some(fd) = std::iter::once(path.to_path_buf()).chain(other_mounts(dev)).find_map(|p| {
        let fd = Linux.open(&p).ok()?;
        (superblock::of(&fd) == Some(dev)).then_some(fd)
    }) else {
        return Ok(false); // mounted nowhere any more
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

fn other_mounts(dev: DevNo) -> impl Iterator<Item = PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines = mountinfo::parse(&table).unwrap_or_default();
    lines.into_iter().filter(move |l| l.dev == dev).map(|l| l.mount_point)
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
    if !ids.is_empty() || journal.age() > SETTLED {
        journal.close();
    }
    Ok(ids)
}

/// The rescue: FITHAW on every filesystem of this host, in every mount namespace. Returns what was thawed and what failed.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn thaw_everything() -> std::io::Result<Thaws> {
    let mut reach: BTreeMap<DevNo, Vec<PathBuf>> = BTreeMap::new();
    let mut collect = |table: &[u8], root: &Path| {
        for line in mountinfo::parse(table).unwrap_or_default() {
            // Only what can freeze, so that nothing is opened that may hang (NFS, FUSE, autofs).
            if line.dev.major != 0 || line.fstype == "btrfs" {
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
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = reach.values().map(|paths| scope.spawn(|| thaw_any(paths))).collect();
        running.into_iter().map(|t| t.join().unwrap_or(Err(Errno::EIO))).collect()
    });
    let (mut thawed, mut failed) = (Vec::new(), Vec::new());
    for (paths, result) in reach.into_values().zip(results) {
        let Some(name) = paths.into_iter().next() else { continue };
        match result {
            Ok(true) => thawed.push(name),
            Ok(false) => {}
            Err(errno) => failed.push((name, errno)),
        }
    }
    Ok((thawed, failed))
}

/// FITHAW through every path of one superblock: some are covered by another mount, some processes are gone by now. Thawing what such
/// a path leads to instead is harmless here, since everything is thawed.
fn thaw_any(paths: &[PathBuf]) -> Result<bool, Errno> {
    let mut failed = None;
    let mut thawed = false;
    for fd in paths.iter().filter_map(|p| Linux.open(p).ok()) {
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => thawed = true,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY) => {}
            Err(errno) => failed = Some(errno),
        }
    }
    failed.filter(|_| !thawed).map_or(Ok(thawed), Err)
}
