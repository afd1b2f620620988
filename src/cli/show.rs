//! `stillpoint show SET`: all of one set, who holds it, and what becomes of it.
//!
//! In: the name of a set. Out: text or JSON on stdout. Must never: change anything.

use clap::Args;
use serde::Serialize;

use super::regions::{self, Failed};
use super::sets::{Account, SetName, set_name};
use super::{Global, Output, print, print_document};
use crate::ec2::keep::{TierView, Wanted};
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::report::sets::Copied;
use crate::sets::find::{find, snapshots};
use crate::sets::holds::holds;
use crate::sets::layout::{Layout, layout};
use crate::sets::read::SOURCE_TAG;
use crate::sets::recorded;
use crate::sets::retention::Hold;
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tier;

/// Version of the JSON of `show`.
const VERSION: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Look for it, and for its copies, in every Region of the account. (--region can be repeated, too.)
    #[arg(long)]
    all_regions: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    set: &'a SnapshotSet,
    state: SetState,
    layout: Option<&'a Layout>,
    layout_error: Option<String>,
    holds: &'a [Hold],
    tiers: &'a [TierView],
    copies: &'a [Copied],
    /// What the record of this host says otherwise.
    record_differs: &'a [String],
}

impl Show {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let Looked { set, at, accounts, failed } = self.look(global).await?;
        failed.iter().for_each(regions::tell);
        let mut copies = Vec::new();
        for account in &accounts {
            copies.extend(copies_in(account, &set).await?);
        }
        let ec2 = accounts[at].calls();
        let ids = set.snapshots().cloned().collect();
        let all = snapshots(&ec2, &Wanted::Ids(ids)).await.map_err(Error::from)?;
        let layout = layout(all.iter().map(|s| s.tags.as_slice()));
        let holds = holds(&ec2, &[&set]).await.map_err(Error::from)?.remove(&set.id).unwrap_or_default();
        let tiers = tier::tiers(&ec2, &set).await.map_err(Error::from)?;
        let differs = differences(&accounts[at], &set, layout.as_ref().ok());
        match self.output {
            Output::Json => {
                let document = Document {
                    version: VERSION,
                    state: set.state(),
                    layout: layout.as_ref().ok(),
                    layout_error: layout.as_ref().err().map(ToString::to_string),
                    holds: &holds,
                    tiers: &tiers,
                    copies: &copies,
                    record_differs: &differs,
                    set: &set,
                };
                print_document(&document)?;
            }
            Output::Text => {
                let kept =
                    set.keep_until.as_ref().map(|until| format!("kept until {until} (stillpoint release)"));
                print(&report::sets::one(&set, &layout, &holds, &tiers, kept.as_deref()));
                for Copied { region, id, state } in &copies {
                    print(&format!("  copied to {region}: {id} ({state})"));
                }
                for what in &differs {
                    print(&format!("  the record of this host differs: {what}"));
                }
            }
        }
        Ok(regions::told(&failed))
    }

    /// The set, in the one of these Regions that has it.
    async fn look(&self, global: &Global) -> Result<Looked, Error> {
        let (mut accounts, mut failed) = (Vec::new(), Vec::new());
        let (mut found, mut absent) = (None::<(SnapshotSet, usize)>, None);
        for region in regions::meant(global, self.all_regions).await? {
            let failed_in = |error| Failed { region: region.clone().unwrap_or_default(), error };
            let account = match Account::connect_in(global, region.as_deref(), None, false).await {
                Ok(account) => account,
                Err(e) => {
                    failed.push(failed_in(e));
                    continue;
                }
            };
            match (account.set(&self.set).await, &found) {
                (Ok(set), Some((other, _))) => {
                    let what = format!("{} in {}, {} in {}", other.id, other.region, set.id, set.region);
                    return Err(Error::new(Exit::Usage, format!("several sets are meant: {what}"))
                        .hint("write more of the id"));
                }
                (Ok(set), None) => found = Some((set, accounts.len())),
                // It is not there.
                (Err(e), _) if e.exit == Exit::Config => absent = absent.or(Some(e)),
                (Err(e), _) => {
                    failed.push(failed_in(e));
                    continue;
                }
            }
            accounts.push(account);
        }
        match found {
            Some((set, at)) => Ok(Looked { set, at, accounts, failed }),
            // In a Region that did not answer it may be.
            None if failed.is_empty() => {
                Err(absent.unwrap_or_else(|| Error::new(Exit::Config, "no Region was asked")))
            }
            None => {
                let first = failed.remove(0).error;
                failed.iter().for_each(regions::tell);
                Err(first)
            }
        }
    }
}

/// The set, and where else it was looked for.
struct Looked {
    set: SnapshotSet,
    /// Of `accounts`, the one that has it.
    at: usize,
    accounts: Vec<Account>,
    failed: Vec<Failed>,
}

/// Its copies in one Region.
async fn copies_in(account: &Account, set: &SnapshotSet) -> Result<Vec<Copied>, Error> {
    let source = format!("{}/{}", set.region, set.id);
    let tagged = Wanted::Tagged(vec![(SOURCE_TAG.to_owned(), source)]);
    let found = find(&account.calls(), &tagged).await.map_err(Error::from)?;
    let copy = |s: &SnapshotSet| Copied { region: s.region.clone(), id: s.id.clone(), state: s.state() };
    // Whoever has copied a tag has not copied the set.
    let is_copy = |s: &&SnapshotSet| s.copy_of.as_ref().is_some_and(|of| of.id == set.id);
    Ok(found.sets.iter().filter(is_copy).map(copy).collect())
}

/// What the record of this host says otherwise, where it has one and this process may read it.
fn differences(account: &Account, set: &SnapshotSet, layout: Option<&Layout>) -> Vec<String> {
    match recorded::read(&account.loaded.settings.state_dir, &set.id) {
        Ok(Some(record)) => record.differences(set, layout),
        Ok(None) => Vec::new(),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Vec::new(),
        Err(e) => vec![format!("it cannot be read: {e}")],
    }
}
