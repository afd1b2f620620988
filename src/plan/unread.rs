//! Lines of mountinfo that could not be read, and the filesystems that they may hide.
//!
//! In: [`Facts`], what is chosen. Out: volumes whose part of the set can be no more than `crash`, and notes.
//! Must never: take a line that could not be read for no filesystem.

use std::collections::BTreeSet;

use super::classify::{is_kernel_made, without_devices};
use super::select::Chosen;
use super::stack::Walk;
use crate::discover::{BadLine, DeviceKind, Facts};
use crate::ids::VolumeId;

/// Why the part of a volume is only `crash`.
const REASON: &str = "a line of mountinfo that cannot be read may be of a filesystem on it";

/// Looks at each line that could not be read: what it may hide is neither flushed nor frozen.
pub(super) fn unread(facts: &Facts, walk: &Walk<'_>, chosen: &mut Chosen) {
    for bad in &facts.unread_mounts {
        let on = volumes(facts, walk, bad);
        chosen.notes.push(format!(
            "/proc/self/mountinfo, {bad}: this line cannot be read, {}.",
            if on.is_empty() {
                "and is of no other filesystem of a set"
            } else {
                "so nothing on the volumes that it may be about is more than crash-consistent"
            }
        ));
        for volume in on.into_iter().filter(|v| chosen.volumes.contains_key(v)).collect::<Vec<_>>() {
            chosen.crash.entry(volume).or_insert_with(|| REASON.to_owned());
        }
    }
}

/// The volumes that a filesystem may be on of which only this line tells.
fn volumes(facts: &Facts, walk: &Walk<'_>, bad: &BadLine) -> BTreeSet<VolumeId> {
    let all = || facts.volumes.iter().map(|v| v.id.clone()).collect();
    match bad.dev {
        // Another line tells of it: only a path to it is not known.
        Some(dev) if facts.filesystems.iter().any(|f| f.dev == dev) => BTreeSet::new(),
        Some(dev) if dev.major != 0 => {
            let Some(device) = facts.devices.iter().find(|d| d.dev == dev) else { return all() };
            let below = walk.below(&device.name);
            let image =
                |name: &str| walk.device(name).is_some_and(|d| matches!(d.kind, DeviceKind::Loop { .. }));
            if below.iter().any(|name| image(name)) {
                return all(); // what holds the image file is below it
            }
            let on =
                facts.volumes.iter().filter(|v| v.disk.as_ref().is_some_and(|d| below.contains(&*d.name)));
            on.map(|v| v.id.clone()).collect()
        }
        Some(_) if bad.fstype.as_deref().is_some_and(is_elsewhere) => BTreeSet::new(),
        _ => all(),
    }
}

/// Is a filesystem of this type without a device number certainly on no block device of its own?
fn is_elsewhere(fstype: &str) -> bool {
    fstype == "overlay" || is_kernel_made(fstype) || without_devices(fstype) == "network"
}
