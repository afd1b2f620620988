//! What a run that died left behind: thawed, released, and its snapshots found.
//!
//! In: journals in /run whose process is gone. Out: what was done about each. Must never: touch a run that lives, or
//! thaw a mount point that now leads to another filesystem.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::journal::{Created, FrozenMount, Journal};
use crate::discover::mountinfo;
use crate::ec2::{Ec2, RUN_TAG};
use crate::ids::{DevNo, RunId};
use crate::quiesce::{self, HookOutcome};
use crate::window::kernel::{Kernel, Linux};

/// How long a FIFREEZE that the dead run left in progress is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

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
pub async fn local(run_dir: &Path) -> (Vec<Recovered>, Vec<String>) {
    let (mut done, mut unreadable) = (Vec::new(), Vec::new());
    for journal in Journal::dead(run_dir) {
        match journal {
            Ok(journal) => done.push(undo(journal).await),
            Err(e) => unreadable.push(e),
        }
    }
    (done, unreadable)
}

async fn undo(mut journal: Journal) -> Recovered {
    let (thawed, failed) = thaw(&journal.state.frozen, journal.state.pid);
    let released = match &journal.state.env {
        Some(env) => quiesce::release(&journal.state.attempted, env).await,
        None => Vec::new(),
    };
    let run = journal.state.run.clone();
    // Each owed post command has been run once; running it again at every start would help nobody.
    let kept = journal.update(|state| {
        state.attempted.clear();
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
fn thaw(mounts: &[FrozenMount], pid: i32) -> Thaws {
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            mounts.iter().map(|m| scope.spawn(|| thaw_one(&m.mount_point, m.dev, pid))).collect();
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

/// True when it was frozen and is not any more.
fn thaw_one(path: &Path, dev: DevNo, pid: i32) -> Result<bool, Errno> {
    let fd = Linux.open(path)?;
    if dev.major != 0 {
        let found = nix::sys::stat::fstat(&fd)?.st_dev;
        let same = nix::sys::stat::major(found) == u64::from(dev.major)
            && nix::sys::stat::minor(found) == u64::from(dev.minor);
        if !same {
            return Ok(false); // remounted since: the filesystem that was frozen is not here
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        // Looked at before the thaw: a process in exit() may still have a FIFREEZE in progress, which also answers EINVAL.
        let lingering = Path::new(&format!("/proc/{pid}")).exists();
        match Linux.thaw(fd.as_fd()) {
            Ok(()) => return Ok(true),
            Err(Errno::EINVAL) if !lingering => return Ok(false),
            Err(errno) if Instant::now() > end => {
                return if errno == Errno::EINVAL { Ok(false) } else { Err(errno) };
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Finds what a dead run made, labels it `crash`, and closes its journal. Returns the ids.
///
/// # Errors
/// When EC2 cannot be asked; the journal stays for the next start.
pub async fn settle<E: Ec2>(
    ec2: &E,
    journal: Journal,
) -> Result<Vec<crate::ids::SnapshotId>, crate::ec2::Ec2Error> {
    let made = ec2.find_run(&journal.state.run).await?;
    let ids: Vec<_> = made.into_iter().map(|s| s.id).collect();
    if !ids.is_empty() {
        let tags = [
            (RUN_TAG.to_owned(), journal.state.run.to_string()),
            ("stillpoint:consistency".to_owned(), "crash".to_owned()),
            ("stillpoint:reason".to_owned(), "the run died before its verdict".to_owned()),
        ];
        ec2.tag(&ids, &tags).await?;
    }
    journal.close();
    Ok(ids)
}

/// The rescue: FITHAW on every filesystem of this host, in every mount namespace. Returns what was thawed and what failed.
///
/// # Errors
/// When not even this process's mounts can be read.
pub fn thaw_everything() -> std::io::Result<Thaws> {
    let mut reach: BTreeMap<DevNo, PathBuf> = BTreeMap::new();
    let mut collect = |table: &[u8], root: &Path| {
        for line in mountinfo::parse(table).unwrap_or_default() {
            // Only what can freeze, so that nothing is opened that may hang (NFS, FUSE, autofs).
            if line.dev.major != 0 || line.fstype == "btrfs" {
                let path =
                    line.mount_point.strip_prefix("/").map_or_else(|_| root.to_path_buf(), |p| root.join(p));
                reach.entry(line.dev).or_insert(path);
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
    let mounts: Vec<_> =
        reach.into_iter().map(|(dev, mount_point)| FrozenMount { dev, mount_point }).collect();
    Ok(thaw(&mounts, 0))
}
