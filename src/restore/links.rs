//! Names in /dev/disk that were lost while a clone with the same name came and went.
//!
//! A name of two devices leads to one of them, and whoever gave it up must not take it from the other. udev keeps that
//! straight by files that it writes while it works on several events at once, and by reading a filesystem that is written
//! to at the same moment. So it is looked at in the end, and udev is asked to look again at what has lost a name.
//!
//! In: udev's database, /dev and /sys below a root; the volumes that were copied. Out: a `change` for each device that has
//! lost a name. Must never: make or remove a link, or tell udev of a device that has all of its names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{disks, hide, stack};
use crate::ids::VolumeId;

/// Types whose UUID is a name in /dev/disk/by-uuid.
const TYPES: [&str; 4] = ["ext4", "xfs", "btrfs", "vfat"];

/// Has udev look again at every device that has lost a name, once it has seen what went.
pub(super) async fn give_back(root: &Path, originals: &[VolumeId]) {
    if !hide::runs(root) {
        return;
    }
    hide::settle(root).await;
    let mut names = lost(root);
    names.extend(unnamed(root, originals));
    if !names.is_empty() {
        let names: Vec<String> = names.into_iter().collect();
        tracing::warn!("links in /dev/disk to {} were lost: udev looks at it again", names.join(", "));
        hide::look_again(root, &names).await;
        hide::settle(root).await;
    }
}

/// Does this link in /dev lead to something?
fn leads(root: &Path, link: &str) -> bool {
    fs::metadata(root.join("dev").join(link)).is_ok()
}

/// Devices with a link, as udev's database has it (`S:disk/by-label/data` in /run/udev/data/b259:1), that leads nowhere.
fn lost(root: &Path) -> BTreeSet<String> {
    let mut lost = BTreeSet::new();
    for entry in fs::read_dir(root.join("run/udev/data")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|n| n.strip_prefix('b')) else { continue };
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let mut links = text.lines().filter_map(|l| l.strip_prefix("S:")).filter(|l| l.starts_with("disk/"));
        // One that has gone is in the database for a moment longer.
        let device = fs::read_link(root.join("sys/dev/block").join(number)).ok();
        let device = device.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
        if let Some(device) = device.filter(|_| links.any(|l| !leads(root, l))) {
            lost.insert(device.to_owned());
        }
    }
    lost
}

/// Devices on the disks of these volumes whose filesystem has no link by its UUID: udev may have read it while it was
/// written to, and know nothing of it since.
fn unnamed(root: &Path, volumes: &[VolumeId]) -> BTreeSet<String> {
    let mut unnamed = BTreeSet::new();
    for device in stack::on(root, volumes).unwrap_or_default() {
        let uuids = TYPES.into_iter().filter_map(|fstype| disks::uuid(&device, fstype).ok().flatten());
        if uuids.into_iter().any(|uuid| !leads(root, &format!("disk/by-uuid/{uuid}"))) {
            unnamed.insert(device.name);
        }
    }
    unnamed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_device_has_lost_what_the_database_has_and_dev_has_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for folder in ["run/udev/data", "dev/disk/by-label", "dev/disk/by-uuid", "sys/dev/block"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let device = |number: &str, name: &str, links: &[&str]| {
            let text: String = links.iter().map(|l| format!("S:{l}\n")).collect();
            fs::write(root.join("run/udev/data").join(format!("b{number}")), format!("{text}E:ID_X=1\n"))
                .unwrap();
            symlink(format!("../../block/{name}"), root.join("sys/dev/block").join(number)).unwrap();
            fs::write(root.join("dev").join(name), "").unwrap();
        };
        let link = |name: &str, to: &str| symlink(to, root.join("dev").join(name)).unwrap();
        device("259:1", "nvme1n1", &["disk/by-label/btr", "disk/by-uuid/1"]);
        device("259:2", "nvme2n1", &["disk/by-label/xfs"]);
        device("259:3", "nvme3n1", &["mapper/x"]);
        link("disk/by-uuid/1", "../../nvme1n1");
        link("disk/by-label/btr", "../../nvme1n1");
        link("disk/by-label/xfs", "../../nvme2n1");
        assert!(lost(root).is_empty(), "{:?}", lost(root));
        // It led to the clone, which has gone; and the other one is not there at all.
        fs::remove_file(root.join("dev/disk/by-label/btr")).unwrap();
        link("disk/by-label/btr", "../../nvme9n1");
        fs::remove_file(root.join("dev/disk/by-label/xfs")).unwrap();
        assert_eq!(lost(root).into_iter().collect::<Vec<_>>(), ["nvme1n1", "nvme2n1"]);
        // Of a device that has gone, nothing is lost.
        fs::remove_file(root.join("sys/dev/block/259:2")).unwrap();
        assert_eq!(lost(root).into_iter().collect::<Vec<_>>(), ["nvme1n1"]);
    }
}
