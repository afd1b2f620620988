//! What is left when everything is thawed: times and evidence.
//!
//! In: what the window saw. Out: [`Thawed`], and from it the doubt that lowers a label. Must never: call a
//! freeze held that was not proven so.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::list;
use super::watchdog;
use super::witness::Moved;

/// Wall-clock times of the window. The four that the record keeps: frozen, requested, responded, thawed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Times {
    /// Just before the first FIFREEZE.
    pub started: Timestamp,
    /// After the last FIFREEZE returned.
    pub frozen: Option<Timestamp>,
    /// Just before the request was sent.
    pub(crate) requested: Option<Timestamp>,
    /// Just after the response was read.
    pub(crate) responded: Option<Timestamp>,
    /// After the last FITHAW returned.
    pub thawed: Option<Timestamp>,
}

/// How long one filesystem was flushed, frozen and stalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The mount point it was reached by.
    pub mount_point: PathBuf,
    /// How long flushing it took before the freeze, while everything still ran.
    pub flush: Duration,
    /// How long FIFREEZE took; none when it did not return, or was never called.
    pub freeze: Option<Duration>,
    /// From the begin of its FIFREEZE to the return of its FITHAW: the longest that a writer can have waited.
    /// None when it was not frozen, or may still be.
    pub(crate) stalled: Option<Duration>,
}

/// The evidence that is left when everything is thawed.
#[derive(Debug, Clone, Default)]
#[must_use = "it says whether the freeze held, and whether something may still be frozen"]
pub struct Thawed {
    /// Mount points whose FITHAW returned 0: nobody else had thawed them.
    pub held: Vec<PathBuf>,
    /// Somebody else had thawed these.
    pub(crate) thawed_by_other: Vec<PathBuf>,
    /// These may still be frozen; the watchdog goes on trying.
    pub still_frozen: Vec<PathBuf>,
    /// Flushing these failed, and they are not frozen.
    pub(crate) unsynced: Vec<PathBuf>,
    /// Why the watchdog fired; none when it did not.
    pub fired: Option<watchdog::Trigger>,
    /// One entry for each filesystem, in the order of the plan.
    pub stalls: Vec<Stall>,
    /// Devices that were written to between freeze and thaw.
    pub moved: Vec<Moved>,
    /// Devices of the set that somebody else used, with how.
    pub(crate) in_use: Vec<String>,
    /// What was not frozen, and why nothing shows that it was quiet.
    pub(crate) unproven: Vec<String>,
    /// Devices whose counter could not have shown a write, with why; what they hold has another proof.
    pub(crate) unwitnessed: Vec<String>,
    /// What was found once everything was thawed; none while that has not been asked.
    pub(crate) rechecked: Option<Rechecked>,
    /// Wall-clock times of the window's stages.
    pub times: Times,
    /// From before the first FIFREEZE until after the last FITHAW, by the monotonic clock.
    pub length: Duration,
}

/// What was found once everything was thawed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rechecked {
    /// Why the freeze cannot be said to have held.
    pub doubts: Vec<String>,
    /// As [`Thawed::unwitnessed`].
    pub unwitnessed: Vec<String>,
}

impl Thawed {
    /// Why it is not proven that the freeze held; none when it is.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if let Some(trigger) = self.fired {
            return Some(format!("the watchdog thawed early: {trigger}"));
        }
        if !self.still_frozen.is_empty() {
            return Some(format!("not thawed: {}", list(&self.still_frozen)));
        }
        if !self.thawed_by_other.is_empty() {
            return Some(format!("thawed by something else meanwhile: {}", list(&self.thawed_by_other)));
        }
        if !self.unsynced.is_empty() {
            return Some(format!("cannot flush {}", list(&self.unsynced)));
        }
        if let Some(device) = self.in_use.first() {
            return Some(device.clone());
        }
        if let Some(moved) = self.moved.first() {
            return Some(moved.to_string());
        }
        if let Some(why) = self.unproven.first() {
            return Some(why.clone());
        }
        match &self.rechecked {
            Some(found) => found.doubts.first().cloned(),
            None => Some("it was not asked whether everything written had reached its device".to_owned()),
        }
    }

    /// Every device whose counter was no witness, with why.
    #[must_use]
    pub fn without_witness(&self) -> Vec<String> {
        let later = self.rechecked.iter().flat_map(|r| &r.unwitnessed);
        self.unwitnessed.iter().chain(later).cloned().collect()
    }
}
