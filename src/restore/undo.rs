//! A restore is taken back: unmounted, detached, deleted.
//!
//! In: the id of a restore; EC2, this host. Out: nothing of it is left. Must never: delete a volume that a restore has
//! not made: a tag can be put on any volume, and so the snapshot that EC2 says it was made of has to be of the set; or
//! unmount anything but its own disks.

use std::collections::BTreeSet;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use super::carry_out::Here;
use super::make::{Stopped, Waiting};
use super::plan::{RESTORE_OF_TAG, RESTORE_TAG};
use super::record::{self, Record};
use super::{disks, hide};
use crate::ec2::RUN_TAG;
use crate::ec2::keep::Wanted;
use crate::ec2::repeat::Repeating;
use crate::ec2::volumes::{VolumeView, Volumes, Which};
use crate::host::beneath;
use crate::host::mountinfo;
use crate::ids::{InstanceId, RunId, SnapshotId};
use crate::path_encoding::shown;
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

/// Looks for it.
///
/// # Errors
/// When EC2 does not say, or what this host remembers cannot be read.
pub async fn look<E: Volumes>(ec2: &Repeating<'_, E>, on: Here<'_>, id: &RunId) -> Result<Remains, Stopped> {
    let which = Which::Tagged(RESTORE_TAG.to_owned(), id.to_string());
    let asked = async || ec2.inner().volumes_that_are(&which).await;
    let mut found = ec2.call("DescribeVolumes", asked).await?;
    found.retain(|volume| !volume.is_gone());
    let record = record::read(on.state_dir, id)
        .map_err(|e| here(format!("what this host remembers of {id} cannot be read: {e}")))?;
    let planned: BTreeSet<SnapshotId> =
        record.iter().flat_map(|r| r.plan.volumes.iter().map(|v| v.snapshot.clone())).collect();
    let ids: Vec<SnapshotId> = found.iter().filter_map(|v| v.snapshot.clone()).collect();
    let of_sets = match ids.is_empty() {
        true => Vec::new(),
        false => snapshots(ec2, &Wanted::Ids(ids)).await?,
    };
    let mut remains = Remains { id: id.clone(), volumes: Vec::new(), doubtful: Vec::new(), record };
    for volume in found {
        let tag = |key: &str| volume.tags.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let set = tag(RESTORE_OF_TAG);
        let of_set = |snapshot: &SnapshotId| {
            let shown = of_sets.iter().find(|s| s.view.id == *snapshot);
            set.is_some() && shown.and_then(|s| s.tag(RUN_TAG)) == set
        };
        match &volume.snapshot {
            Some(snapshot) if planned.contains(snapshot) || of_set(snapshot) => remains.volumes.push(volume),
            Some(snapshot) => {
                let why = format!("it was made of {snapshot}, which is not of the set that its tag names");
                remains.doubtful.push((volume, why));
            }
            None => remains.doubtful.push((volume, "it was not made of a snapshot".to_owned())),
        }
    }
    Ok(remains)
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
        let elsewhere = volume.attachments.iter().find(|a| a.instance.as_ref() != instance);
        if let Some(elsewhere) = elsewhere {
            let who = elsewhere.instance.as_ref().map_or("another service", InstanceId::as_str);
            return Err(here(format!("{} is attached to {who}: take it back there", volume.id)));
        }
    }
    unmount(&remains.volumes, waiting, on).map_err(here)?;
    waiting.take_away(&remains.volumes).await?;
    hide::reveal(on.root, &remains.id).await.map_err(|e| here(format!("rules for udev stay: {e}")))?;
    if let Some(record) = &remains.record {
        // Innermost first. One that somebody has put something into stays.
        for folder in record.folders.iter().rev() {
            let _ = std::fs::remove_dir(&folder.0);
        }
    }
    record::forget(on.state_dir, &remains.id).map_err(|e| here(format!("this host still remembers it: {e}")))
}

/// Unmounts everything that is on the disks of these volumes, innermost first.
fn unmount<E: Volumes>(volumes: &[VolumeView], waiting: &Waiting<'_, E>, on: Here<'_>) -> Result<(), String> {
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    if let Some(unread) = table.unread.first() {
        return Err(format!("what is mounted here cannot be told: {unread}"));
    }
    let mut ids = BTreeSet::new();
    for volume in volumes {
        let Some((disk, parts)) = disks::of(on.root, &volume.id)? else { continue };
        let all = std::iter::once(&disk).chain(&parts);
        ids.extend(all.flat_map(|d| disks::mounts_of(&table.lines, d)).map(|line| line.id));
    }
    // What was mounted last is on top.
    for line in table.lines.iter().rev().filter(|line| ids.contains(&line.id)) {
        let place = shown(&line.mount_point);
        // umount(2) takes a path: it has to lead to this mount, and to no other that covers it.
        beneath::mount_root(line).map_err(|e| format!("{place} cannot be unmounted: {}", e.desc()))?;
        umount2(&line.mount_point, MntFlags::UMOUNT_NOFOLLOW).map_err(|e| {
            format!("{place} cannot be unmounted: {} (`fuser -vm {place}` names who uses it)", e.desc())
        })?;
        (waiting.tell)(&format!("{place} is unmounted"));
    }
    Ok(())
}
