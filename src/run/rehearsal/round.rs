//! What one round of a rehearsal measured.
//!
//! In: the window's times. Out: stable, documented JSON. Must never: read as if a set had been taken.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;

use super::writers::Writer;
use crate::exit::Exit;
use crate::path_encoding;
use crate::plan::Consistency;
use crate::quiesce::HookOutcome;

/// The measurements and the result of one rehearsal.
#[derive(Debug, Serialize)]
pub struct Round {
    /// From before the first FIFREEZE to after the last FITHAW, the hold included.
    #[serde(rename = "window_ms", serialize_with = "millis::duration")]
    pub window: Duration,
    /// How long everything stayed frozen in place of the create call.
    #[serde(rename = "hold_ms", serialize_with = "millis::duration")]
    pub hold: Duration,
    /// Every filesystem, in the order of the plan.
    pub mounts: Vec<MountRound>,
    /// The hooks that ran.
    pub hooks: Vec<HookOutcome>,
    /// The label that a set would have got; none when the window was not reached or not kept.
    pub achieved: Option<Consistency>,
    /// Why it is less than requested, or why it failed.
    pub reason: Option<String>,
    /// Devices whose write counter could not have shown a write in the window, each with why.
    pub unwitnessed: Vec<String>,
    /// Mount points that may still be frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub still_frozen: Vec<PathBuf>,
    /// What should be mounted and is not, and made the exit code 22 or 10.
    pub missing: Vec<String>,
    /// Post hooks that failed.
    pub after: Vec<String>,
    /// The exit code that a run with this outcome has.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
    /// What the user can do about a failure.
    #[serde(skip)]
    pub hint: Option<String>,
    /// The signal that interrupted the round: the command ends by it, so that the shell sees that.
    #[serde(skip)]
    pub signal: Option<Signal>,
}

/// One filesystem in a rehearsal.
#[derive(Debug, Serialize)]
pub struct MountRound {
    /// The mount point by which the plan names it.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// As mountinfo names it.
    pub fstype: String,
    /// How long its flush took, before the freeze, while applications could still write.
    #[serde(rename = "flush_ms", serialize_with = "millis::duration")]
    pub flush: Duration,
    /// How long its FIFREEZE took; none where its method is not `freeze`, or the round failed before it.
    #[serde(rename = "freeze_ms", serialize_with = "millis::option")]
    pub freeze: Option<Duration>,
    /// From the begin of its FIFREEZE to the return of its FITHAW: the longest that a writer can have waited.
    #[serde(rename = "stall_ms", serialize_with = "millis::option")]
    pub stall: Option<Duration>,
    /// The processes that had files on it open for writing just before and just after; those that wrote most
    /// come first.
    pub writers: Vec<Writer>,
}

/// Durations as milliseconds in JSON.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Serialize, Serializer};

    pub fn duration<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(d.as_secs_f64() * 1e3)
    }

    pub fn option<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        d.map(|d| d.as_secs_f64() * 1e3).serialize(s)
    }
}
