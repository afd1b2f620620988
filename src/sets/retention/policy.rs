//! The rules by which the sets of a plan are kept, or their copies at a destination.
//!
//! In: settings that were checked. Out: [`Policy`]. Must never: have a rule that takes something away from
//! another one: what any rule keeps is kept.

use serde::{Serialize, Serializer};

use super::age::Age;
use super::period::Unit;
use super::reason::Rule;
use super::zone::Zone;

/// How many periods a rule keeps a set of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The newest so many.
    Of(u32),
    /// Every one.
    All,
}

impl Count {
    /// Does it keep the period that is the `nth` from the newest, counted from 1?
    pub(super) fn keeps(self, nth: u32) -> bool {
        match self {
            Self::Of(count) => nth <= count,
            Self::All => true,
        }
    }
}

impl Serialize for Count {
    /// As it is written in a configuration.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(count) => s.serialize_u32(*count),
            Self::All => s.serialize_str("all"),
        }
    }
}

/// Which set of a period is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OfPeriod {
    /// The newest one.
    #[default]
    Newest,
    /// The first one.
    First,
}

/// The rules of one plan, or of its copies. A rule that is none is off. What any rule keeps is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The newest sets; two in one minute count as one, unless all are kept.
    pub last: Option<Count>,
    /// One set an hour, for the newest hours that have one. The same for the longer periods.
    pub hourly: Option<Count>,
    /// One set a day.
    pub daily: Option<Count>,
    /// One set a week, as ISO 8601 counts weeks.
    pub weekly: Option<Count>,
    /// One set a month.
    pub monthly: Option<Count>,
    /// One set a quarter.
    pub quarterly: Option<Count>,
    /// One set a year.
    pub yearly: Option<Count>,
    /// Every set that is younger.
    pub within: Option<Age>,
    /// One set of each hour of which a part is younger. The same for the longer periods.
    pub within_hourly: Option<Age>,
    /// One set of each day of which a part is younger.
    pub within_daily: Option<Age>,
    /// One set of each week of which a part is younger.
    pub within_weekly: Option<Age>,
    /// One set of each month of which a part is younger.
    pub within_monthly: Option<Age>,
    /// One set of each quarter of which a part is younger.
    pub within_quarterly: Option<Age>,
    /// One set of each year of which a part is younger.
    pub within_yearly: Option<Age>,
    /// The newest sets whose data verify has read and found sound. Alone it is no rule: whether there are any depends
    /// on somebody who verifies.
    pub verified: Option<Count>,
    /// So many good sets are kept whatever was asked for, the newest ones.
    pub at_least: Option<u32>,
    /// Nothing younger is removed, good or not, whatever was asked for.
    pub min_age: Option<Age>,
    /// For how long a set that is not good is kept; 3 days.
    pub failed: Age,
    /// Which set of a period is kept.
    pub of_period: OfPeriod,
    /// The zone in which hours, days, weeks, months, quarters and years begin.
    pub timezone: Zone,
    /// The most sets that one prune may remove. None: half of the group.
    pub max_deletes: Option<u32>,
    /// Sets that are shared with other accounts may be removed; false.
    pub delete_shared: bool,
}

impl Default for Policy {
    /// No rule: by such a policy nothing is removed, and no configuration may have it.
    fn default() -> Self {
        Self {
            last: None,
            hourly: None,
            daily: None,
            weekly: None,
            monthly: None,
            quarterly: None,
            yearly: None,
            within: None,
            within_hourly: None,
            within_daily: None,
            within_weekly: None,
            within_monthly: None,
            within_quarterly: None,
            within_yearly: None,
            verified: None,
            at_least: None,
            min_age: None,
            failed: Age::days(3),
            of_period: OfPeriod::Newest,
            timezone: Zone::UTC,
            max_deletes: None,
            delete_shared: false,
        }
    }
}

/// A rule that keeps one set of each period.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeriodRule {
    pub rule: Rule,
    pub unit: Unit,
    pub limit: Limit,
}

/// How far such a rule goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Periods(Count),
    Younger(Age),
}

impl Policy {
    /// The rules that keep one set of each period, in documented order.
    pub(super) fn period_rules(&self) -> Vec<PeriodRule> {
        let counts = [
            // All of them are kept each, also two in one minute: see `keeps_all`.
            (Rule::Last, Unit::Minute, self.last.filter(|_| !self.keeps_all())),
            (Rule::Hourly, Unit::Hour, self.hourly),
            (Rule::Daily, Unit::Day, self.daily),
            (Rule::Weekly, Unit::Week, self.weekly),
            (Rule::Monthly, Unit::Month, self.monthly),
            (Rule::Quarterly, Unit::Quarter, self.quarterly),
            (Rule::Yearly, Unit::Year, self.yearly),
        ];
        let ages = [
            (Rule::WithinHourly, Unit::Hour, self.within_hourly),
            (Rule::WithinDaily, Unit::Day, self.within_daily),
            (Rule::WithinWeekly, Unit::Week, self.within_weekly),
            (Rule::WithinMonthly, Unit::Month, self.within_monthly),
            (Rule::WithinQuarterly, Unit::Quarter, self.within_quarterly),
            (Rule::WithinYearly, Unit::Year, self.within_yearly),
        ];
        let count = |(rule, unit, count): (Rule, Unit, Option<Count>)| {
            count.map(|count| PeriodRule { rule, unit, limit: Limit::Periods(count) })
        };
        let age = |(rule, unit, age): (Rule, Unit, Option<Age>)| {
            age.map(|age| PeriodRule { rule, unit, limit: Limit::Younger(age) })
        };
        counts.into_iter().filter_map(count).chain(ages.into_iter().filter_map(age)).collect()
    }

    /// How old a set is at most that this rule of an age keeps: a rule of periods keeps it until the whole period
    /// is of that age.
    #[must_use]
    pub(crate) fn oldest(rule: Rule, age: Age) -> Age {
        let unit = match rule {
            Rule::WithinHourly => Unit::Hour,
            Rule::WithinDaily => Unit::Day,
            Rule::WithinWeekly => Unit::Week,
            Rule::WithinMonthly => Unit::Month,
            Rule::WithinQuarterly => Unit::Quarter,
            Rule::WithinYearly => Unit::Year,
            _ => return age,
        };
        age.and_hours(unit.most_hours())
    }

    /// Is every good set kept?
    pub(super) fn keeps_all(&self) -> bool {
        self.last == Some(Count::All)
    }

    /// Does any rule keep one set of each period?
    #[must_use]
    pub fn has_periods(&self) -> bool {
        !self.period_rules().is_empty()
    }

    /// Does any rule keep a good set?
    #[must_use]
    pub fn keeps_something(&self) -> bool {
        let keeps = |rule: &PeriodRule| match rule.limit {
            Limit::Periods(count) => count.keeps(1),
            Limit::Younger(age) => !age.is_zero(),
        };
        self.period_rules().iter().any(keeps)
            || [self.within, self.min_age].into_iter().flatten().any(|age| !age.is_zero())
            || self.keeps_all()
            || self.at_least.is_some_and(|count| count > 0)
    }
}
