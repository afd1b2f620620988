//! `stillpoint delete SET` and `undelete SET`: one set by hand, under the guards of a prune.
//!
//! In: the name of a set. Out: its snapshots are gone, or back from the Recycle Bin. Must never: delete a set that
//! something holds, or the last good one of its group unless that is asked for.

use std::sync::Arc;

use clap::Args;

use super::prune::locked;
use super::sets::{Account, SetName, set_name};
use super::{Global, print, say};
use crate::ec2::keep::Keep as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::sets::facts::{facts, group};
use crate::sets::find::{bin, of_plan};
use crate::sets::holds::holds;
use crate::sets::read::DELETING_TAG;
use crate::sets::remove::remove;
use crate::sets::retention::{State, Zone};
use crate::sets::set::SnapshotSet;

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Also when it is the last good set of its plan.
    #[arg(long)]
    including_the_last: bool,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Undelete {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Print what would be done, and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl Delete {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let _lock = locked(&account.loaded.settings.run_dir).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let holds = holds(&ec2, &[&set]).await.map_err(Error::from)?.remove(&set.id).unwrap_or_default();
        let refused = |what: String, hint: &str| Err(Error::new(Exit::Config, what).hint(hint));
        if let Some(hold) = holds.first() {
            return refused(
                format!("{} is held: {hold}", set.id),
                "`stillpoint show` lists everything that holds it",
            );
        }
        if let Some(until) = &set.keep_until {
            return refused(
                format!("{} is kept until {until}", set.id),
                "`stillpoint release` lets its rules decide again",
            );
        }
        if !self.including_the_last {
            let others = of_plan(&ec2, &set.instance, &set.plan).await.map_err(Error::from)?;
            let of = Arc::new(group(&set));
            let good = |s: &&SnapshotSet| {
                group(s) == *of && facts(s, &of, Vec::new(), &Zone::UTC).state == State::Good
            };
            let mut good = others.iter().filter(good);
            if good.next().is_some_and(|s| s.id == set.id) && good.next().is_none() {
                return refused(
                    format!("{} is the last good set of plan {} of {}", set.id, set.plan, set.instance),
                    "--including-the-last removes it all the same",
                );
            }
        }
        if self.dry_run {
            set.snapshots().for_each(|s| print(s.as_str()));
            say(&format!("{} would be removed ({} snapshots)", set.id, set.members.len()));
            return Ok(Exit::Ok);
        }
        let removed = remove(&ec2, &set, "delete").await;
        removed.deleted.iter().for_each(|s| print(s.as_str()));
        say(&report::sets::removed(&removed));
        Ok(if removed.failed.is_some() { Exit::After } else { Exit::Ok })
    }
}

impl Undelete {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let ec2 = account.calls();
        let binned = bin(&ec2).await.map_err(Error::from)?;
        let run = match &self.set {
            SetName::Start(start) => start.clone(),
            SetName::Snapshot(id) => {
                let of = binned.iter().find(|(_, b)| b.id == *id);
                of.map(|(run, _)| run.to_string()).ok_or_else(|| not_there(id.as_str(), &account.region))?
            }
        };
        let of_set: Vec<_> = binned.iter().filter(|(id, _)| id.as_str().starts_with(&run)).collect();
        let Some((id, _)) = of_set.first() else { return Err(not_there(&run, &account.region)) };
        if of_set.iter().any(|(other, _)| other != id) {
            return Err(Error::new(Exit::Usage, format!("several sets in the Recycle Bin begin with {run}"))
                .hint("write more of the id"));
        }
        let mut failed = false;
        for (_, binned) in &of_set {
            let said = if self.dry_run {
                Ok(())
            } else {
                ec2.call("RestoreSnapshotFromRecycleBin", async || ec2.inner().undelete(&binned.id).await)
                    .await
            };
            match said {
                Ok(()) => print(binned.id.as_str()),
                Err(e) => {
                    failed = true;
                    say(&format!("{} is NOT back: {e}", binned.id));
                }
            }
        }
        if failed {
            return Ok(Exit::After);
        }
        let what = if self.dry_run { "would come back" } else { "are back" };
        say(&format!("{id}: {} of its snapshots in the Recycle Bin {what}", of_set.len()));
        if !self.dry_run {
            // It was marked when it was removed. Their tags come back with the snapshots.
            let set = account.set(&SetName::Start(id.to_string())).await?;
            let ids: Vec<_> = set.snapshots().cloned().collect();
            let off = async || ec2.inner().remove_tags(&ids, &[DELETING_TAG]).await;
            ec2.call("DeleteTags", off).await.map_err(Error::from)?;
            if !set.missing.is_empty() {
                say(&format!(
                    "{id} lacks {} of its snapshots: they are not in the Recycle Bin",
                    set.missing.len()
                ));
                return Ok(Exit::After);
            }
        }
        Ok(Exit::Ok)
    }
}

fn not_there(what: &str, region: &str) -> Error {
    Error::new(Exit::Config, format!("the Recycle Bin of {region} has nothing of {what}"))
        .hint("only what a rule of the Recycle Bin matched when it was deleted is kept there")
}
