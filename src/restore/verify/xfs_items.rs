//! The operations of one record of an XFS log, as items.
//!
//! In: a record's data, with the words that cycle numbers had taken the place of. Out: what it has besides the superblock,
//! and where an inode is on the disk. Must never: take what it does not understand for nothing.
//!
//! Formats: `xlog_op_header`, `xfs_trans_header`, `xfs_buf_log_format`, `xfs_inode_log_format`
//! (fs/xfs/libxfs/xfs_log_format.h).

use super::xfs::{BB, be32};

const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const UNMOUNT: u8 = 0x20;
const CONTINUED: u8 = 0x04 | 0x08;
/// `XFS_TRANS_HEADER_MAGIC`, as the host wrote it.
const TRANSACTION: u32 = 0x5452_414e;
/// `XFS_LI_BUF`, and `XFS_LI_INODE`.
const BUFFER: u16 = 0x123c;
const INODE: u16 = 0x123b;

/// What a record has besides the superblock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A change of one inode.
    Inode(Inode),
    /// Anything else.
    Other,
}

/// An inode that a record has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inode {
    /// Its number.
    pub ino: u64,
    /// Where it is on the device, in bytes.
    pub at: u64,
}

impl Inode {
    /// `struct xfs_inode_log_format`: ilf_ino +16, ilf_blkno +40, ilf_boffset +52.
    fn of(format: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(format.get(at..at + 8)?.try_into().ok()?));
        let offset = u32::from_le_bytes(format.get(52..56)?.try_into().ok()?);
        Some(Self { ino: word(16)?, at: word(40)?.checked_mul(BB)?.checked_add(offset.into())? })
    }
}

/// The items in the operations of one record that are not the superblock's. None where it is not understood.
pub(super) fn items(data: &[u8], operations: u32) -> Option<Vec<Item>> {
    let (mut at, mut found, mut regions) = (0_usize, Vec::new(), 0_u32);
    for _ in 0..operations {
        let length = usize::try_from(be32(data, at + 4)?).ok()?;
        let flags = *data.get(at + 9)?;
        let body = data.get(at + 12..at.checked_add(12 + length)?)?;
        at += 12 + length;
        if flags & CONTINUED != 0 {
            // An item over two records is a large one: no superblock.
            found.push(Item::Other);
        } else if flags & (START | COMMIT | UNMOUNT) != 0 || length == 0 {
            regions = 0;
        } else if regions > 0 {
            // Data of the item before.
            regions -= 1;
        } else if length >= 16 && u32::from_le_bytes(body.get(..4)?.try_into().ok()?) == TRANSACTION {
        } else {
            // The format of an item: its type, and how many regions it has with this one.
            let half = |at: usize| Some(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
            regions = u32::from(half(2)?).checked_sub(1)?;
            let block = body.get(8..16).and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?)));
            match half(0)? {
                BUFFER if block == Some(0) => {}
                INODE => found.push(Inode::of(body).map_or(Item::Other, Item::Inode)),
                _ => found.push(Item::Other),
            }
        }
    }
    Some(found)
}
