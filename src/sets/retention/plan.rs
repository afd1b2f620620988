//! The decision as a value: what a dry run prints and a prune carries out.
//!
//! In: nothing, [`super::decide`] makes it. Out: every set with its verdict and its reasons. Must never:
//! have a set in the order that a refusal holds back.

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Group, Now, Options, State};
use super::policy::Policy;
use super::reason::{Reason, Rule, with_text};
use super::refuse::{Refusal, Warning};
use crate::ids::RunId;

/// What is to become of every set of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunePlan {
    /// The group that was decided about.
    pub group: Group,
    /// Its rules, with the zone that its periods are of. None: nothing is removed.
    pub policy: Option<Policy>,
    /// The time that ages were counted from.
    pub now: Now,
    /// What was asked for.
    pub options: Options,
    /// The sets to remove, oldest first. Empty where there is a refusal.
    pub order: Vec<RunId>,
    /// Why nothing is removed although something would be.
    #[serde(serialize_with = "with_text")]
    pub refusals: Vec<Refusal>,
    /// What somebody should look at.
    #[serde(serialize_with = "with_text")]
    pub warnings: Vec<Warning>,
    /// Every set, oldest first.
    pub sets: Vec<Decision>,
}

/// What is to become of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The run that took it.
    pub id: RunId,
    /// Its time, which the rules go by.
    pub time: Timestamp,
    /// What is known of its members.
    #[serde(flatten)]
    pub state: State,
    /// Does it go?
    pub verdict: Verdict,
    /// Of a set that is kept, everything that keeps it. Of another one, why nothing does.
    #[serde(serialize_with = "with_text")]
    pub reasons: Vec<Reason>,
    /// Of a set that is kept, when it will go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
}

impl Decision {
    /// True when only something that holds it keeps it: no rule wants it any more.
    #[must_use]
    pub fn over_kept(&self) -> bool {
        self.verdict == Verdict::Keep && self.reasons.iter().all(|reason| reason.rule == Rule::Hold)
    }
}

/// Does a set go?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// It would go, but for a refusal.
    Withheld,
}

/// When a set that is kept will go, and which rule is the last to let it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "when", rename_all = "snake_case")]
pub enum Departure {
    /// With the first prune from then on, if the plan's runs go on as they are planned and each makes a
    /// good set.
    Expected {
        /// From then on.
        at: Timestamp,
        /// The last rule that keeps it.
        rule: Rule,
    },
    /// With no prune before then. How far apart the plan's runs are is not known.
    NotBefore {
        /// Until then at least it stays.
        at: Timestamp,
        /// The rule that keeps it so long at least.
        rule: Rule,
    },
    /// It depends on something outside of the rules, which no time is known of.
    Open {
        /// What that is.
        rule: Rule,
    },
    /// It stays for good.
    Never {
        /// The rule that keeps it.
        rule: Rule,
    },
}
