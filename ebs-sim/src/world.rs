//! The account as EC2 sees it: one instance, its volumes, the snapshots, the tags.
//!
//! In: a scenario, and changes by the actions. Out: facts for the answers. It must never know about files
//! and devices beyond naming them, and never read the clock: `now` comes in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::host::Window;
use crate::ids::{InstanceId, SnapshotId, VolumeId, random_hex};
use crate::scenario::{Kind, Scenario};
use crate::units::GIB;

/// Tags of one resource.
pub type Tags = BTreeMap<String, String>;

/// A volume, or an instance-store disk, which EC2 does not know.
#[derive(Debug, Clone)]
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

/// Where a snapshot's data is.
#[derive(Debug, Clone)]
pub struct Image {
    /// The clone, which all snapshots of a set share.
    pub path: PathBuf,
    /// The volume's window in it.
    pub window: Window,
}

/// A snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its volume.
    pub volume_id: VolumeId,
    /// The volume's size.
    pub size_gib: u64,
    /// The bytes that it would hold in full.
    pub size_bytes: u64,
    /// As given.
    pub description: String,
    /// The start time; equal for all of one set.
    pub started: Timestamp,
    /// How long it is pending.
    pub takes: Duration,
    /// Whether it ends in `error`.
    pub fails: bool,
    /// As the volume.
    pub encrypted: bool,
    /// Its data; none when a fault made its volume up.
    pub image: Option<Image>,
}

/// A snapshot's state and progress at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `pending`, `completed` or `error`.
    pub state: &'static str,
    /// `42%`
    pub percent: String,
}

impl Snapshot {
    /// How far it is.
    pub fn progress(&self, now: Timestamp) -> Progress {
        let elapsed = now.duration_since(self.started);
        let elapsed = Duration::try_from(elapsed).unwrap_or_default();
        let done = if self.takes.is_zero() {
            1.0
        } else {
            (elapsed.as_secs_f64() / self.takes.as_secs_f64()).min(1.0)
        };
        if done < 1.0 {
            Progress { state: "pending", percent: format!("{}%", (done * 100.0).floor().min(99.0)) }
        } else if self.fails {
            Progress { state: "error", percent: "0%".into() }
        } else {
            Progress { state: "completed", percent: "100%".into() }
        }
    }

    /// When it was or will be completed.
    pub fn completion(&self) -> Timestamp {
        self.started.checked_add(self.takes).unwrap_or(Timestamp::MAX)
    }
}

/// The whole account.
#[derive(Debug)]
pub struct World {
    /// What was chosen.
    pub scenario: Scenario,
    /// The instance's launch.
    pub launched: Timestamp,
    /// `r-…`
    pub reservation_id: String,
    /// All volumes, in the order of attachment.
    pub volumes: Vec<Volume>,
    /// All snapshots, in the order of creation.
    pub snapshots: Vec<Snapshot>,
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
            snapshots: Vec::new(),
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
    pub fn tags_of(&self, id: &str) -> Tags {
        self.tags.get(id).cloned().unwrap_or_default()
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

/// Hands out the device names that nobody asked for.
struct DeviceNames {
    taken: Vec<String>,
    root: String,
}

impl DeviceNames {
    fn new(scenario: &Scenario) -> Self {
        Self {
            taken: scenario.volumes.iter().filter_map(|v| v.device.clone()).collect(),
            root: scenario.instance.root_device_name.clone().unwrap_or_else(|| "/dev/xvda".into()),
        }
    }

    fn next(&mut self, boot: bool) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(takes: u64, fails: bool) -> Snapshot {
        Snapshot {
            id: SnapshotId::random(),
            volume_id: VolumeId::random(),
            size_gib: 1,
            size_bytes: GIB,
            description: String::new(),
            started: Timestamp::from_second(1000).expect("in range"),
            takes: Duration::from_secs(takes),
            fails,
            encrypted: false,
            image: None,
        }
    }

    #[test]
    fn progress_goes_from_pending_to_its_end() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let shown = |s: &Snapshot, t| {
            let progress = s.progress(at(t));
            format!("{} {}", progress.state, progress.percent)
        };
        let good = snapshot(10, false);
        assert_eq!(shown(&good, 999), "pending 0%");
        assert_eq!(shown(&good, 1000), "pending 0%");
        assert_eq!(shown(&good, 1004), "pending 40%");
        assert_eq!(shown(&good, 1010), "completed 100%");
        assert_eq!(shown(&snapshot(10, true), 1010), "error 0%");
        assert_eq!(shown(&snapshot(0, false), 1000), "completed 100%");
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
        let windows = crate::host::lay_out(&[1 << 20; 4]);
        let world = World::new(&scenario, &windows, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = world.attached().map(|v| v.device_name.as_str()).collect();
        assert_eq!(names, ["/dev/xvda", "/dev/sdf", "/dev/sdg"]);
        assert_eq!(world.root_device_name(), "/dev/xvda");
    }
}
