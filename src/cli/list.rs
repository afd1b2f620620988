//! `stillpoint list`: the sets there are, and what only looks like one.
//!
//! In: whose sets. Out: a table or JSON on stdout. Must never: change anything, or show an empty list where EC2
//! did not say.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::sets::Account;
use super::{Global, Output, print, print_json, say};
use crate::config::{self, settings::KeepSettings};
use crate::ec2::keep::{Keep, Wanted};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId};
use crate::report;
use crate::report::sets::Listed;
use crate::sets::facts::{facts, group, interval};
use crate::sets::find::{clocks, find};
use crate::sets::holds::of_tags;
use crate::sets::retention::{Departure, Group, Now, Options, Request, Zone, decide};
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tags::INSTANCE_TAG;

/// Version of the JSON of `list`.
const VERSION: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only sets of this plan.
    #[arg(value_name = "PLAN")]
    plan: Option<String>,
    /// Sets of every instance of the account.
    #[arg(long)]
    all_hosts: bool,
    /// Sets of this instance, instead of this one.
    #[arg(long, value_name = "ID", conflicts_with = "all_hosts")]
    instance: Option<InstanceId>,
    /// Only what somebody should look at: sets that are not complete, sets of instances that are gone, and
    /// snapshots that only look like parts of a set.
    #[arg(long)]
    leftovers: bool,
    /// Sort by: time (newest first), size or plan.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// What stdout gets: text or json.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    #[default]
    Time,
    Size,
    Plan,
}

impl List {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if let Some(plan) = self.plan.as_deref().filter(|p| !config::is_plan_name(p)) {
            return Err(Error::new(Exit::Usage, format!("`{plan}` is no plan's name")));
        }
        let needs_instance = !self.all_hosts && self.instance.is_none();
        let account = Account::connect(global, None, needs_instance).await?;
        let wanted = if self.all_hosts {
            Wanted::All
        } else {
            let instance = account.instance(self.instance.as_ref())?;
            Wanted::Tagged(vec![(INSTANCE_TAG.to_owned(), instance.to_string())])
        };
        let ec2 = account.calls();
        let found = find(&ec2, &wanted).await.map_err(Error::from)?;
        let mut sets = found.sets;
        if let Some(plan) = &self.plan {
            sets.retain(|s| s.plan == *plan);
        }
        let mut hosts: Vec<InstanceId> = sets.iter().map(|s| s.instance.clone()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let there = ec2.call("DescribeInstances", async || ec2.inner().instances(&hosts).await).await;
        let there = there.map_err(Error::from)?;
        let departures = departures(global, &account, &sets).await?;
        let listed = |set: SnapshotSet| Listed {
            state: set.state(),
            departure: departures.get(&set.id).copied().flatten(),
            goes_next: departures.get(&set.id) == Some(&None),
            instance_gone: !there.contains(&set.instance),
            set,
        };
        let mut listed: Vec<Listed> = sets.into_iter().map(listed).collect();
        if self.leftovers {
            listed.retain(|l| l.instance_gone || !matches!(l.state, SetState::Completed | SetState::Pending));
        }
        match self.sort {
            Sort::Time => {}
            Sort::Size => listed.sort_by_key(|l| std::cmp::Reverse(l.set.size_gib())),
            Sort::Plan => listed.sort_by(|a, b| a.set.plan.cmp(&b.set.plan)),
        }
        match self.output {
            Output::Json => {
                // A line for each set: a document of 100,000 snapshots is not held in memory as a whole.
                let region = json(&account.region)?;
                print_json(&format!("{{\"version\":{VERSION},\"region\":{region},\"sets\":["));
                lines(&listed)?;
                print_json("],\"strangers\":[");
                lines(&found.strangers)?;
                print_json("]}");
            }
            Output::Text => {
                match report::sets::table(&listed, self.all_hosts) {
                    text if text.is_empty() => say(&format!("there is no set in {}", account.region)),
                    text => print(&text),
                }
                for stranger in &found.strangers {
                    say(&format!("{} has the tag of a set and is of none: {}", stranger.id, stranger.why));
                }
            }
        }
        Ok(Exit::Ok)
    }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::new(Exit::Bug, e))
}

/// The elements of an array, one a line.
fn lines(values: &[impl Serialize]) -> Result<(), Error> {
    for (n, value) in values.iter().enumerate() {
        let comma = if n + 1 < values.len() { "," } else { "" };
        print_json(&format!("{}{comma}", json(value)?));
    }
    Ok(())
}

/// When each of these sets will go by the rules of this host's configuration; none: with the next prune. Holds are not asked for here: `show`
/// does.
pub(super) async fn departures(
    global: &Global,
    account: &Account,
    sets: &[SnapshotSet],
) -> Result<BTreeMap<RunId, Option<Departure>>, Error> {
    let mut all = BTreeMap::new();
    let own = account.identity.as_ref().map(|i| &i.instance_id);
    let mut groups: BTreeMap<Group, Vec<&SnapshotSet>> = BTreeMap::new();
    for set in sets.iter().filter(|s| Some(&s.instance) == own) {
        groups.entry(group(set)).or_default().push(set);
    }
    if groups.is_empty() {
        return Ok(all);
    }
    let (server, host) = clocks(&account.calls()).await.map_err(Error::from)?;
    for (group, sets) in groups {
        let Some(keep) = rules(global, account, &group.plan)? else { continue };
        let policy = if group.copies { keep.copies.as_ref() } else { Some(&keep.sets) };
        let Some(policy) = policy else { continue };
        let zone: &Zone = &policy.timezone;
        let group = Arc::new(group);
        let of = sets.iter().map(|s| facts(s, &group, of_tags(s), zone)).collect::<Vec<_>>();
        let request = Request {
            group: &group,
            policy: Some(policy),
            now: Now { server, host },
            interval: interval(&of),
            instance_gone: false,
            options: Options::default(),
        };
        all.extend(decide(&request, &of).sets.into_iter().map(|d| (d.id, d.departure)));
    }
    Ok(all)
}

/// The rules of this plan on this host.
pub(super) fn rules(global: &Global, account: &Account, plan: &str) -> Result<Option<KeepSettings>, Error> {
    let known = plan == config::DEFAULT_PLAN || account.loaded.plans.iter().any(|p| p == plan);
    if !known {
        return Ok(None);
    }
    Ok(global.load(Some(plan), config::Overrides::default())?.settings.plan.keep)
}
