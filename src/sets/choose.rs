//! Which set is verified, where nobody names one: the newest, or one by chance.
//!
//! ```text
//! sets ─▶ those that can be read, within the time ─┬▶ latest: the newest
//!                                                  └▶ random: of those that nobody has looked at so far, else of all
//! ```
//!
//! In: sets, what is wanted, a die. Out: [`Chosen`], with why. Pure. Must never: choose a set that cannot be read, or
//! leave one out for good that nobody has looked at.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::guard::unclear;
use super::ledger::Level;
use super::retention::Age;
use super::set::{SetState, SnapshotSet};

/// How a set is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The newest one.
    Latest,
    /// One by chance.
    Random,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish<'a> {
    /// How to choose.
    pub how: How,
    /// How far the set is going to be looked at.
    pub level: Level,
    /// Only sets of this plan.
    pub plan: Option<&'a str>,
    /// Only sets that are younger.
    pub within: Option<Age>,
}

/// The set that was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// How it was chosen.
    pub how: How,
    /// Sets that could have been.
    pub of: usize,
    /// Of a choice by chance: those among them that nobody had looked at so far. The choice was among these, unless
    /// there was none.
    pub unseen: Option<usize>,
    /// Which of the sets.
    #[serde(skip)]
    pub index: usize,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.of;
        match (self.how, self.unseen) {
            (How::Latest, _) => write!(f, "the newest of {of}"),
            (How::Random, None | Some(0)) => write!(f, "by chance, of {of} that were all looked at before"),
            (How::Random, Some(unseen)) => {
                write!(f, "by chance, of the {unseen} that were not looked at so far, among {of}")
            }
        }
    }
}

/// Chooses. None where no set can be. `die` gives a number below the one that it gets.
pub fn choose(
    sets: &[SnapshotSet],
    wish: &Wish<'_>,
    now: Timestamp,
    die: impl FnOnce(usize) -> usize,
) -> Option<Chosen> {
    let could: Vec<usize> = (0..sets.len()).filter(|n| can_be(&sets[*n], wish, now)).collect();
    let of = could.len();
    if wish.how == How::Latest {
        let index = could.into_iter().max_by_key(|n| (sets[*n].time, &sets[*n].id))?;
        return Some(Chosen { how: How::Latest, of, unseen: None, index });
    }
    let seen = |set: &SnapshotSet| {
        set.verified.as_ref().is_some_and(|v| v.level.covers(wish.level)) || set.fault().is_some()
    };
    let unseen: Vec<usize> = could.iter().copied().filter(|n| !seen(&sets[*n])).collect();
    let among = if unseen.is_empty() { &could } else { &unseen };
    let index = *among.get(die(among.len().max(1)))?;
    Some(Chosen { how: How::Random, of, unseen: Some(unseen.len()), index })
}

fn can_be(set: &SnapshotSet, wish: &Wish<'_>, now: Timestamp) -> bool {
    let young = |age: Age| set.time.is_some_and(|time| age.after(time) > now);
    let archived = set.members.iter().any(|m| m.tier == "archive" && m.restored_until.is_none());
    set.state() == SetState::Completed
        // Without a label its run is not over, or it died: that is told elsewhere.
        && set.achieved.is_some()
        && !archived
        && unclear(set).is_none()
        && wish.plan.is_none_or(|plan| set.plan == plan)
        && wish.within.is_none_or(young)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::ledger::{By, FaultFound, Verified};
    use crate::sets::set::tests_support::set;

    fn at(day: i8) -> Timestamp {
        format!("2027-01-{day:02}T03:00:00Z").parse().unwrap()
    }

    fn of(day: i8) -> SnapshotSet {
        SnapshotSet { time: Some(at(day)), ..set(1) }
    }

    fn verified(day: i8, level: Level) -> SnapshotSet {
        let verified = Verified { level, at: at(day), by: By::of(None), sound: 1, filesystems: 1 };
        SnapshotSet { verified: Some(verified), ..of(day) }
    }

    const WISH: Wish<'_> = Wish { how: How::Random, level: Level::Probe, plan: None, within: None };

    fn chosen(sets: &[SnapshotSet], wish: &Wish<'_>, die: usize) -> Option<(usize, usize, Option<usize>)> {
        choose(sets, wish, at(31), |n| die % n).map(|c| (c.index, c.of, c.unseen))
    }

    #[test]
    fn what_nobody_has_looked_at_comes_first_and_then_all_do() {
        let fault = FaultFound { level: Level::Probe, at: at(9), by: By::of(None), what: String::new() };
        let faulty = SnapshotSet { verify_fault: Some(fault), ..of(4) };
        let sets = [verified(1, Level::Probe), of(2), verified(3, Level::Arithmetic), faulty];
        let all: Vec<_> = (0..4).map(|die| chosen(&sets, &WISH, die).unwrap().0).collect();
        assert_eq!(all, [1, 2, 1, 2], "neither the one that is known, nor the one that is known to be bad");
        assert_eq!(chosen(&sets, &WISH, 0), Some((1, 4, Some(2))));
        let deeper = Wish { level: Level::Whole, ..WISH };
        assert_eq!(chosen(&sets, &deeper, 0), Some((0, 4, Some(3))), "a probe is no whole read");
        let known = [verified(1, Level::Whole), verified(2, Level::Probe)];
        assert_eq!(chosen(&known, &WISH, 1), Some((1, 2, Some(0))));
        let text = |wish: &Wish<'_>| choose(&sets, wish, at(31), |_| 0).unwrap().to_string();
        assert_eq!(text(&WISH), "by chance, of the 2 that were not looked at so far, among 4");
        assert_eq!(text(&Wish { how: How::Latest, ..WISH }), "the newest of 4");
    }

    #[test]
    fn only_what_can_be_read_is_chosen_of_this_plan_and_this_time() {
        type Change = fn(&mut SnapshotSet);
        let none: [(&str, Change); 7] = [
            ("pending", |s| s.members[0].state = "pending".into()),
            ("partial", |s| {
                s.missing.push(crate::sets::set::Missing {
                    number: 1,
                    volume_id: "vol-0123456789abcdef0".parse().unwrap(),
                });
            }),
            ("archived", |s| s.members[0].tier = "archive"),
            ("being removed", |s| s.deleting = true),
            ("doubtful", |s| s.doubts.push("two claim one place".into())),
            ("of another plan", |s| s.plan = "other".into()),
            ("without a label", |s| s.achieved = None),
        ];
        let wish = Wish { plan: Some("default"), within: Some(Age::days(14)), ..WISH };
        for (name, change) in none {
            let mut one = of(30);
            change(&mut one);
            assert_eq!(chosen(&[one], &wish, 0), None, "{name}");
        }
        let sets = [of(1), of(18), of(29), of(20)];
        assert_eq!(chosen(&sets, &Wish { how: How::Latest, ..wish }, 0), Some((2, 3, None)));
        assert_eq!(chosen(&sets, &wish, 0), Some((1, 3, Some(3))), "the first is too old");
        assert_eq!(chosen(&[], &wish, 0), None);
    }
}
