//! What needs `unsafe`: system calls without a safe wrapper, memory that processes share, descriptors by number.
//!
//! In: open file descriptors, and values of this program. Out: what the kernel said, never interpreted. Must
//! never: decide anything. This is the only file of the project with `unsafe` code; each use says why it is
//! sound.

#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;

mod ioctl {
    // LOOP_GET_STATUS64 has a number from before numbers said a direction and a size.
    nix::ioctl_read_bad!(loop_get_status64, 0x4c05, super::LoopInfo);
    nix::ioctl_none_bad!(loop_clear, 0x4c01);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, super::LoopConfig);
    nix::ioctl_none_bad!(loop_get_free, 0x4c82);
    nix::ioctl_read!(btrfs_fs_info, 0x94, 31, super::BtrfsInfo);
    nix::ioctl_readwrite!(btrfs_scrub_progress, 0x94, 29, super::Words<128>);
    nix::ioctl_readwrite!(btrfs_dev_info, 0x94, 30, super::Words<512>);
    nix::ioctl_read!(btrfs_balance_progress, 0x94, 34, super::Words<128>);
    nix::ioctl_readwrite!(btrfs_dev_replace, 0x94, 53, super::Words<325>);
    nix::ioctl_write_ptr!(btrfs_forget_dev, 0x94, 5, super::VolumeArgs);
    nix::ioctl_readwrite!(fifreeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, libc::c_int);
    // BLKROSET and BLKFLSBUF are numbers from before numbers said a direction and a size.
    nix::ioctl_write_ptr_bad!(set_read_only, 0x125d, libc::c_int);
    nix::ioctl_none_bad!(flush_buffers, 0x1261);
    nix::ioctl_write_ptr_bad!(set_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq);
}

/// FIFREEZE.
///
/// # Errors
/// As [`super::Kernel::freeze`].
pub(super) fn fifreeze(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mut unused = 0;
    // SAFETY: FIFREEZE ignores its argument (fs/ioctl.c, ioctl_fsfreeze); the pointer is valid all the same.
    unsafe { ioctl::fifreeze(fd.as_raw_fd(), &raw mut unused) }.map(drop)
}

/// FITHAW.
///
/// # Errors
/// As [`super::Kernel::thaw`].
pub(super) fn fithaw(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mut unused = 0;
    // SAFETY: FITHAW ignores its argument (fs/ioctl.c, ioctl_fsthaw); the pointer is valid all the same.
    unsafe { ioctl::fithaw(fd.as_raw_fd(), &raw mut unused) }.map(drop)
}

/// BLKROSET: nothing is written to this block device, or it is again, by whoever opens it from now on.
///
/// # Errors
/// EACCES: no CAP_SYS_ADMIN.
pub(crate) fn set_read_only(device: BorrowedFd<'_>, read_only: bool) -> nix::Result<()> {
    let value = libc::c_int::from(read_only);
    // SAFETY: the kernel reads one int, which outlives the call.
    unsafe { ioctl::set_read_only(device.as_raw_fd(), &raw const value) }.map(drop)
}

/// BLKFLSBUF: what the page cache has of this block device is written, and forgotten.
///
/// # Errors
/// EACCES: no CAP_SYS_ADMIN.
pub(crate) fn flush_buffers(device: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: it has no argument.
    unsafe { ioctl::flush_buffers(device.as_raw_fd()) }.map(drop)
}

/// `struct btrfs_ioctl_vol_args` (linux/btrfs.h).
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `BTRFS_IOC_FORGET_DEV` (Linux 5.1): btrfs forgets what was on this block device, unless it is mounted. `control` is
/// `/dev/btrfs-control`.
///
/// # Errors
/// EBUSY: it is mounted. ENOENT: nothing was known. ENOTTY: a kernel before 5.1.
pub(crate) fn btrfs_forget(control: BorrowedFd<'_>, device: BorrowedFd<'_>) -> nix::Result<()> {
    let mut args = VolumeArgs { fd: 0, name: [0; 4088] };
    // The kernel asks for a path. This one leads to what is open, whatever the node is by now.
    let path = format!("/proc/self/fd/{}", device.as_raw_fd());
    for (to, from) in args.name.iter_mut().zip(path.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads one such struct, which outlives the call; the path in it is shorter than the array, so
    // it ends with a zero.
    unsafe { ioctl::btrfs_forget_dev(control.as_raw_fd(), &raw const args) }.map(drop)
}

/// Brings the loopback interface of this network namespace up.
///
/// # Errors
/// What socket(2) and SIOCSIFFLAGS say.
pub(crate) fn loopback_up() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: plain integers and arrays of them, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one `struct ifreq`, which outlives the call.
    unsafe { ioctl::set_interface_flags(socket.as_raw_fd(), &raw const request) }.map(drop)
}

/// `struct loop_info64` of linux/loop.h, as far as it is used.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LoopInfo {
    /// The file's st_dev, encoded like a dev_t.
    pub device: u64,
    inode: u64,
    /// The device that the file is the node of, else 0; encoded like a dev_t.
    pub rdevice: u64,
    rest: [u64; 26],
}

/// `struct btrfs_ioctl_fs_info_args` of linux/btrfs.h, as far as it is used.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct BtrfsInfo {
    max_id: u64,
    devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}

/// LOOP_GET_STATUS64: what is below a loop device. The kernel asks the filesystem that has the file (stat),
/// so this may hang.
///
/// # Errors
/// ENXIO: nothing is.
pub fn loop_status(device: BorrowedFd<'_>) -> nix::Result<LoopInfo> {
    let mut info = LoopInfo { device: 0, inode: 0, rdevice: 0, rest: [0; 26] };
    // SAFETY: LoopInfo has the size and the layout of `struct loop_info64`, which the kernel fills; it
    // outlives the call.
    unsafe { ioctl::loop_get_status64(device.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// `struct loop_config` of linux/loop.h, as far as it is used.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    unused: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    rest: [u64; 30],
}

/// LOOP_CONFIGURE (Linux 5.8): a loop device of a part of a file, which goes when the last one closes it.
///
/// # Errors
/// EBUSY: somebody else has taken the device. EINVAL, ENOTTY: a kernel before 5.8.
pub(crate) fn loop_configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    size: u64,
) -> nix::Result<()> {
    /// `LO_FLAGS_AUTOCLEAR`.
    const AUTOCLEAR: u32 = 4;
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        unused: [0; 3],
        offset,
        size_limit: size,
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR,
        rest: [0; 30],
    };
    // SAFETY: LoopConfig has the size and the layout of `struct loop_config`, which the kernel reads; it outlives the
    // call.
    unsafe { ioctl::loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
}

/// LOOP_CTL_GET_FREE: the number of a loop device that nobody has, at this moment.
///
/// # Errors
/// What the kernel says.
pub(crate) fn loop_free(control: BorrowedFd<'_>) -> nix::Result<i32> {
    // SAFETY: it has no argument.
    unsafe { ioctl::loop_get_free(control.as_raw_fd()) }
}

/// LOOP_CLR_FD: the device goes as soon as nobody has it open.
///
/// # Errors
/// ENXIO: it has no file.
pub(crate) fn loop_clear(device: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: it has no argument.
    unsafe { ioctl::loop_clear(device.as_raw_fd()) }.map(drop)
}

/// BTRFS_IOC_FS_INFO: the UUID of the btrfs that this is on.
///
/// # Errors
/// ENOTTY: it is on another filesystem.
pub fn btrfs_uuid(on: BorrowedFd<'_>) -> nix::Result<[u8; 16]> {
    btrfs_info(on).map(|info| info.fsid)
}

/// The highest number that a device of this btrfs has.
///
/// # Errors
/// ENOTTY: it is on another filesystem.
pub(in crate::host) fn btrfs_last_device(on: BorrowedFd<'_>) -> nix::Result<u64> {
    btrfs_info(on).map(|info| info.max_id)
}

fn btrfs_info(on: BorrowedFd<'_>) -> nix::Result<BtrfsInfo> {
    let mut info = BtrfsInfo { max_id: 0, devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: BtrfsInfo has the size and the layout of `struct btrfs_ioctl_fs_info_args`, which the kernel
    // fills; it outlives the call.
    unsafe { ioctl::btrfs_fs_info(on.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// Memory for an ioctl of btrfs whose structure is 64-bit words without pointers (linux/btrfs.h). The number
/// of the ioctl has its size.
type Words<const N: usize> = [u64; N];

/// BTRFS_IOC_SCRUB_PROGRESS: how many bytes the scrub of a device has read.
///
/// # Errors
/// ENOTCONN: none runs there. ENODEV: no such device. EPERM: no CAP_SYS_ADMIN.
pub(in crate::host) fn btrfs_scrubbed(on: BorrowedFd<'_>, device: u64) -> nix::Result<u64> {
    let mut words: Words<128> = [0; 128];
    words[0] = device;
    // SAFETY: the kernel fills at most the 1024 bytes of `struct btrfs_ioctl_scrub_args`, which is as long;
    // they outlive the call.
    unsafe { ioctl::btrfs_scrub_progress(on.as_raw_fd(), &raw mut words) }?;
    Ok(words[6].saturating_add(words[7])) // of data and of trees
}

/// BTRFS_IOC_DEV_INFO: how many bytes of a device are used.
///
/// # Errors
/// ENODEV: no such device.
pub(in crate::host) fn btrfs_used(on: BorrowedFd<'_>, device: u64) -> nix::Result<u64> {
    let mut words: Words<512> = [0; 512];
    words[0] = device;
    // SAFETY: as above, with the 4096 bytes of `struct btrfs_ioctl_dev_info_args`.
    unsafe { ioctl::btrfs_dev_info(on.as_raw_fd(), &raw mut words) }?;
    Ok(words[3])
}

/// BTRFS_IOC_BALANCE_PROGRESS: how many chunks were relocated, of how many.
///
/// # Errors
/// ENOTCONN: no balance. EPERM: no CAP_SYS_ADMIN.
pub(in crate::host) fn btrfs_balanced(on: BorrowedFd<'_>) -> nix::Result<(u64, u64)> {
    let mut words: Words<128> = [0; 128];
    // SAFETY: as above, with the 1024 bytes of `struct btrfs_ioctl_balance_args`.
    unsafe { ioctl::btrfs_balance_progress(on.as_raw_fd(), &raw mut words) }?;
    // Flags, state, three times 17 words about what is balanced; then expected, considered, completed.
    Ok((words[55], words[53]))
}

/// BTRFS_IOC_DEV_REPLACE, asked for its status: how much was copied, in thousandths.
///
/// # Errors
/// EPERM: no CAP_SYS_ADMIN.
pub(in crate::host) fn btrfs_replaced(on: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut words: Words<325> = [0; 325];
    words[0] = 1; // BTRFS_IOCTL_DEV_REPLACE_CMD_STATUS: nothing is changed
    // SAFETY: as above, with the 2600 bytes of `struct btrfs_ioctl_dev_replace_args`.
    unsafe { ioctl::btrfs_dev_replace(on.as_raw_fd(), &raw mut words) }?;
    Ok(words[3])
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<BtrfsInfo>() == 1024);

/// Most superblocks one run can freeze: the size of [`Page`].
pub(crate) const MAX_FILESYSTEMS: usize = 1000;

/// Which words [`Page`] has, and where; raised when that changes.
pub const LAYOUT: u32 = 0x5350_0003;

/// The page that agent, freezer and watchdog share. All words are atomics; either side may die at any instruction.
#[derive(Debug)]
#[repr(C)]
pub struct Page {
    /// [`LAYOUT`]: what another build has left may have other words in other places.
    pub layout: AtomicU32,
    /// CLOCK_BOOTTIME of the agent's last heartbeat, in nanoseconds.
    pub beat: AtomicU64,
    /// CLOCK_BOOTTIME when the watchdog last thawed one, in nanoseconds.
    pub thawed_at: AtomicU64,
    /// Why the watchdog fired, 0 while it has not: see [`crate::window::watchdog::Trigger`].
    pub fired: AtomicU32,
    /// How many superblocks the watchdog has thawed.
    pub thawed_by_watchdog: AtomicU32,
    /// 1 while the agent may have raised `rcu_expedited`: see [`crate::window::expedite`].
    pub expedited: AtomicU32,
    /// One word a superblock: see [`crate::window::state::State`].
    pub states: [AtomicU32; MAX_FILESYSTEMS],
    /// One word a superblock, by which the agent requests FIFREEZE and FITHAW: see `window/delegated.rs`.
    pub requests: [AtomicU32; MAX_FILESYSTEMS],
    /// One word a superblock, by which the freezer replies.
    pub replies: [AtomicU32; MAX_FILESYSTEMS],
}

/// A new file that is nowhere but in memory, closed on exec: memfd_create(2). By its number, because the C library has a
/// function for it since 2.27, and packages are linked against 2.17.
///
/// # Errors
/// What memfd_create says.
pub fn memory_file(name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    // SAFETY: the name is a string of C, which the kernel copies.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A mapping of [`Page`], shared through a memfd or a file in memory.
#[derive(Debug)]
pub struct SharedPage {
    page: NonNull<Page>,
}

// SAFETY: the mapping lives as long as the value, and Page holds nothing but atomics.
unsafe impl Send for SharedPage {}
// SAFETY: as above; every access goes through atomics.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    const LENGTH: NonZeroUsize = match NonZeroUsize::new(size_of::<Page>()) {
        Some(n) => n,
        None => unreachable!(),
    };

    /// A new page of zeroes and the memfd that it can be mapped from elsewhere.
    ///
    /// # Errors
    /// What memfd_create, ftruncate or mmap say.
    pub fn create() -> nix::Result<(Self, OwnedFd)> {
        let fd = memory_file(c"stillpoint")?;
        Ok((Self::new(fd.as_fd())?, fd))
    }

    /// The same in this file, which is empty. It has to be on a memory filesystem: a store to a page of a
    /// disk may wait for that disk.
    ///
    /// # Errors
    /// What fallocate or mmap say.
    pub fn new(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        let size = i64::try_from(size_of::<Page>()).map_err(|_| Errno::EOVERFLOW)?;
        // All of it, now: with a hole, a store would be SIGBUS once the filesystem is full.
        nix::fcntl::fallocate(fd, nix::fcntl::FallocateFlags::empty(), 0, size)?;
        let page = Self::map(fd)?;
        page.layout.store(LAYOUT, std::sync::atomic::Ordering::SeqCst);
        Ok(page)
    }

    /// Maps the page of a file made by [`SharedPage::create`] or [`SharedPage::new`].
    ///
    /// # Errors
    /// EINVAL when the file is too small to be one, else what mmap says.
    pub fn map(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        let size = nix::sys::stat::fstat(fd)?.st_size;
        if usize::try_from(size).is_ok_and(|s| s < size_of::<Page>()) {
            return Err(Errno::EINVAL); // a shorter file would be SIGBUS at the first touch
        }
        // SAFETY: a fresh shared mapping of a file at least as long as Page (checked above), which only root
        // can open and nobody truncates; any bytes are a valid Page; mmap aligns to a page.
        let page = unsafe {
            mmap(
                None,
                Self::LENGTH,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self { page: page.cast() })
    }
}

impl std::ops::Deref for SharedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: mapped for as long as self lives; only atomics inside, so a shared reference is always
        // sound.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the exact mapping made in `map`; no reference into it outlives self.
        let _ = unsafe { munmap(self.page.cast(), size_of::<Page>()) };
    }
}

/// Receives one message with the fds that came with it. `Ok((0, []))` is end of file.
///
/// # Errors
/// What recvmsg says; EMSGSIZE when fds were cut off.
pub(crate) fn receive_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these fds for us; nobody else knows their numbers.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// An fd that the runtime can wait for.
///
/// # Errors
/// When it cannot be registered with the runtime's epoll.
pub(crate) fn async_fd(fd: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always names the same open fd until it is dropped, and AsyncFd owns it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// One malloc arena for all threads, so that mlockall does not pin 64 MiB of address space a thread.
/// To be called before the first thread starts.
pub fn one_malloc_arena() {
    // SAFETY: mallopt with a documented parameter; no other thread exists yet. Its failure costs memory,
    // nothing else.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives this thread, and those that it starts, the highest real-time priority: it runs before every ordinary
/// process, whatever share of the CPUs its control group has (sched(7)).
///
/// # Errors
/// EPERM: no CAP_SYS_NICE, or a control group without real-time bandwidth (CONFIG_RT_GROUP_SCHED).
pub fn run_first() -> nix::Result<()> {
    // SAFETY: no memory is passed.
    let highest = unsafe { libc::sched_get_priority_max(libc::SCHED_FIFO) };
    schedule(libc::SCHED_FIFO, highest)
}

/// Undoes it, for this thread.
///
/// # Errors
/// What sched_setscheduler says.
pub fn run_as_usual() -> nix::Result<()> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: i32, priority: i32) -> nix::Result<()> {
    // SAFETY: plain integers, for which zero is valid where a platform has more of them.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the struct outlives the call, which only reads it; 0 is this thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// Changes of a mount for [`set_mount_attributes`]: `struct mount_attr` in its first version.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct MountAttributes {
    /// Flags (`MOUNT_ATTR_*`) to set, after `clear`.
    pub set: u64,
    pub clear: u64,
    /// Propagation (`MS_SHARED`, …), 0 to leave it.
    pub propagation: u64,
    /// For idmapped mounts, which are not made here.
    pub userns: u64,
}

/// mount_setattr(2), which rustix does not have. `all`: of what is mounted on it, too.
///
/// # Errors
/// ENOSYS: a kernel before 5.12. EBADF: no mount behind this fd.
pub(crate) fn set_mount_attributes(mount: RawFd, attributes: &MountAttributes, all: bool) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if all { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct is `struct mount_attr` in its first version, its size is passed, and it outlives the
    // call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(result).map(drop)
}

/// A file handle (open_by_handle_at(2)): `struct file_handle` with room for the longest.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct FileHandle {
    length: u32,
    /// What the filesystem calls its form.
    pub kind: i32,
    bytes: [u8; FileHandle::ROOM],
}

impl FileHandle {
    /// `MAX_HANDLE_SZ` of linux/exportfs.h.
    const ROOM: usize = 128;

    /// The handle itself.
    pub fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or_default();
        self.bytes.get(..length).unwrap_or_default()
    }
}

/// name_to_handle_at(2) of an open file; O_PATH will do.
///
/// # Errors
/// EOPNOTSUPP: the filesystem has none.
pub(crate) fn file_handle(fd: BorrowedFd<'_>) -> nix::Result<FileHandle> {
    let mut handle = FileHandle { length: FileHandle::ROOM as u32, kind: 0, bytes: [0; FileHandle::ROOM] };
    let mut mount: libc::c_int = 0;
    // SAFETY: FileHandle begins as `struct file_handle` does, says how many bytes follow, and has them; both
    // values outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(result).map(|_| handle)
}

/// open_by_handle_at(2), with O_PATH. `on` is open, not with O_PATH, on the mount that it is to be seen on.
///
/// # Errors
/// ESTALE: it is deleted. EPERM: no CAP_DAC_READ_SEARCH.
pub(crate) fn open_by_handle(on: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> nix::Result<OwnedFd> {
    let mut handle = FileHandle { length: 0, kind, bytes: [0; FileHandle::ROOM] };
    handle.bytes.get_mut(..bytes.len()).ok_or(Errno::EINVAL)?.copy_from_slice(bytes);
    handle.length = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: as above; the kernel only reads the handle, whose length is at most its room (checked above).
    let result =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, on.as_raw_fd(), &raw const handle, flags) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a command begin in a session of its own, and with this umask: it has no controlling terminal (with
/// one it could type into it, TIOCSTI), is out of reach of a Ctrl-C, and is the leader of a process group of
/// its own.
pub fn begin_own_session(command: &mut std::process::Command, umask: Mode) {
    use std::os::unix::process::CommandExt;
    let begin = move || {
        nix::sys::stat::umask(umask);
        nix::unistd::setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec only umask(2) and setsid(2) run, which are async-signal-safe; nothing is
    // allocated and no lock is taken.
    unsafe { command.pre_exec(begin) };
}

/// What execve(2) said of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It was loaded.
    Loaded,
    /// It cannot be started, and why.
    Refused(Errno),
    /// This process may not trace, or was disturbed.
    NotTried,
}

/// Has a process execute this file under ptrace(2), and kills it before the first instruction. The calling
/// process must have one thread.
#[must_use]
pub fn load(file: &std::ffi::CStr) -> Load {
    use nix::unistd::{ForkResult, fork, getpid, getppid};
    /// No errno is as high.
    const DISTURBED: libc::c_int = 255;
    let parent = getpid();
    let nothing = std::ptr::null_mut::<libc::c_void>();
    let (arguments, environment) = ([file.as_ptr(), std::ptr::null()], [std::ptr::null()]);
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    let child = match unsafe { fork() } {
        Err(_) => return Load::NotTried,
        Ok(ForkResult::Parent { child }) => child.as_raw(),
        // SAFETY: these calls take numbers, and pointers to strings and arrays above that end with NUL and null.
        // _exit(2) does not return.
        Ok(ForkResult::Child) => unsafe {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing) != 0 {
                libc::_exit(DISTURBED);
            }
            // Here the parent says that this process dies with it, and lets it go on. If the parent dies before
            // it could say so, the kernel lets it go on, as somebody else's child: then it must not execute.
            libc::raise(libc::SIGSTOP);
            if getppid() != parent {
                libc::_exit(DISTURBED);
            }
            libc::execve(file.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            libc::_exit(Errno::last_raw())
        },
    };
    let wait = || {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one int, to the variable above.
        while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } == -1 {
            if Errno::last() != Errno::EINTR {
                return None;
            }
        }
        Some(status)
    };
    let end = |said| {
        // SAFETY: a signal to a child that was not waited for yet, so its id is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
        while wait().is_some_and(|status| libc::WIFSTOPPED(status)) {}
        said
    };
    match wait() {
        Some(status) if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP => {}
        Some(status) if libc::WIFSTOPPED(status) => return end(Load::NotTried),
        _ => return Load::NotTried,
    }
    let options = libc::c_long::from(libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXEC);
    // SAFETY: both requests take numbers; the child is stopped, and its tracer is this thread.
    let goes_on = unsafe {
        libc::ptrace(libc::PTRACE_SETOPTIONS, child, nothing, options) == 0
            && libc::ptrace(libc::PTRACE_CONT, child, nothing, nothing) == 0
    };
    if !goes_on {
        return end(Load::NotTried);
    }
    match wait() {
        Some(status) if libc::WIFSTOPPED(status) => {
            let executed = status >> 8 == libc::SIGTRAP | (libc::PTRACE_EVENT_EXEC << 8);
            end(if executed { Load::Loaded } else { Load::NotTried })
        }
        Some(status) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != DISTURBED => {
            Load::Refused(Errno::from_raw(libc::WEXITSTATUS(status)))
        }
        _ => Load::NotTried,
    }
}

/// Keeps what this process was started with, other than its three standard streams, to itself: whoever
/// started it may have left a terminal or a lock open, and commands that run as other users would get it.
pub fn keep_inherited_fds() {
    let first: libc::c_uint = 3;
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC closes nothing, it only sets a flag.
    let all =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if all == 0 {
        return;
    }
    // A kernel before 5.11.
    let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for fd in fds.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()).filter(|fd| *fd >= 3)
    {
        // SAFETY: F_SETFD changes a flag of the descriptor only; one that is closed by now gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Ends this process by `signal`, as if it had never been caught, so that shells and systemd see the truth.
pub fn die_by(signal: nix::sys::signal::Signal) -> ! {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, raise, sigaction};
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: installing the default action runs no code of ours.
    let _ = unsafe { sigaction(signal, &default) };
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = only.thread_unblock();
    let _ = raise(signal);
    // Only reached when the signal's default action does not end a process.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn the_page_is_shared_between_mappings() {
        let (one, fd) = SharedPage::create().unwrap();
        let two = SharedPage::map(fd.as_fd()).unwrap();
        one.states[MAX_FILESYSTEMS - 1].store(7, Ordering::SeqCst);
        assert_eq!(two.states[MAX_FILESYSTEMS - 1].load(Ordering::SeqCst), 7);
        let short = tempfile::tempfile().unwrap();
        assert_eq!(SharedPage::map(short.as_fd()).unwrap_err(), Errno::EINVAL);
    }
}
