//! Where a snapshot is stored: the standard tier or the archive.
//!
//! In: what was last asked for, and some moment. Out: the tier and how far it has come. It must never read
//! the clock: `now` comes in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Move {
    /// Into the archive.
    Archive,
    /// Out of it for so many days.
    Borrow(u32),
    /// Out of it for good.
    Return,
}

/// The last move between the tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiering {
    pub wanted: Move,
    pub started: Timestamp,
    /// How long it takes.
    pub takes: Duration,
    /// When it was archived, the last time.
    pub archived: Timestamp,
}

impl Tiering {
    /// When the move is or was done.
    pub fn done(&self) -> Timestamp {
        self.started.checked_add(self.takes).unwrap_or(Timestamp::MAX)
    }

    /// When a snapshot that is out for some days goes back.
    pub fn expires(&self) -> Option<Timestamp> {
        let Move::Borrow(days) = self.wanted else { return None };
        let days = SignedDuration::from_secs(i64::from(days) * 24 * 3600);
        Some(self.done().checked_add(days).unwrap_or(Timestamp::MAX))
    }

    /// Whether the snapshot is in the archive, where its data cannot be used.
    pub fn is_archived(&self, now: Timestamp) -> bool {
        match self.wanted {
            Move::Archive => now >= self.done(),
            Move::Return => now < self.done(),
            Move::Borrow(_) => now < self.done() || self.expires().is_some_and(|end| now >= end),
        }
    }

    /// How far the move is, in percent.
    pub fn percent(&self, now: Timestamp) -> u32 {
        let gone = Duration::try_from(now.duration_since(self.started)).unwrap_or_default();
        if gone >= self.takes { 100 } else { (gone.as_secs_f64() / self.takes.as_secs_f64() * 100.0) as u32 }
    }

    /// `archival-in-progress` …
    pub fn status(&self, now: Timestamp) -> String {
        let what = match self.wanted {
            Move::Archive => "archival",
            Move::Borrow(_) => "temporary-restore",
            Move::Return => "permanent-restore",
        };
        let how = if now < self.done() { "in-progress" } else { "completed" };
        format!("{what}-{how}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_archived_borrowed_and_returned() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let moved =
            |wanted| Tiering { wanted, started: at(100), takes: Duration::from_secs(10), archived: at(0) };
        let archive = moved(Move::Archive);
        assert_eq!((archive.is_archived(at(109)), archive.percent(at(105))), (false, 50));
        assert_eq!((archive.is_archived(at(110)), archive.percent(at(110))), (true, 100));
        assert_eq!(archive.status(at(109)), "archival-in-progress");
        assert_eq!(archive.status(at(110)), "archival-completed");
        let borrowed = moved(Move::Borrow(1));
        assert!(borrowed.is_archived(at(109)) && !borrowed.is_archived(at(110)));
        assert!(!borrowed.is_archived(at(109 + 86_400)) && borrowed.is_archived(at(110 + 86_400)));
        let back = moved(Move::Return);
        assert!(back.is_archived(at(109)) && !back.is_archived(at(1_000_000)));
    }
}
