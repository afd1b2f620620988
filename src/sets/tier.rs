//! A set goes to the archive tier, or comes back.
//!
//! ```text
//! set, who holds it, the other sets of its volumes, tiers ─▶ refusal ─▶ to_archive ─▶ one by one
//!                                                               │ nothing is changed     │ an answer got lost:
//!                                                                                        ▼ what do the tiers say?
//! ```
//!
//! In: a set. Out: what became of each member. Must never: move what the next snapshot of a volume is based on, or
//! what somebody uses: it cannot be cancelled, and coming back takes up to 72 hours (EBS guide, "Archive Amazon EBS
//! snapshots").

use super::guard::{Refusal, doubtful, unclear};
use super::retention::Hold;
use super::set::{Member, SnapshotSet};
use crate::ec2::Ec2Error;
use crate::ec2::keep::{Keep, TierView};
use crate::ec2::repeat::Repeating;
use crate::ids::SnapshotId;

/// So many days are billed in any case (EBS guide, "Archive Amazon EBS snapshots").
pub const LEAST_DAYS: u32 = 90;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Into the archive.
    Archive,
    /// Out of it, for so many days, or for good.
    Restore(Option<u32>),
}

/// List prices in dollars per GiB, us-east-1 (AWS's page "Amazon EBS pricing", 2025). EC2 does not say what it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// GiB that are stored and billed in the archive.
    pub gib: f64,
    /// EC2 does not say the full size of each snapshot: it is that of the volumes, and at most that.
    pub at_most: bool,
}

impl Cost {
    /// A month in the archive, a GiB.
    pub const ARCHIVE: f64 = 0.0125;
    /// A month in the standard tier, a GiB of what only this snapshot holds.
    pub const STANDARD: f64 = 0.05;
    /// Coming back, a GiB.
    pub const RESTORE: f64 = 0.03;

    /// Of these members.
    #[must_use]
    pub fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut cost = Self { gib: 0.0, at_most: false };
        for member in members {
            let bytes = member.full_bytes.filter(|bytes| *bytes >= 0);
            cost.at_most |= bytes.is_none();
            #[allow(clippy::cast_precision_loss, reason = "dollars need no more")]
            let gib = bytes.map_or(f64::from(member.size_gib), |bytes| bytes as f64 / f64::from(1u32 << 30));
            cost.gib += gib;
        }
        cost
    }

    /// Dollars a month in the archive.
    #[must_use]
    pub fn month(self) -> f64 {
        self.gib * Self::ARCHIVE
    }

    /// Dollars that are billed in any case.
    #[must_use]
    pub fn least(self) -> f64 {
        self.month() * f64::from(LEAST_DAYS) / 30.0
    }

    /// Dollars for coming back.
    #[must_use]
    pub fn restore(self) -> f64 {
        self.gib * Self::RESTORE
    }
}

/// The tiers of its members.
///
/// # Errors
/// When EC2 does not say.
pub async fn tiers<E: Keep>(ec2: &Repeating<'_, E>, set: &SnapshotSet) -> Result<Vec<TierView>, Ec2Error> {
    let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
    ec2.call("DescribeSnapshotTierStatus", async || ec2.inner().tiers(&ids).await).await
}

fn is_on_its_way(tier: &TierView) -> bool {
    tier.last_move.as_deref().is_some_and(|last| last.ends_with("-in-progress"))
}

/// Why a set does not go to the archive. `all`: the sets of its instance, itself among them.
#[must_use]
pub fn archive_refusal(set: &SnapshotSet, holds: &[Hold], all: &[SnapshotSet]) -> Option<Refusal> {
    if let Some(refusal) = unclear(set) {
        return Some(refusal);
    }
    let no = |what: String, hint| Some(Refusal::new(what, hint));
    if let Some(missing) = set.missing.first() {
        let hint = "archive a set that can be restored as a whole";
        return no(format!("{} lacks the snapshot of {}", set.id, missing.volume_id), hint);
    }
    if let Some(m) = set.members.iter().find(|m| m.state != "completed") {
        return no(format!("{} is {}, and only completed ones go", m.id, m.state), "`stillpoint wait` first");
    }
    for hold in holds {
        let hint = match hold {
            Hold::Image { .. } | Hold::OwnImage { .. } => "deregister the image first, if nobody needs it",
            Hold::Shared { .. } => "the accounts would lose it: `stillpoint unshare` first, if that is meant",
            Hold::Foreign { .. } => "leave its tier to that tool",
            Hold::PendingCopy { .. } => "wait until the copy is complete",
            _ => continue,
        };
        return no(format!("{}: {hold}", set.id), hint);
    }
    base(set, all).and_then(|m| {
        no(
            format!("{} has the newest snapshot of {} in the standard tier", set.id, m.volume_id),
            "the next snapshot is based on it, and would be a full one: archive an older set",
        )
    })
}

/// A member that is its volume's newest, or only one, among what the next snapshot can be based on.
fn base<'a>(set: &'a SnapshotSet, all: &[SnapshotSet]) -> Option<&'a Member> {
    let newer = |other: &&SnapshotSet| {
        other.id != set.id
            && other.copy_of.is_some() == set.copy_of.is_some()
            && other.time > set.time
            && !other.deleting
            && other.doubts.is_empty()
    };
    let newer: Vec<&SnapshotSet> = all.iter().filter(newer).collect();
    let can_be_base =
        |m: &Member| m.state == "completed" && m.tier == "standard" && m.restored_until.is_none();
    let has = |other: &&SnapshotSet, of: &Member| {
        other.members.iter().any(|m| m.volume_id == of.volume_id && can_be_base(m))
    };
    set.members.iter().find(|m| !newer.iter().any(|other| has(other, m)))
}

/// The members that go: those that are in the standard tier, and are not on their way.
#[must_use]
pub fn to_archive(set: &SnapshotSet, tiers: &[TierView]) -> Vec<SnapshotId> {
    let stays = |id: &SnapshotId| {
        let tier = tiers.iter().find(|t| t.snapshot == *id);
        // What is out of the archive for some days goes back by itself.
        tier.is_some_and(|t| t.tier == "archive" || t.restored_until.is_some() || is_on_its_way(t))
    };
    set.snapshots().filter(|id| !stays(id)).cloned().collect()
}

/// The members that come back.
///
/// # Errors
/// Why none does.
pub fn to_restore(set: &SnapshotSet, tiers: &[TierView]) -> Result<Vec<SnapshotId>, Refusal> {
    if let Some(refusal) = doubtful(set) {
        return Err(refusal);
    }
    let moves_in = |t: &&TierView| t.last_move.as_deref() == Some("archival-in-progress");
    if let Some(t) = tiers.iter().find(moves_in) {
        let what = format!("{} is still on its way into the archive, which cannot be cancelled", t.snapshot);
        return Err(Refusal::new(what, "`stillpoint show` says how far it is"));
    }
    let comes = |id: &SnapshotId| {
        let tier = tiers.iter().find(|t| t.snapshot == *id);
        tier.is_some_and(|t| (t.tier == "archive" || t.restored_until.is_some()) && !is_on_its_way(t))
    };
    Ok(set.snapshots().filter(|id| comes(id)).cloned().collect())
}

/// Moves them. One that is refused does not keep the others.
pub async fn carry_out<E: Keep>(
    ec2: &Repeating<'_, E>,
    ids: Vec<SnapshotId>,
    how: Move,
) -> Vec<(SnapshotId, Result<(), Ec2Error>)> {
    let inner = ec2.inner();
    let mut done = Vec::new();
    for id in ids {
        let said = match how {
            Move::Archive => ec2.call("ModifySnapshotTier", async || inner.archive(&id).await).await,
            Move::Restore(days) => {
                ec2.call("RestoreSnapshotTier", async || inner.unarchive(&id, days).await).await
            }
        };
        done.push((id, said));
    }
    let unclear: Vec<SnapshotId> = done
        .iter()
        .filter(|(_, said)| said.as_ref().is_err_and(is_unclear))
        .map(|(id, _)| id.clone())
        .collect();
    if unclear.is_empty() {
        return done;
    }
    // Where EC2 does not say either, the error of the call stays.
    let now = ec2.call("DescribeSnapshotTierStatus", async || inner.tiers(&unclear).await).await;
    for tier in now.into_iter().flatten().filter(|tier| came_of(tier, how)) {
        if let Some((_, said)) = done.iter_mut().find(|(id, _)| *id == tier.snapshot) {
            *said = Ok(());
        }
    }
    done
}

/// Repeated after an answer that got lost, EC2 refuses the call: the snapshot is on its way already.
fn is_unclear(error: &Ec2Error) -> bool {
    error.outcome_unknown() || matches!(error, Ec2Error::Refused { code, .. } if code == "IncorrectState")
}

fn came_of(tier: &TierView, how: Move) -> bool {
    let begins = match how {
        Move::Archive => "archival-",
        Move::Restore(Some(_)) => "temporary-restore-",
        Move::Restore(None) => "permanent-restore-",
    };
    tier.last_move.as_deref().is_some_and(|last| last.starts_with(begins) && !last.ends_with("-failed"))
}

#[cfg(test)]
#[path = "tier_tests.rs"]
mod tests;
