//! `stillpoint prune [PLAN]`: remove the sets that the plan's rules let go.
//!
//! In: the plan's rules. Out: every set with its verdict and reasons, then what became of those that go. Must
//! never: remove anything that a dry run would not have named.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::sets::{Account, alone, being_copied};
use super::{Global, Output, print, print_document, say};
use crate::config::Loaded;
use crate::ec2::aws::Aws;
use crate::ec2::keep::Keep as _;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::lock::FileLock;
use crate::ids::InstanceId;
use crate::report;
use crate::report::event::{self, Event};
use crate::run::notify;
use crate::run::tally::Tally;
use crate::run::textfile::{self, Disk};
use crate::sets::prune::{Adopted, Decided, Prune as Pruning, adopt};
use crate::sets::remove::Removed;
use crate::sets::retention::{Options, PrunePlan};
use crate::sets::set::SnapshotSet;

/// Version of the JSON of `prune`.
const VERSION: u32 = 1;
/// How long another prune on this host is waited for: it removes a set in seconds.
const OTHER: Duration = Duration::from_secs(600);
/// How long a run is waited for before metrics are written: nothing is frozen then.
const A_RUN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Name of a configured plan.
    #[arg(value_name = "PLAN")]
    plan: Option<String>,
    /// Print what would be removed and why, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// The sets of this instance, such as one that is gone, by this host's rules.
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// First: the sets of this instance, which is gone, are this host's from now on (needs host_key in the
    /// configuration).
    #[arg(long, value_name = "ID", conflicts_with = "instance")]
    adopt: Option<InstanceId>,
    /// The copies of the plan's sets in this Region, by its rules for copies.
    #[arg(long)]
    copies: bool,
    /// Remove more than half of the sets, or more than max_deletes.
    #[arg(long)]
    yes: bool,
    /// Go on although no new set has come for twice the time between two runs.
    #[arg(long)]
    stale: bool,
    /// Remove every set that nothing holds, whatever the rules keep; at_least and min_age still count.
    #[arg(long)]
    all: bool,
    /// With --all: the last good set too.
    #[arg(long, requires = "all")]
    including_the_last: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    plan: &'a PrunePlan,
    dry_run: bool,
    removed: &'a [Removed],
    exit_code: Exit,
}

impl Prune {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, self.plan.as_deref(), self.instance.is_none()).await?;
        let settings = &account.loaded.settings;
        let name = &settings.plan.name;
        let keep = settings.plan.keep.as_ref();
        let policy = if self.copies { keep.and_then(|k| k.copies.as_ref()) } else { keep.map(|k| &k.sets) };
        if policy.is_none() && !self.all {
            return Err(no_rules(name, self.copies));
        }
        let _lock = locked(&settings.run_dir).await?;
        if let Some(former) = &self.adopt {
            self.adopt(&account, former).await?;
        }
        let instance = account.instance(self.instance.as_ref())?;
        let being_copied = match self.copies {
            true => BTreeMap::new(),
            false => being_copied(&account.loaded, &account.region, &instance).await?,
        };
        let pruning = Pruning {
            instance,
            being_copied,
            host_key: settings.plan.host_key.clone().filter(|_| self.instance.is_none()),
            plan: name.clone(),
            copies: self.copies,
            policy,
            options: Options {
                stale: self.stale,
                yes: self.yes,
                all: self.all,
                including_the_last: self.including_the_last,
                instance_named: self.instance.is_some(),
            },
        };
        let exists = async |sets: &[SnapshotSet]| {
            let there = account.existing(sets.iter(), Some(&pruning.instance)).await?;
            Ok(there.contains(&pruning.instance))
        };
        let decided = pruning.decide(&account.calls(), exists).await?;
        let size = |id: &_| decided.set(id).map(|s| format!("{} × {} GiB", s.members.len(), s.size_gib()));
        if self.output == Output::Text {
            print(&report::sets::prune(&decided.plan, size));
        }
        others(&decided).into_iter().for_each(|line| say(&line));
        let done = if self.dry_run { Done::default() } else { carry_out(&decided, &account.calls()).await };
        let failed = done.removed.iter().any(|r| r.failed.is_some()) || !decided.plan.refusals.is_empty();
        let exit = if failed { Exit::After } else { Exit::Ok };
        notify::tell(&settings.plan.notify, "prune", name, exit, &done.events).await;
        if !self.dry_run && !self.copies && self.instance.is_none() {
            let count = |tally: &mut Tally| done.count(tally, exit);
            textfile::update_alone(&account.loaded, A_RUN, Disk::Safe, count).await;
        }
        if self.output == Output::Json {
            let plan = &decided.plan;
            let document = Document {
                version: VERSION,
                plan,
                dry_run: self.dry_run,
                removed: &done.removed,
                exit_code: exit,
            };
            print_document(&document)?;
        }
        Ok(exit)
    }
}

impl Prune {
    /// The sets of an instance that is gone get the key of this host.
    async fn adopt(&self, account: &Account, former: &InstanceId) -> Result<(), Error> {
        let plan = &account.loaded.settings.plan;
        let Some(key) = &plan.host_key else {
            let what = format!(
                "plan {} has no host_key, by which the sets of two instances are one host's",
                plan.name
            );
            let hint = "write host_key = \"NAME\" into [defaults] (docs/retention.md)";
            return Err(Error::new(Exit::Config, what).hint(hint));
        };
        let adopted =
            adopt(&account.calls(), former, &plan.name, key, self.dry_run).await.map_err(Error::from)?;
        match adopted {
            Adopted::Exists => {
                let what = format!("{former} exists: its sets are its own");
                Err(Error::new(Exit::Config, what).hint("adopt the sets of an instance that is terminated"))
            }
            Adopted::Moved(sets) => {
                let how = if self.dry_run { "would be" } else { "are" };
                say(&format!("{} sets of {former} {how} those of {key}", sets.len()));
                if self.dry_run && !sets.is_empty() {
                    say("they are not in the list that follows: that is of what is so now");
                }
                Ok(())
            }
        }
    }
}

/// A plan by which nothing would ever go.
pub(super) fn no_rules(plan: &str, copies: bool) -> Error {
    let table = if copies { format!("[plan.{plan}.keep.copies]") } else { format!("[plan.{plan}.keep]") };
    Error::new(Exit::Config, format!("plan {plan} has no rules: nothing would be removed"))
        .hint(format!("write {table} with rules such as last = 5 or daily = 7 (docs/retention.md)"))
}

/// Two hosts that have been given one key.
fn others(decided: &Decided) -> Vec<String> {
    let line = |other: &InstanceId| {
        format!(
            "warning: {other} has the same host_key and exists: its sets are its own, and give one of the two another key"
        )
    };
    decided.others.iter().map(line).collect()
}

/// What a prune has done.
#[derive(Debug, Default)]
pub(super) struct Done {
    removed: Vec<Removed>,
    /// What whoever is told is told of it.
    pub events: Vec<Event>,
    /// So many sets are left, and the sizes of their volumes in GiB.
    left: (u64, u64),
}

impl Done {
    /// Counts it, for metrics.
    pub fn count(&self, tally: &mut Tally, exit: Exit) {
        let gone = self.removed.iter().filter(|r| r.failed.is_none()).count();
        let (sets, gib) = self.left;
        tally.pruned(exit, u64::try_from(gone).unwrap_or(u64::MAX), sets, gib << 30);
    }
}

/// Removes what was decided, and tells each set.
async fn carry_out(decided: &Decided, ec2: &Repeating<'_, Aws>) -> Done {
    let mut events = Vec::new();
    let tell = |one: &Removed| {
        let event = event::of_removed(&decided.plan.group.plan, one);
        report::log::tell(&event);
        events.push(event);
        say(&report::sets::removed(one));
    };
    let removed = decided.carry_out(ec2, tell).await;
    let withheld = event::of_withheld(&decided.plan);
    withheld.iter().for_each(report::log::tell);
    events.extend(withheld);
    Done { left: decided.left(&removed), removed, events }
}

/// A prune after a run, by the rules of its plan. Returns what it has done, and what failed.
///
/// # Errors
/// When nothing could be decided.
pub(super) async fn after_run(
    loaded: &Loaded,
    ec2: &Aws,
    instance: &InstanceId,
) -> Result<(Done, Vec<String>), Error> {
    let settings = &loaded.settings;
    let _lock = locked(&settings.run_dir).await?;
    let pruning = Pruning {
        instance: instance.clone(),
        being_copied: being_copied(loaded, ec2.region(), instance).await?,
        host_key: settings.plan.host_key.clone(),
        plan: settings.plan.name.clone(),
        copies: false,
        policy: settings.plan.keep.as_ref().map(|k| &k.sets),
        options: Options::default(),
    };
    let ec2 = Repeating::for_each_call(ec2, &settings.ec2);
    let exists = async |_: &[SnapshotSet]| {
        let ids = [instance.clone()];
        let asked = async || ec2.inner().instances(&ids).await;
        Ok(!ec2.call("DescribeInstances", asked).await.map_err(Error::from)?.is_empty())
    };
    let decided = pruning.decide(&ec2, exists).await?;
    let size = |id: &_| decided.set(id).map(|s| format!("{} × {} GiB", s.members.len(), s.size_gib()));
    say(&report::sets::prune(&decided.plan, size));
    others(&decided).into_iter().for_each(|line| say(&line));
    let done = carry_out(&decided, &ec2).await;
    let refused = decided.plan.refusals.iter().map(|refusal| format!("prune removed nothing: {refusal}"));
    let failed = done.removed.iter().filter(|r| r.failed.is_some()).map(report::sets::removed);
    let failed = refused.chain(failed).collect();
    Ok((done, failed))
}

/// One prune at a time on a host.
pub(super) async fn locked(run_dir: &Path) -> Result<Option<FileLock>, Error> {
    alone(&run_dir.join("prune.lock"), OTHER, "is removing sets").await
}
