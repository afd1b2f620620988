//! A restore plan is carried out.
//!
//! ```text
//! create     volumes, by the plan's tokens                 make.rs
//! hide       rules for udev, before the attachment         hide.rs
//! attach     → disks, by their serial numbers              make.rs, disks.rs
//! stack      arrays, LUKS, volume groups                   stack/
//! identity   each filesystem gets a UUID of its own        identity.rs
//! grow       where its volume is larger, and that is asked  grow.rs
//! mount      outermost first, beneath the target           mounts.rs
//! show       udev may look; the originals' names stay theirs  hide.rs
//! ```
//!
//! In: a [`Record`] of the plan, EC2, this host. Out: [`Done`]. Each step is left out where it is done already, so that
//! the same plan can be carried out again after a crash. Must never: mount what has no identity of its own beside its
//! original, or go on after a step that failed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::make::{Stopped, Waiting};
use super::plan::{PlannedFilesystem, Reach};
use super::record::{Folder, Record};
use super::stack::{self, Keys, Standing};
use super::{disks, grow, hide, identity, mounts};
use crate::ec2::volumes::Volumes;
use crate::host::block::BlockDevice;
use crate::host::{device, mountinfo};
use crate::ids::{DevNo, VolumeId};
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

/// Does everything of it that is not done yet. `keys` open what is in LUKS.
///
/// # Errors
/// The step that failed. What was made stays, and can be taken back.
pub async fn carry_out<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
    keys: &Keys,
) -> Result<Done, Stopped> {
    let plan = record.plan.clone();
    record.write(on.state_dir).map_err(|e| here(format!("cannot write down what is to be done: {e}")))?;
    let known = record.made.clone();
    let noted = |number: usize, id: &VolumeId| {
        record.made.insert(number, id.clone());
        record.write(on.state_dir).map_err(|e| format!("cannot write down that {id} was made: {e}"))
    };
    let ids = waiting.create(&plan, &known, noted).await?;
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
        let growing = grow::folder(on.state_dir, &plan.id);
        grow::clear(&growing).map_err(here)?;
        let mut found = Vec::new();
        let (clock, tell) = (waiting.clock, waiting.tell);
        let up = stack::Up { record: &mut *record, ids: &ids, on, clock, tell, keys };
        let mut standing = up.all().await.map_err(here)?;
        for (n, filesystem) in plan.filesystems.iter().enumerate() {
            let one = own_identity(n, filesystem, standing.remove(&n), &ids, record, waiting, on).await;
            let said = |e: String| here(format!("{}: {e}", shown(&filesystem.source)));
            let one = one.map_err(said)?;
            // What is put together is as large as its layers say, not its volumes.
            if !plan.stack.tops.contains_key(&n) {
                grown(record, filesystem, &one, &growing, waiting).await.map_err(said)?;
            }
            found.push(one);
        }
        done.mounts = mount_all(record, &found, waiting, on).map_err(here)?;
        if !plan.read_only {
            show(record, &ids, on).await.map_err(|e| here(format!("the new disks stay hidden: {e}")))?;
        }
    }
    record.done = true;
    record.write(on.state_dir).map_err(|e| here(format!("cannot write down what was done: {e}")))?;
    Ok(done)
}

/// Shows udev the disks, and what was put together on them.
async fn show(record: &Record, ids: &[VolumeId], on: Here<'_>) -> Result<(), String> {
    let plan = &record.plan;
    hide::show_behind(on.root, &plan.id, ids).await.map_err(|e| e.to_string())?;
    if !plan.stack.is_empty() {
        let arrays: Vec<u32> = record.stack.arrays.values().map(|a| a.number).collect();
        let shown = hide::show_stack_behind(on.root, &plan.id, &plan.stack.mark, &arrays).await;
        shown.map_err(|e| e.to_string())?;
    }
    let names: Vec<String> = stack::on(on.root, ids)?.into_iter().map(|d| d.name).collect();
    hide::look_again(on.root, &names).await;
    Ok(())
}

/// A filesystem, found on its disk, with the UUID that it has now.
struct Found {
    device: BlockDevice,
    /// Further devices of it.
    others: Vec<BlockDevice>,
    uuid: Option<String>,
    mounted: bool,
}

/// Finds it, and gives it an identity of its own where it has not got one yet. Which partition it is on is noted before:
/// with another UUID, it could not be told from others.
async fn own_identity<E: Volumes>(
    number: usize,
    filesystem: &PlannedFilesystem,
    standing: Option<Standing>,
    ids: &[VolumeId],
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Found, String> {
    let volume = ids.get(filesystem.volume).ok_or("its volume is not known")?;
    let (fstype, uuid) = (&filesystem.fstype, filesystem.uuid.as_deref());
    let (device, others) = match (standing, record.on.get(&number)) {
        (Some(standing), _) => (standing.device, standing.others),
        (None, Some(partition)) => {
            (disks::await_partition(on.root, volume, *partition, waiting.clock).await?, Vec::new())
        }
        (None, None) if !record.plan.clones.is_empty() => {
            (disks::await_cloned(on.root, volume, fstype, uuid, waiting.clock).await?, Vec::new())
        }
        (None, None) => {
            (disks::await_filesystem(on.root, volume, fstype, uuid, waiting.clock).await?, Vec::new())
        }
    };
    let noted = record.on.insert(number, disks::partition(&device)).is_some();
    record.write(on.state_dir).map_err(|e| format!("cannot write down where it is: {e}"))?;
    let lines = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?.lines;
    let mounted = std::iter::once(&device).chain(&others).any(|d| !disks::mounts_of(&lines, d).is_empty());
    let now = disks::uuid(&device, fstype)?;
    if now.is_none() {
        return Err(format!("{} of {volume} has no {fstype}", device.name));
    }
    // One that is another than the set's was given to it before this restore was interrupted. Where the set has none,
    // it is given another one again.
    let renewed = noted && uuid.is_some() && now.as_deref() != uuid;
    if record.plan.read_only || mounted || renewed {
        return Ok(Found { device, others, uuid: now, mounted });
    }
    let uuid = if others.is_empty() {
        identity::renew(&device, fstype).await?
    } else {
        stack::renew(&[std::slice::from_ref(&device), &others].concat()).await?
    };
    (waiting.tell)(&format!("{}: its UUID is {uuid} now", shown(&filesystem.source)));
    Ok(Found { device, others, uuid: Some(uuid), mounted })
}

/// Grows a filesystem whose volume is larger than its snapshot, where that is wanted.
async fn grown<E: Volumes>(
    record: &Record,
    filesystem: &PlannedFilesystem,
    found: &Found,
    folder: &Path,
    waiting: &Waiting<'_, E>,
) -> Result<(), String> {
    let volume = record.plan.volumes.get(filesystem.volume);
    let larger = volume.is_some_and(|v| v.grown_from.is_some());
    // What is mounted was grown before.
    if !record.plan.grow || !larger || found.mounted {
        return Ok(());
    }
    let (place, fstype) = (shown(&filesystem.source), &filesystem.fstype);
    if let Some(partition) = disks::partition(&found.device) {
        let disk = found.device.below.first().map_or("", String::as_str);
        let at = filesystem.mounts.first().map_or_else(String::new, |m| shown(&record.plan.place(m)));
        let how = grow::by_hand(disk, partition, fstype, &at);
        (waiting.tell)(&format!("{place} is on a partition, which is not grown: {how}"));
        return Ok(());
    }
    grow::grow(&found.device, fstype, folder).await?;
    (waiting.tell)(&format!("{place} is as large as its volume now"));
    Ok(())
}

/// Mounts what is not mounted, outermost first.
fn mount_all<E: Volumes>(
    record: &mut Record,
    found: &[Found],
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Vec<MadeMount>, String> {
    let plan = record.plan.clone();
    let fresh = !record.at_target;
    if fresh {
        // Before the first one is made: those that are made are removed again, whenever this process dies.
        let mounts = plan.filesystems.iter().flat_map(|f| &f.mounts);
        let beneath = |at: &Path| {
            at.ancestors().filter(|p| !p.as_os_str().is_empty()).map(|p| plan.to.join(p)).collect::<Vec<_>>()
        };
        let mut folders: BTreeSet<PathBuf> = mounts.flat_map(|m| beneath(&m.at)).collect();
        if plan.to.symlink_metadata().is_err() {
            folders.insert(plan.to.clone());
        }
        record.folders = folders.into_iter().map(Folder).collect();
        record.at_target = true;
        record.write(on.state_dir).map_err(|e| e.to_string())?;
    }
    // What a process that died has made there is its own: only something mounted stands in the way.
    let target = mounts::target(&plan.to, fresh)?;
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
            let (options, root) = (&filesystem.options, Some(mount.root.as_path()));
            let others: Vec<DevNo> = found.others.iter().map(|d| d.dev).collect();
            let (fstype, dev) = (&filesystem.fstype, found.device.dev);
            let made = mounts::create(&node, dev, &others, fstype, &options.filesystem, root)
                .map_err(|e| format!("{}: {e}", shown(&filesystem.source)))?;
            mounts::attach(&target, &mount.at, &made, options.attributes)?;
            (waiting.tell)(&format!("{} is mounted at {}", shown(&filesystem.source), shown(&place)));
        }
        done.push(MadeMount {
            source: filesystem.source.clone(),
            mount_point: place,
            uuid: found.uuid.clone(),
        });
    }
    Ok(done)
}
