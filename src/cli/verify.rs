//! `stillpoint verify SET`: does the data of a set keep what its label promises?
//!
//! In: the name of a set. Out: findings on stdout; exit code 24 when one is a fault. Must never: change anything, or
//! call sound what it did not look at.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::sets::{Account, SetName, set_name};
use super::{Global, Output, print, print_document, say};
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::path_encoding::{printable, shown};
use crate::restore::verify::{Finding, Report, Verdict, arithmetic, probe};
use crate::sets::find::snapshots;
use crate::sets::layout::layout;

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
    /// What stdout gets: text or json.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    /// Members, states, times and tags: no data is read.
    Arithmetic,
    /// The same, then superblocks and journals of ext4, XFS and btrfs, without a volume.
    #[default]
    Probe,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    set: &'a RunId,
    level: Level,
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a Report,
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
        if self.level == Level::Probe
            && verdict == Verdict::Sound
            && let Ok(layout) = &layout
        {
            let direct = account.direct().await?;
            let direct = Repeating::for_each_call(&direct, &account.loaded.settings.ec2);
            report = probe(&direct, &set, layout).await.map_err(Error::from)?;
            verdict = report.verdict();
        }
        match self.output {
            Output::Json => {
                let document =
                    Document { version: VERSION, set: &set.id, level: self.level, verdict, report: &report };
                print_document(&document)?;
            }
            Output::Text => {
                report.findings.iter().for_each(|f| print(&line(f)));
                say(&summary(&report, verdict, set.id.as_str()));
            }
        }
        Ok(if verdict == Verdict::Fault { Exit::Verify } else { Exit::Ok })
    }
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

fn summary(report: &Report, verdict: Verdict, set: &str) -> String {
    let count = |verdict| report.findings.iter().filter(|f| f.verdict == verdict).count();
    let all = report.findings.len();
    match verdict {
        Verdict::Fault => format!("{set}: {} FAULT(S): do not rely on this set", count(Verdict::Fault)),
        Verdict::Sound if all == 0 => {
            format!("{set}: complete, and its tags describe all of it; no data was read")
        }
        Verdict::Sound => {
            format!("{set}: sound, {all} of {all} filesystems, by {} blocks", report.blocks_read)
        }
        Verdict::NotLooked => format!(
            "{set}: {} of {all} filesystems are sound, the others were not looked at",
            count(Verdict::Sound)
        ),
    }
}
