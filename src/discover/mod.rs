//! What is on this host: mounts → filesystems → device stacks → disks → EBS volumes.
//!
//! In: `/proc/self/mountinfo`, `/sys` (below a root that a test can set), devices and paths by
//! [`inspect`](crate::host::inspect), IMDS, DescribeInstances and DescribeVolumes. Out: [`Facts`], plain
//! data. Must never: decide what goes into a set (that is [`crate::plan`]), change anything on the host, or
//! trust a device name where the kernel gives a number.

mod asked;
pub mod expected;
mod filesystems;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

pub use expected::{Expectations, Expected};
pub use filesystems::{HostFacts, host, uuids};
pub use volumes::{AttachedVolume, join};

pub use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::inspect::Answers;
pub use crate::host::mountinfo::BadLine;
use crate::host::ondisk::Role;
use crate::ids::{DevNo, InstanceId, VolumeId};
use crate::path_encoding;

/// The identity of this instance, from IMDS's identity document or from overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The instance.
    pub instance_id: InstanceId,
    /// Region, such as `eu-west-1`.
    pub region: String,
    /// Availability Zone; unknown when the identity was given by hand.
    pub availability_zone: Option<String>,
    /// Account that owns the instance; unknown when the identity was given by hand.
    pub account_id: Option<String>,
}

/// Everything the plan is made from.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The instance.
    pub identity: Identity,
    /// The host's name (uname nodename), for tags.
    pub hostname: String,
    /// Device name of the boot volume's attachment (DescribeInstances.RootDeviceName), such as `/dev/xvda`.
    pub root_device_name: Option<String>,
    /// Volumes that EC2 says are attached to this instance, sorted by device name.
    pub volumes: Vec<Volume>,
    /// One entry for each superblock, in the order of its first mount in mountinfo.
    pub filesystems: Vec<Filesystem>,
    /// Every block device, by its kernel name, sorted.
    pub devices: Vec<BlockDevice>,
    /// Swap files in use: swapping out raises the write counter of the device below them.
    pub swap_files: Vec<SwapFile>,
    /// Devices that no mount of this host shows to be in use, and that are: looked for once it is known which
    /// of them would be in a set.
    pub in_use: Vec<DeviceInUse>,
    /// Lines of mountinfo that cannot be read: each may be of a filesystem that is not in `filesystems`.
    pub unread_mounts: Vec<BadLine>,
    /// Devices that are mounted in other mount namespaces, and by whom.
    pub elsewhere: BTreeMap<DevNo, BTreeSet<String>>,
    /// What should be mounted and is not.
    pub expected: Expectations,
    /// What only root can find out, by the superblock or the loop device that it is about; empty for root.
    pub unchecked: BTreeMap<DevNo, BTreeSet<String>>,
    /// Why RCU grace periods are better not expedited on this host; none where they may be.
    pub not_expedited: Option<String>,
    /// What devices and paths were asked, and their answers: nobody is asked again while applications are
    /// quiesced.
    #[serde(skip)]
    pub answers: Answers,
}

impl Facts {
    /// The attached volumes that a device is on, but not through image files.
    #[must_use]
    pub fn volumes_below(&self, name: &str) -> Vec<VolumeId> {
        let mut below = BTreeSet::from([name]);
        // A layer a round: as many as there are devices, should they be stacked in a circle.
        for _ in &self.devices {
            let before = below.len();
            for device in self.devices.iter().filter(|d| below.contains(d.name.as_str())).collect::<Vec<_>>()
            {
                below.extend(device.below.iter().map(String::as_str));
            }
            if below.len() == before {
                break;
            }
        }
        let on =
            self.volumes.iter().filter(|v| v.disk.as_ref().is_some_and(|d| below.contains(d.name.as_str())));
        on.map(|v| v.id.clone()).collect()
    }

    /// Devices on attached volumes that no filesystem mounted here is on.
    #[must_use]
    pub fn unmounted_devices(&self) -> BTreeSet<DevNo> {
        let mut above: BTreeSet<&str> = self
            .filesystems
            .iter()
            .filter_map(|f| match &f.backing {
                Backing::Devices { devices } => Some(devices),
                _ => None,
            })
            .flatten()
            .map(String::as_str)
            .collect();
        let mut on: BTreeSet<&str> =
            self.volumes.iter().filter_map(|v| v.disk.as_ref()).map(|d| d.name.as_str()).collect();
        // A layer a round: as many as there are devices, should they be stacked in a circle.
        for _ in &self.devices {
            let before = (above.len(), on.len());
            for device in &self.devices {
                if above.contains(device.name.as_str()) {
                    above.extend(device.below.iter().map(String::as_str));
                }
                if device.below.iter().any(|b| on.contains(b.as_str())) {
                    on.insert(&device.name);
                }
            }
            if (above.len(), on.len()) == before {
                break;
            }
        }
        let free =
            |d: &&BlockDevice| on.contains(d.name.as_str()) && !above.contains(d.name.as_str()) && !d.swap;
        self.devices.iter().filter(free).map(|d| d.dev).collect()
    }
}

/// A block device that is in use, though no mount of this host shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInUse {
    /// Kernel name.
    pub name: String,
    /// Its number.
    pub dev: DevNo,
    /// By whom and how, in words; or why it is not known not to be.
    pub why: String,
}

/// Joins the facts of the host with those of EC2.
#[must_use]
pub fn facts(
    identity: Identity,
    hostname: String,
    root_device_name: Option<String>,
    attached: Vec<AttachedVolume>,
    host: HostFacts,
) -> Facts {
    Facts {
        identity,
        hostname,
        volumes: join(&host.devices, attached, root_device_name.as_deref()),
        root_device_name,
        filesystems: host.filesystems,
        devices: host.devices,
        swap_files: host.swap_files,
        in_use: Vec::new(),
        unread_mounts: host.unread_mounts,
        elsewhere: BTreeMap::new(),
        expected: Expectations::default(),
        unchecked: host.unchecked,
        not_expedited: host.not_expedited,
        answers: host.answers,
    }
}

/// A swap file in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwapFile {
    /// Its path.
    #[serde(serialize_with = "path_encoding::path")]
    pub path: PathBuf,
    /// The superblock that holds it; none when that cannot be told. A file that may be on several has an
    /// entry for each.
    pub superblock: Option<DevNo>,
}

/// An attached EBS volume as EC2 knows it, joined with the disk it is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The volume.
    pub id: VolumeId,
    /// The attachment's device name (`/dev/sdf`), AWS's meaning.
    pub device_name: String,
    /// True when it is the boot volume (its device name is the instance's RootDeviceName).
    pub boot: bool,
    /// Size in GiB.
    pub size_gib: i32,
    /// `gp3`, `io2`, …
    pub volume_type: String,
    /// Provisioned IOPS, where the type has them.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s, where the type has it.
    pub throughput: Option<i32>,
    /// Encrypted at rest.
    pub encrypted: bool,
    /// The volume's own tags.
    pub tags: Vec<(String, String)>,
    /// The disk it is on this host (`nvme1n1`), and how that was found; none when no disk matches.
    pub disk: Option<DiskMatch>,
}

/// The disk of a volume, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskMatch {
    /// Kernel name of the whole disk.
    pub name: String,
    /// Its device number.
    pub dev: DevNo,
    /// What proved it.
    pub by: MatchedBy,
}

/// What proved that a disk is a volume, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchedBy {
    /// The NVMe serial number is the volume id.
    NvmeSerial,
    /// Xen: the kernel's `xvdX`/`sdX` stands for the attachment's `/dev/sdX` or `xvdX`.
    XenName,
}

/// One superblock, wherever and however often it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filesystem {
    /// mountinfo's `major:minor` (field 3): the key of the superblock. `0:N` for btrfs, overlay and others
    /// without one block device of their own.
    pub dev: DevNo,
    /// `ext4`, `xfs`, `btrfs`, `vfat`, `tmpfs`, …
    pub fstype: String,
    /// The filesystem's own UUID, from btrfs's sysfs folder, or read from its superblock ([`uuids`]).
    pub uuid: Option<String>,
    /// Where it is mounted; the first is the one used to reach it.
    pub mounts: Vec<Mount>,
    /// What it is on.
    pub backing: Backing,
    /// Those of its devices that are for something of their own, such as an external journal.
    pub beside: Vec<Beside>,
    /// Why `backing` may not be all that it is on; none when it is.
    pub unknown: Option<String>,
}

/// A device that a filesystem has beside its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// What for.
    pub role: Role,
    /// Kernel name; it is in `backing` too.
    pub device: String,
}

impl Filesystem {
    /// Is this device for something of its own, such as an external journal?
    #[must_use]
    pub fn has_beside(&self, device: &str) -> bool {
        self.beside.iter().any(|b| b.device == device)
    }

    /// The mount point that names this filesystem in messages and reaches it: the first mount of the
    /// filesystem's own root, else the first mount; covered mounts last.
    #[must_use]
    pub fn mount_point(&self) -> &std::path::Path {
        let open = || self.mounts.iter().filter(|m| !m.hidden);
        open()
            .find(|m| m.root.as_os_str() == "/")
            .or_else(|| open().next())
            .or_else(|| self.mounts.first())
            .map_or(std::path::Path::new("?"), |m| m.mount_point.as_path())
    }
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Mount id (field 1).
    pub id: u32,
    /// Where it is mounted, unescaped.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// The folder within the filesystem that is mounted (`/` unless a bind mount or subvolume).
    #[serde(serialize_with = "path_encoding::path")]
    pub root: PathBuf,
    /// Mount options (field 6), such as `rw,relatime`.
    pub options: String,
    /// Mount source (`/dev/nvme1n1p1`, `/dev/root`, `tmpfs`).
    pub source: String,
    /// Superblock options (last field), with the kernel's octal escapes left in.
    pub super_options: String,
    /// True when another mount covers this one: its path leads to a different filesystem.
    pub hidden: bool,
}

/// What a filesystem is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Backing {
    /// Block devices: one, or each member of a btrfs.
    Devices {
        /// Kernel names (`nvme1n1p1`, `dm-0`), sorted. Empty when the device is gone, or cannot be told (a
        /// btrfs whose members are not all in sysfs).
        devices: Vec<String>,
    },
    /// An overlay whose writes go to the filesystem that holds its upper directory.
    Overlay {
        /// The superblock under the upper directory; none for a read-only overlay, and where it cannot be
        /// told.
        upper: Option<DevNo>,
    },
    /// In memory, network, FUSE or kernel-made: nothing on a block device.
    None,
}
