//! The account as EC2 sees it: one instance, its volumes, the snapshots, the tags.
//!
//! In: a scenario, and changes by the actions. Out: facts for the answers. It must never know about files
//! and devices beyond naming them, and never read the clock: `now` comes in.

mod instance;
mod snapshot;
mod volume;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::Window;
use crate::ids::{InstanceId, SnapshotId, VolumeId, random_hex};
use crate::scenario::{Kind, Scenario};
use crate::units::GIB;

pub use instance::{GROUP, INTERFACE, MAC, SUBNET, VPC};
pub use snapshot::{Image, Snapshot};
use volume::DeviceNames;
pub use volume::Volume;

/// Tags of one resource.
pub type Tags = BTreeMap<String, String>;

static NO_TAGS: Tags = Tags::new();

/// The whole account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    /// What was chosen.
    pub scenario: Scenario,
    /// The instance's launch.
    pub launched: Timestamp,
    /// `r-…`
    pub reservation_id: String,
    /// All volumes, in the order of attachment.
    pub volumes: Vec<Volume>,
    /// All snapshots of all Regions, in the order of creation.
    pub snapshots: IndexMap<SnapshotId, Snapshot>,
    /// Tags by resource id.
    pub tags: BTreeMap<String, Tags>,
    /// Denied actions, now.
    pub deny: Vec<String>,
}

impl World {
    /// The account at its beginning. `windows` are those of the scenario's volumes, in order.
    pub fn new(scenario: &Scenario, windows: &[Window], now: Timestamp) -> Self {
        let mut names = DeviceNames::new(scenario);
        let mut tags = BTreeMap::new();
        let volumes: Vec<Volume> = scenario
            .volumes
            .iter()
            .zip(windows)
            .map(|(spec, &window)| {
                let id = spec.id.clone().unwrap_or_else(VolumeId::random);
                if !spec.tags.is_empty() {
                    tags.insert(id.to_string(), spec.tags.clone());
                }
                Volume {
                    id,
                    name: spec.name.clone(),
                    device_name: spec.device.clone().unwrap_or_else(|| names.next(spec.boot)),
                    size_bytes: spec.size.0,
                    volume_type: spec.volume_type.clone(),
                    kind: spec.kind,
                    boot: spec.boot,
                    attached: !spec.detached,
                    encrypted: spec.encrypted,
                    iops: spec.iops,
                    throughput: spec.throughput,
                    since: now,
                    window: Some(window),
                    loop_device: None,
                }
            })
            .collect();
        if !scenario.instance.tags.is_empty() {
            tags.insert(scenario.instance.id.to_string(), scenario.instance.tags.clone());
        }
        Self {
            scenario: scenario.clone(),
            launched: now,
            reservation_id: format!("r-{}", random_hex()),
            volumes,
            snapshots: IndexMap::new(),
            tags,
            deny: scenario.iam.deny.clone(),
        }
    }

    /// The instance's id.
    pub fn instance_id(&self) -> &InstanceId {
        &self.scenario.instance.id
    }

    /// The device name of the root volume, which an instance has even when its root is not simulated.
    pub fn root_device_name(&self) -> String {
        self.volumes
            .iter()
            .find(|volume| volume.boot)
            .map(|volume| volume.device_name.clone())
            .or_else(|| self.scenario.instance.root_device_name.clone())
            .unwrap_or_else(|| "/dev/xvda".into())
    }

    /// The volumes that EC2 knows.
    pub fn ebs(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().filter(|volume| volume.is_ebs())
    }

    /// The volumes that are attached to the instance.
    pub fn attached(&self) -> impl Iterator<Item = &Volume> {
        self.ebs().filter(|volume| volume.attached)
    }

    /// A resource's tags.
    pub fn tags_of(&self, id: &str) -> &Tags {
        self.tags.get(id).unwrap_or(&NO_TAGS)
    }

    /// The Region that the instance is in.
    pub fn home(&self) -> &str {
        &self.scenario.instance.region
    }

    /// Every Region that answers, the instance's first.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.home()).chain(self.scenario.other_regions.iter().map(String::as_str))
    }

    /// A snapshot, when it is in this Region.
    pub fn snapshot(&self, region: &str, id: &SnapshotId) -> Option<&Snapshot> {
        self.snapshots.get(id).filter(|snapshot| snapshot.region == region)
    }

    /// Detaches a volume behind everybody's back: the one that is named, or the last data volume.
    pub fn detach_silently(&mut self, volume: Option<&str>) {
        let meant = |known: &&mut Volume| match volume {
            Some(name) => known.id.as_str() == name || known.name == name,
            None => !known.boot,
        };
        let mut attached = self.volumes.iter_mut().rev().filter(|known| known.is_ebs() && known.attached);
        if let Some(known) = attached.find(meant) {
            known.attached = false;
        }
    }

    /// A volume that was attached behind everybody's back. It has no device and no data.
    pub fn attach_unknown_volume(&mut self, now: Timestamp) {
        let taken: Vec<_> = self.volumes.iter().map(|v| v.device_name.clone()).collect();
        let device_name = ('f'..='z')
            .map(|letter| format!("/dev/sd{letter}"))
            .find(|name| !taken.contains(name))
            .unwrap_or_else(|| "/dev/sdzz".into());
        self.volumes.push(Volume {
            id: VolumeId::random(),
            name: format!("unknown{}", self.volumes.len()),
            device_name,
            size_bytes: GIB,
            volume_type: "gp3".into(),
            kind: Kind::Nvme,
            boot: false,
            attached: true,
            encrypted: false,
            iops: None,
            throughput: None,
            since: now,
            window: None,
            loop_device: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_without_a_device_name_get_free_ones() {
        let mut scenario = Scenario::default();
        for spec in [
            "name=root,size=1MiB,boot",
            "name=a,size=1MiB,device=/dev/sdf",
            "name=b,size=1MiB",
            "name=nvme,size=1MiB,kind=instance-store,device=ephemeral0",
        ] {
            scenario.volumes.push(spec.parse().expect("a good spec"));
        }
        let windows = crate::host::lay_out(&[1 << 20; 4]);
        let world = World::new(&scenario, &windows, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = world.attached().map(|v| v.device_name.as_str()).collect();
        assert_eq!(names, ["/dev/xvda", "/dev/sdf", "/dev/sdg"]);
        assert_eq!(world.root_device_name(), "/dev/xvda");
    }
}
