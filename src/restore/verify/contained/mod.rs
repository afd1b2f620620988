//! A command that looks at restored data, in namespaces of its own.
//!
//! ```text
//! verify ─▶ outer: unshare ─▶ inner: process 1 ─▶ the command, as its user
//!   │                           ├ the host's files, read-only; /run, /tmp and /var/tmp are empty
//!   │                           ├ the restored filesystems below /run/stillpoint/set
//!   │                           └ no network but its own loopback
//!   └ a pipe that ends with verify ─▶ process 1 ends ─▶ the kernel kills all that is left, and unmounts
//! ```
//!
//! Whatever the command has started, in whatever session, dies with process 1 of its PID namespace, and with the last
//! process goes the mount namespace: nothing has to be found or unmounted, also after SIGKILL of verify itself.
//!
//! In: a [`Request`], a limit. Out: [`Ended`]. Must never: show the command a socket of the host's servers in /run or
//! /tmp, let it write to the host's files, or go on for longer than its limit and [`process::GRACE`] twice.

mod databases;
mod init;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use databases::installed;
pub use init::main;

use crate::config::settings::CheckedDatabase;
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::path_encoding;
use crate::quiesce::process::{self, Program};
use crate::quiesce::{Exit, HookStatus, Phase};

/// The first argument of the processes around the command.
pub const ARGUMENT: &str = "__contain";
/// Where the restored filesystems are, as the command sees it.
pub const SET: &str = "/run/stillpoint/set";
/// A folder of the command's user, in memory.
pub const SCRATCH: &str = "/run/stillpoint/scratch";
/// The exit code of a command that could not be started: what it would have looked at was not looked at.
const NOT_STARTED: u8 = 125;

/// What is run, on what, as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The restored filesystems, outermost first.
    pub mounts: Vec<Mounted>,
    /// The most that the scratch folder holds, in bytes.
    pub scratch: u64,
    /// The user; none for this program's own.
    pub user: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// All of its environment.
    pub vars: Vec<(String, String)>,
    /// Instead of a program: a database and its data directory, on filesystems that are mounted where they were, too.
    pub database: Option<Database>,
}

/// A database that is checked by its own programs, as the owner of its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Database {
    /// Which.
    pub kind: CheckedDatabase,
    /// Where it keeps its data, on the host of the set.
    #[serde(with = "path_encoding::bytes")]
    pub data: PathBuf,
}

/// A filesystem that is mounted for the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mounted {
    /// Its device.
    pub dev: DevNo,
    /// Further ones of a btrfs.
    pub others: Vec<DevNo>,
    /// Its type.
    pub fstype: String,
    /// Options of the filesystem.
    pub options: Vec<String>,
    /// `MOUNT_ATTR_*` of the mount.
    pub attributes: u64,
    /// Where, below [`SET`]; empty for itself.
    #[serde(with = "path_encoding::bytes")]
    pub at: PathBuf,
    /// The folder of the filesystem.
    #[serde(with = "path_encoding::bytes")]
    pub root: PathBuf,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With exit code 0.
    Well,
    /// With this exit code.
    Code(i32),
    /// By a signal that was not sent here: killed for lack of memory, or crashed.
    Signal(i32),
    /// It was not started: why.
    NotStarted(String),
    /// Its time ran out.
    TimedOut,
    /// Verify was told to end.
    Interrupted,
}

/// A command that has ended, and the last 4 KiB that it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How.
    pub ended: Ended,
    /// What it printed last.
    pub output: String,
}

impl Outcome {
    /// The last line that says something.
    pub fn last_line(&self) -> &str {
        self.output.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("it printed nothing")
    }
}

/// Runs it. What it prints is logged under this name, unless that is empty.
pub(crate) async fn run(
    name: &str,
    request: &Request,
    limit: Duration,
    interrupt: &mut Interrupt,
) -> Outcome {
    let not = |why: String| Outcome { ended: Ended::NotStarted(why), output: String::new() };
    let pipe = || {
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        let (reader, mut writer) = std::io::pipe()?;
        // It may be longer than what a pipe holds. The end that is written to stays open until the command has ended.
        let written = std::thread::Builder::new().name("request".to_owned()).spawn(move || {
            let _ = writer.write_all(&text);
            writer
        })?;
        Ok::<_, std::io::Error>((reader, written))
    };
    let (reader, written) = match pipe() {
        Ok(made) => made,
        Err(e) => return not(e.to_string()),
    };
    let argv = [crate::window::guard::process::OWN, ARGUMENT].map(str::to_owned);
    let vars = [("PATH".to_owned(), OsString::from(crate::quiesce::PATH))];
    let program = Program { argv: &argv, user: None, vars: &vars };
    let cancel = async {
        interrupt.caught().await;
    };
    let done = process::run(name, Phase::Completed, program, Stdio::from(reader), limit, cancel).await;
    drop(written.join());
    let ended = match done.status {
        HookStatus::Ok | HookStatus::NotRunning => Ended::Well,
        HookStatus::TimedOut => Ended::TimedOut,
        HookStatus::Cancelled => Ended::Interrupted,
        HookStatus::NotStarted(why) | HookStatus::Refused(why) => Ended::NotStarted(why),
        HookStatus::Failed(Exit::Code(code)) if code == i32::from(NOT_STARTED) => {
            let last = done.output.lines().rev().find(|l| !l.trim().is_empty());
            Ended::NotStarted(last.unwrap_or("it says no reason").trim().to_owned())
        }
        HookStatus::Failed(Exit::Code(code)) if code > 128 && code < 128 + 65 => Ended::Signal(code - 128),
        HookStatus::Failed(Exit::Code(code)) => Ended::Code(code),
        HookStatus::Failed(Exit::Signal(signal)) => Ended::Signal(signal),
    };
    Outcome { ended, output: done.output }
}

/// Can commands be run like that here? Tried with one that does nothing.
///
/// # Errors
/// Why not.
pub(crate) async fn can(interrupt: &mut Interrupt) -> Result<(), String> {
    let program = crate::quiesce::query::program("true")?;
    let argv = vec![program.to_string_lossy().into_owned()];
    let request =
        Request { mounts: Vec::new(), scratch: 1 << 20, user: None, argv, vars: Vec::new(), database: None };
    match run("", &request, Duration::from_secs(30), interrupt).await.ended {
        Ended::Well => Ok(()),
        Ended::NotStarted(why) => Err(why),
        other => Err(format!("`true` in namespaces of its own ends with {other:?}")),
    }
}
