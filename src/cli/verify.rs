//! `stillpoint verify SET`: does the data of a set keep what its label promises?
//!
//! ```text
//! arithmetic ─▶ probe ─▶ whole     as far as --level says, and no further than the first level without data
//! ```
//!
//! In: the name of a set. Out: findings on stdout; exit code 24 when one is a fault. Must never: change anything, or
//! call sound what it did not look at.

mod reading;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::sets::{Account, SetName, set_name};
use super::start::{end, listen};
use super::{Global, Output, print, print_document, say};
use crate::clock::{Clock as _, System};
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::path_encoding::{printable, shown};
use crate::report::sets::size;
use crate::restore::verify::{AT_ONCE, Finding, ReadCost, Report, Verdict, arithmetic, probe, whole};
use crate::sets::find::snapshots;
use crate::sets::layout::{Layout, layout};
use crate::sets::set::SnapshotSet;

/// Version of the JSON of `verify`.
const VERSION: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// How far to look.
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// Print what would be read and what that costs, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    /// Members, states, times and tags: no data is read.
    Arithmetic,
    /// The same, then superblocks and journals of ext4, XFS and btrfs, without a volume.
    #[default]
    Probe,
    /// The same, then every block that was written, against its checksum. It costs by the block.
    Whole,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    set: &'a RunId,
    level: Level,
    dry_run: bool,
    /// What the whole read costs; none of other levels.
    cost: Option<Costs>,
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Debug, Serialize)]
struct Costs {
    blocks: u64,
    /// It is the size of the volumes: EC2 does not say the blocks of each snapshot.
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
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ids = set.snapshots().cloned().collect();
        let all = snapshots(&account.calls(), &Wanted::Ids(ids)).await.map_err(Error::from)?;
        let layout = layout(all.iter().map(|s| s.tags.as_slice()));
        let mut report = Report { findings: arithmetic(&set, &layout), ..Report::default() };
        let mut verdict = if report.findings.is_empty() { Verdict::Sound } else { Verdict::Fault };
        // What is not complete has no data that can be judged.
        let reads = self.level > Level::Arithmetic && verdict == Verdict::Sound;
        let cost = (reads && self.level == Level::Whole).then(|| ReadCost::of(&set));
        cost.iter().for_each(|cost| say(&costs(&set, *cost)));
        if self.dry_run && reads {
            verdict = Verdict::NotLooked;
        } else if reads && let Ok(layout) = &layout {
            match self.look(&account, &set, layout).await? {
                Looked::At(found) => report = found,
                Looked::Interrupted(signal) => {
                    say(&format!("{}: interrupted, so nothing is known of it", set.id));
                    return Ok(end(Exit::After, Some(signal)));
                }
            }
            verdict = report.verdict();
        }
        match self.output {
            Output::Json => {
                let (version, level, dry_run) = (VERSION, self.level, self.dry_run);
                let (set, report, cost) = (&set.id, &report, cost.map(Costs::of));
                print_document(&Document { version, set, level, dry_run, cost, verdict, report })?;
            }
            Output::Text => {
                report.findings.iter().for_each(|f| print(&line(f)));
                say(&if self.dry_run && reads {
                    would(self.level, &set)
                } else {
                    summary(&report, verdict, self.level, set.id.as_str())
                });
            }
        }
        Ok(if verdict == Verdict::Fault { Exit::Verify } else { Exit::Ok })
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
