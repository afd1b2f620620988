//! The host without EC2: superblocks, what they are on, and the block devices below them.
//!
//! In: `/proc` and `/sys` below a root, and who answers what those leave open. Out: [`HostFacts`]. Must
//! never: decide, open a device or follow a path into a filesystem (a disk or server that does not answer
//! would hang it), or count one superblock twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::asked::{self, Asked};
use super::{Backing, Beside, Facts, Filesystem, Mount, SwapFile};
use crate::host::HostError;
use crate::host::block::{self, BlockDevice, DeviceKind, Members};
use crate::host::inspect::{Answer, Answers, Inspect, Under};
use crate::host::mountinfo::{self, BadLine, MountLine, MountTable, MountTree};
use crate::host::rcu;
use crate::ids::DevNo;
use crate::path_encoding::shown;

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
    /// What only root can find out, by the superblock or the loop device that it is about; empty for root.
    pub unchecked: BTreeMap<DevNo, BTreeSet<String>>,
    /// Why RCU grace periods are better not expedited on this host; none where they may be.
    pub not_expedited: Option<String>,
    /// What devices and paths were asked, and their answers.
    #[serde(skip)]
    pub answers: Answers,
}

/// Reads the host below `root`, which is `/` except in tests. What is in `known` is not asked again.
///
/// # Errors
/// When mountinfo or sysfs cannot be read, or no line of mountinfo can be understood.
pub fn host(root: &Path, inspect: &dyn Inspect, known: Answers) -> Result<HostFacts, HostError> {
    let path = root.join("proc/self/mountinfo");
    let bytes = fs::read(&path).map_err(HostError::unreadable(&path))?;
    let MountTable { lines, unread } = mountinfo::parse(&bytes);
    if lines.is_empty()
        && let Some(source) = unread.first().cloned()
    {
        return Err(HostError::Mountinfo { path, source });
    }
    let mut devices = block::devices(root)?;
    let mut answers = known;
    let swaps = block::swaps(root);
    let found = {
        let tree = MountTree::new(&lines);
        let mounts = asked::mounts(&lines, &tree);
        let asked = Asked::put(root, &mounts, &tree, &devices, &swaps, &mut answers, inspect);
        let members = [block::btrfs(root, &devices), block::bcachefs(root, &devices)];
        let superblocks = Superblocks::new(&lines, &tree, &devices, &asked, &members);
        let on = |device| Some((superblocks.device(asked.swap_device(device)?)?).dev);
        Found {
            loops: devices.iter().filter_map(|d| Some((d.dev, superblocks.under(d)?))).collect(),
            swap_devices: swaps.iter().filter(|s| !s.file).filter_map(on).collect(),
            swap_files: swaps.iter().filter(|s| s.file).flat_map(|s| superblocks.swap_files(s)).collect(),
            filesystems: superblocks.filesystems(),
            unchecked: superblocks.unchecked(),
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
    let Found { filesystems, swap_files, unchecked, .. } = found;
    let not_expedited = rcu::objection(root);
    Ok(HostFacts {
        filesystems,
        devices,
        swap_files,
        unread_mounts: unread,
        unchecked,
        not_expedited,
        answers,
    })
}

/// Asks for the UUIDs of these filesystems, where they are not known: only what is taken is read. Returns
/// those whose UUID only root may read.
pub fn uuids(facts: &mut Facts, of: &[DevNo], inspect: &dyn Inspect) -> Vec<DevNo> {
    let question = |f: &Filesystem| {
        let device = facts.devices.iter().find(|d| d.dev == f.dev)?;
        let first = f.mounts.first()?;
        Some(asked::superblock(device, &f.fstype, &first.source, first.id))
    };
    let wanted = facts.filesystems.iter().filter(|f| f.uuid.is_none() && of.contains(&f.dev));
    let questions: Vec<_> = wanted.filter_map(|f| Some((f.dev, question(f)?))).collect();
    facts.answers.ask(inspect, questions.iter().map(|(_, q)| q.clone()).collect());
    let mut needing_root = Vec::new();
    for (dev, question) in questions {
        match facts.answers.to(&question) {
            Some(Answer::Superblock { uuid, .. }) => {
                if let Some(filesystem) = facts.filesystems.iter_mut().find(|f| f.dev == dev) {
                    filesystem.uuid.clone_from(uuid);
                }
            }
            Some(Answer::NeedsRoot(_)) => needing_root.push(dev),
            _ => {}
        }
    }
    needing_root
}

struct Found {
    filesystems: Vec<Filesystem>,
    loops: HashMap<DevNo, UnderLoop>,
    swap_devices: Vec<DevNo>,
    swap_files: Vec<SwapFile>,
    unchecked: BTreeMap<DevNo, BTreeSet<String>>,
}

/// What is below a loop device.
enum UnderLoop {
    File(DevNo),
    Device(String),
}

/// What a filesystem is on, and why that may not be all.
struct Base {
    backing: Backing,
    beside: Vec<Beside>,
    unknown: Option<String>,
}

impl Base {
    fn known(backing: Backing) -> Self {
        Self { backing, beside: Vec::new(), unknown: None }
    }

    fn devices(mut devices: Vec<String>) -> Self {
        devices.sort();
        devices.dedup();
        Self::known(Backing::Devices { devices })
    }

    /// It may be on any device: the known ones must not count as all.
    fn unknown(why: &str) -> Self {
        Self { unknown: Some(why.to_owned()), ..Self::devices(Vec::new()) }
    }
}

/// mountinfo, with the superblock of each line.
struct Superblocks<'a> {
    lines: &'a [MountLine],
    tree: &'a MountTree<'a>,
    devices: &'a [BlockDevice],
    asked: &'a Asked<'a>,
    /// Device number of a btrfs or bcachefs superblock → its UUID and members.
    several: HashMap<DevNo, (&'a str, &'a Members)>,
    /// Device number in mountinfo → the one that stands for its superblock (a btrfs has several).
    key: HashMap<DevNo, DevNo>,
}

impl<'a> Superblocks<'a> {
    fn new(
        lines: &'a [MountLine],
        tree: &'a MountTree<'a>,
        devices: &'a [BlockDevice],
        asked: &'a Asked<'a>,
        [btrfs, bcachefs]: &'a [BTreeMap<String, Members>; 2],
    ) -> Self {
        let mut all = Self { lines, tree, devices, asked, several: HashMap::new(), key: HashMap::new() };
        for line in lines {
            if all.several.contains_key(&line.dev) {
                continue;
            }
            let found = match line.fstype.as_str() {
                "btrfs" => all.by_uuid(line, btrfs).or_else(|| all.by_member(line, btrfs)),
                "bcachefs" => all.by_member(line, bcachefs),
                _ => None,
            };
            if let Some(found) = found {
                all.several.insert(line.dev, found);
            }
        }
        let mut first: HashMap<&str, DevNo> = HashMap::new();
        for line in lines {
            let uuid = all.several.get(&line.dev).map(|(uuid, _)| *uuid);
            let of = uuid.map_or(line.dev, |uuid| *first.entry(uuid).or_insert(line.dev));
            all.key.insert(line.dev, of);
        }
        all
    }

    fn device(&self, dev: DevNo) -> Option<&'a BlockDevice> {
        self.devices.iter().find(|d| d.dev == dev)
    }

    /// The btrfs of which the kernel says that it is this mount's.
    fn by_uuid(
        &self,
        line: &MountLine,
        all: &'a BTreeMap<String, Members>,
    ) -> Option<(&'a str, &'a Members)> {
        all.get_key_value(self.asked.btrfs(line)?).map(|(uuid, members)| (uuid.as_str(), members))
    }

    /// The one that has every device of the mount's source as a member. If the source does not help, the only
    /// one of the host.
    fn by_member(
        &self,
        line: &MountLine,
        all: &'a BTreeMap<String, Members>,
    ) -> Option<(&'a str, &'a Members)> {
        let sources = self.asked.members(line);
        let names: Option<Vec<&str>> =
            sources.and_then(|s| s.into_iter().map(|dev| Some(self.device(dev)?.name.as_str())).collect());
        let has =
            |m: &Members| names.as_ref().is_some_and(|n| n.iter().all(|n| m.names.iter().any(|m| m == n)));
        let only = || all.iter().next().filter(|_| all.len() == 1 && names.is_none());
        let found = all.iter().find(|(_, m)| has(m)).or_else(only);
        found.map(|(uuid, members)| (uuid.as_str(), members))
    }

    fn filesystems(&self) -> Vec<Filesystem> {
        let mut filesystems: Vec<Filesystem> = Vec::new();
        let mut index: HashMap<DevNo, usize> = HashMap::new();
        for line in self.lines {
            let dev = self.key(line.dev);
            let at = *index.entry(dev).or_insert_with(|| {
                let Base { backing, beside, unknown } = self.base(line);
                let uuid = self.several.get(&line.dev).map(|(uuid, _)| (*uuid).to_owned());
                let (fstype, mounts) = (line.fstype.clone(), Vec::new());
                filesystems.push(Filesystem { dev, fstype, uuid, mounts, backing, beside, unknown });
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

    fn base(&self, line: &MountLine) -> Base {
        if line.fstype == "overlay" {
            return match self.asked.upper(line) {
                Ok(upper) => Base::known(Backing::Overlay { upper: upper.map(|dev| self.key(dev)) }),
                Err(why) => Base { unknown: Some(why), ..Base::known(Backing::Overlay { upper: None }) },
            };
        }
        if matches!(line.fstype.as_str(), "btrfs" | "bcachefs") {
            return match self.several.get(&line.dev) {
                Some((_, members)) if members.complete => Base::devices(members.names.clone()),
                Some(_) => Base::unknown("sysfs does not show all of its devices"),
                // See `unchecked`.
                None if self.asked.needs_root(line) => Base::devices(Vec::new()),
                None => Base::unknown("sysfs does not show which one it is"),
            };
        }
        if line.dev.major == 0 {
            // A source is any text that the mounter likes: for FUSE, NFS, tmpfs and the like it names no
            // device, even if there is one of that name.
            return Base::known(Backing::None);
        }
        let Some(device) = self.device(line.dev) else { return Base::devices(Vec::new()) };
        let (mut names, mut beside, mut unknown) = (vec![device.name.clone()], Vec::new(), None);
        for other in self.asked.beside(line) {
            let found = other.and_then(|(role, dev)| match self.device(dev) {
                Some(device) => Ok(Beside { role, device: device.name.clone() }),
                None => Err(format!("its {} {dev} is gone", role.words())),
            });
            match found {
                Ok(other) => {
                    names.push(other.device.clone());
                    beside.push(other);
                }
                Err(why) => unknown = Some(why),
            }
        }
        Base { beside, unknown, ..Base::devices(names) }
    }

    fn unchecked(&self) -> BTreeMap<DevNo, BTreeSet<String>> {
        let mut all = self.asked.unchecked();
        let lost = |l: &&MountLine| {
            l.fstype == "btrfs" && !self.several.contains_key(&l.dev) && self.asked.needs_root(l)
        };
        for line in self.lines.iter().filter(lost) {
            let what = format!("which devices the btrfs on {} is on", shown(&line.mount_point));
            all.entry(line.dev).or_default().insert(what);
        }
        all
    }

    fn key(&self, dev: DevNo) -> DevNo {
        self.key.get(&dev).copied().unwrap_or(dev)
    }

    fn under(&self, device: &BlockDevice) -> Option<UnderLoop> {
        match self.asked.under(device)? {
            Under::File(dev) if dev != device.dev => Some(UnderLoop::File(self.key(dev))),
            // One that is gone has no name any more.
            Under::Device(dev) => {
                Some(UnderLoop::Device(self.device(dev).map_or_else(|| dev.to_string(), |d| d.name.clone())))
            }
            _ => None,
        }
    }

    /// One entry for each superblock that the file may be on; one without, when that cannot be told.
    fn swap_files(&self, line: &block::SwapLine) -> Vec<SwapFile> {
        let file = |superblock| SwapFile { path: line.path.clone(), superblock };
        match self.asked.swap_file(line) {
            [] => vec![file(None)],
            on => on.iter().map(|dev| file(Some(self.key(*dev)))).collect(),
        }
    }
}
