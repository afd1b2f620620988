//! Properties of filesystem types.
//!
//! In: filesystem types and paths. Out: small answers. Must never: call a filesystem freezable that the
//! kernel refuses to freeze, or say "in memory" of one that may be on a disk.

/// Paths that a run itself needs, or that many processes write to: their filesystems freeze last.
pub(super) const SYSTEM_PATHS: [&str; 13] = [
    "/",
    "/usr",
    "/etc",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/log/journal",
    "/boot",
    "/boot/efi",
    "/efi",
    "/tmp",
    "/var/tmp",
    "/run",
];

/// Types with a freeze operation: `freeze_fs` or `freeze_super` in the kernel's fs/*/super.c (Linux 6.18;
/// ocfs2, ntfs3, exfat, vfat, hfsplus, udf and ubifs have none, so FIFREEZE answers EOPNOTSUPP).
pub(super) fn can_freeze(fstype: &str) -> bool {
    matches!(
        fstype,
        "ext2"
            | "ext3"
            | "ext4"
            | "xfs"
            | "btrfs"
            | "bcachefs"
            | "f2fs"
            | "jfs"
            | "nilfs2"
            | "gfs2"
            | "reiserfs"
    )
}

/// Read-only types: images.
pub(super) fn is_read_only_image(fstype: &str) -> bool {
    matches!(fstype, "squashfs" | "erofs" | "iso9660" | "cramfs" | "romfs")
}

/// Types that the kernel makes itself or keeps in memory (`nodev` in /proc/filesystems, without network and
/// FUSE).
pub(super) fn is_kernel_made(fstype: &str) -> bool {
    matches!(
        fstype,
        "autofs"
            | "bdev"
            | "binder"
            | "binfmt_misc"
            | "bpf"
            | "cgroup"
            | "cgroup2"
            | "configfs"
            | "cpuset"
            | "debugfs"
            | "devpts"
            | "devtmpfs"
            | "dlmfs"
            | "drm"
            | "efivarfs"
            | "fusectl"
            | "guest_memfd"
            | "hugetlbfs"
            | "mqueue"
            | "nfsd"
            | "none"
            | "nsfs"
            | "ocfs2_dlmfs"
            | "pidfs"
            | "pipefs"
            | "proc"
            | "pstore"
            | "ramfs"
            | "resctrl"
            | "rootfs"
            | "rpc_pipefs"
            | "secretmem"
            | "securityfs"
            | "selinuxfs"
            | "smackfs"
            | "sockfs"
            | "sysfs"
            | "tmpfs"
            | "tracefs"
            | "usbfs"
            | "xenfs"
    )
}

/// Why a filesystem without block devices of its own stays out.
pub(super) fn without_devices(fstype: &str) -> &'static str {
    match fstype {
        "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "ceph" | "afs" | "lustre" | "9p" | "virtiofs"
        | "gfs" | "glusterfs" | "beegfs" | "orangefs" | "coda" | "ncpfs" => "network",
        "zfs" => "cannot be frozen, and the kernel does not tell which disks its pool is on",
        "ecryptfs" => "its writes go to the folder it is mounted from",
        t if t == "fuse" || t.starts_with("fuse.") => "served by a program (FUSE), on no block device",
        _ => "on no block device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_freezes_and_what_does_not() {
        for t in ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"] {
            assert!(can_freeze(t), "{t}");
        }
        for t in ["vfat", "msdos", "exfat", "ntfs3", "fuseblk", "ocfs2", "zfs", "overlay", "squashfs"] {
            assert!(!can_freeze(t), "{t}");
        }
    }

    #[test]
    fn why_something_is_on_no_block_device() {
        for (t, why) in [
            ("nfs4", "network"),
            ("virtiofs", "network"),
            ("zfs", "cannot be frozen, and the kernel does not tell which disks its pool is on"),
            ("ecryptfs", "its writes go to the folder it is mounted from"),
            ("fuse", "served by a program (FUSE), on no block device"),
            ("fuse.sshfs", "served by a program (FUSE), on no block device"),
            ("fusion", "on no block device"),
            ("aufs", "on no block device"),
        ] {
            assert_eq!(without_devices(t), why, "{t}");
        }
    }
}
