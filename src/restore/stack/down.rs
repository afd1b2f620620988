//! What lies on the disks of a restore is taken down, topmost first.
//!
//! In: the volumes of a restore, unmounted. Out: nothing lies on their disks. Must never: take down what lies on another
//! disk, too, or go by a name: device mapper's devices are removed by their UUIDs, arrays stopped by their numbers.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::look;
use super::tool::Tool;
use crate::clock::Clock;
use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::device;
use crate::ids::VolumeId;
use crate::path_encoding::printable;
use crate::quiesce::query;

/// How long something may be in use after its last user has gone: udev looks at what was closed.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// The next to be taken down: what nothing lies on. None when only disks and partitions are left.
fn next(of: &[BlockDevice]) -> Result<Option<&BlockDevice>, String> {
    let names: BTreeSet<&str> = of.iter().map(|d| d.name.as_str()).collect();
    let is_ours = |d: &BlockDevice| d.below.iter().all(|b| names.contains(b.as_str()));
    let made = |d: &&BlockDevice| !matches!(d.kind, DeviceKind::Disk { .. } | DeviceKind::Partition { .. });
    let Some(top) =
        of.iter().filter(made).find(|d| !of.iter().any(|o| o.below.contains(&d.name) && made(&o)))
    else {
        return Ok(None);
    };
    if !is_ours(top) {
        let other = top.below.iter().find(|b| !names.contains(b.as_str())).map_or("", String::as_str);
        return Err(format!(
            "{} lies on {other}, too, which is not of this restore: take it down by hand",
            label(top)
        ));
    }
    Ok(Some(top))
}

/// `dm-3 (vg0_r1a2b3c4d-data)`
pub(super) fn label(of: &BlockDevice) -> String {
    match &of.kind {
        DeviceKind::Dm { name, .. } => format!("{} ({})", of.name, printable(name)),
        _ => of.name.clone(),
    }
}

/// The command that takes it down.
fn command(of: &BlockDevice) -> Result<Tool, String> {
    match &of.kind {
        DeviceKind::Dm { uuid, .. } if !uuid.is_empty() => {
            Ok(Tool::new("dmsetup", ["remove", "--retry", "--uuid", uuid]))
        }
        DeviceKind::Dm { .. } => Ok(Tool::new(
            "dmsetup",
            [
                "remove".to_owned(),
                "--retry".to_owned(),
                "-j".to_owned(),
                of.dev.major.to_string(),
                "-m".to_owned(),
                of.dev.minor.to_string(),
            ],
        )),
        DeviceKind::Md { .. } => {
            let node = device::node(of.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", of.name))?;
            Ok(Tool::new("mdadm", ["--stop".to_owned(), node.display().to_string()]))
        }
        _ => Err(format!("{} uses a disk of this restore: take it down by hand", of.name)),
    }
}

/// Takes down everything that lies on the disks of these volumes.
///
/// # Errors
/// The first that stays.
pub(in crate::restore) async fn down(
    root: &Path,
    volumes: &[VolumeId],
    clock: &dyn Clock,
    tell: &dyn Fn(&str),
) -> Result<(), String> {
    let mut end = clock.elapsed() + LIMIT;
    let mut before = None;
    let mut went = false;
    loop {
        let of = look::on(root, volumes)?;
        let Some(top) = next(&of)? else { return Ok(()) };
        if before.as_ref() != Some(&top.dev) {
            end = clock.elapsed() + LIMIT;
            before = Some(top.dev);
            went = false;
        }
        match command(top)?.run().await {
            Ok(()) if !went => {
                tell(&format!("{} is taken down", label(top)));
                went = true;
                end = clock.elapsed() + LIMIT;
            }
            Ok(()) | Err(_) if clock.elapsed() < end => clock.pause(PAUSE).await,
            Ok(()) => return Err(format!("{} was taken down, and is still there", label(top))),
            Err(why) => return Err(format!("{} cannot be taken down: {why}", label(top))),
        }
    }
}

/// Removes what LVM or cryptsetup had begun to make when they were killed: device mapper's devices that have no table yet.
/// /sys does not have them, and they lie on nothing; the mark in their names is that of one restore.
///
/// # Errors
/// When they cannot be listed, or one stays.
pub(in crate::restore) async fn remove_unfinished(
    root: &Path,
    mark: &str,
    tell: &dyn Fn(&str),
) -> Result<(), String> {
    if !root.join("sys/class/misc/device-mapper").exists() {
        return Ok(());
    }
    let columns = ["info", "-c", "--noheadings", "--separator", "|", "-o", "segments,open,uuid,name"];
    let listed = query::query_alone(&query::program("dmsetup")?, &columns).await?;
    for (uuid, name) in unfinished(&listed, mark) {
        Tool::new("dmsetup", ["remove", "--retry", "--uuid", uuid]).run().await?;
        tell(&format!("{}, which was not finished, is removed", printable(name)));
    }
    Ok(())
}

/// UUIDs and names of those without a table that nobody has open.
fn unfinished<'l>(listed: &'l str, mark: &str) -> Vec<(&'l str, &'l str)> {
    let mark = format!("_r{mark}");
    let one = |line: &'l str| {
        let mut columns = line.trim().splitn(4, '|');
        let (tables, open) = (columns.next()?, columns.next()?);
        let (uuid, name) = (columns.next()?, columns.next()?);
        let made = uuid.starts_with("LVM-") || uuid.starts_with("CRYPT-");
        (tables == "0" && open == "0" && made && name.contains(&mark)).then_some((uuid, name))
    };
    // Less would be in anybody's names.
    if mark.len() < 10 { Vec::new() } else { listed.lines().filter_map(one).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::device;
    use super::*;

    fn disk(name: &str) -> BlockDevice {
        device(name, DeviceKind::Disk { model: String::new(), serial: String::new(), xen: false }, &[])
    }

    fn dm(name: &str, uuid: &str, below: &[&str]) -> BlockDevice {
        device(name, DeviceKind::Dm { name: format!("{name}x"), uuid: uuid.into() }, below)
    }

    #[test]
    fn what_nothing_lies_on_goes_first_and_by_its_uuid() {
        let md = device("md100", DeviceKind::Md { level: "raid1".into() }, &["nvme1n1", "nvme2n1p1"]);
        let part = device("nvme2n1p1", DeviceKind::Partition { number: 1 }, &["nvme2n1"]);
        let mut all =
            vec![disk("nvme1n1"), disk("nvme2n1"), part, md, dm("dm-2", "CRYPT-LUKS2-a-x", &["md100"])];
        all.push(dm("dm-1", "LVM-ab", &["dm-2"]));
        let mut went = Vec::new();
        while let Some(top) = next(&all).unwrap().cloned() {
            went.push(top.name.clone());
            all.retain(|d| d.name != top.name);
        }
        assert_eq!(went, ["dm-1", "dm-2", "md100"]);
        assert_eq!(
            command(&dm("dm-1", "LVM-ab", &[])).unwrap().words(),
            "dmsetup remove --retry --uuid LVM-ab"
        );
        assert_eq!(command(&dm("dm-1", "", &[])).unwrap().words(), "dmsetup remove --retry -j 259 -m 0");
    }

    #[test]
    fn what_was_not_finished_is_known_by_its_mark_and_that_it_has_no_table() {
        let listed = "0|0|LVM-a-tpool|vg0_r1a2b3c4d-pool-tpool\n1|0|LVM-b|vg0_r1a2b3c4d-data\n0|1|LVM-c|vg0_r1a2b3c4d-x\n\
                      0|0|LVM-d|vg0-data\n0|0|other|vg0_r1a2b3c4d-y\n0|0|CRYPT-LUKS2-e|luksx_r1a2b3c4d\nNo devices found\n";
        let found: Vec<_> = unfinished(listed, "1a2b3c4d").into_iter().map(|(uuid, _)| uuid).collect();
        assert_eq!(found, ["LVM-a-tpool", "CRYPT-LUKS2-e"]);
        assert!(unfinished(listed, "").is_empty() && unfinished(listed, "9").is_empty());
    }

    #[test]
    fn what_lies_on_another_disk_too_stays() {
        let all = [disk("nvme1n1"), dm("dm-1", "LVM-ab", &["nvme1n1", "nvme9n1"])];
        assert!(next(&all).unwrap_err().contains("nvme9n1"));
        let other = device("loop3", DeviceKind::Loop { backing_file: None, superblock: None }, &["nvme1n1"]);
        assert!(command(&other).is_err());
    }
}
