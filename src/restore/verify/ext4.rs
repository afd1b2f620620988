//! ext2, ext3 and ext4: does a mount have something to recover?
//!
//! In: the superblock. Out: [`Seen`]. Pure. Must never: take a superblock for clean whose checksum does not fit.
//!
//! Offsets are those of `struct ext4_super_block` (fs/ext4/ext4.h): `s_magic` 0x38, `s_state` 0x3a,
//! `s_feature_compat` 0x5c, `s_feature_incompat` 0x60, `s_feature_ro_compat` 0x64, `s_uuid` 0x68, `s_checksum` 0x3fc.

use super::{Seen, State};

/// Where the superblock is, and its length.
pub(super) const AT: (u64, usize) = (1024, 1024);

const VALID: u16 = 1;
const ERRORS: u16 = 2;
const HAS_JOURNAL: u32 = 0x4;
const RECOVER: u32 = 0x4;
const METADATA_CSUM: u32 = 0x400;

/// What this superblock says; none where it is none.
pub(super) fn read(sb: &[u8]) -> Option<Seen> {
    let half = |at: usize| Some(u16::from_le_bytes(sb.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(sb.get(at..at + 4)?.try_into().ok()?));
    if half(0x38)? != 0xef53 {
        return None;
    }
    let uuid = uuid::Uuid::from_slice(sb.get(0x68..0x78)?).ok()?.to_string();
    let state = half(0x3a)?;
    let has_sum = word(0x64)? & METADATA_CSUM != 0;
    // The kernel's crc32c is not inverted at the end.
    let state = if has_sum && word(0x3fc)? != !crc32c::crc32c(sb.get(..0x3fc)?) {
        State::Damaged("the checksum of its superblock does not fit".to_owned())
    } else if state & ERRORS != 0 {
        State::Damaged("it is marked to have errors".to_owned())
    } else if word(0x60)? & RECOVER != 0 {
        State::Dirty("its journal has to be replayed (needs_recovery)".to_owned())
    } else if word(0x5c)? & HAS_JOURNAL == 0 && state & VALID == 0 {
        State::Dirty("it has no journal, and was not unmounted or frozen".to_owned())
    } else {
        State::Clean
    };
    Some(Seen { uuid, state })
}
