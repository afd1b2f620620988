//! An AMI: what an instance is launched from.
//!
//! In: what RegisterImage was given, and the instance's own AMI. Out: facts for the answers. It must never
//! read the clock: `now` comes in.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, SnapshotId};
use crate::scenario::{LINUX, Scenario, VolumeKind};
use crate::units::GIB;
use crate::world::Sharing;

/// The account that Amazon's own Linux images belong to.
const AMAZON: &str = "137112412989";
/// How long a new image is `pending`.
const PENDING: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ami {
    pub id: ImageId,
    pub region: String,
    /// Its name, which no other has in its Region and account.
    pub name: String,
    pub description: Option<String>,
    /// The account it belongs to.
    pub owner: String,
    /// `amazon`, for those that are Amazon's.
    pub owner_alias: Option<String>,
    /// Who else may launch it.
    pub shared: Sharing,
    /// `x86_64` …
    pub architecture: String,
    /// `hvm` or `paravirtual`.
    pub virtualization: String,
    /// Enhanced networking with ENA.
    pub ena: bool,
    /// `simple`
    pub sriov: Option<String>,
    /// `uefi` …
    pub boot_mode: Option<String>,
    /// `v2.0`
    pub tpm: Option<String>,
    /// `v2.0`
    pub imds: Option<String>,
    /// The variables that its instances boot with.
    pub uefi_data: Option<String>,
    /// `aki-…`
    pub kernel: Option<String>,
    /// `ari-…`
    pub ramdisk: Option<String>,
    /// Where its root volume is.
    pub root_device_name: String,
    /// Its block devices.
    pub mapping: Vec<Mapped>,
    /// How its instances are billed: PlatformDetails and UsageOperation.
    #[serde(default = "linux")]
    pub billing: (String, String),
    /// When it was registered.
    pub created: Timestamp,
    /// Whether nothing can be launched from it until it is enabled again.
    #[serde(default)]
    pub disabled: bool,
    /// From when on it is deprecated.
    #[serde(default)]
    pub deprecate_at: Option<Timestamp>,
    /// Until then nobody finds it.
    #[serde(default)]
    pub visible_from: Option<Timestamp>,
    /// What it is a copy of.
    #[serde(default)]
    pub copied: Option<Copied>,
}

/// The billing of what is registered.
pub fn linux() -> (String, String) {
    (LINUX.0.into(), LINUX.1.into())
}

/// How an AMI came to be by CopyImage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The source's Region.
    pub region: String,
    /// The source.
    pub image: ImageId,
    /// How long it is `pending`: until the last of its snapshots is completed.
    pub takes: Duration,
    /// Why it ends in `failed`, when it does.
    pub failure: Option<String>,
    /// The client token that made it, and what else was asked for.
    pub token: Option<(String, String)>,
}

/// One block device of an AMI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// `/dev/sdf`
    pub device: String,
    pub target: Target,
}

/// What is at a device name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A volume.
    Ebs(Ebs),
    /// `ephemeral0`
    Virtual(String),
    /// Nothing, on purpose.
    Nothing,
}

/// A volume that an instance is launched with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ebs {
    /// What it is made from.
    pub snapshot: Option<SnapshotId>,
    pub size_gib: u64,
    /// `gp3` …
    pub volume_type: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
    /// As its snapshot.
    pub encrypted: bool,
    /// Provisioned IOPS.
    pub iops: Option<u32>,
    /// Provisioned throughput.
    pub throughput: Option<u32>,
}

impl Ami {
    /// The AMI that the scenario's instance was launched from: Amazon's, and public.
    pub fn of_instance(scenario: &Scenario, launched: Timestamp) -> Self {
        let instance = &scenario.instance;
        let boot = scenario.volumes.iter().find(|volume| volume.boot);
        let root = instance.root_device_name.clone();
        let root = boot.and_then(|volume| volume.device.clone()).or(root);
        let root = root.unwrap_or_else(|| "/dev/xvda".into());
        let xen = scenario.volumes.iter().any(|volume| volume.kind == VolumeKind::Xen);
        Self {
            id: ImageId::parse(&instance.image_id).unwrap_or_else(ImageId::random),
            region: instance.region.clone(),
            name: format!("al2023-ami-ebs-sim-{}", instance.architecture),
            description: Some("The image that the instance was launched from".into()),
            owner: AMAZON.into(),
            owner_alias: Some("amazon".into()),
            shared: Sharing { public: true, ..Sharing::default() },
            architecture: instance.architecture.clone(),
            virtualization: "hvm".into(),
            ena: !xen,
            sriov: instance.sriov.clone(),
            boot_mode: Some(instance.boot_mode()),
            tpm: instance.tpm.clone(),
            imds: Some("v2.0".into()),
            uefi_data: None,
            kernel: None,
            ramdisk: None,
            root_device_name: root.clone(),
            mapping: vec![Mapped {
                device: root,
                target: Target::Ebs(Ebs {
                    // Amazon's, so that no Describe of this account knows it.
                    snapshot: Some(SnapshotId::random()),
                    size_gib: boot.map_or(8, |volume| volume.size.0.div_ceil(GIB)),
                    volume_type: boot.map_or_else(|| "gp3".into(), |volume| volume.volume_type.clone()),
                    delete_on_termination: true,
                    encrypted: false,
                    iops: None,
                    throughput: None,
                }),
            }],
            billing: (instance.platform_details.clone(), instance.usage_operation.clone()),
            created: launched,
            disabled: false,
            deprecate_at: None,
            visible_from: None,
            copied: None,
        }
    }

    /// `pending`, `available`, `failed` or `disabled`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.disabled {
            return "disabled";
        }
        let takes = self.copied.as_ref().map_or(PENDING, |copied| copied.takes.max(PENDING));
        let ready = self.created.checked_add(takes).unwrap_or(Timestamp::MAX);
        if now >= ready && self.failure().is_some() {
            return "failed";
        }
        // Amazon's was there before the instance.
        if self.owner_alias.is_some() || now >= ready { "available" } else { "pending" }
    }

    /// Why it failed, or will.
    pub fn failure(&self) -> Option<&str> {
        self.copied.as_ref()?.failure.as_deref()
    }

    /// Whether it is deprecated by now.
    pub fn is_deprecated(&self, now: Timestamp) -> bool {
        self.deprecate_at.is_some_and(|at| now >= at)
    }

    /// Whether Describe calls do not know it yet.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.visible_from.is_some_and(|from| now < from)
    }

    /// Whether an account sees it.
    pub fn is_visible_to(&self, account: &str) -> bool {
        self.owner == account || self.shared.public || self.shared.users.contains(account)
    }

    /// Its volumes, with their device names.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, &Ebs)> {
        self.mapping.iter().filter_map(|mapped| match &mapped.target {
            Target::Ebs(ebs) => Some((mapped.device.as_str(), ebs)),
            Target::Virtual(_) | Target::Nothing => None,
        })
    }

    /// Whether one of its volumes is made from this snapshot.
    pub fn uses(&self, snapshot: &SnapshotId) -> bool {
        self.volumes().any(|(_, ebs)| ebs.snapshot.as_ref() == Some(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instances_image_is_amazons_and_has_its_root() {
        let mut scenario = Scenario::default();
        scenario.volumes.push("name=root,size=3GiB,boot,type=gp2".parse().expect("a good spec"));
        let ami = Ami::of_instance(&scenario, Timestamp::UNIX_EPOCH);
        assert_eq!(ami.owner_alias.as_deref(), Some("amazon"));
        assert_eq!(ami.state(Timestamp::UNIX_EPOCH), "available");
        let volumes: Vec<_> = ami.volumes().map(|(name, ebs)| (name, ebs.size_gib)).collect();
        assert_eq!(volumes, [("/dev/xvda", 3)]);
    }

    #[test]
    fn a_new_image_is_pending_for_a_moment() {
        let mut ami = Ami::of_instance(&Scenario::default(), Timestamp::UNIX_EPOCH);
        ami.owner_alias = None;
        assert_eq!(ami.state(Timestamp::UNIX_EPOCH), "pending");
        assert_eq!(ami.state(Timestamp::from_second(1).expect("in range")), "available");
    }
}
