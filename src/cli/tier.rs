//! `stillpoint tier SET --archive` and `--restore`, and `tier PLAN --archive --older-than 90d`.
//!
//! In: the name of a set, or a plan and an age. Out: snapshots on their way into the archive, or back. Must never:
//! archive anything without having said what it costs and what it means.

use clap::Args;
use jiff::Timestamp;

use super::list::departures;
use super::prune::locked;
use super::sets::{Account, set_name};
use super::told::{Change, Command, Told, tell};
use super::{Global, Output, say};
use crate::ec2::aws::Aws;
use crate::ec2::keep::{MOST_RESTORED_DAYS, TierView, Wanted};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::InstanceId;
use crate::report::change::{Changed, OfSet};
use crate::report::sets::{local, short};
use crate::sets::find::find;
use crate::sets::guard::Refusal;
use crate::sets::holds::holds;
use crate::sets::lock::days_after;
use crate::sets::retention::{Age, Departure};
use crate::sets::set::SnapshotSet;
use crate::sets::tags::INSTANCE_TAG;
use crate::sets::tier::{self, Cost, LEAST_DAYS, Move};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("to").required(true)))]
pub(super) struct Tier {
    /// The start of a set's id, or one of its snapshots. With --older-than: the name of a configured plan.
    #[arg(value_name = "SET|PLAN", required_unless_present = "older_than")]
    target: Option<String>,
    /// Into the archive: as full copies, for 90 days at least. It cannot be cancelled.
    #[arg(long, group = "to")]
    archive: bool,
    /// Out of the archive, for good. It takes up to 72 hours.
    #[arg(long, group = "to", conflicts_with = "older_than")]
    restore: bool,
    /// With --restore: only for so many days.
    #[arg(long, conflicts_with = "archive", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_RESTORED_DAYS)))]
    days: Option<u32>,
    /// With --archive: every set of the plan that is older, such as 90d, and can go.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Age>,
    /// With --older-than: the sets of this instance, instead of this one.
    #[arg(long, value_name = "ID", requires = "older_than")]
    instance: Option<InstanceId>,
    /// Print what would be done and what it costs, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

pub(super) fn age(text: &str) -> Result<Age, String> {
    let age = Age::parse(text).map_err(|e| format!("{} ({})", e.problem, e.hint))?;
    if age.is_zero() { Err("has to be more than nothing".to_owned()) } else { Ok(age) }
}

fn refused(refusal: Refusal) -> Error {
    Error::new(Exit::Config, refusal.what).hint(refusal.hint)
}

/// A set, and which of its snapshots move.
struct Going {
    set: SnapshotSet,
    ids: Vec<crate::ids::SnapshotId>,
}

impl Tier {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        match &self.older_than {
            Some(age) => self.plan(global, *age).await,
            None => self.set(global).await,
        }
    }

    async fn set(&self, global: &Global) -> Result<Exit, Error> {
        let name = set_name(self.target.as_deref().unwrap_or_default()).map_err(|why| {
            Error::new(Exit::Usage, format!("`{}` {why}", self.target.clone().unwrap_or_default()))
        })?;
        let account = Account::connect(global, None, false).await?;
        let _lock = locked(&account.loaded.settings.run_dir).await?;
        let set = account.set(&name).await?;
        let ec2 = account.calls();
        let tiers = tier::tiers(&ec2, &set).await.map_err(Error::from)?;
        if self.restore {
            return self.restore(&ec2, &set, &tiers).await;
        }
        let all = of_instance(&ec2, &set.instance).await?;
        let held = holds(&ec2, &[&set]).await.map_err(Error::from)?.remove(&set.id).unwrap_or_default();
        if let Some(refusal) = tier::archive_refusal(&set, &held, &all) {
            return Err(refused(refusal));
        }
        let ids = tier::to_archive(&set, &tiers);
        self.archive(global, &account, vec![Going { set, ids }]).await
    }

    /// Every set of a plan that is older than this. What stays is told, and is no failure.
    async fn plan(&self, global: &Global, age: Age) -> Result<Exit, Error> {
        let plan = self.target.as_deref();
        let account = Account::connect(global, plan, self.instance.is_none()).await?;
        let plan = account.loaded.settings.plan.name.clone();
        let _lock = locked(&account.loaded.settings.run_dir).await?;
        let ec2 = account.calls();
        let all = of_instance(&ec2, &account.instance(self.instance.as_ref())?).await?;
        let now = Timestamp::now();
        let is_old = |s: &&SnapshotSet| {
            s.plan == plan && s.copy_of.is_none() && s.time.is_some_and(|time| age.after(time) <= now)
        };
        let old: Vec<&SnapshotSet> = all.iter().filter(is_old).collect();
        if old.is_empty() {
            say(&format!("plan {plan} has no set that is older than {age}"));
            return self.command().print(Vec::new(), Exit::Ok);
        }
        let mut held = holds(&ec2, &old).await.map_err(Error::from)?;
        let mut going = Vec::new();
        // The oldest first.
        for set in old.into_iter().rev() {
            let tiers = tier::tiers(&ec2, set).await.map_err(Error::from)?;
            let ids = tier::to_archive(set, &tiers);
            if ids.is_empty() {
                continue;
            }
            match tier::archive_refusal(set, &held.remove(&set.id).unwrap_or_default(), &all) {
                Some(refusal) => say(&format!("{} stays: {}", short(set), refusal.what)),
                None => going.push(Going { set: set.clone(), ids }),
            }
        }
        self.archive(global, &account, going).await
    }

    async fn archive(&self, global: &Global, account: &Account, going: Vec<Going>) -> Result<Exit, Error> {
        let sets: Vec<SnapshotSet> =
            going.iter().filter(|g| !g.ids.is_empty()).map(|g| g.set.clone()).collect();
        let command = self.command();
        let would = || {
            let of = |g: &Going| {
                OfSet::of(
                    &g.set,
                    g.set.snapshots().map(|id| Changed::would(id, g.ids.contains(id))).collect(),
                )
            };
            going.iter().map(of).collect()
        };
        if sets.is_empty() {
            say("nothing had to be changed");
            return command.print(would(), Exit::Ok);
        }
        let leaving = departures(global, account, &sets).await?;
        let earliest = days_after(Timestamp::now(), LEAST_DAYS);
        for Going { set, ids } in going.iter().filter(|g| !g.ids.is_empty()) {
            let cost = Cost::of(set.members.iter().filter(|m| ids.contains(&m.id)));
            costs(set, ids.len(), cost).iter().for_each(|line| say(line));
            let leaves = match leaving.get(&set.id) {
                Some(None) => Some("with the next prune".to_owned()),
                Some(Some(Departure::Expected { at, .. } | Departure::NotBefore { at, .. }))
                    if *at < earliest =>
                {
                    Some(format!("on {}", local(*at)))
                }
                _ => None,
            };
            if let Some(when) = leaves {
                say(&format!(
                    "  warning: its rules let it go {when}; the {LEAST_DAYS} days are billed all the same, and prune \
                     keeps it for so long"
                ));
            }
        }
        if self.dry_run {
            return command.print(would(), Exit::Ok);
        }
        let ec2 = account.calls();
        let mut done = Vec::new();
        for Going { set, ids } in &going {
            let mut moved = tier::carry_out(&ec2, ids.clone(), Move::Archive).await;
            let mut of_set = Vec::new();
            // In the order of the set, with those that stay.
            for id in set.snapshots() {
                let change = moved.iter().position(|(moved, _)| moved == id).map(|at| moved.remove(at).1);
                let change = change.map(|said| Change {
                    said,
                    good: "is on its way into the archive".to_owned(),
                    bad: "does NOT go to the archive".to_owned(),
                });
                of_set.push(Told { id: id.clone(), accounts: Vec::new(), change });
            }
            done.push((set, of_set));
        }
        tell(&command, done)
    }

    fn command(&self) -> Command {
        Command { name: "tier", dry_run: self.dry_run, output: self.output }
    }

    async fn restore(
        &self,
        ec2: &Repeating<'_, Aws>,
        set: &SnapshotSet,
        tiers: &[TierView],
    ) -> Result<Exit, Error> {
        let ids = tier::to_restore(set, tiers).map_err(refused)?;
        let how = match self.days {
            Some(days) => format!("for {days} days"),
            None => "for good".to_owned(),
        };
        if !ids.is_empty() {
            let cost = Cost::of(set.members.iter().filter(|m| ids.contains(&m.id)));
            say(&format!(
                "{} of {} come back {how}: up to 72 hours, and ${:.2} for {} (${} a GiB, list price of us-east-1)",
                snapshots(ids.len()),
                set.id,
                cost.restore(),
                size(cost),
                Cost::RESTORE
            ));
        }
        if self.dry_run {
            ids.iter().for_each(|id| say(&format!("{id} would come back {how}")));
            let would = set.snapshots().map(|id| Changed::would(id, ids.contains(id))).collect();
            return self.command().print(vec![OfSet::of(set, would)], Exit::Ok);
        }
        let done = tier::carry_out(ec2, ids, Move::Restore(self.days)).await;
        let one = |(id, said)| {
            let good = format!("is on its way back {how}; `stillpoint show` says how far it is");
            let change = Some(Change { said, good, bad: "does NOT come back".to_owned() });
            Told { id, accounts: Vec::new(), change }
        };
        tell(&self.command(), vec![(set, done.into_iter().map(one).collect())])
    }
}

/// The sets of an instance, the newest first.
async fn of_instance(ec2: &Repeating<'_, Aws>, instance: &InstanceId) -> Result<Vec<SnapshotSet>, Error> {
    let tags = vec![(INSTANCE_TAG.to_owned(), instance.to_string())];
    Ok(find(ec2, &Wanted::Tagged(tags)).await.map_err(Error::from)?.sets)
}

fn snapshots(n: usize) -> String {
    format!("{n} snapshot{}", if n == 1 { "" } else { "s" })
}

fn size(cost: Cost) -> String {
    let most = if cost.at_most { "at most " } else { "" };
    if cost.gib < 1.0 {
        format!("{most}{:.1} MiB", cost.gib * 1024.0)
    } else {
        format!("{most}{:.1} GiB", cost.gib)
    }
}

/// What it costs, and what it means.
fn costs(set: &SnapshotSet, n: usize, cost: Cost) -> Vec<String> {
    vec![
        format!("{}: {} as full copies into the archive, {}", set.id, snapshots(n), size(cost)),
        format!(
            "  ${:.2} a month there; in the standard tier what only this set holds costs ${} a GiB and month, four \
             times as much a GiB",
            cost.month(),
            Cost::STANDARD
        ),
        format!(
            "  {LEAST_DAYS} days are billed in any case (${:.2}); coming back takes up to 72 hours and ${:.2}",
            cost.least(),
            cost.restore()
        ),
        "  no volume, copy or share of it meanwhile; fast snapshot restore is switched off; it cannot be cancelled"
            .to_owned(),
        "  (list prices of us-east-1; those of other Regions differ)".to_owned(),
    ]
}
