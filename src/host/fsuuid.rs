//! A filesystem's own UUID, from its superblock.
//!
//! In: the source device of a mount, opened for reading. Out: the UUID as blkid prints it, or none: it is a
//! help for the restore, so no failure here stops a run. Must never: write, or read a device other than the
//! one mounted.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::ids::DevNo;

/// The UUID on a mounted block device, found as `/dev/block/M:m`, `/dev/NAME`, then by the mount source.
#[must_use]
pub(crate) fn of_device(root: &Path, fstype: &str, dev: DevNo, name: &str, source: &Path) -> Option<String> {
    let in_dev = root.join("dev");
    let source = source.strip_prefix("/dev").ok().map(|s| in_dev.join(s));
    let candidates = [Some(in_dev.join("block").join(dev.to_string())), Some(in_dev.join(name)), source];
    candidates.into_iter().flatten().find_map(|path| {
        // O_NONBLOCK: should the path be a FIFO or a tape, the open must not wait.
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        let meta = file.metadata().ok()?;
        let is_it = meta.file_type().is_block_device() && DevNo::from_raw(meta.rdev()) == dev;
        (is_it || meta.is_file()).then(|| read(&mut file, fstype)).flatten()
    })
}

/// The UUID in a superblock of the given type.
///
/// Offsets: `struct ext4_super_block` at 1024 (`s_magic` +0x38, `s_uuid` +0x68); `struct xfs_dsb` at 0
/// (`sb_uuid` +32); `struct btrfs_super_block` at 64 KiB (`fsid` +0x20, `magic` +0x40); FAT boot sector
/// (`vol_id` at 0x27, on FAT32 at 0x43).
pub fn read(device: &mut (impl Read + Seek), fstype: &str) -> Option<String> {
    match fstype {
        "ext2" | "ext3" | "ext4" => {
            let sb = block::<0x78>(device, 1024)?;
            (sb[0x38..0x3a] == [0x53, 0xef]).then(|| uuid(&sb[0x68..0x78])).flatten()
        }
        "xfs" => {
            let sb = block::<48>(device, 0)?;
            sb.starts_with(b"XFSB").then(|| uuid(&sb[32..48])).flatten()
        }
        "btrfs" => {
            let sb = block::<0x48>(device, 64 * 1024)?;
            (sb[0x40..0x48] == *b"_BHRfS_M").then(|| uuid(&sb[0x20..0x30])).flatten()
        }
        "vfat" | "msdos" => {
            let sb = block::<512>(device, 0)?;
            if sb[510..512] != [0x55, 0xaa] {
                return None;
            }
            let id = if sb[0x52..0x57] == *b"FAT32" {
                &sb[0x43..0x47]
            } else if sb[0x36..0x39] == *b"FAT" {
                &sb[0x27..0x2b]
            } else {
                return None;
            };
            Some(format!("{:02X}{:02X}-{:02X}{:02X}", id[3], id[2], id[1], id[0]))
        }
        _ => None,
    }
}

fn block<const N: usize>(device: &mut (impl Read + Seek), at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    device.seek(SeekFrom::Start(at)).ok()?;
    device.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn uuid(bytes: &[u8]) -> Option<String> {
    uuid::Uuid::from_slice(bytes).ok().filter(|u| !u.is_nil()).map(|u| u.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::process::Command;

    const ID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
    const TEXT: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn image(parts: &[(usize, &[u8])]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 128 * 1024];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        Cursor::new(bytes)
    }

    #[test]
    fn uuids_are_read_where_the_formats_put_them() {
        let ext = [(1024 + 0x38, [0x53, 0xef].as_slice()), (1024 + 0x68, &ID)];
        assert_eq!(read(&mut image(&ext), "ext4").as_deref(), Some(TEXT));
        let xfs = [(0, b"XFSB".as_slice()), (32, &ID)];
        assert_eq!(read(&mut image(&xfs), "xfs").as_deref(), Some(TEXT));
        let btrfs = [(65536 + 0x40, b"_BHRfS_M".as_slice()), (65536 + 0x20, &ID)];
        assert_eq!(read(&mut image(&btrfs), "btrfs").as_deref(), Some(TEXT));
        let fat32 = [(0x52, b"FAT32   ".as_slice()), (0x43, &[0x34, 0x12, 0xcd, 0xab]), (510, &[0x55, 0xaa])];
        assert_eq!(read(&mut image(&fat32), "vfat").as_deref(), Some("ABCD-1234"));
        let fat16 = [(0x36, b"FAT16   ".as_slice()), (0x27, &[0x34, 0x12, 0xcd, 0xab]), (510, &[0x55, 0xaa])];
        assert_eq!(read(&mut image(&fat16), "vfat").as_deref(), Some("ABCD-1234"));
    }

    #[test]
    fn without_the_magic_there_is_no_uuid() {
        for fstype in ["ext4", "xfs", "btrfs", "vfat", "tmpfs"] {
            let all_but_magic = [(1024 + 0x68, ID.as_slice()), (32, &ID), (65536 + 0x20, &ID)];
            assert_eq!(read(&mut image(&all_but_magic), fstype), None, "{fstype}");
            assert_eq!(read(&mut Cursor::new(vec![0; 100]), fstype), None, "{fstype}, cut short");
        }
    }

    #[test]
    fn blkid_agrees_on_real_filesystems() {
        let dir = tempfile::tempdir().unwrap();
        for (fstype, mib) in [("ext4", 16), ("xfs", 320), ("btrfs", 128), ("vfat", 40)] {
            let path = dir.path().join(fstype);
            std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
            let made = Command::new(format!("mkfs.{fstype}")).arg(&path).output();
            // Tests run where not every mkfs is installed; those missing are covered by the made superblocks
            // above.
            if !made.is_ok_and(|m| m.status.success()) {
                continue;
            }
            let Ok(blkid) =
                Command::new("blkid").args(["-p", "-o", "value", "-s", "UUID"]).arg(&path).output()
            else {
                continue;
            };
            let expected = String::from_utf8(blkid.stdout).unwrap().trim().to_owned();
            let mut file = std::fs::File::open(&path).unwrap();
            assert_eq!(read(&mut file, fstype), Some(expected), "{fstype}");
        }
    }
}
