//! Windows of the pool: which part of the one file each volume has.
//!
//! In: sizes, and the windows that are taken. Out: where the next one begins. Two windows must never overlap:
//! they would be two volumes with each other's data.

use crate::units::MIB;

/// A window of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// Where it begins, in bytes.
    pub offset: u64,
    pub length: u64,
}

/// Lays windows of these sizes one behind the other, each beginning on a MiB.
pub fn lay_out(sizes: &[u64]) -> Vec<Window> {
    let mut offset = 0;
    sizes
        .iter()
        .map(|&length| {
            let window = Window { offset, length };
            offset += length.next_multiple_of(MIB);
            window
        })
        .collect()
}

/// The first gap between the windows that are taken which is long enough, or the place behind them all.
pub fn place(taken: &[Window], length: u64) -> Window {
    let mut taken = taken.to_vec();
    taken.sort_by_key(|window| window.offset);
    let mut offset = 0;
    for window in taken {
        if window.offset >= offset + length {
            break;
        }
        offset = offset.max((window.offset + window.length).next_multiple_of(MIB));
    }
    Window { offset, length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_used_again_when_it_is_long_enough() {
        let taken = [Window { offset: 6 * MIB, length: MIB }, Window { offset: 0, length: 2 * MIB }];
        assert_eq!(place(&taken, 4 * MIB).offset, 2 * MIB);
        assert_eq!(place(&taken, 5 * MIB).offset, 7 * MIB);
        assert_eq!(place(&[Window { offset: 0, length: 5 }], MIB).offset, MIB);
        assert_eq!(place(&[], MIB).offset, 0);
    }

    #[test]
    fn windows_do_not_overlap_and_begin_on_a_mib() {
        let windows = lay_out(&[3 * MIB, MIB + 5, 2 * MIB]);
        assert_eq!(windows.iter().map(|w| w.offset).collect::<Vec<_>>(), [0, 3 * MIB, 5 * MIB]);
    }
}
