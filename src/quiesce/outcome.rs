//! How a hook's command ended.
//!
//! In: what [`super::process`] saw. Out: a value for the journal, the report and the log. Must never: call
//! anything but exit code 0 a success.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// Which of a hook's two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Before the window.
    Pre,
    /// After the thaw.
    Post,
    /// At the end of a run that took a set.
    Completed,
    /// At the end of a run that took no set.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::Completed => "completed",
            Self::Failed => "failed",
        })
    }
}

/// How a hook's command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutcome {
    /// The name of the hook.
    pub name: String,
    /// Which of the hook's commands it was.
    pub phase: Phase,
    /// How it ended.
    pub status: HookStatus,
    /// From before its start until its end, including the time that killing it took.
    pub duration: Duration,
    /// The last 4 KiB of standard output and error together.
    pub output: String,
    /// It is a session, a database for one, which was over before it was told to release: the set is not
    /// what the hook vouches for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// What the session reported for the record, such as a binlog position or a server's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// What to do about a failure, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookStatus {
    /// Exit code 0, in time; or there was nothing to run.
    Ok,
    /// It ended by itself with a failure.
    Failed(Exit),
    /// It was killed because its time ran out, whatever its exit code then was.
    TimedOut,
    /// It was killed because the run was told to stop.
    Cancelled,
    /// The program could not be started; the text is the kernel's error.
    NotStarted(String),
    /// It said itself why it cannot quiesce, or did not.
    Refused(String),
    /// There was nothing to quiesce: it did not run.
    NotRunning,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal's number.
    Signal(i32),
}

impl HookOutcome {
    /// An outcome without facts and hint.
    #[must_use]
    pub fn new(name: &str, phase: Phase, status: HookStatus, duration: Duration, output: String) -> Self {
        let (lost, facts, hint) = (false, BTreeMap::new(), None);
        Self { name: name.to_owned(), phase, status, duration, output, lost, facts, hint }
    }

    /// True when the command did what it is for.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.status, HookStatus::Ok | HookStatus::NotRunning)
    }
}

impl fmt::Display for HookStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("succeeded"),
            Self::Failed(Exit::Code(code)) => write!(f, "failed with exit code {code}"),
            Self::Failed(Exit::Signal(number)) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {number}"),
            },
            Self::TimedOut => f.write_str("timed out and was killed"),
            Self::Cancelled => f.write_str("was killed because the run was stopped"),
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
            Self::Refused(why) => f.write_str(why),
            Self::NotRunning => f.write_str("had nothing to do: it does not run"),
        }
    }
}

impl fmt::Display for HookOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, phase, status, duration, output, .. } = self;
        if let HookStatus::Refused(why) = status {
            let doing =
                if *phase == Phase::Pre { "cannot be quiesced" } else { "was not released as it should be" };
            return write!(f, "`{name}` {doing}: {why}");
        }
        let duration = humantime::format_duration(Duration::from_millis(
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        ));
        write!(f, "{phase} command of hook `{name}` {status} after {duration}")?;
        match output.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) if !self.succeeded() => write!(f, "; its last line was: {}", last.trim()),
            _ => Ok(()),
        }
    }
}
