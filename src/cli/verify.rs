//! `stillpoint verify SET`: does the data of a set keep what its label promises?
//!
//! ```text
//! arithmetic ─▶ probe ─┬▶ whole     as far as --level says, and no further than the first fault
//!                      ├▶ mount
//!                      └▶ restore
//! ```
//!
//! In: the name of a set. Out: findings on stdout; exit code 24 when one is a fault; the ledger. Must never: change
//! anything but the ledger and what it has made itself, or call sound what it did not look at.

mod mounting;
mod reading;
mod restoring;
mod writing;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use self::writing::{Ledger, found, write};
use super::sets::{Account, set_name};
use super::start::{end, listen};
use super::tier::age;
use super::{Global, Output, absolute, print, print_document, say};
use crate::clock::{Clock as _, System};
use crate::config::{self, Overrides};
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::ec2::volume_type::TYPES;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId};
use crate::path_encoding::{printable, shown};
use crate::report::sets::{local, size};
use crate::report::{event, log};
use crate::restore::verify::{AT_ONCE, Finding, ReadCost, Report, Verdict, arithmetic, probe, whole};
use crate::run::notify;
use crate::run::tally::Tally;
use crate::run::textfile::{self, Disk};
use crate::sets::choose::{Chosen, How, Wish, choose};
use crate::sets::find::{find, snapshots};
use crate::sets::layout::{Layout, layout};
use crate::sets::ledger::Level;
use crate::sets::retention::Age;
use crate::sets::set::SnapshotSet;
use crate::sets::tags::INSTANCE_TAG;

/// Version of the JSON of `verify`.
const VERSION: u32 = 1;
/// How long a run is waited for before metrics are written: nothing is frozen then.
const A_RUN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The start of a set's id, or one of its snapshots. With --random or --latest: only sets of this plan.
    #[arg(value_name = "SET|PLAN", required_unless_present_any = ["random", "latest", "clean_up"])]
    target: Option<String>,
    /// One of this instance's sets by chance: of those that were not looked at so far, if there are any.
    #[arg(long, conflicts_with = "latest")]
    random: bool,
    /// The newest completed set of this instance.
    #[arg(long)]
    latest: bool,
    /// With --random or --latest: only sets that are younger, such as 30d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    within: Option<Age>,
    /// With --random or --latest: the sets of this instance, instead of this one.
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// How far to look.
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// At the level restore: the type of the volumes [default: gp3].
    #[arg(long = "type", value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(TYPES))]
    volume_type: Option<String>,
    /// At the level restore: EC2 reads all data from the snapshots at this rate in MiB/s, for a price; else it comes as
    /// it is read.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(i32).range(100..=300))]
    init_rate: Option<i32>,
    /// At the level restore: a file with a key of LUKS, which root alone can read; can be repeated: each is tried
    /// [default: luks_key_files of the set's plan].
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    key_file: Vec<PathBuf>,
    /// At the level mount: memory for what is read and for what a mount writes, such as 2GiB [default: half of what is
    /// available].
    #[arg(long, value_name = "SIZE", value_parser = mounting::bytes)]
    overlay_limit: Option<u64>,
    /// Take down what verifies of this host have left that were killed, and look at nothing.
    #[arg(long, conflicts_with_all = ["target", "random", "latest", "within", "instance", "dry_run"])]
    clean_up: bool,
    /// Print what would be read or made and what reading costs, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Leave the tags and the record as they are: the permission to read is enough.
    #[arg(long)]
    no_ledger: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    set: &'a RunId,
    /// How the set was chosen; none where it was named.
    chosen: Option<&'a Chosen>,
    level: Level,
    dry_run: bool,
    /// What the whole read costs, and a mount at most; none of other levels.
    cost: Option<Costs>,
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a Report,
    /// What became of the ledger; none where it was not to be written.
    ledger: Option<&'a Ledger>,
}

#[derive(Debug, Serialize)]
struct Costs {
    blocks: u64,
    /// Of a mount; or EC2 does not say the blocks of each snapshot, and it is the size of the volumes.
    at_most: bool,
    dollars: f64,
}

/// How the data was looked at.
enum Looked {
    At(Report),
    Interrupted(nix::sys::signal::Signal),
}

impl Verify {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if self.clean_up {
            return restoring::clean_up(global).await;
        }
        if self.level != Level::Restore && (self.volume_type.is_some() || self.init_rate.is_some()) {
            return Err(Error::new(
                Exit::Usage,
                "--type and --init-rate are about volumes, and none is made",
            )
            .hint("--level restore makes some"));
        }
        if self.level != Level::Restore && !self.key_file.is_empty() {
            return Err(Error::new(Exit::Usage, "--key-file opens what is in LUKS, and nothing is opened")
                .hint("--level restore does that"));
        }
        if self.level != Level::Mount && self.overlay_limit.is_some() {
            return Err(Error::new(Exit::Usage, "--overlay-limit is about what a mount writes to memory")
                .hint("--level mount does that"));
        }
        let (account, set, chosen) = self.meant(global).await?;
        let ids = set.snapshots().cloned().collect();
        let all = snapshots(&account.calls(), &Wanted::Ids(ids)).await.map_err(Error::from)?;
        let layout = layout(all.iter().map(|s| s.tags.as_slice()));
        let mut report = Report { findings: arithmetic(&set, &layout), ..Report::default() };
        let mut verdict = if report.findings.is_empty() { Verdict::Sound } else { Verdict::Fault };
        // What is not complete has no data that can be judged.
        let reads = self.level > Level::Arithmetic && verdict == Verdict::Sound;
        let cost = match self.level {
            _ if !reads => None,
            Level::Whole => Some(ReadCost::of(&set)),
            Level::Mount => Some(ReadCost { at_most: true, ..ReadCost::of(&set) }),
            _ => None,
        };
        cost.iter().for_each(|cost| say(&costs(&set, *cost)));
        if reads && self.level == Level::Mount {
            say("only blocks that a mount and fsck look at are read, and paid for");
        }
        let mut left = None;
        if self.dry_run && reads {
            match (self.level, &layout) {
                (Level::Restore, Ok(layout)) => {
                    restoring::would(self, global, &account, &set, layout, &all).await?;
                }
                (Level::Mount, Ok(layout)) => mounting::would(self, global, &account, &set, layout).await?,
                _ => {}
            }
            verdict = Verdict::NotLooked;
        } else if reads && let Ok(layout) = &layout {
            let mut looked = if self.level == Level::Mount {
                let mounted = mounting::look(self, global, &account, &set, layout).await?;
                left = mounted.left;
                mounted.looked
            } else {
                self.look(&account, &set, layout).await?
            };
            if let Looked::At(found) = &looked
                && self.level == Level::Restore
                && found.verdict() != Verdict::Fault
            {
                let (blocks_read, restored) =
                    (found.blocks_read, restoring::look(self, global, &account, &set, layout, &all).await?);
                left = restored.left;
                looked = match restored.looked {
                    Looked::At(report) => Looked::At(Report { blocks_read, ..report }),
                    interrupted => interrupted,
                };
            }
            match looked {
                Looked::At(found) => report = found,
                Looked::Interrupted(signal) => {
                    left.iter().for_each(|left| say(left));
                    say(&format!("{}: interrupted, so nothing is known of it", set.id));
                    return Ok(end(Exit::After, Some(signal)));
                }
            }
            verdict = report.verdict();
        }
        let looked = !(self.dry_run && reads);
        let writes = looked && !self.no_ledger && !self.dry_run;
        let found = writes.then(|| found(self.level, &report, verdict, &account));
        let ledger = match &found {
            Some(found) => Some(write(&account, &set, found).await),
            None => None,
        };
        let unwritten = ledger.as_ref().and_then(|l| l.error.as_deref());
        let exit = match (verdict, unwritten, &left) {
            (Verdict::Fault, ..) => Exit::Verify,
            (_, None, None) => Exit::Ok,
            _ => Exit::After,
        };
        match self.output {
            Output::Json => {
                let (version, level, dry_run) = (VERSION, self.level, self.dry_run);
                let (set, report, cost, ledger) = (&set.id, &report, cost.map(Costs::of), ledger.as_ref());
                let chosen = chosen.as_ref();
                let document =
                    Document { version, set, chosen, level, dry_run, cost, verdict, report, ledger };
                print_document(&document)?;
            }
            Output::Text => {
                report.findings.iter().for_each(|f| print(&line(f)));
                say(&if looked {
                    summary(&report, verdict, self.level, set.id.as_str())
                } else {
                    would(self.level, &set)
                });
            }
        }
        left.iter().for_each(|left| say(left));
        unwritten.iter().for_each(|why| say(&format!("what was found is NOT noted: {why}")));
        if looked && !self.dry_run {
            told(global, &account, &set, &report, exit).await?;
        }
        Ok(exit)
    }

    /// The set that is meant, and how it was chosen where it was not named.
    async fn meant(&self, global: &Global) -> Result<(Account, SnapshotSet, Option<Chosen>), Error> {
        let usage = |what: String| Error::new(Exit::Usage, what);
        let target = self.target.as_deref();
        if !self.random && !self.latest {
            if self.within.is_some() || self.instance.is_some() {
                return Err(usage("--within and --instance choose among sets".to_owned())
                    .hint("name --random or --latest with them, or leave them out"));
            }
            let name = target.unwrap_or_default();
            let name = set_name(name).map_err(|why| usage(format!("`{name}` {why}")))?;
            let account = Account::connect(global, None, self.level == Level::Restore).await?;
            let set = account.set(&name).await?;
            return Ok((account, set, None));
        }
        if let Some(plan) = target.filter(|p| !config::is_plan_name(p)) {
            return Err(usage(format!("`{plan}` is no plan's name")));
        }
        let account =
            Account::connect(global, None, self.instance.is_none() || self.level == Level::Restore).await?;
        let instance = account.instance(self.instance.as_ref())?;
        let tags = vec![(INSTANCE_TAG.to_owned(), instance.to_string())];
        let mut sets = find(&account.calls(), &Wanted::Tagged(tags)).await.map_err(Error::from)?.sets;
        // A filter has wildcards in its values.
        sets.retain(|s| s.instance == instance);
        let how = if self.latest { How::Latest } else { How::Random };
        let wish = Wish { how, level: self.level, plan: target, within: self.within };
        let chosen = choose(&sets, &wish, Timestamp::now(), |n| fastrand::usize(..n));
        let plan = target.map_or_else(String::new, |plan| format!(" of plan {plan}"));
        let within = self.within.map_or_else(String::new, |age| format!(" within {age}"));
        let Some(chosen) = chosen else {
            let what = format!("{instance} has no set{plan}{within} that is complete and can be read");
            return Err(Error::new(Exit::Config, what)
                .hint("`stillpoint list` shows the sets there are, and their states"));
        };
        let set = sets.swap_remove(chosen.index);
        let time = set.time.map_or_else(|| "?".to_owned(), local);
        let many = if chosen.of == 1 { "set" } else { "sets" };
        say(&format!("{} of {time}: {chosen} {many}{plan}{within}", set.id));
        Ok((account, set, Some(chosen)))
    }

    /// Looks at the data.
    async fn look(&self, account: &Account, set: &SnapshotSet, layout: &Layout) -> Result<Looked, Error> {
        let mut interrupt = listen()?;
        let calls = if self.level == Level::Whole { AT_ONCE } else { 1 };
        let direct = account.direct(calls).await?;
        let direct = Repeating::for_each_call(&direct, &account.loaded.settings.ec2).until(&interrupt);
        let mut watching = reading::Watching::new(System.elapsed());
        let look = async {
            let mut report = probe(&direct, set, layout).await?;
            if self.level == Level::Whole {
                let mut see = |reading: &_| watching.see(reading, System.elapsed());
                report.add(whole(&direct, set, layout, &mut see).await?);
            }
            Ok::<_, Error>(report)
        };
        let looked = tokio::select! {
            biased;
            signal = interrupt.caught() => Ok(Looked::Interrupted(signal)),
            looked = look => looked.map(Looked::At),
        };
        watching.end();
        looked
    }
}

/// Tells whoever is to be told: the journal, and on the host of the set its metrics and the commands of `[[notify]]`.
async fn told(
    global: &Global,
    account: &Account,
    set: &SnapshotSet,
    report: &Report,
    exit: Exit,
) -> Result<(), Error> {
    let faults = || report.findings.iter().filter(|f| f.verdict == Verdict::Fault);
    let event = (exit == Exit::Verify).then(|| {
        let mut snapshots: Vec<_> = faults().filter_map(|f| f.snapshot_id.clone()).collect();
        snapshots.sort_unstable();
        snapshots.dedup();
        event::verify_fault(set, snapshots, &faults().next().map_or_else(String::new, line))
    });
    event.iter().for_each(log::tell);
    // Whom to tell is known only on a host that has the plan.
    let given = account.loaded.settings.identity.instance_id.as_ref();
    let own = account.identity.as_ref().map(|i| &i.instance_id).or(given) == Some(&set.instance);
    if !account.loaded.plans.contains(&set.plan) {
        return Ok(());
    }
    let loaded = global.load_in(None, Some(&set.plan), Overrides::default())?;
    if let Some(event) = event {
        notify::tell(&loaded.settings.plan.notify, "verify", &set.plan, exit, &[event]).await;
    }
    if own {
        textfile::update_alone(&loaded, A_RUN, Disk::Safe, |tally: &mut Tally| tally.verified(exit)).await;
    }
    Ok(())
}

impl Costs {
    fn of(cost: ReadCost) -> Self {
        // Of a cent, no part that is not there.
        let dollars = (cost.dollars() * 1e4).round() / 1e4;
        Self { blocks: cost.blocks, at_most: cost.at_most, dollars }
    }
}

fn costs(set: &SnapshotSet, cost: ReadCost) -> String {
    let most = if cost.at_most { "at most " } else { "" };
    let (blocks, bytes, dollars) = (cost.blocks, size(cost.bytes()), cost.dollars());
    format!(
        "{}: {most}{blocks} blocks ({bytes}) to read, for {most}about ${dollars:.2} (list price of us-east-1)",
        set.id
    )
}

/// What a dry run says last.
fn would(level: Level, set: &SnapshotSet) -> String {
    let what = match level {
        Level::Whole => "every block would be read",
        Level::Mount => "its filesystems would be mounted and checked, without a volume",
        Level::Restore => "these volumes would be made, and deleted afterwards",
        _ => "some blocks of each snapshot would be read, for less than a cent",
    };
    format!("{}: complete, and its tags describe all of it; {what}", set.id)
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Sound => "sound",
        Verdict::NotLooked => "NOT LOOKED AT",
        Verdict::Fault => "FAULT",
    };
    if let Some(check) = &finding.check {
        return format!("check {}: {verdict}: {}", printable(check), printable(&finding.what));
    }
    let of = match (&finding.mount_point, &finding.fstype, &finding.volume_id) {
        (Some(place), Some(fstype), Some(volume)) => {
            format!("{} ({} on {volume})", shown(place), printable(fstype))
        }
        (Some(place), Some(fstype), None) => format!("{} ({})", shown(place), printable(fstype)),
        (_, _, Some(volume)) => match &finding.snapshot_id {
            Some(snapshot) => format!("{snapshot} of {volume}"),
            None => volume.to_string(),
        },
        _ => "the set".to_owned(),
    };
    format!("{of}: {verdict}: {}", printable(&finding.what))
}

fn summary(report: &Report, verdict: Verdict, level: Level, set: &str) -> String {
    let faults = report.findings.iter().filter(|f| f.verdict == Verdict::Fault).count();
    let (all, sound) = report.filesystems();
    let read = report.blocks_read;
    if level >= Level::Mount && verdict != Verdict::Fault {
        let rest = if sound == all { "" } else { "; the others were not looked at" };
        let (checks, well) = report.checks();
        let checks =
            if checks == 0 { String::new() } else { format!(", {well} of {checks} checks ended well") };
        let done = match level {
            Level::Restore => "restored".to_owned(),
            _ => format!("mounted without a volume, by {read} blocks"),
        };
        return format!("{set}: {done}; {sound} of {all} filesystems are sound{rest}{checks}");
    }
    let every = if level == Level::Whole { "every block is what its checksum says, and " } else { "" };
    match verdict {
        Verdict::Fault => format!("{set}: {faults} FAULT(S): do not rely on this set"),
        Verdict::Sound if level == Level::Arithmetic => {
            format!("{set}: complete, and its tags describe all of it; no data was read")
        }
        Verdict::Sound => format!("{set}: sound, {all} of {all} filesystems, by {read} blocks"),
        Verdict::NotLooked => {
            format!("{set}: {every}{sound} of {all} filesystems are sound, the others were not looked at")
        }
    }
}
