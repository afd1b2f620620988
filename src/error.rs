//! The one top-level error: what failed, why, what to do next, and the exit code.
//!
//! In: the modules' errors. Out: text for stderr, the chain printed once. Must never: hide a cause or print
//! one twice.

use std::fmt::Write;

use nix::sys::signal::Signal;

use crate::exit::Exit;
use crate::path_encoding::printable;

/// An error that ends a command.
#[derive(Debug)]
pub struct Error {
    /// The code that the process exits with.
    pub exit: Exit,
    /// What failed, with its causes.
    pub what: Box<dyn std::error::Error + Send + Sync>,
    /// What the user can do about it; none when nothing is known to help.
    pub hint: Option<String>,
    /// The signal to die by, once the error is printed.
    pub signal: Option<Signal>,
}

impl Error {
    /// An error without a hint; `what` may be a text or another error.
    pub fn new(exit: Exit, what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { exit, what: what.into(), hint: None, signal: None }
    }

    /// A signal came before anything was touched. The process dies by that signal, so that the caller can see
    /// it; where it cannot, the exit code is 21.
    #[must_use]
    pub fn interrupted(signal: Signal) -> Self {
        let what = format!("interrupted by {signal}, before anything was touched");
        Self { signal: Some(signal), ..Self::new(Exit::Freeze, what) }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a hint, where there is one.
    #[must_use]
    pub(crate) fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }

    /// `error: …` with its causes, then `hint: …`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("error: {}", printable(&chain(self.what.as_ref())));
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}

/// An error and its causes in one line, each printed once.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let said = e.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = e.source();
    }
    text
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&chain(self.what.as_ref()))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.what.source()
    }
}
