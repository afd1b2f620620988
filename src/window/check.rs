//! A question that is asked once everything is thawed, and what it may find.
//!
//! In: nothing. Out: [`Check`], [`Finding`]. Must never: count as passed while it has not answered.

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Why the set is not proven to be consistent.
    Doubt(String),
    /// A device whose counter is no witness, and why: what it would have witnessed has a proof of its own.
    Unwitnessed(String),
}

/// One question.
pub(super) struct Check {
    /// What is found when it does not answer in time.
    pub unanswered: Finding,
    /// Asks; what is found, if it is anything.
    pub ask: Box<dyn FnOnce() -> Option<Finding> + Send>,
}
