//! `stillpoint status`: what may be frozen, by which run, until when, what has to be undone, and how each plan's
//! last run ended.
//!
//! In: journals; with --probe, the filesystems themselves. Out: text or JSON on stdout, exit code 0, 40, 41
//! or 42; with --wait-idle also 11 and 75. Must never: change anything, or touch a filesystem that may be
//! frozen from this process.

use std::time::Duration;

use clap::Args;

use super::{Global, Output, print, print_document, say};
use crate::config;
use crate::error::Error;
use crate::exit::Exit;
use crate::path_encoding::shown;
use crate::quiesce::systemctl;
use crate::report;
use crate::run::{idle, status};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Ask every filesystem whether it is frozen, by whomever. Takes at most 10 seconds; a probe that finds
    /// one waits there, in state D, until it is thawed.
    #[arg(long)]
    probe: bool,
    /// Before this program is removed: wait until no run goes on, for at most this time, such as 2m. Exit code
    /// 75 when one still does, 11 when something is still to be released; a hint says which command ends it.
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    wait_idle: Option<Duration>,
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

impl Status {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let (run_dir, state_dir) = super::thaw::folders(global);
        if !nix::unistd::geteuid().is_root() {
            let what =
                format!("what runs have noted in {} cannot be read, so nothing is known", shown(&run_dir));
            return Err(Error::new(Exit::Permission, what).hint("run it with sudo"));
        }
        let mut obstacles = Vec::new();
        if let Some(limit) = self.wait_idle {
            let goes_on = idle::wait(&run_dir, limit).await.map_err(|e| {
                let what = format!("it is not known whether a run goes on: {}: {e}", shown(&run_dir));
                Error::new(Exit::NotKnown, what)
            })?;
            obstacles.extend(goes_on);
        }
        let program = std::path::Path::new(super::start::OWN_PROGRAM);
        let timers = systemctl::timers().await;
        let mut status = status::read(&run_dir, &state_dir, self.probe.then_some(program), timers)
            .map_err(|e| Error::new(Exit::StillFrozen, format!("cannot list the mounts: {e}")))?;
        if self.wait_idle.is_some() {
            let left = idle::left(&status);
            // The journal of the run that has the lock says more of it.
            if left.iter().any(|o| o.exit == Exit::Locked) {
                obstacles.clear();
            }
            obstacles.extend(left);
            status.exit = obstacles.iter().fold(status.exit, |worst, o| worst.or_worse(o.exit));
        }
        match self.output {
            Output::Text => print(&report::status::human(&status)),
            Output::Json => {
                print_document(&status)?;
            }
        }
        for obstacle in obstacles {
            say(&format!("error: {}\nhint: {}", obstacle.what, obstacle.hint));
        }
        Ok(status.exit)
    }
}
