//! A recipe whose filesystems are on other devices by now: volumes were exchanged, or the host was booted again.
//!
//! In: a [`Recipe`], and the device that each of its filesystems is on now. Out: the recipe for these. Pure. Must never:
//! leave anything in it by which a mount of the former device would be taken for one of the new one.

use super::{Device, Recipe};

impl Recipe {
    /// The recipe for these devices, one for each filesystem; none where their numbers differ, or a filesystem has more
    /// than one device.
    #[must_use]
    pub fn moved(&self, devices: &[Device]) -> Option<Self> {
        if devices.len() != self.filesystems.len() || self.filesystems.iter().any(|f| f.devices.len() != 1) {
            return None;
        }
        let mut moved = self.clone();
        for (filesystem, device) in moved.filesystems.iter_mut().zip(devices) {
            filesystem.source.clone_from(&device.path);
            // As mountinfo will show it.
            filesystem.shown_source = device.path.to_string_lossy().into_owned();
            filesystem.devices = vec![device.clone()];
        }
        for mount in &mut moved.mounts {
            // A btrfs has a number that is no device's, and another one each time.
            if mount.dev.major != 0 {
                mount.dev = devices[mount.of].dev;
            }
        }
        Some(moved)
    }

    /// The recipe of the same filesystems at another time: a subvolume, or a folder that a mount shows, may have been made
    /// anew since, by the same name.
    #[must_use]
    pub fn of_another_time(mut self) -> Self {
        for mount in &mut self.mounts {
            if let Some(covered) = &mut mount.covered {
                covered.root = None;
            }
            let named = |o: &&str| !o.starts_with("subvolid=");
            mount.super_options = mount.super_options.split(',').filter(named).collect::<Vec<_>>().join(",");
        }
        self
    }

    /// The recipe on another boot: the numbers of what its mounts covered are of that boot.
    #[must_use]
    pub fn on_another_boot(mut self) -> Self {
        self.mounts.iter_mut().for_each(|mount| mount.covered = None);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mountinfo;
    use crate::unmount::{Wanted, recipe};

    #[test]
    fn what_was_on_the_former_device_is_not_taken_for_it() {
        let lines = |dev: &str, source: &str| {
            mountinfo::parse(format!("30 20 {dev} / /data rw - ext4 {source} rw\n").as_bytes())
                .whole()
                .unwrap()
        };
        let device = |path: &str, dev: &str| Device { path: path.into(), dev: dev.parse().unwrap() };
        let before = lines("259:1", "/dev/nvme1n1");
        let wanted = Wanted { ids: vec![30], devices: vec![device("/dev/nvme1n1", "259:1")] };
        let moved = recipe(&before, &[wanted]).unwrap().moved(&[device("/dev/nvme4n1", "259:7")]).unwrap();
        let is = |line: &mountinfo::MountLine| moved.mounts[0].line_is(&moved.filesystems[0], line);
        assert!(!is(&before[0]), "another disk may have that name by now");
        assert!(is(&lines("259:7", "/dev/nvme4n1")[0]));
        assert!(moved.moved(&[]).is_none());
    }
}
