//! The boundary to the kernel: what a window asks of it, as a trait, and the kernel that runs.
//!
//! In: open file descriptors. Out: what the kernel said, never interpreted. Must never: decide anything,
//! retry, allocate or log. What needs `unsafe` is in `kernel/raw.rs`.

mod raw;

use std::ffi::CStr;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use nix::sys::stat::{Mode, SFlag, fstat};

pub use self::raw::*;
use crate::ids::DevNo;

/// A block device's write counter: `/sys/class/block/*/stat`, fields 1, 5, 7 and 9 (kernel
/// Documentation/block/stat.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCounter {
    /// Reads completed since boot: what shows that the counter counts at all.
    pub reads: u64,
    /// Writes completed since boot.
    pub writes: u64,
    /// Sectors written since boot. An fsync(2) of a clean file, which is no matter while frozen, flushes the
    /// device's cache: that is counted as a write of no sectors.
    pub sectors: u64,
    /// Requests in flight now, reads included where only `stat` is known.
    pub in_flight: u64,
}

/// A [`memory_file`] with this in it, to be read from its beginning.
///
/// # Errors
/// When it cannot be made or written.
pub fn memory_file_of(name: &CStr, content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memory_file(name)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// FIFREEZE, made by another process.
pub type Freezing<'a> = dyn Fn() -> nix::Result<()> + 'a;
/// FITHAW, made by another process; none when that process does not answer.
pub type Thawing<'a> = dyn Fn() -> Option<nix::Result<()>> + 'a;

/// What the frozen window asks of the kernel. One implementation is real; tests wrap it to inject failures.
pub trait Kernel: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a mount point for FIFREEZE: any readable fd of the filesystem will do, O_PATH will not.
    ///
    /// # Errors
    /// What open(2) says. ENODEV: it leads to a device, whose open may do something.
    fn open(&self, path: &Path) -> nix::Result<OwnedFd>;
    /// FIFREEZE. Blocks, uninterruptibly, until writers already inside have left.
    ///
    /// # Errors
    /// EBUSY: frozen by someone else. EOPNOTSUPP: cannot freeze. EPERM: no CAP_SYS_ADMIN.
    fn freeze(&self, fd: BorrowedFd<'_>) -> nix::Result<()>;
    /// FITHAW.
    ///
    /// # Errors
    /// EINVAL: it was not frozen (any more), or a FIFREEZE is still in progress.
    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()>;
    /// FIFREEZE, made by another process where there is one for it: `delegate`. A made kernel has none.
    ///
    /// # Errors
    /// As [`Kernel::freeze`].
    fn freeze_delegated(&self, fd: BorrowedFd<'_>, _delegate: &Freezing<'_>) -> nix::Result<()> {
        self.freeze(fd)
    }
    /// FITHAW, made by another process where `delegate` has a result to give. A made kernel has none.
    ///
    /// # Errors
    /// As [`Kernel::thaw`].
    fn thaw_delegated(&self, fd: BorrowedFd<'_>, _delegate: &Thawing<'_>) -> nix::Result<()> {
        self.thaw(fd)
    }
    /// syncfs(2).
    ///
    /// # Errors
    /// What syncfs says; EIO when writing back failed since the fd was opened.
    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()>;
    /// The superblock that a descriptor is on: mountinfo's `major:minor`; none when no mount table lists it.
    fn superblock(&self, fd: BorrowedFd<'_>) -> Option<DevNo> {
        super::superblock::of_fd(fd)
    }
    /// [`lock_memory`].
    ///
    /// # Errors
    /// ENOMEM or EPERM: neither CAP_IPC_LOCK nor LimitMEMLOCK allows it.
    fn lock_memory(&self) -> nix::Result<()> {
        lock_memory()
    }
    /// munlockall(2).
    ///
    /// # Errors
    /// What munlockall says.
    fn unlock_memory(&self) -> nix::Result<()> {
        munlockall()
    }
    /// Claims a block device: while the descriptor is open nobody else can mount it.
    ///
    /// # Errors
    /// As [`super::device::claim`].
    fn claim_device(&self, dev: DevNo) -> nix::Result<OwnedFd> {
        super::device::claim(dev)
    }
    /// Opens a block device for [`Kernel::read_device`].
    ///
    /// # Errors
    /// As [`super::device::open_direct`].
    fn open_device(&self, dev: DevNo) -> nix::Result<OwnedFd> {
        super::device::open_direct(dev)
    }
    /// Reads the first block of a block device, from the device itself.
    ///
    /// # Errors
    /// As [`super::device::read`].
    fn read_device(&self, device: BorrowedFd<'_>) -> nix::Result<()> {
        super::device::read(device)
    }
    /// fsync(2) of a block device: what the page cache has for it.
    ///
    /// # Errors
    /// What fsync says; EIO when writing back failed before.
    fn flush_device(&self, device: BorrowedFd<'_>) -> nix::Result<()> {
        nix::unistd::fsync(device)
    }
    /// Reads a write counter from an already open `stat` file: no open while frozen.
    ///
    /// # Errors
    /// When the file cannot be read or is not a block `stat` file.
    fn write_counter(&self, stat: &File) -> std::io::Result<WriteCounter>;
    /// Reads how many writes are in flight, without reads, from an already open `inflight` file
    /// (kernel Documentation/ABI/stable/sysfs-block: reads, then writes).
    ///
    /// # Errors
    /// When the file cannot be read or is not a block `inflight` file.
    fn writes_in_flight(&self, inflight: &File) -> std::io::Result<u64> {
        let mut text = [0_u8; 64];
        let text = read_again(inflight, &mut text)?;
        let writes = text.split_ascii_whitespace().nth(1).and_then(|f| f.parse().ok());
        writes.ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "not a block device's inflight file")
        })
    }
}

/// Reads a small file from its beginning, into memory that is there already.
fn read_again<'a>(mut file: &File, text: &'a mut [u8]) -> std::io::Result<&'a str> {
    file.rewind()?;
    let n = file.read(text)?;
    Ok(std::str::from_utf8(text.get(..n).unwrap_or_default()).unwrap_or_default())
}

/// The running kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

impl Kernel for Linux {
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        // Whoever owns a folder on the way may have put a link in it.
        let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
        if [SFlag::S_IFBLK, SFlag::S_IFCHR].contains(&kind) {
            return Err(Errno::ENODEV);
        }
        // O_NONBLOCK: a bind-mounted FIFO must not hang us.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        if kind == SFlag::S_IFDIR {
            // Needs no /proc, which a rescue may have covered.
            return openat(&found, c".", flags, Mode::empty());
        }
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        open(again.as_str(), flags, Mode::empty())
    }

    fn freeze(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        raw::fifreeze(fd)
    }

    fn thaw(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        raw::fithaw(fd)
    }

    fn freeze_delegated(&self, _: BorrowedFd<'_>, delegate: &Freezing<'_>) -> nix::Result<()> {
        delegate()
    }

    fn thaw_delegated(&self, fd: BorrowedFd<'_>, delegate: &Thawing<'_>) -> nix::Result<()> {
        delegate().unwrap_or_else(|| self.thaw(fd))
    }

    fn syncfs(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        nix::unistd::syncfs(fd)
    }

    fn write_counter(&self, stat: &File) -> std::io::Result<WriteCounter> {
        let mut text = [0_u8; 512];
        let mut fields = read_again(stat, &mut text)?.split_ascii_whitespace();
        let mut field = |skip: usize| fields.nth(skip).and_then(|f| f.parse::<u64>().ok());
        match (field(0), field(3), field(1), field(1)) {
            (Some(reads), Some(writes), Some(sectors), Some(in_flight)) => {
                Ok(WriteCounter { reads, writes, sectors, in_flight })
            }
            _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a block device's stat file")),
        }
    }
}

/// mlockall(2), of what is in memory now, and of each page from when it is first touched: most of a program's
/// pages nobody needs while something is frozen (MCL_ONFAULT, Linux 4.4).
///
/// # Errors
/// ENOMEM or EPERM: neither CAP_IPC_LOCK nor LimitMEMLOCK allows it.
pub(crate) fn lock_memory() -> nix::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
}

/// Touches this thread's stack as far as a call that freezes or thaws comes: to find a page for it may take
/// long while memory is short.
#[inline(never)]
pub(crate) fn touch_stack() {
    black_box([0_u8; 16 * 1024]);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_write_counter_is_fields_one_five_seven_and_nine() {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(b"  1 2 3 4  555 6 7 8   9 10 11 12 13 14 15 16 17\n").unwrap();
        let read = Linux.write_counter(&f).unwrap();
        assert_eq!(read, WriteCounter { reads: 1, writes: 555, sectors: 7, in_flight: 9 });
        assert_eq!(Linux.write_counter(&f).unwrap(), read, "it can be read again through the same fd");
        assert!(Linux.write_counter(&tempfile::tempfile().unwrap()).is_err());
    }

    #[test]
    fn a_device_in_the_place_of_a_mount_point_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("mount");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(Linux.open(&link).unwrap_err(), Errno::ENODEV);
        assert!(Linux.open(dir.path()).is_ok());
    }

    #[test]
    fn a_filesystem_in_memory_cannot_freeze() {
        // tmpfs has no freeze operation: EOPNOTSUPP, never a hang (nothing here is ever frozen).
        let fd = Linux.open(Path::new("/dev/shm")).unwrap();
        let said = Linux.freeze(fd.as_fd()).unwrap_err();
        assert!(matches!(said, Errno::EOPNOTSUPP | Errno::EPERM), "{said}");
    }
}
