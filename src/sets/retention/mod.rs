//! Which sets of a group are kept, which go, and why: one pure decision that a dry run prints and a prune
//! carries out.
//!
//! ```text
//! policy     the rules of a plan, or of its copies                     policy.rs, age.rs, zone.rs
//! facts      the sets of one group, the clocks, what was asked for     facts.rs
//! period     an instant → the hour, day, week, … that it belongs to    period.rs
//! rules      counted sets → what each rule keeps and lets go           rules.rs
//! decide     rules + what is kept whatever the rules say → PrunePlan   this file, kept.rs, refuse.rs
//! forecast   kept sets → when each goes, and by which rule             forecast.rs
//! plan       PrunePlan: every set with its reasons                     plan.rs, reason.rs
//! ```
//!
//! In: a [`Request`] and the sets of one group, in any order. Out: a [`PrunePlan`]; the same facts give the
//! same plan. Must never: look at a clock, at EC2 or at the host; let a set go that something holds, or
//! that is not of the group; let the last good set of a group go unless that was asked for by name.

use std::collections::BTreeMap;

use crate::ids::RunId;

mod age;
mod facts;
mod forecast;
mod kept;
mod period;
mod plan;
mod policy;
mod reason;
mod refuse;
mod rules;
#[cfg(test)]
mod tests;
mod zone;

pub use age::{Age, InvalidAge};
pub use facts::{Group, Hold, KeepUntil, Now, Options, Request, SetFacts, State};
pub use plan::{Decision, Departure, PrunePlan, Verdict};
pub use policy::{Count, OfPeriod, Policy};
pub use reason::{Reason, Rule};
pub use refuse::{Refusal, Warning};
pub use zone::{UnknownZone, Zone};

use reason::Judged;

/// Decides about every set of `sets`.
///
/// The sets need not be of one group: those that are not of `request.group` are kept, and do not count. It
/// takes `n log n` steps for `n` sets.
#[must_use]
pub fn decide(request: &Request<'_>, sets: &[SetFacts]) -> PrunePlan {
    // Rules that keep nothing are no rules: no configuration has them.
    let policy = request.policy.filter(|policy| policy.keeps_something());
    let request = &Request { policy, ..*request };
    let mut sorted: Vec<&SetFacts> = sets.iter().collect();
    sorted.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let ids = doubled(&sorted);
    let place = |set: &SetFacts| kept::Place::of(request, set, ids.get(&set.id).is_some_and(|n| *n > 1));
    let places: Vec<_> = sorted.iter().map(|set| place(set)).collect();

    let counted: Vec<&SetFacts> =
        sorted.iter().zip(&places).filter(|(_, p)| **p == kept::Place::Counted).map(|(s, _)| *s).collect();
    let mut by_rule = rules::judge(request, &counted).into_iter();
    let group = kept::Last::of(&sorted, &places);
    let decided = sorted.iter().zip(&places).map(|(set, place)| {
        let rules = match place {
            kept::Place::Counted => by_rule.next().unwrap_or_default(),
            _ => Judged::default(),
        };
        (*set, kept::judge(request, set, *place, &group, rules))
    });
    let decided: Vec<(&SetFacts, Judged)> = decided.collect();

    let going = decided.iter().filter(|(_, judged)| judged.keeps.is_empty()).count();
    let newest = counted.last().map(|set| set.time);
    let of_group = places.iter().filter(|p| **p != kept::Place::Foreign).count();
    let refusals = refuse::refusals(request, newest, going, of_group);
    let mut forecast = forecast::Forecast::new(request, newest);
    let mut warnings = refuse::warnings(request, &decided, newest, going);
    let mut decisions = Vec::with_capacity(decided.len());
    for (set, judged) in decided {
        let verdict = match (judged.keeps.is_empty(), refusals.is_empty()) {
            (false, _) => Verdict::Keep,
            (true, true) => Verdict::Remove,
            (true, false) => Verdict::Withheld,
        };
        let departure = (verdict == Verdict::Keep).then(|| forecast.of(set, &judged.keeps));
        warnings.lock(set, departure.as_ref(), || forecast.without_holds(set, &judged.keeps));
        let reasons = if verdict == Verdict::Keep { judged.keeps } else { judged.lets_go };
        let (id, time, state) = (set.id.clone(), set.time, set.state.clone());
        decisions.push(Decision { id, time, state, verdict, reasons, departure });
    }
    let order = decisions.iter().filter(|d| d.verdict == Verdict::Remove).map(|d| d.id.clone()).collect();
    PrunePlan {
        group: request.group.clone(),
        policy: request.policy.cloned(),
        now: request.now,
        options: request.options,
        order,
        refusals,
        warnings: warnings.all(),
        sets: decisions,
    }
}

/// How often each id occurs. A copy that was made twice has the id of its source twice, and nobody could tell
/// which of the two is meant by it.
fn doubled<'a>(sets: &[&'a SetFacts]) -> BTreeMap<&'a RunId, usize> {
    let mut ids = BTreeMap::new();
    for set in sets {
        *ids.entry(&set.id).or_default() += 1;
    }
    ids
}
