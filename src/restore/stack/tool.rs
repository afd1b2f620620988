//! The programs that put stacks together: lvm2, mdadm, cryptsetup, dmsetup, btrfs-progs.
//!
//! In: a name, arguments. Out: it has ended well. Must never: be led to another program by a PATH or a variable, have a
//! secret in its arguments, or be waited for without a limit.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use crate::path_encoding::printable;
use crate::quiesce::{PATH, query};

/// Each reads and writes some KiB; where they come from the snapshot, a read takes some 100 ms.
const LIMIT: Duration = Duration::from_secs(300);

/// A program, about to be run.
pub(super) struct Tool {
    name: &'static str,
    path: Option<&'static str>,
    arguments: Vec<String>,
    vars: Vec<(&'static str, OsString)>,
    input: Stdio,
    asks: bool,
}

impl Tool {
    /// With these arguments.
    pub(super) fn new<S: Into<String>>(name: &'static str, arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { name, path: None, arguments, vars: Vec::new(), input: Stdio::null(), asks: false }
    }

    /// This program itself, at this path, which becomes another one.
    pub(super) fn own(path: &'static str, name: &'static str, arguments: Vec<String>) -> Self {
        Self { path: Some(path), ..Self::new(name, arguments) }
    }

    /// With this variable.
    pub(super) fn var(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.vars.push((name, value.into()));
        self
    }

    /// With this standard input.
    pub(super) fn input(mut self, input: impl Into<Stdio>) -> Self {
        self.input = input.into();
        self
    }

    /// It asks whoever sits at this terminal.
    pub(super) fn asking(mut self) -> Self {
        self.asks = true;
        self
    }

    /// As it would be typed.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.name, self.arguments.join(" "))
    }

    /// Runs it.
    ///
    /// # Errors
    /// What it said last.
    pub(super) async fn run(self) -> Result<(), String> {
        self.ended().await.map_err(|failed| failed.said)
    }

    /// Runs it, where its exit code counts.
    ///
    /// # Errors
    /// That, and what it said last.
    pub(super) async fn ended(self) -> Result<(), Failed> {
        let words = self.words();
        let program = self.path.map_or_else(|| query::program(self.name), |path| Ok(path.into()))?;
        let mut command = tokio::process::Command::new(program);
        command.args(&self.arguments).env_clear().env("PATH", PATH).env("LC_ALL", "C").envs(self.vars);
        command.current_dir("/").kill_on_drop(true);
        if self.asks {
            command.stdin(Stdio::inherit()).stderr(Stdio::inherit()).stdout(Stdio::null());
        } else {
            // A Ctrl-C is for this program, which ends when a step is done.
            command.stdin(self.input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        }
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.name))?;
        let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = ended
            .map_err(|_| format!("{words}: it does not end within {}", humantime::format_duration(LIMIT)))?
            .map_err(|e| format!("{words}: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let code = output.status.code();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let mut last: Vec<&str> =
            said.lines().rev().map(str::trim).filter(|l| !l.is_empty()).take(3).collect();
        last.reverse();
        let last = if last.is_empty() { output.status.to_string() } else { last.join("; ") };
        Err(Failed { code, said: format!("{words}: {}", printable(&last)) })
    }
}

/// How a program failed.
pub(super) struct Failed {
    /// Its exit code; none where a signal ended it, or it did not run.
    pub code: Option<i32>,
    /// In words.
    pub said: String,
}

impl From<String> for Failed {
    fn from(said: String) -> Self {
        Self { code: None, said }
    }
}

/// Is the program here?
///
/// # Errors
/// What to install.
pub(super) fn has(name: &str, package: &str) -> Result<(), String> {
    query::program(name).map(drop).map_err(|e| format!("{e}: install {package}"))
}
