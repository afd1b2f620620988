//! What mountinfo and sysfs leave open about a host: the questions to the devices and paths, and what their
//! answers mean.
//!
//! In: mountinfo's lines and the block devices. Out: questions, each once, and answers to them. Must never:
//! open anything, ask what /proc and /sys already tell (a journal in /proc/fs/jbd2 is inside its filesystem),
//! or take a missing answer for "nothing there".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::host::block::{self, BlockDevice, DeviceKind, SwapLine};
use crate::host::inspect::{Answer, Answers, Inspect, Question, Under};
use crate::host::mountinfo::{MountLine, MountTree};
use crate::host::ondisk::{self, Role};
use crate::ids::DevNo;
use crate::path_encoding::shown;

/// Why nothing is known of a device or a path.
const SILENT: &str = "it does not answer";

/// XFS's options for devices of their own (xfs(5)).
const XFS_DEVICES: [(&str, Role); 2] = [("logdev", Role::Log), ("rtdev", Role::Realtime)];

/// The questions about one host, and their answers.
pub(super) struct Asked<'a> {
    tree: &'a MountTree<'a>,
    devices: &'a [BlockDevice],
    /// The lines of each superblock that matter.
    mounts: &'a HashMap<DevNo, Mounts<'a>>,
    /// Kernel names of the devices whose filesystem has no journal elsewhere.
    journals: Vec<String>,
    answers: &'a Answers,
}

/// The mounts of one superblock.
pub(super) struct Mounts<'a> {
    first: &'a MountLine,
    /// One that no other covers; the first where there is none.
    open: &'a MountLine,
}

/// The mounts of every superblock.
pub(super) fn mounts<'a>(lines: &'a [MountLine], tree: &MountTree<'a>) -> HashMap<DevNo, Mounts<'a>> {
    let mut all: HashMap<DevNo, Mounts<'a>> = HashMap::new();
    for line in lines {
        let mounts = all.entry(line.dev).or_insert(Mounts { first: line, open: line });
        if tree.is_hidden(mounts.open) && !tree.is_hidden(line) {
            mounts.open = line;
        }
    }
    all
}

impl<'a> Asked<'a> {
    /// Puts the questions that `answers` has no answer to.
    pub fn put(
        root: &Path,
        mounts: &'a HashMap<DevNo, Mounts<'a>>,
        tree: &'a MountTree<'a>,
        devices: &'a [BlockDevice],
        swaps: &[SwapLine],
        answers: &'a mut Answers,
        who: &dyn Inspect,
    ) -> Self {
        let journals = block::without_external_journal(root);
        let none = Answers::default();
        let asking = Asked { tree, devices, mounts, journals, answers: &none };
        let mut questions: Vec<Question> = devices.iter().filter_map(loop_file).collect();
        questions.extend(mounts.values().flat_map(|m| asking.about(m.first)));
        questions.extend(swaps.iter().map(swap));
        let journals = asking.journals;
        answers.ask(who, questions);
        Self { tree, devices, mounts, journals, answers }
    }

    /// Everything that is asked about a filesystem.
    fn about(&self, line: &MountLine) -> Vec<Question> {
        match line.fstype.as_str() {
            "overlay" => self.upper_question(line).into_iter().collect(),
            "btrfs" => vec![self.btrfs_question(line), node(&line.source)],
            "bcachefs" => sources(line).map(node).collect(),
            "xfs" => xfs_devices(line).map(|(_, path)| node(path)).collect(),
            _ => self.superblock_question(line).into_iter().collect(),
        }
    }

    /// The mount by which this superblock is reached: one that no other covers, where there is one.
    fn reached(&self, line: &MountLine) -> Option<&'a MountLine> {
        self.mounts.get(&line.dev).map(|m| m.open)
    }

    fn upper_question(&self, line: &MountLine) -> Option<Question> {
        let line = self.reached(line)?;
        let upper = overlay_path(line.super_option("upperdir")?.as_bytes());
        Some(Question::Upper { dev: line.dev, mount: line.id, at: line.mount_point.clone(), upper })
    }

    fn btrfs_question(&self, line: &MountLine) -> Question {
        let (mount, at) = self.reached(line).map_or((line.id, &line.mount_point), |l| (l.id, &l.mount_point));
        Question::Btrfs { dev: line.dev, mount, at: at.clone() }
    }

    fn superblock_question(&self, line: &MountLine) -> Option<Question> {
        let device = self.devices.iter().find(|d| d.dev == line.dev)?;
        if !ondisk::names_devices(&line.fstype) || self.journals.contains(&device.name) {
            return None;
        }
        let first = self.mounts.get(&line.dev)?.first;
        Some(superblock(device, &line.fstype, &first.source, first.id))
    }

    /// Where an overlay's writes go; none when it is read-only.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn upper(&self, line: &MountLine) -> Result<Option<DevNo>, String> {
        let Some(question) = self.upper_question(line) else { return Ok(None) };
        let Question::Upper { upper, .. } = &question else { return Ok(None) };
        let failed = |why: &str| Err(format!("its upper directory {} cannot be told: {why}", shown(upper)));
        match self.answers.to(&question) {
            Some(Answer::On(found)) => match found.as_slice() {
                [one] => Ok(Some(*one)),
                [] => failed("it is not under that path"),
                _ => failed("that path may mean several filesystems"),
            },
            Some(Answer::Failed(why)) => failed(why),
            Some(Answer::NeedsRoot(_)) => Ok(None), // see `unchecked`
            _ => failed(SILENT),
        }
    }

    /// What only root can find out, in words, by the superblock or the loop device that it is about. This
    /// process is not root's, and nothing is known of these: a plan says so, and no run may rest on it.
    pub fn unchecked(&self) -> BTreeMap<DevNo, BTreeSet<String>> {
        let mut all: BTreeMap<DevNo, BTreeSet<String>> = BTreeMap::new();
        for question in self.answers.needing_root() {
            let (dev, what) = match question {
                Question::Superblock { dev, name, .. } => {
                    (*dev, format!("whether the filesystem on {name} has devices beside it"))
                }
                Question::Loop { dev, name, .. } => {
                    (*dev, format!("which filesystem has the image file of {name}"))
                }
                Question::Upper { dev, .. } => (*dev, "where its writes go".to_owned()),
                _ => continue,
            };
            all.entry(dev).or_default().insert(what);
        }
        all
    }

    /// Is root alone told which btrfs this is?
    pub fn needs_root(&self, line: &MountLine) -> bool {
        matches!(self.answers.to(&self.btrfs_question(line)), Some(Answer::NeedsRoot(_)))
    }

    /// The UUID of a btrfs, from the kernel.
    pub fn btrfs(&self, line: &MountLine) -> Option<&str> {
        match self.answers.to(&self.btrfs_question(line))? {
            Answer::Btrfs(uuid) => Some(uuid),
            _ => None,
        }
    }

    /// The devices that the source of a btrfs or bcachefs names: there the kernel itself writes it. None when
    /// one of them cannot be told.
    pub fn members(&self, line: &MountLine) -> Option<Vec<DevNo>> {
        sources(line).map(|source| self.node(&node(source)).map(|(dev, _)| dev).ok()).collect()
    }

    /// The devices that a filesystem has beside the one in mountinfo, or why they may not be all.
    pub fn beside(&self, line: &MountLine) -> Vec<Result<(Role, DevNo), String>> {
        if line.fstype == "xfs" {
            return xfs_devices(line).map(|(role, path)| self.named(role, &path)).collect();
        }
        let Some(question) = self.superblock_question(line) else { return Vec::new() };
        let unread = |why: &str| vec![Err(format!("its superblock cannot be read: {why}"))];
        match self.answers.to(&question) {
            Some(Answer::Superblock { beside, unknown, .. }) => {
                beside.iter().map(|b| Ok(*b)).chain(unknown.clone().map(Err)).collect()
            }
            Some(Answer::Failed(why)) => unread(why),
            Some(Answer::NeedsRoot(_)) => Vec::new(), // see `unchecked`
            _ => unread(SILENT),
        }
    }

    /// A device by the name in a mount option. A name may be another device's by now, which nobody then
    /// holds.
    fn named(&self, role: Role, path: &Path) -> Result<(Role, DevNo), String> {
        let why = |why: &str| Err(format!("its {} {} cannot be told: {why}", role.words(), shown(path)));
        match self.node(&node(path)) {
            Ok((_, Some(false))) => why("no filesystem uses the device of that name"),
            Ok((dev, _)) => Ok((role, dev)),
            Err(e) => why(e),
        }
    }

    fn node(&self, question: &Question) -> Result<(DevNo, Option<bool>), &str> {
        match self.answers.to(question) {
            Some(Answer::Node { dev, held }) => Ok((*dev, *held)),
            Some(Answer::Failed(why) | Answer::NeedsRoot(why)) => Err(why),
            _ => Err(SILENT),
        }
    }

    /// What is below a loop device; none when it has no file.
    pub fn under(&self, device: &BlockDevice) -> Option<Under> {
        let question = loop_file(device)?;
        match self.answers.to(&question) {
            Some(Answer::Loop(under)) => return Some(*under),
            Some(_) => return Some(Under::Unknown),
            None => {}
        }
        // The kernel asks the filesystem that has the file. One on a disk answers from memory; one that is
        // kept by a program or a server may never. So without an answer, a path to such a one is right.
        let Question::Loop { file, .. } = &question else { return None };
        let line = self.tree.mount_of(file).filter(|l| may_wait(&l.fstype));
        Some(line.map_or(Under::Unknown, |l| Under::File(l.dev)))
    }

    /// The device of a swap partition.
    pub fn swap_device(&self, line: &SwapLine) -> Option<DevNo> {
        self.node(&swap(line)).map(|(dev, _)| dev).ok()
    }

    /// The superblocks that a swap file may be on; empty when that cannot be told.
    pub fn swap_file(&self, line: &SwapLine) -> &[DevNo] {
        match self.answers.to(&swap(line)) {
            Some(Answer::On(found)) => found,
            _ => &[],
        }
    }
}

/// The question about the superblock of a filesystem: `source` and `mount` are those of its first line.
pub(super) fn superblock(
    device: &BlockDevice,
    fstype: &str,
    source: impl AsRef<OsStr>,
    mount: u32,
) -> Question {
    Question::Superblock {
        dev: device.dev,
        name: device.name.clone(),
        fstype: fstype.to_owned(),
        source: PathBuf::from(source.as_ref()),
        mount,
    }
}

/// Filesystems whose files are kept by a program or a server.
fn may_wait(fstype: &str) -> bool {
    let kind = fstype.split('.').next().unwrap_or_default();
    matches!(kind, "fuse" | "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" | "afs" | "lustre")
}

fn loop_file(device: &BlockDevice) -> Option<Question> {
    let DeviceKind::Loop { backing_file: Some(file), .. } = &device.kind else { return None };
    let attached = std::fs::read_to_string(device.stat.with_file_name("diskseq")).unwrap_or_default();
    Some(Question::Loop {
        dev: device.dev,
        name: device.name.clone(),
        file: file.clone(),
        attached: attached.trim().to_owned(),
    })
}

fn swap(line: &SwapLine) -> Question {
    let path = line.path.clone();
    if line.file { Question::Swap { path, bytes: line.bytes } } else { Question::Node { path } }
}

fn node(path: impl AsRef<OsStr>) -> Question {
    Question::Node { path: PathBuf::from(path.as_ref()) }
}

/// `/dev/a:/dev/b`, as bcachefs names its members.
fn sources(line: &MountLine) -> impl Iterator<Item = &OsStr> {
    line.source.as_bytes().split(|b| *b == b':').map(OsStr::from_bytes)
}

fn xfs_devices(line: &MountLine) -> impl Iterator<Item = (Role, PathBuf)> {
    let named = |(option, role)| Some((role, PathBuf::from(line.super_option(option)?)));
    XFS_DEVICES.into_iter().filter_map(named)
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
    PathBuf::from(OsStr::from_bytes(&out))
}
