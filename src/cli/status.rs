//! `stillpoint status`: what may be frozen, by which run, until when, what has to be undone, and how each plan's
//! last run ended.
//!
//! In: journals; with --probe, the filesystems themselves. Out: text or JSON on stdout, exit code 0, 40, 41
//! or 42. Must never: change anything, or touch a filesystem that may be frozen from this process.

use clap::Args;

use super::{Global, Output, print, print_document};
use crate::error::Error;
use crate::exit::Exit;
use crate::path_encoding::shown;
use crate::quiesce::systemctl;
use crate::report;
use crate::run::status;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Ask every filesystem whether it is frozen, by whomever. Takes at most 10 seconds; a probe that finds
    /// one waits there, in state D, until it is thawed.
    #[arg(long)]
    probe: bool,
    /// What stdout gets: text or json.
    #[arg(long, short, value_enum, default_value_t)]
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
        let program = std::path::Path::new(super::start::OWN_PROGRAM);
        let timers = systemctl::timers().await;
        let status = status::read(&run_dir, &state_dir, self.probe.then_some(program), timers)
            .map_err(|e| Error::new(Exit::StillFrozen, format!("cannot list the mounts: {e}")))?;
        match self.output {
            Output::Text => print(&report::status::human(&status)),
            Output::Json => {
                print_document(&status)?;
            }
        }
        Ok(status.exit)
    }
}
