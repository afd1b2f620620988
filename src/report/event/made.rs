//! Events, made of what runs, recoveries, prunes and waits have come to.
//!
//! In: a record, a refusal, a recovery, what became of a set. Out: [`Event`]s, the one that says most first. Must
//! never: leave out what lasts until somebody acts.

use std::path::PathBuf;

use super::{Event, Kind};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{RunId, SnapshotId, VolumeId};
use crate::quiesce::{HookOutcome, Phase};
use crate::run::recover::Recovered;
use crate::run::take::Lost;
use crate::sets::clones::CloneRecord;
use crate::sets::record::SetRecord;
use crate::sets::remove::Removed;
use crate::sets::retention::{PrunePlan, Refusal};
use crate::sets::set::SnapshotSet;

/// What a run that came to its end has to tell. `fired`: why the watchdog did.
pub(crate) fn of_record(record: &SetRecord, fired: Option<&str>) -> Vec<Event> {
    let base = |kind: Kind, text: String| Event {
        plan: Some(record.plan.name.clone()),
        run_id: Some(record.run_id.clone()),
        set: record.achieved.map(|_| record.run_id.clone()),
        requested: Some(record.requested),
        achieved: record.achieved,
        exit_code: Some(record.exit),
        ..Event::new(kind, text)
    };
    let ended = |kind: Kind, text: String| Event {
        window_ms: Some(record.window_ms),
        snapshots: record.snapshots.iter().map(|s| s.id.clone()).collect(),
        reason: record.reason.clone(),
        ..base(kind, text)
    };
    let code = record.exit.code();
    let good = record.achieved.is_some_and(|label| label >= record.requested);
    let label = record.achieved.map_or_else(|| "nothing".to_owned(), |label| label.to_string());
    let mut all = vec![match record.exit {
        _ if record.achieved.is_none() => {
            ended(Kind::SetFailed, format!("run ended with {code}: nothing was taken"))
        }
        // What there is of it counts for nothing.
        exit if !exit.leaves_a_set() => {
            let text = format!("run ended with {code}: what was taken is labelled {label}");
            Event { set: None, ..ended(Kind::SetFailed, text) }
        }
        exit if good && !matches!(exit, Exit::Lower | Exit::NotHeld) => {
            ended(Kind::SetTaken, format!("run ended with {code}: {label}"))
        }
        _ => {
            let text = format!("run ended with {code}: {label}, {} was requested", record.requested);
            let level = (record.exit == Exit::NotHeld).then_some(tracing::Level::ERROR);
            // Of a label that is as requested, what should be mounted and is not makes it less.
            let reason = record.reason.clone().or_else(|| Some(record.plan.lacks().join("; ")));
            Event { level, reason, ..ended(Kind::SetLower, text) }
        }
    }];
    if let Some(why) = fired {
        let text = "the watchdog thawed, because the run did not".to_owned();
        all.push(Event { reason: Some(why.to_owned()), ..base(Kind::WatchdogFired, text) });
    }
    let is_set = all[0].kind != Kind::SetFailed;
    if is_set && !record.after.is_empty() {
        let text = "something failed after the set was taken".to_owned();
        all.push(Event { reason: Some(record.after.join("; ")), ..base(Kind::AfterFailed, text) });
    }
    all.extend(left(&record.still_frozen, &record.not_mounted, &record.hooks).map(|event| Event {
        plan: Some(record.plan.name.clone()),
        run_id: Some(record.run_id.clone()),
        exit_code: Some(record.exit),
        ..event
    }));
    all
}

/// What a run that cloned has to tell: no set of snapshots, which is what is restored when the volumes are gone.
pub(crate) fn of_clones(record: &CloneRecord, fired: Option<&str>) -> Vec<Event> {
    let there: Vec<VolumeId> =
        record.clones.iter().filter(|c| c.stays()).map(|c| VolumeId::clone(&c.id)).collect();
    let of_clones = |event: Event| {
        let kind = match event.kind {
            Kind::SetTaken => Kind::ClonesMade,
            Kind::SetLower => Kind::ClonesLower,
            Kind::SetFailed => Kind::ClonesFailed,
            Kind::AfterFailed => Kind::ClonesAfterFailed,
            other => other,
        };
        let code = record.set.exit.code();
        let text = match kind {
            Kind::ClonesFailed if there.is_empty() => format!("run ended with {code}: nothing was cloned"),
            Kind::ClonesAfterFailed => "something failed after the volumes were cloned".to_owned(),
            _ => event.text,
        };
        let ended = matches!(kind, Kind::ClonesMade | Kind::ClonesLower | Kind::ClonesFailed);
        let volumes = if ended { there.clone() } else { Vec::new() };
        Event { kind, text, volumes, set: None, ..event }
    };
    of_record(&record.set, fired).into_iter().map(of_clones).collect()
}

/// A set that its run has waited for. The first `known` troubles after it were told before.
pub(crate) fn of_completed(record: &SetRecord, known: usize) -> Vec<Event> {
    let base = |kind: Kind, text: &str| Event {
        plan: Some(record.plan.name.clone()),
        run_id: Some(record.run_id.clone()),
        set: Some(record.run_id.clone()),
        requested: Some(record.requested),
        achieved: record.achieved,
        snapshots: record.snapshots.iter().map(|s| s.id.clone()).collect(),
        exit_code: Some(record.exit),
        ..Event::new(kind, text)
    };
    let troubles = record.after.get(known..).unwrap_or_default();
    let reason = (!troubles.is_empty()).then(|| troubles.join("; "));
    if record.snapshots.iter().any(|s| s.state != "completed") {
        let what = "a set that was waited for is not complete";
        return vec![Event { reason, ..base(Kind::WaitFailed, what) }];
    }
    let mut all = vec![base(Kind::SetCompleted, "EC2 has completed a set")];
    let what = "something failed after the set was taken";
    all.extend(reason.map(|reason| Event { reason: Some(reason), ..base(Kind::AfterFailed, what) }));
    all
}

/// What lasts until somebody acts.
fn left<'a>(
    still_frozen: &'a [PathBuf],
    not_mounted: &'a [PathBuf],
    hooks: &'a [HookOutcome],
) -> impl Iterator<Item = Event> + use<'a> {
    let places = |kind: Kind, text: &str, mounts: &[PathBuf]| {
        (!mounts.is_empty()).then(|| Event { mounts: mounts.to_vec(), ..Event::new(kind, text) })
    };
    let held: Vec<&HookOutcome> =
        hooks.iter().filter(|h| h.phase == Phase::Post && !h.succeeded() && !h.lost).collect();
    let held = held.first().map(|first| Event {
        reason: Some(first.to_string()),
        hooks: held.iter().map(|h| h.name.clone()).collect(),
        ..Event::new(Kind::LeftHeld, "the release of an application failed: it may still be held")
    });
    let frozen = places(Kind::StillFrozen, "a filesystem may still be frozen", still_frozen);
    let away = places(Kind::NotMounted, "a filesystem could not be mounted again", not_mounted);
    [frozen, away, held].into_iter().flatten()
}

/// A run that was refused, and took nothing. `kind`: what it would have taken.
pub(crate) fn of_refusal(kind: Kind, plan: &str, error: &Error) -> Event {
    let nothing = if kind == Kind::ClonesFailed { "nothing was cloned" } else { "nothing was taken" };
    let text = format!("run ended with {}: {nothing}", error.exit.code());
    Event {
        plan: Some(plan.to_owned()),
        reason: Some(error.to_string()),
        exit_code: Some(error.exit),
        ..Event::new(kind, text)
    }
}

/// A set of a former run that EC2 could not complete.
pub(crate) fn lost(lost: &Lost) -> Event {
    Event {
        plan: Some(lost.plan.clone()),
        set: Some(lost.run_id.clone()),
        snapshots: lost.snapshots.clone(),
        ..Event::new(Kind::SetLost, "EC2 could not complete a set of a former run")
    }
}

/// What a dead run had left.
pub(crate) fn of_recovered(run: &Recovered) -> Vec<Event> {
    let how = if run.ended { "left something to be done" } else { "died before its end" };
    let failed: Vec<PathBuf> = run.failed.iter().map(|(mount, _)| mount.clone()).collect();
    let not_mounted: Vec<PathBuf> = run.remounted.failed.iter().map(|f| f.mount_point.clone()).collect();
    let recovered = Event {
        mounts: run.thawed.iter().chain(&run.remounted.mounted).cloned().collect(),
        hooks: run.released.iter().map(|h| h.name.clone()).collect(),
        ..Event::new(Kind::RunRecovered, format!("a run {how}; what it had left is undone"))
    };
    let all = std::iter::once(recovered).chain(left(&failed, &not_mounted, &run.released));
    all.map(|event| Event { run_id: Some(run.run.clone()), ..event }).collect()
}

/// A set that was to be removed.
pub(crate) fn of_removed(plan: &str, removed: &Removed) -> Event {
    let (kind, text) = match &removed.failed {
        None => (Kind::SetRemoved, "a set was removed"),
        Some(failed) if failed.torn => (Kind::SetNotRemoved, "a set is removed in part"),
        Some(_) => (Kind::SetNotRemoved, "a set is not removed, and whole"),
    };
    Event {
        plan: Some(plan.to_owned()),
        set: Some(removed.id.clone()),
        snapshots: removed.deleted.clone(),
        reason: removed.failed.as_ref().map(|f| f.why.clone()),
        ..Event::new(kind, text)
    }
}

/// A prune that removed nothing although something would go.
pub(crate) fn of_withheld(plan: &PrunePlan) -> Option<Event> {
    let reasons: Vec<String> = plan.refusals.iter().map(Refusal::to_string).collect();
    (!reasons.is_empty()).then(|| Event {
        plan: Some(plan.group.plan.clone()),
        reason: Some(reasons.join("; ")),
        exit_code: Some(Exit::After),
        ..Event::new(Kind::PruneHeldBack, "a prune removed nothing, although sets would go")
    })
}

/// A set that was waited for, and that EC2 could not complete.
pub(crate) fn wait_failed(set: &SnapshotSet, failed: &[SnapshotId], why: &str) -> Event {
    Event {
        plan: Some(set.plan.clone()),
        set: Some(RunId::clone(&set.id)),
        achieved: set.achieved,
        snapshots: failed.to_vec(),
        reason: Some(why.to_owned()),
        exit_code: Some(Exit::After),
        ..Event::new(Kind::WaitFailed, "EC2 could not complete a set")
    }
}

/// A set that is not what its label says: the first fault, and the snapshots that faults were found in.
pub(crate) fn verify_fault(set: &SnapshotSet, snapshots: Vec<SnapshotId>, why: &str) -> Event {
    Event {
        plan: Some(set.plan.clone()),
        set: Some(RunId::clone(&set.id)),
        requested: set.requested,
        achieved: set.achieved,
        snapshots,
        reason: Some(why.to_owned()),
        exit_code: Some(Exit::Verify),
        ..Event::new(Kind::VerifyFault, "verify found that a set is not what its label says")
    }
}

/// A command of `[[notify]]` that failed.
pub(crate) fn notify_failed(plan: &str, name: &str, why: &str) -> Event {
    Event {
        plan: Some(plan.to_owned()),
        hooks: vec![name.to_owned()],
        reason: Some(why.to_owned()),
        ..Event::new(Kind::NotifyFailed, "a command that was to tell somebody failed")
    }
}
