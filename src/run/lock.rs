//! One run at a time on a host.
//!
//! In: the run folder. Out: a lock that ends with the process. Must never: be inherited by a hook or the
//! watchdog (the fd is close-on-exec).

use std::path::Path;
use std::time::Duration;

use super::control_socket;
use crate::doctor::{refuse, storage};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::file;
use crate::host::lock::{self, FileLock, NoLock};

/// Held as long as the value exists.
#[derive(Debug)]
pub struct RunLock {
    _held: FileLock,
}

/// Takes the lock, waiting for at most `wait`.
///
/// # Errors
/// Exit 75 when another run holds it, 77 when the folder cannot be written, 78 when somebody else than root
/// could change what is in it.
pub async fn take(run_dir: &Path, wait: Duration) -> Result<RunLock, Error> {
    let denied = |e: std::io::Error| {
        Error::new(Exit::Permission, format!("cannot use {}: {e}", run_dir.display())).hint("run as root")
    };
    // Drop-ins of the configuration are below /run/stillpoint, and an ordinary user's plan goes by them too.
    file::make_passage(run_dir).map_err(denied)?;
    refuse(storage::own_folder("run_dir", run_dir))?;
    let pid = match lock::take(&run_dir.join("lock"), wait).await {
        Ok(held) => return Ok(RunLock { _held: held }),
        Err(NoLock::Unusable(e)) => return Err(denied(e)),
        Err(NoLock::Taken { pid }) => pid,
    };
    if let Some(held) = control_socket::held(run_dir, None) {
        let what = format!("run {} holds a freeze", held.state.run);
        return Err(Error::new(Exit::Locked, what)
            .hint("`stillpoint thaw` ends it; `stillpoint status` says until when it lasts at most"));
    }
    let who = pid.map_or_else(|| "another run".to_owned(), |pid| format!("another run (pid {pid})"));
    let what = format!("{who} holds {}/lock", run_dir.display());
    Err(Error::new(Exit::Locked, what).hint("wait for it, or give --wait-lock 10m"))
}
