//! Prune: decide about the sets of one group, and remove those that go.
//!
//! In: what was asked for, EC2. Out: a [`PrunePlan`], then what became of each set. Must never: remove a set that
//! is not in the plan's order, or decide about a set whose holds are not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{facts, interval};
use super::find::{clocks, of_key, of_plan};
use super::guard::doubtful;
use super::holds::{bases, being_copied, holds, locks, of_tags, own_images};
use super::remove::{Removed, remove};
use super::retention::{
    Group, Hold, Now, Options, Policy, PrunePlan, Request, SetFacts, Verdict, Zone, decide,
};
use super::set::SnapshotSet;
use super::tags::HOST_KEY_TAG;
use crate::ec2::Ec2Error;
use crate::ec2::keep::Keep;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::ids::{ImageId, InstanceId, RunId};

/// What a prune is about.
#[derive(Debug, Clone)]
pub struct Prune<'a> {
    /// The instance whose sets they are.
    pub instance: InstanceId,
    /// The key of the host, where it has one: sets of former instances with it are of the group.
    pub host_key: Option<String>,
    /// The plan.
    pub plan: String,
    /// Copies of sets, instead of sets.
    pub copies: bool,
    /// The rules.
    pub policy: Option<&'a Policy>,
    /// What was asked for.
    pub options: Options,
    /// Who holds a set because it is being copied to another Region.
    pub being_copied: BTreeMap<RunId, Vec<Hold>>,
}

/// What was decided, and the sets that it is about.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What a dry run prints and a prune carries out.
    pub plan: PrunePlan,
    /// Instances with the same key of a host that exist: their sets are their own.
    pub others: BTreeSet<InstanceId>,
    sets: BTreeMap<RunId, SnapshotSet>,
    /// The images that go with a set.
    images: BTreeMap<RunId, Vec<ImageId>>,
}

impl Prune<'_> {
    /// Asks EC2, and decides. `exists` says whether EC2 still has the instance that these are the sets of.
    ///
    /// # Errors
    /// When EC2 does not say all that a decision needs.
    pub async fn decide<E: Keep>(
        &self,
        ec2: &Repeating<'_, E>,
        exists: impl AsyncFnOnce(&[SnapshotSet]) -> Result<bool, Error>,
    ) -> Result<Decided, Error> {
        let (server, host) = clocks(ec2).await?;
        let mut sets = of_plan(ec2, &self.instance, &self.plan).await?;
        let (former, others) = self.former(ec2).await?;
        sets.extend(former);
        let mut by_copies = being_copied(&sets, ec2.inner().region());
        for (id, holds) in &self.being_copied {
            by_copies.entry(id.clone()).or_default().extend(holds.iter().cloned());
        }
        sets.retain(|s| s.copy_of.is_some() == self.copies);
        let account = sets.iter().find_map(|s| s.account.clone()).unwrap_or_default();
        let host_of = match &self.host_key {
            Some(key) => format!("{key} ({})", self.instance),
            None => self.instance.to_string(),
        };
        let (region, plan) = (ec2.inner().region().to_owned(), self.plan.clone());
        let group = Arc::new(Group { account, region, host: host_of, plan, copies: self.copies });
        let gone = !exists(&sets).await?;
        // Nothing else is copied there when the instance is gone, or when all copies are to go.
        let all_go = self.options.all && self.options.including_the_last;
        if self.copies && !gone && !all_go {
            for (id, holds) in bases(&sets.iter().collect::<Vec<_>>()) {
                by_copies.entry(id).or_default().extend(holds);
            }
        }
        let held = |set: &SnapshotSet, mut holds: Vec<Hold>| {
            holds.extend(by_copies.get(&set.id).into_iter().flatten().cloned());
            holds
        };
        let request = Request {
            group: &group,
            policy: self.policy,
            now: Now { server, host },
            interval: None,
            instance_gone: gone,
            options: self.options,
        };
        let zone = self.policy.map_or(Zone::UTC, |p| p.timezone.clone());
        let mut known: BTreeMap<RunId, Vec<Hold>> = BTreeMap::new();
        let mut asked: BTreeSet<RunId> = BTreeSet::new();
        // A lock is asked about of all, in few calls: one that ends before the rules let its set go is told.
        let of_lock = locks(ec2, &sets).await?;
        let by_tags = |s: &SnapshotSet| {
            let mut holds = of_tags(s);
            holds.extend(of_lock.get(&s.id).cloned().unwrap_or_default());
            holds
        };
        // Who else holds a set costs several calls each, so only sets that would go are asked about. A hold keeps one
        // set more and lets no other go that was not decided about before, so this ends.
        let plan = loop {
            let all: Vec<SetFacts> = sets
                .iter()
                .map(|s| (s, known.get(&s.id).cloned().unwrap_or_else(|| by_tags(s))))
                .map(|(s, holds)| facts(s, &group, held(s, holds), &zone))
                .collect();
            let request = Request { interval: interval(&all), ..request };
            let plan = decide(&request, &all);
            let going = plan.sets.iter().filter(|d| d.verdict != Verdict::Keep && !asked.contains(&d.id));
            let going: BTreeSet<&RunId> = going.map(|d| &d.id).collect();
            let new: Vec<&SnapshotSet> = sets.iter().filter(|s| going.contains(&s.id)).collect();
            if new.is_empty() {
                break plan;
            }
            known.extend(holds(ec2, &new).await?);
            asked.extend(new.iter().map(|s| s.id.clone()));
        };
        let images = known.iter().map(|(id, holds)| (id.clone(), own_images(holds)));
        let images = images.filter(|(_, images)| !images.is_empty()).collect();
        Ok(Decided { plan, others, sets: sets.into_iter().map(|s| (s.id.clone(), s)).collect(), images })
    }
}

impl Prune<'_> {
    /// The sets of former instances of this host, and the instances with its key that exist: two hosts may have
    /// been given the same key.
    async fn former<E: Keep>(
        &self,
        ec2: &Repeating<'_, E>,
    ) -> Result<(Vec<SnapshotSet>, BTreeSet<InstanceId>), Ec2Error> {
        let Some(key) = &self.host_key else { return Ok((Vec::new(), BTreeSet::new())) };
        let mut sets = of_key(ec2, key, &self.plan).await?;
        sets.retain(|s| s.instance != self.instance);
        let taken_by: BTreeSet<InstanceId> = sets.iter().map(|s| s.instance.clone()).collect();
        if taken_by.is_empty() {
            return Ok((Vec::new(), BTreeSet::new()));
        }
        let ids: Vec<InstanceId> = taken_by.into_iter().collect();
        let there = ec2.call("DescribeInstances", async || ec2.inner().instances(&ids).await).await?;
        Ok(without_living(sets, there))
    }
}

/// Of sets with one key of a host, those whose instances are gone, and the instances that exist.
fn without_living(
    mut sets: Vec<SnapshotSet>,
    there: Vec<InstanceId>,
) -> (Vec<SnapshotSet>, BTreeSet<InstanceId>) {
    let others: BTreeSet<InstanceId> = there.into_iter().collect();
    sets.retain(|s| !others.contains(&s.instance));
    (sets, others)
}

/// Gives the sets of a former instance of a host its key, so that they are pruned with the present one's. Returns
/// those that are moved; a dry run moves none.
///
/// # Errors
/// When the instance exists, or EC2 does not say or do all of it.
pub async fn adopt<E: Keep>(
    ec2: &Repeating<'_, E>,
    former: &InstanceId,
    plan: &str,
    key: &str,
    dry_run: bool,
) -> Result<Adopted, Ec2Error> {
    let ids = std::slice::from_ref(former);
    if !ec2.call("DescribeInstances", async || ec2.inner().instances(ids).await).await?.is_empty() {
        return Ok(Adopted::Exists);
    }
    let mut sets = of_plan(ec2, former, plan).await?;
    sets.retain(|s| doubtful(s).is_none() && s.host_key.as_deref() != Some(key));
    let snapshots: Vec<_> = sets.iter().flat_map(SnapshotSet::snapshots).cloned().collect();
    if !dry_run {
        let tag = [(HOST_KEY_TAG.to_owned(), key.to_owned())];
        // So many resources a call (EC2 API reference, CreateTags).
        for some in snapshots.chunks(500) {
            ec2.call("CreateTags", async || ec2.inner().put_tags(some, &tag).await).await?;
        }
    }
    Ok(Adopted::Moved(sets.into_iter().map(|s| s.id).collect()))
}

/// What became of the sets of a former instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// The instance exists: its sets are its own.
    Exists,
    /// These have the key now, or would have it.
    Moved(Vec<RunId>),
}

impl Decided {
    /// The set of this id.
    #[must_use]
    pub fn set(&self, id: &RunId) -> Option<&SnapshotSet> {
        self.sets.get(id)
    }

    /// What is left when these are removed: so many sets, and the sizes of their volumes in GiB.
    #[must_use]
    pub fn left(&self, removed: &[Removed]) -> (u64, u64) {
        let gone = |id: &RunId| removed.iter().any(|r| r.id == *id && r.failed.is_none());
        let left = self.sets.values().filter(|set| !gone(&set.id));
        left.fold((0, 0), |(sets, gib), set| (sets + 1, gib + u64::try_from(set.size_gib()).unwrap_or(0)))
    }

    /// Removes the sets of the plan's order; `each` is told of every one. A set that cannot be removed does not
    /// keep the others.
    pub async fn carry_out<E: Keep>(
        &self,
        ec2: &Repeating<'_, E>,
        mut each: impl FnMut(&Removed),
    ) -> Vec<Removed> {
        let mut all = Vec::new();
        for set in self.plan.order.iter().filter_map(|id| self.sets.get(id)) {
            let images = self.images.get(&set.id).map_or(&[][..], Vec::as_slice);
            let removed = remove(ec2, set, "prune", images).await;
            each(&removed);
            all.push(removed);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::set::tests_support::set;

    #[test]
    fn two_hosts_with_one_key_that_both_exist_do_not_thin_each_other() {
        let living: InstanceId = "i-0aaaaaaaaaaaaaaaa".parse().unwrap();
        let gone: InstanceId = "i-0bbbbbbbbbbbbbbbb".parse().unwrap();
        let of = |instance: &InstanceId| SnapshotSet { instance: instance.clone(), ..set(1) };
        let sets = vec![of(&living), of(&gone), of(&living)];
        let (former, others) = without_living(sets, vec![living.clone()]);
        assert_eq!(former.iter().map(|s| &s.instance).collect::<Vec<_>>(), [&gone]);
        assert_eq!(others, BTreeSet::from([living]));
    }
}
