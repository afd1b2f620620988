//! The process that talks to one database for a run of stillpoint. Started by stillpoint, never by hand.
//!
//! A program of its own, so that the SQL and Redis clients are not in the file that the agent and the
//! watchdog run from: what these have mapped is locked in memory while filesystems are frozen.

fn main() -> std::process::ExitCode {
    stillpoint::quiesce::databases::main()
}
