//! What holds for every history and every policy.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::random::{good, history, options, policy, rules_of_days, unhindered};
use super::*;

fn kept_ids(request: &Request<'_>, sets: &[SetFacts]) -> BTreeSet<RunId> {
    let plan = decide(request, sets);
    plan.sets.into_iter().filter(|set| set.verdict == Verdict::Keep).map(|set| set.id).collect()
}

fn more<T>(a: Option<T>, b: Option<T>, most: impl Fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(most(a, b)),
        (a, b) => a.or(b),
    }
}

/// The rules of both; where both have one, the one that keeps more.
fn both(a: &Policy, b: &Policy) -> Policy {
    let count = |a: Count, b: Count| match (a, b) {
        (Count::Of(a), Count::Of(b)) => Count::Of(a.max(b)),
        _ => Count::All,
    };
    let age = |a: Age, b: Age| if a.never_longer(b) { b } else { a };
    Policy {
        last: more(a.last, b.last, count),
        hourly: more(a.hourly, b.hourly, count),
        daily: more(a.daily, b.daily, count),
        weekly: more(a.weekly, b.weekly, count),
        monthly: more(a.monthly, b.monthly, count),
        quarterly: more(a.quarterly, b.quarterly, count),
        yearly: more(a.yearly, b.yearly, count),
        within: more(a.within, b.within, age),
        within_hourly: more(a.within_hourly, b.within_hourly, age),
        within_daily: more(a.within_daily, b.within_daily, age),
        within_weekly: more(a.within_weekly, b.within_weekly, age),
        within_monthly: more(a.within_monthly, b.within_monthly, age),
        within_quarterly: more(a.within_quarterly, b.within_quarterly, age),
        within_yearly: more(a.within_yearly, b.within_yearly, age),
        verified: more(a.verified, b.verified, count),
        at_least: more(a.at_least, b.at_least, u32::max),
        min_age: more(a.min_age, b.min_age, age),
        failed: age(a.failed, b.failed),
        ..a.clone()
    }
}

/// What a rule of a count keeps, worked out slowly and by names that a calendar library prints.
fn by_names(policy: &Policy, format: &str, count: Count, sets: &[SetFacts], set: &SetFacts) -> bool {
    let local = |set: &SetFacts| set.time.to_zoned(policy.timezone.rules().clone());
    let name = |set: &SetFacts| match format {
        "quarter" => format!("{} {}", local(set).strftime("%Y"), (local(set).month() + 2) / 3),
        _ => local(set).strftime(format).to_string(),
    };
    let newer = |other: &SetFacts| (other.time, &other.id) > (set.time, &set.id);
    let same = |other: &&SetFacts| other.id != set.id && name(other) == name(set);
    let preferred = match policy.of_period {
        OfPeriod::Newest => !sets.iter().filter(same).any(newer),
        OfPeriod::First => sets.iter().filter(same).all(newer),
    };
    // Names of days and longer are in the order of the calendar; hours are in the order of time.
    let later = |other: &&SetFacts| match format {
        "%Y-%m-%d %H %z" => other.time > set.time && name(other) != name(set),
        _ => name(other) > name(set),
    };
    let newer_periods: BTreeSet<_> = sets.iter().filter(later).map(name).collect();
    let counted = match count {
        Count::Of(count) => newer_periods.len() < count as usize,
        Count::All => true,
    };
    preferred && counted
}

proptest! {
    // What fails is printed; a file of it would have to be looked after.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The rules together keep what each of them keeps: so a rule more, or a larger count, removes nothing
    /// more.
    #[test]
    fn more_rules_never_delete_more(
        (sets, now) in history(30),
        // Without any rule, everything is kept.
        a in policy().prop_filter("rules", Policy::keeps_something),
        b in policy().prop_filter("rules", Policy::keeps_something),
    ) {
        let timezone = a.timezone.clone();
        let b = Policy { timezone, of_period: a.of_period, delete_shared: a.delete_shared, ..b };
        let together = both(&a, &b);
        let kept = |policy: &Policy| kept_ids(&unhindered(policy, now), &sets);
        let each: BTreeSet<_> = kept(&a).union(&kept(&b)).cloned().collect();
        prop_assert_eq!(kept(&together), each);
    }

    #[test]
    fn a_second_prune_deletes_nothing((sets, now) in history(30), policy in policy()) {
        let ask = unhindered(&policy, now);
        let first = decide(&ask, &sets);
        let left: Vec<_> = sets.into_iter().filter(|set| !first.order.contains(&set.id)).collect();
        prop_assert_eq!(decide(&ask, &left).order, []);
    }

    #[test]
    fn the_order_of_the_sets_makes_no_difference(
        (sets, shuffled, now) in history(30).prop_flat_map(|(sets, now)| {
            (Just(sets.clone()), Just(sets).prop_shuffle(), Just(now))
        }),
        policy in policy(),
        options in options(),
    ) {
        let ask = Request { options, interval: Some(DAY), ..unhindered(&policy, now) };
        prop_assert_eq!(decide(&ask, &sets), decide(&ask, &shuffled));
    }

    /// By whole days in UTC, for every rule that has no months; by whole weeks where one has weeks.
    #[test]
    fn a_shift_by_whole_days_in_utc_makes_no_difference(
        (sets, now) in history(30),
        policy in rules_of_days(),
        days in -800..800_i32,
    ) {
        let weeks = policy.weekly.is_some() || policy.within_weekly.is_some();
        let by = SignedDuration::from_hours(24) * if weeks { days * 7 } else { days };
        let shift = |time: Timestamp| time.checked_add(by).unwrap();
        let hold = |hold: Hold| match hold {
            Hold::Archived { since } => Hold::Archived { since: shift(since) },
            other => other,
        };
        let shifted: Vec<_> = sets
            .iter()
            .map(|set| SetFacts {
                time: shift(set.time),
                holds: set.holds.iter().cloned().map(hold).collect(),
                keep_until: match &set.keep_until {
                    Some(KeepUntil::Date(until)) => Some(KeepUntil::Date(shift(*until))),
                    other => other.clone(),
                },
                ..set.clone()
            })
            .collect();
        let kept = kept_ids(&unhindered(&policy, now), &sets);
        prop_assert_eq!(kept_ids(&unhindered(&policy, shift(now)), &shifted), kept);
    }

    #[test]
    fn a_group_is_never_emptied_and_keeps_its_last_good_set(
        (sets, now) in history(30),
        policy in policy(),
        options in options(),
    ) {
        let options = Options { including_the_last: false, ..options };
        let plan = decide(&Request { options, ..unhindered(&policy, now) }, &sets);
        let own = || sets.iter().filter(|set| set.group == *GROUP);
        prop_assert!(own().count() == 0 || own().any(|set| !plan.order.contains(&set.id)));
        let limit = now.checked_add(SignedDuration::from_mins(5)).unwrap();
        let good = own().filter(|set| set.state == State::Good && set.time <= limit);
        let last = good.max_by_key(|set| (set.time, &set.id));
        prop_assert!(last.is_none_or(|last| !plan.order.contains(&last.id)));
    }

    #[test]
    fn no_flag_removes_what_is_held(
        (sets, now) in history(30),
        policy in policy(),
        options in options(),
        interval in prop::option::of(1..4_u32),
    ) {
        let ask = Request { options, interval: interval.map(|n| DAY * n), ..unhindered(&policy, now) };
        let plan = decide(&ask, &sets);
        for set in sets.iter().filter(|set| plan.order.contains(&set.id)) {
            prop_assert_eq!(&set.group, &*GROUP);
            prop_assert!(set.state != State::Pending);
            prop_assert!(set.time <= now.checked_add(SignedDuration::from_mins(5)).unwrap());
            prop_assert!(policy.min_age.is_none_or(|age| age.after(set.time) <= now));
            let free = |hold: &Hold| match hold {
                Hold::Shared { .. } => policy.delete_shared,
                Hold::Archived { since } => Age::days(90).after(*since) <= now,
                _ => false,
            };
            prop_assert!(set.holds.iter().all(free), "{:?}", set);
            prop_assert!(matches!(&set.keep_until, None | Some(KeepUntil::Date(_))), "{:?}", set);
            if let Some(KeepUntil::Date(until)) = &set.keep_until {
                prop_assert!(*until <= now);
            }
        }
        // What is to be removed is what the decisions say, oldest first, and nothing where there is a
        // refusal.
        let remove = plan.sets.iter().filter(|set| set.verdict == Verdict::Remove);
        prop_assert!(remove.map(|set| &set.id).eq(&plan.order));
        prop_assert!(plan.refusals.is_empty() || plan.order.is_empty());
        let own = sets.iter().filter(|set| set.group == *GROUP).count();
        prop_assert!(options.yes || plan.order.len() <= own / 2);
        prop_assert!(plan.sets.iter().all(|set| !set.reasons.is_empty()));
        prop_assert_eq!(plan.sets.len(), sets.len());
    }

    /// Against another way to count, one rule at a time.
    #[test]
    fn each_rule_of_a_count_keeps_what_a_calendar_says(
        (sets, now) in good(30),
        zone in prop::sample::select(super::random::ZONES.to_vec()),
        count in prop_oneof![(1..5_u32).prop_map(Count::Of), Just(Count::All)],
        first in any::<bool>(),
    ) {
        let of_period = if first { OfPeriod::First } else { OfPeriod::Newest };
        let policy = Policy { timezone: super::zone(zone), of_period, ..Policy::default() };
        let rules = [
            ("%Y-%m-%d %H %z", Rule::Hourly, Policy { hourly: Some(count), ..policy.clone() }),
            ("%Y-%m-%d", Rule::Daily, Policy { daily: Some(count), ..policy.clone() }),
            ("%G-%V", Rule::Weekly, Policy { weekly: Some(count), ..policy.clone() }),
            ("%Y-%m", Rule::Monthly, Policy { monthly: Some(count), ..policy.clone() }),
            ("quarter", Rule::Quarterly, Policy { quarterly: Some(count), ..policy.clone() }),
            ("%Y", Rule::Yearly, Policy { yearly: Some(count), ..policy }),
        ];
        for (format, rule, policy) in rules {
            let plan = decide(&unhindered(&policy, now), &sets);
            for decided in &plan.sets {
                let set = sets.iter().find(|set| set.id == decided.id).unwrap();
                let kept = decided.verdict == Verdict::Keep && decided.reasons.iter().any(|r| r.rule == rule);
                let wanted = by_names(&policy, format, count, &sets, set);
                prop_assert_eq!(kept, wanted, "{:?} {:?} {}", rule, set.time, zone);
            }
        }
    }

    /// The configuration leaves out a rule that another one makes void: that removes nothing more.
    #[test]
    fn a_rule_that_is_void_keeps_nothing_more(
        (sets, now) in good(30),
        zone in prop::sample::select(super::random::ZONES.to_vec()),
        first in any::<bool>(),
        wide in 1..1400_u32,
        age in 1..1200_u32,
    ) {
        let of_period = if first { OfPeriod::First } else { OfPeriod::Newest };
        let within = Policy {
            within: Some(Age::hours(wide)),
            timezone: super::zone(zone),
            of_period,
            ..Policy::default()
        };
        let age = Age::hours(age);
        let rules = [
            (Rule::WithinHourly, Policy { within_hourly: Some(age), ..within.clone() }),
            (Rule::WithinDaily, Policy { within_daily: Some(age), ..within.clone() }),
            (Rule::WithinWeekly, Policy { within_weekly: Some(age), ..within.clone() }),
            (Rule::WithinMonthly, Policy { within_monthly: Some(age), ..within.clone() }),
        ];
        for (rule, policy) in rules {
            if Policy::oldest(rule, age).never_longer(Age::hours(wide)) {
                let kept = kept_ids(&unhindered(&within, now), &sets);
                prop_assert_eq!(kept_ids(&unhindered(&policy, now), &sets), kept, "{:?}", rule);
            }
        }
    }

    /// Sets that came and went one by one leave what is left where all came first.
    #[test]
    fn seldom_or_often_makes_no_difference((sets, _) in good(25), policy in policy()) {
        let mut left: Vec<SetFacts> = Vec::new();
        let mut now = Timestamp::UNIX_EPOCH;
        for set in &sets {
            now = set.time;
            left.push(set.clone());
            let order = decide(&unhindered(&policy, now), &left).order;
            left.retain(|set| !order.contains(&set.id));
        }
        let often: BTreeSet<_> = left.into_iter().map(|set| set.id).collect();
        prop_assert_eq!(often, kept_ids(&unhindered(&policy, now), &sets));
    }
}
