//! The two processes around a contained command.
//!
//! ```text
//! outer    unshare, then wait: whoever unshares a PID namespace is not in it
//! inner    process 1 of it: mounts, becomes the user, starts the command, and ends with it or with its standard input
//! ```
//!
//! In: a [`Request`] on standard input. Out: the exit code of the command. Must never: run the command where a step
//! before it failed, or leave a mount in the host's namespace.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::{Mounted, NOT_STARTED, Request, SCRATCH, SET, databases};
use crate::host::{beneath, device, kernel, mount_api, trust};
use crate::path_encoding::shown;
use crate::quiesce::user;
use crate::restore::mounts;

/// The second argument of the inner one.
const INNER: &str = "1";
/// What is empty for the command: where servers have their sockets, and programs their temporary files.
const EMPTY: [&str; 3] = ["/run", "/tmp", "/var/tmp"];
/// The most that lies there.
const LITTLE: u64 = 64 << 20;

/// Becomes one of the two.
#[must_use]
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let done = match args.next() {
        None => outer(),
        Some(which) if which == INNER => inner(),
        Some(_) => Err("no such process".to_owned()),
    };
    done.unwrap_or_else(|why| {
        let _ = writeln!(std::io::stderr(), "{why}");
        ExitCode::from(NOT_STARTED)
    })
}

fn terminations() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals
}

fn outer() -> Result<ExitCode, String> {
    // The command gets SIGTERM, and some time. Without its parent, nobody would wait for process 1.
    terminations().thread_block().map_err(|e| e.desc().to_owned())?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC;
    unshare(namespaces)
        .map_err(|e| format!("this process cannot have namespaces of its own: {}", e.desc()))?;
    // What is unmounted on the host goes here, too, or it would be kept busy; what is mounted here stays here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|e| format!("mounts cannot be kept apart from the host's: {}", e.desc()))?;
    let status = Command::new("/proc/self/exe")
        .args([super::ARGUMENT, INNER])
        .status()
        .map_err(|e| format!("no process can be started in namespaces of its own: {e}"))?;
    Ok(code(status))
}

/// As a shell has it: 128 and the signal.
fn code(status: std::process::ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|s| 128 + s)).and_then(|c| u8::try_from(c).ok());
    ExitCode::from(code.unwrap_or(NOT_STARTED))
}

fn inner() -> Result<ExitCode, String> {
    terminations().thread_unblock().map_err(|e| e.desc().to_owned())?;
    let mut input = BufReader::new(std::io::stdin());
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
    let request: Request = serde_json::from_slice(&line).map_err(|e| format!("no request: {e}"))?;
    // When memory runs out, this goes first, and not a server of the host.
    let _ = crate::host::process::set_oom_score("self", 1000);
    surroundings(&request)?;
    let target = folder(SET)?;
    for one in &request.mounts {
        restored(&target, one).map_err(|why| format!("{}: {why}", shown(&one.at)))?;
    }
    match &request.database {
        Some(database) => become_owner(in_place(&target, &request, &database.data)?)?,
        None => become_user(&request)?,
    }
    // From now on a second thread is allowed. It ends all of this when verify ends, however that ends.
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while !matches!(input.read(&mut rest), Ok(0) | Err(_)) {}
        #[allow(clippy::exit, reason = "process 1 of its namespace: all others in it end with it")]
        std::process::exit(i32::from(NOT_STARTED));
    });
    if let Some(database) = &request.database {
        return databases::check(database.kind, &database.data);
    }
    let (program, arguments) = request.argv.split_first().ok_or("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(request.vars.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    Ok(code(status))
}

/// The host, as the command sees it.
fn surroundings(request: &Request) -> Result<(), String> {
    let mounted = |what: &str, at: &str, options: &str| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(what), at, Some(what), flags, Some(options)).map_err(|e| format!("{at}: {}", e.desc()))
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open("/", flags, Mode::empty()).map_err(|e| format!("/: {}", e.desc()))?;
    mount_api::read_only_below(&root)
        .map_err(|e| format!("the host's files cannot be made read-only: {}", e.desc()))?;
    mounted("proc", "/proc", "")?;
    for place in EMPTY.into_iter().filter(|p| Path::new(p).is_dir()) {
        let mode = if place == "/run" { "0755" } else { "1777" };
        mounted("tmpfs", place, &format!("mode={mode},size={LITTLE}"))?;
    }
    for place in [SET, SCRATCH] {
        std::fs::create_dir_all(place).map_err(|e| format!("{place}: {e}"))?;
    }
    mounted("tmpfs", SCRATCH, &format!("mode=1777,size={}", request.scratch))?;
    kernel::loopback_up().map_err(|e| format!("the loopback interface does not come up: {}", e.desc()))
}

fn folder(path: &str) -> Result<OwnedFd, String> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    open(path, flags, Mode::empty()).map_err(|e| format!("{path}: {}", e.desc()))
}

fn restored(target: &OwnedFd, one: &Mounted) -> Result<(), String> {
    let node = device::node(one.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", one.dev))?;
    let made = mounts::create(&node, one.dev, &one.others, &one.fstype, &one.options, Some(&one.root))?;
    mounts::attach(target, &one.at, &made, one.attributes)
}

/// Mounts what was restored also where it was: links in a data directory lead there, and its server knows itself by that
/// path. Returns the owner of the data directory.
fn in_place(target: &OwnedFd, request: &Request, data: &Path) -> Result<(Uid, Gid), String> {
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| format!("{}: {}", shown(to), e.desc()))
    };
    let set = Path::new(SET);
    let mut devices = Vec::new();
    for one in &request.mounts {
        let (restored, place) = (set.join(&one.at), Path::new("/").join(&one.at));
        devices.push(fs::metadata(&restored).map_err(|e| format!("{}: {e}", shown(&place)))?.dev());
        // A root is not mounted over the programs that look at it.
        if !one.at.as_os_str().is_empty() && place.is_dir() {
            bind(&restored, &place)?;
        }
    }
    let look = || fs::metadata(data).ok().filter(|m| m.is_dir() && devices.contains(&m.dev()));
    if look().is_none() && request.mounts.iter().any(|m| m.at.as_os_str().is_empty()) && data.is_dir() {
        let root = mounts::over(target.try_clone().map_err(|e| e.to_string())?)?;
        let found = beneath::below(&root, data.strip_prefix("/").unwrap_or(data));
        let found = found.map_err(|e| format!("the restored {}: {}", shown(data), e.desc()))?;
        bind(&trust::by_descriptor(&found), data)?;
    }
    let Some(there) = look() else {
        return Err(format!(
            "{} is on no filesystem that was restored, or this host has no such folder to mount it at",
            shown(data)
        ));
    };
    match there.uid() {
        0 => Err(format!("{} belongs to root, and no database is run as root", shown(data))),
        uid => Ok((Uid::from_raw(uid), Gid::from_raw(there.gid()))),
    }
}

/// This process is the owner from here on, and so is all that it starts.
fn become_owner((uid, gid): (Uid, Gid)) -> Result<(), String> {
    setgroups(&[gid])
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .map_err(|e| e.desc().to_owned())?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| e.desc().to_owned())
}

/// Nothing that it starts gets more rights than it has from here on.
fn become_user(request: &Request) -> Result<(), String> {
    if let Some(name) = &request.user {
        user::become_user(name).map_err(|e| e.to_string())?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(|e| e.desc().to_owned())
}
