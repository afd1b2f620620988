//! The host without EC2: superblocks, what they are on, and the block devices below them.
//!
//! In: `/proc` and `/sys` below a root. Out: [`HostFacts`]. Must never: decide, follow a path into a
//! filesystem (a dead NFS server or a frozen mount would hang it), or count one superblock twice.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Backing, Filesystem, Mount, SwapFile};
use crate::host::block::{self, BlockDevice, DeviceKind, DeviceNames, Members};
use crate::host::mountinfo::{self, BadLine, MountLine, MountTable, MountTree};
use crate::host::{HostError, fsuuid};
use crate::ids::DevNo;

/// What is on this host, before EC2 is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// One entry for each superblock, in the order of its first mount in mountinfo.
    pub filesystems: Vec<Filesystem>,
    /// Every block device, by its kernel name, sorted.
    pub devices: Vec<BlockDevice>,
    /// Swap files in use.
    pub swap_files: Vec<SwapFile>,
    /// Lines of mountinfo that cannot be read: each may be of a filesystem that is not in `filesystems`.
    pub unread_mounts: Vec<BadLine>,
}

/// Reads the host below `root`, which is `/` except in tests.
///
/// # Errors
/// When mountinfo or sysfs cannot be read, or no line of mountinfo can be understood.
pub fn host(root: &Path) -> Result<HostFacts, HostError> {
    let path = root.join("proc/self/mountinfo");
    let bytes = fs::read(&path).map_err(HostError::unreadable(&path))?;
    let MountTable { lines, unread } = mountinfo::parse(&bytes);
    if lines.is_empty()
        && let Some(source) = unread.first().cloned()
    {
        return Err(HostError::Mountinfo { path, source });
    }
    let mut devices = block::devices(root)?;
    let found = {
        let names = DeviceNames::new(root, &devices);
        let btrfs = block::btrfs(root, &devices);
        let superblocks = Superblocks::new(&lines, &names, &btrfs);
        let swaps = block::swaps(root);
        Found {
            loops: devices.iter().filter_map(|d| superblocks.under_loop(d)).collect(),
            swap_devices: swaps
                .iter()
                .filter(|s| !s.file)
                .filter_map(|s| Some(names.at(&s.path)?.dev))
                .collect(),
            swap_files: swaps
                .into_iter()
                .filter(|s| s.file)
                .map(|s| SwapFile { superblock: superblocks.superblock_of(&s.path), path: s.path })
                .collect(),
            filesystems: superblocks.filesystems(root),
        }
    };
    for device in &mut devices {
        device.swap = found.swap_devices.contains(&device.dev);
        match (found.loops.get(&device.dev), &mut device.kind) {
            (Some(UnderLoop::File(of)), DeviceKind::Loop { superblock, .. }) => *superblock = Some(*of),
            (Some(UnderLoop::Device(name)), _) => device.below = vec![name.clone()],
            _ => {}
        }
    }
    let (filesystems, swap_files) = (found.filesystems, found.swap_files);
    Ok(HostFacts { filesystems, devices, swap_files, unread_mounts: unread })
}

struct Found {
    filesystems: Vec<Filesystem>,
    loops: HashMap<DevNo, UnderLoop>,
    swap_devices: Vec<DevNo>,
    swap_files: Vec<SwapFile>,
}

/// What is below a loop device.
enum UnderLoop {
    File(DevNo),
    Device(String),
}

/// mountinfo, with the superblock of each line.
struct Superblocks<'a> {
    lines: &'a [MountLine],
    tree: MountTree<'a>,
    names: &'a DeviceNames<'a>,
    /// Device number of a btrfs superblock → its UUID and members.
    btrfs: HashMap<DevNo, (&'a str, &'a Members)>,
    /// Device number in mountinfo → the one that stands for its superblock (a btrfs has several).
    key: HashMap<DevNo, DevNo>,
}

impl<'a> Superblocks<'a> {
    fn new(lines: &'a [MountLine], names: &'a DeviceNames<'a>, btrfs: &'a BTreeMap<String, Members>) -> Self {
        let mut by_dev = HashMap::new();
        for line in lines.iter().filter(|l| l.fstype == "btrfs") {
            if let Some(found) = btrfs_of(line, names, btrfs) {
                by_dev.entry(line.dev).or_insert(found);
            }
        }
        let mut first: HashMap<&str, DevNo> = HashMap::new();
        let mut key = HashMap::new();
        for line in lines {
            let uuid = by_dev.get(&line.dev).map(|(uuid, _)| *uuid);
            let of = uuid.map_or(line.dev, |uuid| *first.entry(uuid).or_insert(line.dev));
            key.insert(line.dev, of);
        }
        Self { lines, tree: MountTree::new(lines), names, btrfs: by_dev, key }
    }

    fn filesystems(&self, root: &Path) -> Vec<Filesystem> {
        let mut filesystems: Vec<Filesystem> = Vec::new();
        let mut index: HashMap<DevNo, usize> = HashMap::new();
        for line in self.lines {
            let dev = self.key.get(&line.dev).copied().unwrap_or(line.dev);
            let at = *index.entry(dev).or_insert_with(|| {
                let backing = self.backing(line);
                let uuid = self.uuid(root, line, &backing);
                let fstype = line.fstype.clone();
                filesystems.push(Filesystem { dev, fstype, uuid, mounts: Vec::new(), backing });
                filesystems.len() - 1
            });
            if let Some(filesystem) = filesystems.get_mut(at) {
                filesystem.mounts.push(self.mount(line));
            }
        }
        filesystems
    }

    fn mount(&self, line: &MountLine) -> Mount {
        Mount {
            id: line.id,
            mount_point: line.mount_point.clone(),
            root: line.root.clone(),
            options: line.options.clone(),
            source: line.source.to_string_lossy().into_owned(),
            super_options: line.super_options.to_string_lossy().into_owned(),
            hidden: self.tree.is_hidden(line),
        }
    }

    fn backing(&self, line: &MountLine) -> Backing {
        if line.fstype == "overlay" {
            let upper = line.super_option("upperdir").map(|u| overlay_path(u.as_bytes()));
            return Backing::Overlay { upper: upper.and_then(|u| self.superblock_of(&u)) };
        }
        if let Some((_, members)) = self.btrfs.get(&line.dev) {
            // With some members unknown, the filesystem may be on any device: the known ones must not count
            // as all.
            let devices = if members.complete { members.names.clone() } else { Vec::new() };
            return Backing::Devices { devices };
        }
        if line.fstype == "btrfs" {
            // Its source names one of its devices; the others are not known.
            return Backing::Devices { devices: Vec::new() };
        }
        let mut devices: Vec<String> = Vec::new();
        if line.dev.major != 0 {
            devices.extend(self.names.numbered(line.dev).map(|d| d.name.clone()));
            // XFS with its log or realtime part on a device of its own (xfs(5), logdev= and rtdev=).
            let more = ["logdev", "rtdev"].into_iter().filter_map(|o| line.super_option(o));
            devices.extend(more.filter_map(|p| Some(self.names.at(Path::new(&p))?.name.clone())));
        } else if line.fstype == "bcachefs" {
            // It names all its members, `/dev/a:/dev/b`.
            let sources = line.source.as_bytes().split(|b| *b == b':').map(OsStr::from_bytes);
            let found = sources.map(|s| Some(self.names.at(Path::new(s))?.name.clone()));
            devices.extend(found.collect::<Option<Vec<_>>>().unwrap_or_default());
        } else {
            // A source is any text that the mounter likes: for FUSE, NFS, tmpfs and the like it names no
            // device, even if there is one of that name.
            return Backing::None;
        }
        devices.sort();
        devices.dedup();
        Backing::Devices { devices }
    }

    fn uuid(&self, root: &Path, line: &MountLine, backing: &Backing) -> Option<String> {
        if let Some((uuid, _)) = self.btrfs.get(&line.dev) {
            return Some((*uuid).to_owned());
        }
        let device = self.names.numbered(line.dev)?;
        matches!(backing, Backing::Devices { .. })
            .then(|| fsuuid::of_device(root, &line.fstype, line.dev, &device.name, Path::new(&line.source)))
            .flatten()
    }

    /// The superblock that holds a path.
    fn superblock_of(&self, path: &Path) -> Option<DevNo> {
        let line = self.tree.mount_of(path)?;
        Some(self.key.get(&line.dev).copied().unwrap_or(line.dev))
    }

    fn under_loop(&self, device: &BlockDevice) -> Option<(DevNo, UnderLoop)> {
        let DeviceKind::Loop { backing_file: Some(file), .. } = &device.kind else { return None };
        // The kernel appends this when the file was unlinked; its blocks are still in the filesystem.
        let bytes = file.as_os_str().as_bytes();
        let path = Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)));
        if let Some(on) = self.names.at(path) {
            return Some((device.dev, UnderLoop::Device(on.name.clone())));
        }
        // An image mounted over the folder it lies in: what holds it is the mount below its own.
        let mut line = self.tree.mount_of(path)?;
        for _ in self.lines {
            if line.dev != device.dev {
                break;
            }
            line = self.lines.iter().find(|l| l.id == line.parent && l.id != line.id)?;
        }
        let holder = self.key.get(&line.dev).copied().unwrap_or(line.dev);
        (line.dev != device.dev).then_some((device.dev, UnderLoop::File(holder)))
    }
}

/// The btrfs that a mount belongs to: the one that has its source as a member. If the source does not help,
/// the only btrfs of the host.
fn btrfs_of<'a>(
    line: &MountLine,
    names: &DeviceNames<'_>,
    btrfs: &'a BTreeMap<String, Members>,
) -> Option<(&'a str, &'a Members)> {
    let source = names.at(Path::new(&line.source)).or_else(|| names.numbered(line.dev));
    let member = |members: &Members| source.is_some_and(|s| members.names.contains(&s.name));
    let found = btrfs.iter().find(|(_, members)| member(members));
    let only = || btrfs.iter().next().filter(|_| btrfs.len() == 1 && source.is_none());
    found.or_else(only).map(|(uuid, members)| (uuid.as_str(), members))
}

/// overlay takes `\` before a comma, colon or backslash of a path as its own escape (kernel, overlayfs.rst).
fn overlay_path(value: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match bytes.peek() {
            Some(escaped @ (b',' | b':' | b'\\')) if byte == b'\\' => {
                out.push(*escaped);
                bytes.next();
            }
            _ => out.push(byte),
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}
