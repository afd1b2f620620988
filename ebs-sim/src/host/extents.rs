//! How much an image holds, and how much of it is new: by where its blocks lie on the disk.
//!
//! In: two images, which stay as they are. Out: bytes in whole blocks of EBS. Two images share a block on the
//! disk exactly where nothing was written between them, so nothing has to be read. Data that was written
//! again counts as changed although it is the same, as on EBS.

use std::fs::File;
use std::path::Path;

use fiemap::{Fiemap, FiemapExtentFlags, FiemapFlags};

use super::Error;
use crate::window::Window;

/// EBS's block: what it stores and counts by.
pub const BLOCK: u64 = 512 << 10;

/// A piece of a file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub at: u64,
    pub length: u64,
    /// Where it lies on the disk; none when that says nothing about its data.
    pub place: Option<u64>,
}

/// The pieces of a file that hold data, in order. Holes are none, nor is space that reads as zeros.
pub fn read(image: &Path) -> Result<Vec<Extent>, Error> {
    let what = || format!("find out where {} lies", image.display());
    let file = File::open(image).map_err(Error::io(what()))?;
    let mut extents = Vec::new();
    for extent in Fiemap::with_flags(&file, FiemapFlags::SYNC) {
        let extent = extent.map_err(Error::io(what()))?;
        let flags = extent.fe_flags;
        if flags.contains(FiemapExtentFlags::UNWRITTEN) {
            continue;
        }
        let vague = FiemapExtentFlags::UNKNOWN | FiemapExtentFlags::ENCODED | FiemapExtentFlags::DATA_INLINE;
        extents.push(Extent {
            at: extent.fe_logical,
            length: extent.fe_length,
            place: (!flags.intersects(vague)).then_some(extent.fe_physical),
        });
    }
    Ok(extents)
}

/// The pieces in a window, counted from its beginning.
pub fn within(extents: &[Extent], window: Window) -> Vec<Extent> {
    let end = window.offset + window.length;
    let first = extents.partition_point(|extent| extent.at + extent.length <= window.offset);
    extents[first..]
        .iter()
        .take_while(|extent| extent.at < end)
        .map(|extent| {
            let cut = window.offset.saturating_sub(extent.at);
            let at = extent.at + cut;
            let length = (extent.length - cut).min(end - at);
            Extent { at: at - window.offset, length, place: extent.place.map(|place| place + cut) }
        })
        .collect()
}

/// How many bytes these pieces take in whole blocks.
pub fn in_blocks(extents: &[Extent]) -> u64 {
    let (mut blocks, mut next) = (0, 0);
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        let first = (extent.at / BLOCK).max(next);
        let end = (extent.at + extent.length).div_ceil(BLOCK);
        blocks += end.saturating_sub(first);
        next = next.max(end);
    }
    blocks * BLOCK
}

/// The pieces of `now` that do not lie where `before` has them.
pub fn changed(now: &[Extent], before: &[Extent]) -> Vec<Extent> {
    let mut changed = Vec::new();
    let mut from = 0;
    for extent in now {
        let (mut at, end) = (extent.at, extent.at + extent.length);
        while before.get(from).is_some_and(|old| old.at + old.length <= at) {
            from += 1;
        }
        let mut next = from;
        while at < end {
            let old = before.get(next).filter(|old| old.at < end);
            let until = match old {
                None => end,
                Some(old) if old.at > at => old.at,
                Some(old) => {
                    let until = end.min(old.at + old.length);
                    next += 1;
                    if is_same(extent, old) {
                        at = until;
                        continue;
                    }
                    until
                }
            };
            let place = extent.place.map(|place| place + (at - extent.at));
            changed.push(Extent { at, length: until - at, place });
            at = until;
        }
    }
    changed
}

/// Whether both have the same block wherever they overlap.
fn is_same(a: &Extent, b: &Extent) -> bool {
    match (a.place, b.place) {
        (Some(a_place), Some(b_place)) => a_place.wrapping_sub(a.at) == b_place.wrapping_sub(b.at),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(at: u64, length: u64, place: u64) -> Extent {
        Extent { at, length, place: Some(place) }
    }

    fn spans(extents: &[Extent]) -> Vec<(u64, u64)> {
        extents.iter().map(|extent| (extent.at, extent.length)).collect()
    }

    #[test]
    fn a_window_cuts_what_reaches_over_its_ends() {
        let all = [extent(0, 10, 100), extent(10, 10, 500), extent(30, 5, 700)];
        let window = Window { offset: 5, length: 10 };
        assert_eq!(within(&all, window), [extent(0, 5, 105), extent(5, 5, 500)]);
        assert_eq!(within(&all, Window { offset: 20, length: 10 }), []);
    }

    #[test]
    fn blocks_are_counted_once() {
        assert_eq!(in_blocks(&[]), 0);
        assert_eq!(in_blocks(&[extent(0, 1, 0), extent(4096, 1, 0)]), BLOCK);
        assert_eq!(in_blocks(&[extent(BLOCK - 1, 2, 0)]), 2 * BLOCK);
        assert_eq!(in_blocks(&[extent(0, 3 * BLOCK, 0), extent(3 * BLOCK, 1, 0)]), 4 * BLOCK);
    }

    #[test]
    fn what_lies_elsewhere_has_changed() {
        let before = [extent(0, 10, 100), extent(20, 10, 300)];
        assert_eq!(spans(&changed(&before, &before)), []);
        // Rewritten in the middle, so the extent is in three parts.
        let now = [extent(0, 4, 100), extent(4, 2, 900), extent(6, 4, 106), extent(20, 10, 300)];
        assert_eq!(spans(&changed(&now, &before)), [(4, 2)]);
        // Grown into the hole, and over the next one, which was moved.
        let now = [extent(0, 15, 100), extent(15, 15, 600)];
        assert_eq!(spans(&changed(&now, &before)), [(10, 5), (15, 5), (20, 10)]);
        // What is gone holds nothing.
        assert_eq!(spans(&changed(&[], &before)), []);
        assert_eq!(spans(&changed(&now, &[])), [(0, 15), (15, 15)]);
        // One old extent over several new ones.
        let now = [extent(0, 3, 100), extent(3, 3, 103), extent(7, 1, 1)];
        assert_eq!(spans(&changed(&now, &before)), [(7, 1)]);
        let vague = [Extent { at: 0, length: 10, place: None }];
        assert_eq!(spans(&changed(&vague, &vague)), [(0, 10)]);
    }
}
