//! The rescue in a process of its own: a FITHAW that hangs keeps the process that makes it from its end, and
//! whoever waits for the exit code waits with it.
//!
//! In: a [`Task`]. Out: what the other process answers, or none, and then the caller does it where it stands.
//! Must never: wait without a bound, or take an answer that was cut off for one.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Everything, MARGIN, PATIENCE, Thaws};
use crate::host::thread;
use crate::path_encoding::bytes;
use crate::run::journal::Journal;
use crate::window::guard::process::OWN;

/// What the hidden first argument begins with that makes this binary do a [`Task`].
pub const ARGUMENT: &str = "__rescue:";

/// What is to be thawed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Whatever is frozen on this host.
    Everything,
    /// What the dead run of this journal has left.
    Recorded(PathBuf),
    /// What the run of this journal has frozen, though it lives.
    Force(PathBuf),
}

impl Task {
    fn words(&self) -> (&'static str, Option<&Path>) {
        match self {
            Self::Everything => ("everything", None),
            Self::Recorded(journal) => ("recorded:", Some(journal)),
            Self::Force(journal) => ("force:", Some(journal)),
        }
    }

    fn argument(&self) -> OsString {
        let (what, journal) = self.words();
        let journal = journal.map(|j| j.as_os_str().as_bytes()).unwrap_or_default();
        OsString::from_vec([ARGUMENT.as_bytes(), what.as_bytes(), journal].concat())
    }

    fn parse(argument: &OsStr) -> Option<Self> {
        let task = argument.as_bytes().strip_prefix(ARGUMENT.as_bytes())?;
        let journal = |rest: &[u8]| PathBuf::from(OsStr::from_bytes(rest));
        match (task.strip_prefix(b"recorded:"), task.strip_prefix(b"force:")) {
            (Some(rest), _) => Some(Self::Recorded(journal(rest))),
            (_, Some(rest)) => Some(Self::Force(journal(rest))),
            _ => (task == b"everything").then_some(Self::Everything),
        }
    }

    fn done_here(&self) -> Result<Everything, String> {
        let of = |journal: &Path, thaw: fn(&Journal) -> Thaws| {
            Ok(Everything { thaws: thaw(&Journal::read(journal)?), unread: Vec::new() })
        };
        match self {
            Self::Everything => super::everything_here().map_err(|e| e.to_string()),
            Self::Recorded(journal) => of(journal, super::recorded_here),
            Self::Force(journal) => of(journal, super::force_here),
        }
    }
}

/// A path as its bytes: it need not be UTF-8.
#[derive(Debug, Serialize, Deserialize)]
struct Bytes(#[serde(with = "bytes")] PathBuf);

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    thawed: Vec<Bytes>,
    /// With the errno.
    failed: Vec<(Bytes, i32)>,
    unread: Vec<String>,
}

impl From<Everything> for Answer {
    fn from(Everything { thaws: (thawed, failed), unread }: Everything) -> Self {
        Self {
            thawed: thawed.into_iter().map(Bytes).collect(),
            failed: failed.into_iter().map(|(path, errno)| (Bytes(path), errno as i32)).collect(),
            unread,
        }
    }
}

impl From<Answer> for Everything {
    fn from(answer: Answer) -> Self {
        let thawed = answer.thawed.into_iter().map(|Bytes(path)| path).collect();
        let failed = answer.failed.into_iter().map(|(Bytes(path), errno)| (path, Errno::from_raw(errno)));
        Self { thaws: (thawed, failed.collect()), unread: answer.unread }
    }
}

/// Has another process do it; none when it could not be started or did not answer.
pub(super) fn elsewhere(task: &Task) -> Option<Result<Everything, String>> {
    let (tell, answer) = channel();
    let argument = task.argument();
    // In a thread, since the start of a process may hang as well: at the open of its program.
    let ask = move || {
        let mut child = Command::new(OWN);
        child.arg0("stillpoint").arg(argument).current_dir("/").env_clear();
        child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = child.spawn() else { return };
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        if matches!(read, Some(Ok(_))) {
            let _ = tell.send(serde_json::from_str::<Result<Answer, String>>(&line).ok());
        }
        // It may be inside a FITHAW for long; this thread alone waits for it.
        let _ = child.wait();
    };
    thread::start("rescue", ask).ok()?;
    // Each thaw has limits of its own; the rest is for the start, and for reading the tables.
    let answer = answer.recv_timeout(PATIENCE + 3 * MARGIN).ok().flatten()?;
    Some(answer.map(Everything::from))
}

/// The whole life of the other process.
#[must_use]
pub fn main(argument: &OsStr) -> ExitCode {
    // Out of the terminal: its Ctrl-C is for whoever waits, and would break off a FITHAW.
    let _ = nix::unistd::setsid();
    let Some(task) = Task::parse(argument) else { return ExitCode::FAILURE };
    let answer = task.done_here().map(Answer::from);
    let Ok(mut line) = serde_json::to_vec(&answer) else { return ExitCode::FAILURE };
    line.push(b'\n');
    match std::io::stdout().write_all(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_survives_its_way_through_an_argument() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/run/a:b \xff/x.json"));
        for task in [Task::Everything, Task::Recorded(odd.clone()), Task::Force(odd)] {
            assert_eq!(Task::parse(&task.argument()), Some(task));
        }
        for other in ["__rescue:", "__rescue:all", "__rescue", "thaw"] {
            assert_eq!(Task::parse(other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn an_answer_keeps_paths_that_are_no_text() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/m\xff"));
        let given = Everything {
            thaws: (vec![odd.clone()], vec![(odd.clone(), Errno::EIO)]),
            unread: vec!["x".into()],
        };
        let line = serde_json::to_string(&Ok::<_, String>(Answer::from(given))).unwrap();
        let read: Result<Answer, String> = serde_json::from_str(&line).unwrap();
        let read = Everything::from(read.unwrap());
        assert_eq!(read.thaws, (vec![odd.clone()], vec![(odd, Errno::EIO)]));
        assert_eq!(read.unread, ["x"]);
    }
}
