//! The volumes of a set, next to the original.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::rig::{Rig, ebs_sim, sh};
use super::Cluster;

/// The volumes of a set, mounted next to the original.
pub struct Restored<'a> {
    rig: &'a Rig,
    devices: Vec<String>,
    mounts: Vec<PathBuf>,
    /// The data directory, its links pointing to the restored volumes.
    pub data: PathBuf,
    /// Folder of its socket.
    pub run: PathBuf,
}

impl<'a> Restored<'a> {
    /// `snapshots` by volume: of `data`, and of `wal`.
    pub fn mount(rig: &'a Rig, name: &str, data: &str, wal: &str) -> Self {
        Self::mount_folder(rig, name, data, wal, "pgdata")
    }

    /// The same, of a server whose data directory is another folder of the data volume.
    pub fn mount_folder(rig: &'a Rig, name: &str, data: &str, wal: &str, folder: &str) -> Self {
        rig.await_quiet();
        let (run, mut devices, mut mounts) = (rig.path(&format!("{name}-run")), Vec::new(), Vec::new());
        for (volume, snapshot) in [("data", data), ("wal", wal)] {
            let device = rig.sim(&["snapshot-device", snapshot]).trim().to_owned();
            let at = rig.path(&format!("{name}-{volume}"));
            std::fs::create_dir_all(&at).unwrap();
            // Two XFS of one UUID are not mounted at once without this.
            let options = if volume == "data" { "nouuid" } else { "defaults" };
            sh("mount", &["-o", options, &device, at.to_str().unwrap()]);
            devices.push(device);
            mounts.push(at);
        }
        let data = mounts[0].join(folder);
        std::fs::remove_file(data.join("postmaster.pid")).unwrap(); // the original's, which runs
        let mut links = vec![data.join("pg_wal")];
        links.extend(std::fs::read_dir(data.join("pg_tblspc")).unwrap().map(|e| e.unwrap().path()));
        for link in links {
            let target = restored(rig, name, &std::fs::read_link(&link).unwrap());
            std::fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(target, &link).unwrap();
        }
        Self { rig, devices, mounts, data, run }
    }

    /// Puts a file into the data directory.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.data.join(name);
        std::fs::write(&path, text).unwrap();
        sh("chown", &["postgres:", path.to_str().unwrap()]);
    }

    /// Starts a server on them.
    pub fn start(&self, options: &[&str]) -> Result<Cluster, String> {
        Cluster::start(&self.data, &self.run, options)
    }
}

/// Where a path on a volume is in the restored copy.
pub fn restored(rig: &Rig, name: &str, path: &Path) -> PathBuf {
    let at =
        |volume| Some(rig.path(&format!("{name}-{volume}")).join(path.strip_prefix(rig.mount(volume)).ok()?));
    at("data").or_else(|| at("wal")).unwrap()
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = Command::new("umount").arg(mount).status();
        }
        for device in &self.devices {
            // What runs in another copy of this host's mounts may still have it for a moment.
            let end = Instant::now() + Duration::from_secs(10);
            let release = || {
                let mut command = Command::new(ebs_sim());
                command.args(["release-device", device]).env("EBS_SIM_DIR", self.rig.path("sim"));
                command.output().is_ok_and(|o| o.status.success())
            };
            while !release() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
