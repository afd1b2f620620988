//! Why a set is kept or goes: the rule, its counter and its period, as data and in words.
//!
//! In: what a rule has found. Out: [`Reason`]. Must never: name a rule by another word than the
//! configuration.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use super::facts::{Hold, KeepUntil, State};
use super::policy::Count;
use crate::ids::RunId;
use crate::path_encoding::printable;

/// What keeps a set, or lets it go. Those that are keys of a configuration have its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The newest sets.
    Last,
    /// One an hour.
    Hourly,
    /// One a day.
    Daily,
    /// One a week.
    Weekly,
    /// One a month.
    Monthly,
    /// One a quarter.
    Quarterly,
    /// One a year.
    Yearly,
    /// Everything younger.
    Within,
    /// One an hour, of what is younger.
    WithinHourly,
    /// One a day, of what is younger.
    WithinDaily,
    /// One a week, of what is younger.
    WithinWeekly,
    /// One a month, of what is younger.
    WithinMonthly,
    /// One a quarter, of what is younger.
    WithinQuarterly,
    /// One a year, of what is younger.
    WithinYearly,
    /// The newest sets whose data was verified.
    Verified,
    /// The floor of good sets.
    AtLeast,
    /// The floor of age.
    MinAge,
    /// The time that sets have that are not good.
    Failed,
    /// The set's own tag.
    KeepUntil,
    /// Something holds it.
    Hold,
    /// The last good set of its group; of a group without one, the set that is worth most.
    LastGood,
    /// Less than the plan requires, and newer than every good set: there is nothing better of that time.
    NewestDegraded,
    /// A member is pending.
    Pending,
    /// Its time has not come yet: a tag that was copied, or a clock that is wrong.
    Future,
    /// It is not of this group.
    OtherGroup,
    /// Another set has the same id.
    SameId,
    /// The plan has no rules.
    NoRules,
    /// A removal that began has to end.
    Torn,
    /// Everything was asked for.
    All,
    /// An image of it goes with it.
    Image,
}

impl Rule {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Quarterly => "quarterly",
            Self::Yearly => "yearly",
            Self::Within => "within",
            Self::WithinHourly => "within_hourly",
            Self::WithinDaily => "within_daily",
            Self::WithinWeekly => "within_weekly",
            Self::WithinMonthly => "within_monthly",
            Self::WithinQuarterly => "within_quarterly",
            Self::WithinYearly => "within_yearly",
            Self::Verified => "verified",
            Self::AtLeast => "at_least",
            Self::MinAge => "min_age",
            Self::Failed => "failed",
            Self::KeepUntil => "keep_until",
            Self::Hold => "hold",
            Self::LastGood => "last_good",
            Self::NewestDegraded => "newest_degraded",
            Self::Pending => "pending",
            Self::Future => "future",
            Self::OtherGroup => "other_group",
            Self::SameId => "same_id",
            Self::NoRules => "no_rules",
            Self::Torn => "torn",
            Self::All => "all",
            Self::Image => "image",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One reason to keep a set, or to let it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The rule.
    pub rule: Rule,
    /// The set's period, or the set itself, counted from the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u32>,
    /// How many of them the rule keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Count>,
    /// The period, such as `2026-W49`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// Until when the rule keeps it, or has kept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The set of the same period that the rule prefers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<RunId>,
    /// What holds it.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub hold: Option<Box<Hold>>,
    /// What the rule has to say beyond that.
    #[serde(skip)]
    pub(super) words: Option<String>,
}

impl Reason {
    pub(super) fn of(rule: Rule) -> Self {
        Self { rule, nth: None, of: None, period: None, until: None, by: None, hold: None, words: None }
    }

    pub(super) fn words(self, words: impl Into<String>) -> Self {
        Self { words: Some(words.into()), ..self }
    }

    pub(super) fn until(self, until: Timestamp) -> Self {
        Self { until: Some(until), ..self }
    }

    pub(super) fn hold(hold: &Hold) -> Self {
        Self { hold: Some(Box::new(hold.clone())), until: hold.until(), ..Self::of(Rule::Hold) }
    }

    pub(super) fn keep_until(tag: &KeepUntil) -> Self {
        let until = match tag {
            KeepUntil::Date(until) => Some(*until),
            KeepUntil::Forever | KeepUntil::Unreadable(_) => None,
        };
        Self { until, ..Self::of(Rule::KeepUntil) }.words(tag.to_string())
    }

    pub(super) fn state(rule: Rule, state: &State) -> Self {
        match state {
            // The rule says the rest.
            State::Failed { why } | State::Torn { why } => Self::of(rule).words(why.as_str()),
            _ => Self::of(rule).words(state.to_string()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule.name())?;
        match (self.nth, self.of) {
            (Some(nth), Some(Count::Of(of))) => write!(f, " {nth} of {of}")?,
            (Some(nth), _) => write!(f, " {nth}")?,
            (None, _) => {}
        }
        self.period.iter().try_for_each(|period| write!(f, " ({period})"))?;
        self.by.iter().try_for_each(|by| write!(f, ", which has {by}"))?;
        self.hold.iter().try_for_each(|hold| write!(f, ": {hold}"))?;
        self.words.iter().try_for_each(|words| write!(f, ": {}", printable(words)))?;
        match self.until {
            // Both say it themselves.
            Some(until) if !matches!(self.rule, Rule::KeepUntil | Rule::Hold) => {
                write!(f, ", until {}", minute(until))
            }
            _ => Ok(()),
        }
    }
}

/// A time for people, in UTC.
pub(super) fn minute(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// What the rules say about one set. Where nothing keeps it, it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    pub keeps: Vec<Reason>,
    pub lets_go: Vec<Reason>,
}

/// Values with what they say in words beside them, as `text`.
pub(super) fn with_text<T: Serialize + fmt::Display, S: Serializer>(
    values: &[T],
    s: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a, T> {
        #[serde(flatten)]
        value: &'a T,
        text: String,
    }
    s.collect_seq(values.iter().map(|value| Told { value, text: value.to_string() }))
}
