//! One run at a time on a host.
//!
//! In: the run folder. Out: a lock that lives as long as the process. Must never: be held by a hook or the watchdog (the fd is close-on-exec).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;
use crate::exit::Exit;

/// The lock.
#[derive(Debug)]
pub struct RunLock {
    _held: Flock<File>,
}

/// Takes the lock, waiting for at most `wait`.
///
/// # Errors
/// Exit 75 when another run holds it, 77 when the folder cannot be written.
pub async fn take(run_dir: &Path, wait: Duration) -> Result<RunLock, Error> {
    let denied = |e: std::io::Error| {
        Error::new(Exit::Permission, format!("cannot use {}: {e}", run_dir.display())).hint("run as root")
    };
    super::journal::make_folder(run_dir).map_err(denied)?;
    let end = Instant::now() + wait;
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(run_dir.join("lock"))
        .map_err(denied)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                let _ = held.set_len(0);
                let _ = held.rewind();
                let _ = writeln!(&mut *held, "{}", std::process::id());
                return Ok(RunLock { _held: held });
            }
            Err((file, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => file,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                if let Some(held) = super::control_socket::held(run_dir, None) {
                    return Err(Error::new(Exit::Locked, format!("run {} holds a freeze", held.state.run))
                        .hint(
                            "`stillpoint thaw` ends it; `stillpoint status` says until when it lasts at most",
                        ));
                }
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let who = match pid.trim() {
                    "" => "another run".to_owned(),
                    pid => format!("another run (pid {pid})"),
                };
                return Err(Error::new(Exit::Locked, format!("{who} holds {}/lock", run_dir.display()))
                    .hint("wait for it, or give --wait-lock 10m"));
            }
            Err((_, errno)) => return Err(denied(errno.into())),
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
