//! `stillpoint list`: the sets there are, and what only looks like one.
//!
//! In: whose sets. Out: a table or JSON on stdout. Must never: change anything, or show an empty list where EC2
//! did not say.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::regions::{self, Failed};
use super::sets::Account;
use super::{Global, Output, print, print_json, say};
use crate::config::{self, settings::KeepSettings};
use crate::consistency::Consistency;
use crate::ec2::keep::{Keep, Wanted};
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::{RESTORE_TAG, VolumeView, Volumes as _, Which};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId, VolumeId};
use crate::path_encoding::printable;
use crate::report;
use crate::report::sets::{Copied, InBin, Listed};
use crate::restore::plan::{RESTORE_HOST_TAG, RESTORE_OF_TAG, UNTIL_TAG};
use crate::sets::facts::{facts, group, interval};
use crate::sets::find::{bin, clocks, find, of_volumes};
use crate::sets::holds::{bases, of_tags};
use crate::sets::read::Stranger;
use crate::sets::retention::{Age, Departure, Group, Now, Options, Request, Zone, decide};
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::sizes::only;
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
    /// In every Region of the account, instead of one. (--region can be repeated, too.)
    #[arg(long)]
    all_regions: bool,
    /// Only what somebody should look at: sets that are not complete, sets of instances that are gone, and
    /// snapshots that only look like parts of a set.
    #[arg(long)]
    leftovers: bool,
    /// Only sets of this label: application, filesystem, crash, or none (without a verdict).
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Option<Label>,
    /// Only sets in this state; can be repeated.
    #[arg(long, value_enum)]
    state: Vec<SetState>,
    /// Only sets that were taken since then: a day such as 2027-01-31 (UTC), an RFC 3339 time, or an age such as 14d.
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// What the Recycle Bin keeps of removed sets, of every instance, instead of sets that are there.
    #[arg(long, conflicts_with_all = ["plan", "all_hosts", "instance", "leftovers", "label", "state", "since", "sort"])]
    bin: bool,
    /// With what only each set holds, by the EBS direct APIs: two or three lists a snapshot, which cost a little.
    #[arg(long, conflicts_with = "bin")]
    sizes: bool,
    /// Sort by: time (newest first), size or plan.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    #[default]
    Time,
    Size,
    Plan,
}

/// A label; none: no verdict.
type Label = Option<Consistency>;

fn label(text: &str) -> Result<Label, String> {
    if text == "none" {
        return Ok(None);
    }
    config::consistency(text)
        .map(Some)
        .map_err(|_| "is not application, filesystem, crash or none".to_owned())
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Time(Timestamp),
    Age(Age),
}

impl Since {
    fn has(self, time: Option<Timestamp>, now: Timestamp) -> bool {
        time.is_some_and(|time| match self {
            Self::Time(since) => time >= since,
            Self::Age(age) => age.after(time) >= now,
        })
    }
}

fn since(text: &str) -> Result<Since, String> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let time = if text.len() == "2027-01-31".len() { day() } else { text.parse().ok() };
    let age = || Age::parse(text).ok().map(Since::Age);
    time.map(Since::Time)
        .or_else(age)
        .ok_or_else(|| "is neither a day such as 2027-01-31 nor an age such as 14d".to_owned())
}

/// What one Region has.
struct Here {
    region: String,
    listed: Vec<Listed>,
    strangers: Vec<Stranger>,
    volumes: Vec<LeftVolume>,
}

/// A volume that was to be there for a time, of a verify or a restore, and that is there.
#[derive(Debug, Serialize)]
struct LeftVolume {
    id: VolumeId,
    /// What `restore --undo` takes.
    restore: Option<RunId>,
    set: Option<RunId>,
    instance: Option<InstanceId>,
    /// Later, nobody needs it.
    until: Option<Timestamp>,
    size_gib: i32,
    state: String,
}

impl LeftVolume {
    fn of(volume: VolumeView) -> Self {
        let tag = |key: &str| volume.tag(key);
        Self {
            restore: tag(RESTORE_TAG).and_then(|t| t.parse().ok()),
            set: tag(RESTORE_OF_TAG).and_then(|t| t.parse().ok()),
            instance: tag(RESTORE_HOST_TAG).and_then(|t| t.parse().ok()),
            until: tag(UNTIL_TAG).and_then(|t| t.parse().ok()),
            size_gib: volume.size_gib,
            state: printable(&volume.state).into_owned(),
            id: volume.id,
        }
    }

    fn line(&self, now: Timestamp) -> String {
        let Self { id, size_gib, state, .. } = self;
        let host = self.instance.as_ref().map_or("an instance", InstanceId::as_str);
        let restore = self.restore.as_ref().map_or("?", RunId::as_str);
        let still =
            if self.until.is_some_and(|until| until > now) { "is, or is left, of" } else { "is left of" };
        format!(
            "{id} ({size_gib} GiB, {state}) {still} a verify or restore of {host}: `stillpoint restore --clean-up` \
             there, or `restore --undo {restore}`"
        )
    }
}

impl List {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if let Some(plan) = self.plan.as_deref().filter(|p| !config::is_plan_name(p)) {
            return Err(Error::new(Exit::Usage, format!("`{plan}` is no plan's name")));
        }
        let meant = regions::meant(global, self.all_regions).await?;
        if self.bin {
            return self.list_bin(global, meant).await;
        }
        let several = meant.len() > 1;
        let looked = regions::each(
            global,
            meant,
            async |account| self.here(global, account).await,
            self.needs_instance(),
        )
        .await?;
        let (mut all, mut strangers, mut volumes, mut names) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for here in looked.answers {
            names.push(here.region);
            all.extend(here.listed);
            strangers.extend(here.strangers);
            volumes.extend(here.volumes);
        }
        copies(&mut all);
        let now = Timestamp::now();
        all.retain(|l| {
            self.label.is_none_or(|label| l.set.achieved == label)
                && (self.state.is_empty() || self.state.contains(&l.state))
                && self.since.is_none_or(|since| since.has(l.set.time, now))
        });
        if self.leftovers {
            all.retain(|l| l.instance_gone || !matches!(l.state, SetState::Completed | SetState::Pending));
        }
        match self.sort {
            // Those of one Region are sorted by it already.
            Sort::Time if several => all.sort_by_key(|l| std::cmp::Reverse(l.set.time)),
            Sort::Time => {}
            Sort::Size => all.sort_by_key(|l| std::cmp::Reverse(l.set.size_gib())),
            Sort::Plan => all.sort_by(|a, b| a.set.plan.cmp(&b.set.plan)),
        }
        match self.output {
            Output::Json => {
                // A line for each set: a document of 100,000 snapshots is not held in memory as a whole.
                print_json(&format!("{{\"version\":{VERSION},{},\"sets\":[", head(&names, &looked.failed)?));
                lines(&all)?;
                print_json("],\"strangers\":[");
                lines(&strangers)?;
                print_json("],\"volumes\":[");
                lines(&volumes)?;
                print_json("]}");
            }
            Output::Text => {
                match report::sets::table(&all, self.all_hosts, several) {
                    text if text.is_empty() => say(&format!("there is no such set in {}", names.join(", "))),
                    text => print(&text),
                }
                volumes.iter().for_each(|volume| say(&volume.line(now)));
                for stranger in &strangers {
                    say(&format!("{} has the tag of a set and is of none: {}", stranger.id, stranger.why));
                }
            }
        }
        Ok(regions::told(&looked.failed))
    }

    fn needs_instance(&self) -> bool {
        !self.all_hosts && self.instance.is_none()
    }

    /// What this Region has.
    async fn here(&self, global: &Global, account: &Account) -> Result<Here, Error> {
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
        // The instance of a copy is in the Region of its source.
        let own = |s: &&SnapshotSet| s.copy_of.as_ref().is_none_or(|source| source.region == account.region);
        let mut hosts: Vec<InstanceId> = sets.iter().filter(own).map(|s| s.instance.clone()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let there = ec2.call("DescribeInstances", async || ec2.inner().instances(&hosts).await).await;
        let there = there.map_err(Error::from)?;
        let departures = departures(global, account, &sets).await?;
        let listed = |set: SnapshotSet| Listed {
            state: set.state(),
            departure: departures.get(&set.id).copied().flatten(),
            goes_next: departures.get(&set.id) == Some(&None),
            instance_gone: own(&&set) && !there.contains(&set.instance),
            only_bytes: None,
            copies: Vec::new(),
            set,
        };
        let mut listed: Vec<Listed> = sets.into_iter().map(listed).collect();
        if self.sizes {
            let only = sizes(account, listed.iter().map(|l| &l.set)).await?;
            for l in &mut listed {
                l.only_bytes = only.get(&l.set.id).copied();
            }
        }
        let volumes = if self.leftovers { self.left_volumes(account).await } else { Vec::new() };
        Ok(Here { region: account.region.clone(), listed, strangers: found.strangers, volumes })
    }

    /// Volumes that were to be there for a time. Without the permission to look, the sets are listed all the same.
    async fn left_volumes(&self, account: &Account) -> Vec<LeftVolume> {
        let ec2 = account.calls();
        let which = Which::WithTag(UNTIL_TAG.to_owned());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let found = match ec2.call("DescribeVolumes", asked).await {
            Ok(found) => found,
            Err(e) => {
                say(&format!("volumes that a verify or a restore may have left are not known: {e}"));
                return Vec::new();
            }
        };
        let mut left: Vec<LeftVolume> =
            found.into_iter().filter(|v| !v.is_gone()).map(LeftVolume::of).collect();
        if let Ok(own) = account.instance(self.instance.as_ref())
            && !self.all_hosts
        {
            left.retain(|v| v.instance.as_ref() == Some(&own));
        }
        left
    }

    /// What the Recycle Bin has.
    async fn list_bin(&self, global: &Global, meant: Vec<Option<String>>) -> Result<Exit, Error> {
        let look = async |account: &Account| {
            let found = bin(&account.calls()).await.map_err(Error::from)?;
            Ok((account.region.clone(), report::sets::in_bin(&account.region, found)))
        };
        let looked = regions::each(global, meant, look, false).await?;
        let (names, found): (Vec<String>, Vec<_>) = looked.answers.into_iter().unzip();
        let found: Vec<InBin> = found.into_iter().flatten().collect();
        match self.output {
            Output::Json => {
                print_json(&format!("{{\"version\":{VERSION},{},\"bin\":[", head(&names, &looked.failed)?));
                lines(&found)?;
                print_json("]}");
            }
            Output::Text if found.is_empty() => {
                say(&format!("the Recycle Bin has nothing of a set in {}", names.join(", ")));
            }
            Output::Text => print(&report::sets::bin_table(&found)),
        }
        Ok(regions::told(&looked.failed))
    }
}

/// What only each of these sets holds, where that is known.
pub(super) async fn sizes(
    account: &Account,
    sets: impl Iterator<Item = &SnapshotSet> + Clone,
) -> Result<BTreeMap<RunId, u64>, Error> {
    let mut volumes: Vec<VolumeId> =
        sets.clone().flat_map(|s| &s.members).map(|m| m.volume_id.clone()).collect();
    volumes.sort_unstable();
    volumes.dedup();
    let all = of_volumes(&account.calls(), &volumes).await.map_err(Error::from)?;
    let direct = account.direct(1).await?;
    let ebs = Repeating::for_each_call(&direct, &account.loaded.settings.ec2);
    let mut found = BTreeMap::new();
    for set in sets {
        match only(&ebs, set, &all).await {
            Ok(bytes) => found.extend(bytes.map(|bytes| (set.id.clone(), bytes))),
            // Up to minutes after its completion (EBS direct APIs); or it is gone meanwhile.
            Err(e) if e.is_not_readable() => {
                say(&format!("what only {} holds cannot be read yet: {e}", set.id))
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

/// Notes with each set where copies of it are, of those that were looked at.
fn copies(all: &mut [Listed]) {
    let mut of: BTreeMap<RunId, Vec<Copied>> = BTreeMap::new();
    for listed in all.iter() {
        if let Some(source) = &listed.set.copy_of {
            let copy =
                Copied { region: listed.set.region.clone(), id: listed.set.id.clone(), state: listed.state };
            of.entry(source.id.clone()).or_default().push(copy);
        }
    }
    for listed in all.iter_mut().filter(|l| l.set.copy_of.is_none()) {
        listed.copies = of.remove(&listed.set.id).unwrap_or_default();
    }
}

/// The Regions, in JSON: those that were asked, the first of them, and those that did not answer.
fn head(names: &[String], failed: &[Failed]) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Silent<'a> {
        region: &'a str,
        error: String,
    }
    let silent: Vec<_> =
        failed.iter().map(|f| Silent { region: &f.region, error: f.error.to_string() }).collect();
    let first = names.first().map_or("", String::as_str);
    Ok(format!("\"region\":{},\"regions\":{},\"failed\":{}", json(&first)?, json(&names)?, json(&silent)?))
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
        let mut base = if group.copies { bases(&sets) } else { BTreeMap::new() };
        let mut holds = |set: &SnapshotSet| {
            let mut holds = of_tags(set);
            holds.extend(base.remove(&set.id).unwrap_or_default());
            holds
        };
        let of = sets.iter().map(|s| facts(s, &group, holds(s), zone)).collect::<Vec<_>>();
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
    Ok(global.load_in(None, Some(plan), config::Overrides::default())?.settings.plan.keep)
}
