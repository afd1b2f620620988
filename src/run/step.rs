//! The steps of a run, by name.
//!
//! In: the run, which reports each step when it reaches it. Out: calls of [`Steps`], which in production
//! write a debug line, and in tests make the step fail. Must never: log, allocate or block at a step where
//! filesystems are frozen.

use std::fmt;

/// A step, reported just before it is done unless its line says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Checks on this host: hooks, journal, tags.
    Preflight,
    /// The permission check by DryRun.
    Permission,
    /// EC2 is asked for snapshots that are pending or have just begun.
    Pending,
    /// Is there a scrub, a balance or the like that FIFREEZE would wait for?
    Busy,
    /// The journal's first line.
    JournalStart,
    /// A pre hook goes into the journal; once a hook.
    Attempt,
    /// A pre hook starts, and its post command is owed from here on; once a hook.
    PreHook,
    /// Filesystems are opened and flushed, the watchdog is started.
    Prepare,
    /// The watchdog has reported that it is ready.
    Guarded,
    /// Connections are warmed.
    Warm,
    /// The check whether the host has changed since it was planned.
    Unchanged,
    /// The same as [`Step::Busy`], once more.
    BusyAgain,
    /// The journal says what may be frozen from here on.
    JournalWindow,
    /// The deadline starts, then the first FIFREEZE.
    Freezing,
    /// Everything is frozen.
    Frozen,
    /// The create call is sent, or whatever the goal has in its place.
    Request,
    /// The answer was read, or nobody waits for it any more.
    Answered,
    /// Everything is thawed; this is written to the journal.
    Thawed,
    /// EC2 is asked which snapshots a request without an answer has made.
    LookUp,
    /// The ids of the snapshots are written to the journal.
    Made,
    /// A post hook starts; once a hook.
    PostHook,
    /// A post hook has run; it is removed from the journal.
    Released,
    /// The verdict is given. It comes after the release, because a session may report then that it lost its
    /// application.
    Judged,
    /// The snapshots get their verdict.
    Label,
    /// The record is kept.
    Record,
    /// The journal is closed.
    Close,
}

impl Step {
    /// Every step, in the order of a run without faults; [`Step::LookUp`] is only reached when an answer was
    /// lost.
    pub const ALL: [Self; 26] = [
        Self::Preflight,
        Self::Permission,
        Self::Pending,
        Self::Busy,
        Self::JournalStart,
        Self::Attempt,
        Self::PreHook,
        Self::Prepare,
        Self::Guarded,
        Self::Warm,
        Self::Unchanged,
        Self::BusyAgain,
        Self::JournalWindow,
        Self::Freezing,
        Self::Frozen,
        Self::Request,
        Self::Answered,
        Self::Thawed,
        Self::LookUp,
        Self::Made,
        Self::PostHook,
        Self::Released,
        Self::Judged,
        Self::Label,
        Self::Record,
        Self::Close,
    ];

    /// A short name with hyphens, for the debug log and for the names of tests' cases.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Permission => "permission",
            Self::Pending => "pending",
            Self::Busy => "busy",
            Self::JournalStart => "journal-start",
            Self::Attempt => "attempt",
            Self::PreHook => "pre-hook",
            Self::Prepare => "prepare",
            Self::Guarded => "guarded",
            Self::Warm => "warm",
            Self::Unchanged => "unchanged",
            Self::BusyAgain => "busy-again",
            Self::JournalWindow => "journal-window",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Request => "request",
            Self::Answered => "answered",
            Self::Thawed => "thawed",
            Self::LookUp => "look-up",
            Self::Made => "made",
            Self::Judged => "judged",
            Self::PostHook => "post-hook",
            Self::Released => "released",
            Self::Label => "label",
            Self::Record => "record",
            Self::Close => "close",
        }
    }

    /// May filesystems be frozen at it?
    #[must_use]
    pub fn in_window(self) -> bool {
        (Self::Freezing..=Self::Answered).contains(&self)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Is told each step of a run.
pub trait Steps: Send + Sync + fmt::Debug {
    /// Called at each step, also while filesystems are frozen: it must not block, allocate, open or log.
    fn at(&self, step: Step);
}

/// Writes each step to the debug log, except while filesystems may be frozen.
#[derive(Debug)]
pub(crate) struct Progress;

impl Steps for Progress {
    fn at(&self, step: Step) {
        if !step.in_window() {
            tracing::debug!("step: {step}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_complete() {
        for (n, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, n, "{step}");
        }
    }

    #[test]
    fn between_the_first_freeze_and_the_last_thaw_nothing_is_logged() {
        let quiet: Vec<_> = Step::ALL.into_iter().filter(|s| s.in_window()).collect();
        assert_eq!(quiet, [Step::Freezing, Step::Frozen, Step::Request, Step::Answered]);
    }
}
