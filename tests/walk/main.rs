//! Every step of a run is hit once by everything that can hit it, on filesystems under load, and P1–P4 hold
//! after each.
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
//! `STILLPOINT_WALK`: `sample` (each point once; the default), `full` (all), `soak` (by chance, see
//! scripts/soak), or one case such as `request#1/sigkill/xfs`, or a part of cases' names.
//! `STILLPOINT_WALK_VERBOSE` prints each case.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod agent;
mod boundaries;
mod check;
mod lane;
mod load;
mod points;
mod report;
mod soak;
mod walker;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lane::{Lane, Outcome};
use points::Case;
use rig::Fs;
use soak::Soak;

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(agent::CASE) {
        return agent::main(&case);
    }
    // What cargo-nextest asks of a test binary: this is one test, and none that is ignored.
    if std::env::args().any(|a| a == "--list") {
        if !std::env::args().any(|a| a == "--ignored") {
            println!("walk: test");
        }
        return ExitCode::SUCCESS;
    }
    let what = std::env::var("STILLPOINT_WALK").unwrap_or_else(|_| "sample".to_owned());
    let started = Instant::now();
    let (outcomes, whole) = match what.as_str() {
        "sample" => (walk(&|fs| of(fs, Case::sample())), true),
        "full" => (walk(&|fs| of(fs, Case::all())), true),
        "soak" => {
            let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
            let minutes: u64 = number("STILLPOINT_SOAK_MINUTES").unwrap_or(1);
            let seed: u64 = number("STILLPOINT_SOAK_SEED").unwrap_or(1);
            println!("seed {seed}, {minutes} min");
            let time = Duration::from_secs(60 * minutes);
            (walk(&|fs| Box::new(Soak::new(seed, fs, time))), false)
        }
        // A part of a case's name stands for all cases with it.
        one => {
            let chosen = match one.parse() {
                Ok(case) => vec![case],
                Err(_) => Case::all().into_iter().filter(|c| c.to_string().contains(one)).collect::<Vec<_>>(),
            };
            if chosen.is_empty() {
                eprintln!("no such case: {what}");
                return ExitCode::FAILURE;
            }
            (walk(&|fs| of(fs, chosen.clone())), false)
        }
    };
    let good = report::print(&outcomes, whole, started.elapsed());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Cases = Box<dyn Iterator<Item = Case>>;

fn of(fs: Fs, cases: Vec<Case>) -> Cases {
    Box::new(cases.into_iter().filter(move |c| c.fs == fs))
}

/// A lane for each filesystem, all at once.
fn walk(cases: &(dyn Fn(Fs) -> Cases + Sync)) -> Vec<Outcome> {
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for fs in Fs::ALL {
            let outcomes = &outcomes;
            scope.spawn(move || {
                let mut cases = cases(fs).peekable();
                if cases.peek().is_none() {
                    return;
                }
                let mut lane = Lane::new(fs);
                for case in cases {
                    let outcome = lane.walk(&case);
                    report::line(&outcome);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}
