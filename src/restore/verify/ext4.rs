//! ext2, ext3 and ext4: does a mount have something to recover?
//!
//! In: the superblock. Out: [`Seen`]. Pure. Must never: take a superblock for clean whose checksum does not fit.
//!
//! Offsets are those of `struct ext4_super_block` (fs/ext4/ext4.h): `s_magic` 0x38, `s_state` 0x3a,
//! `s_log_block_size` 0x18, `s_feature_compat` 0x5c, `s_feature_incompat` 0x60, `s_feature_ro_compat` 0x64, `s_uuid`
//! 0x68, `s_journal_uuid` 0xd0, `s_journal_inum` 0xe0, `s_checksum` 0x3fc. A journal on a device of its own has the same
//! superblock with `EXT4_FEATURE_INCOMPAT_JOURNAL_DEV`, and `journal_superblock_t` (include/linux/jbd2.h, big-endian) in
//! the block behind it: `s_start` 0x1c is 0 where it is empty.

use super::{Seen, State};

/// Where the superblock is, and its length.
pub(super) const AT: (u64, usize) = (1024, 1024);

const VALID: u16 = 1;
const ERRORS: u16 = 2;
const HAS_JOURNAL: u32 = 0x4;
const RECOVER: u32 = 0x4;
const JOURNAL_DEV: u32 = 0x8;
const METADATA_CSUM: u32 = 0x400;
/// `JBD2_MAGIC_NUMBER`
const JOURNAL: u32 = 0xc03b_3998;
/// `JBD2_FEATURE_INCOMPAT_CSUM_V2` and `_V3`
const JOURNAL_CSUM: u32 = 0x18;

/// What a superblock is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Filesystem {
        seen: Seen,
        /// The UUID of its journal, where that is on a device of its own.
        journal: Option<String>,
    },
    /// A journal, whose own superblock is here.
    Journal { uuid: String, at: u64 },
}

/// What this superblock says; none where it is none.
pub(super) fn read(sb: &[u8]) -> Option<Found> {
    let half = |at: usize| Some(u16::from_le_bytes(sb.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(sb.get(at..at + 4)?.try_into().ok()?));
    if half(0x38)? != 0xef53 {
        return None;
    }
    let uuid = uuid::Uuid::from_slice(sb.get(0x68..0x78)?).ok()?.to_string();
    if word(0x60)? & JOURNAL_DEV != 0 {
        // Behind the superblock's own block, which is the first one or, of 1 KiB, the second one.
        let block = 1024_u64.checked_shl(word(0x18)?).filter(|b| (1024..=65_536).contains(b))?;
        return Some(Found::Journal { uuid, at: (1024 / block + 1) * block });
    }
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
    let journal = uuid::Uuid::from_slice(sb.get(0xd0..0xe0)?).ok()?;
    let apart = word(0x5c)? & HAS_JOURNAL != 0 && word(0xe0)? == 0 && !journal.is_nil();
    Some(Found::Filesystem { seen: Seen { uuid, state }, journal: apart.then(|| journal.to_string()) })
}

/// What the superblock of a journal says.
pub(super) fn journal(sb: &[u8]) -> State {
    let word = |at: usize| sb.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    if word(0) != JOURNAL || sb.len() < 1024 {
        return State::Damaged("its journal has no superblock".to_owned());
    }
    let fits = || {
        let mut zeroed = sb[..1024].to_vec();
        zeroed[0xfc..0x100].fill(0);
        word(0xfc) == !crc32c::crc32c(&zeroed)
    };
    if word(0x28) & JOURNAL_CSUM != 0 && !fits() {
        State::Damaged("the checksum of its journal's superblock does not fit".to_owned())
    } else if word(0x1c) != 0 {
        State::Dirty("its journal, on a device of its own, has to be replayed".to_owned())
    } else {
        State::Clean
    }
}
