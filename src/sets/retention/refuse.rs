//! When a prune removes nothing although something would go, and what somebody should look at.
//!
//! In: the request, and how many sets would go. Out: [`Refusal`]s and [`Warning`]s. Must never: refuse in
//! part: a history that is thinned halfway is one that nobody asked for.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::facts::{Hold, KeepUntil, Request, SetFacts, State};
use super::kept::CLOCKS;
use super::plan::Departure;
use super::reason::{Judged, Rule, minute};
use crate::ids::RunId;
use crate::path_encoding::printable;

/// Why nothing is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// The host's clock and EC2's differ, so one of them is wrong, and ages are not known.
    ClockSkew {
        /// EC2's.
        server: Timestamp,
        /// The host's.
        host: Timestamp,
    },
    /// No good set is newer than twice the time between two runs.
    Stale {
        /// The newest good set.
        newest: Timestamp,
        /// It should be newer than this.
        limit: Timestamp,
    },
    /// The group has no good set at all.
    NoGoodSet,
    /// More than half of the group would go.
    MoreThanHalf {
        /// So many would go.
        going: usize,
        /// Of so many.
        of: usize,
    },
    /// More would go than the plan allows.
    MaxDeletes {
        /// So many would go.
        going: usize,
        /// `max_deletes`.
        max: u32,
    },
    /// EC2 no longer has the group's instance, and nobody has named it.
    InstanceGone,
}

impl Refusal {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ClockSkew { .. } => "set the host's clock (chronyc tracking, timedatectl)",
            Self::Stale { .. } | Self::NoGoodSet => {
                "find out why there is no new set (stillpoint status); --stale goes on all the same"
            }
            Self::MoreThanHalf { .. } => {
                "look at the list; --yes removes them, and `max_deletes` in the plan's rules allows \
                 more for good"
            }
            Self::MaxDeletes { .. } => "look at the list; --yes removes them",
            Self::InstanceGone => "name the instance by its id (--instance i-…)",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockSkew { server, host } => write!(
                f,
                "the host's clock says {}, and EC2's {}: not removing by ages that are not known",
                minute(*host),
                minute(*server)
            ),
            Self::Stale { newest, limit } => write!(
                f,
                "stale: not thinning a history that has stopped growing (the newest good set is of {}, \
                 and should be newer than {})",
                minute(*newest),
                minute(*limit)
            ),
            Self::NoGoodSet => f.write_str("stale: not thinning a history without a good set"),
            Self::MoreThanHalf { going, of } => {
                write!(f, "{going} of {of} sets would go, more than half of the group")
            }
            Self::MaxDeletes { going, max } => write!(f, "{going} sets would go, and `max_deletes` is {max}"),
            Self::InstanceGone => f.write_str("the instance of these sets is gone, and was not named"),
        }
    }
}

/// What somebody should look at; it stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "warning", rename_all = "snake_case")]
pub enum Warning {
    /// The history has stopped growing; there was nothing to remove.
    Stale {
        /// The newest good set.
        newest: Timestamp,
        /// It should be newer than this.
        limit: Timestamp,
    },
    /// A set is of a time that has not come yet.
    Future {
        /// The set.
        id: RunId,
        /// Its time.
        time: Timestamp,
    },
    /// A removal that began cannot end, because something keeps what is left of the set.
    Torn {
        /// The set.
        id: RunId,
        /// What keeps it.
        kept_by: String,
    },
    /// A set's tag says neither a date nor `forever`.
    KeepUntil {
        /// The set.
        id: RunId,
        /// The tag's value.
        value: String,
    },
    /// Two sets have the same id.
    SameId {
        /// The id.
        id: RunId,
    },
    /// Locks end before the rules let the sets go: from then on somebody else may delete them.
    LockEndsFirst {
        /// How many sets.
        sets: usize,
        /// The one whose lock ends first.
        id: RunId,
        /// When its lock ends.
        until: Timestamp,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { newest, limit } => write!(
                f,
                "the newest good set is of {}, and should be newer than {}",
                minute(*newest),
                minute(*limit)
            ),
            Self::Future { id, time } => {
                write!(f, "set {id} is of {}, which has not come yet: kept, and not counted", minute(*time))
            }
            Self::Torn { id, kept_by } => {
                write!(f, "set {id} is removed in part, and what is left is kept: {}", printable(kept_by))
            }
            Self::KeepUntil { id, value } => write!(
                f,
                "set {id} is to be kept until `{}`, which is not a date: kept for good",
                printable(value)
            ),
            Self::SameId { id } => write!(f, "two sets have the id {id}: both are kept"),
            Self::LockEndsFirst { sets: 1, id, until } => {
                let until = minute(*until);
                write!(f, "the lock of {id} ends before the rules let it go: {until}")
            }
            Self::LockEndsFirst { sets, id, until } => write!(
                f,
                "the locks of {sets} sets end before the rules let them go, the first at {}: {id}",
                minute(*until)
            ),
        }
    }
}

/// When the newest good set should be newer, and is not.
fn stale(request: &Request<'_>, newest: Timestamp) -> Option<Timestamp> {
    let interval = SignedDuration::try_from(request.interval?).ok()?;
    let limit = request.now.server.saturating_sub(interval.saturating_mul(2)).ok()?;
    (newest <= limit).then_some(limit)
}

/// Why the `going` sets of a group of `all` may not go.
pub(super) fn refusals(
    request: &Request<'_>,
    newest: Option<Timestamp>,
    going: usize,
    all: usize,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let Some(policy) = request.policy.filter(|_| going > 0) else { return refusals };
    let options = request.options;
    let now = request.now;
    if now.server.duration_since(now.host).abs() > CLOCKS {
        refusals.push(Refusal::ClockSkew { server: now.server, host: now.host });
    }
    if request.instance_gone && !options.instance_named {
        refusals.push(Refusal::InstanceGone);
    }
    match newest {
        _ if options.stale => {}
        None => refusals.push(Refusal::NoGoodSet),
        Some(newest) => {
            refusals.extend(stale(request, newest).map(|limit| Refusal::Stale { newest, limit }));
        }
    }
    match policy.max_deletes {
        _ if options.yes => {}
        Some(max) if going > usize::try_from(max).unwrap_or(usize::MAX) => {
            refusals.push(Refusal::MaxDeletes { going, max });
        }
        None if going > all / 2 => refusals.push(Refusal::MoreThanHalf { going, of: all }),
        _ => {}
    }
    refusals
}

/// Warnings, while they are collected.
pub(super) struct Warnings {
    found: Vec<Warning>,
    locks: usize,
    first: Option<(Timestamp, RunId)>,
}

pub(super) fn warnings(
    request: &Request<'_>,
    sets: &[(&SetFacts, Judged)],
    newest: Option<Timestamp>,
    going: usize,
) -> Warnings {
    let mut found = Vec::new();
    if let Some(newest) = newest.filter(|_| going == 0 && request.policy.is_some()) {
        found.extend(stale(request, newest).map(|limit| Warning::Stale { newest, limit }));
    }
    let mut doubled = BTreeSet::new();
    for (set, judged) in sets {
        let kept_by = |rule: Rule| judged.keeps.iter().any(|reason| reason.rule == rule);
        let id = set.id.clone();
        if kept_by(Rule::OtherGroup) {
            continue;
        }
        if kept_by(Rule::SameId) && doubled.insert(&set.id) {
            found.push(Warning::SameId { id: id.clone() });
        }
        if kept_by(Rule::Future) {
            found.push(Warning::Future { id: id.clone(), time: set.time });
        }
        if let Some(KeepUntil::Unreadable(value)) = &set.keep_until {
            found.push(Warning::KeepUntil { id: id.clone(), value: value.clone() });
        }
        if let (State::Torn { .. }, false) = (&set.state, judged.keeps.is_empty()) {
            let kept_by = judged.keeps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            found.push(Warning::Torn { id, kept_by });
        }
    }
    Warnings { found, locks: 0, first: None }
}

impl Warnings {
    /// Notes a set whose lock ends before the rules let it go.
    pub(super) fn lock(
        &mut self,
        set: &SetFacts,
        departure: Option<&Departure>,
        without_holds: impl FnOnce() -> Option<Departure>,
    ) {
        let locked = |hold: &Hold| match hold {
            Hold::Locked { until, .. } => *until,
            _ => None,
        };
        let Some(until) = set.holds.iter().filter_map(locked).max().filter(|_| departure.is_some()) else {
            return;
        };
        let first = match without_holds() {
            Some(Departure::Expected { at, .. } | Departure::NotBefore { at, .. }) => until < at,
            Some(Departure::Never { .. }) => true,
            Some(Departure::Open { .. }) | None => false,
        };
        if first {
            self.locks += 1;
            if self.first.as_ref().is_none_or(|(earliest, _)| until < *earliest) {
                self.first = Some((until, set.id.clone()));
            }
        }
    }

    pub(super) fn all(self) -> Vec<Warning> {
        let Self { mut found, locks: sets, first } = self;
        found.extend(first.map(|(until, id)| Warning::LockEndsFirst { sets, id, until }));
        found
    }
}
