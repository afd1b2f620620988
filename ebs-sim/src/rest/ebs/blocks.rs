//! Which blocks of a snapshot were written, which differ from another's, and what is in one.
//!
//! In: images, which stay as they are. Out: numbers of blocks, and data. What lies at one place on the disk for both
//! must never be called changed.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::host::Error;
use crate::host::extents::{self, BLOCK, Extent};
use crate::world::Image;

/// A block that differs between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    pub index: u64,
    /// Whether the first snapshot has it.
    pub in_first: bool,
    pub in_second: bool,
}

fn pieces(image: Option<&Image>) -> Result<Vec<Extent>, Error> {
    match image {
        None => Ok(Vec::new()),
        Some(image) => Ok(extents::within(&extents::read(&image.path)?, image.window)),
    }
}

fn indexes(extents: &[Extent]) -> BTreeSet<u64> {
    let of = |extent: &Extent| extent.at / BLOCK..(extent.at + extent.length).div_ceil(BLOCK);
    extents.iter().filter(|extent| extent.length > 0).flat_map(of).collect()
}

/// The blocks that were written, in order.
pub fn written(image: Option<&Image>) -> Result<Vec<u64>, Error> {
    Ok(indexes(&pieces(image)?).into_iter().collect())
}

/// The blocks that differ, in order: written to since, or given up.
pub fn changed(first: Option<&Image>, second: Option<&Image>) -> Result<Vec<Changed>, Error> {
    Ok(between(&pieces(first)?, &pieces(second)?))
}

fn between(first: &[Extent], second: &[Extent]) -> Vec<Changed> {
    let (in_first, in_second) = (indexes(first), indexes(second));
    let mut differ = indexes(&extents::changed(second, first));
    differ.extend(indexes(&extents::changed(first, second)));
    let changed = |index: u64| Changed {
        index,
        in_first: in_first.contains(&index),
        in_second: in_second.contains(&index),
    };
    differ.into_iter().map(changed).collect()
}

/// The data of a block. What is beyond the end of the volume is zeros.
pub fn read(image: &Image, index: u64) -> Result<Vec<u8>, Error> {
    let what = || format!("read {}", image.path.display());
    let file = File::open(&image.path).map_err(Error::io(what()))?;
    let at = index * BLOCK;
    let length = image.window.length.saturating_sub(at).min(BLOCK) as usize;
    let mut data = vec![0; BLOCK as usize];
    let mut done = 0;
    while done < length {
        let from = image.window.offset + at + done as u64;
        match file.read_at(&mut data[done..length], from).map_err(Error::io(what()))? {
            // The image is shorter than its window: the pool had not grown that far, so it is zeros.
            0 => break,
            read => done += read,
        }
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, blocks: u64, place: u64) -> Extent {
        Extent { at: first * BLOCK, length: blocks * BLOCK, place: Some(place * BLOCK) }
    }

    #[test]
    fn blocks_are_changed_added_or_given_up() {
        let before = [extent(0, 4, 100), extent(10, 2, 200)];
        // Block 1 is written again, 10 and 11 are discarded, 20 is new.
        let now = [extent(0, 1, 100), extent(1, 1, 900), extent(2, 2, 102), extent(20, 1, 901)];
        let shown: Vec<(u64, bool, bool)> = between(&before, &now)
            .into_iter()
            .map(|changed| (changed.index, changed.in_first, changed.in_second))
            .collect();
        assert_eq!(shown, [(1, true, true), (10, true, false), (11, true, false), (20, false, true)]);
        assert_eq!(between(&before, &before), []);
        assert_eq!(between(&[], &now).len(), 5, "without a first one, all of the second's");
    }

    #[test]
    fn a_block_is_read_in_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        let bytes: Vec<u8> = (0..BLOCK * 2).map(|n| (n / 4096) as u8).collect();
        std::fs::write(&path, &bytes).expect("written");
        let window = crate::window::Window { offset: BLOCK, length: BLOCK * 2 };
        let image = Image { path, window };
        assert_eq!(read(&image, 0).expect("read"), bytes[BLOCK as usize..]);
        assert_eq!(read(&image, 1).expect("beyond the file"), vec![0; BLOCK as usize]);
    }
}
