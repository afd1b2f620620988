//! Another user: a process becomes it, for good, before it runs what is not stillpoint's own.
//!
//! In: a user's name. Out: a process of that user, with that user's groups. Must never: keep a group or an id
//! of root, or run the program when it could not become the user.

use std::ffi::{CString, OsString};
use std::process::ExitCode;

use nix::unistd::{User, geteuid, initgroups, setgid, setuid};

use super::started;
use crate::host::trust::{Loose, Trusted};

/// The first argument of a process that becomes a user and then another program.
pub const ARGUMENT: &str = "__as";

/// Where a user's rootless programs keep their sockets (XDG base directory specification). Empty in the variables
/// that this process gets, it is filled in with the one that logind makes, or `loginctl enable-linger`.
pub(super) const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";

/// The argv that runs `argv` as `user`, by way of this program. Its file is named by /proc/self/exe,
/// because that user may not be able to reach its path.
#[must_use]
pub fn argv(user: &str, argv: &[String]) -> Vec<String> {
    let mut all = vec!["/proc/self/exe".to_owned(), ARGUMENT.to_owned(), user.to_owned()];
    all.extend_from_slice(argv);
    all
}

/// Becomes the user and runs the rest of the arguments. Returns only when that failed.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let args: Vec<OsString> = args.collect();
    let [user, program, arguments @ ..] = args.as_slice() else { return ExitCode::from(127) };
    let name = user.to_string_lossy();
    // Looked up here: a directory server that does not answer keeps this process alone waiting, which has a
    // timeout.
    let why = match lookup(&name).and_then(|user| switch_to(&name, &user).map(|()| user)) {
        Ok(user) => {
            // Also the user itself may have been led to somebody else's file since the run's first look.
            if let Err(loose) = check(program, arguments) {
                return failed(&super::not_started(&loose));
            }
            let mut command = std::process::Command::new(program);
            if std::env::var_os("HOME").is_none() {
                command.env("HOME", &user.dir);
            }
            if std::env::var_os(RUNTIME_FOLDER).is_some_and(|folder| folder.is_empty()) {
                command.env(RUNTIME_FOLDER, format!("/run/user/{}", user.uid));
            }
            let failed = command.args(arguments).exec();
            format!("cannot run {}: {failed}", program.to_string_lossy())
        }
        Err(why) => why.to_string(),
    };
    failed(&why)
}

/// Standard error is part of the hook's output, which the log and the outcome quote.
fn failed(why: &str) -> ExitCode {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{why}\n").as_bytes());
    ExitCode::from(127)
}

/// Could anybody but root and this process's user change what this command starts?
fn check(program: &OsString, arguments: &[OsString]) -> Result<(), Loose> {
    let words = [program].into_iter().chain(arguments).map(|a| a.to_string_lossy().into_owned());
    let vars: Vec<_> =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    started::check(&words.collect::<Vec<_>>(), &vars, Trusted::own())
}

/// The ids of this user and of its group.
///
/// # Errors
/// When there is no such user.
pub(super) fn ids(name: &str) -> Result<(u32, u32), BecomeError> {
    lookup(name).map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// Why this process cannot become that user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BecomeError {
    #[error("there is no system user `{0}`")]
    Unknown(String),
    #[error("cannot become the system user `{user}`: {source}")]
    Refused { user: String, source: nix::errno::Errno },
}

/// Becomes this system user, with all its groups, for good. This process must have one thread.
///
/// # Errors
/// When there is no such user, or this process is neither root nor that user.
pub(crate) fn become_user(name: &str) -> Result<(), BecomeError> {
    switch_to(name, &lookup(name)?)
}

fn refused(name: &str, source: nix::errno::Errno) -> BecomeError {
    BecomeError::Refused { user: name.to_owned(), source }
}

fn lookup(name: &str) -> Result<User, BecomeError> {
    let user = User::from_name(name).map_err(|e| refused(name, e))?;
    user.ok_or_else(|| BecomeError::Unknown(name.to_owned()))
}

fn switch_to(name: &str, user: &User) -> Result<(), BecomeError> {
    if geteuid() == user.uid {
        return Ok(());
    }
    let c_name = CString::new(name).map_err(|_| BecomeError::Unknown(name.to_owned()))?;
    initgroups(&c_name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|e| refused(name, e))?;
    // Without this, /proc/self would belong to root from here on, and this process could not read its own
    // fdinfo.
    nix::sys::prctl::set_dumpable(true).map_err(|e| refused(name, e))
}

impl BecomeError {
    #[must_use]
    pub fn hint(&self) -> String {
        let (Self::Unknown(user) | Self::Refused { user, .. }) = self;
        format!("only root can become `{user}`; see `user` and `os_user` in the configuration")
    }
}
