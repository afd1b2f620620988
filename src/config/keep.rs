//! `[defaults.keep]`, `[plan.NAME.keep]` and their `copies`: what is kept of a plan's sets.
//!
//! In: the tables of the rules. Out: [`KeepSettings`], each policy complete. Must never: let a policy
//! through that keeps nothing, or a rule that another one of the same table makes void: one of the two is a
//! mistake, and sets would go for it.

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::input::{Input, input};
use super::node::Node;
use super::resolve::Taken;
use super::settings::KeepSettings;
use crate::sets::retention::{Age, Count, OfPeriod, Policy, Rule, Zone};

/// Shorter than its own period, a rule would keep one set at most.
const HOUR: Age = Age::hours(1);
const DAY: Age = Age::days(1);
const WEEK: Age = Age::days(7);
const MONTH: Age = Age::months(1);
const QUARTER: Age = Age::months(3);
const YEAR: Age = Age::months(12);

const OF_PERIOD: &[(&str, OfPeriod)] = &[("newest", OfPeriod::Newest), ("first", OfPeriod::First)];

input! {
    /// The rules: of the sets, or of their copies.
    RulesInput {
        /// count | not set | the newest sets | `10`
        last: Count = Node::count;
        /// count | not set | one set an hour, for the newest hours that have one | `24`
        hourly: Count = Node::count;
        /// count | not set | one set a day | `7`
        daily: Count = Node::count;
        /// count | not set | one set a week, of ISO 8601 | `4`
        weekly: Count = Node::count;
        /// count | not set | one set a month | `12`
        monthly: Count = Node::count;
        /// count | not set | one set a quarter | `8`
        quarterly: Count = Node::count;
        /// count | not set | one set a year | `10`
        yearly: Count = Node::count;
        /// age | not set | every set that is younger | `"12h"`
        within: Age = |n: &Node<'_>| n.age(HOUR);
        /// age | not set | one set of each hour of which a part is younger | `"2d"`
        within_hourly: Age = |n: &Node<'_>| n.age(HOUR);
        /// age, 1 d or more | not set | one set of each day of which a part is younger | `"14d"`
        within_daily: Age = |n: &Node<'_>| n.age(DAY);
        /// age, 7 d or more | not set | one set of each week of which a part is younger | `"8w"`
        within_weekly: Age = |n: &Node<'_>| n.age(WEEK);
        /// age, 1 mo or more | not set | one set of each month of which a part is younger | `"1y"`
        within_monthly: Age = |n: &Node<'_>| n.age(MONTH);
        /// age, 3 mo or more | not set | one set of each quarter of which a part is younger | `"2y"`
        within_quarterly: Age = |n: &Node<'_>| n.age(QUARTER);
        /// age, 1 y or more | not set | one set of each year of which a part is younger | `"10y"`
        within_yearly: Age = |n: &Node<'_>| n.age(YEAR);
        /// count | not set | the newest sets whose data [verify](verify.md#the-ledger) has read and found
        /// sound; another rule has to be beside it | `1`
        verified: Count = Node::count;
        /// number, up to 10000 | not set | so many good sets stay, even where everything is to be removed |
        /// `3`
        at_least: u32 = |n: &Node<'_>| n.number(0, check::MAX_COUNT);
        /// age | not set | nothing younger is removed, good or not, even where everything is to be removed |
        /// `"6h"`
        min_age: Age = |n: &Node<'_>| n.age(HOUR);
        /// age | `"3d"` | for how long a set that is not good is kept
        failed: Age = |n: &Node<'_>| n.age(HOUR);
        /// `"newest"`, `"first"` | `"newest"` | which set of an hour, a day, … is kept
        of_period: OfPeriod = |n: &Node<'_>| n.checked(|t| check::choice(t, OF_PERIOD));
        /// IANA name, as in `"Europe/Berlin"` | `"UTC"` | the zone in which hours, days and longer periods
        /// begin
        timezone: Zone = |n: &Node<'_>| n.checked(check::timezone);
        /// number, 1 or more | half of the plan's sets | the most sets that one prune removes; if more would
        /// go, none goes without `--yes` | `30`
        max_deletes: u32 = |n: &Node<'_>| n.number(1, 1_000_000);
        /// true or false | `false` | sets that other accounts may use can go
        delete_shared: bool = Node::flag;
    } per_entry {}
}

/// The rules of the sets, and those of their copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeepInput {
    rules: RulesInput,
    copies: Option<Sourced<RulesInput>>,
}

const COPIES: &str = "copies";
const COPIES_DOC: &str = "table of the same keys, without `copies` | not set | the rules of the sets' copies, at each \
     destination; not set means that no copy is removed. The zone is that of the plan";

/// The same with one more at the end.
const fn and_last<const N: usize>(list: &[&'static str], last: &'static str) -> [&'static str; N] {
    let mut all = [last; N];
    let mut i = 0;
    while i < list.len() {
        all[i] = list[i];
        i += 1;
    }
    all
}

impl Input for KeepInput {
    const KEYS: &'static [&'static str] =
        &and_last::<{ RulesInput::KEYS.len() + 1 }>(RulesInput::KEYS, COPIES);
    const DOCS: &'static [&'static str] =
        &and_last::<{ RulesInput::DOCS.len() + 1 }>(RulesInput::DOCS, COPIES_DOC);

    fn set(&mut self, node: &Node<'_>) -> Result<bool, ConfigError> {
        if node.name == COPIES {
            self.copies = Some(node.sourced(|n| RulesInput::read(&n.table()?))?);
            return Ok(true);
        }
        self.rules.set(node)
    }

    fn overlay(&mut self, later: Self) {
        self.rules.overlay(later.rules);
        super::input::overlay_table(&mut self.copies, later.copies);
    }
}

/// The policies of one plan; none where there is no table.
pub(super) fn settings(
    input: Option<Sourced<KeepInput>>,
    take: &mut Taken<'_>,
) -> Result<Option<KeepSettings>, ConfigError> {
    let Some(Sourced { value: KeepInput { rules, copies }, origin }) = input else {
        take.optional::<()>("keep", None);
        return Ok(None);
    };
    let zone = rules.timezone.clone();
    let sets = policy("keep", rules, &origin, take)?;
    let Some(Sourced { value: mut rules, origin }) = copies else {
        take.optional::<()>("keep.copies", None);
        return Ok(Some(KeepSettings { sets, copies: None }));
    };
    match (&zone, &rules.timezone) {
        (_, Some(own)) if own.value != sets.timezone => {
            let problem = format!("is {}, and the plan's own sets have {}", own.value, sets.timezone);
            let hint = "a plan has one zone: leave it out here";
            return Err(Fault::new(problem).hint(hint).at(own.origin.clone(), "keep.copies.timezone"));
        }
        (Some(_), None) => rules.timezone = zone,
        _ => {}
    }
    let copies = policy("keep.copies", rules, &origin, take)?;
    Ok(Some(KeepSettings { sets, copies: Some(copies) }))
}

fn policy(
    table: &str,
    mut rules: RulesInput,
    origin: &Origin,
    take: &mut Taken<'_>,
) -> Result<Policy, ConfigError> {
    rules.take_void();
    let first = rules.of_period.as_ref().filter(|of| of.value == OfPeriod::First).map(|of| of.origin.clone());
    let key = |name: &str| format!("{table}.{name}");
    let count = |take: &mut Taken<'_>, name: &str, input: Option<Sourced<Count>>| {
        take.optional(&key(name), input).filter(|count| *count != Count::Of(0))
    };
    let last = count(take, "last", rules.last);
    let hourly = count(take, "hourly", rules.hourly);
    let daily = count(take, "daily", rules.daily);
    let weekly = count(take, "weekly", rules.weekly);
    let monthly = count(take, "monthly", rules.monthly);
    let quarterly = count(take, "quarterly", rules.quarterly);
    let yearly = count(take, "yearly", rules.yearly);
    let verified = count(take, "verified", rules.verified);
    let age = |take: &mut Taken<'_>, name: &str, input: Option<Sourced<Age>>| {
        take.optional(&key(name), input).filter(|age| !age.is_zero())
    };
    let default = Policy::default();
    let policy = Policy {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        quarterly,
        yearly,
        verified,
        within: age(take, "within", rules.within),
        within_hourly: age(take, "within_hourly", rules.within_hourly),
        within_daily: age(take, "within_daily", rules.within_daily),
        within_weekly: age(take, "within_weekly", rules.within_weekly),
        within_monthly: age(take, "within_monthly", rules.within_monthly),
        within_quarterly: age(take, "within_quarterly", rules.within_quarterly),
        within_yearly: age(take, "within_yearly", rules.within_yearly),
        min_age: age(take, "min_age", rules.min_age),
        at_least: take.optional(&key("at_least"), rules.at_least).filter(|count| *count > 0),
        failed: take.or(&key("failed"), rules.failed, default.failed),
        of_period: take.or(&key("of_period"), rules.of_period, default.of_period),
        timezone: take.or(&key("timezone"), rules.timezone, default.timezone),
        max_deletes: take.optional(&key("max_deletes"), rules.max_deletes),
        delete_shared: take.or(&key("delete_shared"), rules.delete_shared, default.delete_shared),
    };
    if !policy.keeps_something() {
        return Err(Fault::new("has no rule that keeps a set")
            .hint(
                "name at least one, such as daily = 7; last = \"all\" keeps every set; without the table \
                 nothing is removed",
            )
            .at(origin.clone(), table));
    }
    if let Some(at) = first.filter(|_| !policy.has_periods()) {
        return Err(Fault::new("is \"first\", and no rule has periods")
            .hint("leave it out, or name a rule such as daily = 7")
            .at(at, &key("of_period")));
    }
    Ok(policy)
}

/// An error when one rule of a table makes another one void. A rule of `[plan.NAME.keep]` may, over one of
/// `[defaults.keep]`.
pub(super) fn check_void(keep: Option<&Sourced<KeepInput>>) -> Result<(), ConfigError> {
    let Some(Sourced { value: KeepInput { rules, copies }, .. }) = keep else { return Ok(()) };
    let tables = [("keep", Some(rules)), ("keep.copies", copies.as_ref().map(|copies| &copies.value))];
    for (table, rules) in tables {
        let Some(void) = rules.and_then(|rules| rules.clone().take_void().into_iter().next()) else {
            continue;
        };
        let problem = format!("keeps nothing that {} does not keep", void.by);
        let hint = "leave one of them out: whatever any rule keeps is kept";
        return Err(Fault::new(problem).hint(hint).at(void.origin, &format!("{table}.{}", void.rule)));
    }
    Ok(())
}

/// A rule that keeps nothing that another one does not keep.
struct Void {
    rule: &'static str,
    origin: Origin,
    by: String,
}

impl RulesInput {
    /// Takes out the rules that others make void, so that `config show` prints what could be written.
    fn take_void(&mut self) -> Vec<Void> {
        let mut found = Vec::new();
        let all = self.last.as_ref().is_some_and(|last| last.value == Count::All);
        let counts = [
            ("hourly", &mut self.hourly),
            ("daily", &mut self.daily),
            ("weekly", &mut self.weekly),
            ("monthly", &mut self.monthly),
            ("quarterly", &mut self.quarterly),
            ("yearly", &mut self.yearly),
            ("verified", &mut self.verified),
        ];
        for (name, rule) in counts {
            if all && rule.as_ref().is_some_and(|rule| rule.value != Count::Of(0)) {
                void(name, rule, "last = \"all\"".to_owned(), &mut found);
            }
        }
        let ages = [
            (Rule::MinAge, &mut self.min_age),
            (Rule::Within, &mut self.within),
            (Rule::WithinHourly, &mut self.within_hourly),
            (Rule::WithinDaily, &mut self.within_daily),
            (Rule::WithinWeekly, &mut self.within_weekly),
            (Rule::WithinMonthly, &mut self.within_monthly),
            (Rule::WithinQuarterly, &mut self.within_quarterly),
            (Rule::WithinYearly, &mut self.within_yearly),
        ];
        // Those that keep everything younger, so far.
        let mut wide: Vec<(Rule, Age)> = Vec::new();
        for (name, rule) in ages {
            let Some(age) = rule.as_ref().map(|rule| rule.value).filter(|age| !age.is_zero()) else {
                continue;
            };
            // A floor holds against more than rules do, so it is never void.
            let oldest = Policy::oldest(name, age);
            let by = match wide.iter().find(|(_, wide)| oldest.never_longer(*wide)) {
                _ if name == Rule::MinAge => None,
                _ if all => Some("last = \"all\"".to_owned()),
                Some((name, wide)) => Some(format!("{name} = \"{wide}\"")),
                None => None,
            };
            match by {
                Some(by) => void(name.name(), rule, by, &mut found),
                None if matches!(name, Rule::MinAge | Rule::Within) => wide.push((name, age)),
                None => {}
            }
        }
        found
    }
}

fn void<T>(rule: &'static str, input: &mut Option<Sourced<T>>, by: String, found: &mut Vec<Void>) {
    found.extend(input.take().map(|input| Void { rule, origin: input.origin, by }));
}
