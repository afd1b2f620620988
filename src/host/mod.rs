//! What this machine is, below a root folder that can be set.
//!
//! ```text
//! fstab        /etc/fstab: what is to be mounted
//! mountinfo    /proc/PID/mountinfo: its lines, and which mount a path is on
//! namespaces   the mount tables of this host, each once
//! reach        opening a superblock by any of its mounts
//! beneath      opening what is on one mount, without a step off it
//! identity     what tells a folder or a file from every other
//! hidden_mounts    filesystems that no path leads to
//! superblock   which superblock an open file is on
//! ondisk       what a superblock says: the filesystem's UUID, and its devices beside the mounted one
//! inspect      questions to devices and paths that may hang, in a process that may be left behind
//! block        /sys/dev/block: block devices and what they are made of; members of btrfs; swap
//! device       a block device by its number: its node, opened, claimed, read
//! device_users who uses block devices that no mount here shows
//! process      /proc/PID: its name, where it works, and whether it is still the same one
//! rcu          /sys/kernel, /sys/devices/system/cpu: may RCU grace periods be expedited here?
//! cgroup       /proc/PID/cgroup: its unit; the way out of a control group
//! open_files   /proc/PID/fd: who has what open for writing
//! fanotify     who has to permit opens
//! tasks        who waits in the kernel
//! calls        in which system call
//! write_access who holds the write access that FIFREEZE waits for
//! busy         which long operations go on in a filesystem: scrub, balance, resize, defragment
//! thread       work that may be left behind in the kernel
//! sockets      /proc/PID/net: where the sockets of a process listen
//! fdinfo       /proc/PID/fdinfo: the mount of an open file, and how it was opened
//! file         files that are replaced as a whole, folders for root alone
//! trust        who could change what a path leads to
//! lock         a file that one process at a time holds
//! owned_file   the same for a file that is replaced as a whole: is there somebody who owns it?
//! loop_device  a part of a file as a block device
//! memory       how much of it is there
//! mount_api    fsopen, fsmount, open_tree, move_mount
//! futex        sleeping on a word that two processes share
//! kernel       the boundary to the kernel, and the only unsafe code
//! ```
//!
//! In: files below a root, which is `/` but in tests; open file descriptors. Out: facts and handles. Must
//! never: judge what it finds, or import a part of the flow (config, discover, plan, quiesce, window, run,
//! ec2): all of them stand on this.

pub(crate) mod beneath;
pub mod block;
pub mod busy;
pub mod calls;
pub(crate) mod cgroup;
pub(crate) mod device;
pub(crate) mod device_users;
mod error;
pub mod fanotify;
pub(crate) mod fdinfo;
pub mod file;
pub mod fstab;
pub(crate) mod futex;
pub(crate) mod hidden_mounts;
pub(crate) mod identity;
pub mod inspect;
pub mod kernel;
pub mod lock;
pub mod loop_device;
pub(crate) mod memory;
pub(crate) mod mount_api;
pub mod mountinfo;
pub mod namespaces;
pub mod ondisk;
pub(crate) mod open_files;
pub(crate) mod owned_file;
pub mod process;
pub(crate) mod rcu;
pub mod reach;
pub(crate) mod sockets;
pub mod superblock;
pub mod tasks;
pub(crate) mod thread;
pub mod trust;
pub mod write_access;

pub use error::HostError;
