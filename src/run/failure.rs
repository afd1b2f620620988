//! Why a run takes no set, or a set that is incomplete or of no proven consistency.
//!
//! In: what failed. Out: its exit code, the reason and what to do about it. Must never: decide the label
//! ([`super::verdict`] does).

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::ec2::Ec2Error;
use crate::error::chain;
use crate::exit::Exit;
use crate::host::write_access;
use crate::ids::DevNo;
use crate::window::{FlushError, FreezeFailure, PrepareError};

/// Most processes that a hint names.
const NAMED: usize = 5;

/// A failure of a run, from the first pre hook to EC2's answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    pub reason: String,
    pub hint: Option<String>,
    pub signal: Option<Signal>,
}

impl Failure {
    pub fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, reason: reason.into(), hint: None, signal: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Names who keeps FIFREEZE waiting on these. Called once everything else is thawed.
    pub fn name_holders(self, root: &Path, stuck: &[DevNo]) -> Self {
        let holders = write_access::holders(root, stuck).unwrap_or_default();
        if stuck.is_empty() || holders.is_empty() {
            return self;
        }
        let mut names: Vec<String> = holders.iter().take(NAMED).map(ToString::to_string).collect();
        if holders.len() > NAMED {
            names.push(format!("{} others", holders.len() - NAMED));
        }
        self.hint(format!(
            "FIFREEZE waits for a call that does not end: {}; end that process, and the freeze ends and is thawed",
            names.join(", ")
        ))
    }

    pub fn interrupted(signal: Signal) -> Self {
        Self { signal: Some(signal), ..Self::new(Exit::Freeze, format!("interrupted by {signal}")) }
    }

    /// The journal says what a recovery has to undo: a run that cannot write it must stop.
    pub(crate) fn no_journal(error: &std::io::Error) -> Self {
        Self::new(Exit::Freeze, format!("cannot write the journal: {error}"))
    }
}

impl From<Ec2Error> for Failure {
    fn from(error: Ec2Error) -> Self {
        Self { hint: error.hint(), ..Self::new(error.exit(), error.to_string()) }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Flush(FlushError::Interrupted(signal)) => Self::interrupted(signal),
            error => Self { hint: error.hint(), ..Self::new(Exit::Freeze, chain(&error)) },
        }
    }
}

impl From<FreezeFailure> for Failure {
    fn from(cause: FreezeFailure) -> Self {
        match cause {
            FreezeFailure::Interrupted(signal) => Self::interrupted(signal),
            cause => Self { hint: freeze_hint(&cause), ..Self::new(Exit::Freeze, cause.to_string()) },
        }
    }
}

fn freeze_hint(cause: &FreezeFailure) -> Option<String> {
    let hint = match cause {
        FreezeFailure::Flush(e) => return e.hint(),
        FreezeFailure::Refused { errno: Errno::EBUSY, .. } => {
            "something else has frozen it (another backup agent, fsfreeze, LVM): let it finish; \
             stillpoint never thaws what it did not freeze"
        }
        FreezeFailure::Refused { errno: Errno::EPERM, .. } => "freezing needs CAP_SYS_ADMIN",
        FreezeFailure::Refused { errno: Errno::EOPNOTSUPP, .. } => {
            "this filesystem cannot freeze: set its method to \"sync\" in the plan's `methods`"
        }
        FreezeFailure::TooLong { .. } => {
            "a writer inside the kernel does not finish; none could be named: look for processes in state D \
             (ps -eo pid,stat,wchan,comm)"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
