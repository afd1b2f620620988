//! Devices over volumes: which bytes of which volume the bytes of a partition, an array or a logical volume are.
//!
//! In: how a layer says that it lies. Out: [`Piece`]s, and bytes by [`On`]. Must never: go by a number that was not
//! checked, or make more pieces than a read is worth.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::partitions::{ReadError, Source};

/// One read is of no more pieces: a stripe has 4 KiB at least, and nothing that is read is longer than some MiB.
const MOST_PIECES: usize = 1 << 16;

/// A range of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub volume: usize,
    pub at: u64,
    pub length: u64,
}

/// A device as it lies on volumes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// A volume, by its number.
    Volume { volume: usize, size: u64 },
    /// A part of another one.
    Part { of: Rc<Device>, at: u64, size: u64 },
    /// One behind the other.
    Joined { of: Vec<Rc<Device>> },
    /// In turns of so many bytes. All are of one size, a multiple of it.
    Striped { of: Vec<Rc<Device>>, chunk: u64 },
    /// The same on each: what is read is the first.
    Mirrored { of: Vec<Rc<Device>> },
}

impl Device {
    /// A part of this one; none where it would reach beyond its end.
    pub(super) fn part(self: &Rc<Self>, at: u64, size: u64) -> Option<Rc<Self>> {
        let end = at.checked_add(size)?;
        (size > 0 && end <= self.size()).then(|| Rc::new(Self::Part { of: Rc::clone(self), at, size }))
    }

    /// In turns; none where they are not all of one size, or that is none of whole turns.
    pub(super) fn striped(of: Vec<Rc<Self>>, chunk: u64) -> Option<Rc<Self>> {
        let size = of.first()?.size();
        let fits = chunk >= 4096 && chunk.is_multiple_of(512) && size > 0 && size.is_multiple_of(chunk);
        let same = of.iter().all(|d| d.size() == size);
        let whole = size.checked_mul(u64::try_from(of.len()).ok()?).is_some();
        (fits && same && whole).then(|| Rc::new(Self::Striped { of, chunk }))
    }

    /// One behind the other; none where there is none.
    pub(super) fn joined(of: Vec<Rc<Self>>) -> Option<Rc<Self>> {
        let size = of.iter().try_fold(0_u64, |sum, d| sum.checked_add(d.size()))?;
        (size > 0).then(|| Rc::new(Self::Joined { of }))
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Volume { size, .. } | Self::Part { size, .. } => *size,
            Self::Joined { of } => of.iter().fold(0, |sum, d| sum.saturating_add(d.size())),
            Self::Striped { of, .. } => of.first().map_or(0, |d| d.size()).saturating_mul(of.len() as u64),
            Self::Mirrored { of } => of.first().map_or(0, |d| d.size()),
        }
    }

    /// The volumes that it is on.
    pub(super) fn volumes(&self) -> BTreeSet<usize> {
        match self {
            Self::Volume { volume, .. } => BTreeSet::from([*volume]),
            Self::Part { of, .. } => of.volumes(),
            Self::Joined { of } | Self::Striped { of, .. } | Self::Mirrored { of } => {
                of.iter().flat_map(|d| d.volumes()).collect()
            }
        }
    }

    /// Where it lies as one piece of one volume; none where it does not.
    pub(super) fn piece(&self) -> Option<Piece> {
        match self {
            Self::Volume { volume, size } => Some(Piece { volume: *volume, at: 0, length: *size }),
            Self::Part { of, at, size } => {
                let of = of.piece()?;
                Some(Piece { at: of.at.checked_add(*at)?, length: *size, ..of })
            }
            Self::Joined { .. } | Self::Striped { .. } | Self::Mirrored { .. } => None,
        }
    }

    /// Where these bytes are; none where they are beyond its end, or in too many places.
    pub(super) fn pieces(&self, at: u64, length: u64) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        self.add(at, length, &mut pieces)?;
        Some(pieces)
    }

    fn add(&self, at: u64, length: u64, pieces: &mut Vec<Piece>) -> Option<()> {
        let end = at.checked_add(length).filter(|end| *end <= self.size())?;
        if length == 0 {
            return Some(());
        }
        match self {
            Self::Volume { volume, .. } => {
                if pieces.len() >= MOST_PIECES {
                    return None;
                }
                pieces.push(Piece { volume: *volume, at, length });
            }
            Self::Part { of, at: from, .. } => of.add(from.checked_add(at)?, length, pieces)?,
            Self::Mirrored { of } => of.first()?.add(at, length, pieces)?,
            Self::Joined { of } => {
                let mut begin = 0_u64;
                for d in of {
                    let (from, to) = (at.max(begin), end.min(begin.checked_add(d.size())?));
                    if from < to {
                        d.add(from - begin, to - from, pieces)?;
                    }
                    begin = begin.checked_add(d.size())?;
                }
            }
            Self::Striped { of, chunk } => {
                let mut at = at;
                while at < end {
                    let (turn, within) = (at / chunk, at % chunk);
                    let length = (chunk - within).min(end - at);
                    let n = of.len() as u64;
                    let leg = usize::try_from(turn % n).ok()?;
                    of.get(leg)?.add((turn / n).checked_mul(*chunk)?.checked_add(within)?, length, pieces)?;
                    at += length;
                }
            }
        }
        Some(())
    }
}

/// A device, read from what its volumes are read by. A volume that could not be opened is none.
pub(super) struct On<'r, S> {
    pub readers: &'r mut [Option<S>],
    pub device: Rc<Device>,
}

impl<S: Source> Source for On<'_, S> {
    async fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let pieces = self.device.pieces(at, length as u64).ok_or(ReadError::Beyond)?;
        let mut bytes = Vec::with_capacity(length);
        for piece in pieces {
            let reader = self.readers.get_mut(piece.volume).and_then(Option::as_mut);
            let reader = reader.ok_or(ReadError::NotThere)?;
            let length = usize::try_from(piece.length).map_err(|_| ReadError::Beyond)?;
            bytes.extend(reader.read(piece.at, length).await.map_err(|e| e.on(piece.volume))?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn volume(volume: usize, size: u64) -> Rc<Device> {
        Rc::new(Device::Volume { volume, size })
    }

    fn all(device: &Device, at: u64, length: u64) -> Vec<(usize, u64, u64)> {
        device.pieces(at, length).unwrap().iter().map(|p| (p.volume, p.at, p.length)).collect()
    }

    #[test]
    fn bytes_are_where_the_layer_puts_them() {
        let part = volume(0, 1 << 20).part(4096, 65_536).unwrap();
        assert_eq!(all(&part, 10, 5), [(0, 4106, 5)]);
        assert_eq!(part.part(512, 1024).unwrap().piece(), Some(Piece { volume: 0, at: 4608, length: 1024 }));
        let joined = Device::joined(vec![part.clone(), volume(1, 1 << 20)]).unwrap();
        assert_eq!(all(&joined, 65_530, 10), [(0, 69_626, 6), (1, 0, 4)]);
        let striped = Device::striped(vec![volume(0, 65_536), volume(1, 65_536)], 4096).unwrap();
        assert!(striped.piece().is_none() && joined.piece().is_none());
        assert_eq!(striped.size(), 131_072);
        assert_eq!(all(&striped, 4000, 8192), [(0, 4000, 96), (1, 0, 4096), (0, 4096, 4000)]);
        assert_eq!(striped.volumes(), BTreeSet::from([0, 1]));
        for beyond in [(131_072, 1), (131_071, 2), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
            assert_eq!(striped.pieces(beyond.0, beyond.1), None, "{beyond:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_no_device() {
        let one = volume(0, 65_536);
        assert!(one.part(65_536, 1).is_none() && one.part(u64::MAX, 2).is_none() && one.part(0, 0).is_none());
        let two = |size| vec![volume(0, 65_536), volume(1, size)];
        assert!(Device::striped(two(65_536), 4096).is_some());
        assert!(Device::striped(two(61_440), 4096).is_none(), "zones");
        for chunk in [0, 1, 512, 4097, 1 << 17] {
            assert!(Device::striped(two(65_536), chunk).is_none(), "{chunk}");
        }
        assert!(Device::striped(vec![], 4096).is_none() && Device::joined(vec![]).is_none());
        let huge = Device::striped(vec![volume(0, !4095), volume(1, !4095)], 4096);
        assert!(huge.is_none());
    }

    proptest! {
        /// Every byte of a device is one byte of a volume, and no byte is two.
        #[test]
        fn no_byte_is_in_two_places(chunks in 1_u64..9, legs in 1_usize..5, at in 0_u64..20_000, length in 0_u64..20_000) {
            let of = (0..legs).map(|n| volume(n, chunks * 4096)).collect();
            let striped = Device::striped(of, 4096).unwrap();
            let joined = Device::joined(vec![striped.clone(), volume(9, 4096)]).unwrap();
            match joined.pieces(at, length) {
                None => prop_assert!(at + length > joined.size()),
                Some(pieces) => {
                    prop_assert_eq!(pieces.iter().map(|p| p.length).sum::<u64>(), length);
                    let bytes: BTreeSet<_> = pieces.iter().flat_map(|p| (p.at..p.at + p.length).map(|b| (p.volume, b))).collect();
                    prop_assert_eq!(bytes.len() as u64, length);
                }
            }
        }
    }
}
