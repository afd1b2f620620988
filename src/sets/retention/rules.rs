//! Counted sets → what each rule keeps, and what it lets go.
//!
//! In: good sets, oldest first. Out: for each, every rule's reason. Must never: let one rule depend on what
//! another one keeps: then a rule more could remove a set more.
//!
//! Each rule looks at all counted sets by itself. A rule of periods takes one set of each period, and keeps
//! those of the newest periods *that have one*: a gap uses up nothing. Which set of a period it is does not
//! depend on the time now. So a prune a day leaves what one prune at the end would leave.

use std::collections::BTreeMap;

use super::facts::{Request, SetFacts};
use super::period::Key;
use super::policy::{Count, Limit, OfPeriod, PeriodRule, Policy};
use super::reason::{Judged, Reason, Rule};

/// What the rules say about each of `sets`, which are oldest first.
pub(super) fn judge(request: &Request<'_>, sets: &[&SetFacts]) -> Vec<Judged> {
    let mut judged = vec![Judged::default(); sets.len()];
    let Some(policy) = request.policy else { return judged };
    // Everything was asked for: floors alone count.
    if !request.options.all {
        for rule in policy.period_rules() {
            periods(&rule, policy, request, sets, &mut judged);
        }
        if policy.keeps_all() {
            for (nth, judged) in (1..).zip(judged.iter_mut().rev()) {
                let of = Some(Count::All);
                judged.keeps.push(Reason { nth: Some(nth), of, ..Reason::of(Rule::Last) });
            }
        }
        if let Some(age) = policy.within {
            for (set, judged) in sets.iter().zip(&mut judged) {
                let until = age.after(set.time);
                let reason = Reason::of(Rule::Within).until(until);
                if until > request.now.server {
                    judged.keeps.push(reason)
                } else {
                    judged.lets_go.push(reason)
                }
            }
        }
    }
    if let Some(count) = policy.verified.filter(|_| !request.options.all) {
        let proven = sets.iter().zip(&mut judged).rev().filter(|(set, _)| set.proven);
        for (nth, (_, judged)) in (1..).zip(proven) {
            let reason = Reason { nth: Some(nth), of: Some(count), ..Reason::of(Rule::Verified) };
            if count.keeps(nth) { judged.keeps.push(reason) } else { judged.lets_go.push(reason) }
        }
    }
    if let Some(count) = policy.at_least.filter(|_| !request.options.including_the_last) {
        for (nth, judged) in (1..).zip(judged.iter_mut().rev()) {
            let reason = Reason { nth: Some(nth), of: Some(Count::Of(count)), ..Reason::of(Rule::AtLeast) };
            if nth <= count { judged.keeps.push(reason) } else { judged.lets_go.push(reason) }
        }
    }
    judged
}

/// A period that has sets: the one that stands for it, and how many periods from the newest it is.
struct Period {
    chosen: usize,
    nth: u32,
}

fn periods(
    rule: &PeriodRule,
    policy: &Policy,
    request: &Request<'_>,
    sets: &[&SetFacts],
    judged: &mut [Judged],
) {
    let zone = &policy.timezone;
    let keys: Vec<Key> = sets.iter().map(|set| rule.unit.key(set.time, zone)).collect();
    let mut periods: BTreeMap<Key, Period> = BTreeMap::new();
    for (i, key) in keys.iter().enumerate() {
        let period = periods.entry(*key).or_insert(Period { chosen: i, nth: 0 });
        if policy.of_period == OfPeriod::Newest {
            period.chosen = i;
        }
    }
    for (nth, period) in (1..).zip(periods.values_mut().rev()) {
        period.nth = nth;
    }
    for (i, key) in keys.iter().enumerate() {
        let Period { chosen, nth } = periods[key];
        let set = sets[i];
        let (of, until) = match rule.limit {
            Limit::Periods(count) => (Some(count), None),
            // The whole period is of one age. If each of its sets had its own, the next one would take the
            // place of a first one that became too old.
            Limit::Younger(age) => (None, Some(age.after(rule.unit.end(set.time, zone)))),
        };
        let kept = of.is_none_or(|count| count.keeps(nth)) && until.is_none_or(|t| t > request.now.server);
        let period = Some(rule.unit.name(set.time, zone));
        let reason = Reason { nth: Some(nth), of, period, until, ..Reason::of(rule.rule) };
        if chosen != i {
            let by = Some(sets[chosen].id.clone());
            judged[i].lets_go.push(Reason { by, until: None, ..reason });
        } else if kept {
            judged[i].keeps.push(reason);
        } else {
            judged[i].lets_go.push(reason);
        }
    }
}
