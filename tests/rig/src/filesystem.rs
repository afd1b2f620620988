//! How a volume is formatted: the kinds of filesystems, and how large each has to be.

use crate::sh;

/// Else ext4lazyinit writes to the volume at moments of its own after the first mount.
const NOT_LAZY: &str = "lazy_itable_init=0,lazy_journal_init=0";

/// How a volume is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fs {
    Ext4,
    Xfs,
    Btrfs,
    /// ext4, as small as it gets: for many.
    Tiny,
}

impl Fs {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    pub(crate) fn size(self) -> &'static str {
        match self {
            Self::Ext4 => "64MiB",
            Self::Xfs => "320MiB",
            Self::Btrfs => "128MiB",
            Self::Tiny => "8MiB",
        }
    }

    pub(crate) fn make(self, device: &str) {
        match self {
            Self::Ext4 => sh("mkfs.ext4", &["-q", "-F", "-E", NOT_LAZY, device]),
            Self::Xfs => sh("mkfs.xfs", &["-q", "-f", device]),
            Self::Btrfs => sh("mkfs.btrfs", &["-q", "-f", device]),
            Self::Tiny => sh("mkfs.ext4", &["-q", "-F", "-E", NOT_LAZY, "-J", "size=1", device]),
        };
    }
}
