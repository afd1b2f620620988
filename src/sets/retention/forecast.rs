//! When a set that is kept will go, and which rule is the last to let it go.
//!
//! In: what keeps a set. Out: a [`Departure`]. Must never: give a time before which it could go.
//!
//! The plan's runs are taken to go on as they are planned, and each to make a good set. What a rule keeps
//! by its age goes when that is reached. What a rule keeps by a count goes when enough newer periods have a
//! set, and those begin when the calendar and the runs say. No rule takes up again what it has let go: so a
//! set goes when the last of those lets go that keep it now. Where it is not known how far apart the runs
//! are, they are taken to be as close as can be, which no set goes before.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::facts::{Request, SetFacts};
use super::period::Unit;
use super::plan::Departure;
use super::policy::{Count, OfPeriod, PeriodRule, Policy};
use super::reason::{Reason, Rule};

pub(super) struct Forecast<'a> {
    policy: Option<&'a Policy>,
    rules: Vec<PeriodRule>,
    now: Timestamp,
    /// Runs are at `base` and every `step` from there.
    base: Timestamp,
    step: Option<SignedDuration>,
    /// For each rule of periods, the first runs of the periods to come.
    to_come: HashMap<Rule, Vec<Timestamp>>,
}

/// When one reason ends.
enum End {
    /// At this time, whatever else happens.
    At(Timestamp),
    /// When runs make new sets; at this time if they go on.
    Runs(Timestamp),
    Open,
    Never,
}

impl<'a> Forecast<'a> {
    pub(super) fn new(request: &Request<'a>, newest: Option<Timestamp>) -> Self {
        let step = request.interval.and_then(|step| SignedDuration::try_from(step).ok());
        Self {
            policy: request.policy,
            rules: request.policy.map(Policy::period_rules).unwrap_or_default(),
            now: request.now.server,
            base: newest.unwrap_or(request.now.server),
            step: step.filter(|step| step.is_positive()),
            to_come: HashMap::new(),
        }
    }

    /// When the set goes that is kept for these reasons.
    pub(super) fn of(&mut self, set: &SetFacts, keeps: &[Reason]) -> Departure {
        self.among(set, keeps.iter()).unwrap_or(Departure::Open { rule: Rule::Hold })
    }

    /// When it would go if nothing held it. None where nothing else keeps it.
    pub(super) fn without_holds(&mut self, set: &SetFacts, keeps: &[Reason]) -> Option<Departure> {
        self.among(set, keeps.iter().filter(|reason| reason.rule != Rule::Hold))
    }

    fn among<'r>(&mut self, set: &SetFacts, keeps: impl Iterator<Item = &'r Reason>) -> Option<Departure> {
        let mut latest: Option<(Timestamp, Rule)> = None;
        let (mut open, mut never, mut by_runs) = (None, None, false);
        for reason in keeps {
            let at = match self.end(set, reason) {
                End::At(at) => at,
                End::Runs(at) => {
                    by_runs = true;
                    at
                }
                End::Open => {
                    open = open.or(Some(reason.rule));
                    continue;
                }
                End::Never => {
                    never = never.or(Some(reason.rule));
                    continue;
                }
            };
            if latest.is_none_or(|(latest, _)| at > latest) {
                latest = Some((at, reason.rule));
            }
        }
        match (never, open, latest) {
            (Some(rule), _, _) => Some(Departure::Never { rule }),
            (None, Some(rule), _) => Some(Departure::Open { rule }),
            (None, None, Some((at, rule))) if by_runs && self.step.is_none() => {
                Some(Departure::NotBefore { at, rule })
            }
            (None, None, Some((at, rule))) => Some(Departure::Expected { at, rule }),
            (None, None, None) => None,
        }
    }

    fn end(&mut self, set: &SetFacts, reason: &Reason) -> End {
        let Some(policy) = self.policy else { return End::Never };
        match (reason.rule, reason.until) {
            (Rule::OtherGroup | Rule::NoRules, _) => End::Never,
            (Rule::Last | Rule::Verified, _) if reason.of == Some(Count::All) => End::Never,
            // Who verifies, and when, no rule knows.
            (Rule::Verified, _) => End::Open,
            (Rule::Hold | Rule::Future | Rule::SameId | Rule::Pending, None) => End::Open,
            (Rule::KeepUntil, None) => End::Never,
            (Rule::LastGood | Rule::NewestDegraded, _) => End::Runs(self.run_from(self.now)),
            (Rule::AtLeast, _) => {
                let newer = self.missing(reason);
                let first = self.run_from(self.now);
                let step = self.step.unwrap_or(SignedDuration::ZERO);
                let more = i32::try_from(newer.saturating_sub(1)).unwrap_or(i32::MAX);
                End::Runs(
                    step.checked_mul(more).and_then(|d| first.checked_add(d).ok()).unwrap_or(Timestamp::MAX),
                )
            }
            (rule, until) => match self.rules.iter().find(|period| period.rule == rule).map(|p| p.unit) {
                Some(unit) => self.end_of_period(policy, unit, set, reason),
                None => until.map_or(End::Open, End::At),
            },
        }
    }

    /// How many newer sets or periods it takes until a count is used up.
    fn missing(&self, reason: &Reason) -> u32 {
        match (reason.of, reason.nth) {
            (Some(Count::Of(of)), Some(nth)) => of.saturating_sub(nth) + 1,
            _ => 1,
        }
    }

    /// When a rule lets go the set that it has chosen for its period.
    fn end_of_period(&mut self, policy: &Policy, unit: Unit, set: &SetFacts, reason: &Reason) -> End {
        let zone = &policy.timezone;
        let next = self.run_from(self.now);
        // The next set takes the place of this one, in the same period.
        let replaced = policy.of_period == OfPeriod::Newest
            && reason.nth == Some(1)
            && unit.key(next, zone) == unit.key(set.time, zone);
        match (reason.until, reason.of) {
            (Some(until), _) if replaced && next < until => End::Runs(next),
            (Some(until), _) => End::At(until),
            (None, _) if replaced => End::Runs(next),
            (None, Some(Count::Of(_))) => End::Runs(self.period_to_come(policy, unit, reason)),
            (None, _) => End::Never,
        }
    }

    /// The first run of the period with which the count is used up.
    fn period_to_come(&mut self, policy: &Policy, unit: Unit, reason: &Reason) -> Timestamp {
        let zone = &policy.timezone;
        let missing = usize::try_from(self.missing(reason)).unwrap_or(usize::MAX);
        let mut to_come = self.to_come.remove(&reason.rule).unwrap_or_default();
        while to_come.len() < missing {
            // From a run to the first one of another period.
            let at = match to_come.last() {
                Some(last) => self.run_from(unit.end(*last, zone)),
                None => {
                    let next = self.run_from(self.now);
                    let same = unit.key(next, zone) == unit.key(self.base, zone);
                    if same { self.run_from(unit.end(next, zone)) } else { next }
                }
            };
            to_come.push(at);
            if at == Timestamp::MAX {
                break;
            }
        }
        let at = to_come.get(missing - 1).or(to_come.last()).copied().unwrap_or(Timestamp::MAX);
        self.to_come.insert(reason.rule, to_come);
        at
    }

    /// The first run at or after `time`, and after now.
    fn run_from(&self, time: Timestamp) -> Timestamp {
        let Some(step) = self.step else { return time.max(self.now) };
        let gone = time.max(self.now).duration_since(self.base).as_nanos();
        let step = step.as_nanos();
        let mut runs = gone.div_euclid(step) + i128::from(gone.rem_euclid(step) > 0);
        if runs * step <= self.now.duration_since(self.base).as_nanos() {
            runs += 1;
        }
        i64::try_from(runs * step / 1_000_000_000)
            .ok()
            .zip(i32::try_from(runs * step % 1_000_000_000).ok())
            .and_then(|(seconds, nanos)| self.base.checked_add(SignedDuration::new(seconds, nanos)).ok())
            .unwrap_or(Timestamp::MAX)
    }
}
