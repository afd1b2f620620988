//! What a volume was made from, and how far its initialisation is.
//!
//! In: what the call that made it asked for. Out: progress at some moment. It must never read the clock: `now`
//! comes in.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Tags, World};
use crate::ids::VolumeId;

/// What a volume was made from, besides a snapshot, and what is still to come of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The volume that it is a copy of.
    pub volume: Option<VolumeId>,
    /// How its data comes after it is available; none when there is none to come.
    pub initialization: Option<Initialization>,
    /// When DescribeVolumes knows of it at the earliest.
    pub visible_from: Option<Timestamp>,
    /// When Describe calls show its tags at the earliest.
    pub tagged_from: Option<Timestamp>,
    /// Whether it ends in `error`.
    pub fails: bool,
}

/// How a volume gets its data after it is available. Here all of it is there at once: only what is said of it
/// takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialization {
    pub way: Way,
    /// When it began.
    pub began: Timestamp,
    pub takes: Duration,
}

/// Who decides how long an initialisation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// EBS.
    Default,
    /// The rate that was asked for.
    Provisioned,
    /// EBS, of a copy of a volume.
    Copy,
}

impl Way {
    /// As DescribeVolumeStatus says it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Default => "default",
            Way::Provisioned => "provisioned-rate",
            Way::Copy => "volume-copy",
        }
    }
}

impl Initialization {
    /// How much of it is done, in whole percent.
    pub fn percent(&self, now: Timestamp) -> u64 {
        if self.remaining(now).is_zero() {
            return 100;
        }
        let done = 1.0 - self.remaining(now).as_secs_f64() / self.takes.as_secs_f64();
        (done * 100.0).clamp(0.0, 99.0) as u64
    }

    /// How long it still takes.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let elapsed = Duration::try_from(now.duration_since(self.began)).unwrap_or_default();
        self.takes.saturating_sub(elapsed)
    }

    pub fn is_done(&self, now: Timestamp) -> bool {
        self.remaining(now).is_zero()
    }
}

impl Origin {
    /// Whether it is a copy of a volume that is not initialised yet.
    pub fn is_copying(&self, now: Timestamp) -> bool {
        let initialization = self.initialization.filter(|one| one.way == Way::Copy);
        initialization.is_some_and(|one| !one.is_done(now))
    }

    /// Whether Describe calls know of its volume.
    pub fn is_visible(&self, now: Timestamp) -> bool {
        self.visible_from.is_none_or(|from| now >= from)
    }
}

impl World {
    /// A volume's tags as Describe calls show them.
    pub fn shown_tags_of_volume(&self, id: &str, now: Timestamp) -> &Tags {
        static NONE: Tags = Tags::new();
        let volume = self.volumes.iter().find(|volume| volume.id.as_str() == id);
        match volume.and_then(|volume| volume.origin.tagged_from) {
            Some(from) if now < from => &NONE,
            _ => self.tags_of(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_goes_by_the_clock() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let one = Initialization { way: Way::Copy, began: at(1000), takes: Duration::from_secs(10) };
        let shown: Vec<u64> = [0, 1000, 1004, 1009, 1010, 2000].map(|now| one.percent(at(now))).into();
        assert_eq!(shown, [0, 0, 40, 90, 100, 100]);
        assert_eq!(one.remaining(at(1004)), Duration::from_secs(6));
        let copy = Origin { initialization: Some(one), ..Origin::default() };
        assert!(copy.is_copying(at(1009)) && !copy.is_copying(at(1010)));
        let of_snapshot =
            Origin { initialization: Some(Initialization { way: Way::Default, ..one }), ..Origin::default() };
        assert!(!of_snapshot.is_copying(at(1001)));
        let at_once = Initialization { takes: Duration::ZERO, ..one };
        assert_eq!(at_once.percent(at(1000)), 100);
    }
}
