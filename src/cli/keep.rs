//! `stillpoint keep SET` and `release SET`: a set that no prune removes, and one that its rules decide about again.
//!
//! In: the name of a set, a date. Out: the tag `stillpoint:keep-until`. Must never: be taken for a lock: whoever
//! may delete snapshots still can.

use clap::Args;

use super::sets::{Account, SetName, set_name};
use super::told::Command;
use super::{Global, Output, say};
use crate::ec2::keep::Keep as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::SnapshotId;
use crate::report::change::OfSet;
use crate::sets::read::KEEP_TAG;
use crate::sets::retention::{KeepUntil, Zone};

#[derive(Debug, Args)]
pub(super) struct Keep {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Until this day, such as 2027-01-31, or `forever`.
    #[arg(long, value_name = "DATE", default_value = "forever", value_parser = until)]
    until: String,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Release {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// A date that prune will understand.
pub(super) fn until(text: &str) -> Result<String, String> {
    match KeepUntil::from_tag(text, &Zone::UTC) {
        KeepUntil::Unreadable(_) => Err("is neither a day such as 2027-01-31 nor `forever`".to_owned()),
        KeepUntil::Date(at) if at <= jiff::Timestamp::now() => Err("is over".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

impl Keep {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
        if !self.dry_run {
            let tag = [(KEEP_TAG.to_owned(), self.until.clone())];
            let ec2 = account.calls();
            let put = async || ec2.inner().put_tags(&ids, &tag).await;
            ec2.call("CreateTags", put).await.map_err(Error::from)?;
        }
        let would = if self.dry_run { "would be kept" } else { "is kept" };
        say(&format!("{} {would} until {}", set.id, self.until));
        let keep_until = if self.dry_run { set.keep_until.clone() } else { Some(self.until.clone()) };
        let command = Command { name: "keep", dry_run: self.dry_run, output: self.output };
        command.print(vec![OfSet { keep_until, ..OfSet::whole(&set, true) }], Exit::Ok)
    }
}

impl Release {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let command = Command { name: "release", dry_run: self.dry_run, output: self.output };
        let Some(until) = &set.keep_until else {
            say(&format!("{} has no {KEEP_TAG}: only its rules keep it", set.id));
            return command.print(vec![OfSet::whole(&set, false)], Exit::Ok);
        };
        let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
        if !self.dry_run {
            let ec2 = account.calls();
            let remove = async || ec2.inner().remove_tags(&ids, &[KEEP_TAG]).await;
            ec2.call("DeleteTags", remove).await.map_err(Error::from)?;
        }
        let would = if self.dry_run { "would no longer be" } else { "is no longer" };
        say(&format!("{} {would} kept until {until}: its rules decide", set.id));
        let keep_until = set.keep_until.clone().filter(|_| self.dry_run);
        command.print(vec![OfSet { keep_until, ..OfSet::whole(&set, true) }], Exit::Ok)
    }
}
