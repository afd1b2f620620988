//! What a filesystem's superblock says: its own UUID, and devices that it has beside its own.
//!
//! In: a device, opened for reading. Out: the UUID as blkid prints it, or none: it is a help for the restore;
//! and [`Beside`], where none must be missing. Must never: write, or take "could not be read" for "has none".

use std::ffi::OsString;
use std::io::{Cursor, Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::DevNo;

/// What a filesystem has another device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Its journal (ext4, reiserfs).
    Journal,
    /// Its log (xfs, jfs).
    Log,
    /// Its realtime part (xfs).
    Realtime,
    /// Data like on the first one (f2fs).
    Data,
}

impl Role {
    /// As it is called in `external journal of /data`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Journal => "external journal",
            Self::Log => "external log",
            Self::Realtime => "realtime device",
            Self::Data => "further device",
        }
    }
}

/// Another device, as a superblock names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// By its number, which may be that of an earlier boot: the UUID tells.
    Number(Role, DevNo, Option<[u8; 16]>),
    /// By the path that it had when the filesystem was made.
    Path(Role, PathBuf),
}

/// Where the superblock of ext2, ext3 and ext4 is, and that of f2fs.
const AT_1024: u64 = 1024;
/// `EXT4_FEATURE_COMPAT_HAS_JOURNAL`.
const EXT_HAS_JOURNAL: u32 = 0x4;
/// `EXT4_FEATURE_INCOMPAT_JOURNAL_DEV`: the device is a journal and nothing else.
const EXT_JOURNAL_DEVICE: u32 = 0x8;
/// `JFS_INLINELOG`.
const JFS_INLINE_LOG: u32 = 0x800;
/// `MAX_DEVICES` of f2fs, and the size of one entry: a path of 64 bytes and a count.
const F2FS_DEVICES: (usize, usize) = (8, 68);

/// May a filesystem of this type have devices that only its superblock names?
#[must_use]
pub fn names_devices(fstype: &str) -> bool {
    matches!(fstype, "ext2" | "ext3" | "ext4" | "f2fs" | "jfs" | "reiserfs")
}

/// The devices that a superblock names, for the types of [`names_devices`].
///
/// Offsets: `struct ext4_super_block` (`s_feature_compat` +0x5c, `s_journal_uuid` +0xd0, `s_journal_inum`
/// +0xe0, `s_journal_dev` +0xe4); `struct f2fs_super_block` (`devs` +2201); `struct jfs_superblock` at 32 KiB
/// (`s_flag` +36, `s_logdev` +64); `struct reiserfs_super_block_v1` at 64 KiB (`jp_journal_dev` +16,
/// `s_magic` +52).
///
/// # Errors
/// When it cannot be read, or is no superblock of this type.
pub fn beside(device: &mut (impl Read + Seek), fstype: &str) -> Result<Vec<Beside>> {
    Ok(match fstype {
        "ext2" | "ext3" | "ext4" => {
            let sb = ext(device)?;
            if word(&sb, 0x5c) & EXT_HAS_JOURNAL == 0 || word(&sb, 0xe0) != 0 {
                return Ok(Vec::new());
            }
            vec![Beside::Number(Role::Journal, number(word(&sb, 0xe4)), array(&sb, 0xd0))]
        }
        "jfs" => {
            let sb = magic(block::<72>(device, 32 << 10)?, 0, &[b"JFS1"])?;
            let external = word(&sb, 36) & JFS_INLINE_LOG == 0;
            external.then(|| Beside::Number(Role::Log, number(word(&sb, 64)), None)).into_iter().collect()
        }
        "reiserfs" => {
            let sb = magic(block::<64>(device, 64 << 10)?, 52, &[b"ReIsErFs", b"ReIsEr2F", b"ReIsEr3F"])?;
            let journal = Some(word(&sb, 16)).filter(|n| *n != 0);
            journal.map(|n| Beside::Number(Role::Journal, number(n), None)).into_iter().collect()
        }
        "f2fs" => {
            let sb = magic(block::<2745>(device, AT_1024)?, 0, &[&0xf2f5_2010_u32.to_le_bytes()])?;
            let (most, size) = F2FS_DEVICES;
            let entries =
                sb[2201..].chunks(size).take(most).map(|e| e.split(|b| *b == 0).next().unwrap_or(&[]));
            // The first is the one that is mounted; with one device there is no entry.
            let further = entries.skip(1).take_while(|path| !path.is_empty());
            further.map(|p| Beside::Path(Role::Data, OsString::from_vec(p.to_vec()).into())).collect()
        }
        _ => Vec::new(),
    })
}

/// Is this device the external journal with this UUID (ext4 checks the same when it mounts)?
#[must_use]
pub fn is_journal(device: &mut (impl Read + Seek), uuid: &[u8; 16]) -> bool {
    ext(device).is_ok_and(|sb| word(&sb, 0x60) & EXT_JOURNAL_DEVICE != 0 && sb[0x68..0x78] == *uuid)
}

/// The UUID in a superblock of the given type.
///
/// Offsets: `struct ext4_super_block` at 1024 (`s_magic` +0x38, `s_uuid` +0x68); `struct xfs_dsb` at 0
/// (`sb_uuid` +32); `struct btrfs_super_block` at 64 KiB (`fsid` +0x20, `magic` +0x40); FAT boot sector
/// (`vol_id` at 0x27, on FAT32 at 0x43).
pub fn uuid(device: &mut (impl Read + Seek), fstype: &str) -> Option<String> {
    let printed =
        |bytes: &[u8]| uuid::Uuid::from_slice(bytes).ok().filter(|u| !u.is_nil()).map(|u| u.to_string());
    match fstype {
        "ext2" | "ext3" | "ext4" => printed(&ext(device).ok()?[0x68..0x78]),
        "xfs" => printed(&magic(block::<48>(device, 0).ok()?, 0, &[b"XFSB"]).ok()?[32..48]),
        "btrfs" => {
            printed(&magic(block::<0x48>(device, 64 << 10).ok()?, 0x40, &[b"_BHRfS_M"]).ok()?[0x20..0x30])
        }
        "vfat" | "msdos" => {
            let sb = magic(block::<512>(device, 0).ok()?, 510, &[&[0x55, 0xaa]]).ok()?;
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

/// What tells a filesystem from every other one: its type, and its UUID. Of btrfs, whose devices share that, with the
/// device's own (`dev_item.uuid` +0x10b). None where there is no filesystem that is known here.
///
/// # Errors
/// When the device cannot be read: then nothing is known of it.
pub fn identity(device: &mut (impl Read + Seek)) -> Result<Option<(&'static str, String)>> {
    // All of these superblocks begin within it. A device may be smaller.
    const HEAD: u64 = (64 << 10) + 0x1000;
    let mut head = Vec::new();
    device.seek(SeekFrom::Start(0))?;
    device.take(HEAD).read_to_end(&mut head)?;
    let mut head = Cursor::new(head);
    let mut of = |fstype| Some((fstype, uuid(&mut head, fstype)?));
    let found = ["ext4", "xfs", "btrfs", "vfat"].into_iter().find_map(&mut of);
    let Some(("btrfs", filesystem)) = found else { return Ok(found) };
    let own = block::<0x11b>(&mut head, 64 << 10)?;
    let own = uuid::Uuid::from_slice(&own[0x10b..]).map_err(Error::other)?;
    Ok(Some(("btrfs", format!("{filesystem}, device {own}"))))
}

fn ext(device: &mut (impl Read + Seek)) -> Result<[u8; 0x100]> {
    magic(block::<0x100>(device, AT_1024)?, 0x38, &[&[0x53, 0xef]])
}

fn block<const N: usize>(device: &mut (impl Read + Seek), at: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    device.seek(SeekFrom::Start(at))?;
    device.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn magic<const N: usize>(block: [u8; N], at: usize, wanted: &[&[u8]]) -> Result<[u8; N]> {
    if wanted.iter().any(|w| block[at..].starts_with(w)) {
        return Ok(block);
    }
    Err(Error::new(ErrorKind::InvalidData, "it has no superblock of that type"))
}

/// Little-endian, as all of these are on disk.
fn word(block: &[u8], at: usize) -> u32 {
    array(block, at).map_or(0, u32::from_le_bytes)
}

fn array<const N: usize>(block: &[u8], at: usize) -> Option<[u8; N]> {
    block.get(at..at + N)?.try_into().ok()
}

/// `new_encode_dev` of the kernel, whose 32 bits are the lower ones of a dev_t.
fn number(encoded: u32) -> DevNo {
    DevNo::from_raw(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const ID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
    const TEXT: &str = "01234567-89ab-cdef-0123-456789abcdef";
    /// 259:1, as the kernel encodes it.
    const JOURNAL: (&[u8], DevNo) = (&[1, 3, 1, 0], DevNo { major: 259, minor: 1 });

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
        assert_eq!(uuid(&mut image(&ext), "ext4").as_deref(), Some(TEXT));
        let xfs = [(0, b"XFSB".as_slice()), (32, &ID)];
        assert_eq!(uuid(&mut image(&xfs), "xfs").as_deref(), Some(TEXT));
        let btrfs = [(65536 + 0x40, b"_BHRfS_M".as_slice()), (65536 + 0x20, &ID)];
        assert_eq!(uuid(&mut image(&btrfs), "btrfs").as_deref(), Some(TEXT));
        let fat32 = [(0x52, b"FAT32   ".as_slice()), (0x43, &[0x34, 0x12, 0xcd, 0xab]), (510, &[0x55, 0xaa])];
        assert_eq!(uuid(&mut image(&fat32), "vfat").as_deref(), Some("ABCD-1234"));
        let fat16 = [(0x36, b"FAT16   ".as_slice()), (0x27, &[0x34, 0x12, 0xcd, 0xab]), (510, &[0x55, 0xaa])];
        assert_eq!(uuid(&mut image(&fat16), "vfat").as_deref(), Some("ABCD-1234"));
    }

    #[test]
    fn devices_of_one_btrfs_are_told_apart() {
        let of = |own: &[u8; 16]| {
            let parts: [(usize, &[u8]); 3] = [(0x1_0040, b"_BHRfS_M"), (0x1_0020, &ID), (0x1_010b, own)];
            identity(&mut image(&parts)).unwrap().unwrap()
        };
        let first = of(&[1; 16]);
        assert_eq!(first, ("btrfs", format!("{TEXT}, device 01010101-0101-0101-0101-010101010101")));
        assert_ne!(first, of(&[2; 16]));
        let xfs = identity(&mut image(&[(0, b"XFSB"), (32, &ID)])).unwrap();
        assert_eq!(xfs, Some(("xfs", TEXT.to_owned())));
        assert_eq!(identity(&mut image(&[])).unwrap(), None);
        assert_eq!(identity(&mut Cursor::new(vec![0; 100])).unwrap(), None, "it is too small for any");
    }

    #[test]
    fn what_cannot_be_read_is_not_said_to_have_no_filesystem() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> Result<usize> {
                Err(Error::from_raw_os_error(libc::EIO))
            }
        }
        impl Seek for Broken {
            fn seek(&mut self, _: SeekFrom) -> Result<u64> {
                Ok(0)
            }
        }
        assert_eq!(identity(&mut Broken).unwrap_err().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn without_the_magic_there_is_no_uuid_and_nothing_is_known_of_other_devices() {
        for fstype in ["ext4", "xfs", "btrfs", "vfat", "tmpfs"] {
            let all_but_magic = [(1024 + 0x68, ID.as_slice()), (32, &ID), (65536 + 0x20, &ID)];
            assert_eq!(uuid(&mut image(&all_but_magic), fstype), None, "{fstype}");
            assert_eq!(uuid(&mut Cursor::new(vec![0; 100]), fstype), None, "{fstype}, cut short");
        }
        for fstype in ["ext2", "ext3", "ext4", "f2fs", "jfs", "reiserfs"] {
            assert!(names_devices(fstype));
            assert!(beside(&mut image(&[]), fstype).is_err(), "{fstype}");
            assert!(beside(&mut Cursor::new(vec![0; 100]), fstype).is_err(), "{fstype}, cut short");
        }
    }

    #[test]
    fn an_ext4_names_its_external_journal_by_number_and_uuid() {
        let with = |inum: u8, compat: u8| {
            let parts = [
                (1024 + 0x38, [0x53, 0xef].as_slice()),
                (1024 + 0x5c, &[compat]),
                (1024 + 0xd0, &ID),
                (1024 + 0xe0, &[inum]),
                (1024 + 0xe4, JOURNAL.0),
            ];
            beside(&mut image(&parts), "ext4").unwrap()
        };
        assert_eq!(with(0, 0x3c), [Beside::Number(Role::Journal, JOURNAL.1, Some(ID))]);
        assert_eq!(with(8, 0x3c), [], "inside");
        assert_eq!(with(0, 0x38), [], "none at all");
    }

    #[test]
    fn a_journal_device_is_told_by_its_uuid() {
        let with = |incompat: u8, id: &[u8]| {
            let parts =
                [(1024 + 0x38, [0x53, 0xef].as_slice()), (1024 + 0x60, &[incompat]), (1024 + 0x68, id)];
            is_journal(&mut image(&parts), &ID)
        };
        assert!(with(0x8, &ID));
        assert!(!with(0, &ID), "an ext4 with that UUID");
        assert!(!with(0x8, &[7; 16]), "the journal of another");
        assert!(!is_journal(&mut image(&[]), &ID));
    }

    #[test]
    fn other_types_name_theirs() {
        let jfs = |flags: &[u8]| {
            let parts = [(32768, b"JFS1".as_slice()), (32768 + 36, flags), (32768 + 64, JOURNAL.0)];
            beside(&mut image(&parts), "jfs").unwrap()
        };
        assert_eq!(jfs(&[0, 0x2]), [Beside::Number(Role::Log, JOURNAL.1, None)]);
        assert_eq!(jfs(&[0, 0x8]), []);
        let reiserfs = |journal: &[u8]| {
            let parts = [(65536 + 52, b"ReIsEr3Fs".as_slice()), (65536 + 16, journal)];
            beside(&mut image(&parts), "reiserfs").unwrap()
        };
        assert_eq!(reiserfs(JOURNAL.0), [Beside::Number(Role::Journal, JOURNAL.1, None)]);
        assert_eq!(reiserfs(&[0; 4]), []);
        let magic = (1024, [0x10, 0x20, 0xf5, 0xf2].as_slice());
        let at = |n: usize| 1024 + 2201 + 68 * n;
        let two = [magic, (at(0), b"/dev/a".as_slice()), (at(1), b"/dev/b"), (at(2), b"/dev/c")];
        let path = |p: &str| Beside::Path(Role::Data, p.into());
        assert_eq!(beside(&mut image(&two), "f2fs").unwrap(), [path("/dev/b"), path("/dev/c")]);
        assert_eq!(beside(&mut image(&[magic]), "f2fs").unwrap(), []);
        assert_eq!(beside(&mut image(&[]), "xfs").unwrap(), [], "its options name them");
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
            assert_eq!(uuid(&mut file, fstype), Some(expected), "{fstype}");
        }
    }
}
