//! What a restore will do, decided before it does anything.
//!
//! In: a set, what its tags describe, the host, what was asked for. Out: a [`RestorePlan`], which a dry run prints and
//! [`super::carry_out`] consumes; or a [`Refusal`]. Pure. Must never: execute or trust what a tag says: a path leads
//! beneath the target folder, an option is one of a list.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::before_start::BeforeStart;
use super::copy_out;
use super::device_names::names;
use super::in_place::InPlace;
use super::options::{self, MountOptions};
use super::stack::planned::{self as stacked, StackPlan};
use crate::ec2::TaggedSnapshot;
use crate::ec2::volume_type::{Instead, Misfit, Performance, TYPES};
use crate::ec2::volumes::{AttachmentLimit, HostView, RESTORE_TAG, VolumeRequest};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::{self, printable, shown};
use crate::sets::layout::Layout;
use crate::sets::lines::{SetFilesystem, SetVolume};
use crate::sets::set::{Member, SetState, SnapshotSet};
use crate::sets::tags;

/// The set that it is of.
pub const RESTORE_OF_TAG: &str = "stillpoint:restore-of";
/// The volume that it is in the place of.
pub const RESTORE_VOLUME_TAG: &str = "stillpoint:restore-volume";
/// The host that it is for.
pub const RESTORE_HOST_TAG: &str = "stillpoint:restore-host";
/// Until when a volume may be there. Later, nobody needs it any more.
pub const UNTIL_TAG: &str = "stillpoint:until";

/// The most tags that a volume can have (EC2 guide, "Tag restrictions").
pub(super) const MOST_TAGS: usize = 50;

/// How far a restore goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Volumes are made.
    Volumes,
    /// They are attached.
    Attached,
    /// Their filesystems are mounted.
    Mounted,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How far.
    pub reach: Reach,
    /// The folder that the filesystems are mounted beneath.
    pub to: PathBuf,
    /// Only these mount points of the set; empty for all.
    pub mounts: Vec<PathBuf>,
    /// Nothing is written to the volumes, not even a journal that is replayed.
    pub read_only: bool,
    /// The zone; none for the host's.
    pub zone: Option<String>,
    /// In the place of the type and speed that each volume had.
    pub instead: Instead,
    /// The key to encrypt with; none for the snapshot's.
    pub key: Option<String>,
    /// See [`VolumeRequest::initialization_rate`].
    pub initialization_rate: Option<i32>,
    /// Nobody needs it later: [`super::undo::over`] finds it then.
    pub until: Option<Timestamp>,
}

/// The host that volumes are attached to.
#[derive(Debug, Clone)]
pub struct Host {
    /// It.
    pub id: InstanceId,
    /// What EC2 says of it.
    pub view: HostView,
    /// How many volumes it can have, where EC2 says.
    pub limit: Option<AttachmentLimit>,
}

/// A restore, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// Its own id.
    pub id: RunId,
    /// The set.
    pub set: RunId,
    /// The Region of both.
    pub region: String,
    /// How far it goes.
    pub reach: Reach,
    /// The host that volumes are attached to; none where they are not.
    pub instance: Option<InstanceId>,
    /// The zone that volumes are made in.
    pub zone: String,
    /// The folder that filesystems are mounted beneath.
    #[serde(with = "path_encoding::bytes")]
    pub to: PathBuf,
    /// Nothing is written.
    pub read_only: bool,
    /// The volumes.
    pub volumes: Vec<PlannedVolume>,
    /// The filesystems, in the order in which they are mounted.
    pub filesystems: Vec<PlannedFilesystem>,
    /// What is to be said of it before.
    pub notes: Vec<String>,
    /// Device names to go on with where EC2 says that one is in use after all.
    #[serde(default)]
    pub spare_names: Vec<String>,
    /// Filesystems on volumes that are larger than their snapshots are grown.
    #[serde(default)]
    pub grow: bool,
    /// What the volumes are put in the place of; none of a restore beside it.
    #[serde(default)]
    pub in_place: Option<InPlace>,
    /// What a person does before a database is started on it, as commands.
    #[serde(default)]
    pub before_start: Vec<BeforeStart>,
    /// Nobody needs it later.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Clones that are used in place of volumes that are made, in the plan's order. They stay when it is taken back.
    #[serde(default)]
    pub clones: Vec<VolumeId>,
    /// What is copied out of it, before it is taken back.
    #[serde(default)]
    pub copies: Vec<copy_out::Wanted>,
    /// What is put together on the volumes.
    #[serde(default)]
    pub stack: StackPlan,
}

/// A volume that will be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedVolume {
    /// The volume that it takes the place of.
    pub source: VolumeId,
    /// The snapshot; none of a clone, which is there already.
    pub snapshot: Option<SnapshotId>,
    /// Size in GiB.
    pub size_gib: i32,
    /// The snapshot's, where that is less.
    #[serde(default)]
    pub grown_from: Option<i32>,
    /// Its type.
    pub volume_type: String,
    /// Provisioned IOPS.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s.
    pub throughput: Option<i32>,
    /// The key to encrypt with.
    pub key: Option<String>,
    /// See [`VolumeRequest::initialization_rate`].
    pub initialization_rate: Option<i32>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// The device name of its attachment.
    pub device_name: Option<String>,
}

/// A filesystem that will be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFilesystem {
    /// Where it was mounted.
    #[serde(with = "path_encoding::bytes")]
    pub source: PathBuf,
    /// Its type.
    pub fstype: String,
    /// Its UUID, by which it is found.
    pub uuid: Option<String>,
    /// The volume that it is on: a number in [`RestorePlan::volumes`].
    pub volume: usize,
    /// Each mount: where beneath the target folder, and which folder of the filesystem.
    pub mounts: Vec<PlannedMount>,
    /// How.
    pub options: MountOptions,
}

/// A mount that will be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMount {
    /// Beneath the target folder; empty for itself.
    #[serde(with = "path_encoding::bytes")]
    pub at: PathBuf,
    /// The folder of the filesystem.
    #[serde(with = "path_encoding::bytes")]
    pub root: PathBuf,
}

/// Why a set is not restored. Nothing has been made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// What stands against it.
    pub what: String,
    /// The way out.
    pub hint: String,
}

pub(super) fn no<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { what: what.into(), hint: hint.into() })
}

impl From<Misfit> for Refusal {
    fn from(Misfit { what, hint }: Misfit) -> Self {
        Self { what, hint }
    }
}

impl PlannedVolume {
    /// The snapshot, or the volume that it is a clone of.
    #[must_use]
    pub fn made_of(&self) -> &str {
        self.snapshot.as_ref().map_or(self.source.as_str(), |s| s.as_str())
    }
}

impl RestorePlan {
    /// Where a mount comes to be.
    #[must_use]
    pub fn place(&self, mount: &PlannedMount) -> PathBuf {
        self.to.join(&mount.at)
    }

    /// The call that makes a volume of it. Its token is the restore's, so that making it twice makes it once.
    #[must_use]
    pub fn request(&self, number: usize) -> Option<VolumeRequest> {
        let volume = self.volumes.get(number)?;
        Some(VolumeRequest {
            token: format!("{}-{number}", self.id),
            snapshot: volume.snapshot.clone()?,
            zone: self.zone.clone(),
            volume_type: volume.volume_type.clone(),
            iops: volume.iops,
            throughput: volume.throughput,
            size_gib: volume.grown_from.map(|_| volume.size_gib),
            key: volume.key.clone(),
            initialization_rate: volume.initialization_rate,
            tags: volume.tags.clone(),
        })
    }
}

/// Decides. `snapshots` are the set's members with all their tags; `host` is none where nothing is attached.
///
/// # Errors
/// Why it cannot be done, before anything is.
pub fn plan(
    set: &SnapshotSet,
    layout: &Layout,
    snapshots: &[TaggedSnapshot],
    host: Option<&Host>,
    asked: &Asked,
) -> Result<RestorePlan, Refusal> {
    usable(set)?;
    let id = RunId::generate();
    let chosen = chosen(layout, asked)?;
    let needed = stacked::volumes_of(layout, &chosen);
    let volumes: Vec<&SetVolume> =
        layout.volumes.iter().filter(|v| asked.mounts.is_empty() || needed.contains(&v.id)).collect();
    let zone = match (&asked.zone, host) {
        (Some(zone), Some(host)) if *zone != host.view.zone => {
            return no(
                format!("{zone} is not the zone of {}, which is in {}", host.id, host.view.zone),
                "leave --az out, or --no-attach",
            );
        }
        (Some(zone), _) => zone.clone(),
        (None, Some(host)) => host.view.zone.clone(),
        (None, None) => return no("in which zone?", "--az us-east-1a"),
    };
    let mut notes = Vec::new();
    let (names, spare_names) = match host {
        Some(host) => {
            let (names, spare) = names(host, volumes.len())?;
            (names.into_iter().map(Some).collect(), spare)
        }
        None => (vec![None; volumes.len()], Vec::new()),
    };
    if host.is_some() {
        notes.extend(before_a_reboot(asked));
    }
    let mut planned = Vec::new();
    for (volume, device_name) in volumes.iter().zip(names) {
        let Some(member) = set.members.iter().find(|m| m.volume_id == volume.id) else {
            return no(format!("there is no snapshot of {}", volume.id), "restore another set");
        };
        let tags = snapshots.iter().find(|s| s.view.id == member.id).map(|s| s.tags.as_slice());
        planned.push(planned_volume(set, &id, volume, &member.id, tags.unwrap_or_default(), host, asked)?);
        if let Some(last) = planned.last_mut() {
            last.size_gib = member.size_gib;
            last.device_name = device_name;
        }
    }
    let (mut filesystems, mut stack) = (Vec::new(), StackPlan::of(&id));
    if asked.reach == Reach::Mounted {
        for (number, filesystem) in chosen.into_iter().enumerate() {
            if stacked::is_stacked(filesystem) {
                stack.add(number, filesystem, layout, &volumes, asked.read_only)?;
                filesystems.push(mounted(filesystem, 0, asked, &mut notes)?);
            } else {
                filesystems.push(planned_filesystem(filesystem, &volumes, asked, &mut notes)?);
            }
        }
        if filesystems.is_empty() {
            return no(format!("{} has no filesystem to mount", set.id), "--no-mount attaches its volumes");
        }
    }
    if let Some(boot) = volumes.iter().find(|v| v.boot)
        && host.is_some()
    {
        notes.push(format!(
            "{} was a root device: keep what is restored of it out of /etc/fstab and out of the boot order",
            boot.id
        ));
    }
    Ok(RestorePlan {
        id,
        set: set.id.clone(),
        region: set.region.clone(),
        reach: asked.reach,
        instance: host.map(|h| h.id.clone()),
        zone,
        to: asked.to.clone(),
        read_only: asked.read_only,
        volumes: planned,
        filesystems,
        notes,
        spare_names,
        grow: false,
        in_place: None,
        until: asked.until,
        before_start: Vec::new(),
        clones: Vec::new(),
        copies: Vec::new(),
        stack,
    })
}

/// What may happen at a boot where the identities stay those of the originals.
pub(super) fn before_a_reboot(asked: &Asked) -> Option<String> {
    (asked.read_only || asked.reach == Reach::Attached).then(|| {
        "take it back before a reboot: with the UUIDs of the originals, the boot could mount these instead".to_owned()
    })
}

/// A set of which volumes can be made.
fn usable(set: &SnapshotSet) -> Result<(), Refusal> {
    let id = &set.id;
    if let Some(refusal) = crate::sets::guard::unclear(set) {
        return no(refusal.what, refusal.hint);
    }
    if let Some(missing) = set.missing.first() {
        return no(
            format!("{id} is not complete: there is no snapshot of {}", missing.volume_id),
            "restore another set, or a filesystem that is not on that volume (--mount)",
        );
    }
    readable(id, &set.members)?;
    match set.state() {
        SetState::Completed => Ok(()),
        _ => no(format!("{id} is not completed yet"), format!("`stillpoint wait {id}` first")),
    }
}

/// Can volumes be made of these snapshots of a set, once they are completed?
///
/// # Errors
/// Of which they never can, or not now.
pub(super) fn readable(id: &RunId, members: &[Member]) -> Result<(), Refusal> {
    if let Some(lost) = members.iter().find(|m| m.state == "error") {
        let why = lost.error.as_deref().unwrap_or("EC2 gives no reason");
        return no(format!("{} of {id} is in error: {}", lost.id, printable(why)), "restore another set");
    }
    if let Some(archived) = members.iter().find(|m| m.tier == "archive") {
        return no(
            format!("{} of {id} is in the archive, of which no volume can be made", archived.id),
            format!("`stillpoint tier {id} --restore` first; it takes up to 72 hours"),
        );
    }
    Ok(())
}

/// The filesystem of the set that was mounted here.
///
/// # Errors
/// That there was none, and which there were.
pub(super) fn filesystem_at<'l>(layout: &'l Layout, place: &Path) -> Result<&'l SetFilesystem, Refusal> {
    let is_it = |f: &&SetFilesystem| f.mount_point == place || f.also.iter().any(|also| also == place);
    let all = || layout.filesystems.iter().map(|f| shown(&f.mount_point)).collect::<Vec<_>>().join(", ");
    match layout.filesystems.iter().find(is_it) {
        Some(filesystem) => Ok(filesystem),
        None => no(format!("the set has no {}", shown(place)), format!("it has {}", all())),
    }
}

/// The filesystems that are meant, in the order in which they are mounted.
pub(super) fn chosen<'l>(layout: &'l Layout, asked: &Asked) -> Result<Vec<&'l SetFilesystem>, Refusal> {
    for wanted in &asked.mounts {
        filesystem_at(layout, wanted)?;
    }
    let wanted = |f: &&SetFilesystem| {
        asked.mounts.is_empty() || asked.mounts.iter().any(|m| f.mount_point == *m || f.also.contains(m))
    };
    let mut chosen: Vec<&SetFilesystem> = layout.filesystems.iter().filter(wanted).collect();
    // What is mounted on another one comes after it.
    chosen.sort_by_key(|f| (f.mount_point.components().count(), f.mount_point.clone()));
    Ok(chosen)
}

fn planned_volume(
    set: &SnapshotSet,
    id: &RunId,
    volume: &SetVolume,
    snapshot: &SnapshotId,
    snapshot_tags: &[(String, String)],
    host: Option<&Host>,
    asked: &Asked,
) -> Result<PlannedVolume, Refusal> {
    let kind = asked.instead.kind.as_deref().unwrap_or(&volume.volume_type);
    if !TYPES.contains(&kind) {
        return no(
            format!("{} was of the type {}, which is not known", volume.id, printable(kind)),
            "--type gp3",
        );
    }
    let had =
        Performance { kind: volume.volume_type.clone(), iops: volume.iops, throughput: volume.throughput };
    let Performance { kind, iops, throughput } = had.with(&asked.instead, volume.id.as_str())?;
    let mut tags = vec![
        (RESTORE_TAG.to_owned(), id.to_string()),
        (RESTORE_OF_TAG.to_owned(), set.id.to_string()),
        (RESTORE_VOLUME_TAG.to_owned(), volume.id.to_string()),
    ];
    tags.extend(host.map(|h| (RESTORE_HOST_TAG.to_owned(), h.id.to_string())));
    tags.extend(asked.until.map(|until| (UNTIL_TAG.to_owned(), until.to_string())));
    // The volume's own, as they were copied to its snapshot.
    let own = snapshot_tags
        .iter()
        .filter(|(k, _)| tags::reserved(k).is_none() && !k.to_ascii_lowercase().starts_with("aws:"));
    let room = MOST_TAGS - tags.len();
    tags.extend(own.take(room).cloned());
    Ok(PlannedVolume {
        source: volume.id.clone(),
        snapshot: Some(snapshot.clone()),
        size_gib: volume.size_gib,
        grown_from: None,
        volume_type: kind,
        iops,
        throughput,
        key: asked.key.clone(),
        initialization_rate: asked.initialization_rate,
        tags,
        device_name: None,
    })
}

/// A filesystem on one disk, as it is mounted.
///
/// # Errors
/// Why it is not.
pub(super) fn planned_filesystem(
    filesystem: &SetFilesystem,
    volumes: &[&SetVolume],
    asked: &Asked,
    notes: &mut Vec<String>,
) -> Result<PlannedFilesystem, Refusal> {
    let place = shown(&filesystem.mount_point);
    let [on] = &filesystem.volumes[..] else {
        return no(format!("{place} is on {} volumes", filesystem.volumes.len()), BY_HAND);
    };
    if stacked::is_stacked(filesystem) {
        return no(format!("{place} is on {}, not on a disk", printable(&filesystem.stack)), BY_HAND);
    }
    let Some(volume) = volumes.iter().position(|v| v.id == *on) else {
        return no(format!("{place} is on {on}, which is not of the set"), "restore another set");
    };
    mounted(filesystem, volume, asked, notes)
}

/// Is this of a type that is mounted here, on volumes of the set?
///
/// # Errors
/// Why it is not.
pub(super) fn can_be_mounted(
    filesystem: &SetFilesystem,
    volumes: &[&SetVolume],
    asked: &Asked,
) -> Result<(), String> {
    let planned = match stacked::is_stacked(filesystem) {
        true => mounted(filesystem, 0, asked, &mut Vec::new()),
        false => planned_filesystem(filesystem, volumes, asked, &mut Vec::new()),
    };
    planned.map(drop).map_err(|refusal| refusal.what)
}

const BY_HAND: &str = "--no-mount attaches the volumes, hidden from the host, and `stillpoint show` has the stack; or \
                       choose others with --mount";

/// A filesystem, as it is mounted, of this volume.
fn mounted(
    filesystem: &SetFilesystem,
    volume: usize,
    asked: &Asked,
    notes: &mut Vec<String>,
) -> Result<PlannedFilesystem, Refusal> {
    let place = shown(&filesystem.mount_point);
    if !options::KNOWN.contains(&filesystem.fstype.as_str()) {
        return no(
            format!("{place} is {}, which is not mounted here", printable(&filesystem.fstype)),
            BY_HAND,
        );
    }
    let options = options::of(&filesystem.fstype, &filesystem.options, asked.read_only);
    if !options.left_out.is_empty() {
        notes.push(format!("{place}: mounted without {}", printable(&options.left_out.join(","))));
    }
    let whole = PathBuf::from("/");
    let root = |n: usize| filesystem.roots.get(n).unwrap_or(&whole).clone();
    let at = |place: &Path| place.strip_prefix("/").unwrap_or(place).to_owned();
    let all = std::iter::once(&filesystem.mount_point).chain(&filesystem.also);
    let mut mounts: Vec<PlannedMount> =
        all.enumerate().map(|(n, place)| PlannedMount { at: at(place), root: root(n) }).collect();
    if filesystem.fstype != "btrfs" {
        // What is bound elsewhere is seen at its own place, too.
        mounts.truncate(1);
        if mounts.iter().any(|m| m.root != whole) {
            notes.push(format!("{place}: only a folder of it was mounted; all of it will be"));
            mounts.iter_mut().for_each(|m| m.root.clone_from(&whole));
        }
    }
    mounts.sort_by_key(|m| (m.at.components().count(), m.at.clone()));
    Ok(PlannedFilesystem {
        source: filesystem.mount_point.clone(),
        fstype: filesystem.fstype.clone(),
        uuid: filesystem.uuid.clone(),
        volume,
        mounts,
        options,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
