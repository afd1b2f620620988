//! Data from outside: whatever it is, it is judged and nothing fails.

use proptest::prelude::*;

use super::partitions::{ReadError, Source, parts};
use super::{State, btrfs, ext4, xfs};

/// A device in memory.
pub(super) struct Bytes(pub Vec<u8>);

impl Source for Bytes {
    async fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let at = usize::try_from(at).map_err(|_| ReadError::Beyond)?;
        let end = at.checked_add(length).ok_or(ReadError::Beyond)?;
        self.0.get(at..end).map(<[u8]>::to_vec).ok_or(ReadError::Beyond)
    }
}

pub(super) fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn begins(device: &[u8]) -> Vec<(u64, u64)> {
    now(parts(&mut Bytes(device.to_vec()), device.len() as u64)).unwrap()
}

/// What an ext4's superblock says.
fn ext4_of(sb: &[u8]) -> super::Seen {
    match ext4::read(sb) {
        Some(ext4::Found::Filesystem { seen, journal: None }) => seen,
        other => panic!("{other:?}"),
    }
}

/// A GPT with one partition at sector 2048.
fn gpt() -> Vec<u8> {
    let mut device = vec![0; 2 << 20];
    device[450] = 0xee;
    device[510..512].copy_from_slice(&[0x55, 0xaa]);
    let entry = 1024;
    device[entry..entry + 16].fill(7);
    device[entry + 32..entry + 40].copy_from_slice(&2048_u64.to_le_bytes());
    device[entry + 40..entry + 48].copy_from_slice(&4000_u64.to_le_bytes());
    let entries = crc32fast::hash(&device[entry..entry + 128 * 4]);
    let header = &mut device[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&4_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    let sum = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    device
}

#[test]
fn a_partition_table_is_believed_only_with_its_checksums() {
    assert_eq!(begins(&gpt()), [(2048 * 512, 1953 * 512)]);
    for at in [512 + 40, 1024 + 33, 512 + 80] {
        let mut device = gpt();
        device[at] ^= 0x10;
        assert_eq!(begins(&device), [], "byte {at}");
    }
    let mut mbr = vec![0; 2 << 20];
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    mbr[450] = 0x83;
    mbr[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&9_u32.to_le_bytes());
    mbr[466] = 0x83;
    mbr[470..474].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(begins(&mbr), [(2048 * 512, 9 * 512)], "and none beyond the end");
}

#[test]
fn a_superblock_whose_checksum_does_not_fit_is_damaged() {
    let mut sb = vec![0; 1024];
    sb[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    sb[0x3a] = 1;
    sb[0x65] = 4; // metadata_csum
    assert!(matches!(ext4_of(&sb).state, State::Damaged(_)));
    let sum = !crc32c::crc32c(&sb[..0x3fc]);
    sb[0x3fc..].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(ext4_of(&sb).state, State::Clean);
    let mut sb = vec![0; 4096];
    sb[0x30..0x38].copy_from_slice(&(64_u64 << 10).to_le_bytes());
    sb[0x40..0x48].copy_from_slice(b"_BHRfS_M");
    assert!(matches!(btrfs::read(&sb).unwrap().0.state, State::Damaged(_)));
    let sum = crc32c::crc32c(&sb[0x20..]);
    sb[..4].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(btrfs::read(&sb).unwrap().0.state, State::Clean);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A log of any content, under a superblock that leads to it.
    #[test]
    fn a_log_of_anything_is_judged(words in proptest::collection::vec(
        prop_oneof![any::<u32>(), 0_u32..4, Just(0xfeed_babe), Just(0x4e41_5254), Just(0x3c12_0200)], 1024..1536,
    )) {
        let mut device = vec![0; 4096];
        device[..4].copy_from_slice(b"XFSB");
        device[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        device[48..56].copy_from_slice(&1_u64.to_be_bytes()); // the log begins at block 1
        device[84..88].copy_from_slice(&1000_u32.to_be_bytes());
        device[96..100].copy_from_slice(&1_u32.to_be_bytes()); // and has one
        device[124] = 10;
        device.extend(words.iter().flat_map(|w| w.to_be_bytes()));
        let seen = now(xfs::read(&mut Bytes(device.clone()))).unwrap().unwrap().seen;
        prop_assert_ne!(seen.state, State::Clean);
        let _ = (now(xfs::log(&mut Bytes(device[4096..].to_vec()), 8)), xfs::log_of(&device));
        // Nor does anything else fail.
        let _ = (ext4::read(&device), btrfs::read(&device));
        let _ = begins(&device);
    }
}
