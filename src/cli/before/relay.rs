//! Signals while another process runs for this one.
//!
//! In: signals. Out: the child's end; SIGTERM and SIGHUP are passed on to it. Must never: end this process, or catch
//! what whoever started it has had ignored: `nohup` means the command, too.

use std::io;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What was caught.
pub(super) struct Relay {
    caught: mpsc::Receiver<Signal>,
}

impl Relay {
    /// Starts listening.
    pub fn listen() -> io::Result<Self> {
        let (tell, caught) = mpsc::channel(8);
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
        for of in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            if ignored & (1 << (of as i32 - 1)) != 0 {
                continue;
            }
            let mut stream = signal(SignalKind::from_raw(of as i32))?;
            let tell = tell.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    let _ = tell.send(of).await;
                }
            });
        }
        Ok(Self { caught })
    }

    /// Waits for the child.
    pub async fn wait(&mut self, child: &mut Child) -> ExitStatus {
        loop {
            let caught = tokio::select! {
                status = child.wait() => {
                    // ECHILD: somebody else has waited for it, and that it ended well is not known.
                    return status.unwrap_or_else(|_| std::os::unix::process::ExitStatusExt::from_raw(1 << 8));
                }
                Some(caught) = self.caught.recv() => caught,
            };
            // A terminal has sent the other two to the child itself.
            let passed_on = matches!(caught, Signal::SIGTERM | Signal::SIGHUP);
            if let Some(id) = child.id().filter(|_| passed_on).and_then(|id| i32::try_from(id).ok()) {
                let _ = kill(Pid::from_raw(id), caught);
            }
        }
    }
}

/// The signals that a process ignores (proc_pid_status(5), SigIgn), a bit each.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored(status), 1 << 12 | 1);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }
}
