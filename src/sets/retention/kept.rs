//! What is kept whatever the rules say, and what becomes of sets that are not good.
//!
//! In: one set, where it stands, and what the rules say about it. Out: all its reasons. Must never: have a
//! way past a hold.

use jiff::{SignedDuration, Timestamp};

use super::facts::{Request, SetFacts, State};
use super::reason::{Judged, Reason, Rule};

/// A set may be so far ahead of EC2's clock: two of its own clocks may differ.
pub(super) const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// Where a set stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not of this group, or not to be told from another set.
    Foreign,
    /// Of this group, at a time that has not come yet.
    Future,
    /// Of this group, and not good.
    NotGood,
    /// Good: the rules are about it.
    Counted,
}

impl Place {
    pub(super) fn of(request: &Request<'_>, set: &SetFacts, doubled: bool) -> Self {
        let latest = request.now.server.saturating_add(CLOCKS).unwrap_or(Timestamp::MAX);
        if doubled || *set.group != *request.group {
            Self::Foreign
        } else if set.time > latest {
            Self::Future
        } else if set.state == State::Good {
            Self::Counted
        } else {
            Self::NotGood
        }
    }
}

/// What may not go with the last of a group.
pub(super) struct Last<'a> {
    /// The newest good set; of a group without one, the set that is worth most.
    set: Option<&'a SetFacts>,
    /// When the newest good set was taken.
    good: Option<Timestamp>,
}

impl<'a> Last<'a> {
    /// `sets` are oldest first.
    pub(super) fn of(sets: &[&'a SetFacts], places: &[Place]) -> Self {
        let own = sets.iter().zip(places).filter(|(_, p)| matches!(p, Place::Counted | Place::NotGood));
        // The last of several that are worth as much is the newest.
        let set = own.map(|(set, _)| *set).max_by_key(|set| set.state.worth());
        let good = set.filter(|set| set.state == State::Good).map(|set| set.time);
        Self { set, good }
    }
}

pub(super) fn judge(
    request: &Request<'_>,
    set: &SetFacts,
    place: Place,
    last: &Last<'_>,
    rules: Judged,
) -> Judged {
    let Judged { mut keeps, mut lets_go } = rules;
    let now = request.now.server;
    match place {
        Place::Foreign if *set.group == *request.group => keeps.push(Reason::of(Rule::SameId)),
        Place::Foreign => keeps.push(Reason::of(Rule::OtherGroup).words(set.group.to_string())),
        Place::Future => {
            keeps.push(
                Reason::of(Rule::Future).words(format!("its time is {}", super::reason::minute(set.time))),
            );
        }
        Place::NotGood => not_good(request, set, last, &mut keeps, &mut lets_go),
        Place::Counted => {}
    }
    let Some(policy) = request.policy else {
        keeps.push(Reason::of(Rule::NoRules));
        return Judged { keeps, lets_go };
    };
    if let Some(until) = policy.min_age.map(|age| age.after(set.time)).filter(|until| *until > now) {
        keeps.push(Reason::of(Rule::MinAge).until(until));
    }
    if last.set.is_some_and(|last| std::ptr::eq(last, set)) && !request.options.including_the_last {
        let words = if last.good.is_some() { None } else { Some(format!("of the group: {}", set.state)) };
        keeps.push(Reason { words, ..Reason::of(Rule::LastGood) });
    }
    if let Some(tag) = &set.keep_until {
        let reason = Reason::keep_until(tag);
        if reason.until.is_none_or(|until| until > now) {
            keeps.push(reason);
        }
    }
    let holding = set.holds.iter().filter(|hold| hold.holds(Some(policy), now));
    keeps.extend(holding.map(Reason::hold));
    if keeps.is_empty() && request.options.all {
        lets_go.push(Reason::of(Rule::All));
    }
    let along = set.holds.iter().filter(|hold| hold.goes_along());
    lets_go.extend(
        along.map(|hold| Reason::of(Rule::Image).words(format!("{hold}, and is deregistered first"))),
    );
    Judged { keeps, lets_go }
}

/// A set that is not good counts for nothing. It stays for some days, so that somebody can look at it.
fn not_good(
    request: &Request<'_>,
    set: &SetFacts,
    last: &Last<'_>,
    keeps: &mut Vec<Reason>,
    lets_go: &mut Vec<Reason>,
) {
    let Some(policy) = request.policy else { return };
    let all = request.options.all;
    match &set.state {
        // Nobody knows what it will be.
        State::Good | State::Pending => keeps.push(Reason::of(Rule::Pending)),
        State::Torn { .. } => lets_go.push(Reason::state(Rule::Torn, &set.state)),
        State::BelowRequired { .. } | State::Failed { .. } | State::Partial { .. } => {
            let until = policy.failed.after(set.time);
            let reason = Reason::state(Rule::Failed, &set.state).until(until);
            if until > request.now.server && !all {
                keeps.push(reason)
            } else {
                lets_go.push(reason)
            }
            let newest = last.good.is_none_or(|good| set.time > good);
            if matches!(set.state, State::BelowRequired { .. }) && newest && !all {
                keeps.push(Reason::state(Rule::NewestDegraded, &set.state));
            }
        }
    }
}
