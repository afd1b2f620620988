//! Who holds a set: images, locks, shares, the archive, other tools.
//!
//! In: sets. Out: every [`Hold`] on each. Must never: take what EC2 did not say for "nobody".

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::retention::Hold;
use super::set::SnapshotSet;
use crate::ec2::Ec2Error;
use crate::ec2::keep::{Keep, LockView};
use crate::ec2::repeat::Repeating;
use crate::ids::{ImageId, RunId, SnapshotId, VolumeId};

/// What holds each of these sets.
///
/// # Errors
/// When EC2 does not say.
pub async fn holds<E: Keep>(
    ec2: &Repeating<'_, E>,
    sets: &[&SnapshotSet],
) -> Result<BTreeMap<RunId, Vec<Hold>>, Ec2Error> {
    let mut of_snapshot: BTreeMap<SnapshotId, RunId> = BTreeMap::new();
    let mut found: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
    for set in sets {
        found.insert(set.id.clone(), of_tags(set));
        of_snapshot.extend(set.snapshots().map(|s| (s.clone(), set.id.clone())));
    }
    let all: Vec<SnapshotId> = of_snapshot.keys().cloned().collect();
    let mut add = |snapshot: &SnapshotId, hold: Hold| {
        if let Some(holds) = of_snapshot.get(snapshot).and_then(|set| found.get_mut(set))
            && !holds.contains(&hold)
        {
            holds.push(hold);
        }
    };
    let inner = ec2.inner();
    for used in ec2.call("DescribeImages", async || inner.images(&all).await).await? {
        let set = of_snapshot.get(&used.snapshot);
        let of_set = |id: &SnapshotId| of_snapshot.get(id) == set;
        // Its tags say that it goes with this set, and it has nothing of any other.
        let goes = used.goes_with.as_ref() == set && used.all.is_some_and(|all| all.iter().all(of_set));
        let (image, state) = (used.image, used.state);
        let hold = match goes {
            true => Hold::OwnImage { image, state },
            false => Hold::Image { image: image.to_string(), state },
        };
        add(&used.snapshot, hold);
    }
    for lock in ec2.call("DescribeLockedSnapshots", async || inner.locks(&all).await).await? {
        let snapshot = lock.snapshot.clone();
        if let Some(hold) = of_lock(lock) {
            add(&snapshot, hold);
        }
    }
    // What is out of it for some days is still billed there.
    let in_archive = |m: &super::set::Member| m.tier == "archive" || m.restored_until.is_some();
    let archived: Vec<SnapshotId> =
        sets.iter().flat_map(|s| &s.members).filter(|m| in_archive(m)).map(|m| m.id.clone()).collect();
    if !archived.is_empty() {
        let tiers = ec2.call("DescribeSnapshotTierStatus", async || inner.tiers(&archived).await).await?;
        for id in &archived {
            // Until it is known since when, it counts as archived just now.
            let since = tiers.iter().find(|t| t.snapshot == *id).and_then(|t| t.archived);
            add(id, Hold::Archived { since: since.unwrap_or_else(jiff::Timestamp::now) });
        }
    }
    for id in &all {
        let asked = async || inner.shared_with(id).await;
        match ec2.call("DescribeSnapshotAttribute", asked).await {
            Ok(with) if with.is_empty() => {}
            Ok(with) => add(id, Hold::Shared { with }),
            // It is gone meanwhile: whoever removes it finds that out.
            Err(e) if e.is_no_snapshot() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The images that go with a set, of everything that holds it.
#[must_use]
pub fn own_images(holds: &[Hold]) -> Vec<ImageId> {
    let mut all: Vec<ImageId> = holds
        .iter()
        .filter_map(|hold| match hold {
            Hold::OwnImage { image, .. } => Some(image.clone()),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The locks on these sets that hold.
///
/// # Errors
/// When EC2 does not say.
pub async fn locks<E: Keep>(
    ec2: &Repeating<'_, E>,
    sets: &[SnapshotSet],
) -> Result<BTreeMap<RunId, Vec<Hold>>, Ec2Error> {
    let pairs = sets.iter().flat_map(|set| set.snapshots().map(move |s| (s.clone(), &set.id)));
    let of_snapshot: BTreeMap<SnapshotId, &RunId> = pairs.collect();
    let all: Vec<SnapshotId> = of_snapshot.keys().cloned().collect();
    let mut found: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
    for lock in ec2.call("DescribeLockedSnapshots", async || ec2.inner().locks(&all).await).await? {
        let Some(set) = of_snapshot.get(&lock.snapshot) else { continue };
        let holds = found.entry((*set).clone()).or_default();
        holds.extend(of_lock(lock).filter(|hold| !holds.contains(hold)));
    }
    Ok(found)
}

fn of_lock(lock: LockView) -> Option<Hold> {
    (lock.state != "expired").then_some(Hold::Locked { mode: lock.state, until: lock.until })
}

/// What holds copies as the base of the next ones: of each volume, the newest copy that is completed. EC2 copies
/// only what has changed since, and all of the volume where that copy is gone (EBS guide, "Copy an Amazon EBS
/// snapshot"). `copies` are those of one group.
pub(crate) fn bases(copies: &[&SnapshotSet]) -> BTreeMap<RunId, Vec<Hold>> {
    let mut newest: BTreeMap<&VolumeId, (Timestamp, &RunId)> = BTreeMap::new();
    for set in copies.iter().filter(|s| s.copy_of.is_some()) {
        let Some(time) = set.time else { continue };
        for member in set.members.iter().filter(|m| m.state == "completed" && m.tier != "archive") {
            let at = newest.entry(&member.volume_id).or_insert((time, &set.id));
            *at = (*at).max((time, &set.id));
        }
    }
    let mut held: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
    for (volume, (_, id)) in newest {
        held.entry(id.clone()).or_default().push(Hold::NewestCopy { volume: volume.clone() });
    }
    held
}

/// What holds sets of `region` because they are being copied: of these copies, those that are pending.
pub(crate) fn being_copied(copies: &[SnapshotSet], region: &str) -> BTreeMap<RunId, Vec<Hold>> {
    let mut held: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
    for copy in copies {
        let Some(of) = copy.copy_of.as_ref().filter(|of| of.region == region) else { continue };
        for member in copy.members.iter().filter(|m| m.state == "pending") {
            let hold = Hold::PendingCopy { copy: member.id.clone(), region: copy.region.clone() };
            held.entry(of.id.clone()).or_default().push(hold);
        }
    }
    held
}

/// What its own tags say.
pub(crate) fn of_tags(set: &SnapshotSet) -> Vec<Hold> {
    let mut holds: Vec<Hold> = set.foreign.iter().map(|what| Hold::Foreign { what: what.clone() }).collect();
    if set.is_newer() {
        holds.push(Hold::ForeignSchema { version: set.schema.to_string() });
    }
    holds.extend(set.doubts.iter().map(|what| Hold::Foreign { what: what.clone() }));
    holds
}
