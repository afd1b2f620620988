//! How a question is answered.
//!
//! In: a [`Question`]; devices and paths of this machine, opened here. Out: an [`Answer`]. Must never: run in
//! a process that has to end, since each of these opens and reads may hang; write; or take a node for a
//! device whose number it does not have.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::automount;
use super::places::{Places, open_path};
use super::{Answer, Question, Under};
use crate::host::device as by_number;
use crate::host::kernel::{self, Kernel, Linux};
use crate::host::ondisk::{self, Beside, Role};
use crate::host::{mountinfo, superblock as superblocks};
use crate::ids::DevNo;
use crate::path_encoding::shown;

const NO_NODE: &str = "no node in /dev has its number";

/// The kernel appends this to the path of a file that was unlinked.
const DELETED: &[u8] = b" (deleted)";

pub(super) fn answer(root: &Path, question: &Question) -> Answer {
    let said = looked_up(root, question);
    if nix::unistd::geteuid().is_root() { said } else { by_ordinary_user(said) }
}

/// Whatever an ordinary user cannot find out, root might: a folder on the way may be closed to him, the
/// device is, and so are copies of a mount.
fn by_ordinary_user(said: Answer) -> Answer {
    match said {
        Answer::Failed(why) | Answer::Superblock { unknown: Some(why), .. } => Answer::NeedsRoot(why),
        Answer::On(found) if found.is_empty() => Answer::NeedsRoot("it is not under that path".to_owned()),
        Answer::Loop(Under::Unknown) => Answer::NeedsRoot("it is not under that path".to_owned()),
        known => known,
    }
}

fn looked_up(root: &Path, question: &Question) -> Answer {
    let failed = |e: String| Answer::Failed(e);
    match question {
        Question::Superblock { dev, name, fstype, source, .. } => {
            superblock(root, *dev, name, source, fstype)
        }
        Question::Identity { dev, name } => {
            let likely = [PathBuf::from("/dev").join(name)];
            let identity = |mut file: File| ondisk::identity(&mut file).map_err(|e| e.to_string());
            device(root, *dev, &likely).and_then(identity).map_or_else(failed, |found| {
                Answer::Identity(found.map(|(fstype, uuid)| (fstype.to_owned(), uuid)))
            })
        }
        Question::Automount { mount, at } => {
            automount::trigger(*mount, at).map_or_else(failed, |()| Answer::Mounted)
        }
        Question::Node { path } => node(root, path).unwrap_or_else(failed),
        Question::Btrfs { dev, at, .. } => btrfs(*dev, at).map_or_else(failed, Answer::Btrfs),
        Question::Loop { dev, name, file, .. } => {
            under_loop(root, *dev, name, file).map_or_else(failed, Answer::Loop)
        }
        Question::Upper { dev, at, upper, .. } => {
            Places::shared().map_or_else(failed, |places| Answer::On(places.upper(*dev, at, upper)))
        }
        Question::Swap { path, bytes } => Places::shared()
            .map_or_else(failed, |places| Answer::On(places.holding(path, |fd| is_swap_file(fd, *bytes)))),
    }
}

/// Opens a block device by its number. In a made host it is a plain file, by its name or its number.
fn device(root: &Path, dev: DevNo, likely: &[PathBuf]) -> Result<File, String> {
    if root != Path::new("/") {
        let named = likely.iter().filter_map(|p| p.strip_prefix("/dev").ok().map(Path::to_path_buf));
        let mut all = named.chain([PathBuf::from(format!("block/{dev}"))]);
        let found = all.find_map(|p| File::open(root.join("dev").join(p)).ok());
        return found.ok_or_else(|| NO_NODE.to_owned());
    }
    let node = by_number::node(dev, likely).ok_or(NO_NODE)?;
    let opened = by_number::open_at(&node, dev, OFlag::empty());
    opened.map(File::from).map_err(|e| format!("{}: {}", shown(&node), e.desc()))
}

/// The superblock of the filesystem that is mounted from `dev`, read below `root`.
#[must_use]
pub fn superblock(root: &Path, dev: DevNo, name: &str, source: &Path, fstype: &str) -> Answer {
    let likely = [PathBuf::from("/dev").join(name), source.to_owned()];
    let mut file = match device(root, dev, &likely) {
        Ok(file) => file,
        Err(why) => return Answer::Failed(why),
    };
    let uuid = ondisk::uuid(&mut file, fstype);
    let (mut beside, mut unknown) = (Vec::new(), None);
    match ondisk::beside(&mut file, fstype) {
        Ok(named) => {
            for other in named {
                match resolved(root, &other) {
                    Ok(found) => beside.push(found),
                    Err(why) => unknown = Some(why),
                }
            }
        }
        Err(e) => unknown = Some(format!("its superblock cannot be read: {e}")),
    }
    Answer::Superblock { uuid, beside, unknown }
}

/// The device that a superblock names.
fn resolved(root: &Path, other: &Beside) -> Result<(Role, DevNo), String> {
    match other {
        Beside::Path(role, path) => match node(root, path) {
            Ok(Answer::Node { dev, .. }) => Ok((*role, dev)),
            _ => Err(format!("its {} {} is not there under that name", role.words(), shown(path))),
        },
        // Nothing on the device would tell: the kernel itself goes by the number.
        Beside::Number(role, dev, None) => Ok((*role, *dev)),
        Beside::Number(role, dev, Some(uuid)) => {
            let is_it =
                |dev: DevNo| device(root, dev, &[]).is_ok_and(|mut f| ondisk::is_journal(&mut f, uuid));
            let mut all = std::iter::once(*dev).chain(journals(root));
            let found = all.find(|dev| is_it(*dev));
            found.map(|dev| (*role, dev)).ok_or_else(|| {
                format!(
                    "its {} cannot be found: its superblock says {dev}, which is another device",
                    role.words()
                )
            })
        }
    }
}

/// Devices that are external journals in use: jbd2 calls those by the device alone, and a journal inside of a
/// filesystem `DEVICE-INODE`.
fn journals(root: &Path) -> Vec<DevNo> {
    let entries = fs::read_dir(root.join("proc/fs/jbd2")).into_iter().flatten().flatten();
    let number = |name: PathBuf| {
        let text = fs::read_to_string(root.join("sys/class/block").join(name).join("dev")).ok()?;
        text.trim().parse().ok()
    };
    entries.filter_map(|e| number(PathBuf::from(e.file_name()))).collect()
}

/// The device that a node in /dev stands for.
///
/// # Errors
/// When there is no block device under this path.
pub fn node(root: &Path, path: &Path) -> Result<Answer, String> {
    let in_dev = path.strip_prefix("/dev").map_err(|_| format!("{} is not in /dev", shown(path)))?;
    let path = root.join("dev").join(in_dev);
    let about = |e: &dyn std::fmt::Display| format!("{}: {e}", shown(&path));
    let meta = fs::metadata(&path).map_err(|e| about(&e))?;
    if !meta.file_type().is_block_device() {
        return Err(about(&"no block device"));
    }
    // Who mounts a device claims it: a second claim is refused, and nobody sees the try.
    let claim = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(&path);
    let held = match claim {
        Ok(_) => Some(false),
        Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => Some(true),
        Err(_) => None,
    };
    Ok(Answer::Node { dev: DevNo::from_raw(meta.rdev()), held })
}

fn btrfs(dev: DevNo, at: &Path) -> Result<String, String> {
    let folder = Linux.open(at).map_err(|e| e.to_string())?;
    if superblocks::of_fd(&folder) != Some(dev) {
        return Err("another mount covers it".to_owned());
    }
    let id = kernel::btrfs_uuid(folder.as_fd()).map_err(|e| e.to_string())?;
    Ok(uuid::Uuid::from_bytes(id).to_string())
}

/// What the kernel has below a loop device: numbers, while the path in sysfs may lead elsewhere by now.
fn under_loop(root: &Path, dev: DevNo, name: &str, file: &Path) -> Result<Under, String> {
    let node = device(root, dev, &[PathBuf::from("/dev").join(name)])?;
    let status = kernel::loop_status(node.as_fd()).map_err(|e| e.to_string())?;
    drop(node);
    if status.rdevice != 0 {
        return Ok(Under::Device(DevNo::from_raw(status.rdevice)));
    }
    let on = DevNo::from_raw(status.device);
    let lines = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?.lines;
    if on.major != 0 || lines.iter().any(|l| l.dev == on) {
        return Ok(Under::File(on));
    }
    // The st_dev of a btrfs subvolume, or of a layer of an overlay: whatever else has it is on the same
    // superblock.
    let bytes = file.as_os_str().as_bytes();
    let file = Path::new(std::ffi::OsStr::from_bytes(bytes.strip_suffix(DELETED).unwrap_or(bytes)));
    let same =
        |fd: &std::os::fd::OwnedFd| nix::sys::stat::fstat(fd).is_ok_and(|s| DevNo::from_raw(s.st_dev) == on);
    let mounted = lines.iter().filter(|l| matches!(l.fstype.as_str(), "btrfs" | "overlay"));
    let roots = mounted.filter_map(|l| Some((open_path(&l.mount_point).ok()?, l)));
    let by_root = roots.filter(|(fd, l)| superblocks::of_fd(fd) == Some(l.dev)).find(|(fd, _)| same(fd));
    if let Some((_, line)) = by_root {
        return Ok(Under::File(line.dev));
    }
    let places = Places::shared()?;
    let found = file.ancestors().filter(|p| p.is_absolute()).find_map(|p| places.holding(p, same).pop());
    Ok(found.map_or(Under::Unknown, Under::File))
}

/// Has this file the signature of a swap area (mkswap(8)), and room for what is used of it?
fn is_swap_file(fd: &std::os::fd::OwnedFd, bytes: u64) -> bool {
    const SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let Some(page) = page.and_then(|p| usize::try_from(p).ok()) else { return false };
    let enough = |m: &fs::Metadata| m.is_file() && m.len() > bytes;
    let again = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)));
    if !fs::metadata(&again).is_ok_and(|m| enough(&m)) {
        return false;
    }
    let mut first = vec![0; page];
    let read = File::open(&again).and_then(|mut f| f.read_exact(&mut first));
    read.is_ok() && first.ends_with(SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ordinary_user_cannot_find_out_is_not_taken_for_unknown() {
        let needs_root = |said: Answer| matches!(by_ordinary_user(said), Answer::NeedsRoot(_));
        let superblock = |unknown: Option<&str>| Answer::Superblock {
            uuid: None,
            beside: Vec::new(),
            unknown: unknown.map(str::to_owned),
        };
        assert!(needs_root(Answer::Failed("EACCES: Permission denied".to_owned())));
        assert!(needs_root(superblock(Some("it cannot be read"))));
        assert!(needs_root(Answer::On(Vec::new())));
        assert!(needs_root(Answer::Loop(Under::Unknown)));
        let on = DevNo { major: 259, minor: 1 };
        assert!(!needs_root(superblock(None)));
        assert!(!needs_root(Answer::On(vec![on])));
        assert!(!needs_root(Answer::Loop(Under::File(on))));
    }
}
