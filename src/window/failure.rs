//! Why a window did not open, or did not freeze.
//!
//! In: what failed, on which mount point. Out: sentences, and what to do about it. Must never: decide
//! anything.

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::flush::FlushError;
use super::guard::GuardError;
use super::list;
use super::thawed::Thawed;
use crate::host::fanotify::Listener;

/// Why the window never opened. Nothing is frozen.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A mount point could not be opened.
    #[error("cannot open {} ({fstype})", mount_point.display())]
    Open {
        /// The mount point.
        mount_point: PathBuf,
        /// Its filesystem type.
        fstype: String,
        /// Why.
        source: Errno,
    },
    /// Opening a file does not return: a fanotify listener that has to permit it does not answer.
    #[error(
        "opening {} takes longer than {}{}",
        path.display(),
        humantime::format_duration(*limit),
        named(suspects)
    )]
    OpenHangs {
        /// What was opened.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
        /// Processes that listen for permission events, so that the kernel waits for their answer at each
        /// open.
        suspects: Vec<Listener>,
    },
    /// The mount point now leads to another filesystem than the plan saw.
    #[error(
        "{} is not the filesystem that was planned (device {found}, planned {planned})",
        mount_point.display()
    )]
    Changed {
        /// The mount point.
        mount_point: PathBuf,
        /// What the plan saw.
        planned: crate::ids::DevNo,
        /// What is there now.
        found: String,
    },
    /// Not everything was flushed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A write counter could not be opened.
    #[error("cannot watch the write counter of {device}")]
    Witness {
        /// Kernel name.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// No watchdog, no freeze.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A thread could not be started.
    #[error("cannot start a freezing thread")]
    Thread(#[source] std::io::Error),
}

impl PrepareError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OpenHangs { suspects, .. } if suspects.is_empty() => Some(
                "nothing is frozen; look for processes in state D (ps -eo pid,stat,wchan,comm)".to_owned(),
            ),
            Self::OpenHangs { .. } => Some(
                "nothing is frozen; restart or stop that process, or exclude this filesystem in its configuration; \
                 `stillpoint doctor` lists every such listener"
                    .to_owned(),
            ),
            Self::Flush(e) => e.hint(),
            _ => None,
        }
    }
}

fn named(suspects: &[Listener]) -> String {
    if suspects.is_empty() {
        return String::new();
    }
    let names: Vec<_> = suspects.iter().map(|l| l.process.to_string()).collect();
    format!("; processes that have to permit opens (fanotify): {}", names.join(", "))
}

/// Why the freeze was not completed; everything that was frozen has been thawed, as `thawed` says.
#[derive(Debug)]
pub struct NotFrozen {
    /// What went wrong.
    pub cause: FreezeFailure,
    /// How thawing the others went.
    pub thawed: Thawed,
}

/// What went wrong while freezing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreezeFailure {
    /// FIFREEZE failed.
    #[error("cannot freeze {} ({fstype}): {}", mount_point.display(), errno.desc())]
    Refused {
        /// The mount point.
        mount_point: PathBuf,
        /// Its filesystem type.
        fstype: String,
        /// The error.
        errno: Errno,
    },
    /// FIFREEZE did not return in time.
    #[error("freezing took longer than {}: {}", humantime::format_duration(*limit), list(stuck))]
    TooLong {
        /// The limit, `freeze_timeout`.
        limit: Duration,
        /// Mount points still inside FIFREEZE.
        stuck: Vec<PathBuf>,
    },
    /// What cannot freeze was not flushed; nothing was frozen.
    #[error(transparent)]
    Flush(FlushError),
    /// The watchdog fired or died.
    #[error("the watchdog is gone or has fired")]
    WatchdogLost,
    /// A signal came.
    #[error("interrupted by {0}")]
    Interrupted(nix::sys::signal::Signal),
}
