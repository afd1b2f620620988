//! `ebs-sim faults`: the command line of a fault.
//!
//! In: arguments. Out: a fault as the control API takes it. Every key of a scenario's fault must have its
//! argument.

use clap::{Args, Subcommand};

use super::DirArg;
use crate::faults::{Fault, Kind};

/// What to do with faults.
#[derive(Debug, Subcommand)]
pub enum FaultsVerb {
    /// Set one more fault, and print its number.
    Add(Box<AddFault>),
    /// Show the faults that are set, and how often each has hit.
    List(DirArg),
    /// Wait until a fault holds a request, and print as JSON what it holds.
    ///
    /// The exit status is 1 when it holds none in time.
    Wait(WaitForFault),
    /// Let the requests go on that a fault holds.
    ///
    /// The exit status is 1 when it holds none.
    Release(OneFault),
    /// Show the requests that are held now.
    Held(DirArg),
    /// Forget one fault; what it holds goes on.
    Remove(OneFault),
    /// Forget all faults; what they hold goes on.
    Clear(DirArg),
}

/// Which fault is meant.
#[derive(Debug, Args)]
pub struct OneFault {
    #[command(flatten)]
    pub dir: DirArg,
    /// Its number.
    pub id: u64,
}

/// What to wait for.
#[derive(Debug, Args)]
pub struct WaitForFault {
    #[command(flatten)]
    pub fault: OneFault,
    /// For how many requests.
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// For how long, such as 500ms.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub within: std::time::Duration,
}

impl WaitForFault {
    /// What is asked of the control API.
    pub fn path(&self) -> String {
        let within = milliseconds(self.within);
        format!("faults/{}/held?within_ms={within}&count={}", self.fault.id, self.count)
    }
}

/// A fault.
#[derive(Debug, Args)]
pub struct AddFault {
    #[command(flatten)]
    pub dir: DirArg,
    /// The action it hits: CreateSnapshots, imds:PutToken, imds:Get, connection, imds:connection.
    ///
    /// * and ? are wildcards; * alone is all of EC2's.
    #[arg(long)]
    action: String,
    /// What happens.
    #[arg(long)]
    kind: Kind,
    /// From the Nth matching call on, counted from 1; without --times and --probability, only that one.
    #[arg(long)]
    call: Option<u64>,
    /// How many calls it hits.
    #[arg(long)]
    times: Option<u64>,
    /// How likely each matching call is hit, from 0 to 1.
    #[arg(long)]
    probability: Option<f64>,
    /// What the chance begins with: the same calls are hit for the same seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Which requests it hits.
    #[arg(long, default_value = "false", value_parser = ["true", "false", "any"])]
    dry_run: String,
    /// Of the metadata service: the path, with wildcards.
    #[arg(long)]
    path: Option<String>,
    /// The error code.
    #[arg(long)]
    code: Option<String>,
    /// The error message.
    #[arg(long)]
    message: Option<String>,
    /// The HTTP status.
    #[arg(long)]
    status: Option<u16>,
    /// How long a delay takes, such as 500ms.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    delay: std::time::Duration,
    /// Of hold-…: after how long a request goes on that nobody releases; a minute when absent.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    at_most: Option<std::time::Duration>,
    /// Of slow-progress: how many times as long, when there is no delay.
    #[arg(long)]
    factor: Option<f64>,
    /// Of detach-volume: the volume's id or name.
    #[arg(long)]
    volume: Option<String>,
}

impl AddFault {
    /// The fault that is meant.
    pub fn fault(&self) -> Fault {
        Fault {
            call: self.call,
            times: self.times,
            probability: self.probability,
            seed: self.seed,
            dry_run: match self.dry_run.as_str() {
                "any" => None,
                text => Some(text == "true"),
            },
            path: self.path.clone(),
            code: self.code.clone(),
            message: self.message.clone(),
            status: self.status,
            delay_ms: milliseconds(self.delay),
            at_most_ms: self.at_most.map(milliseconds),
            factor: self.factor,
            volume: self.volume.clone(),
            ..Fault::new(&self.action, self.kind)
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
