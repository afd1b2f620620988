//! What tells a folder or a file from every other that could have its name.
//!
//! In: an open file. Out: its [`Identity`], which another process can compare. Must never: ask by a path, or
//! take two files for one because only their numbers are alike, where the filesystem says more.
//!
//! An inode's number is given to another file once the first is deleted and nobody has it open. A file handle
//! (open_by_handle_at(2)) has the inode's generation in it, so it is never given again; overlayfs has none.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::kernel;
use super::reach;
use crate::ids::DevNo;

/// A file on one superblock, told from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `st_dev`; none where the filesystem is mounted anew meanwhile, and may get another.
    device: Option<DevNo>,
    inode: u64,
    /// None where the filesystem has none.
    handle: Option<Handle>,
}

/// A file handle, as the kernel gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Handle {
    kind: i32,
    bytes: Vec<u8>,
}

impl Identity {
    /// Of an open file; O_PATH will do.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn of(fd: &impl AsFd) -> nix::Result<Self> {
        let stat = nix::sys::stat::fstat(fd)?;
        let handle = kernel::file_handle(fd.as_fd()).ok();
        let handle = handle.map(|h| Handle { kind: h.kind, bytes: h.bytes().to_vec() });
        Ok(Self { device: Some(DevNo::from_raw(stat.st_dev)), inode: stat.st_ino, handle })
    }

    /// The same, to be compared after its filesystem was mounted anew.
    #[must_use]
    pub fn on_any_device(self) -> Self {
        Self { device: None, ..self }
    }

    /// Are the two one file, as far as both say?
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        fn alike<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        self.inode == other.inode
            && alike(self.device.as_ref(), other.device.as_ref())
            && alike(self.handle.as_ref(), other.handle.as_ref())
    }

    /// Opens it by its handle, with O_PATH, wherever it is by now. `on` is a folder of its mount.
    #[must_use]
    pub fn find(&self, on: &OwnedFd) -> Option<OwnedFd> {
        let handle = self.handle.as_ref()?;
        // The kernel takes no O_PATH descriptor here.
        let on = reach::reopened(on).ok()?;
        let found = kernel::open_by_handle(on.as_fd(), handle.kind, &handle.bytes).ok()?;
        Self::of(&found).is_ok_and(|of| self.is(&of)).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let path = dir.path().join(name);
            let _ = std::fs::create_dir(&path);
            Identity::of(&std::fs::File::open(path).unwrap()).unwrap()
        };
        let (one, other) = (of("one"), of("other"));
        assert!(one.is(&of("one")) && !one.is(&other));
        let elsewhere = Identity { device: Some(DevNo { major: 9, minor: 9 }), ..one.clone() };
        assert!(!one.is(&elsewhere) && one.is(&elsewhere.clone().on_any_device()));
        // Its number was given to another: only the handle tells.
        let generation = |byte| Some(Handle { kind: 1, bytes: vec![byte] });
        let with = |handle| Identity { handle, ..one.clone() };
        assert!(!with(generation(1)).is(&with(generation(2))));
        assert!(with(None).is(&with(generation(2))));
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), one);
    }
}
