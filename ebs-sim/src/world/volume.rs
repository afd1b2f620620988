//! A volume, its attachment and the names that attachments get.
//!
//! In: what was asked for. Out: facts for the answers. It must never know more of files and devices than
//! their names, and never read the clock.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Image, Origin};
use crate::ids::{InstanceId, SnapshotId, VolumeId};
use crate::scenario::{Scenario, VolumeKind};
use crate::units::GIB;
use crate::window::Window;

/// A volume, or an instance-store disk, which EC2 does not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    /// Its name in the scenario; its id, when it was made later.
    pub name: String,
    pub region: String,
    /// The Availability Zone it is in.
    pub zone: String,
    /// The device name of its attachment, or of its last one.
    pub device_name: String,
    /// Its real size; EC2 reports it in GiB, rounded up.
    pub size_bytes: u64,
    /// `gp3` …
    pub volume_type: String,
    /// How it looks to the instance.
    pub kind: VolumeKind,
    /// Whether it is the root volume of the scenario's instance.
    pub boot: bool,
    /// How far its life has come, apart from attachments.
    pub stage: Stage,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<SnapshotId>,
    pub created: Timestamp,
    /// Its attachment, as EC2 sees it.
    pub attachment: Option<Attachment>,
    /// Whether EC2 reports it as encrypted.
    pub encrypted: bool,
    /// The key that was asked for.
    pub kms_key: Option<String>,
    /// Provisioned IOPS.
    pub iops: Option<u32>,
    /// Provisioned throughput.
    pub throughput: Option<u32>,
    /// The rate of initialisation that was asked for, in MiB/s.
    pub initialization_rate: Option<u32>,
    /// The client token that made it, and what else was asked for.
    pub token: Option<(String, String)>,
    /// What it is filled with while it is creating: a private copy, which goes then.
    pub source: Option<Image>,
    /// What it was made from, and how far its initialisation is.
    #[serde(default)]
    pub origin: Origin,
    /// Its window in the pool; none when a fault made it up.
    pub window: Option<Window>,
    /// Its device, while there is one.
    pub loop_device: Option<PathBuf>,
    /// Which number its disk has in the view, while there is one.
    pub disk: Option<u32>,
}

/// A volume's life, apart from attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Its data is not there yet.
    Creating,
    /// It can be attached.
    Ready,
    /// Its space is being freed.
    Deleting,
    /// Its data could not be put there.
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// When it was asked for.
    pub since: Timestamp,
    /// How far it is.
    pub state: AttachmentState,
    /// Whether the volume goes with the instance.
    pub delete_on_termination: bool,
    /// The instance, where it is one that was launched; else it is the scenario's.
    #[serde(default)]
    pub instance: Option<InstanceId>,
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentState {
    /// The device is not there yet.
    Attaching,
    /// The device is there.
    Attached,
    /// The device is going.
    Detaching,
    /// The device would go, but somebody uses it.
    Busy,
}

impl AttachmentState {
    /// As DescribeVolumes says it.
    pub fn name(self) -> &'static str {
        match self {
            AttachmentState::Attaching => "attaching",
            AttachmentState::Attached => "attached",
            AttachmentState::Detaching => "detaching",
            AttachmentState::Busy => "busy",
        }
    }

    /// As DescribeInstances says it, which knows no `busy`.
    pub fn mapped_name(self) -> &'static str {
        match self {
            AttachmentState::Busy => "detaching",
            state => state.name(),
        }
    }
}

impl Attachment {
    pub fn complete(since: Timestamp, delete_on_termination: bool) -> Self {
        Self { since, state: AttachmentState::Attached, delete_on_termination, instance: None }
    }
}

impl Volume {
    /// Its size as EC2 reports it.
    pub fn size_gib(&self) -> u64 {
        self.size_bytes.div_ceil(GIB)
    }

    /// Whether EC2 knows it at all.
    pub fn is_ebs(&self) -> bool {
        self.kind != VolumeKind::InstanceStore
    }

    /// Whether it is attached to the scenario's instance.
    pub fn is_the_scenarios(&self) -> bool {
        self.attachment.as_ref().is_some_and(|attachment| attachment.instance.is_none())
    }

    /// Whether an attachment is coming or going.
    pub fn is_under_way(&self) -> bool {
        self.attachment.as_ref().is_some_and(|attachment| attachment.state != AttachmentState::Attached)
    }

    /// Whether its device is there, as far as its state goes.
    pub fn has_device(&self) -> bool {
        let state = self.attachment.as_ref().map(|attachment| attachment.state);
        state == Some(AttachmentState::Attached)
    }

    /// Its state as DescribeVolumes says it.
    pub fn status(&self) -> &'static str {
        match (self.stage, &self.attachment) {
            (Stage::Creating, _) => "creating",
            (Stage::Deleting, _) => "deleting",
            (Stage::Error, _) => "error",
            (Stage::Ready, Some(_)) => "in-use",
            (Stage::Ready, None) => "available",
        }
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

/// What two device names must not have in common: `/dev/sdf` and `xvdf` are one place.
pub fn attachment_point(device_name: &str) -> &str {
    let bare = device_name.strip_prefix("/dev/").unwrap_or(device_name);
    bare.strip_prefix("xvd").or_else(|| bare.strip_prefix("sd")).unwrap_or(bare)
}

/// The numbers of the disks that are there from the beginning: the root is 0, the others count backwards
/// from the last one attached. They must not follow the order of attachment, as on EC2 they do not.
pub fn first_numbers(boot: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let mut numbers = vec![0; boot.len()];
    for (at, _) in boot.iter().enumerate().rev().filter(|(_, boot)| !**boot) {
        next += 1;
        numbers[at] = next;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_many_names() {
        for name in ["/dev/sdf", "sdf", "/dev/xvdf", "xvdf"] {
            assert_eq!(attachment_point(name), "f");
        }
        assert_ne!(attachment_point("/dev/xvdba"), attachment_point("/dev/sdb"));
    }

    #[test]
    fn numbers_do_not_follow_attachment() {
        assert_eq!(first_numbers(&[false, true, false, false]), [3, 0, 2, 1]);
        assert_eq!(first_numbers(&[]), [0; 0]);
    }
}
