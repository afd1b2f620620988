//! `stillpoint show SET`: all of one set, who holds it, and what becomes of it.
//!
//! In: the name of a set. Out: text or JSON on stdout. Must never: change anything.

use clap::Args;
use serde::Serialize;

use super::sets::{Account, SetName, set_name};
use super::{Global, Output, as_json, print, print_json};
use crate::ec2::keep::{TierView, Wanted};
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::sets::find::snapshots;
use crate::sets::holds::holds;
use crate::sets::layout::{Layout, layout};
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
    /// What stdout gets: text or json.
    #[arg(long, short, value_enum, default_value_t)]
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
}

impl Show {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let ids = set.snapshots().cloned().collect();
        let all = snapshots(&ec2, &Wanted::Ids(ids)).await.map_err(Error::from)?;
        let layout = layout(all.iter().map(|s| s.tags.as_slice()));
        let holds = holds(&ec2, &[&set]).await.map_err(Error::from)?.remove(&set.id).unwrap_or_default();
        let tiers = tier::tiers(&ec2, &set).await.map_err(Error::from)?;
        match self.output {
            Output::Json => {
                let document = Document {
                    version: VERSION,
                    state: set.state(),
                    layout: layout.as_ref().ok(),
                    layout_error: layout.as_ref().err().map(ToString::to_string),
                    holds: &holds,
                    tiers: &tiers,
                    set: &set,
                };
                print_json(&as_json(&document)?);
            }
            Output::Text => {
                let kept =
                    set.keep_until.as_ref().map(|until| format!("kept until {until} (stillpoint release)"));
                print(&report::sets::one(&set, &layout, &holds, &tiers, kept.as_deref()));
            }
        }
        Ok(Exit::Ok)
    }
}
