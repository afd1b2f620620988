//! Loop devices: a part of a file as a block device.
//!
//! In: an open file. Out: a device that goes with the last descriptor of it. Must never: open the file by a name, let
//! udev look at the device, or take one that somebody else has.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::kernel;
use crate::ids::DevNo;

/// Somebody else may take the device that was free a moment ago: so often is another one asked for.
const TRIES: usize = 100;
/// Whoever has it may need a moment.
const PAUSE: Duration = Duration::from_millis(20);

/// A loop device, until the drop.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its number.
    pub dev: DevNo,
    /// Its kernel name.
    pub name: String,
    open: Flock<File>,
}

impl LoopDevice {
    /// The kernel may write to it, and to the next one of this number.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn unprotect(&self) -> nix::Result<()> {
        kernel::set_read_only(self.open.as_fd(), false)
    }
}

/// Makes one of `size` bytes of a file, from `offset` on.
///
/// It is locked before it has the file: udev looks at no device that is locked (systemd, "Locking Block Device Access"),
/// so no link by a UUID leads to it, and nothing is started for it.
///
/// # Errors
/// In words: which step the kernel refuses.
pub fn attach(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<LoopDevice, String> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let said = |what: &str, errno: Errno| format!("{what}: {}", errno.desc());
    let control =
        open("/dev/loop-control", flags, Mode::empty()).map_err(|e| said("/dev/loop-control", e))?;
    for _ in 0..TRIES {
        let number =
            kernel::loop_free(control.as_fd()).map_err(|e| said("the kernel gives no loop device", e))?;
        let name = format!("loop{number}");
        let node = format!("/dev/{name}");
        let opened = open(node.as_str(), flags, Mode::empty()).map_err(|e| said(&node, e))?;
        let stat = fstat(&opened).map_err(|e| said(&node, e))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFBLK {
            return Err(format!("{node} is not a device"));
        }
        let Ok(locked) = Flock::lock(File::from(opened), FlockArg::LockExclusiveNonblock) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        match kernel::loop_configure(locked.as_fd(), file, offset, size) {
            // Whoever had the number before may have left it protected.
            Ok(()) if kernel::set_read_only(locked.as_fd(), false).is_err() => {
                return Err(format!("{node} cannot be written to"));
            }
            Ok(()) => return Ok(LoopDevice { dev: DevNo::from_raw(stat.st_rdev), name, open: locked }),
            Err(Errno::EBUSY) => std::thread::sleep(PAUSE),
            Err(e @ (Errno::EINVAL | Errno::ENOTTY)) => {
                return Err(said(&format!("{node} (LOOP_CONFIGURE came with Linux 5.8)"), e));
            }
            Err(e) => return Err(said(&node, e)),
        }
    }
    Err("each loop device was taken by somebody else".to_owned())
}

/// Kernel names of the loop devices of a file at the root of its mount whose path begins like this.
#[must_use]
pub fn of_files_named(root: &Path, start: &str) -> Vec<String> {
    let folder = root.join("sys/block");
    let all = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = all.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with("loop"));
    let file = |name: &String| std::fs::read(folder.join(name).join("loop/backing_file")).unwrap_or_default();
    names.filter(|name| file(name).starts_with(start.as_bytes())).collect()
}

/// Takes the file away from a loop device; it goes when its last user has let go.
///
/// # Errors
/// What the kernel says.
pub fn detach(name: &str) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened: OwnedFd = open(format!("/dev/{name}").as_str(), flags, Mode::empty())?;
    kernel::loop_clear(opened.as_fd())
}

/// Does the kernel refuse to write to it, although it has no file any more? One that has a file is somebody's, who may
/// have protected it.
#[must_use]
pub fn is_left_protected(root: &Path, name: &str) -> bool {
    let folder = root.join("sys/block").join(name);
    let has_file = folder.join("loop/backing_file").try_exists().unwrap_or(true);
    !has_file && std::fs::read_to_string(folder.join("ro")).is_ok_and(|ro| ro.trim() == "1")
}

/// Takes that away.
///
/// # Errors
/// What the kernel says.
pub fn unprotect(name: &str) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened: OwnedFd = open(format!("/dev/{name}").as_str(), flags, Mode::empty())?;
    kernel::set_read_only(opened.as_fd(), false)
}
