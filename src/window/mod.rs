//! The frozen window, as a value that can only go forward.
//!
//! ```text
//! open ──▶ Prepared ──freeze──▶ Frozen ──thaw──▶ Thawed      (prepared.rs, frozen.rs, thawed.rs)
//!              │ error             │ drop: thaws too
//!              ▼                   ▼
//!          nothing frozen      nothing frozen
//! ```
//!
//! What may only be asked once everything is thawed is a [`Recheck`]: without its answers, [`Thawed`] is not
//! proven to have held.
//!
//! In: the plan's filesystems. Out: [`Thawed`], with the evidence whether the freeze held. Must never: let go
//! of a frozen filesystem, or do anything between the last FIFREEZE and the first FITHAW but await the
//! caller's one call. Guards, from the inside out: explicit thaw, `Drop`, the watchdog process, the journal
//! in /run.

mod apart;
pub mod delegated;
mod companion;
mod check;
pub(crate) mod claims;
mod clock;
mod evidence;
pub mod expedite;
mod failure;
mod flush;
mod freeze;
pub mod freezer;
mod frozen;
pub mod guard;
mod filesystem;
mod memory;
pub mod page;
mod prepared;
mod recheck;
pub mod probe;
pub mod state;
mod thawed;
pub mod watchdog;
mod witness;
mod write_back;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::expedite::RcuExpedited;
pub use self::failure::{FreezeFailure, NotFrozen, PrepareError};
pub use self::flush::FlushError;
pub use self::frozen::{Called, Frozen, Lost};
use self::guard::StartGuard;
pub use self::prepared::Prepared;
pub use self::recheck::Recheck;
pub use self::thawed::{Stall, Thawed, Times};
pub use self::witness::{Moved, Seen};
use crate::host::kernel::Kernel;

/// Set when a window was dropped, by a panic, and something may still be frozen: `main` then exits 40, not
/// 70.
pub static LEFT_FROZEN: AtomicBool = AtomicBool::new(false);

/// The kernel and the watchdog that a window works with.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// The folder that /proc is read below: `/` but in tests.
    pub root: &'a Path,
    /// Shared with the threads that freeze and flush.
    pub kernel: &'a Arc<dyn Kernel>,
    /// Starts the watchdog; a window without one does not open.
    pub watchdog: &'a Arc<dyn StartGuard>,
}

/// The time limits of a window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hard deadline, held by the watchdog: from before the first FIFREEZE.
    pub window: Duration,
    /// Longest time all freezing may take.
    pub freeze: Duration,
    /// Longest time that flushing before may take.
    pub flush: Duration,
}

impl Limits {
    /// When the agent itself gives up, a little before the watchdog has to.
    #[must_use]
    pub(crate) fn own_deadline(&self) -> Duration {
        let margin = (self.window / 10).clamp(Duration::from_millis(20), Duration::from_millis(200));
        self.window.saturating_sub(margin)
    }
}

/// The parts that only some windows have.
#[derive(Debug, Default)]
pub struct Extras {
    /// `rcu_expedited`, raised while FIFREEZE runs.
    pub rcu_expedited: Option<RcuExpedited>,
    /// What the watchdog starts once everything is thawed because the agent is gone: a program and its
    /// arguments.
    pub(crate) afterwards: Option<Vec<PathBuf>>,
    /// Where a recovery looks for what was thawed: see [`page`].
    pub(crate) page: Option<PathBuf>,
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
