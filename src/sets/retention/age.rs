//! An age in the units that sets are kept for.
//!
//! In: text with units, such as `7d` or `1y 6mo`. Out: [`Age`]. Must never: take `m` for months.
//!
//! Ages are counted in UTC: a day has 24 hours there, so that no change to or from summer time makes a set
//! older or younger than another. A month leads to the same day of the month, or to its last one.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Serialize, Serializer};

/// Longest age that can be written: 100 years.
const MONTHS: u32 = 1200;
const HOURS: u32 = 876_600;
/// What is told of text that is no age.
const UNITS: &str = "units are h, d, w, mo (months) and y, as in `36h`, `14d` or `1y 6mo`";

/// How old a set becomes, in months and hours; zero is an age too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Age {
    months: u32,
    hours: u32,
}

/// Why text is no age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidAge {
    /// Continues a sentence that starts with the name of the setting.
    pub problem: String,
    /// What to write.
    pub hint: String,
}

impl Age {
    /// So many hours.
    #[must_use]
    pub const fn hours(hours: u32) -> Self {
        Self { months: 0, hours }
    }

    /// So many days of 24 hours.
    #[must_use]
    pub const fn days(days: u32) -> Self {
        Self::hours(days * 24)
    }

    /// So many months.
    #[must_use]
    pub const fn months(months: u32) -> Self {
        Self { months, hours: 0 }
    }

    /// True for an age of nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.months == 0 && self.hours == 0
    }

    /// From text with units.
    ///
    /// # Errors
    /// When a unit is missing, or is less than an hour, or the age is more than 100 years.
    pub fn parse(text: &str) -> Result<Self, InvalidAge> {
        let text = text.trim();
        let fault = |problem: String, hint: String| InvalidAge { problem, hint };
        if text.parse::<f64>().is_ok() {
            let hint = format!("write \"{text}d\" for days; {UNITS}");
            return Err(fault(format!("is `{text}`, a number without a unit"), hint));
        }
        // The parser knows more: signs, times of day, fractions.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b','));
        let span = jiff::fmt::friendly::SpanParser::new()
            .parse_span(text)
            .ok()
            .filter(|span| plain && !span.is_negative())
            .ok_or_else(|| fault(format!("is `{text}`, which is not an age"), UNITS.to_owned()))?;
        let below_an_hour =
            [span.get_minutes(), span.get_seconds(), span.get_milliseconds(), span.get_microseconds()];
        if below_an_hour.iter().any(|n| *n != 0) || span.get_nanoseconds() != 0 {
            let hint = format!("`m` is minutes; for months write `mo`; {UNITS}");
            return Err(fault(format!("is `{text}`, and ages are counted in whole hours"), hint));
        }
        let months = i64::from(span.get_years()) * 12 + i64::from(span.get_months());
        let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
        let hours = days * 24 + i64::from(span.get_hours());
        let within = |n: i64, most: u32| u32::try_from(n).ok().filter(|n| *n <= most);
        match (within(months, MONTHS), within(hours, HOURS)) {
            (Some(months), Some(hours)) => Ok(Self { months, hours }),
            _ => Err(fault(format!("is `{text}`, more than 100 years"), UNITS.to_owned())),
        }
    }

    /// When something that began at `time` is of this age. The end of all time where that is later.
    #[must_use]
    pub fn after(self, time: Timestamp) -> Timestamp {
        let span = Span::new().try_months(self.months).and_then(|span| span.try_hours(self.hours));
        let at = span.and_then(|span| time.to_zoned(TimeZone::UTC).checked_add(span));
        at.map_or(Timestamp::MAX, |at| at.timestamp())
    }

    pub(super) const fn and_hours(self, hours: u32) -> Self {
        Self { months: self.months, hours: self.hours + hours }
    }

    /// Is this age reached at the latest when `other` is, whatever months it falls into?
    #[must_use]
    pub(crate) const fn never_longer(self, other: Self) -> bool {
        const LONGEST: u64 = 31 * 24;
        const SHORTEST: u64 = 28 * 24;
        let by_part = self.months <= other.months && self.hours <= other.hours;
        let most = self.months as u64 * LONGEST + self.hours as u64;
        by_part || most <= other.months as u64 * SHORTEST + other.hours as u64
    }
}

impl fmt::Display for Age {
    /// As [`Age::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole_days = self.hours.is_multiple_of(24);
        let parts = [
            (self.months / 12, "y"),
            (self.months % 12, "mo"),
            (if whole_days { self.hours / 24 } else { 0 }, "d"),
            (if whole_days { 0 } else { self.hours }, "h"),
        ];
        let parts: Vec<_> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
        if parts.is_empty() { f.pad("0h") } else { f.pad(&parts.join(" ")) }
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
