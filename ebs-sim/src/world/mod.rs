//! The account as EC2 sees it: the instance, others that were launched, volumes, snapshots, tags.
//!
//! In: a scenario, and changes by the actions. Out: facts for the answers. It must never know about files
//! and devices beyond naming them, and never read the clock: `now` comes in.

mod bin;
mod image;
mod instance;
mod key;
mod launch;
mod lock;
mod origin;
mod root;
mod snapshot;
mod share;
mod snapshots;
mod tags;
mod tier;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, InstanceId, SnapshotId, VolumeId, random_hex};
use crate::policy::Policy;
use crate::scenario::{Scenario, VolumeKind};
use crate::units::GIB;
use crate::window::{Window, place};

pub use bin::{Rule, SNAPSHOTS as SNAPSHOT_RULES, TagPattern};
pub use image::{Ami, Copied, Ebs, Mapped, Target, linux};
pub use instance::{GROUP, INTERFACE, MAC, SUBNET, VPC, dns_name};
pub use key::{DEFAULT_ALIAS, KmsKey};
pub use launch::{InstanceState, Launch, Readiness};
pub use lock::{Lock, MAX_DAYS, Mode, State, Until};
pub use origin::{Initialization, Origin, Way};
pub use root::{RootTask, TaskState};
pub use share::Block;
#[cfg(test)]
pub use snapshot::tests::snapshot as test_snapshot;
pub use snapshot::{Binned, Image, Later, NO_VOLUME, Sharing, Sizes, Snapshot};
pub use snapshots::Snapshots;
pub use tier::{Move, Tiering};
pub use volume::{Attachment, AttachmentState, Stage, Volume, attachment_point};
use volume::{DeviceNames, first_numbers};

/// Tags of one resource.
pub type Tags = BTreeMap<String, String>;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    pub scenario: Scenario,
    /// The instance's launch.
    pub launched: Timestamp,
    /// `r-…`
    pub reservation_id: String,
    /// All volumes, in the order of attachment.
    pub volumes: Vec<Volume>,
    /// The device names of the launch, without the root's: what the metadata service goes on saying.
    pub launch_devices: Vec<String>,
    /// All snapshots of all Regions, in the order of creation.
    pub snapshots: Snapshots,
    /// What is in the Recycle Bin, in the order of deletion. No other call than the bin's own knows it.
    pub bin: Snapshots,
    /// What the Recycle Bin keeps.
    pub rules: Vec<Rule>,
    /// Snapshots that were deleted while they were pending: their volumes, and how long they count as such.
    pub doomed: Vec<(VolumeId, Timestamp)>,
    /// Regions and client tokens of volumes that are no more.
    #[serde(default)]
    pub spent_tokens: BTreeSet<(String, String)>,
    /// Volumes that were the root, in the order in which they were replaced.
    #[serde(default)]
    pub former_roots: Vec<VolumeId>,
    /// Replacements of the root, in the order in which they were asked for.
    #[serde(default)]
    pub root_tasks: Vec<RootTask>,
    /// Instances that were launched beside the scenario's, in their order.
    #[serde(default)]
    pub launches: Vec<Launch>,
    /// All images of all Regions, in the order of registration.
    pub images: IndexMap<ImageId, Ami>,
    /// Images that are no more, and the Regions that they were in.
    pub deregistered: BTreeMap<ImageId, String>,
    /// All KMS keys of all Regions.
    pub kms_keys: Vec<KmsKey>,
    /// Tags by resource id, but for snapshots, which have theirs.
    pub tags: BTreeMap<String, Tags>,
    /// Where public sharing is blocked: account and Region.
    pub blocks: Vec<((String, String), Block)>,
    /// Accounts and Regions in which no image becomes public.
    #[serde(default)]
    pub image_blocks: Vec<(String, String)>,
    /// Denied actions, now.
    pub deny: Vec<String>,
    /// What is allowed, now; everything when there is none.
    pub policy: Option<Policy>,
    /// How far the account's clock was moved on, in seconds.
    pub ahead: i64,
}

impl World {
    /// The account at its beginning. `windows` are those of the scenario's volumes, in order.
    pub fn new(scenario: &Scenario, windows: &[Window], now: Timestamp) -> Self {
        let mut names = DeviceNames::new(scenario);
        let mut tags = BTreeMap::new();
        let attached: Vec<_> = scenario.volumes.iter().filter(|spec| !spec.detached).collect();
        let boot: Vec<bool> = attached.iter().map(|spec| spec.boot).collect();
        let numbers: BTreeMap<&str, u32> =
            attached.iter().map(|spec| spec.name.as_str()).zip(first_numbers(&boot)).collect();
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
                    region: scenario.instance.region.clone(),
                    zone: scenario.instance.zone(),
                    stage: Stage::Ready,
                    snapshot_id: None,
                    created: now,
                    attachment: (!spec.detached).then(|| Attachment::complete(now, spec.boot)),
                    encrypted: spec.encrypted,
                    kms_key: None,
                    iops: spec.iops,
                    throughput: spec.throughput,
                    initialization_rate: None,
                    token: None,
                    source: None,
                    origin: Origin::default(),
                    window: Some(window),
                    loop_device: None,
                    disk: numbers.get(spec.name.as_str()).copied(),
                }
            })
            .collect();
        let launch_devices = volumes
            .iter()
            .filter(|volume| volume.is_ebs() && volume.attachment.is_some() && !volume.boot)
            .map(|volume| volume.device_name.clone())
            .collect();
        if !scenario.instance.tags.is_empty() {
            tags.insert(scenario.instance.id.to_string(), scenario.instance.tags.clone());
        }
        let image = Ami::of_instance(scenario, now);
        Self {
            scenario: scenario.clone(),
            launched: now,
            reservation_id: format!("r-{}", random_hex()),
            volumes,
            launch_devices,
            snapshots: Snapshots::default(),
            bin: Snapshots::default(),
            rules: scenario.recycle_bin.rules(&scenario.instance.account_id, &scenario.instance.region),
            doomed: Vec::new(),
            spent_tokens: BTreeSet::new(),
            former_roots: Vec::new(),
            root_tasks: Vec::new(),
            launches: Vec::new(),
            images: IndexMap::from([(image.id.clone(), image)]),
            deregistered: BTreeMap::new(),
            kms_keys: key::all(scenario),
            tags,
            blocks: Vec::new(),
            image_blocks: Vec::new(),
            deny: scenario.iam.deny.clone(),
            policy: scenario.iam.policy(),
            ahead: 0,
        }
    }

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

    /// A volume that EC2 knows, when it is in this Region.
    pub fn volume(&self, region: &str, id: &str) -> Option<&Volume> {
        self.ebs().find(|volume| volume.region == region && volume.id.as_str() == id)
    }

    /// A volume, to change.
    pub fn volume_mut(&mut self, id: &VolumeId) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| volume.id == *id)
    }

    /// The lowest number that no disk in the view has.
    pub fn free_disk(&self) -> u32 {
        let taken: Vec<u32> = self.volumes.iter().filter_map(|volume| volume.disk).collect();
        // 0 is the root's, also when the root is not simulated.
        (1..).find(|number| !taken.contains(number)).unwrap_or(u32::MAX)
    }

    /// A window of the pool that no volume has.
    pub fn free_window(&self, length: u64) -> Window {
        let taken: Vec<Window> = self.volumes.iter().filter_map(|volume| volume.window).collect();
        place(&taken, length)
    }

    /// The snapshot that another one's changes are counted from: the last one of the same volume, else the
    /// one that the volume was made from.
    pub fn previous(&self, id: &SnapshotId) -> Option<&Snapshot> {
        let snapshot = self.snapshots.get(id)?;
        self.snapshots
            .before(id)
            .find(|other| {
                other.region == snapshot.region && !other.fails && other.later.listed_until.is_none()
            })
            .or_else(|| {
                let volume = self.volumes.iter().find(|volume| volume.id == snapshot.volume_id)?;
                self.snapshot(&volume.region, volume.snapshot_id.as_ref()?)
            })
    }

    /// The account's time when it is `now` elsewhere.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        now.checked_add(jiff::SignedDuration::from_secs(self.ahead)).unwrap_or(Timestamp::MAX)
    }

    /// The account that the instance belongs to.
    pub fn account(&self) -> &str {
        &self.scenario.instance.account_id
    }

    /// All snapshots that were not deleted.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Snapshot> {
        self.snapshots.values().filter(|snapshot| snapshot.later.listed_until.is_none())
    }

    /// The Region that the instance is in.
    pub fn home(&self) -> &str {
        &self.scenario.instance.region
    }

    /// Every Region that answers, the instance's first.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.home()).chain(self.scenario.other_regions.iter().map(String::as_str))
    }

    pub fn image(&self, region: &str, id: &ImageId) -> Option<&Ami> {
        self.images.get(id).filter(|image| image.region == region)
    }

    /// The key that a request of this account in this Region means.
    pub fn kms_key(&self, account: &str, region: &str, name: &str) -> Option<&KmsKey> {
        self.kms_keys.iter().find(|key| key.region == region && key.is_named_by(account, name))
    }

    /// Images and keys as they were at the beginning.
    pub fn reset_images_and_keys(&mut self) {
        let own = &self.scenario.instance.image_id;
        self.images.retain(|id, _| id.as_str() == own);
        self.deregistered.clear();
        self.tags.retain(|id, _| !id.starts_with(ImageId::PREFIX));
        self.kms_keys = key::all(&self.scenario);
    }

    /// The Recycle Bin's rules, and what is blocked of public sharing, as at the beginning.
    pub fn reset_bin_and_blocks(&mut self) {
        self.rules = self.scenario.recycle_bin.rules(&self.scenario.instance.account_id, self.home());
        self.doomed.clear();
        self.blocks.clear();
        self.image_blocks.clear();
    }

    pub fn snapshot(&self, region: &str, id: &SnapshotId) -> Option<&Snapshot> {
        let deleted = |snapshot: &&Snapshot| snapshot.later.listed_until.is_some();
        self.snapshots.get(id).filter(|snapshot| snapshot.region == region && !deleted(snapshot))
    }

    /// Detaches a volume without a request: the one that is named, or the last data volume.
    pub fn detach_silently(&mut self, volume: Option<&str>) {
        let meant = |known: &&mut Volume| match volume {
            Some(name) => known.id.as_str() == name || known.name == name,
            None => !known.boot,
        };
        let mut attached =
            self.volumes.iter_mut().rev().filter(|known| known.is_ebs() && known.is_the_scenarios());
        if let Some(known) = attached.find(meant) {
            known.attachment = None;
        }
    }

    /// Attaches a new volume without a request. It has no device and no data.
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
            kind: VolumeKind::Nvme,
            boot: false,
            region: self.scenario.instance.region.clone(),
            zone: self.scenario.instance.zone(),
            stage: Stage::Ready,
            snapshot_id: None,
            created: now,
            attachment: Some(Attachment::complete(now, false)),
            encrypted: false,
            kms_key: None,
            iops: None,
            throughput: None,
            initialization_rate: None,
            token: None,
            source: None,
            origin: Origin::default(),
            window: None,
            loop_device: None,
            disk: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(specs: &[&str]) -> World {
        let mut scenario = Scenario::default();
        for spec in specs {
            scenario.volumes.push(spec.parse().expect("a good spec"));
        }
        let windows = crate::window::lay_out(&vec![1 << 20; specs.len()]);
        World::new(&scenario, &windows, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_volume_is_in_use_while_it_has_an_attachment() {
        let mut world = world(&["name=a,size=1MiB", "name=b,size=1MiB,detached"]);
        assert_eq!((world.volumes[0].status(), world.volumes[1].status()), ("in-use", "available"));
        assert_eq!((world.volumes[0].disk, world.volumes[1].disk, world.free_disk()), (Some(1), None, 2));
        assert_eq!(world.launch_devices, ["/dev/sdf"]);
        for (state, name, mapped) in [
            (AttachmentState::Attaching, "attaching", "attaching"),
            (AttachmentState::Busy, "busy", "detaching"),
        ] {
            assert_eq!((state.name(), state.mapped_name()), (name, mapped));
            let attachment = Attachment { state, ..Attachment::complete(Timestamp::UNIX_EPOCH, false) };
            world.volumes[1].attachment = Some(attachment);
            assert!(world.volumes[1].is_under_way() && !world.volumes[0].is_under_way());
            assert_eq!(world.attached_to(world.instance_id()).count(), 2);
        }
        world.volumes[1].attachment = None;
        for (stage, status) in
            [(Stage::Creating, "creating"), (Stage::Deleting, "deleting"), (Stage::Error, "error")]
        {
            world.volumes[1].stage = stage;
            assert_eq!(world.volumes[1].status(), status);
        }
        let (home, id) = (world.home().to_owned(), world.volumes[0].id.to_string());
        assert!(world.volume(&home, &id).is_some());
        assert!(world.volume("us-west-2", &id).is_none());
    }

    #[test]
    fn changes_are_counted_from_the_last_good_snapshot_of_the_line() {
        let mut world = world(&["name=a,size=1MiB", "name=b,size=1MiB"]);
        let (a, b) = (world.volumes[0].id.clone(), world.volumes[1].id.clone());
        let mut take = |volume: &VolumeId, fails| {
            let snapshot = Snapshot { volume_id: volume.clone(), fails, ..test_snapshot(0, false) };
            let id = snapshot.id.clone();
            world.snapshots.insert(snapshot);
            id
        };
        let first = take(&a, false);
        let failed = take(&a, true);
        let second = take(&a, false);
        let of_b = take(&b, false);
        let previous = |world: &World, id: &SnapshotId| world.previous(id).map(|found| found.id.clone());
        assert_eq!(previous(&world, &first), None);
        assert_eq!(previous(&world, &failed), Some(first.clone()));
        assert_eq!(previous(&world, &second), Some(first.clone()));
        assert_eq!(previous(&world, &of_b), None);
        world.volumes[1].snapshot_id = Some(second.clone());
        assert_eq!(previous(&world, &of_b), Some(second.clone()));
        world.snapshots.remove(&second);
        assert_eq!(previous(&world, &of_b), None);
    }

    #[test]
    fn what_was_done_to_snapshots_survives_being_written_down() {
        let now = Timestamp::UNIX_EPOCH;
        let mut world = World::new(&Scenario::default(), &[], now);
        let mut snapshot = test_snapshot(0, false);
        let (mode, until) = (Mode::Compliance, Until::Days(2));
        let lock = Lock { mode, until, cool_off: Some(1), created: now, mode_since: now, completed: now };
        snapshot.later.lock = Some(lock);
        snapshot.later.shared.users.insert("111111111111".into());
        let takes = std::time::Duration::from_secs(1);
        let wanted = Move::Borrow(3);
        snapshot.later.tiering = Some(Tiering { wanted, started: now, takes, archived: now });
        world.snapshots.insert(snapshot);
        let text = serde_json::to_string(&world).expect("it can be written");
        let read: World = serde_json::from_str(&text).expect("it can be read");
        assert_eq!(format!("{read:?}"), format!("{world:?}"));
    }

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
        let windows = crate::window::lay_out(&[1 << 20; 4]);
        let world = World::new(&scenario, &windows, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = world.attached_to(world.instance_id()).map(|v| v.device_name.as_str()).collect();
        assert_eq!(names, ["/dev/xvda", "/dev/sdf", "/dev/sdg"]);
        assert_eq!(world.root_device_name(), "/dev/xvda");
    }
}
