//! A volume made of a snapshot, mounted beside the original.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Rig, ebs_sim, sh};

/// Gone with the test.
pub struct Copy {
    sim: PathBuf,
    device: String,
    pub at: PathBuf,
}

impl Copy {
    /// Of this snapshot, at `TEMP/NAME`.
    pub fn mount(rig: &Rig, snapshot: &str, name: &str) -> Self {
        let device = rig.sim(&["snapshot-device", snapshot]).trim().to_owned();
        let copy = Self { sim: rig.path("sim"), device, at: rig.path(name) };
        std::fs::create_dir_all(&copy.at).unwrap();
        // -p: without it a cache may answer for what had the device before.
        let fstype = sh("blkid", &["-p", "-o", "value", "-s", "TYPE", &copy.device]);
        // The original is mounted too, and XFS refuses a second one of its UUID.
        let options = if fstype.trim() == "xfs" { "nouuid" } else { "defaults" };
        sh("mount", &["-o", options, &copy.device, copy.at.to_str().unwrap()]);
        copy
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
        // A command in ebs-sim's view, or another test's agent, has a copy of the mount for a moment. What
        // stays is cleaned up with the rig.
        let end = Instant::now() + Duration::from_secs(10);
        let release = || {
            let mut command = Command::new(ebs_sim());
            command.args(["release-device", &self.device]).env("EBS_SIM_DIR", &self.sim);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        while !release() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
