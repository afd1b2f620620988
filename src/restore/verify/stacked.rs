//! What a set's filesystems lie on is put together for a verify, as a restore does it, and taken apart again.
//!
//! The volumes are thrown away, so what is put together gets names and UUIDs of its own, although nothing is to be written
//! to the filesystems: without those, LVM, md and btrfs could not tell them from their originals.
//!
//! In: a plan, disks. Out: the devices of each filesystem. Must never: open what is in LUKS, for which a verify has no key.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::host::block::{BlockDevice, DeviceKind};
use crate::ids::{DevNo, RunId, VolumeId};
use crate::restore::carry_out::{Done, Here};
use crate::restore::disks;
use crate::restore::plan::{PlannedFilesystem, RestorePlan};
use crate::restore::record::Record;
use crate::restore::stack::{self, Keys, Standing, Up};
use crate::restore::stack::{StackPlan, planned};
use crate::sets::layout::Layout;
use crate::sets::lines::{SetFilesystem, SetVolume};

/// Why this one is not put together here; none where it can be, or nothing has to be.
pub(super) fn left_out(
    filesystem: &SetFilesystem,
    layout: &Layout,
    volumes: &[&SetVolume],
    id: &RunId,
) -> Option<String> {
    if !planned::is_stacked(filesystem) {
        return None;
    }
    let mut plan = StackPlan::of(id);
    if let Err(refusal) = plan.add(0, filesystem, layout, volumes, false) {
        return Some(refusal.what);
    }
    if plan.luks {
        return Some("it is in LUKS, or in a volume group with what is, and a verify has no key".to_owned());
    }
    plan.has_tools().err()
}

/// What a filesystem is on, and the UUID that it has there.
pub(super) struct Found {
    pub device: BlockDevice,
    pub others: Vec<BlockDevice>,
    pub uuid: Option<String>,
}

impl Found {
    /// The numbers of the others.
    pub(super) fn other_numbers(&self) -> Vec<DevNo> {
        self.others.iter().map(|d| d.dev).collect()
    }
}

/// What was put together: or why it was not, for all of it.
pub(super) type Together = Result<BTreeMap<usize, Found>, String>;

/// Puts together what the plan has.
pub(super) async fn together(
    record: &mut Record,
    made: &Done,
    on: Here<'_>,
    clock: &dyn Clock,
    tell: &dyn Fn(&str),
) -> Together {
    let ids: Vec<VolumeId> = made.volumes.iter().map(|v| v.id.clone()).collect();
    let filesystems = record.plan.filesystems.clone();
    let up = Up { record, ids: &ids, on, clock, tell, keys: &Keys::default() };
    let mut found = BTreeMap::new();
    for (number, Standing { device, others }) in up.all().await? {
        let mut uuid = filesystems.get(number).and_then(|f| f.uuid.clone());
        if !others.is_empty() {
            uuid = Some(stack::renew(&[std::slice::from_ref(&device), &others].concat()).await?);
        }
        found.insert(number, Found { device, others, uuid });
    }
    Ok(found)
}

/// The devices of a filesystem of the plan: those that were put together, or the one on its volume's disk.
pub(super) async fn found(
    plan: &RestorePlan,
    number: usize,
    made: &Done,
    together: &Together,
    on: Here<'_>,
    clock: &dyn Clock,
) -> Result<Found, String> {
    if plan.stack.tops.contains_key(&number) {
        let found = together.as_ref().map_err(Clone::clone)?.get(&number);
        return found.map(Found::again).ok_or_else(|| "it is not there".to_owned());
    }
    let PlannedFilesystem { fstype, uuid, volume, .. } =
        plan.filesystems.get(number).ok_or("it is not in the plan")?;
    let volume = made.volumes.get(*volume).ok_or("a volume was not made")?;
    let device = disks::await_filesystem(on.root, &volume.id, fstype, uuid.as_deref(), clock).await?;
    Ok(Found { device, others: Vec::new(), uuid: uuid.clone() })
}

impl Found {
    fn again(&self) -> Self {
        Self { device: self.device.clone(), others: self.others.clone(), uuid: self.uuid.clone() }
    }
}

/// Devices that lie on the disks of these volumes, those that nothing lies on first.
///
/// # Errors
/// When /sys cannot be read.
pub(super) fn lying_on(on: Here<'_>, volumes: &[VolumeId]) -> Result<Vec<BlockDevice>, String> {
    let all = stack::on(on.root, volumes)?;
    let layer = |d: &&BlockDevice| !matches!(d.kind, DeviceKind::Disk { .. } | DeviceKind::Partition { .. });
    let free = |d: &&BlockDevice| !all.iter().any(|o| o.below.contains(&d.name));
    Ok(all.iter().filter(layer).filter(free).cloned().collect())
}
