//! ebs-sim: IMDSv2 and the EC2 Query API over real block devices.
//!
//! ```text
//!  scenario ──► host (reflink filesystem, one pool file, loop devices)
//!                 │
//!  HTTP, TLS ─► ec2 (parse → verify signature → faults → authorise → act) ──► sim (world, pool, log)
//!            ─► rest (the Recycle Bin's rules, the EBS direct APIs)    ──►  │
//!            ─► imds (token → tree)                                       ──►  │
//!            ─► control (/_ebs-sim/: faults, log, devices)                ──►  │
//!                 │
//!  lifecycle (what volumes become after the answer), measure (sizes) ──► publish (ebs-sim.json, DIR/view)
//!                 │
//!  exec ──► view (a mount namespace whose /sys shows the loops as EBS disks) ──► COMMAND
//!  run  ──► network (namespaces in which IMDS has its real address), serve, exec
//! ```
//!
//! In: a command line and a scenario file. Out: devices, the servers, and a report of what was
//! done to them. It must never touch a device, mount or file that it did not make itself.
#![forbid(unsafe_code)]
// A command prints: results to stdout, everything else to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod client;
mod control;
mod ec2;
mod env;
mod error;
mod faults;
mod guest;
mod host;
mod http;
mod ids;
mod imds;
mod keys;
mod lifecycle;
mod log;
mod measure;
mod publish;
mod network;
mod pattern;
mod policy;
mod ready;
mod rest;
mod run;
mod scenario;
mod serve;
mod sigv4;
mod sim;
mod state;
mod throttle;
mod tls;
mod units;
mod view;
mod window;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("EBS_SIM_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    match cli::dispatch() {
        Ok(code) => code,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}
