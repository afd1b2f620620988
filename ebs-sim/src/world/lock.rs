//! A snapshot's lock: its mode, how long it holds, and how it may be changed.
//!
//! In: what LockSnapshot asked for and some moment. Out: the lock's state then. It must never read the clock,
//! and a compliance lock whose cooling-off period is over must never become weaker.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest lock, in days.
pub const MAX_DAYS: u32 = 36_500;
const DAY: i64 = 24 * 3600;

/// How hard a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Can be taken off and changed.
    Governance,
    /// Can be extended only, once the cooling-off period is over.
    Compliance,
}

/// When a lock ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// So many days after it began.
    Days(u32),
    Date(Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// How hard it is.
    pub mode: Mode,
    pub until: Until,
    /// The cooling-off period in hours.
    pub cool_off: Option<u32>,
    /// When the snapshot was locked.
    pub created: Timestamp,
    /// When this mode was chosen, which is where the cooling-off period begins.
    pub mode_since: Timestamp,
    /// When the snapshot was or will be completed: a lock's duration does not begin before.
    pub completed: Timestamp,
}

/// A lock's state at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Compliance, and can still be changed.
    CoolOff,
    Governance,
    Compliance,
    /// It holds no more.
    Expired,
}

impl State {
    /// As EC2 writes it.
    pub fn name(self) -> &'static str {
        match self {
            State::CoolOff => "compliance-cooloff",
            State::Governance => "governance",
            State::Compliance => "compliance",
            State::Expired => "expired",
        }
    }
}

fn after(start: Timestamp, seconds: i64) -> Timestamp {
    start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

impl Lock {
    /// When its duration began or will begin.
    pub fn starts(&self) -> Timestamp {
        self.created.max(self.completed)
    }

    pub fn expires(&self) -> Timestamp {
        match self.until {
            Until::Date(date) => date,
            Until::Days(days) => after(self.starts(), i64::from(days) * DAY),
        }
    }

    /// Its length in days; a part of a day counts as one.
    pub fn days(&self) -> i64 {
        let seconds = self.expires().duration_since(self.starts()).as_secs().max(0);
        (seconds + DAY - 1) / DAY
    }

    /// When the cooling-off period ends.
    pub fn cool_off_ends(&self) -> Option<Timestamp> {
        self.cool_off.map(|hours| after(self.mode_since, i64::from(hours) * 3600))
    }

    /// What it is at this moment.
    pub fn state(&self, now: Timestamp) -> State {
        if now >= self.expires() {
            return State::Expired;
        }
        match self.mode {
            Mode::Governance => State::Governance,
            Mode::Compliance if self.cool_off_ends().is_some_and(|end| now < end) => State::CoolOff,
            Mode::Compliance => State::Compliance,
        }
    }

    /// The lock that follows when `wanted` is asked for while this one is there, or why it may not.
    pub fn changed(&self, wanted: Lock, now: Timestamp) -> Result<Lock, &'static str> {
        let state = self.state(now);
        if state == State::Expired {
            return Ok(wanted);
        }
        let mode_since = if wanted.mode == self.mode { self.mode_since } else { now };
        let next = Lock { created: self.created, mode_since, ..wanted };
        if state == State::Compliance {
            if wanted.mode != Mode::Compliance {
                return Err("the mode of a compliance lock cannot be changed after the cooling-off period");
            }
            if wanted.cool_off.is_some() {
                return Err("a cooling-off period cannot be set after the cooling-off period has expired");
            }
            if next.expires() < self.expires() {
                return Err("a compliance lock can only be extended after the cooling-off period");
            }
            return Ok(Lock { cool_off: self.cool_off, ..next });
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn lock(mode: Mode, days: u32, cool_off: Option<u32>, created: i64) -> Lock {
        let created = at(created);
        Lock { mode, until: Until::Days(days), cool_off, created, mode_since: created, completed: at(100) }
    }

    #[test]
    fn a_lock_begins_when_the_snapshot_is_completed_and_expires() {
        let lock = lock(Mode::Governance, 2, None, 0);
        assert_eq!((lock.starts(), lock.expires(), lock.days()), (at(100), at(100 + 2 * DAY), 2));
        assert_eq!(lock.state(at(50)), State::Governance);
        assert_eq!(lock.state(at(99 + 2 * DAY)), State::Governance);
        assert_eq!(lock.state(at(100 + 2 * DAY)), State::Expired);
        let dated = Lock { until: Until::Date(at(100 + DAY + 1)), ..lock };
        assert_eq!((dated.days(), dated.state(at(100 + DAY + 1))), (2, State::Expired));
    }

    #[test]
    fn compliance_cools_off_and_can_then_only_grow() {
        let lock = lock(Mode::Compliance, 10, Some(1), 1000);
        assert_eq!(lock.state(at(1000 + 3599)), State::CoolOff);
        assert_eq!(lock.state(at(1000 + 3600)), State::Compliance);
        let wanted = |mode, days, cool_off| self::lock(mode, days, cool_off, 5000);
        let early = at(2000);
        let next = lock.changed(wanted(Mode::Governance, 1, None), early).expect("cooling off");
        assert_eq!((next.mode, next.created, next.mode_since), (Mode::Governance, at(1000), early));
        assert!(lock.changed(wanted(Mode::Compliance, 1, Some(72)), early).is_ok());
        let late = at(10_000);
        assert!(lock.changed(wanted(Mode::Governance, 20, None), late).is_err());
        assert!(lock.changed(wanted(Mode::Compliance, 20, Some(1)), late).is_err());
        assert!(lock.changed(wanted(Mode::Compliance, 9, None), late).is_err());
        let longer = lock.changed(wanted(Mode::Compliance, 11, None), late).expect("longer");
        assert_eq!((longer.state(late), longer.days()), (State::Compliance, 11));
        let expired = at(1000 + 11 * DAY);
        let new = lock.changed(wanted(Mode::Governance, 1, None), expired).expect("a new lock");
        assert_eq!(new.created, at(5000));
    }

    #[test]
    fn a_governance_lock_that_becomes_compliance_cools_off_from_then() {
        let lock = lock(Mode::Governance, 10, None, 1000);
        let now = at(50_000);
        let next = lock.changed(self::lock(Mode::Compliance, 1, Some(2), 50_000), now).expect("allowed");
        assert_eq!(next.state(at(50_000 + 7199)), State::CoolOff);
        assert_eq!(next.state(at(50_000 + 7200)), State::Compliance);
    }
}
