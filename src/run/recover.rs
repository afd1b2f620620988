//! Undoes what a run that died has left: thaws, mounts again, releases, and finds its snapshots.
//!
//! In: journals in /run whose process is gone. Out: what was done about each. Must never: touch a run whose
//! process exists, or thaw a mount point that now leads to another filesystem.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::clone;
use super::control_socket;
use super::journal::{Created, Given, Journal};
use super::release;
use super::rescue::{self, PATIENCE, Thaws};
use super::settle;
use super::unmounted::{self, Remounted};
use crate::clock::Clock;
use crate::ec2::clones::Clones;
use crate::ec2::reconcile::{self, Outcome};
use crate::ec2::{Ec2, Ec2Error, SnapshotView};
use crate::exit::Exit;
use crate::host::lock::{self, FileLock, NoLock};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::quiesce::{HookOutcome, Quiesced};
use crate::sets::tags;
use crate::window::expedite::Former;

/// After this time, a snapshot that EC2 does not show does not exist.
const SETTLED: Duration = Duration::from_secs(600);

/// How long to wait for another recovery. It runs post hooks, each with a limit of its own, and mounts.
const LOCK_LIMIT: Duration = Duration::from_secs(600);

/// What was done about one run that is over.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub run: RunId,
    /// It came to its end, and left something to be done; else it died.
    pub ended: bool,
    /// Mount points that were still frozen and are thawed now.
    pub thawed: Vec<PathBuf>,
    /// Mount points that may still be frozen, and why.
    pub failed: Vec<(PathBuf, Errno)>,
    /// What was mounted again, and what could not be.
    pub remounted: Remounted,
    /// The post commands that ran.
    pub released: Vec<HookOutcome>,
    /// The snapshots that have its verdict already. It may not have come to report them.
    pub judged: Vec<SnapshotId>,
    /// Its journal, where EC2 still has to be asked which snapshots it made.
    pub unsettled: Option<Journal>,
    /// `rcu_expedited` was still raised, and is set back.
    pub rcu_restored: bool,
}

/// What was done about all runs that are over, on this host (EC2 is asked by [`settle`]).
#[derive(Debug, Default)]
pub struct Local {
    pub(crate) recovered: Vec<Recovered>,
    /// Journals that cannot be read, and why.
    pub(crate) unreadable: Vec<String>,
    /// The process of another recovery that takes longer than this one waits: nothing was mounted or released
    /// here.
    pub busy: Option<String>,
}

/// Thaws, mounts and releases what dead runs left.
///
/// Thawing takes no lock, so that nothing can delay it. Releasing takes one, because two recoveries at once
/// must not run a post command twice.
pub async fn local(run_dir: &Path) -> Local {
    within(run_dir, LOCK_LIMIT).await
}

async fn within(run_dir: &Path, limit: Duration) -> Local {
    let mut thaws = BTreeMap::new();
    for journal in Journal::dead(run_dir).into_iter().flatten() {
        let thawed = rescue::recorded(&journal);
        thaws.insert(journal.state.run.clone(), (journal.state.ended, thawed));
    }
    let mut local = Local::default();
    let _lock = match release_lock(run_dir, limit).await {
        Ok(lock) => lock,
        Err(who) => {
            local.recovered = thaws
                .into_iter()
                .map(|(run, (ended, thaws))| Recovered::only_thawed(run, ended, thaws))
                .collect();
            local.busy = Some(who);
            return local;
        }
    };
    for journal in Journal::dead(run_dir) {
        match journal {
            Ok(journal) => {
                // A run that died after the first listing has not been thawed yet.
                let thawed = thaws
                    .remove(&journal.state.run)
                    .map(|(_, thaws)| thaws)
                    .unwrap_or_else(|| rescue::recorded(&journal));
                local.recovered.push(release(run_dir, journal, thawed).await);
            }
            Err(e) => local.unreadable.push(e),
        }
    }
    local
}

impl Recovered {
    fn only_thawed(run: RunId, ended: bool, (thawed, failed): Thaws) -> Self {
        Self {
            run,
            ended,
            thawed,
            failed,
            remounted: Remounted::default(),
            released: Vec::new(),
            judged: Vec::new(),
            unsettled: None,
            rcu_restored: false,
        }
    }
}

/// The lock of a recovery. None where it cannot be taken at all: there is no run folder, so nothing to
/// release.
///
/// # Errors
/// The process that has it, when it is not free within `limit`.
async fn release_lock(run_dir: &Path, limit: Duration) -> Result<Option<FileLock>, String> {
    match lock::take(&run_dir.join("recover.lock"), limit).await {
        Ok(held) => Ok(Some(held)),
        Err(NoLock::Unusable(_)) => Ok(None),
        Err(NoLock::Taken { pid: None }) => Err("unknown process".to_owned()),
        Err(NoLock::Taken { pid: Some(pid) }) => Err(format!("process {pid}")),
    }
}

async fn release(run_dir: &Path, mut journal: Journal, (thawed, failed): Thaws) -> Recovered {
    let rcu_restored = match journal.state.expedited.as_ref().map(Former::recover) {
        Some(Err(e)) => {
            tracing::warn!("cannot put back /sys/kernel/rcu_expedited: {e}");
            false
        }
        rcu_restored => {
            // Done only once: if the setting is raised again later, somebody else has raised it.
            journal.state.expedited = None;
            rcu_restored.is_some_and(Result::unwrap_or_default)
        }
    };
    let record = journal.state.held_freeze.clone().map(|hold| {
        // The record that the run kept itself is newer than the one in its journal, from before the freeze.
        control_socket::kept(run_dir, Some(&journal.state.run)).unwrap_or(hold.record).died()
    });
    let mut remounted = Remounted::default();
    if !journal.state.unmounted.is_empty() {
        // A thread of the dead run may still be inside umount(2) or mounting.
        let end = Instant::now() + PATIENCE;
        while journal.lingers() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        remounted = if journal.lingers() {
            unmounted::not_yet(&journal, "a thread of the dead run is still in the kernel")
        } else {
            unmounted::owed(&mut journal, Vec::new()).await
        };
    }
    let released = match journal.state.env.clone() {
        Some(mut env) => {
            env.not_mounted = remounted.not_mounted();
            release::owed(&mut journal, &env, &mut Quiesced::default(), false, |_| ()).await
        }
        None => Vec::new(),
    };
    if let Some(mut record) = record {
        record.after.extend(released.iter().filter(|h| !h.succeeded()).map(ToString::to_string));
        record.hooks.extend(released.iter().cloned());
        record.still_frozen = failed.iter().map(|(m, _)| m.clone()).collect();
        record.exit = match record.exit {
            _ if !failed.is_empty() => Exit::StillFrozen,
            Exit::StillFrozen => Exit::NotHeld,
            Exit::Ok if !record.after.is_empty() => Exit::After,
            said => said,
        };
        control_socket::keep(run_dir, &record);
    }
    let (run, ended) = (journal.state.run.clone(), journal.state.ended);
    let given = journal.state.verdict.iter().filter(|given| given.done);
    let judged = given.flat_map(Given::snapshots).cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let kept = journal.update(|state| {
        state.frozen.retain(|f| failed.iter().any(|(m, _)| *m == f.mount_point));
    });
    let owed = !journal.state.attempted.is_empty() || !journal.state.unmounted.is_empty();
    let done = failed.is_empty() && !owed && journal.state.expedited.is_none();
    let unsettled = if journal.state.created == Created::No && done && kept.is_ok() {
        journal.close();
        None
    } else {
        Some(journal)
    };
    Recovered { run, ended, thawed, failed, remounted, released, judged, unsettled, rcu_restored }
}

/// What EC2 was told of the snapshots of a run that is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// These have the run's own verdict now.
    pub judged: Vec<SnapshotId>,
    /// Nobody had judged these: they are labelled `crash`.
    pub crash: Vec<SnapshotId>,
}

/// Finds what a run made that is over, puts the run's verdict on it, or `crash` where it gave none, and
/// closes its journal.
///
/// `ec2` repeats what may be repeated. EC2 is eventually consistent: when it shows nothing of a run that died a
/// moment ago, the journal stays for the next start.
///
/// # Errors
/// When EC2 does not do as it is asked. The journal then stays for the next start, unless the role may not
/// tag: a set without a verdict counts as `crash`.
pub async fn settle<E: Ec2>(
    ec2: &E,
    instance: &InstanceId,
    clock: &dyn Clock,
    mut journal: Journal,
) -> Result<Settled, Ec2Error> {
    let mut settled = Settled::default();
    let tagged = tag(ec2, instance, clock, &mut journal, &mut settled).await;
    let state = &journal.state;
    let owed = !state.unmounted.is_empty() || !state.attempted.is_empty() || state.expedited.is_some();
    let found = settled != Settled::default();
    let over = match &tagged {
        Ok(()) => found || journal.age() > SETTLED,
        Err(e) => e.denied() && found,
    };
    match () {
        () if over && !owed => journal.close(),
        // Released and mounted is a matter of its own, and EC2 is not asked again for that.
        () if over => {
            let _ = journal.update(|state| state.created = Created::No);
        }
        () => {
            let _ = journal.write();
        }
    }
    tagged.map(|()| settled)
}

/// Finds the clones that a run made which is over, labels them `crash` and closes its journal. A run that came to its
/// verdict has closed it itself, but where it could not delete what it made.
///
/// # Errors
/// When EC2 does not do as it is asked. The journal then stays for the next start.
pub async fn settle_clones<E: Clones>(
    ec2: &E,
    instance: &InstanceId,
    clock: &dyn Clock,
    mut journal: Journal,
) -> Result<Vec<VolumeId>, Ec2Error> {
    let state = &journal.state;
    let found = clone::settle_dead(ec2, instance, clock, &state.run, &state.shares.volumes).await;
    let owed = !state.unmounted.is_empty() || !state.attempted.is_empty() || state.expedited.is_some();
    let over = match &found {
        Ok(ids) => !ids.is_empty() || journal.age() > SETTLED,
        Err(e) => e.denied(),
    };
    match () {
        () if over && !owed => journal.close(),
        () if over => {
            let _ = journal.update(|state| state.created = Created::No);
        }
        () => {
            let _ = journal.write();
        }
    }
    found
}

async fn tag<E: Ec2>(
    ec2: &E,
    instance: &InstanceId,
    clock: &dyn Clock,
    journal: &mut Journal,
    settled: &mut Settled,
) -> Result<(), Ec2Error> {
    let state = &mut journal.state;
    if let Some(given) = &mut state.verdict {
        settled.judged = given.snapshots().cloned().collect();
        settled.judged.sort_unstable();
        settled.judged.dedup();
        if !given.done {
            settle::label(ec2, given).await?;
        }
    }
    let mut made = match &state.created {
        Created::Made(ids) => ids.clone(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    // Whoever has judged a set has known all of it, unless the answer was lost.
    if state.verdict.is_none() || state.created == Created::Maybe {
        match reconcile::by_run(ec2, &state.run, instance, &reconcile::LOOKS[..2], clock).await {
            Outcome::Made(all) => found = all,
            Outcome::NoneSeen => {}
            Outcome::Unknown(error) => return Err(error),
        }
    }
    made.extend(found.iter().map(|s| s.id.clone()));
    made.sort_unstable();
    made.dedup();
    made.retain(|id| !settled.judged.contains(id));
    settled.crash = made;
    if settled.crash.is_empty() {
        return Ok(());
    }
    let tags = [
        ("stillpoint:consistency".to_owned(), "crash".to_owned()),
        ("stillpoint:reason".to_owned(), "the run died before its verdict".to_owned()),
    ];
    ec2.tag(&settled.crash, &tags).await?;
    let of_crash = |s: &SnapshotView| settled.crash.contains(&s.id).then(|| (s.id.clone(), s.volume.clone()));
    let crash: Vec<_> = found.iter().filter_map(of_crash).collect();
    for (id, own) in tags::members(&state.shares.volumes, &state.shares.spread, &crash) {
        ec2.tag(&[id], &own).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DevNo;
    use crate::run::journal::FrozenMount;

    /// A journal of a process that is gone.
    fn dead(run_dir: &Path) -> Journal {
        let mut journal = Journal::start(run_dir, &RunId::generate(), "p", |_| ()).unwrap();
        journal.update(|s| s.process.start += 1).unwrap();
        journal
    }

    #[tokio::test]
    async fn a_recovery_that_does_not_end_is_not_waited_for_without_limit() {
        let dir = tempfile::tempdir().unwrap();
        let run = dead(dir.path()).state.run;
        let held = release_lock(dir.path(), Duration::ZERO).await.unwrap();
        let local = within(dir.path(), Duration::from_millis(120)).await;
        assert_eq!(local.busy, Some(format!("process {}", std::process::id())));
        assert_eq!(local.recovered[0].run, run);
        assert_eq!(Journal::dead(dir.path()).len(), 1, "released past the lock");
        drop(held);
        let local = within(dir.path(), Duration::ZERO).await;
        assert_eq!((local.busy, local.recovered.len()), (None, 1));
        assert!(Journal::dead(dir.path()).is_empty());
    }

    /// The journal stays until EC2 was asked: the next recovery must not set back what somebody else has
    /// raised since.
    #[tokio::test]
    async fn what_was_raised_is_put_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let knob = dir.path().join("knob");
        std::fs::write(&knob, "1\n").unwrap();
        let former = Former { path: knob.clone(), value: "0".into() };
        let change = |s: &mut super::super::journal::State| {
            s.created = Created::Maybe;
            s.expedited = Some(former);
        };
        dead(dir.path()).update(change).unwrap();
        assert!(local(dir.path()).await.recovered[0].rcu_restored);
        assert_eq!(std::fs::read_to_string(&knob).unwrap().trim(), "0");
        std::fs::write(&knob, "1\n").unwrap();
        assert!(!local(dir.path()).await.recovered[0].rcu_restored);
        assert_eq!(std::fs::read_to_string(&knob).unwrap().trim(), "1", "somebody else's");
    }

    /// The holder died, and the recovery could not thaw: a later `thaw` exits with 40, and with 22 once it is
    /// thawed.
    #[tokio::test]
    async fn the_record_of_a_freeze_says_what_the_recovery_could_not_thaw() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = dead(dir.path());
        let run = journal.state.run.clone();
        let mount_point = PathBuf::from("/data");
        let record = serde_json::json!({
            "version": 1, "run_id": run, "plan": "p", "pid": 1, "filesystems": [], "volumes": [], "until": null,
            "times": crate::window::Times::default(), "held": null, "requested": "filesystem", "achieved": null,
            "reason": null, "hint": null, "frozen_ms": 0.0, "still_frozen": [], "hooks": [], "after": [], "exit_code": 0,
        });
        let hold = super::super::journal::HeldFreeze {
            watchdog: None,
            record: serde_json::from_value(record).unwrap(),
        };
        let frozen = FrozenMount {
            dev: DevNo { major: 7, minor: 9999 },
            mount_point: mount_point.clone(),
            word: None,
        };
        let change =
            |s: &mut super::super::journal::State| (s.held_freeze, s.frozen) = (Some(hold), vec![frozen]);
        journal.update(change).unwrap();
        let thaws = (Vec::new(), vec![(mount_point.clone(), Errno::ETIMEDOUT)]);
        let left = release(dir.path(), journal, thaws).await.unsettled.unwrap();
        let kept = || control_socket::kept(dir.path(), Some(&run)).unwrap();
        assert_eq!((kept().thaw_exit(), kept().still_frozen), (Exit::StillFrozen, vec![mount_point]));
        assert!(release(dir.path(), left, Thaws::default()).await.unsettled.is_none());
        assert_eq!((kept().thaw_exit(), kept().still_frozen), (Exit::NotHeld, Vec::new()));
    }

    #[tokio::test]
    async fn what_cannot_be_put_back_stays_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let former = Former { path: dir.path().join("knob"), value: "0".into() };
        dead(dir.path()).update(|s| s.expedited = Some(former)).unwrap();
        assert!(local(dir.path()).await.recovered[0].unsettled.is_some());
        assert_eq!(Journal::dead(dir.path()).len(), 1);
        std::fs::write(dir.path().join("knob"), "1\n").unwrap();
        assert!(local(dir.path()).await.recovered[0].rcu_restored);
        assert!(Journal::dead(dir.path()).is_empty());
    }
}
