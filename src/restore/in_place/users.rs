//! Who uses the disks of volumes that are to go, beside what is mounted of them here.
//!
//! In: volumes, /proc and /sys below a root. Out: [`Busy`] or a refusal, with names. Must never: take whoever only reads for
//! nobody: it would read errors, or the other volume. Whoever comes later is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::disks;
use super::super::plan::{Refusal, no};
use super::Busy;
use crate::host::mountinfo::{MountLine, MountTree};
use crate::host::{block, device_users};
use crate::ids::{DevNo, VolumeId};
use crate::path_encoding::shown;

/// What udev and the like look at for a moment they have let go of by then.
pub const A_MOMENT: Duration = Duration::from_secs(2);

/// Waits until no process has a disk of these volumes open or mapped without a mount, as a database on a raw device has, or
/// dd: no claim shows that.
///
/// # Errors
/// Who still has.
pub async fn nobody_has(
    root: &Path,
    volumes: &[VolumeId],
    patience: Duration,
    tell: &dyn Fn(&str),
) -> Result<(), Busy> {
    let busy = |what: String| Busy { what, units: Vec::new() };
    let end = Instant::now() + patience;
    let mut devices = BTreeMap::new();
    for volume in volumes {
        let found = disks::of(root, volume).map_err(busy)?;
        devices.extend(found.into_iter().map(|d| (d.dev, format!("{} of {volume}", d.name))));
    }
    if devices.is_empty() {
        return Ok(());
    }
    let wanted: BTreeSet<DevNo> = devices.keys().copied().collect();
    loop {
        let (of, at) = (wanted.clone(), root.to_owned());
        let look = move || device_users::openers(&at, &of, device_users::LIMIT);
        let seen = tokio::task::spawn_blocking(look).await.map_err(|e| busy(e.to_string()))?;
        let told = |(dev, how): (&DevNo, &BTreeSet<String>)| {
            let how: Vec<&str> = how.iter().map(String::as_str).collect();
            format!("{}: {}", devices.get(dev).map_or("", String::as_str), how.join(", "))
        };
        let found: Vec<String> = seen.found.iter().map(told).collect();
        if found.is_empty() {
            if let Some(why) = seen.incomplete {
                tell(&format!("whether something has the disks open is not known: {why}"));
            }
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(busy(found.join("; ")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Where a device is mounted in other mount namespaces, in words; none where that is not to be seen.
pub(super) fn elsewhere(root: &Path, dev: DevNo) -> Option<String> {
    let users = device_users::mounts_anywhere(root, &BTreeSet::from([dev]), device_users::LIMIT);
    let found: Vec<&str> = users.found.get(&dev)?.iter().map(String::as_str).collect();
    Some(found.join(", "))
}

/// Refuses a file on one of these mounts that is used as swap: no process has it open, and umount(2) only says "busy".
pub(super) fn no_swap_file(root: &Path, lines: &[MountLine], ids: &BTreeSet<u32>) -> Result<(), Refusal> {
    let tree = MountTree::new(lines);
    let on_one = |path: &PathBuf| tree.mount_of(path).is_some_and(|mount| ids.contains(&mount.id));
    match block::swaps(root).into_iter().filter(|s| s.file).map(|s| s.path).find(on_one) {
        None => Ok(()),
        Some(file) => {
            let file = shown(&file);
            no(format!("{file} is used as swap, on what would be unmounted"), format!("swapoff {file} first"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mountinfo;

    #[test]
    fn a_swap_file_is_refused_only_on_what_would_go() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        let swaps = |lines: &str| {
            let text = format!("Filename Type Size Used Priority\n{lines}");
            std::fs::write(root.path().join("proc/swaps"), text).unwrap();
        };
        let table = b"1 1 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /data rw - ext4 /dev/b rw\n";
        let lines = mountinfo::parse(table).lines;
        let refused = |ids: &[u32]| no_swap_file(root.path(), &lines, &ids.iter().copied().collect());
        assert!(refused(&[2]).is_ok(), "there is no swap");
        swaps("/data/my\\040swap file 1024 0 -2\n/dev/c partition 1024 0 -3\n");
        let refusal = refused(&[2]).unwrap_err();
        assert!(refusal.what.contains("/data/my swap is used as swap"), "{refusal}");
        assert!(refusal.hint.contains("swapoff"), "{}", refusal.hint);
        assert!(refused(&[1]).is_ok(), "it is on the other one");
        swaps("/data partition 1024 0 -2\n");
        assert!(refused(&[2]).is_ok(), "that is no file");
    }
}
