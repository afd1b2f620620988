//! What the kernel says of an open file: its mount, and how it was opened.
//!
//! In: a file of `/proc/PID/fdinfo` (proc_pid_fdinfo(5)). Out: [`FdInfo`]. Must never: follow the descriptor
//! into its filesystem, which may hang there.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// The text of one file of fdinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FdInfo {
    text: String,
}

impl FdInfo {
    /// Reads `/proc/PID/fdinfo/FD`; none when the process or the descriptor is gone, or another user's.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        Some(Self { text: std::fs::read_to_string(path).ok()? })
    }

    /// Of a descriptor of a process.
    #[must_use]
    pub fn of_process(root: &Path, pid: i32, fd: &str) -> Option<Self> {
        Self::read(&root.join(format!("proc/{pid}/fdinfo/{fd}")))
    }

    /// Of a descriptor of this process. By the calling thread's table, since a thread may have a mount
    /// namespace of its own.
    #[must_use]
    pub fn of_fd(fd: impl AsFd) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/thread-self/fdinfo/{}", fd.as_fd().as_raw_fd())))
    }

    /// The whole text, for what only some kinds of files have (fanotify).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The id of the mount that the file was opened through.
    #[must_use]
    pub fn mount(&self) -> Option<u32> {
        self.field("mnt_id:")?.parse().ok()
    }

    /// Is it open for writing? O_WRONLY is 1, O_RDWR is 2 (open(2)), in octal.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.field("flags:").and_then(|f| u64::from_str_radix(f, 8).ok()).is_some_and(|f| f & 3 != 0)
    }

    /// Was it opened by O_PATH? It is no way to what is in the file.
    #[must_use]
    pub fn is_path(&self) -> bool {
        let flags = self.field("flags:").and_then(|f| u64::from_str_radix(f, 8).ok());
        flags.is_some_and(|f| f & u64::from(libc::O_PATH.unsigned_abs()) != 0)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_octal_and_a_missing_field_is_none() {
        let info = |text: &str| FdInfo { text: text.to_owned() };
        let file = info("pos:\t0\nflags:\t0100001\nmnt_id:\t33\nino:\t7\n");
        assert_eq!((file.mount(), file.is_writable()), (Some(33), true));
        assert!(!info("flags:\t0100000\nmnt_id:\t33\n").is_writable());
        assert_eq!((info("").mount(), info("").is_writable()), (None, false));
    }

    #[test]
    fn an_open_file_of_this_process_has_a_mount() {
        let file = tempfile::tempfile().unwrap();
        let info = FdInfo::of_fd(&file).unwrap();
        assert!(info.mount().is_some() && info.is_writable());
        assert_eq!(FdInfo::read(Path::new("/proc/self/fdinfo/999999")), None);
    }
}
