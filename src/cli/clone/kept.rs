//! `stillpoint clone --list` and `--delete RUN`: the clones that are there.
//!
//! In: tags of volumes, the id of a run. Out: lines or a document on stdout. Must never: delete what EC2 does not call a
//! copy of one of the run's volumes, or what is attached.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::super::ask::confirm;
use super::super::sets::Account;
use super::super::start::listen;
use super::super::{Global, Output, print, print_document, say};
use super::Clone;
use crate::ec2::RUN_TAG;
use crate::ec2::clones::Clones as _;
use crate::ec2::volumes::{Volumes as _, Which};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId, VolumeId};
use crate::path_encoding::printable;
use crate::restore::clones::{self, Clone as Existing};
use crate::sets::tags;

/// Version of the JSON.
const VERSION: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct OfKept {
    /// List the clones that are there.
    #[arg(long, conflicts_with_all = ["delete", "plan", "dry_run"])]
    list: bool,
    /// Delete the clones of this run.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["plan", "dry_run"])]
    delete: Option<RunId>,
    /// Delete them without asking.
    #[arg(long, requires = "delete")]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    command: &'static str,
    clones: Vec<OfRun>,
    exit_code: Exit,
}

/// The clones of a run.
#[derive(Debug, Serialize)]
struct OfRun {
    run: RunId,
    instance: Option<InstanceId>,
    achieved: Option<String>,
    one_instant: Option<bool>,
    volumes: Vec<OfVolume>,
}

#[derive(Debug, Serialize)]
struct OfVolume {
    id: VolumeId,
    volume_id: VolumeId,
    size_gib: i32,
    state: String,
    attached_to: Option<String>,
}

impl OfVolume {
    fn of(clone: &Existing) -> Self {
        let attached = clone.view.attachments.first();
        Self {
            id: clone.view.id.clone(),
            volume_id: clone.source.clone(),
            size_gib: clone.view.size_gib,
            state: clone.view.state.clone(),
            attached_to: attached
                .map(|a| a.instance.as_ref().map_or("another service".to_owned(), InstanceId::to_string)),
        }
    }
}

impl Clone {
    /// Lists or deletes, where that is asked for.
    pub(super) async fn kept(&self, global: &Global) -> Result<Option<Exit>, Error> {
        match &self.kept.delete {
            Some(run) => self.delete(&Account::connect(global, None, false).await?, run).await.map(Some),
            None if self.kept.list => {
                self.list(&Account::connect(global, None, false).await?).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn list(&self, account: &Account) -> Result<Exit, Error> {
        let ec2 = account.calls();
        let which = Which::WithTag(RUN_TAG.to_owned());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let tagged = ec2.call("DescribeVolumes", asked).await.map_err(Error::from)?;
        let ids: Vec<VolumeId> = tagged.iter().filter(|v| !v.is_gone()).map(|v| v.id.clone()).collect();
        let copies = if ids.is_empty() { Vec::new() } else { ec2.clones(&ids).await.map_err(Error::from)? };
        let mut all: BTreeMap<RunId, OfRun> = BTreeMap::new();
        for view in tagged {
            let run = view.tag(RUN_TAG).and_then(|id| id.parse::<RunId>().ok());
            let (Some(run), Some(copy)) = (run, copies.iter().find(|c| c.id == view.id)) else { continue };
            let of = all.entry(run.clone()).or_insert_with(|| OfRun {
                run,
                instance: view.tag(tags::INSTANCE_TAG).and_then(|id| id.parse().ok()),
                achieved: view.tag("stillpoint:consistency").map(|label| printable(label).into_owned()),
                one_instant: view.tag("stillpoint:instant").map(|said| said == "one"),
                volumes: Vec::new(),
            });
            of.volumes.push(OfVolume::of(&Existing { source: copy.source.clone(), view }));
        }
        if all.is_empty() && self.choice.output == Output::Text {
            say(&format!("there is no clone in {}", account.region));
        }
        self.show_kept("list", all.into_values().collect())
    }

    fn show_kept(&self, command: &'static str, clones: Vec<OfRun>) -> Result<Exit, Error> {
        match self.choice.output {
            Output::Json => {
                print_document(&Document { version: VERSION, command, clones, exit_code: Exit::Ok })?
            }
            Output::Text => clones.iter().for_each(|of| print(&lines(of))),
        }
        Ok(Exit::Ok)
    }

    async fn delete(&self, account: &Account, run: &RunId) -> Result<Exit, Error> {
        let ec2 = account.calls();
        let found = clones::find(&ec2, run).await.map_err(Error::from)?;
        let Some(first) = found.first() else {
            return Err(Error::new(
                Exit::Config,
                format!("there is no clone of {run} in {}", account.region),
            )
            .hint("`stillpoint clone --list` shows which there are"));
        };
        // Whoever may tag can put the tag of a run on a copy of any volume.
        let listed = tags::volumes_of(&first.view.tags).unwrap_or_default();
        if let Some(stranger) = found.iter().find(|c| !listed.contains(&c.source)) {
            let what =
                format!("{} is a copy of {}, which is not of {run}", stranger.view.id, stranger.source);
            return Err(
                Error::new(Exit::Config, what).hint("take its tag stillpoint:run away, or delete it by hand")
            );
        }
        for (n, clone) in found.iter().enumerate() {
            if let Some(other) = found.iter().skip(n + 1).find(|c| c.source == clone.source) {
                let what = format!(
                    "{} and {} are both copies of {} with the tag of {run}",
                    clone.view.id, other.view.id, clone.source
                );
                return Err(Error::new(Exit::Config, what)
                    .hint("take the tag stillpoint:run from the one that is not"));
            }
        }
        if let Some(used) = found.iter().map(OfVolume::of).find(|v| v.attached_to.is_some()) {
            let who = used.attached_to.unwrap_or_default();
            return Err(Error::new(Exit::Config, format!("{} is attached to {who}", used.id))
                .hint("`stillpoint restore --list` there shows by which restore; --undo takes it back"));
        }
        found.iter().for_each(|c| say(&format!("{}  {} GiB  of {}", c.view.id, c.view.size_gib, c.source)));
        let n = found.len();
        let noun = if n == 1 { "clone" } else { "clones" };
        confirm(&format!("Delete {n} {noun}?"), self.kept.yes, &listen()?).await?;
        let mut deleted = Vec::new();
        for clone in &found {
            ec2.delete_clone(&clone.view.id).await.map_err(Error::from)?;
            say(&format!("{} is deleted", clone.view.id));
            deleted.push(OfVolume { state: "deleted".to_owned(), ..OfVolume::of(clone) });
        }
        match self.choice.output {
            Output::Text => deleted.iter().for_each(|v| print(v.id.as_str())),
            Output::Json => {
                let of = OfRun {
                    run: run.clone(),
                    instance: first.view.tag(tags::INSTANCE_TAG).and_then(|id| id.parse().ok()),
                    achieved: None,
                    one_instant: None,
                    volumes: deleted,
                };
                return self.show_kept("delete", vec![of]);
            }
        }
        Ok(Exit::Ok)
    }
}

fn lines(of: &OfRun) -> String {
    let instance = of.instance.as_ref().map_or("?", |i| i.as_str());
    let label = of.achieved.as_deref().unwrap_or("no label");
    let instant = if of.one_instant == Some(false) { ", not one instant" } else { "" };
    let mut text = format!("{} of {instance}  {label}{instant}", of.run);
    for v in &of.volumes {
        let state = match &v.attached_to {
            Some(who) => format!("attached to {who}"),
            None => printable(&v.state).into_owned(),
        };
        text.push_str(&format!("\n  {}  {} GiB  of {}  {state}", v.id, v.size_gib, v.volume_id));
    }
    text
}
