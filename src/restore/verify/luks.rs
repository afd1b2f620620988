//! LUKS: what is in it cannot be read without its key, but its header can be checked.
//!
//! In: bytes of the device, by [`Source`]. Out: [`Header`]. Must never: look for a key, or at key slots.
//!
//! Formats: "LUKS2 On-Disk Format Specification" 1.1.1, section 2 (`struct luks2_hdr_disk`: `hdr_size` 8, `csum_alg` 72,
//! `csum` 448); "LUKS1 On-Disk Format Specification" 1.2.3, which has no checksum.

use sha2::Digest as _;

use super::partitions::{ReadError, Source};

const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// The largest header area (LUKS2 specification, table 1).
const MOST: u64 = 4 << 20;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Header {
    /// Its checksum fits, or it has none.
    Good(&'static str),
    /// It cannot be opened as it is.
    Damaged(String),
}

/// The header; none where there is none.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn read<S: Source>(source: &mut S) -> Result<Option<Header>, ReadError> {
    let first = source.read(0, 512).await?;
    if !first.starts_with(MAGIC) {
        return Ok(None);
    }
    let damaged = |what: &str| Ok(Some(Header::Damaged(what.to_owned())));
    match first.get(6..8) {
        Some([0, 1]) => return Ok(Some(Header::Good("LUKS1"))),
        Some([0, 2]) => {}
        _ => return damaged("its LUKS header has a version that there is not"),
    }
    let size = first.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    if !(16 << 10..=MOST).contains(&size) || !size.is_power_of_two() {
        return damaged("its LUKS2 header has a size that there is not");
    }
    if !first.get(72..104).is_some_and(|name| name.starts_with(b"sha256\0")) {
        return Ok(Some(Header::Good("LUKS2 with a checksum that is not computed here")));
    }
    let length = usize::try_from(size).unwrap_or_default();
    let mut header = match source.read(0, length).await {
        Err(ReadError::Beyond) => return damaged("its LUKS2 header leads beyond its device"),
        header => header?,
    };
    header[448..512].fill(0);
    let sum = sha2::Sha256::digest(&header);
    if first.get(448..480) == Some(sum.as_slice()) {
        Ok(Some(Header::Good("LUKS2")))
    } else {
        damaged("the checksum of its LUKS2 header does not fit")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{Bytes, now};
    use super::*;

    pub(in super::super) fn image() -> Vec<u8> {
        let mut all = vec![0; 1 << 20];
        all[..6].copy_from_slice(MAGIC);
        all[7] = 2;
        all[8..16].copy_from_slice(&(16_u64 << 10).to_be_bytes());
        all[72..78].copy_from_slice(b"sha256");
        all[4096..4098].copy_from_slice(b"{}");
        let sum = sha2::Sha256::digest(&all[..16 << 10]);
        all[448..480].copy_from_slice(&sum);
        all
    }

    #[test]
    fn a_header_is_good_only_with_its_checksum() {
        let seen = |bytes: &[u8]| now(read(&mut Bytes(bytes.to_vec()))).unwrap();
        let good = image();
        assert_eq!(seen(&good), Some(Header::Good("LUKS2")));
        for at in [4097, 450, 15, 10_000] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(seen(&bad), Some(Header::Damaged(_))), "{at}");
        }
        let mut other = good.clone();
        other[8..16].fill(0xff);
        assert!(matches!(seen(&other), Some(Header::Damaged(_))), "a size of any number");
        let mut one = good;
        one[7] = 1;
        assert_eq!(seen(&one), Some(Header::Good("LUKS1")));
        assert_eq!(seen(&vec![0; 512]), None);
    }
}
