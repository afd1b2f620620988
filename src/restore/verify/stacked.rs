//! What a set's filesystems lie on is put together for a verify, as a restore does it, and taken apart again.
//!
//! The volumes are thrown away, so what is put together gets names and UUIDs of its own, although nothing is to be written
//! to the filesystems: without those, LVM, md and btrfs could not tell them from their originals.
//!
//! What is in LUKS is opened with keys of files; nobody is asked for one.
//!
//! In: a plan, disks, keys. Out: the devices of each filesystem. Must never: let what one filesystem lies on keep another
//! one from being looked at, or write to a filesystem before its bytes were looked at.

use std::collections::BTreeMap;

use super::judge::Disk;
use super::{Verdict, probe};
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
use crate::sets::set::Member;

/// Why this one is not put together here; none where it can be, or nothing has to be.
pub(super) fn left_out(
    filesystem: &SetFilesystem,
    layout: &Layout,
    volumes: &[&SetVolume],
    id: &RunId,
    keys: &Keys,
) -> Option<String> {
    if !planned::is_stacked(filesystem) {
        return None;
    }
    let mut plan = StackPlan::of(id);
    if let Err(refusal) = plan.add(0, filesystem, layout, volumes, false) {
        return Some(refusal.what);
    }
    if plan.luks && keys.is_none() {
        let hint = "luks_key_files in its plan, or --key-file";
        return Some(format!(
            "it is in LUKS, or in a volume group with what is, and there is no key ({hint})"
        ));
    }
    plan.has_tools().err()
}

/// What a filesystem is on, and the UUID that it has there.
pub(super) struct Found {
    pub device: BlockDevice,
    pub others: Vec<BlockDevice>,
    pub uuid: Option<String>,
    /// What its bytes say, where they could be read only here.
    pub bytes: Option<(Verdict, String)>,
}

impl Found {
    /// The numbers of the others.
    pub(super) fn other_numbers(&self) -> Vec<DevNo> {
        self.others.iter().map(|d| d.dev).collect()
    }
}

/// What was put together for each, by its number in the plan: or why it was not.
pub(super) type Together = BTreeMap<usize, Result<Found, String>>;

/// Whoever puts together what a plan has.
pub(super) struct Putting<'a> {
    pub on: Here<'a>,
    pub clock: &'a dyn Clock,
    pub tell: &'a dyn Fn(&str),
    pub keys: &'a Keys,
    /// What the volumes are restored from.
    pub members: &'a [Member],
    /// Filesystems whose bytes could not be read so far, by their numbers in the plan.
    pub unread: BTreeMap<usize, &'a SetFilesystem>,
}

impl Putting<'_> {
    /// Puts it together.
    pub async fn together(&self, record: &mut Record, made: &Done) -> Together {
        let ids: Vec<VolumeId> = made.volumes.iter().map(|v| v.id.clone()).collect();
        let plan = record.plan.clone();
        let Self { on, clock, tell, keys, .. } = *self;
        let up = Up { record, ids: &ids, on, clock, tell, keys };
        let standing = match up.each().await {
            Ok(standing) => standing,
            Err(why) => return plan.stack.tops.keys().map(|number| (*number, Err(why.clone()))).collect(),
        };
        let mut together = Together::new();
        for (number, standing) in standing {
            let found = match standing {
                Ok(standing) => {
                    let uuid = plan.filesystems.get(number).and_then(|f| f.uuid.clone());
                    self.found(number, standing, uuid).await
                }
                Err(why) => Err(why),
            };
            together.insert(number, found);
        }
        together
    }

    async fn found(
        &self,
        number: usize,
        standing: Standing,
        mut uuid: Option<String>,
    ) -> Result<Found, String> {
        let Standing { device, others } = standing;
        let all = [std::slice::from_ref(&device), &others].concat();
        let bytes = match self.unread.get(&number) {
            Some(filesystem) => Some(self.bytes(filesystem, &all).await?),
            None => None,
        };
        if !others.is_empty() {
            uuid = Some(stack::renew(&all).await?);
        }
        Ok(Found { device, others, uuid, bytes })
    }

    async fn bytes(
        &self,
        filesystem: &SetFilesystem,
        devices: &[BlockDevice],
    ) -> Result<(Verdict, String), String> {
        let disks = devices.iter().map(Disk::open).collect::<Result<Vec<_>, String>>()?;
        let sizes: Vec<u64> = disks.iter().map(|d| d.size).collect();
        let mut readers: Vec<Option<Disk>> = disks.into_iter().map(Some).collect();
        let said = probe::on_devices(&mut readers, &sizes, self.members, filesystem).await;
        said.map_err(|e| e.to_string())
    }
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
        let found = together.get(&number).ok_or("it is not there")?;
        return found.as_ref().map(Found::again).map_err(Clone::clone);
    }
    let PlannedFilesystem { fstype, uuid, volume, .. } =
        plan.filesystems.get(number).ok_or("it is not in the plan")?;
    let volume = made.volumes.get(*volume).ok_or("a volume was not made")?;
    let device = disks::await_filesystem(on.root, &volume.id, fstype, uuid.as_deref(), clock).await?;
    Ok(Found { device, others: Vec::new(), uuid: uuid.clone(), bytes: None })
}

impl Found {
    fn again(&self) -> Self {
        let (device, others) = (self.device.clone(), self.others.clone());
        Self { device, others, uuid: self.uuid.clone(), bytes: self.bytes.clone() }
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
