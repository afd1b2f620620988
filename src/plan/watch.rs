//! The block devices whose write counters witness that nothing was written, those that a run claims, and the
//! notes about the others.
//!
//! In: what is in the set. Out: witnesses and notes. Must never: watch a device that is written to for good
//! reasons (swap; a disk whose partitions are in the set, whose counter is the sum of theirs).

use std::collections::BTreeSet;

use super::WitnessDevice;
use super::stack::Walk;
use crate::discover::{BlockDevice, DeviceKind, Facts, Filesystem};
use crate::ids::VolumeId;
use crate::path_encoding::shown;

/// Nearly every image has a BIOS boot partition (1 to 4 MiB): watched like all others, but not worth a note.
const TOO_SMALL_FOR_DATA: u64 = 8 << 20;

pub(super) fn witness(device: &BlockDevice) -> WitnessDevice {
    WitnessDevice { name: device.name.clone(), dev: device.dev, stat: device.stat.clone() }
}

/// Devices on volumes of the set that no filesystem of the set is on.
pub(super) struct Beside {
    pub witnesses: Vec<WitnessDevice>,
    pub beneath: Vec<WitnessDevice>,
    pub notes: Vec<String>,
}

/// Devices that are used, or could be, without a filesystem in `known` on them. A device with others above it
/// is written to through those, or only by the volume manager. A loop device over an image file is written to
/// through the filesystem that has the file.
pub(super) fn without_filesystem<'a>(
    facts: &'a Facts,
    known: &BTreeSet<String>,
) -> impl Iterator<Item = &'a BlockDevice> {
    let has_above: BTreeSet<&str> =
        facts.devices.iter().flat_map(|d| d.below.iter().map(String::as_str)).collect();
    facts.devices.iter().filter(move |d| !known.contains(&d.name) && !has_above.contains(d.name.as_str()))
}

/// Is it too small for anything but a boot loader?
pub(super) fn is_trifling(device: &BlockDevice) -> bool {
    device.size <= TOO_SMALL_FOR_DATA
}

/// Sorts every device on `volumes` (those above crash consistency) that no filesystem in `known` is on.
pub(super) fn beside(
    facts: &Facts,
    walk: &Walk<'_>,
    volumes: &BTreeSet<&VolumeId>,
    known: &BTreeSet<String>,
) -> Beside {
    let in_set = facts.volumes.iter().filter(|v| volumes.contains(&v.id));
    let disks: Vec<(&str, &VolumeId)> =
        in_set.filter_map(|v| Some((v.disk.as_ref()?.name.as_str(), &v.id))).collect();
    // All but loop devices have claimed what they are on, so nobody can mount it.
    let claims = |d: &&BlockDevice| !matches!(d.kind, DeviceKind::Loop { .. });
    let has_above: BTreeSet<&str> =
        facts.devices.iter().filter(claims).flat_map(|d| d.below.iter().map(String::as_str)).collect();
    let mut beside = Beside { witnesses: Vec::new(), beneath: Vec::new(), notes: Vec::new() };
    let (mut swap, mut raw) = (Vec::new(), Vec::new());
    for device in &facts.devices {
        // A device with others above it is written to through those, or only by the volume manager. A loop
        // device over an image file is written to through the filesystem that has the file.
        let beneath = has_above.contains(device.name.as_str());
        if known.contains(&device.name) && !beneath {
            continue;
        }
        let below = walk.below(&device.name);
        let on = disks.iter().find(|(disk, _)| below.contains(disk));
        let Some((_, volume)) = on else { continue };
        if beneath {
            beside.beneath.push(witness(device));
        } else if device.size == 0 {
            // An array that is not running, a driver without a medium: it holds nothing.
        } else if device.swap {
            swap.push(format!("{} ({volume})", Walk::label(device)));
        } else {
            if !is_trifling(device) {
                raw.push(format!("{} ({volume})", Walk::label(device)));
            }
            beside.witnesses.push(witness(device));
        }
    }
    if !swap.is_empty() {
        beside.notes.push(format!("Swap is not data, so it is not watched: {}.", swap.join(", ")));
    }
    if !raw.is_empty() {
        beside.notes.push(format!(
            "Without a mounted filesystem, and claimed over the window, so that nothing uses it: {}.",
            raw.join(", ")
        ));
    }
    beside
}

/// Swap files on filesystems of the set: swapping out bypasses the freeze and raises the witness's counter.
pub(super) fn swap_files(facts: &Facts, quiet: impl Fn(&Filesystem) -> bool) -> Option<String> {
    let on_quiet = facts.swap_files.iter().filter(|s| {
        let holder = s.superblock.and_then(|dev| facts.filesystems.iter().find(|f| f.dev == dev));
        // One that cannot be told may be on any.
        s.superblock.is_none() || holder.is_some_and(&quiet)
    });
    let files: Vec<_> = on_quiet.map(|s| shown(&s.path)).collect();
    (!files.is_empty()).then(|| {
        format!(
            "Swapping to a file in the window counts as a write, which lowers the set to crash: {}.",
            files.join(", ")
        )
    })
}
