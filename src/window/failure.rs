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
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum PrepareError {
    #[error("cannot open {} ({fstype})", mount_point.display())]
    Open { mount_point: PathBuf, fstype: String, source: Errno },
    /// Opening a file does not return: a fanotify listener that has to permit it does not answer.
    #[error(
        "opening {} takes longer than {}{}",
        path.display(),
        humantime::format_duration(*limit),
        named(suspects)
    )]
    OpenHangs {
        path: PathBuf,
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
    Changed { mount_point: PathBuf, planned: crate::ids::DevNo, found: String },
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// The watchdog did not start, so nothing may be frozen.
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("cannot start a freezing thread")]
    Thread(#[source] std::io::Error),
}

impl PrepareError {
    /// What the user can do about it; none when the message says all.
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
    /// The first failure; the freeze was given up because of it.
    pub cause: FreezeFailure,
    /// How thawing the others went.
    pub thawed: Thawed,
}

/// What FIFREEZE, or who made the call, said.
fn refusal(errno: Errno) -> &'static str {
    match errno {
        Errno::EOWNERDEAD => "the freezer died",
        other => other.desc(),
    }
}

/// Why freezing was not completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum FreezeFailure {
    #[error("cannot freeze {} ({fstype}): {}", mount_point.display(), refusal(*errno))]
    Refused { mount_point: PathBuf, fstype: String, errno: Errno },
    #[error("freezing took longer than {}: {}", humantime::format_duration(*limit), list(stuck))]
    TooLong { limit: Duration, stuck: Vec<PathBuf> },
    #[error(transparent)]
    Flush(FlushError),
    #[error("the watchdog is gone or has fired")]
    WatchdogLost,
    #[error("interrupted by {0}")]
    Interrupted(nix::sys::signal::Signal),
}
