//! Cases by chance, with faults of the API, for as long as wanted; the same seed gives the same cases.

use std::time::{Duration, Instant};

use crate::points::{Api, Case, Fault, Point};
use rig::Fs;

/// SplitMix64: small, and every seed is good.
pub struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let length = u64::try_from(of.len()).unwrap();
        of[usize::try_from(self.next() % length).unwrap()].clone()
    }
}

/// Cases without end on one filesystem, or until the time is over.
pub struct Soak {
    chance: Chance,
    fs: Fs,
    end: Instant,
}

impl Soak {
    pub fn new(seed: u64, fs: Fs, time: Duration) -> Self {
        let mut chance = Chance(seed);
        // Each filesystem has cases of its own.
        (0..=fs as u64).for_each(|_| chance.0 = chance.next());
        Self { chance, fs, end: Instant::now() + time }
    }
}

impl Iterator for Soak {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        if Instant::now() > self.end {
            return None;
        }
        let point = self.chance.pick(&Point::all());
        let faults: Vec<_> = Fault::ALL.into_iter().filter(|f| f.fits(&point)).collect();
        let fault = self.chance.pick(&faults);
        let api = self.chance.pick(&Api::ALL.iter().collect::<Vec<_>>());
        let alone = self.chance.next().is_multiple_of(3) || point.needs().is_some();
        Some(Case { point, fault, fs: self.fs, api: (!alone).then_some(api) })
    }
}
