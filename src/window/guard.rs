//! The agent's side of a watchdog, whatever the watchdog is.
//!
//! In: descriptors of the superblocks. Out: a [`Guard`] that is ready, or an error before anything is frozen.
//! Must never: be passed over: a window is not opened without one.
//!
//! There is one watchdog, a process of its own ([`process`]): only another process can thaw what a dead one
//! has frozen. With it comes the freezer, another one: only another process can be left behind inside
//! FIFREEZE. They are behind a trait so that a test without root can walk a window in which nothing is really
//! frozen.

mod companion;
pub mod process;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;

use super::Extras;
use super::delegated::Delegate;
use super::watchdog::Trigger;
use crate::host::kernel::SharedPage;

/// Why there is no watchdog. Nothing is frozen then.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum GuardError {
    #[error("cannot start the {who} ({})", program.display())]
    Spawn { who: &'static str, program: PathBuf, source: std::io::Error },
    #[error("the {who} ({}) is stillpoint {theirs}, and this is {}", program.display(), crate::build::ID)]
    OtherBuild { who: &'static str, program: PathBuf, theirs: String },
    #[error("the {who} did not get ready: {what}")]
    NotReady {
        who: &'static str,
        /// The step that failed, as a phrase for the message.
        what: &'static str,
        source: Errno,
    },
}

/// Starts a watchdog for a window. Real runs have [`process::Program`].
pub trait StartGuard: Send + Sync + std::fmt::Debug {
    /// Starts it over these descriptors, and waits, blocking, until it is ready.
    ///
    /// # Errors
    /// When it does not get ready. Nothing is frozen then.
    fn start(&self, fds: &[Arc<OwnedFd>], extras: &Extras) -> Result<Box<dyn Guard>, GuardError>;

    /// What is started, for the message when that does not come back.
    fn program(&self) -> PathBuf;
}

/// A watchdog that is ready. Dropping it without [`Guard::dismiss`] makes it thaw.
pub trait Guard: Send + Sync + std::fmt::Debug {
    /// The page that the freezing threads write their states to.
    fn page(&self) -> &Arc<SharedPage>;

    /// Its process id, for messages and the journal.
    fn pid(&self) -> u32;

    /// The freezer, which makes the calls that may hang; none where the agent makes them itself, over a made
    /// kernel.
    fn delegate(&self) -> Option<Arc<Delegate>> {
        None
    }

    /// What can stop or end it together with the agent, each in a few words; nothing where it stands alone.
    fn shares(&self) -> &[String] {
        &[]
    }

    /// From now on it thaws everything at `window` from now, at the latest.
    ///
    /// # Errors
    /// When it is gone or does not answer; nothing is frozen yet.
    fn arm(&self, window: Duration) -> nix::Result<()>;

    /// Why it fired, if it has.
    fn fired(&self) -> Option<Trigger> {
        Trigger::from_word(self.page().fired.load(Ordering::SeqCst))
    }

    /// Returns when it has fired or is gone. Either way the window is over.
    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Ends it, once everything is thawed and every freezing thread has returned. Waits for its end for a
    /// limited time.
    fn dismiss(&mut self);
}
