//! What the shared page says of one superblock.
//!
//! In: a word of the page. Out: [`State`]. Must never: read an unknown word as "not frozen".

/// Words of the shared page, written *before* each step so that the watchdog knows
/// what may be frozen whatever instruction the agent dies at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Not frozen by us. The watchdog and a recovery leave it alone: a freeze found here is somebody else's.
    Idle = 0,
    /// FIFREEZE has been called and has not returned.
    Freezing = 1,
    /// FIFREEZE has returned 0, and nobody of us has thawed it yet.
    Frozen = 2,
    /// Thawed, by the agent.
    Thawed = 3,
    /// Thawed, by the watchdog.
    ThawedByWatchdog = 4,
}

impl State {
    /// May it be frozen, by us?
    #[must_use]
    pub fn may_be_frozen(self) -> bool {
        matches!(self, Self::Freezing | Self::Frozen)
    }

    /// The state of a word; an unknown word counts as frozen, the careful reading.
    #[must_use]
    pub fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Idle,
            1 => Self::Freezing,
            3 => Self::Thawed,
            4 => Self::ThawedByWatchdog,
            _ => Self::Frozen,
        }
    }
}
