//! Prune: decide about the sets of one group, and remove those that go.
//!
//! In: what was asked for, EC2. Out: a [`PrunePlan`], then what became of each set. Must never: remove a set that
//! is not in the plan's order, or decide about a set whose holds are not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{facts, interval};
use super::find::{clocks, of_plan};
use super::holds::{holds, locks, of_tags};
use super::remove::{Removed, remove};
use super::retention::{
    Group, Hold, Now, Options, Policy, PrunePlan, Request, SetFacts, Verdict, Zone, decide,
};
use super::set::SnapshotSet;
use crate::ec2::Ec2Error;
use crate::ec2::keep::Keep;
use crate::ec2::repeat::Repeating;
use crate::ids::{InstanceId, RunId};

/// What a prune is about.
#[derive(Debug, Clone)]
pub struct Prune<'a> {
    /// The instance whose sets they are.
    pub instance: InstanceId,
    /// The plan.
    pub plan: String,
    /// Copies of sets, instead of sets.
    pub copies: bool,
    /// The rules.
    pub policy: Option<&'a Policy>,
    /// What was asked for.
    pub options: Options,
}

/// What was decided, and the sets that it is about.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What a dry run prints and a prune carries out.
    pub plan: PrunePlan,
    sets: BTreeMap<RunId, SnapshotSet>,
}

impl Prune<'_> {
    /// Asks EC2, and decides.
    ///
    /// # Errors
    /// When EC2 does not say all that a decision needs.
    pub async fn decide<E: Keep>(&self, ec2: &Repeating<'_, E>) -> Result<Decided, Ec2Error> {
        let (server, host) = clocks(ec2).await?;
        let mut sets = of_plan(ec2, &self.instance, &self.plan).await?;
        sets.retain(|s| s.copy_of.is_some() == self.copies);
        let account = sets.iter().find_map(|s| s.account.clone()).unwrap_or_default();
        let host_of = self.instance.to_string();
        let (region, plan) = (ec2.inner().region().to_owned(), self.plan.clone());
        let group = Arc::new(Group { account, region, host: host_of, plan, copies: self.copies });
        let here = {
            let ids = [self.instance.clone()];
            ec2.call("DescribeInstances", async || ec2.inner().instances(&ids).await).await?
        };
        let request = Request {
            group: &group,
            policy: self.policy,
            now: Now { server, host },
            interval: None,
            instance_gone: here.is_empty(),
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
                .map(|s| facts(s, &group, known.get(&s.id).cloned().unwrap_or_else(|| by_tags(s)), &zone))
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
        Ok(Decided { plan, sets: sets.into_iter().map(|s| (s.id.clone(), s)).collect() })
    }
}

impl Decided {
    /// The set of this id.
    #[must_use]
    pub fn set(&self, id: &RunId) -> Option<&SnapshotSet> {
        self.sets.get(id)
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
            let removed = remove(ec2, set, "prune").await;
            each(&removed);
            all.push(removed);
        }
        all
    }
}
