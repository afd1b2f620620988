//! Mount options of a restored filesystem.
//!
//! In: the options that a set's tags name, which anybody may have written. Out: [`MountOptions`]: flags of a list, and
//! what this program adds. Pure. Must never: pass on an option that is not in the list.

use serde::{Deserialize, Serialize};

use crate::host::mount_api::{attributes, flag_of};

/// Types that are mounted here.
pub const KNOWN: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "btrfs"];

/// How a filesystem is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` of the mount.
    pub attributes: u64,
    /// Options of the filesystem.
    pub filesystem: Vec<String>,
    /// Options of the set that are not passed on.
    pub left_out: Vec<String>,
}

/// What a filesystem of this type is mounted with.
///
/// `nosuid` and `nodev` always: what is in a snapshot was written by somebody else, perhaps on another host, and is here
/// to be looked at.
#[must_use]
pub fn of(fstype: &str, recorded: &str, read_only: bool) -> MountOptions {
    let all = recorded.split(',').filter(|o| !o.is_empty());
    let known =
        |o: &&str| flag_of(o).is_some() || matches!(*o, "rw" | "relatime" | "strictatime" | "noatime");
    let (kept, left_out): (Vec<&str>, Vec<&str>) = all.partition(known);
    let mut wanted = kept.join(",");
    wanted.push_str(",nosuid,nodev");
    if read_only {
        wanted.push_str(",ro");
    }
    let looking: &[&str] = match (fstype, read_only) {
        // `ro` alone replays the journal.
        ("ext3" | "ext4", true) => &["ro", "noload"],
        ("xfs", true) => &["ro", "norecovery", "nouuid"],
        ("btrfs", true) => &["ro", "rescue=nologreplay"],
        (_, true) => &["ro"],
        (_, false) => &[],
    };
    MountOptions {
        attributes: attributes(&wanted),
        filesystem: looking.iter().map(|o| (*o).to_owned()).collect(),
        left_out: left_out.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tags_name_is_a_flag_of_the_list_or_left_out() {
        let of = |recorded| of("ext4", recorded, false);
        let hostile =
            of("rw,noexec,dev,suid,errors=panic,journal_path=/etc/shadow,x-systemd.makefs,idmapped");
        let flags = libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        assert_eq!(hostile.attributes & flags, flags);
        assert!(hostile.filesystem.is_empty());
        assert_eq!(hostile.left_out.len(), 6, "{:?}", hostile.left_out);
        assert_eq!(of("").attributes & flags, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    }

    #[test]
    fn looking_replays_no_journal() {
        for (fstype, option) in [("ext4", "noload"), ("xfs", "norecovery"), ("btrfs", "rescue=nologreplay")] {
            let options = of(fstype, "rw,relatime", true);
            assert!(options.filesystem.iter().any(|o| o == option) && options.filesystem[0] == "ro");
            assert_ne!(options.attributes & libc::MOUNT_ATTR_RDONLY, 0);
        }
    }
}
