//! `stillpoint delete SET` and `undelete SET`: one set by hand, under the guards of a prune.
//!
//! In: the name of a set. Out: its snapshots are gone, or back from the Recycle Bin. Must never: delete a set that
//! something holds, or the last good one of its group unless that is asked for.

use std::sync::Arc;

use clap::Args;

use super::prune::locked;
use super::sets::{Account, SetName, set_name};
use super::told::Command;
use super::{Global, Output, print, say};
use crate::ec2::Ec2Error;
use crate::ec2::keep::Keep as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{ImageId, RunId, SnapshotId};
use crate::report::change::{Changed, OfSet};
use crate::report::{self, event};
use crate::sets::facts::{facts, group};
use crate::sets::find::{bin, of_plan};
use crate::sets::holds::{being_copied, holds, own_images};
use crate::sets::read::DELETING_TAG;
use crate::sets::remove::remove;
use crate::sets::retention::{Hold, State, Zone};
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
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Undelete {
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

impl Delete {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let account = Account::connect(global, None, false).await?;
        let _lock = locked(&account.loaded.settings.run_dir).await?;
        let set = account.set(&self.set).await?;
        let ec2 = account.calls();
        let images = guarded(&account, &set, self.including_the_last, &[]).await?;
        let command = Command { name: "delete", dry_run: self.dry_run, output: self.output };
        if self.dry_run {
            if self.output == Output::Text {
                set.snapshots().for_each(|s| print(s.as_str()));
            }
            say(&format!("{} would be removed ({} snapshots)", set.id, set.members.len()));
            for image in &images {
                say(&format!("its image {image} would be deregistered first: it goes with it"));
            }
            return command.print(vec![OfSet::whole(&set, true)], Exit::Ok);
        }
        let removed = remove(&ec2, &set, "delete", &images).await;
        let exit = if removed.failed.is_some() { Exit::After } else { Exit::Ok };
        if self.output == Output::Text {
            removed.deleted.iter().for_each(|s| print(s.as_str()));
        }
        report::log::tell(&event::of_removed(&set.plan, &removed));
        say(&report::sets::removed(&removed));
        command.print(vec![OfSet::removed(&set, &removed)], exit)
    }
}

/// The images that go with a set, if nothing stands against its removal: no other image, lock or share, no day until
/// which it is kept, and it is not the last good one. `named` are images that go with it all the same.
///
/// # Errors
/// What stands against it, or that EC2 does not say.
pub(super) async fn guarded(
    account: &Account,
    set: &SnapshotSet,
    including_the_last: bool,
    named: &[ImageId],
) -> Result<Vec<ImageId>, Error> {
    let ec2 = account.calls();
    let holds = holds(&ec2, &[set]).await.map_err(Error::from)?.remove(&set.id).unwrap_or_default();
    let refused = |what: String, hint: &str| Err(Error::new(Exit::Config, what).hint(hint));
    let is_named = |hold: &Hold| match hold {
        Hold::Image { image, .. } => named.iter().any(|n| n.as_str() == image),
        Hold::OwnImage { image, .. } => named.is_empty() || named.contains(image),
        _ => false,
    };
    if let Some(hold) = holds.iter().find(|hold| !is_named(hold)) {
        let hint = match hold {
            Hold::Image { .. } | Hold::OwnImage { .. } => {
                "`stillpoint image delete` first, if nobody needs it"
            }
            _ => "`stillpoint show` lists everything that holds it",
        };
        return refused(format!("{} is held: {hold}", set.id), hint);
    }
    if let Some(until) = &set.keep_until {
        return refused(
            format!("{} is kept until {until}", set.id),
            "`stillpoint release` lets its rules decide again",
        );
    }
    let others = of_plan(&ec2, &set.instance, &set.plan).await.map_err(Error::from)?;
    if let Some(hold) = being_copied(&others, &set.region).get(&set.id).and_then(|holds| holds.first()) {
        return refused(
            format!("{} is held: {hold}", set.id),
            "wait until the copy is completed (`stillpoint wait` with a snapshot of it)",
        );
    }
    if !including_the_last {
        let of = Arc::new(group(set));
        let good =
            |s: &&SnapshotSet| group(s) == *of && facts(s, &of, Vec::new(), &Zone::UTC).state == State::Good;
        let mut good = others.iter().filter(good);
        if good.next().is_some_and(|s| s.id == set.id) && good.next().is_none() {
            return refused(
                format!("{} is the last good set of plan {} of {}", set.id, set.plan, set.instance),
                "--including-the-last removes it all the same",
            );
        }
    }
    Ok(own_images(&holds))
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
        let mut snapshots = Vec::new();
        for (_, binned) in &of_set {
            let said = self.bring_back(&account, &binned.id).await;
            match &said {
                Ok(()) if self.output == Output::Text => print(binned.id.as_str()),
                Ok(()) => {}
                Err(e) => say(&format!("{} is NOT back: {e}", binned.id)),
            }
            snapshots.push(Changed::by(&binned.id, &said));
        }
        let failed = snapshots.iter().any(|s| s.error.is_some());
        let ended = if failed { Ok(Exit::After) } else { self.complete(&account, id, of_set.len()).await };
        let exit = ended.as_ref().map_or_else(|e| e.exit, |exit| *exit);
        let of = OfSet { id: id.clone(), region: account.region.clone(), keep_until: None, snapshots };
        let command = Command { name: "undelete", dry_run: self.dry_run, output: self.output };
        command.print(vec![of], exit)?;
        ended
    }

    async fn bring_back(&self, account: &Account, id: &SnapshotId) -> Result<(), Ec2Error> {
        if self.dry_run {
            return Ok(());
        }
        let ec2 = account.calls();
        ec2.call("RestoreSnapshotFromRecycleBin", async || ec2.inner().undelete(id).await).await
    }

    /// All of it that was in the Recycle Bin is back: is that the whole set?
    async fn complete(&self, account: &Account, id: &RunId, back: usize) -> Result<Exit, Error> {
        let what = if self.dry_run { "would come back" } else { "are back" };
        say(&format!("{id}: {back} of its snapshots in the Recycle Bin {what}"));
        if self.dry_run {
            return Ok(Exit::Ok);
        }
        // It was marked when it was removed. Their tags come back with the snapshots.
        let ec2 = account.calls();
        let set = account.set(&SetName::Start(id.to_string())).await?;
        let ids: Vec<_> = set.snapshots().cloned().collect();
        let off = async || ec2.inner().remove_tags(&ids, &[DELETING_TAG]).await;
        ec2.call("DeleteTags", off).await.map_err(Error::from)?;
        if set.missing.is_empty() {
            return Ok(Exit::Ok);
        }
        say(&format!("{id} lacks {} of its snapshots: they are not in the Recycle Bin", set.missing.len()));
        Ok(Exit::After)
    }
}

fn not_there(what: &str, region: &str) -> Error {
    Error::new(Exit::Config, format!("the Recycle Bin of {region} has nothing of {what}"))
        .hint("only what a rule of the Recycle Bin matched when it was deleted is kept there")
}
