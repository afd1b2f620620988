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
    /// All members of the group are waited for; nothing has been touched.
    AllHere,
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
    /// This member of the group is ready, and the others are waited for.
    AllReady,
    /// Connections are warmed.
    Warm,
    /// The check whether the host has changed since it was planned.
    Unchanged,
    /// The same as [`Step::Busy`], once more.
    BusyAgain,
    /// Nothing is left to do but to freeze, and the other members are waited for.
    AllSet,
    /// The journal says what may be frozen from here on.
    JournalWindow,
    /// The deadline starts, then the first FIFREEZE.
    Freezing,
    /// Everything is frozen.
    Frozen,
    /// This member of the group says that it is frozen, and the others are waited for.
    AllFrozen,
    /// The create call is sent, or whatever the goal has in its place.
    Request,
    /// EC2 has answered, and the answers to the other members are waited for.
    AllAnswered,
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
    /// This member of the group says that its freeze held, and the others are waited for.
    AllHeld,
    /// The snapshots get their verdict.
    Label,
    /// The record is kept.
    Record,
    /// The journal is closed.
    Close,
}

impl Step {
    /// Every step, in the order of a run without faults; [`Step::LookUp`] is only reached when an answer was
    /// lost, and [`Step::of_group`] in a group.
    pub const ALL: [Self; 32] = [
        Self::Preflight,
        Self::Permission,
        Self::Pending,
        Self::AllHere,
        Self::Busy,
        Self::JournalStart,
        Self::Attempt,
        Self::PreHook,
        Self::Prepare,
        Self::Guarded,
        Self::AllReady,
        Self::Warm,
        Self::Unchanged,
        Self::BusyAgain,
        Self::AllSet,
        Self::JournalWindow,
        Self::Freezing,
        Self::Frozen,
        Self::AllFrozen,
        Self::Request,
        Self::AllAnswered,
        Self::Answered,
        Self::Thawed,
        Self::LookUp,
        Self::Made,
        Self::PostHook,
        Self::Released,
        Self::Judged,
        Self::AllHeld,
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
            Self::AllHere => "all-here",
            Self::Busy => "busy",
            Self::JournalStart => "journal-start",
            Self::Attempt => "attempt",
            Self::PreHook => "pre-hook",
            Self::Prepare => "prepare",
            Self::Guarded => "guarded",
            Self::AllReady => "all-ready",
            Self::Warm => "warm",
            Self::Unchanged => "unchanged",
            Self::BusyAgain => "busy-again",
            Self::AllSet => "all-set",
            Self::JournalWindow => "journal-window",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::AllFrozen => "all-frozen",
            Self::Request => "request",
            Self::AllAnswered => "all-answered",
            Self::Answered => "answered",
            Self::Thawed => "thawed",
            Self::LookUp => "look-up",
            Self::Made => "made",
            Self::Judged => "judged",
            Self::PostHook => "post-hook",
            Self::Released => "released",
            Self::AllHeld => "all-held",
            Self::Label => "label",
            Self::Record => "record",
            Self::Close => "close",
        }
    }

    /// Is it reached in runs of a group alone?
    #[must_use]
    pub fn of_group(self) -> bool {
        matches!(
            self,
            Self::AllHere
                | Self::AllReady
                | Self::AllSet
                | Self::AllFrozen
                | Self::AllAnswered
                | Self::AllHeld
        )
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
        assert_eq!(
            quiet,
            [Step::Freezing, Step::Frozen, Step::AllFrozen, Step::Request, Step::AllAnswered, Step::Answered]
        );
    }
}
