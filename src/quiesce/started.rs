//! Which files a command starts, as far as its words tell.
//!
//! `["/usr/bin/timeout", "5", "/bin/sh", "/opt/x"]` starts timeout, sh and /opt/x: whoever can change one of
//! them decides what the command does. Programs that start others and interpreters are known by their names;
//! of the text of `sh -c` the words in the places of commands are taken, and of a script the interpreter in
//! its first line. What a program finds out while it runs (variables, what a script starts) is not seen.
//!
//! In: argv and variables. Out: paths. Must never: leave out a word that may be started because it does not
//! know an option before it.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::executable;
use super::shell_words::{assignment, simple_commands};
use crate::host::process::SEARCH_PATH;
use crate::host::trust::{self, Loose, Trusted};

/// Programs that read the file in their first argument, and the letters of the options by which they take
/// their program from the command line instead.
const INTERPRETERS: [(&str, &str); 14] = [
    ("python", "cm"),
    ("perl", "eE"),
    ("ruby", "e"),
    ("node", "ep"),
    ("nodejs", "ep"),
    ("php", "r"),
    ("lua", "e"),
    ("tclsh", ""),
    ("expect", "c"),
    ("Rscript", "e"),
    ("make", ""),
    (".", ""),
    ("source", ""),
    ("java", ""),
];
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"];
/// Programs whose program is in an option alone (`awk -f`): their arguments are data.
const BY_OPTION: [&str; 5] = ["awk", "gawk", "mawk", "sed", "bc"];
/// Programs that start the one in their arguments.
const LAUNCHERS: [&str; 46] = [
    "env",
    "timeout",
    "nice",
    "ionice",
    "sudo",
    "doas",
    "setpriv",
    "chrt",
    "nohup",
    "setsid",
    "stdbuf",
    "taskset",
    "numactl",
    "flock",
    "chroot",
    "unshare",
    "nsenter",
    "runuser",
    "su",
    "sg",
    "systemd-run",
    "systemd-inhibit",
    "systemd-cat",
    "xargs",
    "time",
    "strace",
    "ltrace",
    "prlimit",
    "cgexec",
    "busybox",
    "exec",
    "command",
    "builtin",
    "script",
    "watch",
    "setarch",
    "linux",
    "i386",
    "x86_64",
    "find",
    "capsh",
    "choom",
    "uclampset",
    "dbus-run-session",
    "chpst",
    "softlimit",
];
/// Variables with files that a program loads and runs, or with folders in which it looks for them.
const LOADED: [&str; 13] = [
    "PATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "RUBYLIB",
    "NODE_PATH",
    "GCONV_PATH",
];
/// Commands inside of commands that are followed.
const DEEPEST: usize = 12;

/// The first place by which somebody else could change what this command starts.
///
/// # Errors
/// That place.
pub(super) fn check(argv: &[String], vars: &[(String, OsString)], trusted: Trusted) -> Result<(), Loose> {
    files(argv, vars).iter().try_for_each(|file| trust::check(file, trusted))
}

/// Every file that this command starts, and every folder that its variables make it look into.
pub(super) fn files(argv: &[String], vars: &[(String, OsString)]) -> Vec<PathBuf> {
    let mut search = Search {
        path: std::env::split_paths(SEARCH_PATH).collect(),
        folder: PathBuf::from("/"), // where hooks work
        found: Vec::new(),
    };
    // Also where it is not there: whoever could put it there counts as well.
    if let Some(program) = argv.first() {
        search.found.push(PathBuf::from(program));
    }
    for (name, value) in vars {
        search.assign(name, &value.to_string_lossy());
    }
    search.command(argv, 0);
    search.found
}

struct Search {
    path: Vec<PathBuf>,
    folder: PathBuf,
    found: Vec<PathBuf>,
}

impl Search {
    /// One simple command.
    fn command(&mut self, words: &[String], depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let mut words = words;
        while let [first, rest @ ..] = words
            && let Some((name, value)) = assignment(first)
        {
            self.assign(name, value);
            words = rest;
        }
        let [program, arguments @ ..] = words else { return };
        if let Some(file) = self.file(program).filter(|f| executable(f).is_ok()) {
            self.start(file, depth);
        }
        let name = Path::new(program).file_name().and_then(|n| n.to_str()).unwrap_or(program);
        let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        let plain = if plain.is_empty() { name } else { plain };
        let is = |known: &str| known == name || known == plain;
        if SHELLS.into_iter().any(is) {
            self.shell(arguments, depth);
        } else if let Some((_, code)) = INTERPRETERS.into_iter().find(|(known, _)| is(known)) {
            self.interpreter(arguments, code, depth);
        } else if BY_OPTION.into_iter().any(is) {
            self.option_files(arguments, depth);
        } else if LAUNCHERS.into_iter().any(is) {
            self.launcher(arguments, depth);
        } else if name == "cd" {
            self.folder = arguments.first().map_or_else(|| self.folder.clone(), |to| self.folder.join(to));
        } else if name == "eval" {
            self.text(&arguments.join(" "), depth);
        } else if name == "trap" {
            arguments.first().into_iter().for_each(|text| self.text(text, depth));
        }
    }

    fn text(&mut self, text: &str, depth: usize) {
        for words in simple_commands(text) {
            self.command(&words, depth + 1);
        }
    }

    fn shell(&mut self, arguments: &[String], depth: usize) {
        let mut text_follows = false;
        for word in arguments {
            match word.as_str() {
                option if option.starts_with('-') || option.starts_with('+') => {
                    text_follows |= !option.starts_with("--") && option.contains('c');
                }
                text if text_follows => return self.text(text, depth),
                // The value of an option (`-o pipefail`) is no file.
                script => {
                    if let Some(file) = self.file(script) {
                        return self.start(file, depth);
                    }
                }
            }
        }
    }

    fn interpreter(&mut self, arguments: &[String], code: &str, depth: usize) {
        for word in arguments {
            match word.strip_prefix('-') {
                Some("-eval" | "-execute" | "-print") => return,
                Some(letters) if letters.starts_with('-') => {}
                Some(letters) if letters.contains(|c| code.contains(c)) => return,
                Some(_) => {}
                None => {
                    if let Some(file) = self.file(word) {
                        return self.start(file, depth);
                    }
                }
            }
        }
    }

    fn option_files(&mut self, arguments: &[String], depth: usize) {
        for pair in arguments.windows(2) {
            let [option, value] = pair else { continue };
            let named = matches!(option.as_str(), "-f" | "--file");
            if let Some(file) = self.file(value).filter(|_| named) {
                self.start(file, depth);
            }
        }
    }

    /// The program is the first word that can be started. One after an option may be the option's value
    /// (`sudo -u postgres`), so then the next counts too.
    fn launcher(&mut self, arguments: &[String], depth: usize) {
        let mut after_option = false;
        for (i, word) in arguments.iter().enumerate() {
            let attached = word.strip_prefix("-S").or_else(|| word.strip_prefix("--split-string="));
            let attached = attached.or_else(|| word.strip_prefix("--command=")).filter(|t| !t.is_empty());
            if let Some(text) = attached {
                // `env -S` puts what follows behind its text.
                let all = [&[text.to_owned()], arguments.get(i + 1..).unwrap_or_default()].concat();
                return self.text(&all.join(" "), depth);
            }
            let short = word.starts_with('-') && !word.starts_with("--") && word.ends_with(['c', 'S']);
            if short || matches!(word.as_str(), "--command" | "--session-command" | "--split-string") {
                arguments.get(i + 1).into_iter().for_each(|text| self.text(text, depth));
            }
            if word.starts_with('-') {
                after_option = true;
                continue;
            }
            if let Some((name, value)) = assignment(word) {
                self.assign(name, value);
            } else if self.file(word).is_some_and(|f| executable(&f).is_ok()) {
                self.command(arguments.get(i..).unwrap_or_default(), depth + 1);
                if !after_option {
                    return;
                }
            }
            after_option = false;
        }
    }

    fn assign(&mut self, name: &str, value: &str) {
        if !LOADED.contains(&name) {
            return;
        }
        let kept = std::mem::take(&mut self.path);
        let mut places = Vec::new();
        for part in value.split([':', ' ']) {
            if matches!(part, "$PATH" | "${PATH}") {
                places.extend(kept.iter().cloned());
            } else if part.starts_with('/') {
                let part = PathBuf::from(part);
                if !kept.contains(&part) && !self.found.contains(&part) {
                    self.found.push(part.clone());
                }
                places.push(part);
            }
        }
        self.path = if name == "PATH" { places } else { kept };
    }

    /// The file that a word names, in the working folder or in PATH.
    fn file(&self, word: &str) -> Option<PathBuf> {
        let is_file = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.is_file());
        if word.contains('/') {
            return Some(self.folder.join(word)).filter(is_file);
        }
        let in_path = self.path.iter().map(|f| f.join(word)).find(|p| executable(p).is_ok());
        in_path.or_else(|| Some(self.folder.join(word)).filter(|p| !word.is_empty() && is_file(p)))
    }

    fn start(&mut self, file: PathBuf, depth: usize) {
        // The first is the command's own program, whose head has not been read yet.
        if self.found.iter().skip(1).any(|known| *known == file) {
            return;
        }
        let mut head = Vec::new();
        let _ = std::fs::File::open(&file).and_then(|f| f.take(256).read_to_end(&mut head));
        let argument = file.to_string_lossy().into_owned();
        self.found.push(file);
        // The kernel gives an interpreter one word at most, and the script's path behind it (execve(2)).
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        if let Some(line) = line.strip_prefix("#!").map(str::trim) {
            let (interpreter, option) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let option = Some(option.trim().to_owned()).filter(|o| !o.is_empty());
            let words: Vec<_> =
                [interpreter.to_owned()].into_iter().chain(option).chain([argument]).collect();
            self.command(&words, depth + 1);
        }
    }
}

#[cfg(test)]
#[path = "tests/started.rs"]
mod tests;
