//! The one error a command ends with.
//!
//! In: the error of whichever module failed. Out: one line with its causes, a hint when there is
//! one, and the exit code. It must never print a cause twice.

use std::error::Error as _;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario or the command line is wrong.
    #[error(transparent)]
    Scenario(#[from] crate::scenario::Error),
    /// Devices, mounts or files could not be made or taken down.
    #[error(transparent)]
    Host(#[from] crate::host::Error),
    /// The made `/sys` or its namespaces could not be set up.
    #[error(transparent)]
    View(#[from] crate::view::Error),
    /// A running ebs-sim could not be reached, or refused.
    #[error(transparent)]
    Client(#[from] crate::client::Error),
    /// The servers could not be started or went wrong.
    #[error(transparent)]
    Serve(#[from] crate::serve::Error),
    /// `state.json` could not be read or written, or is in the way.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// `ebs-sim.json` could not be written or read.
    #[error(transparent)]
    Ready(#[from] crate::ready::Error),
}

impl Error {
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Scenario(error) => error.hint(),
            Error::Host(error) => error.hint(),
            Error::View(error) => error.hint(),
            Error::Client(error) => error.hint(),
            Error::Serve(error) => error.hint(),
            Error::State(error) => error.hint(),
            Error::Ready(error) => error.hint(),
        }
    }

    /// Prints the error, its causes and its hint to stderr.
    pub fn print(&self) {
        eprint!("ebs-sim: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            eprint!(": {error}");
            cause = error.source();
        }
        eprintln!();
        if let Some(hint) = self.hint() {
            eprintln!("hint: {hint}");
        }
    }

    /// 78 for a wrong scenario, 77 for a missing right, 69 when nothing answers, 1 otherwise.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::Scenario(_) | Error::State(crate::state::Error::Kept(_)) => 78,
            Error::Host(crate::host::Error::NotRoot)
            | Error::Serve(crate::serve::Error::Host(crate::host::Error::NotRoot)) => 77,
            Error::Client(crate::client::Error::Unreachable { .. }) | Error::Ready(_) => 69,
            _ => 1,
        })
    }
}
