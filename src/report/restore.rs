//! What a restore would make, for people.
//!
//! In: a plan. Out: text within 80 columns where its words allow. Must never: print what a tag says without making it
//! printable.

use std::fmt::Write;

use crate::path_encoding::{printable, shown};
use crate::restore::plan::{Reach, RestorePlan};
use crate::restore::root::RootPlan;

/// The plan.
#[must_use]
pub(crate) fn plan(plan: &RestorePlan) -> String {
    let mut text = String::new();
    let how = if plan.in_place.is_some() { "in place, " } else { "" };
    let _ = write!(text, "restore of {} {how}in {}", plan.set, plan.zone);
    for (n, volume) in plan.volumes.iter().enumerate() {
        let _ = match plan.clones.get(n) {
            Some(clone) => write!(text, "\n  {clone}  a clone of {}", volume.source),
            None => write!(text, "\n  {}  in the place of {}", volume.made_of(), volume.source),
        };
        let _ = write!(text, "\n    {} GiB {}", volume.size_gib, volume.volume_type);
        if let Some(snapshot) = volume.grown_from {
            let _ = write!(text, " (the snapshot: {snapshot} GiB)");
        }
        for (what, number) in [("IOPS", volume.iops), ("MiB/s", volume.throughput)] {
            if let Some(number) = number {
                let _ = write!(text, ", {number} {what}");
            }
        }
        if let Some(name) = &volume.device_name {
            let _ = write!(text, ", attached as {name}");
        }
        if let Some(key) = &volume.key {
            let _ = write!(text, ", key {}", printable(key));
        }
        if let Some(rate) = volume.initialization_rate {
            let _ = write!(text, ", read at {rate} MiB/s (billed by the GiB of data)");
        }
    }
    if let Some(in_place) = &plan.in_place {
        for unit in &in_place.stop_units {
            let _ = write!(text, "\n  {unit} is stopped, and started again");
        }
        for filesystem in &plan.filesystems {
            let (place, fstype) = (shown(&filesystem.source), printable(&filesystem.fstype));
            let _ = write!(text, "\n  {place} ({fstype}) is unmounted, and mounted from the set");
        }
    }
    for filesystem in plan.filesystems.iter().filter(|_| plan.in_place.is_none()) {
        for mount in &filesystem.mounts {
            let _ = write!(
                text,
                "\n  {} ({}) at {}",
                shown(&filesystem.source),
                printable(&filesystem.fstype),
                shown(&plan.place(mount))
            );
        }
    }
    for copied in &plan.copies {
        let _ = write!(text, "\n  {} is copied out of it", shown(&copied.path));
    }
    let by_hand = plan.stack.by_hand();
    if !by_hand.is_empty() {
        text.push_str("\n  put together on the new disks, as by hand:");
        by_hand.iter().for_each(|command| _ = write!(text, "\n    {}", printable(command)));
    }
    if let Some(until) = plan.until {
        let _ = write!(text, "\n  until {until:.0}: then `restore --clean-up`, or its timer, takes it back");
    }
    match (plan.reach, plan.read_only) {
        (Reach::Mounted, true) => {
            text.push_str("\n  read-only: no journal is replayed, and they keep the UUIDs of the originals");
        }
        (Reach::Mounted, false) => text.push_str("\n  each filesystem gets a UUID of its own"),
        (Reach::Attached, _) => {
            text.push_str("\n  attached, hidden from udev, LVM and md; nothing is mounted")
        }
        (Reach::Volumes, _) => {}
    }
    for note in &plan.notes {
        let _ = write!(text, "\n  note: {}", printable(note));
    }
    text
}

/// The plan of one whose volumes are thrown away.
#[must_use]
pub(crate) fn thrown_away(plan: &RestorePlan) -> String {
    let mut text = format!("{}: restored to volumes\nthat are deleted afterwards", plan.set);
    for volume in &plan.volumes {
        let name = volume.device_name.as_deref().unwrap_or("?");
        let _ = write!(
            text,
            "\n  {}  {} GiB {}, attached as {name}",
            volume.made_of(),
            volume.size_gib,
            volume.volume_type
        );
        if let Some(rate) = volume.initialization_rate {
            let _ = write!(text, "\n    read at {rate} MiB/s (billed by the GiB of data)");
        }
    }
    for filesystem in &plan.filesystems {
        let (place, fstype) = (shown(&filesystem.source), printable(&filesystem.fstype));
        let _ = write!(text, "\n  {place} ({fstype})");
    }
    text
}

/// The plan of a root.
#[must_use]
pub(crate) fn root(plan: &RootPlan) -> String {
    let this = if plan.here { ", this instance" } else { "" };
    let mut text = format!("the root of {}{this}, restored of", plan.instance);
    let _ = write!(text, "\n{}", plan.set);
    let (old, name) = (&plan.replaced, printable(&plan.device_name));
    let _ = write!(text, "\n  {}  in the place of {old}", plan.snapshot);
    let _ = write!(text, "\n    {} GiB at {name}, of the same type", plan.size_gib);
    if let Some(rate) = plan.initialization_rate {
        let _ = write!(text, ", read at {rate} MiB/s (billed by the GiB of data)");
    }
    text.push_str("\n  EC2 reboots the instance: whatever runs there ends. Stop databases before");
    let since = plan.taken.map_or_else(String::new, |t| format!(" since {t:.0}"));
    let _ = match plan.delete_replaced {
        true => write!(text, "\n  {old} is DELETED,"),
        false => write!(text, "\n  {old} is kept, detached, and billed until you delete it,"),
    };
    let _ = write!(text, "\n    with what was written to it{since}");
    for stays in &plan.stays {
        let mounts = stays.mounts.join(", ");
        let mounts = if mounts.is_empty() { "nothing mounted".to_owned() } else { mounts };
        let _ = write!(text, "\n  {} stays as it is ({mounts})", stays.volume);
    }
    for note in &plan.notes {
        let _ = write!(text, "\n  note: {}", printable(note));
    }
    text
}
