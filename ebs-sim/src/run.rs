//! `ebs-sim run`: serve and a command together, in a network namespace where the metadata service has its
//! real address.
//!
//! In: settings and a command. Out: the command's exit status. The command must never see the real network
//! nor outlive its devices unnoticed.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::env::Reach;
use crate::error::Error as Failure;
use crate::serve::{self, Error, Serving, Settings, Signals};
use crate::{host, network, view};

/// `ebs-sim run`
pub fn run(mut settings: Settings, reach: Reach, command: &[OsString]) -> Result<ExitCode, Failure> {
    host::preflight(&settings.dir, true)?;
    // Namespaces belong to threads: enter them before there is more than one.
    view::enter_network()?;
    settings.imds_listener = network::make(settings.source.scenario().instance.private_ip)?;
    serve::runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let mut serving = Serving::start(settings).await?;
        let status = attend(&serving, &mut signals, reach, command).await;
        let stopped = serving.stop();
        let status = status?;
        match status.code() {
            // The command's own failure says more than ours.
            Some(0) => Ok(stopped),
            Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
            None => {
                let signal = status.signal().unwrap_or(0);
                Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(255)))
            }
        }
    })
}

/// Runs the command in its view and passes signals on to it.
async fn attend(
    serving: &Serving,
    signals: &mut Signals,
    reach: Reach,
    command: &[OsString],
) -> Result<ExitStatus, Error> {
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .arg("exec")
        .arg("--dir")
        .arg(&serving.ready.dir)
        .args(reach.arguments())
        .arg("--")
        .args(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::runtime("start the command"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut asked = Asked::default();
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(Error::runtime("wait for the command")),
            signal = signals.any() => {
                let Some(pid) = pid else { continue };
                let means_it = asked.again(signal, Instant::now());
                let signal = if means_it { Signal::SIGKILL } else { signal };
                if signal != Signal::SIGINT || !at_a_terminal() {
                    let _ = nix::sys::signal::kill(pid, signal);
                }
            }
        }
    }
}

/// Ctrl-C and a wrapper's SIGTERM arrive together, and so may the same signal from two sides: that is asking
/// once.
const ONCE: Duration = Duration::from_secs(1);

/// How often the user asked for the end.
#[derive(Debug, Default)]
struct Asked(Vec<(Signal, Instant)>);

impl Asked {
    /// Whether this signal was there before, long enough ago: who asks twice means it.
    fn again(&mut self, signal: Signal, now: Instant) -> bool {
        match self.0.iter().find(|(known, _)| *known == signal) {
            Some((_, first)) => now.duration_since(*first) >= ONCE,
            None => {
                self.0.push((signal, now));
                false
            }
        }
    }
}

/// Whether Ctrl-C comes from the terminal, which sends it to the command too.
fn at_a_terminal() -> bool {
    nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_signal_again_and_later_means_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut asked = Asked::default();
        assert!(!asked.again(Signal::SIGINT, at(0)));
        assert!(!asked.again(Signal::SIGTERM, at(10)), "a wrapper passes it on");
        assert!(!asked.again(Signal::SIGINT, at(999)));
        assert!(asked.again(Signal::SIGINT, at(1000)));
        assert!(!asked.again(Signal::SIGTERM, at(1000)));
    }
}
