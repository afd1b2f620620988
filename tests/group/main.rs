//! Three hosts take their sets at one instant, and at every step of one of them something goes wrong: with the host,
//! with its way to etcd, with etcd, with EC2. Whatever it is: nothing stays frozen, nobody's set says more than what
//! is proven, and nothing stays in etcd.
//!
//! ```text
//! cases     what goes wrong, where, and with whom
//! lane      three hosts and an etcd, one case after another: start the members, strike, look
//!   agent     a member: the library's run, with every step told
//! check     what has to hold after each case
//! ```
//!
//! `STILLPOINT_GROUP`: `sample` (the default), `full` (all), or a part of cases' names. `STILLPOINT_GROUP_LANES`: how many
//! at a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod agent;
mod cases;
mod check;
mod lane;
#[path = "../walk/load.rs"]
#[allow(dead_code, reason = "the walk uses all of it")]
mod load;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use cases::Case;
use lane::{Lane, Outcome};

fn main() -> ExitCode {
    if std::env::var_os(agent::FOLDER).is_some() {
        return agent::main();
    }
    // What cargo-nextest asks of a test binary: this is one test, and none that is ignored.
    if std::env::args().any(|a| a == "--list") {
        if !std::env::args().any(|a| a == "--ignored") {
            println!("group: test");
        }
        return ExitCode::SUCCESS;
    }
    let what = std::env::var("STILLPOINT_GROUP").unwrap_or_else(|_| "sample".to_owned());
    let cases: VecDeque<Case> = match what.as_str() {
        "sample" => Case::sample(),
        "full" => Case::all(),
        part => Case::all().into_iter().filter(|case| case.to_string().contains(part)).collect(),
    }
    .into();
    if cases.is_empty() {
        eprintln!("no such case: {what}");
        return ExitCode::FAILURE;
    }
    let lanes: usize = std::env::var("STILLPOINT_GROUP_LANES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let (started, number) = (Instant::now(), cases.len());
    let (cases, outcomes) = (Mutex::new(cases), Mutex::new(Vec::<Outcome>::new()));
    std::thread::scope(|scope| {
        for _ in 0..lanes.min(number) {
            scope.spawn(|| {
                let mut lane = Lane::new();
                loop {
                    let Some(case) = cases.lock().unwrap().pop_front() else { return };
                    let outcome = lane.walk(&case);
                    println!("{outcome}");
                    if !outcome.wrong.is_empty() {
                        lane = Lane::new();
                    }
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let wrong = outcomes.iter().filter(|o| !o.wrong.is_empty()).count();
    let as_group = outcomes.iter().filter(|o| o.group > 0).count();
    let some = outcomes.iter().filter(|o| (1..3).contains(&o.group)).count();
    println!(
        "\n{number} cases in {:.0} s: {as_group} with sets of the group ({some} of them not on all hosts), {wrong} wrong",
        started.elapsed().as_secs_f64()
    );
    for outcome in outcomes.iter().filter(|o| !o.wrong.is_empty()) {
        println!("\n{outcome}");
        outcome.wrong.iter().for_each(|wrong| println!("  {wrong}"));
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
