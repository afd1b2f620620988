//! `stillpoint before [PLAN] -- COMMAND`: a set, then the command, then how it ended as a tag of the set.
//!
//! ```text
//! refuse     a command that is not there
//! set        `stillpoint snapshot`, a process of its own: this one stays as whoever started it made it, for the command
//! command    with this process's terminal, folder, environment and descriptors
//! tag        how it ended; how to go back
//! ```
//!
//! In: a plan, a command. Out: the command's exit status; its output alone on stdout. Must never: run the command
//! where no set was taken, unless asked to, or while a filesystem may be frozen.

mod held;
mod relay;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use self::held::{Held, Taken};
use self::relay::Relay;
use super::sets::Account;
use super::start::OWN_PROGRAM;
use super::{Global, OfSet, print, say};
use crate::config;
use crate::ec2::keep::Keep as _;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::kernel::die_by;
use crate::sets::before::{self, Ended};

#[derive(Debug, Args)]
pub(super) struct Before {
    #[command(flatten)]
    of_set: OfSet,
    /// Keep the set until this day, such as 2027-01-31, or `forever`: until `stillpoint release`.
    #[arg(long, value_name = "DATE", default_value = "forever", value_parser = super::keep::until)]
    keep_until: String,
    /// What the set's tags say instead of the command. They can be read by whoever may list snapshots.
    #[arg(long, value_name = "TEXT")]
    what: Option<String>,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = config::duration, default_value = "0s")]
    wait_lock: Duration,
    /// Run the command when every snapshot is completed, and not as soon as the point in time is fixed.
    #[arg(long)]
    wait: bool,
    /// Run the command also where no set could be taken. Not where a filesystem may still be frozen or is not mounted.
    #[arg(long)]
    run_anyway: bool,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Take the set and return, for hooks of package managers: `--end` says later that the command has ended.
    #[arg(long, conflicts_with_all = ["end", "command", "run_anyway"])]
    begin: bool,
    /// With --begin: the tags say the command line of this process, and not `--what`.
    #[arg(long, value_name = "PID", requires = "begin", conflicts_with = "what", value_parser = clap::value_parser!(i32).range(1..))]
    command_of: Option<i32>,
    /// The command that `--begin` was for has ended.
    #[arg(long, conflicts_with_all = ["command", "what", "wait", "run_anyway", "dry_run"])]
    end: bool,
    /// With --end: its exit status.
    #[arg(long, value_name = "STATUS", requires = "end")]
    status: Option<u8>,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND", required_unless_present_any = ["begin", "end"])]
    command: Vec<OsString>,
}

impl Before {
    /// Returns the exit status of the process: the command's own, where it ran.
    pub(super) async fn run(&self, global: &Global) -> Result<u8, Error> {
        let plan = self.of_set.selection.plan.as_deref();
        if self.end {
            return self.end(global, plan).await;
        }
        if let Some(word) = self.command.first() {
            findable(word)?;
        }
        let what = self.what()?;
        let mut relay =
            Relay::listen().map_err(|e| Error::new(Exit::Bug, format!("cannot catch signals: {e}")))?;
        if self.dry_run {
            let status = relay.wait(&mut self.snapshot(global, &what, Stdio::inherit())?).await;
            if status.success() && !self.command.is_empty() {
                say(&format!("then: {}", before::line(&self.command)));
            }
            return Ok(code(status));
        }
        let mut child = self.snapshot(global, &what, Stdio::piped())?;
        let mut out = child.stdout.take();
        let read = async {
            let mut record = Vec::new();
            if let Some(out) = &mut out {
                // What could not be read is no record, and that is said.
                let _ = out.read_to_end(&mut record).await;
            }
            record
        };
        let (status, record) = tokio::join!(relay.wait(&mut child), read);
        let taken = self.taken(status, &record)?;
        if self.begin {
            let Some(taken) = taken else { return Ok(code(status)) };
            print(taken.set.as_str());
            Held::note(global, plan, taken)?;
            return Ok(code(status));
        }
        self.command(global, plan, &mut relay, taken.as_ref()).await
    }

    /// Runs the command, and tags the set with how it ended.
    async fn command(
        &self,
        global: &Global,
        plan: Option<&str>,
        relay: &mut Relay,
        taken: Option<&Taken>,
    ) -> Result<u8, Error> {
        let Some((word, arguments)) = self.command.split_first() else { return Ok(Exit::Ok.code()) };
        let line = before::line(&self.command);
        say(&format!("running {line}"));
        let started = Command::new(word).args(arguments).spawn();
        let mut child = started.map_err(|e| not_started(word, &e))?;
        let status = relay.wait(&mut child).await;
        let (ended, status) = (Ended::now(status), code(status));
        say(&format!("{line} {ended}"));
        let Some(taken) = taken else { return Ok(status) };
        let tagged = tag(global, plan, taken, &ended).await;
        say(&taken.ways_back());
        match tagged {
            Ok(()) => Ok(status),
            Err(e) => {
                say(&format!("warning: the tags of set {} do not say how it ended: {e}", taken.set));
                Ok(if status == 0 { Exit::After.code() } else { status })
            }
        }
    }

    /// Says that what `--begin` was for has ended.
    async fn end(&self, global: &Global, plan: Option<&str>) -> Result<u8, Error> {
        let held = Held::find(global, plan)?;
        let ended = Ended::said(self.status);
        let tagged = tag(global, plan, &held.taken, &ended).await;
        say(&held.taken.ways_back());
        tagged?;
        held.forget();
        Ok(Exit::Ok.code())
    }

    /// What the tags say.
    fn what(&self) -> Result<String, Error> {
        let of_process = |pid: i32| {
            let said = crate::host::process::command_line(Path::new("/"), pid);
            said.map(|bytes| before::line(&words(&bytes))).map_err(|e| {
                Error::new(Exit::Usage, format!("--command-of {pid}: cannot read its command line: {e}"))
                    .hint("--what says it in words")
            })
        };
        let what = match (&self.what, self.command_of) {
            (Some(what), _) => what.clone(),
            (None, Some(pid)) => of_process(pid)?,
            (None, None) => before::line(&self.command),
        };
        if before::tag(&what).is_none() {
            return Err(Error::new(Exit::Usage, "nothing says what the set is taken before")
                .hint("--what \"upgrade to 16.3\""));
        }
        Ok(what)
    }

    /// Starts `stillpoint snapshot` with the same options.
    fn snapshot(&self, global: &Global, what: &str, stdout: Stdio) -> Result<tokio::process::Child, Error> {
        let mut command = std::process::Command::new(OWN_PROGRAM);
        command
            .arg0("stillpoint")
            .args(["snapshot", "--alone"])
            .args(global.words())
            .args(self.of_set.words());
        command.arg("--keep-until").arg(&self.keep_until).arg(format!("--before={what}"));
        command.arg(format!("--wait-lock={}", humantime::format_duration(self.wait_lock)));
        if self.wait {
            command.arg("--wait");
        }
        if self.dry_run {
            command.arg("--dry-run");
        } else {
            command.args(["--output", "json"]);
        }
        command.stdin(Stdio::null()).stdout(stdout);
        Command::from(command).spawn().map_err(|e| not_started(OsStr::new(OWN_PROGRAM), &e))
    }

    /// The set, where the command may be run. None: there is none, and it may.
    fn taken(&self, status: ExitStatus, record: &[u8]) -> Result<Option<Taken>, Error> {
        let exit = status.code().and_then(|code| Exit::try_from(u8::try_from(code).ok()?).ok());
        if let Some(exit @ (Exit::Ok | Exit::Lower | Exit::After)) = exit {
            let taken = Taken::read(record);
            return taken.map(Some).ok_or_else(|| {
                Error::new(
                    Exit::Bug,
                    format!("the run ended with {}, and its record cannot be read", exit.code()),
                )
            });
        }
        let wrong = |exit| matches!(exit, Exit::Usage | Exit::Config);
        let runs = self.run_anyway && exit.is_some_and(|exit: Exit| !exit.hurts() && !wrong(exit));
        if runs {
            say("there is no set to go back to; the command is run all the same (--run-anyway)");
            return Ok(None);
        }
        if !self.command.is_empty() {
            say(&format!("not run: {}", before::line(&self.command)));
        }
        if let Some(signal) = status.signal().and_then(|n| Signal::try_from(n).ok()) {
            crate::gate::finish();
            die_by(signal);
        }
        Err(Error::new(exit.unwrap_or(Exit::Bug), "no set was taken, or it is not what was asked for")
            .hint("the lines above say why; --run-anyway runs the command without a set to go back to"))
    }
}

/// Puts on each snapshot how the command ended.
async fn tag(global: &Global, plan: Option<&str>, taken: &Taken, ended: &Ended) -> Result<(), Error> {
    let loaded = global.load_in(Some(&taken.region), plan, config::Overrides::default())?;
    let account = Account::connected(loaded, false).await?;
    let (ec2, tag) = (account.calls(), [ended.tag()]);
    let put = async || ec2.inner().put_tags(&taken.snapshots, &tag).await;
    ec2.call("CreateTags", put).await.map_err(Error::from)
}

/// The words of /proc/PID/cmdline.
fn words(bytes: &[u8]) -> Vec<OsString> {
    let ended = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    ended.split(|b| *b == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

/// Can this command be started? Looked at before a set is taken for nothing; execve(2) has the last word.
fn findable(word: &OsStr) -> Result<(), Error> {
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let found = if word.as_encoded_bytes().contains(&b'/') {
        runs(Path::new(word))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| crate::host::process::SEARCH_PATH.into());
        std::env::split_paths(&path).any(|folder| runs(&folder.join(word)))
    };
    if found {
        return Ok(());
    }
    let what = format!("there is no command {}", PathBuf::from(word).display());
    Err(Error::new(Exit::Usage, what).hint("what only a shell knows is run by `-- sh -c '…'`"))
}

fn not_started(program: &OsStr, e: &std::io::Error) -> Error {
    Error::new(Exit::Bug, format!("cannot start {}: {e}", Path::new(program).display()))
}

/// As a shell has it in `$?`.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_its_words_with_zeros() {
        assert_eq!(before::line(&words(b"apt\0install\0a b\0")), "apt install 'a b'");
        assert_eq!(before::line(&words(b"apt\0\0")), "apt ''");
    }

    #[test]
    fn how_it_ended_is_told_as_a_shell_does() {
        for (raw, told) in [(0, 0), (100 << 8, 100), (9, 137), (35, 163)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), told);
        }
    }

    #[test]
    fn a_command_that_is_not_there_is_refused() {
        for word in ["sh", "/bin/sh"] {
            findable(OsStr::new(word)).unwrap();
        }
        for word in ["", "no-such-command", "/bin", "/etc/passwd", "./sh", "cd"] {
            assert_eq!(findable(OsStr::new(word)).map_err(|e| e.exit), Err(Exit::Usage), "{word}");
        }
    }
}
