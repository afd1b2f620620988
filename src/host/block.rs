//! Block devices as sysfs describes them.
//!
//! In: `sys/dev/block`, `sys/fs/{btrfs,bcachefs}`, `proc/fs/jbd2` and `proc/swaps` below a root. Out:
//! [`BlockDevice`]s sorted by name, the members of every btrfs and bcachefs, journals, swap areas. Must
//! never: open a device, or take a name from anywhere but sysfs's own folder (a source such as `/dev/root`
//! names nothing).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{HostError, mountinfo};
use crate::ids::DevNo;
use crate::path_encoding;

/// A block device and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    /// Kernel name (`nvme1n1p1`, `dm-0`, `md0`, `loop3`).
    pub name: String,
    /// The device number, from `dev` in sysfs.
    pub dev: DevNo,
    /// What kind of layer it is, with what sysfs says of it.
    pub kind: DeviceKind,
    /// Kernel names of the devices directly below it: the whole disk of a partition, the slaves of dm and md.
    /// Empty for disks, and for loop devices over a file (see `DeviceKind::Loop`).
    pub below: Vec<String>,
    /// Size in bytes, whatever the device's sector size is.
    pub size: u64,
    /// The `stat` file with its write counter, below the root in use.
    #[serde(serialize_with = "path_encoding::path")]
    pub stat: PathBuf,
    /// Used as swap (listed in /proc/swaps).
    pub swap: bool,
}

/// Layers of a device stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A whole disk.
    Disk {
        /// `device/model`, trimmed.
        model: String,
        /// `device/serial`, trimmed.
        serial: String,
        /// A virtual disk of Xen, as its bus says (`device/devtype` is `vbd`).
        xen: bool,
    },
    /// A partition of a disk.
    Partition {
        /// As sysfs has it in `partition`.
        number: u32,
    },
    /// Device mapper: LVM, LUKS, thin, multipath.
    Dm {
        /// `dm/name`.
        name: String,
        /// `dm/uuid`, whose prefix tells the user (`LVM-`, `CRYPT-`, `mpath-`).
        uuid: String,
    },
    /// Software RAID (md).
    Md {
        /// `raid0`, `raid1`, …
        level: String,
    },
    /// A loop device over a file.
    Loop {
        /// `loop/backing_file`, none when detached.
        #[serde(serialize_with = "path_encoding::optional")]
        backing_file: Option<PathBuf>,
        /// The superblock that holds the file; none when it cannot be told, and for a loop device
        /// over a block device, which is then in `below`.
        superblock: Option<DevNo>,
    },
    /// Anything else (zram, nbd, drbd, floppy).
    Other,
}

/// Every block device of the host, with `superblock` of loop devices and `swap` still to be filled in.
///
/// # Errors
/// When sysfs cannot be read or holds no block device.
pub fn devices(root: &Path) -> Result<Vec<BlockDevice>, HostError> {
    let folder = root.join("sys/dev/block");
    let mut devices = Vec::new();
    for entry in fs::read_dir(&folder).map_err(HostError::unreadable(&folder))? {
        let entry = entry.map_err(HostError::unreadable(&folder))?;
        let Some(dev) = entry.file_name().to_str().and_then(|n| n.parse::<DevNo>().ok()) else { continue };
        let link = entry.path();
        match resolve(root, &link) {
            Ok(device) => devices.extend(block_device(&device, dev)),
            // Unplugged between the listing and now.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(HostError::unreadable(&link)(e)),
        }
    }
    if devices.is_empty() {
        return Err(HostError::NoBlockDevices { path: folder });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

/// The folder a link of sysfs leads to. A link with an absolute target is taken below the root first.
fn resolve(root: &Path, link: &Path) -> std::io::Result<PathBuf> {
    match fs::read_link(link) {
        Ok(target) if target.is_absolute() => {
            let below = target.strip_prefix("/").map(|t| root.join(t)).unwrap_or_default();
            fs::canonicalize(below).or_else(|_| fs::canonicalize(&target))
        }
        _ => fs::canonicalize(link),
    }
}

fn block_device(folder: &Path, dev: DevNo) -> Option<BlockDevice> {
    let name = folder.file_name()?.to_string_lossy().into_owned();
    let mut below = names_in(&folder.join("slaves"));
    let kind = if let Some(number) = text(&folder.join("partition")).and_then(|n| n.parse().ok()) {
        // A partition's folder is in its disk's.
        below.extend(folder.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()));
        DeviceKind::Partition { number }
    } else if folder.join("dm").is_dir() {
        let dm = |f| text(&folder.join("dm").join(f)).unwrap_or_default();
        DeviceKind::Dm { name: dm("name"), uuid: dm("uuid") }
    } else if folder.join("md").is_dir() {
        DeviceKind::Md { level: text(&folder.join("md/level")).unwrap_or_default() }
    } else if folder.join("loop").is_dir() || (name.starts_with("loop") && !folder.join("device").exists()) {
        DeviceKind::Loop { backing_file: line(&folder.join("loop/backing_file")), superblock: None }
    } else if folder.join("device").exists() {
        let of = |f: &str| {
            text(&folder.join("device").join(f)).or_else(|| text(&folder.join(f))).unwrap_or_default()
        };
        let xen = text(&folder.join("device/devtype")).is_some_and(|t| t == "vbd");
        DeviceKind::Disk { model: of("model"), serial: of("serial"), xen }
    } else {
        DeviceKind::Other
    };
    below.sort();
    below.dedup();
    // `size` is in 512-byte sectors whatever the device's own sector is (sysfs-block in the kernel's ABI
    // documents).
    let sectors: u64 = text(&folder.join("size")).and_then(|s| s.parse().ok()).unwrap_or(0);
    Some(BlockDevice {
        name,
        dev,
        kind,
        below,
        size: sectors.saturating_mul(512),
        stat: folder.join("stat"),
        swap: false,
    })
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// A one-line attribute, trimmed (NVMe pads model and serial with spaces); none when absent or empty.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let trimmed = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!trimmed.is_empty()).then_some(trimmed)
}

/// A path attribute: only the newline the kernel adds is taken away.
fn line(path: &Path) -> Option<PathBuf> {
    let mut bytes = fs::read(path).ok()?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// The devices of a mounted btrfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Kernel names of those that could be told, sorted.
    pub names: Vec<String>,
    /// Are these all of them? Not when one is missing, or its link leads to no block device of this host.
    pub(crate) complete: bool,
}

/// Members of every mounted btrfs, by UUID (`/sys/fs/btrfs/UUID/devices`), those of its seeds included.
#[must_use]
pub fn btrfs(root: &Path, devices: &[BlockDevice]) -> BTreeMap<String, Members> {
    with_uuid(&root.join("sys/fs/btrfs"), |folder| {
        let links: Vec<PathBuf> =
            names_in(&folder.join("devices")).iter().map(|n| folder.join("devices").join(n)).collect();
        // One folder a device, those that are missing included (Linux 5.6 and later).
        let devinfo = names_in(&folder.join("devinfo")).iter().filter(|n| n.parse::<u64>().is_ok()).count();
        members(root, &links, devinfo, devices)
    })
}

/// Members of every mounted bcachefs, by UUID (`/sys/fs/bcachefs/UUID/dev-N/block`).
#[must_use]
pub fn bcachefs(root: &Path, devices: &[BlockDevice]) -> BTreeMap<String, Members> {
    with_uuid(&root.join("sys/fs/bcachefs"), |folder| {
        let all: Vec<String> = names_in(folder).into_iter().filter(|n| n.starts_with("dev-")).collect();
        let links: Vec<PathBuf> = all.iter().map(|n| folder.join(n).join("block")).collect();
        members(root, &links, all.len(), devices)
    })
}

fn with_uuid(folder: &Path, members: impl Fn(&Path) -> Members) -> BTreeMap<String, Members> {
    let uuids = names_in(folder).into_iter().filter(|n| uuid::Uuid::parse_str(n).is_ok());
    uuids.map(|uuid| (uuid.clone(), members(&folder.join(uuid)))).collect()
}

/// The devices that these links lead to, of at least `known` that there are.
fn members(root: &Path, links: &[PathBuf], known: usize, devices: &[BlockDevice]) -> Members {
    let of = DeviceNames::new(root, devices);
    let find = |link: &PathBuf| {
        let target = resolve(root, link).ok();
        // Its number, since names can differ between what a link says and where it leads.
        let dev = target.as_deref().and_then(|t| text(&t.join("dev"))).and_then(|n| n.parse().ok());
        let by_folder = || of.named(&target.as_deref()?.file_name()?.to_string_lossy());
        let found = dev.map_or_else(by_folder, |dev| of.numbered(dev));
        let by_name = || {
            let name = fs::read_link(link).ok()?.file_name()?.to_string_lossy().replace('!', "/");
            of.at(&Path::new("/dev").join(name))
        };
        found.or_else(by_name).map(|d| d.name.clone())
    };
    let mut names: Vec<String> = links.iter().filter_map(find).collect();
    names.sort();
    names.dedup();
    let complete = !names.is_empty() && names.len() == links.len().max(known);
    Members { names, complete }
}

/// Kernel names of the devices whose ext4 has no other device for a journal: it is inside
/// (`/proc/fs/jbd2/NAME-INODE`), or there is none (`/sys/fs/ext4/NAME/journal_task`, Linux 4.18 and later).
#[must_use]
pub fn without_external_journal(root: &Path) -> Vec<String> {
    let ext4 = root.join("sys/fs/ext4");
    let none = |name: &String| text(&ext4.join(name).join("journal_task")).is_some_and(|t| t == "<none>");
    let inside = |name: String| {
        let (device, inode) = name.rsplit_once('-')?;
        inode.parse::<u64>().ok().map(|_| device.to_owned())
    };
    let inner = names_in(&root.join("proc/fs/jbd2")).into_iter().filter_map(inside);
    inner.chain(names_in(&ext4).into_iter().filter(none)).collect()
}

/// One line of `/proc/swaps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapLine {
    /// Device or file, unescaped and without ` (deleted)`.
    pub path: PathBuf,
    /// True for a file on a filesystem.
    pub file: bool,
    /// How much can be swapped to it, in bytes.
    pub bytes: u64,
}

/// The swap areas in use; none when the file cannot be read (a kernel without swap has none).
#[must_use]
pub fn swaps(root: &Path) -> Vec<SwapLine> {
    let bytes = fs::read(root.join("proc/swaps")).unwrap_or_default();
    bytes
        .split(|b| *b == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(|b| matches!(b, b' ' | b'\t')).filter(|f| !f.is_empty());
            let (path, kind) = (fields.next()?, fields.next()?);
            let kib =
                fields.next().and_then(|f| std::str::from_utf8(f).ok()?.parse::<u64>().ok()).unwrap_or(0);
            let path = mountinfo::unescape(path);
            let path = path.strip_suffix(b" (deleted)").unwrap_or(&path);
            let path = PathBuf::from(OsStr::from_bytes(path));
            Some(SwapLine { path, file: kind == b"file", bytes: kib.saturating_mul(1024) })
        })
        .collect()
}

/// Finds the device a path below `/dev` stands for.
#[derive(Debug)]
pub struct DeviceNames<'a> {
    root: &'a Path,
    devices: &'a [BlockDevice],
}

impl<'a> DeviceNames<'a> {
    /// Over the devices of one host.
    #[must_use]
    pub fn new(root: &'a Path, devices: &'a [BlockDevice]) -> Self {
        Self { root, devices }
    }

    /// By number.
    #[must_use]
    pub fn numbered(&self, dev: DevNo) -> Option<&'a BlockDevice> {
        self.devices.iter().find(|d| d.dev == dev)
    }

    /// By path: what the node says, then where its link leads, then its name.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&'a BlockDevice> {
        let in_dev = path.strip_prefix("/dev").ok()?;
        let below_root = self.root.join("dev").join(in_dev);
        if let Ok(node) = fs::metadata(&below_root)
            && node.file_type().is_block_device()
        {
            return self.numbered(DevNo::from_raw(node.rdev()));
        }
        if let Ok(target) = fs::canonicalize(&below_root)
            && let Some(device) = self.named(&target.file_name()?.to_string_lossy())
        {
            return Some(device);
        }
        // sysfs writes `!` where a name in /dev has a slash (cciss!c0d0).
        let name = in_dev.to_str()?;
        self.named(&name.replace('/', "!")).or_else(|| self.mapped(name))
    }

    fn named(&self, name: &str) -> Option<&'a BlockDevice> {
        self.devices.iter().find(|d| d.name == name)
    }

    /// `/dev/mapper/NAME`, and LVM's `/dev/VG/LV`, whose device-mapper name is `VG-LV` with hyphens inside
    /// doubled (lvm(8)).
    fn mapped(&self, in_dev: &str) -> Option<&'a BlockDevice> {
        let (first, second) = in_dev.split_once('/')?;
        let wanted = match first {
            "mapper" => second.to_owned(),
            vg => format!("{}-{}", vg.replace('-', "--"), second.replace('-', "--")),
        };
        self.devices.iter().find(|d| matches!(&d.kind, DeviceKind::Dm { name, .. } if *name == wanted))
    }
}
