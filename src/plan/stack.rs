//! From a filesystem down to the volumes it is on.
//!
//! In: [`Facts`]. Out: one [`Stack`] for each filesystem: its volumes, what is not EBS, the devices on the
//! way, and the number of image files below it. Must never: lose a branch (a stripe that is half on instance
//! store is not on EBS), or loop forever.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::discover::volumes::{INSTANCE_STORE_MODEL, serial_volume};
use crate::discover::{Backing, BlockDevice, DeviceKind, Facts, Filesystem};
use crate::ids::{DevNo, VolumeId};
use crate::path_encoding::shown;

/// The bottom of a filesystem's device stack.
#[derive(Debug, Default, Clone)]
pub(super) struct Stack {
    /// Attached EBS volumes.
    pub volumes: BTreeSet<VolumeId>,
    /// Its parts that are not on an attached EBS volume.
    pub(crate) off: BTreeSet<Off>,
    /// What only root can find out on the way down, where this process is not root's.
    pub(crate) unchecked: BTreeSet<String>,
    /// Every device on the way down, but not through an image file.
    pub devices: BTreeSet<String>,
    /// Image files on the way down.
    pub(crate) depth: u32,
}

/// A bottom that is not an attached EBS volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Off {
    /// The disk's serial number names a volume that is not attached according to EC2.
    NotAttached {
        volume: VolumeId,
        disk: String,
    },
    InstanceStore(String),
    /// Some other disk, or a device in memory.
    Device(String),
    /// The device is not in sysfs.
    Gone(String),
    /// The image file is on a filesystem that is not mounted here.
    Image(String),
    /// What it is on cannot be told, so it may be on any volume.
    Lost(String),
    /// An image file on a filesystem that is on no block device.
    ImageOn {
        mount: String,
        fstype: String,
    },
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAttached { volume, disk } => {
                write!(f, "on {volume} ({disk}), which is not attached according to EC2")
            }
            Self::InstanceStore(disk) => write!(f, "instance store {disk}: not snapshottable"),
            Self::Device(disk) => write!(f, "on disk {disk}, which is not an EBS volume"),
            Self::Gone(device) => write!(f, "its device {device} is gone"),
            Self::Image(device) => {
                write!(f, "the image file of {device} is on a filesystem not mounted here")
            }
            Self::Lost(why) => f.write_str(why),
            Self::ImageOn { mount, fstype } => write!(f, "its image file is on {mount} ({fstype})"),
        }
    }
}

/// The state of a walk. It has the depth of everything visited, so that no circle is walked twice.
#[derive(Default)]
struct Way<'a> {
    stack: Stack,
    filesystems: HashMap<DevNo, u32>,
    devices: HashMap<&'a str, u32>,
}

/// The facts, indexed for walking.
pub(super) struct Walk<'a> {
    devices: HashMap<&'a str, &'a BlockDevice>,
    filesystems: HashMap<DevNo, &'a Filesystem>,
    volumes: HashMap<&'a str, &'a VolumeId>,
    unchecked: &'a BTreeMap<DevNo, BTreeSet<String>>,
}

impl<'a> Walk<'a> {
    pub fn new(facts: &'a Facts) -> Self {
        let disks = facts.volumes.iter().filter_map(|v| Some((v.disk.as_ref()?.name.as_str(), &v.id)));
        Self {
            devices: facts.devices.iter().map(|d| (d.name.as_str(), d)).collect(),
            filesystems: facts.filesystems.iter().map(|f| (f.dev, f)).collect(),
            volumes: disks.collect(),
            unchecked: &facts.unchecked,
        }
    }

    pub fn device(&self, name: &str) -> Option<&'a BlockDevice> {
        self.devices.get(name).copied()
    }

    pub fn filesystem(&self, dev: DevNo) -> Option<&'a Filesystem> {
        self.filesystems.get(&dev).copied()
    }

    /// The filesystem that an overlay's writes go to, through overlays on overlays, if there is one.
    pub fn written(&self, filesystem: &'a Filesystem) -> Option<&'a Filesystem> {
        let mut at = filesystem;
        for _ in 0..=self.filesystems.len() {
            match at.backing {
                Backing::Overlay { upper } => at = self.filesystem(upper?)?,
                _ => return Some(at),
            }
        }
        None
    }

    pub fn stack(&self, filesystem: &'a Filesystem) -> Stack {
        let mut way = Way::default();
        let depth = self.add_filesystem(filesystem, &mut way, true);
        Stack { depth, ..way.stack }
    }

    /// Adds what a filesystem is on, and returns the largest number of image files below it.
    fn add_filesystem(&self, filesystem: &'a Filesystem, way: &mut Way<'a>, own: bool) -> u32 {
        if let Some(depth) = way.filesystems.get(&filesystem.dev) {
            return *depth;
        }
        way.filesystems.insert(filesystem.dev, 0);
        let unchecked = self.add_unchecked(filesystem.dev, way);
        let Some(written) = self.written(filesystem) else {
            if let Some(why) = filesystem.unknown.as_ref().filter(|_| !own) {
                way.stack.off.insert(Off::Lost(format!("{}: {why}", shown(filesystem.mount_point()))));
            }
            return 0;
        };
        let unchecked = self.add_unchecked(written.dev, way) || unchecked;
        if let Some(why) = &written.unknown {
            way.stack.off.insert(Off::Lost(why.clone()));
        }
        let depth = match &written.backing {
            Backing::Devices { devices }
                if devices.is_empty() && (written.unknown.is_some() || unchecked) =>
            {
                0
            }
            Backing::Devices { devices } if devices.is_empty() => {
                way.stack.off.insert(Off::Gone(written.dev.to_string()));
                0
            }
            Backing::Devices { devices } => self.add_devices(devices, way, own),
            _ => {
                let (mount, fstype) = (shown(written.mount_point()), written.fstype.clone());
                way.stack.off.insert(Off::ImageOn { mount, fstype });
                0
            }
        };
        way.filesystems.insert(filesystem.dev, depth);
        depth
    }

    /// Is there something about it that only root can find out?
    pub(crate) fn is_unchecked(&self, filesystem: &Filesystem) -> bool {
        self.unchecked.contains_key(&filesystem.dev)
    }

    fn add_unchecked(&self, dev: DevNo, way: &mut Way<'a>) -> bool {
        let what = self.unchecked.get(&dev);
        way.stack.unchecked.extend(what.into_iter().flatten().cloned());
        what.is_some()
    }

    fn add_devices(&self, names: &'a [String], way: &mut Way<'a>, own: bool) -> u32 {
        names.iter().map(|name| self.add_device(name, way, own)).max().unwrap_or(0)
    }

    fn add_device(&self, name: &'a str, way: &mut Way<'a>, own: bool) -> u32 {
        let Some(device) = self.device(name) else {
            way.stack.off.insert(Off::Gone(name.to_owned()));
            return 0;
        };
        if own {
            way.stack.devices.insert(name.to_owned());
        }
        if let Some(depth) = way.devices.get(name) {
            return *depth;
        }
        way.devices.insert(name, 0);
        let depth = match &device.kind {
            DeviceKind::Loop { backing_file: Some(_), superblock } if device.below.is_empty() => {
                1 + self.add_image(name, *superblock, way)
            }
            _ if !device.below.is_empty() => self.add_devices(&device.below, way, own),
            kind => {
                // A loop device without a file among them: it is empty.
                match self.volumes.get(name) {
                    Some(volume) => way.stack.volumes.insert((*volume).clone()),
                    None => way.stack.off.insert(off(device, kind)),
                };
                0
            }
        };
        way.devices.insert(name, depth);
        depth
    }

    /// Adds what the image file of a loop device is on: by the number of its superblock, which is mounted
    /// here, or is that of a device whose filesystem is mounted elsewhere.
    fn add_image(&self, name: &str, superblock: Option<DevNo>, way: &mut Way<'a>) -> u32 {
        let Some(dev) = superblock else {
            if self.device(name).is_some_and(|d| self.add_unchecked(d.dev, way)) {
                return 0;
            }
            let why = format!("which filesystem has the image file of {name} cannot be told");
            way.stack.off.insert(Off::Lost(why));
            return 0;
        };
        if let Some(holder) = self.filesystem(dev) {
            return self.add_filesystem(holder, way, false);
        }
        way.stack.off.insert(Off::Image(name.to_owned()));
        let device = self.devices.values().find(|d| d.dev == dev);
        device.map_or(0, |device| self.add_device(&device.name, way, false))
    }

    /// The volumes below these devices.
    pub fn volumes_below(&self, names: &'a [String]) -> BTreeSet<VolumeId> {
        let mut way = Way::default();
        self.add_devices(names, &mut way, true);
        way.stack.volumes
    }

    /// Devices layer by layer, from these down to disks and image files, each named once, at its first place.
    pub fn layers(&self, top: &[String]) -> Vec<Vec<&'a BlockDevice>> {
        let mut seen = BTreeSet::new();
        let mut layers = Vec::new();
        let mut next: Vec<&str> = top.iter().map(String::as_str).collect();
        loop {
            let layer: Vec<_> =
                next.iter().filter_map(|n| self.device(n)).filter(|d| seen.insert(d.name.as_str())).collect();
            if layer.is_empty() {
                return layers;
            }
            next = layer.iter().flat_map(|d| d.below.iter().map(String::as_str)).collect();
            layers.push(layer);
        }
    }

    /// The device itself and every device below it, but not through image files.
    pub fn below(&self, name: &str) -> BTreeSet<&'a str> {
        self.layers(&[name.to_owned()]).into_iter().flatten().map(|d| d.name.as_str()).collect()
    }

    /// The stack in words: `dm-4 (lvm vg1-deep) → dm-3 (luks crypt1) → nvme5n1p2`.
    pub(crate) fn in_words(&self, filesystem: &Filesystem) -> String {
        let Backing::Devices { devices } = &filesystem.backing else { return String::new() };
        let own: Vec<String> = devices.iter().filter(|d| !filesystem.has_beside(d)).cloned().collect();
        let beside = filesystem.beside.iter().map(|other| {
            format!("; {} {}", other.role.words(), self.layers_in_words(std::slice::from_ref(&other.device)))
        });
        self.layers_in_words(&own) + &beside.collect::<String>()
    }

    fn layers_in_words(&self, devices: &[String]) -> String {
        let mut words = Vec::new();
        let mut disks_of_partitions = BTreeSet::new();
        for layer in self.layers(devices) {
            let mut names = Vec::new();
            for device in layer {
                match &device.kind {
                    // A partition's name contains its disk's.
                    DeviceKind::Partition { .. } => {
                        disks_of_partitions.extend(device.below.iter().map(String::as_str));
                        names.push(device.name.clone());
                    }
                    DeviceKind::Disk { .. } if disks_of_partitions.contains(device.name.as_str()) => {}
                    _ => names.push(format!("{}{}", device.name, Self::layer_word(device))),
                }
            }
            if !names.is_empty() {
                words.push(names.join(" + "));
            }
        }
        words.join(" → ")
    }

    /// The device's kernel name, and its own where it has one: `dm-1 vg0-small`.
    pub fn label(device: &BlockDevice) -> String {
        match &device.kind {
            DeviceKind::Dm { name, .. } => format!("{} {name}", device.name),
            _ => device.name.clone(),
        }
    }

    fn layer_word(device: &BlockDevice) -> String {
        match &device.kind {
            DeviceKind::Dm { name, uuid } => format!(" ({} {name})", dm_word(uuid)),
            DeviceKind::Md { level } => format!(" ({level})"),
            DeviceKind::Loop { backing_file: Some(file), .. } => format!(" (image {})", shown(file)),
            _ => String::new(),
        }
    }
}

fn off(device: &BlockDevice, kind: &DeviceKind) -> Off {
    if let Some(volume) = serial_volume(device) {
        return Off::NotAttached { volume, disk: device.name.clone() };
    }
    match kind {
        DeviceKind::Disk { model, .. } if model == INSTANCE_STORE_MODEL => {
            Off::InstanceStore(device.name.clone())
        }
        _ => Off::Device(device.name.clone()),
    }
}

/// The prefix of a dm uuid names its maker (`DM_UUID_PREFIX` conventions of libdevmapper, cryptsetup,
/// multipath-tools and kpartx).
fn dm_word(uuid: &str) -> &'static str {
    match uuid.split('-').next().unwrap_or_default() {
        "LVM" => "lvm",
        "CRYPT" if uuid.starts_with("CRYPT-LUKS") => "luks",
        "CRYPT" => "crypt",
        "mpath" => "multipath",
        part if part.starts_with("part") => "partition",
        _ => "dm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maker_of_a_dm_device_is_told_by_its_uuid() {
        for (uuid, word) in [
            ("LVM-wUk0Tc", "lvm"),
            ("CRYPT-LUKS2-0f3b9a52-crypt1", "luks"),
            ("CRYPT-PLAIN-swap", "crypt"),
            ("mpath-3600508b4", "multipath"),
            ("part2-mpath-3600508b4", "partition"),
            ("DMRAID-isw", "dm"),
            ("", "dm"),
        ] {
            assert_eq!(dm_word(uuid), word, "{uuid}");
        }
    }
}
