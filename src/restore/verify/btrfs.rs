//! btrfs: does a mount have something to recover?
//!
//! In: the superblock of each device. Out: [`Seen`], and the generation. Pure. Must never: take devices of different
//! generations for one filesystem.
//!
//! What is committed is always whole, so only what was fsynced since the last commit has to be recovered: the log tree
//! (`log_root`). A freeze commits, and leaves none. Offsets are those of `struct btrfs_super_block`
//! (fs/btrfs/accessors.h): `csum` 0x0, `fsid` 0x20, `bytenr` 0x30, `magic` 0x40, `generation` 0x48, `log_root` 0x60,
//! `num_devices` 0x88, `csum_type` 0xc4.

use super::{Seen, State};

/// Where the superblock is, and its length.
pub(super) const AT: (u64, usize) = (64 << 10, 4096);

/// `BTRFS_CSUM_TYPE_CRC32`.
const CRC32C: u16 = 0;

/// What one device's superblock says; none where it is none.
pub(super) fn read(sb: &[u8]) -> Option<(Seen, u64, u64)> {
    let long = |at: usize| Some(u64::from_le_bytes(sb.get(at..at + 8)?.try_into().ok()?));
    if sb.get(0x40..0x48)? != b"_BHRfS_M" {
        return None;
    }
    let uuid = uuid::Uuid::from_slice(sb.get(0x20..0x30)?).ok()?.to_string();
    let (generation, devices) = (long(0x48)?, long(0x88)?);
    let sum = u32::from_le_bytes(sb.get(..4)?.try_into().ok()?);
    let kind = u16::from_le_bytes(sb.get(0xc4..0xc6)?.try_into().ok()?);
    let state = if long(0x30)? != AT.0 {
        State::Damaged("its superblock is one for another place".to_owned())
    } else if kind == CRC32C && sum != crc32c::crc32c(sb.get(0x20..AT.1)?) {
        State::Damaged("the checksum of its superblock does not fit".to_owned())
    } else if long(0x60)? != 0 {
        State::Dirty("its log tree has to be replayed".to_owned())
    } else if kind != CRC32C {
        State::Unknown(format!("its checksums are of type {kind}, which is not computed here"))
    } else {
        State::Clean
    };
    Some((Seen { uuid, state }, generation, devices))
}
