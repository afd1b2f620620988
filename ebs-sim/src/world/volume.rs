//! A volume, its attachment and the names that attachments get.
//!
//! In: what was asked for. Out: facts for the answers. It must never know more of files and devices than
//! their names.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::Window;
use crate::ids::VolumeId;
use crate::scenario::{Kind, Scenario};
use crate::units::GIB;

/// A volume, or an instance-store disk, which EC2 does not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name in the scenario.
    pub name: String,
    /// The attachment's device name.
    pub device_name: String,
    /// Its real size; EC2 reports it in GiB, rounded up.
    pub size_bytes: u64,
    /// `gp3` …
    pub volume_type: String,
    /// How it looks to the instance.
    pub kind: Kind,
    /// Whether it is the root volume.
    pub boot: bool,
    /// Whether it is attached, as EC2 sees it.
    pub attached: bool,
    /// Whether EC2 reports it as encrypted.
    pub encrypted: bool,
    /// Provisioned IOPS.
    pub iops: Option<u32>,
    /// Provisioned throughput.
    pub throughput: Option<u32>,
    /// When it was made and attached.
    pub since: Timestamp,
    /// Its window in the pool; none when a fault made it up.
    pub window: Option<Window>,
    /// Its device.
    pub loop_device: Option<PathBuf>,
}

impl Volume {
    /// Its size as EC2 reports it.
    pub fn size_gib(&self) -> u64 {
        self.size_bytes.div_ceil(GIB)
    }

    /// Whether EC2 knows it at all.
    pub fn is_ebs(&self) -> bool {
        self.kind != Kind::InstanceStore
    }
}

/// Hands out the device names that nobody asked for.
pub struct DeviceNames {
    taken: Vec<String>,
    root: String,
}

impl DeviceNames {
    /// Those that the scenario leaves over.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            taken: scenario.volumes.iter().filter_map(|v| v.device.clone()).collect(),
            root: scenario.instance.root_device_name.clone().unwrap_or_else(|| "/dev/xvda".into()),
        }
    }

    /// The next one.
    pub fn next(&mut self, boot: bool) -> String {
        if boot {
            return self.root.clone();
        }
        let name = ('f'..='z')
            .map(|letter| format!("/dev/sd{letter}"))
            .chain((0..).map(|n| {
                format!(
                    "/dev/xvd{}{}",
                    char::from(b'b' + (n / 26 % 24) as u8),
                    char::from(b'a' + (n % 26) as u8)
                )
            }))
            .find(|name| !self.taken.contains(name))
            .unwrap_or_default();
        self.taken.push(name.clone());
        name
    }
}
