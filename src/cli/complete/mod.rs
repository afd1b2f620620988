//! What may follow on a command line, for the completion of bash, zsh and fish.
//!
//! ```text
//! script of the shell ─▶ __complete SHELL -- WORD…       waits for at most LIMIT
//!                             └▶ __complete-now, the same   a process that may hang: it reads files
//! ```
//!
//! In: the words of a command line up to the cursor. Out: on stdout, the kind of what may follow, and then a line for
//! each word, with what it is behind a tab. Must never: ask EC2 or IMDS, write, print an error, outlast [`LIMIT`], or
//! let a word reach the shell that means more to it than its letters.

mod words;
mod values;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Arg, Args, CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::values::{Place, Values};
use crate::exit::Exit;
use crate::host::thread;

/// The hidden first argument of the process that a shell's script starts.
pub const ARGUMENT: &str = "__complete";
/// The hidden first argument of the process that reads files for it.
pub const NOW: &str = "__complete-now";
/// How long a person who has pressed a key waits at most.
const LIMIT: Duration = Duration::from_secs(2);
/// The most that is taken from that process, in bytes.
const MOST: u64 = 256 << 10;

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// What it has to be told once.
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("stillpoint.bash"),
            Self::Zsh => include_str!("stillpoint.zsh"),
            Self::Fish => include_str!("stillpoint.fish"),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Exit {
        super::print(self.shell.script());
        Exit::Ok
    }
}

/// The process that a shell's script starts: it passes on what the other one says in time.
#[must_use]
pub fn main(rest: impl Iterator<Item = OsString>) -> ExitCode {
    let rest: Vec<OsString> = rest.collect();
    let (tell, heard) = channel();
    // In a thread, since the start of a process may hang as well: at the open of its program. Neither is waited for: a
    // process that reads from a disk that does not answer cannot be ended, and keeps nothing of this one open.
    let started = thread::start("complete", move || {
        let child = Command::new("/proc/self/exe")
            .arg(NOW)
            .args(rest)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return };
        let _ = tell.send(Err(i32::try_from(child.id()).unwrap_or_default()));
        let mut said = Vec::new();
        let read = child.stdout.take().map(|out| out.take(MOST).read_to_end(&mut said));
        if matches!(read, Some(Ok(_))) {
            let _ = tell.send(Ok(said));
        }
    });
    if started.is_err() {
        return ExitCode::SUCCESS;
    }
    let end = std::time::Instant::now() + LIMIT;
    let mut process = None;
    while let Ok(told) = heard.recv_timeout(end.saturating_duration_since(std::time::Instant::now())) {
        match told {
            Err(pid) => process = Some(pid).filter(|pid| *pid > 0),
            Ok(said) => {
                let _ = std::io::stdout().write_all(&said);
                return ExitCode::SUCCESS;
            }
        }
    }
    if let Some(pid) = process {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    ExitCode::SUCCESS
}

/// The process that may hang.
#[must_use]
pub fn now(rest: impl Iterator<Item = OsString>) -> ExitCode {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let mut rest = rest;
    let shell = rest.next().and_then(|s| Shell::from_str(s.to_str()?, false).ok());
    let words: Vec<OsString> = rest.skip_while(|word| word == "--").collect();
    if let Some(shell) = shell {
        let _ = std::io::stdout().write_all(answer(Path::new("/"), shell, words).as_bytes());
    }
    ExitCode::SUCCESS
}

/// What may follow these words, the last of which is not whole.
fn answer(root: &Path, shell: Shell, words: Vec<OsString>) -> String {
    // bash and fish have them as they were typed, zsh has taken the quotes off.
    let typed = words.last().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default();
    let words: Vec<OsString> = match shell {
        Shell::Zsh => words,
        Shell::Bash | Shell::Fish => {
            words.iter().map(|word| words::unquoted(&word.to_string_lossy()).into()).collect()
        }
    };
    let (kind, found) = follow(root, words);
    let mut out = format!("{kind}\n");
    for (value, help) in found {
        let value = match shell {
            Shell::Bash => words::for_bash(&value, &typed),
            Shell::Zsh | Shell::Fish => words::is_printable(&value).then_some(value),
        };
        let Some(value) = value else { continue };
        out.push_str(&value);
        if shell != Shell::Bash && !help.is_empty() {
            out.push('\t');
            out.push_str(&words::for_people(&help));
        }
        out.push('\n');
    }
    out
}

/// The kind of what follows, and the words where this program knows them.
fn follow(root: &Path, words: Vec<OsString>) -> (&'static str, Vec<(String, String)>) {
    let Some(at) = words.len().checked_sub(1).filter(|at| *at > 0) else { return ("words", Vec::new()) };
    let nothing_typed = words[at].is_empty();
    let place = Arc::new(Place::of(root, &words));
    let by_shell = Arc::new(Mutex::new(None));
    let mut cli = prepared(super::Cli::command(), &place, &by_shell);
    let found = complete(&mut cli, words, at, None).unwrap_or_default();
    if let Some(kind) = *by_shell.lock().unwrap_or_else(PoisonError::into_inner) {
        return (kind, Vec::new());
    }
    let text = |candidate: CompletionCandidate| {
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        Some((candidate.get_value().to_str()?.to_owned(), help))
    };
    let mut found: Vec<_> = found.into_iter().filter_map(text).collect();
    // Where nothing is typed, thirty options would hide the names of two plans.
    let is_option = |(value, _): &(String, String)| value.starts_with('-');
    if nothing_typed && !found.iter().all(is_option) {
        found.retain(|one| !is_option(one));
    }
    ("words", found)
}

/// The same command, whose arguments know their values.
fn prepared(
    command: clap::Command,
    place: &Arc<Place>,
    by_shell: &Arc<Mutex<Option<&'static str>>>,
) -> clap::Command {
    let of = |argument: Arg| {
        let Some(values) = Values::of(&argument) else { return argument };
        let (place, by_shell) = (Arc::clone(place), Arc::clone(by_shell));
        argument.add(ArgValueCompleter::new(move |typed: &OsStr| match values.by_shell() {
            Some(kind) => {
                *by_shell.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
                Vec::new()
            }
            None => typed.to_str().map_or_else(Vec::new, |typed| {
                let all = place.find(values, typed).into_iter();
                all.map(|(value, help)| {
                    // clap would take what a terminal acts on for a style.
                    let help = words::for_people(&help);
                    CompletionCandidate::new(value).help((!help.is_empty()).then(|| help.into()))
                })
                .collect()
            }),
        }))
    };
    command.mut_args(of).mut_subcommands(|sub| prepared(sub, place, by_shell))
}

/// The value of an option in these words; the last one counts.
fn option(words: &[OsString], name: &str) -> Option<PathBuf> {
    let with_value = format!("{name}=");
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        if word == name && at + 2 < words.len() {
            found = words.get(at + 1).map(PathBuf::from);
        } else if let Some(value) = word.to_str().and_then(|w| w.strip_prefix(&with_value)) {
            found = Some(value.into());
        }
    }
    found
}
