//! FAT: is its boot sector sane?
//!
//! A FAT has no journal. Its dirty bit is set while it is mounted for writing, and a flush leaves it: a FAT that was
//! proven quiet has it, and nothing has to be recovered all the same.
//!
//! In: bytes of the filesystem, by [`Source`]. Out: [`Seen`]. Must never: take a boot sector for a FAT's by its last
//! two bytes alone: partition tables have the same.
//!
//! Formats: Microsoft's "FAT: General Overview of On-Disk Format" 1.03; `struct fat_boot_sector`, `struct
//! fat_boot_fsinfo` and `FAT_STATE_DIRTY` (include/uapi/linux/msdos_fs.h).

use super::partitions::{ReadError, Source};
use super::{Seen, State};

fn half(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, |b| u64::from(u16::from_le_bytes(b)))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u64::from(u32::from_le_bytes(b)))
}

/// The numbers of a boot sector, checked.
struct Boot {
    sector: u64,
    reserved: u64,
    fats: u64,
    fat_sectors: u64,
    sectors: u64,
    fat32: bool,
    media: u8,
    clusters: u64,
}

impl Boot {
    /// None where this is no FAT's boot sector.
    fn read(first: &[u8]) -> Option<Self> {
        let fat32 = first.get(0x52..0x57)? == b"FAT32";
        if !fat32 && first.get(0x36..0x39)? != b"FAT" || first.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        let (sector, cluster) = (half(first, 11), u64::from(*first.get(13)?));
        let (reserved, fats, entries) = (half(first, 14), u64::from(*first.get(16)?), half(first, 17));
        let sectors = Some(half(first, 19)).filter(|n| *n > 0).unwrap_or_else(|| word(first, 32));
        let fat_sectors = Some(half(first, 22)).filter(|n| *n > 0).unwrap_or_else(|| word(first, 36));
        let sane = (512..=4096).contains(&sector) && sector.is_power_of_two() && cluster.is_power_of_two();
        if !sane || reserved == 0 || !(1..=2).contains(&fats) || fat_sectors == 0 {
            return None;
        }
        let before = reserved + fats * fat_sectors + (entries * 32).div_ceil(sector);
        let clusters = sectors.checked_sub(before)? / cluster;
        let media = *first.get(21)?;
        Some(Self { sector, reserved, fats, fat_sectors, sectors, fat32, media, clusters })
    }
}

/// What this filesystem says; none where there is none. `size` is that of its device.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read<S: Source>(source: &mut S, size: u64) -> Result<Option<Seen>, ReadError> {
    let first = source.read(0, 512).await?;
    let Some(boot) = Boot::read(&first) else { return Ok(None) };
    let id = if boot.fat32 { word(&first, 0x43) } else { word(&first, 0x27) };
    let uuid = format!("{:04X}-{:04X}", id >> 16, id & 0xffff);
    let state = match state(source, &boot, &first, size).await {
        // What it says of itself is behind its end.
        Err(ReadError::Beyond) => State::Damaged("its boot sector leads beyond its device".to_owned()),
        state => state?,
    };
    Ok(Some(Seen { uuid, state }))
}

async fn state<S: Source>(source: &mut S, boot: &Boot, first: &[u8], size: u64) -> Result<State, ReadError> {
    let damaged = |what: &str| Ok(State::Damaged(what.to_owned()));
    if boot.sectors.saturating_mul(boot.sector) > size {
        return damaged("it is larger than its device");
    }
    // FAT12, FAT16 and FAT32 differ by the number of clusters alone.
    let bits: u64 = match boot.clusters {
        _ if boot.fat32 => 32,
        n if n < 4085 => 12,
        _ => 16,
    };
    if (boot.clusters + 2) * bits > boot.fat_sectors * boot.sector * 8 {
        return damaged("its table is too small for its clusters");
    }
    let mut starts = Vec::new();
    for n in 0..boot.fats {
        let at = (boot.reserved + n * boot.fat_sectors) * boot.sector;
        starts.push(source.read(at, 8).await?);
    }
    if starts.iter().any(|fat| fat.first() != Some(&boot.media) || fat[1] != 0xff) {
        return damaged("its table does not begin as one does");
    }
    if boot.fat32 {
        let info = half(first, 48);
        if info > 0 && info < boot.reserved {
            let info = source.read(info * boot.sector, 512).await?;
            if !info.starts_with(b"RRaA") || info.get(484..488) != Some(b"rrAa") {
                return damaged("its information sector is none");
            }
        }
    }
    let fat = &starts[0];
    let (marked, errors) = match bits {
        32 => (word(fat, 4) & 0x0800_0000 == 0, word(fat, 4) & 0x0400_0000 == 0),
        16 => (half(fat, 2) & 0x8000 == 0, half(fat, 2) & 0x4000 == 0),
        _ => (false, false),
    };
    // Linux writes this, and not the bit of the table.
    let at = if boot.fat32 { 0x41 } else { 0x25 };
    let dirty = marked || first.get(at).is_some_and(|state| state & 1 != 0);
    if errors {
        return damaged("it is marked to have errors");
    }
    Ok(if dirty {
        State::Sound("its dirty bit is set, as while it is mounted; it has no journal".to_owned())
    } else {
        State::Clean
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Bytes, now};
    use super::*;

    /// A FAT16 or a FAT32 of so many clusters of one sector.
    pub(in super::super) fn image(fat32: bool) -> Vec<u8> {
        let (clusters, bits, reserved) = if fat32 { (66_000_u32, 4, 32_u32) } else { (5000, 2, 1) };
        let fat = (clusters + 2) * bits / 512 + 1;
        let root = if fat32 { 0 } else { 32 };
        let sectors = reserved + 2 * fat + root + clusters;
        let mut all = vec![0; sectors as usize * 512];
        let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
        put(11, &512_u16.to_le_bytes());
        put(13, &[1]);
        put(14, &u16::try_from(reserved).unwrap().to_le_bytes());
        put(16, &[2]);
        put(17, &u16::try_from(root * 16).unwrap().to_le_bytes());
        put(21, &[0xf8]);
        put(32, &sectors.to_le_bytes());
        put(510, &[0x55, 0xaa]);
        let begin = if fat32 {
            [0xf8, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f]
        } else {
            [0xf8, 0xff, 0xff, 0xff, 0, 0, 0, 0]
        };
        for n in 0..2 {
            put((reserved + n * fat) as usize * 512, &begin);
        }
        if fat32 {
            put(36, &fat.to_le_bytes());
            put(48, &[1, 0]);
            put(0x43, &[0x34, 0x12, 0xcd, 0xab]);
            put(0x52, b"FAT32   ");
            put(512, b"RRaA");
            put(512 + 484, b"rrAa");
        } else {
            put(22, &u16::try_from(fat).unwrap().to_le_bytes());
            put(0x27, &[0x34, 0x12, 0xcd, 0xab]);
            put(0x36, b"FAT16   ");
        }
        all
    }

    fn seen(bytes: &[u8]) -> Option<Seen> {
        now(read(&mut Bytes(bytes.to_vec()), bytes.len() as u64)).unwrap()
    }

    #[test]
    fn a_dirty_bit_is_expected_and_a_table_that_is_none_is_damage() {
        for fat32 in [false, true] {
            let image = image(fat32);
            let clean = seen(&image).unwrap();
            assert_eq!((clean.uuid.as_str(), &clean.state), ("ABCD-1234", &State::Clean), "{fat32}");
            let with = |at: usize, byte: u8| {
                let mut image = image.clone();
                image[at] = byte;
                seen(&image)
            };
            let state = |at, byte| with(at, byte).unwrap().state;
            assert!(matches!(state(if fat32 { 0x41 } else { 0x25 }, 1), State::Sound(_)), "Linux's bit");
            let fat = if fat32 { 32 * 512 } else { 512 };
            let bit = if fat32 { (fat + 7, 0x07) } else { (fat + 3, 0x7f) };
            assert!(matches!(state(bit.0, bit.1), State::Sound(_)), "the table's bit");
            assert!(matches!(state(fat, 0), State::Damaged(_)), "the media byte");
            assert!(matches!(state(35, 0x7f), State::Damaged(_)), "larger than its device");
            assert_eq!(with(11, 7), None, "no such sectors");
            assert_eq!(with(510, 0), None);
        }
        let mut image = image(true);
        image[512] = b'X';
        assert!(matches!(seen(&image).unwrap().state, State::Damaged(_)));
    }

    proptest! {
        /// Whatever a boot sector says.
        #[test]
        fn any_boot_sector_is_judged(bytes in proptest::collection::vec(any::<u8>(), 512), fat32 in any::<bool>()) {
            let mut device = image(false);
            device[..512].copy_from_slice(&bytes);
            device[510..512].copy_from_slice(&[0x55, 0xaa]);
            let (at, name) = if fat32 { (0x52, b"FAT32   ") } else { (0x36, b"FAT16   ") };
            device[at..at + 8].copy_from_slice(name);
            let _ = seen(&device);
        }
    }
}
