//! Which hour, day, week, month, quarter or year an instant belongs to, in a zone.
//!
//! In: an instant and a zone. Out: a key that orders periods and tells two of them apart, its name, and
//! where the period ends. Must never: compare an instant with its neighbour alone, since a zone may come
//! back to a day that it has left; take a calendar's year for that of a week.
//!
//! The offset is a part of an hour: at the end of summer time the two hours from 02:00 are two. An hour
//! that a zone skips is simply not there. A day, a week and what is longer are those of the local date.

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::zone::Zone;

/// A kind of period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// One period of its kind: ordered as the calendar is, and by offset within an hour that occurs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(i64, i32);

impl Unit {
    /// The longest that such a period is, in hours: a day on which the clocks are set back, and two hours at most.
    pub(super) const fn most_hours(self) -> u32 {
        const CHANGE: u32 = 2;
        let days = match self {
            Self::Minute | Self::Hour => return 1,
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 31,
            Self::Quarter => 92,
            Self::Year => 366,
        };
        days * 24 + CHANGE
    }

    /// The period of this kind that `time` belongs to.
    pub(super) fn key(self, time: Timestamp, zone: &Zone) -> Key {
        if self == Self::Minute {
            return Key(time.as_second().div_euclid(60), 0);
        }
        let offset = zone.rules().to_offset(time);
        let local = offset.to_datetime(time);
        let date = local.date();
        let (year, month) = (i64::from(date.year()), i64::from(date.month()));
        let day = year * 10_000 + month * 100 + i64::from(date.day());
        match self {
            // A larger offset is the earlier of two hours with one name.
            Self::Minute | Self::Hour => Key(day * 100 + i64::from(local.hour()), -offset.seconds()),
            Self::Day => Key(day, 0),
            Self::Week => {
                let week = date.iso_week_date();
                Key(i64::from(week.year()) * 100 + i64::from(week.week()), 0)
            }
            Self::Month => Key(year * 100 + month, 0),
            Self::Quarter => Key(year * 10 + i64::from(quarter(date)), 0),
            Self::Year => Key(year, 0),
        }
    }

    /// The name of the period that `time` belongs to: `2026-10-25T02+02:00`, `2026-10-25`, `2026-W43`,
    /// `2026-10`, `2026-Q4`, `2026`.
    pub(super) fn name(self, time: Timestamp, zone: &Zone) -> String {
        let local = time.to_zoned(zone.rules().clone());
        match self {
            Self::Minute => local.strftime("%Y-%m-%dT%H:%M%:z").to_string(),
            Self::Hour => local.strftime("%Y-%m-%dT%H%:z").to_string(),
            Self::Day => local.strftime("%Y-%m-%d").to_string(),
            Self::Week => local.strftime("%G-W%V").to_string(),
            Self::Month => local.strftime("%Y-%m").to_string(),
            Self::Quarter => format!("{}-Q{}", local.strftime("%Y"), quarter(local.date())),
            Self::Year => local.strftime("%Y").to_string(),
        }
    }

    /// The first instant after the period that `time` belongs to.
    pub(super) fn end(self, time: Timestamp, zone: &Zone) -> Timestamp {
        let offset = zone.rules().to_offset(time);
        let local = offset.to_datetime(time);
        let date = local.date();
        let next = match self {
            Self::Minute => {
                let next = time.as_second().div_euclid(60).saturating_add(1).saturating_mul(60);
                return Timestamp::from_second(next).unwrap_or(Timestamp::MAX);
            }
            Self::Hour => return end_of_hour(time, local, zone),
            Self::Day => date.tomorrow(),
            Self::Week => date.checked_add((8 - i64::from(date.weekday().to_monday_one_offset())).days()),
            Self::Month => date.last_of_month().tomorrow(),
            Self::Quarter => {
                date.first_of_month().checked_add((3 - i64::from((date.month() - 1) % 3)).months())
            }
            Self::Year => date.last_of_year().tomorrow(),
        };
        // Where the zone has no midnight on that day, its first instant is meant.
        let start = next.and_then(|date| zone.rules().to_timestamp(date.to_datetime(jiff::civil::Time::MIN)));
        start.unwrap_or(Timestamp::MAX)
    }
}

fn quarter(date: Date) -> i8 {
    (date.month() - 1) / 3 + 1
}

/// A change of the offset ends an hour as the clock does, because the offset is a part of it. tzdata also has
/// changes of something else.
fn end_of_hour(time: Timestamp, local: DateTime, zone: &Zone) -> Timestamp {
    let gone = SignedDuration::from_secs(i64::from(local.minute()) * 60 + i64::from(local.second()))
        + SignedDuration::from_nanos(i64::from(local.subsec_nanosecond()));
    let full = time.checked_add(SignedDuration::from_hours(1) - gone).unwrap_or(Timestamp::MAX);
    let offset = zone.rules().to_offset(time);
    let mut changes = zone.rules().following(time).take_while(|change| change.timestamp() < full);
    changes.find(|change| change.offset() != offset).map_or(full, |change| change.timestamp())
}
