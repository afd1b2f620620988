//! A restore is taken back: unmounted, detached, deleted.
//!
//! A tag can be put on any volume. So a host goes by the ids that it noted when EC2 had made the volumes; a volume whose
//! id it did not get to note has to be made of the planned snapshot, and since the restore began. Elsewhere, the snapshot
//! that EC2 says a volume was made of has to be of the set, and nothing on it may be mounted.
//!
//! In: the id of a restore; EC2, this host. Out: nothing of it is left. Must never: delete a volume that a restore has
//! not made, or unmount anything but its own disks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::carry_out::Here;
use super::in_place::Stage;
use super::make::{Stopped, Waiting};
use super::plan::{RESTORE_OF_TAG, RestorePlan};
use super::record::{self, Record};
use super::{disks, hide, links, mounts, stack};
use crate::clock::Clock;
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::{IN_PLACE_TAG, REPLACED_TAG, RESTORE_TAG, VolumeView, Volumes, Which};
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::host::mountinfo;
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::printable;
use crate::sets::find::snapshots;

fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// What there is of a restore, and what may be taken back of it.
#[derive(Debug, Clone)]
pub struct Remains {
    /// Its id.
    pub id: RunId,
    /// Volumes that are surely its own.
    pub volumes: Vec<VolumeView>,
    /// Volumes with its tag that may be somebody's: why.
    pub doubtful: Vec<(VolumeView, String)>,
    /// What this host remembers.
    pub record: Option<Record>,
}

/// For so long it is waited until EC2 shows what it has made: it shows that later than it says so (EC2 guide, "eventual
/// consistency").
const SHOWN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// So far may this host's clock and EC2's differ.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// Looks for it.
///
/// # Errors
/// When EC2 does not say, or what this host remembers cannot be read.
pub async fn look<E: Volumes>(
    ec2: &Repeating<'_, E>,
    clock: &dyn Clock,
    on: Here<'_>,
    id: &RunId,
) -> Result<Remains, Stopped> {
    let record = record::read(on.state_dir, id)
        .map_err(|e| here(format!("what this host remembers of {id} cannot be read: {e}")))?;
    let made: BTreeSet<&VolumeId> = record.iter().flat_map(|r| r.made.values()).collect();
    let end = clock.elapsed() + SHOWN;
    let mut found = loop {
        let mut found = Vec::new();
        for which in [
            Which::Tagged(RESTORE_TAG.to_owned(), id.to_string()),
            Which::Ids(made.iter().map(|id| (*id).clone()).collect()),
        ] {
            if which != Which::Ids(Vec::new()) {
                let asked = async || ec2.inner().volumes_that_are(&which).await;
                found.extend(ec2.call("DescribeVolumes", asked).await?);
            }
        }
        let shown = |id: &VolumeId| found.iter().any(|v| v.id == *id);
        // Of a restore that is done, or whose volumes were in place, what is not shown was deleted by somebody.
        let done = record.as_ref().is_some_and(|r| r.done || r.moving.stage != Stage::Planned);
        if done || made.iter().all(|id| shown(id)) || clock.elapsed() >= end {
            break found;
        }
        clock.pause(PAUSE).await;
    };
    found.retain(|volume| !volume.is_gone());
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    let ids: Vec<SnapshotId> = found.iter().filter_map(|v| v.snapshot.clone()).collect();
    let of_sets = match ids.is_empty() {
        true => Vec::new(),
        false => snapshots(ec2, &Wanted::Ids(ids)).await?,
    };
    let kept = kept_by_others(on, id)?;
    let mut remains =
        Remains { id: id.clone(), volumes: Vec::new(), doubtful: Vec::new(), record: record.clone() };
    for volume in found {
        let stranger = match &record {
            _ if kept.contains_key(&volume.id) || volume.tag(REPLACED_TAG).is_some() => {
                let tag = volume.tag(REPLACED_TAG).map(|by| printable(by).into_owned());
                let by = kept.get(&volume.id).map(RunId::to_string).or(tag).unwrap_or_default();
                Some(format!("restore {by} has put another one in its place, and keeps it for its --undo"))
            }
            _ if made.contains(&volume.id) => None,
            Some(record) => not_of(record, &volume),
            None => not_by_tags(&volume, &of_sets, on),
        };
        match stranger {
            None => remains.volumes.push(volume),
            Some(why) => remains.doubtful.push((volume, why)),
        }
    }
    Ok(remains)
}

/// Volumes that restores in place on this host have replaced, and will put back when they are asked to.
///
/// # Errors
/// When it cannot be known which restores there are.
pub(super) fn kept_by_others(on: Here<'_>, id: &RunId) -> Result<BTreeMap<VolumeId, RunId>, Stopped> {
    let unknown =
        |e: std::io::Error| here(format!("what this host remembers of restores cannot be read: {e}"));
    let mut kept = BTreeMap::new();
    for other in record::all(on.state_dir).map_err(unknown)?.into_iter().filter(|other| other != id) {
        // One that cannot be read has its tag on them.
        let Ok(Some(record)) = record::read(on.state_dir, &other) else { continue };
        if record.moving.stage.has_touched() {
            let old = record.plan.in_place.iter().flat_map(|p| &p.old);
            kept.extend(old.map(|o| (o.volume.clone(), other.clone())));
        }
    }
    Ok(kept)
}

/// Why a volume with the tag is not one whose id this host did not get to note: killed in the call that makes it.
fn not_of(record: &Record, volume: &VolumeView) -> Option<String> {
    let planned = record.plan.volumes.iter().any(|v| v.snapshot.is_some() && v.snapshot == volume.snapshot);
    if !planned {
        return Some("it was not made of a snapshot that this restore is of".to_owned());
    }
    let began = record.began.checked_sub(CLOCKS).unwrap_or(record.began);
    if volume.created.is_none_or(|at| at < began) {
        return Some("it is older than this restore".to_owned());
    }
    (record.made.len() == record.plan.volumes.len()).then(|| "this restore has made others".to_owned())
}

/// Why a volume with the tag is not one of a restore of another host, or of before this host lost its memory.
fn not_by_tags(volume: &VolumeView, of_sets: &[TaggedSnapshot], on: Here<'_>) -> Option<String> {
    if let Some(old) = volume.tag(IN_PLACE_TAG) {
        let old = printable(old);
        return Some(format!(
            "it was put in the place of {old} by a host that alone can take it back, and is in use"
        ));
    }
    let Some(snapshot) = &volume.snapshot else { return Some("it was not made of a snapshot".to_owned()) };
    let shown = of_sets.iter().find(|s| s.view.id == *snapshot);
    if shown.is_none_or(|s| s.tag(RUN_TAG).is_none() || s.tag(RUN_TAG) != volume.tag(RESTORE_OF_TAG)) {
        return Some(format!("it was made of {snapshot}, which is not of the set that its tag names"));
    }
    match is_mounted(volume, on) {
        Ok(false) => None,
        Ok(true) => Some("this host remembers no such restore, and something on it is mounted".to_owned()),
        Err(why) => Some(why),
    }
}

fn is_mounted(volume: &VolumeView, on: Here<'_>) -> Result<bool, String> {
    let devices = stack::on(on.root, std::slice::from_ref(&volume.id))?;
    let lines = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?.lines;
    Ok(devices.iter().any(|d| !disks::mounts_of(&lines, d).is_empty()))
}

/// The restores of this host that nobody needs any more. What a verify has left, the next verify takes down.
///
/// Of those whose record cannot be read, why.
///
/// # Errors
/// When it cannot be told which there are.
pub fn over(on: Here<'_>, now: Timestamp) -> std::io::Result<(Vec<RestorePlan>, Vec<String>)> {
    let (mut over, mut unread) = (Vec::new(), Vec::new());
    for id in record::all(on.state_dir)? {
        let record = match record::read(on.state_dir, &id) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(e) => {
                unread.push(format!("what this host remembers of restore {id} cannot be read: {e}"));
                continue;
            }
        };
        let is_over = record.plan.until.is_some_and(|until| until <= now);
        // What is in use in the place of others is never taken back by time.
        if is_over && record.plan.in_place.is_none() && !record.verify {
            over.push(record.plan);
        }
    }
    Ok((over, unread))
}

/// Takes it back.
///
/// # Errors
/// What stands in the way; what was taken back until then is.
pub async fn undo<E: Volumes>(
    remains: &Remains,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
    instance: Option<&InstanceId>,
) -> Result<(), Stopped> {
    for volume in &remains.volumes {
        let elsewhere =
            volume.attachments.iter().find(|a| a.instance.is_none() || a.instance.as_ref() != instance);
        if let Some(elsewhere) = elsewhere {
            let who = elsewhere.instance.as_ref().map_or("another service", InstanceId::as_str);
            return Err(here(format!("{} is attached to {who}: take it back there", volume.id)));
        }
    }
    take_apart(remains, waiting.clock, waiting.tell, on).await?;
    match remains.record.as_ref().is_some_and(|r| !r.plan.clones.is_empty()) {
        true => {
            let ids: Vec<VolumeId> = remains.volumes.iter().map(|v| v.id.clone()).collect();
            waiting.detach(&ids, instance).await?;
        }
        false => waiting.take_away(&remains.volumes, instance).await?,
    }
    hide::reveal(on.root, &remains.id).await.map_err(|e| here(format!("rules for udev stay: {e}")))?;
    let planned = remains.record.iter().flat_map(|r| &r.plan.volumes);
    links::give_back(on.root, &planned.map(|v| v.source.clone()).collect::<Vec<_>>()).await;
    if let Some(record) = &remains.record {
        // Innermost first. One that somebody has put something into stays.
        for folder in record.folders.iter().rev() {
            let _ = std::fs::remove_dir(&folder.0);
        }
    }
    stack::forget(on.state_dir, &remains.id)
        .map_err(|e| here(format!("what LVM was configured with stays: {e}")))?;
    record::forget(on.state_dir, &remains.id).map_err(|e| here(format!("this host still remembers it: {e}")))
}

/// Unmounts what is on its disks, and takes down what lies on them.
///
/// # Errors
/// What stays.
pub(super) async fn take_apart(
    remains: &Remains,
    clock: &dyn Clock,
    tell: &dyn Fn(&str),
    on: Here<'_>,
) -> Result<(), Stopped> {
    let ids: Vec<VolumeId> = remains.volumes.iter().map(|v| v.id.clone()).collect();
    mounts::unmount_all(on.root, &ids, tell).map_err(here)?;
    if let Some(record) = remains.record.as_ref().filter(|r| !r.plan.stack.is_empty()) {
        // So that nobody puts it together again by itself.
        let arrays: Vec<u32> = record.stack.arrays.values().map(|a| a.number).collect();
        let hidden = match hide::hide(on.root, &remains.id, &ids).await {
            Ok(()) => hide::hide_stack(on.root, &remains.id, &record.plan.stack.mark, &arrays).await,
            failed => failed,
        };
        hidden.map_err(|e| here(format!("the disks cannot be hidden from this host: {e}")))?;
    }
    stack::down(on.root, &ids, clock, tell).await.map_err(here)?;
    match remains.record.as_ref().map(|r| &r.plan.stack) {
        Some(stack) if stack.luks || !stack.groups.is_empty() => {
            stack::remove_unfinished(on.root, &stack.mark, tell).await.map_err(here)
        }
        _ => Ok(()),
    }
}
