//! `stillpoint restore --list`: the restores whose volumes are there, and the roots that were replaced.
//!
//! In: tags of volumes and tasks. Out: lines or a document on stdout. Must never: print what a tag says without making it
//! printable.

use std::path::Path;

use super::super::sets::Account;
use super::super::{Output, print, print_document, say};
use super::document::{Document, OfRestore, OfVolume, VERSION};
use super::{Restore, root, unread};
use crate::ec2::volumes::{IN_PLACE_TAG, RESTORE_TAG, VolumeView, Volumes as _, Which};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::path_encoding::printable;
use crate::restore::plan::{RESTORE_OF_TAG, RESTORE_VOLUME_TAG, RestorePlan, UNTIL_TAG};
use crate::restore::record;
use crate::restore::root::follow;

impl Restore {
    /// Which restores there are.
    pub(super) async fn list(&self, account: &Account) -> Result<Exit, Error> {
        let ec2 = account.calls();
        let which = Which::WithTag(RESTORE_TAG.to_owned());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let volumes = ec2.call("DescribeVolumes", asked).await.map_err(Error::from)?;
        let of_clones = of_clones(&account.loaded.settings.state_dir)?;
        let mut all = of_volumes(volumes, &account.region);
        all.extend(of_clones.iter().map(|plan| OfRestore::of(plan, None, "there")));
        match follow::all(&ec2, None).await {
            Ok(roots) => all.extend(roots.iter().map(|r| OfRestore::of_task(r, &account.region))),
            Err(e) if e.denied() => {
                say(&format!("whether roots were replaced is not known: {}", root::not_allowed(&e)));
            }
            Err(e) => return Err(e.into()),
        }
        match self.output {
            Output::Json => {
                let document =
                    Document { version: VERSION, command: "list", restores: all, exit_code: Exit::Ok };
                print_document(&document)?;
            }
            Output::Text => {
                all.iter().for_each(|restore| print(&lines(restore)));
                if all.is_empty() {
                    say(&format!("there is no restore in {}", account.region));
                }
            }
        }
        Ok(Exit::Ok)
    }
}

/// What this host has attached of clones: nothing of theirs carries the tag of a restore.
fn of_clones(state_dir: &Path) -> Result<Vec<RestorePlan>, Error> {
    let mut plans = Vec::new();
    for id in record::all(state_dir).map_err(unread)? {
        // One that cannot be read is said by whatever takes it back.
        if let Ok(Some(record)) = record::read(state_dir, &id)
            && !record.plan.clones.is_empty()
        {
            plans.push(record.plan);
        }
    }
    Ok(plans)
}

fn of_volumes(volumes: Vec<VolumeView>, region: &str) -> Vec<OfRestore<'_>> {
    let mut all: Vec<OfRestore<'_>> = Vec::new();
    for volume in volumes.into_iter().filter(|v| !v.is_gone()) {
        let Some(id) = volume.tag(RESTORE_TAG).and_then(|id| id.parse::<RunId>().ok()) else { continue };
        let at = all.iter().position(|r| r.id == id).unwrap_or_else(|| {
            all.push(OfRestore {
                id,
                set: volume.tag(RESTORE_OF_TAG).and_then(|id| id.parse().ok()),
                region,
                state: "there",
                in_place: volume.tag(IN_PLACE_TAG).is_some(),
                until: volume.tag(UNTIL_TAG).and_then(|t| t.parse().ok()),
                root: None,
                volumes: Vec::new(),
                mounts: Vec::new(),
                copied: Vec::new(),
                before_start: Vec::new(),
                notes: Vec::new(),
            });
            all.len() - 1
        });
        let attached = volume.attachments.first();
        all[at].volumes.push(OfVolume {
            source: volume.tag(RESTORE_VOLUME_TAG).and_then(|id| id.parse().ok()),
            snapshot: volume.snapshot.clone(),
            size_gib: volume.size_gib,
            volume_type: None,
            device_name: attached.map(|a| a.device_name.clone()),
            state: Some(match attached.and_then(|a| a.instance.as_ref()) {
                Some(instance) => format!("attached to {instance}"),
                None => volume.state.clone(),
            }),
            id: Some(volume.id),
        });
    }
    all
}

fn lines(restore: &OfRestore<'_>) -> String {
    let set = restore.set.as_ref().map_or("?", RunId::as_str);
    let how = if restore.in_place { ", in place" } else { "" };
    let until = match restore.until {
        Some(until) if until <= jiff::Timestamp::now() => format!(", over since {until:.0}"),
        Some(until) => format!(", until {until:.0}"),
        None => String::new(),
    };
    let mut text = format!("{} of {set}{how}{until}", restore.id);
    if let Some(root) = &restore.root {
        let task = root.task.as_ref().map_or("", |id| id.as_str());
        let replaced = root.replaced.as_ref().map_or("?", |id| id.as_str());
        let state = printable(root.task_state.as_deref().unwrap_or("?"));
        text.push_str(&format!(
            "\n  {task}  the root of {}, in the place of {replaced}  {state}",
            root.instance
        ));
    }
    for v in &restore.volumes {
        let id = v.id.as_ref().map_or("", |id| id.as_str());
        let state = printable(v.state.as_deref().unwrap_or(""));
        text.push_str(&format!("\n  {id}  {} GiB  {state}", v.size_gib));
    }
    text
}
