//! EC2's own lock on the snapshots of a set: whoever may delete snapshots cannot delete these.
//!
//! ```text
//! members, their locks ─▶ refusal ─▶ to_lock ─▶ LockSnapshot, one by one ─▶ an answer got lost: what do the locks say?
//!                            │ nothing is changed
//! ```
//!
//! In: a set, the lock that is wanted. Out: what became of each member. Must never: ask for what makes a lock weaker
//! that EC2 would not weaken, or call a snapshot locked of which EC2 has not said so.

use jiff::{SignedDuration, Timestamp};

use super::guard::{Refusal, doubtful, unclear};
use super::set::SnapshotSet;
use crate::ec2::keep::{Keep, Lock, LockEnd, LockMode, LockView, MOST_LOCKED_DAYS};
use crate::ec2::repeat::Repeating;
use crate::ec2::{Ec2Error, TaggedSnapshot};
use crate::ids::SnapshotId;

const DAY: i64 = 24 * 3600;

/// One member, and what its lock is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The snapshot.
    pub id: SnapshotId,
    /// None when it is locked in this way already.
    pub lock: Option<Lock>,
}

/// What became of one member: its lock as EC2 says it is.
pub type Outcome = (Step, Result<Option<LockView>, Ec2Error>);

/// Does it hold?
#[must_use]
pub fn holds(lock: &LockView) -> bool {
    lock.state != "expired"
}

/// Can nobody take it off or shorten it any more?
#[must_use]
pub fn is_final(lock: &LockView) -> bool {
    lock.state == "compliance"
}

/// So many days after this.
#[must_use]
pub fn days_after(start: Timestamp, days: u32) -> Timestamp {
    start.checked_add(SignedDuration::from_secs(i64::from(days) * DAY)).unwrap_or(Timestamp::MAX)
}

/// When a lock ends, or the earliest that it can end, where its days have not begun.
fn earliest_end(lock: &LockView, now: Timestamp) -> Option<Timestamp> {
    lock.until.or_else(|| lock.days.map(|days| days_after(now, days)))
}

/// The locks that hold of these members.
///
/// # Errors
/// When EC2 does not say.
pub async fn present<E: Keep>(ec2: &Repeating<'_, E>, set: &SnapshotSet) -> Result<Vec<LockView>, Ec2Error> {
    let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
    let mut locks = ec2.call("DescribeLockedSnapshots", async || ec2.inner().locks(&ids).await).await?;
    locks.retain(holds);
    Ok(locks)
}

/// What cannot be locked in this way, before anything is changed. `present`: the locks that hold now.
#[must_use]
pub fn refusal(
    set: &SnapshotSet,
    members: &[TaggedSnapshot],
    present: &[LockView],
    wanted: &Lock,
    now: Timestamp,
) -> Option<Refusal> {
    if let Some(refusal) = unclear(set) {
        return Some(refusal);
    }
    let end = match wanted.end {
        LockEnd::Days(days) => days_after(now, days),
        LockEnd::At(at) => at,
    };
    if end <= now {
        return Some(Refusal::new(format!("{end} is over"), "name a day to come (--until), or --days"));
    }
    if end > days_after(now, MOST_LOCKED_DAYS) {
        let what = format!("EC2 locks a snapshot for {MOST_LOCKED_DAYS} days at most");
        return Some(Refusal::new(what, "name an earlier day"));
    }
    if let Some(s) = members.iter().find(|s| s.view.state == "error") {
        let what = format!("{} is in the state error: there is nothing in it to be kept", s.view.id);
        return Some(Refusal::new(what, "lock another set: this one cannot be restored as a whole"));
    }
    present.iter().filter(|lock| is_final(lock)).find_map(|lock| against_final(lock, wanted, end, now))
}

/// A compliance lock whose cooling-off period is over can only be made longer (EC2 API reference, LockSnapshot).
fn against_final(lock: &LockView, wanted: &Lock, end: Timestamp, now: Timestamp) -> Option<Refusal> {
    let id = &lock.snapshot;
    let locked = match lock.until {
        Some(until) => format!("{id} is locked in compliance mode until {until}"),
        None => format!("{id} is locked in compliance mode"),
    };
    if wanted.mode == LockMode::Governance {
        let hint = "leave it: nobody can take that lock off or weaken it, AWS neither";
        return Some(Refusal::new(format!("{locked}, and governance would be weaker"), hint));
    }
    if wanted.cool_off.is_some() {
        let what = format!("{locked}, and its cooling-off period is over: there is no second one");
        return Some(Refusal::new(what, "leave --cool-off out to make the lock longer"));
    }
    let ends = earliest_end(lock, now)?;
    if end < ends {
        let what = format!("{locked}, and nobody can make that shorter");
        return Some(Refusal::new(what, "name a later end"));
    }
    None
}

/// What has to be asked for of each member. Over a lock that is there, days are counted from now, and a date is
/// asked for: whether EC2 would count them from the beginning of the old lock is not documented.
#[must_use]
pub fn to_lock(members: &[TaggedSnapshot], present: &[LockView], wanted: &Lock, now: Timestamp) -> Vec<Step> {
    let step = |s: &TaggedSnapshot| {
        let id = s.view.id.clone();
        let old = present.iter().find(|lock| lock.snapshot == id);
        let lock = match (old, wanted.end) {
            // Its days have not begun: EC2 counts them from its completion.
            (None, _) | (Some(LockView { until: None, .. }), LockEnd::Days(_)) => *wanted,
            (Some(_), LockEnd::Days(days)) => Lock { end: LockEnd::At(days_after(now, days)), ..*wanted },
            (Some(_), LockEnd::At(_)) => *wanted,
        };
        Step { lock: old.is_none_or(|old| !is_as(old, &lock)).then_some(lock), id }
    };
    members.iter().map(step).collect()
}

/// Is this lock already what is wanted? A cooling-off period is asked for anew.
fn is_as(lock: &LockView, wanted: &Lock) -> bool {
    let end = match wanted.end {
        LockEnd::Days(days) => lock.until.is_none() && lock.days == Some(days),
        LockEnd::At(at) => lock.until.is_some_and(|until| until.as_second() == at.as_second()),
    };
    end && wanted.cool_off.is_none() && lock.state == wanted.mode.to_string()
}

/// Has EC2 carried this out, of which no answer came? `lock` is what it says now.
fn came_of(lock: &LockView, wanted: &Lock) -> bool {
    let mode = match wanted.mode {
        LockMode::Governance => lock.state == "governance",
        LockMode::Compliance => lock.state == "compliance" || lock.state == "compliance-cooloff",
    };
    mode && match wanted.end {
        LockEnd::Days(days) => lock.days == Some(days),
        LockEnd::At(at) => lock.until.is_some_and(|until| until.as_second() == at.as_second()),
    }
}

/// Locks them. A member that is refused does not keep the others.
pub async fn lock<E: Keep>(ec2: &Repeating<'_, E>, steps: Vec<Step>) -> Vec<Outcome> {
    let inner = ec2.inner();
    let mut done: Vec<Outcome> = Vec::new();
    for step in steps {
        let said = match &step.lock {
            None => Ok(None),
            Some(lock) => ec2.call("LockSnapshot", async || inner.lock(&step.id, lock).await).await.map(Some),
        };
        done.push((step, said));
    }
    let lost = |said: &Result<_, Ec2Error>| said.as_ref().is_err_and(Ec2Error::outcome_unknown);
    let asked: Vec<SnapshotId> = done.iter().filter(|(_, s)| lost(s)).map(|(s, _)| s.id.clone()).collect();
    if asked.is_empty() {
        return done;
    }
    // Where EC2 does not say either, the error of the call stays.
    let now = ec2.call("DescribeLockedSnapshots", async || inner.locks(&asked).await).await;
    for lock in now.into_iter().flatten() {
        if let Some((step, said)) =
            done.iter_mut().find(|(step, said)| step.id == lock.snapshot && lost(said))
            && step.lock.as_ref().is_some_and(|wanted| came_of(&lock, wanted))
        {
            *said = Ok(Some(lock));
        }
    }
    done
}

/// What cannot be unlocked, before anything is changed.
#[must_use]
pub fn unlock_refusal(set: &SnapshotSet, present: &[LockView]) -> Option<Refusal> {
    // A set that is being removed is unlocked so that its removal can end.
    if let Some(refusal) = doubtful(set) {
        return Some(refusal);
    }
    let lock = present.iter().find(|lock| is_final(lock))?;
    let until = lock.until.map_or_else(String::new, |until| format!(" until {until}"));
    let what = format!(
        "{} is locked in compliance mode{until}, and its cooling-off period is over: nobody can unlock it",
        lock.snapshot
    );
    Some(Refusal::new(what, "wait until the lock expires"))
}

/// Unlocks those that are locked, and says nothing of the others. One that is not locked any more is no failure.
pub async fn unlock<E: Keep>(
    ec2: &Repeating<'_, E>,
    locked: Vec<SnapshotId>,
) -> Vec<(SnapshotId, Result<(), Ec2Error>)> {
    let inner = ec2.inner();
    let mut done = Vec::new();
    for id in locked {
        let mut said = ec2.call("UnlockSnapshot", async || inner.unlock(&id).await).await;
        if said.as_ref().is_err_and(|e| !e.denied()) {
            // Repeated after an answer that got lost, it is refused: the snapshot is not locked any more.
            let ids = std::slice::from_ref(&id);
            let now = ec2.call("DescribeLockedSnapshots", async || inner.locks(ids).await).await;
            if now.is_ok_and(|locks| !locks.iter().any(holds)) {
                said = Ok(());
            }
        }
        done.push((id, said));
    }
    done
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
