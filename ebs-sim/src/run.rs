//! `ebs-sim run`: serve and a command together, in a network namespace where the metadata service has its
//! real address.
//!
//! In: settings and a command. Out: the command's exit status. The command must never see the real network
//! nor outlive its devices unnoticed.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::Error as Failure;
use crate::host;
use crate::serve::{self, Error, Serving, Settings, Signals};
use crate::view;

/// Where every EC2 instance finds its metadata.
pub const IMDS_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// `ebs-sim run`
pub fn run(settings: Settings, command: &[OsString]) -> Result<ExitCode, Failure> {
    host::preflight(&settings.dir, true)?;
    // Namespaces belong to threads: enter them before there is more than one.
    view::enter_network()?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", "169.254.169.254/32", "dev", "lo"])?;
    serve::runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let mut serving = Serving::start(settings).await?;
        let status = attend(&serving, &mut signals, command).await;
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
async fn attend(serving: &Serving, signals: &mut Signals, command: &[OsString]) -> Result<ExitStatus, Error> {
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .arg("exec")
        .arg("--dir")
        .arg(&serving.ready.dir)
        .arg("--")
        .args(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::runtime("start the command"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut asked = false;
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(Error::runtime("wait for the command")),
            signal = signals.any() => {
                let Some(pid) = pid else { continue };
                // Who asks twice means it.
                let signal = if asked { Signal::SIGKILL } else { signal };
                if signal != Signal::SIGINT || !at_a_terminal() {
                    let _ = nix::sys::signal::kill(pid, signal);
                }
                asked = true;
            }
        }
    }
}

/// Whether Ctrl-C comes from the terminal, which sends it to the command too.
fn at_a_terminal() -> bool {
    nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

fn ip(arguments: &[&str]) -> Result<(), host::Error> {
    host::run(Command::new("ip").args(arguments)).map(drop)
}
