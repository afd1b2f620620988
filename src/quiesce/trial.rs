//! Can a command be started? The kernel is asked, by the same call that starts it.
//!
//! ```text
//! hook's program ─→ the kernel loads it: interpreter, dynamic loader, rights of the user, mount options
//!   └ what `env`, `timeout`, `nice`, `sudo`, … start, or the `env` in a first line: found, and loaded likewise
//! ```
//!
//! A process of its own becomes the hook's user, and one below it calls execve(2) under ptrace(2): it stops
//! before the program's first instruction, and is killed there. So nothing of the program runs, and there is no
//! second opinion here on what a good file is (binfmt_misc, foreign machines, `noexec`, interpreters of
//! interpreters).
//!
//! In: hooks, this program. Out: a [`NotExecutable`] for each command that cannot start. Must never: run an
//! instruction of a hook, wait without a limit, or refuse what it could not try.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::environment::PATH;
use super::shell_words::assignment;
use super::user::{self, BecomeError};
use super::verbs::Verbs as _;
use super::{NotExecutable, executable};
use crate::config::hooks::with_settings;
use crate::config::settings::{Hook, HookKind};
use crate::host::kernel::{Load, load};
use crate::host::thread;
use crate::path_encoding::printable;

/// The first argument of the process that tries.
pub const ARGUMENT: &str = "__try-start";
/// How long one may take: a name service, or a network filesystem, may not answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Its exit code where nothing was found out. No errno is as high.
const NOT_KNOWN: u8 = 255;
/// Its exit code where there is no such user.
const NO_USER: u8 = 254;
/// Commands inside of commands that are followed; the kernel follows five interpreters itself.
const DEEPEST: usize = 6;
/// How much of a file the kernel looks at (BINPRM_BUF_SIZE, linux/binfmts.h).
const HEAD: u64 = 256;

/// A program that starts the one in its arguments, as far as its options are known here. At any other option
/// nothing is said of what it starts.
struct Launcher {
    name: &'static str,
    /// Letters of options without a value, and with one.
    flags: &'static str,
    values: &'static str,
    /// Long options without a value. One with `=` needs no entry.
    long: &'static [&'static str],
    /// Words before the command.
    operands: usize,
    /// Are there NAME=VALUE words before the command?
    assigns: bool,
    /// It starts the command as somebody else, with another PATH.
    as_other: bool,
}

const PLAIN: Launcher =
    Launcher { name: "", flags: "", values: "", long: &[], operands: 0, assigns: false, as_other: false };

const LAUNCHERS: [Launcher; 10] = [
    Launcher { name: "env", flags: "0v", values: "u", long: &["--null", "--debug"], assigns: true, ..PLAIN },
    Launcher {
        name: "timeout",
        flags: "v",
        values: "ks",
        long: &["--foreground", "--preserve-status", "--verbose"],
        operands: 1,
        ..PLAIN
    },
    Launcher { name: "nice", values: "n", ..PLAIN },
    Launcher { name: "ionice", flags: "t", values: "cn", long: &["--ignore"], ..PLAIN },
    Launcher { name: "chrt", flags: "bfior", operands: 1, ..PLAIN },
    Launcher { name: "nohup", ..PLAIN },
    Launcher { name: "setsid", flags: "cfw", long: &["--ctty", "--fork", "--wait"], ..PLAIN },
    Launcher { name: "stdbuf", values: "ioe", ..PLAIN },
    Launcher { name: "flock", flags: "nxsueoF", values: "wE", operands: 1, ..PLAIN },
    Launcher { name: "sudo", flags: "nEHSkP", values: "ug", assigns: true, as_other: true, ..PLAIN },
];

/// Commands of these hooks that cannot be started. `program` is this program's own file.
pub(crate) fn not_startable(hooks: &[Hook], program: &Path) -> Vec<NotExecutable> {
    let mut found = Vec::new();
    for hook in hooks {
        let user = with_settings!(&hook.kind, settings => settings.user());
        let own = with_settings!(&hook.kind, settings => settings.variables());
        let path = own.into_iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
        let path = path.unwrap_or_else(|| PATH.into());
        let tries = Tries { program, user };
        if let Some(Err((name, why))) = with_settings!(&hook.kind, settings => settings.program()) {
            found.push(NotExecutable {
                hook: hook.name.clone(),
                edge: "own",
                program: name.into(),
                source: io::Error::other(why),
            });
        }
        for (edge, argv) in commands(hook) {
            let Some(first) = argv.first() else { continue };
            if let Err((program, source)) = tries.command(Path::new(first), &argv, &path) {
                found.push(NotExecutable { hook: hook.name.clone(), edge, program, source });
            }
        }
    }
    found
}

/// The commands of a hook, a script of a directory included.
fn commands(hook: &Hook) -> Vec<(&'static str, Vec<String>)> {
    if let HookKind::Script(script) = &hook.kind {
        return vec![("freeze", vec![script.program.to_string_lossy().into_owned()])];
    }
    if let Some(Ok(program)) = with_settings!(&hook.kind, settings => settings.program()) {
        return vec![("own", vec![program.to_string_lossy().into_owned()])];
    }
    hook.commands().map(|(edge, argv)| (edge, argv.to_vec())).collect()
}

/// What cannot be started, and why.
type Failed = (PathBuf, io::Error);

struct Tries<'a> {
    program: &'a Path,
    user: Option<&'a str>,
}

impl Tries<'_> {
    /// The command itself, then what it starts.
    fn command(&self, file: &Path, argv: &[String], path: &OsStr) -> Result<(), Failed> {
        let failed = |e| (file.to_owned(), e);
        executable(file).map_err(failed)?;
        if let Some(why) = self.load(file) {
            return Err((file.to_owned(), explained(file, self.user, why)));
        }
        self.within(file, argv.to_vec(), path.to_owned(), 0)
    }

    /// What the program of `argv`, which can be loaded, starts in its turn.
    fn within(&self, file: &Path, argv: Vec<String>, path: OsString, depth: usize) -> Result<(), Failed> {
        if depth > DEEPEST {
            return Ok(());
        }
        if let Some(words) = first_line(file, argv.get(1..).unwrap_or_default()) {
            let interpreter = PathBuf::from(&words[0]);
            return self.within(&interpreter, words, path, depth + 1);
        }
        let Some(next) = next(file, argv.get(1..).unwrap_or_default(), path) else { return Ok(()) };
        let started = match found(&next) {
            Some(Ok(started)) => started,
            Some(Err(e)) => return Err((PathBuf::from(&next.words[0]), e)),
            None => return Ok(()),
        };
        match self.load(&started) {
            None => self.within(&started, next.words, next.path, depth + 1),
            // execvp(3) gives a file without `#!` to a shell.
            Some(Why::Errno(Errno::ENOEXEC)) if !is_program(&started) => Ok(()),
            Some(Why::Errno(Errno::EACCES)) if next.as_other => Ok(()),
            Some(why) => Err((started.clone(), explained(&started, self.user, why))),
        }
    }

    /// Why the kernel cannot start it; none when it can, and when that cannot be tried.
    fn load(&self, file: &Path) -> Option<Why> {
        let mut command = Command::new(self.program);
        command.arg(ARGUMENT).arg(self.user.unwrap_or_default()).arg(file);
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (tell, heard) = channel();
        // In a thread: the start of a process may hang as well.
        let tried = thread::start("try-start", move || {
            let Ok(mut child) = command.spawn() else { return };
            let _ = tell.send(Err(child.id()));
            let _ = tell.send(Ok(child.wait()));
        });
        tried.ok()?;
        let Ok(Err(process)) = heard.recv_timeout(LIMIT) else { return None };
        let Ok(Ok(ended)) = heard.recv_timeout(LIMIT) else {
            // It takes the one below it along, which is at no instruction of the program.
            let _ = kill(Pid::from_raw(i32::try_from(process).ok()?), Signal::SIGKILL);
            return None;
        };
        let code = ended.ok().filter(|status| status.signal().is_none())?.code()?;
        match u8::try_from(code).unwrap_or(NOT_KNOWN) {
            0 | NOT_KNOWN => None,
            NO_USER => Some(Why::NoUser),
            // A security module may refuse a program under ptrace(2) that it would start without.
            errno => Some(Why::Errno(Errno::from_raw(errno.into())))
                .filter(|w| !matches!(w, Why::Errno(Errno::EPERM))),
        }
    }
}

enum Why {
    NoUser,
    Errno(Errno),
}

/// The command in the arguments of a launcher.
struct Next {
    words: Vec<String>,
    path: OsString,
    as_other: bool,
}

/// What the kernel starts in place of a script: the interpreter, its one option, the script's path and the
/// arguments (execve(2)).
fn first_line(file: &Path, arguments: &[String]) -> Option<Vec<String>> {
    let head = head(file);
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches([' ', '\t']);
    let (interpreter, option) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let option = Some(option.trim_matches([' ', '\t']).to_owned()).filter(|o| !o.is_empty());
    let script = file.to_string_lossy().into_owned();
    let words = [interpreter.to_owned()].into_iter().chain(option).chain([script]);
    Some(words.chain(arguments.iter().cloned()).collect())
}

fn head(file: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let _ = std::fs::File::open(file).and_then(|f| f.take(HEAD).read_to_end(&mut head));
    head
}

/// Not for a shell to read.
fn is_program(file: &Path) -> bool {
    head(file).starts_with(b"\x7fELF")
}

/// The command that `program` starts with these arguments; none where that is not certain.
fn next(program: &Path, arguments: &[String], mut path: OsString) -> Option<Next> {
    let name = program.file_name()?;
    let launcher = LAUNCHERS.iter().find(|l| name == l.name)?;
    let mut operands = launcher.operands;
    let mut words = arguments.iter();
    let mut options = true;
    while let Some(word) = words.next() {
        let rest = || std::iter::once(word).chain(words.clone()).cloned().collect();
        match word.strip_prefix('-').filter(|_| options) {
            Some("-") => options = false,
            Some(long) if long.starts_with('-') => {
                if !long.contains('=') && !launcher.long.contains(&word.as_str()) {
                    return None;
                }
            }
            Some(letters) => {
                let valued = letters.char_indices().find(|(_, c)| !launcher.flags.contains(*c));
                match valued {
                    _ if letters.is_empty() => return None,
                    None => {}
                    Some((_, c)) if !launcher.values.contains(c) => return None,
                    Some((at, c)) if at + c.len_utf8() == letters.len() => drop(words.next()?),
                    // Its value is behind it in the same word.
                    Some(_) => {}
                }
            }
            None => {
                options = false;
                if let Some((name, value)) = assignment(word).filter(|_| launcher.assigns) {
                    if name == "PATH" {
                        path = value.into();
                    }
                } else if operands > 0 {
                    operands -= 1;
                } else if word.starts_with('-') {
                    return None;
                } else {
                    return Some(Next { words: rest(), path, as_other: launcher.as_other });
                }
            }
        }
    }
    None
}

/// The file of its first word, as execvp(3) finds it; none where that is not certain.
fn found(next: &Next) -> Option<io::Result<PathBuf>> {
    let word = next.words.first()?;
    if word.contains('/') {
        let file = Path::new("/").join(word);
        return Some(executable(&file).map(|()| file));
    }
    // sudo has a PATH of its own.
    if next.as_other {
        return None;
    }
    let in_path =
        std::env::split_paths(&next.path).map(|folder| folder.join(word)).find(|f| executable(f).is_ok());
    let missing = || {
        let what = format!("there is no {} in {}", shown(word), shown(&next.path.to_string_lossy()));
        io::Error::new(io::ErrorKind::NotFound, what)
    };
    Some(in_path.ok_or_else(missing))
}

/// In words from the first line of a file, a carriage return has to be seen.
fn shown(text: &str) -> String {
    printable(text).into_owned()
}

fn explained(file: &Path, user: Option<&str>, why: Why) -> io::Error {
    let errno = match why {
        Why::NoUser => {
            let user = user.unwrap_or_default();
            return io::Error::new(io::ErrorKind::InvalidInput, format!("there is no system user `{user}`"));
        }
        Why::Errno(errno) => errno,
    };
    let plain = io::Error::from(errno);
    let interpreter = first_line(file, &[]).map(|words| shown(&words[0]));
    let text = match (errno, interpreter) {
        (Errno::ENOENT, Some(interpreter)) => format!("its interpreter `{interpreter}` is not there"),
        (Errno::ENOENT, None) => "the dynamic loader that it names is not there".to_owned(),
        (Errno::ENOEXEC, Some(interpreter)) => {
            format!("the kernel cannot start its interpreter `{interpreter}` ({errno})")
        }
        (Errno::ENOEXEC, None) if is_program(file) => {
            format!("it is a program for another machine, or damaged ({errno})")
        }
        (Errno::ENOEXEC, None) => {
            format!("it has no first line such as `#!/bin/sh`, and is no program of this machine ({errno})")
        }
        (Errno::EACCES, interpreter) => {
            let what = interpreter.map_or_else(String::new, |i| format!(" or its interpreter `{i}`"));
            let who = user.map_or_else(|| "it".to_owned(), |user| format!("user `{user}`"));
            match user {
                Some(_) => format!("{who} may not execute it{what}, or pass a folder on the way"),
                None => format!("it{what} may not be executed, or is on a noexec mount"),
            }
        }
        _ => return plain,
    };
    io::Error::new(plain.kind(), text)
}

/// The process that tries: a user's name or nothing, and a file. Its exit code is 0, an errno, or one of those
/// above.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    // Whoever asked may die before it can end this process.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let args: Vec<OsString> = args.collect();
    let [name, file] = args.as_slice() else { return NOT_KNOWN.into() };
    if !name.is_empty() {
        match user::become_user(&name.to_string_lossy()) {
            Ok(()) => {}
            Err(BecomeError::Unknown(_)) => return NO_USER.into(),
            Err(BecomeError::Refused { .. }) => return NOT_KNOWN.into(),
        }
    }
    let Ok(file) = CString::new(file.as_bytes()) else { return NOT_KNOWN.into() };
    match load(&file) {
        Load::Loaded => ExitCode::SUCCESS,
        Load::Refused(errno) => u8::try_from(errno as i32).unwrap_or(NOT_KNOWN).into(),
        Load::NotTried => NOT_KNOWN.into(),
    }
}

#[cfg(test)]
#[path = "tests/trial.rs"]
mod tests;
