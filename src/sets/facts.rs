//! A set as retention sees it.
//!
//! In: a [`SnapshotSet`], its holds. Out: [`SetFacts`]. Pure. Must never: call a set good that lacks a member, a
//! completion or a label.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::retention::{Group, Hold, KeepUntil, SetFacts, State, Zone};
use super::set::{SetState, SnapshotSet};
use crate::consistency::Consistency;

/// So many of the newest gaps tell how far apart runs are.
const GAPS: usize = 14;
/// Closer together, runs are not on a schedule.
const LEAST: Duration = Duration::from_secs(1800);

/// The group of a set, by its own tags.
#[must_use]
pub fn group(set: &SnapshotSet) -> Group {
    Group {
        account: set.account.clone().unwrap_or_default(),
        region: set.region.clone(),
        host: set.instance.to_string(),
        plan: set.plan.clone(),
        copies: set.copy_of.is_some(),
    }
}

/// What retention has to know. `zone` is that of the plan's rules, in which a day of `keep-until` is meant.
#[must_use]
pub fn facts(set: &SnapshotSet, group: &Arc<Group>, holds: Vec<Hold>, zone: &Zone) -> SetFacts {
    SetFacts {
        id: set.id.clone(),
        group: Arc::clone(group),
        // Without a time it has a doubt, which is a hold.
        time: set.time.unwrap_or(Timestamp::UNIX_EPOCH),
        state: state(set),
        holds,
        keep_until: set.keep_until.as_deref().map(|text| KeepUntil::from_tag(text, zone)),
        proven: set.proven(),
    }
}

/// How far apart the runs of this group are, by its own history: the middle one of the times between its newest good
/// sets. None where there are fewer than three of them, or they were taken within half an hour of each other, as by
/// hand: that is no schedule.
#[must_use]
pub fn interval(sets: &[SetFacts]) -> Option<Duration> {
    let mut good: Vec<Timestamp> = sets.iter().filter(|s| s.state == State::Good).map(|s| s.time).collect();
    good.sort_unstable_by(|a, b| b.cmp(a));
    let mut gaps: Vec<Duration> = good
        .windows(2)
        .take(GAPS)
        .filter_map(|two| Duration::try_from(two[0].duration_since(two[1])).ok())
        .collect();
    if gaps.len() < 2 {
        return None;
    }
    gaps.sort_unstable();
    Some(gaps[gaps.len() / 2]).filter(|gap| *gap >= LEAST)
}

fn state(set: &SnapshotSet) -> State {
    let missing = || {
        let names: Vec<_> = set.missing.iter().map(|m| m.volume_id.to_string()).collect();
        format!("no snapshot of {}", names.join(", "))
    };
    match set.state() {
        SetState::Error => {
            let failed = set.members.iter().filter(|m| m.state == "error");
            let why = failed.map(|m| format!("{}: {}", m.id, m.error.as_deref().unwrap_or("error")));
            State::Failed { why: why.collect::<Vec<_>>().join("; ") }
        }
        SetState::Torn => State::Torn { why: missing() },
        SetState::Partial => State::Partial { why: missing() },
        SetState::Pending => State::Pending,
        SetState::Completed if set.achieved.is_none() => {
            State::Failed { why: "its run died before its verdict".to_owned() }
        }
        SetState::Completed => {
            let (achieved, required) = (set.label(), set.requested.unwrap_or(Consistency::Crash));
            if achieved < required { State::BelowRequired { achieved, required } } else { State::Good }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RunId;

    #[test]
    fn the_history_tells_how_far_apart_runs_are() {
        let of = |minutes: &[i64]| {
            let group = Arc::new(Group {
                account: String::new(),
                region: String::new(),
                host: String::new(),
                plan: String::new(),
                copies: false,
            });
            let at = |m: &i64| Timestamp::from_second(1_800_000_000 - m * 60).unwrap();
            let set = |m: &i64| SetFacts {
                id: RunId::generate(),
                group: Arc::clone(&group),
                time: at(m),
                state: State::Good,
                holds: Vec::new(),
                keep_until: None,
                proven: false,
            };
            let mut sets: Vec<_> = minutes.iter().map(set).collect();
            sets.push(SetFacts { state: State::Pending, time: at(&-1), ..set(&0) });
            interval(&sets).map(|d| d.as_secs() / 60)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0, 1440]), None);
        assert_eq!(of(&[0, 1440, 2880]), Some(1440));
        assert_eq!(of(&[2880, 0, 1440, 1450]), Some(1430), "one by hand in between");
        assert_eq!(of(&[0, 60, 120, 180, 10_000]), Some(60), "a holiday");
        assert_eq!(of(&[0, 5, 10, 15]), None, "by hand");
    }
}
