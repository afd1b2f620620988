//! Every step of a run is hit once by everything that can hit it, on filesystems under load, and P1–P4 hold after each.
//!
//! ```text
//! points      where a run can be hit, by what, and how it may end then
//! lane        one pair of filesystems, one case after another: start the agent, hit it, look
//!   agent       a process of its own: the library's run over …
//!   boundaries  … the real kernel and the real EC2 client, with points before and after each call
//!   walker      told every point, strikes at one
//!   load        writers that append and fsync all the time
//! check       what has to hold after each case
//! ```
//!
//! `STILLPOINT_WALK`: `sample` (each point once; the default), `full` (all), or one case such as `request#1/sigkill/xfs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod boundaries;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod lane;
mod load;
mod points;
mod report;
mod walker;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use common::rig::Fs;
use lane::{Lane, Outcome};
use points::Case;

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(agent::CASE) {
        return agent::main(&case);
    }
    let what = std::env::var("STILLPOINT_WALK").unwrap_or_else(|_| "sample".to_owned());
    let started = Instant::now();
    let (cases, whole) = match what.as_str() {
        "sample" => (Case::sample(), true),
        "full" => (Case::all(), true),
        // A word of a case's name stands for all cases with it.
        one => match one.parse() {
            Ok(case) => (vec![case], false),
            Err(_) => (Case::all().into_iter().filter(|c| c.to_string().contains(one)).collect(), false),
        },
    };
    if cases.is_empty() {
        eprintln!("no such case: {what}");
        return ExitCode::FAILURE;
    }
    let outcomes = walk(&cases);
    let good = report::print(&outcomes, whole, started.elapsed());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A lane for each filesystem, all at once.
fn walk(cases: &[Case]) -> Vec<Outcome> {
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for fs in [Fs::Ext4, Fs::Xfs, Fs::Btrfs] {
            let mine: Vec<&Case> = cases.iter().filter(|c| c.fs == fs).collect();
            let outcomes = &outcomes;
            if mine.is_empty() {
                continue;
            }
            scope.spawn(move || {
                let mut lane = Lane::new(fs);
                for case in mine {
                    let outcome = lane.walk(case);
                    report::line(&outcome);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}
