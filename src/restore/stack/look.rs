//! What lies on the disks of restored volumes, as the kernel says.
//!
//! In: /sys below a root, volume ids. Out: devices. Must never: go by a name: what lies on a disk of a restore is of that
//! restore, whatever it is called, and what has another leg elsewhere is not of it alone.

use std::collections::BTreeSet;
use std::path::Path;

use crate::discover::volumes::serial_volume;
use crate::host::block::{BlockDevice, devices};
use crate::ids::VolumeId;

/// All devices of this host.
pub(super) fn all(root: &Path) -> Result<Vec<BlockDevice>, String> {
    devices(root).map_err(|e| e.to_string())
}

/// The disks of these volumes that are here, and everything that lies on them: partitions, arrays, and so on up.
///
/// # Errors
/// When /sys cannot be read.
pub(in crate::restore) fn on(root: &Path, volumes: &[VolumeId]) -> Result<Vec<BlockDevice>, String> {
    let all = all(root)?;
    let is_one = |d: &&BlockDevice| serial_volume(d).is_some_and(|id| volumes.contains(&id));
    let disks: Vec<&BlockDevice> = all.iter().filter(is_one).collect();
    let found = above(&all, disks);
    Ok(found.into_iter().cloned().collect())
}

/// These, and what lies on them.
pub(super) fn above<'d>(all: &'d [BlockDevice], of: Vec<&'d BlockDevice>) -> Vec<&'d BlockDevice> {
    let mut found = of;
    let mut names: BTreeSet<&str> = found.iter().map(|d| d.name.as_str()).collect();
    loop {
        let more: Vec<&BlockDevice> = all
            .iter()
            .filter(|d| !names.contains(d.name.as_str()))
            .filter(|d| d.below.iter().any(|b| names.contains(b.as_str())))
            .collect();
        if more.is_empty() {
            return found;
        }
        names.extend(more.iter().map(|d| d.name.as_str()));
        found.extend(more);
    }
}

/// What lies directly on this one.
pub(super) fn directly_on<'d>(all: &'d [BlockDevice], name: &str) -> Vec<&'d BlockDevice> {
    all.iter().filter(|d| d.below.iter().any(|b| b == name)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::block::DeviceKind;

    pub(in crate::restore::stack) fn device(name: &str, kind: DeviceKind, below: &[&str]) -> BlockDevice {
        BlockDevice {
            name: name.into(),
            dev: crate::ids::DevNo { major: 259, minor: 0 },
            kind,
            below: below.iter().map(|b| (*b).to_owned()).collect(),
            size: 1 << 30,
            stat: "/".into(),
            swap: false,
        }
    }

    #[test]
    fn all_that_lies_on_a_disk_is_found_and_nothing_of_others() {
        let disk = || DeviceKind::Disk { model: String::new(), serial: String::new(), xen: false };
        let dm = |uuid: &str| DeviceKind::Dm { name: "x".into(), uuid: uuid.into() };
        let all = [
            device("nvme1n1", disk(), &[]),
            device("nvme2n1", disk(), &[]),
            device("nvme3n1", disk(), &[]),
            device("nvme1n1p1", DeviceKind::Partition { number: 1 }, &["nvme1n1"]),
            device("md100", DeviceKind::Md { level: "raid1".into() }, &["nvme1n1p1", "nvme2n1"]),
            device("dm-1", dm("CRYPT-LUKS2-a-b"), &["md100"]),
            device("dm-0", dm("LVM-ab"), &["nvme3n1"]),
        ];
        let names = |of: Vec<&BlockDevice>| of.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(above(&all, vec![&all[0]])), ["nvme1n1", "nvme1n1p1", "md100", "dm-1"]);
        assert_eq!(names(above(&all, vec![&all[2]])), ["nvme3n1", "dm-0"]);
        assert_eq!(names(directly_on(&all, "nvme2n1")), ["md100"]);
    }
}
