//! A restore plan is carried out.
//!
//! ```text
//! create     volumes, by the plan's tokens                 make.rs
//! hide       rules for udev, before the attachment         hide.rs
//! attach     → disks, by their serial numbers              make.rs, disks.rs
//! identity   each filesystem gets a UUID of its own        identity.rs
//! mount      outermost first, beneath the target           mounts.rs
//! reveal     udev may look                                 hide.rs
//! ```
//!
//! In: a [`Record`] of the plan, EC2, this host. Out: [`Done`]. Each step is left out where it is done already, so that
//! the same plan can be carried out again after a crash. Must never: mount what has no identity of its own beside its
//! original, or go on after a step that failed.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::make::{Stopped, Waiting};
use super::plan::{PlannedFilesystem, Reach};
use super::record::{Folder, Record};
use super::{disks, hide, identity, mounts};
use crate::ec2::volumes::Volumes;
use crate::host::block::BlockDevice;
use crate::host::{device, mountinfo};
use crate::ids::VolumeId;
use crate::path_encoding::{self, shown};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The volumes, in the plan's order.
    pub volumes: Vec<MadeVolume>,
    /// The mounts, outermost first.
    pub mounts: Vec<MadeMount>,
}

/// A volume that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeVolume {
    /// It.
    pub id: VolumeId,
    /// The volume that it takes the place of.
    pub source: VolumeId,
    /// The device name of its attachment.
    pub device_name: Option<String>,
    /// The kernel's name of its disk, on this host.
    pub disk: Option<String>,
}

/// A mount that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeMount {
    /// Where it was on the host of the set.
    #[serde(serialize_with = "path_encoding::path")]
    pub source: PathBuf,
    /// Where it is now.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// Its UUID now.
    pub uuid: Option<String>,
}

/// The host that it is carried out on.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// Where /sys, /run and the like are.
    pub root: &'a Path,
    /// Where records are.
    pub state_dir: &'a Path,
}

fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// Does everything of it that is not done yet.
///
/// # Errors
/// The step that failed. What was made stays, and can be taken back.
pub async fn carry_out<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Done, Stopped> {
    let plan = record.plan.clone();
    record.write(on.state_dir).map_err(|e| here(format!("cannot write down what is to be done: {e}")))?;
    let ids = waiting.create(&plan).await?;
    let mut done = Done {
        volumes: plan
            .volumes
            .iter()
            .zip(&ids)
            .map(|(planned, id)| MadeVolume {
                id: id.clone(),
                source: planned.source.clone(),
                device_name: planned.device_name.clone(),
                disk: None,
            })
            .collect(),
        mounts: Vec::new(),
    };
    if let Some(instance) = plan.instance.as_ref().filter(|_| plan.reach != Reach::Volumes) {
        let hidden = hide::hide(on.root, &plan.id, &ids).await;
        hidden.map_err(|e| here(format!("the new disks cannot be hidden from this host: {e}")))?;
        waiting.attach(&plan, &ids, instance).await?;
        for made in &mut done.volumes {
            let disk = disks::await_disk(on.root, &made.id, waiting.clock).await.map_err(here)?;
            (waiting.tell)(&format!("{} is {}", made.id, disk.name));
            made.disk = Some(disk.name);
        }
    }
    if plan.reach == Reach::Mounted {
        let mut found = Vec::new();
        for filesystem in &plan.filesystems {
            let place = shown(&filesystem.source);
            found.push(
                own_identity(filesystem, &ids, plan.read_only, waiting, on)
                    .await
                    .map_err(|e| here(format!("{place}: {e}")))?,
            );
        }
        done.mounts = mount_all(record, &found, waiting, on).map_err(here)?;
        if !plan.read_only {
            let disks: Vec<String> = done.volumes.iter().filter_map(|v| v.disk.clone()).collect();
            hide::reveal(on.root, &plan.id)
                .await
                .map_err(|e| here(format!("the new disks stay hidden: {e}")))?;
            hide::look_again(on.root, &disks).await;
        }
    }
    record.done = true;
    record.write(on.state_dir).map_err(|e| here(format!("cannot write down what was done: {e}")))?;
    Ok(done)
}

/// A filesystem, found on its disk, with the UUID that it has now.
struct Found {
    device: BlockDevice,
    uuid: Option<String>,
    mounted: bool,
}

/// Finds it, and gives it an identity of its own where it has not got one yet.
async fn own_identity<E: Volumes>(
    filesystem: &PlannedFilesystem,
    ids: &[VolumeId],
    read_only: bool,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Found, String> {
    let volume = ids.get(filesystem.volume).ok_or("its volume is not known")?;
    let fstype = &filesystem.fstype;
    let (disk, parts) = disks::of(on.root, volume)?.ok_or("its disk is not here")?;
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    if let Some(device) =
        std::iter::once(&disk).chain(&parts).find(|d| !disks::mounts_of(&table.lines, d).is_empty())
    {
        let uuid = disks::uuid(device, fstype)?;
        return Ok(Found { device: device.clone(), uuid, mounted: true });
    }
    if let Ok(device) = disks::filesystem(on.root, volume, fstype, filesystem.uuid.as_deref()) {
        let uuid = if read_only {
            filesystem.uuid.clone()
        } else {
            let uuid = identity::renew(&device, fstype).await?;
            (waiting.tell)(&format!(
                "{}: {fstype} on {} has the UUID {uuid} now",
                shown(&filesystem.source),
                device.name
            ));
            Some(uuid)
        };
        return Ok(Found { device, uuid, mounted: false });
    }
    // A restore that goes on has renewed it before.
    let device = disks::filesystem(on.root, volume, fstype, None)?;
    match disks::uuid(&device, fstype)? {
        Some(uuid) if is_renewed(filesystem, &uuid) => Ok(Found { device, uuid: Some(uuid), mounted: false }),
        _ => Err(format!(
            "{volume} has no {fstype} with the UUID {}",
            filesystem.uuid.as_deref().unwrap_or("of the set")
        )),
    }
}

/// Of a filesystem whose UUID the set knows, any other UUID is one that this restore gave it: the volume is its own.
fn is_renewed(filesystem: &PlannedFilesystem, uuid: &str) -> bool {
    filesystem.uuid.as_deref().is_none_or(|was| was != uuid)
}

/// Mounts what is not mounted, outermost first.
fn mount_all<E: Volumes>(
    record: &mut Record,
    found: &[Found],
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Vec<MadeMount>, String> {
    let plan = record.plan.clone();
    let fresh = !found.iter().any(|f| f.mounted);
    let (target, made) = mounts::target(&plan.to, fresh)?;
    let mut folders = Vec::new();
    if made {
        folders.push(plan.to.clone());
    }
    let mut all: Vec<(usize, &super::plan::PlannedMount)> =
        plan.filesystems.iter().enumerate().flat_map(|(n, f)| f.mounts.iter().map(move |m| (n, m))).collect();
    all.sort_by_key(|(_, m)| (m.at.components().count(), m.at.clone()));
    let mut done = Vec::new();
    for (n, mount) in all {
        let (filesystem, found) = (&plan.filesystems[n], &found[n]);
        let place = plan.place(mount);
        let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
        if !(found.mounted && table.lines.iter().any(|l| l.mount_point == place)) {
            let node = device::node(found.device.dev, &[])
                .ok_or_else(|| format!("/dev has no node of {}", found.device.name))?;
            let options = &filesystem.options;
            let made = mounts::create(
                &node,
                found.device.dev,
                &filesystem.fstype,
                &options.filesystem,
                Some(&mount.root),
            )
            .map_err(|e| format!("{}: {e}", shown(&filesystem.source)))?;
            let new = mounts::attach(&target, &mount.at, &made, options.attributes)?;
            folders.extend(new.into_iter().map(|f| plan.to.join(f)));
            (waiting.tell)(&format!("{} is mounted at {}", shown(&filesystem.source), shown(&place)));
        }
        done.push(MadeMount {
            source: filesystem.source.clone(),
            mount_point: place,
            uuid: found.uuid.clone(),
        });
        record.folders.extend(std::mem::take(&mut folders).into_iter().map(Folder));
        record.write(on.state_dir).map_err(|e| e.to_string())?;
    }
    Ok(done)
}
