//! What came of a walk, in a table; and whether it is good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stillpoint::run::step::Step;

use crate::lane::Outcome;
use crate::points::{Fault, Point};

/// A line for a case that is not good, or for each with STILLPOINT_WALK_VERBOSE.
pub fn line(outcome: &Outcome) {
    let case = &outcome.case;
    let end = outcome.end.map_or_else(|| "no end".to_owned(), |e| e.to_string());
    if std::env::var_os("STILLPOINT_WALK_VERBOSE").is_some() {
        println!("{case}: {end}");
    }
    if !outcome.wrong.is_empty() {
        println!("FAILED {case}: {end}");
        for wrong in &outcome.wrong {
            println!("    {}", wrong.trim_end().replace('\n', "\n    "));
        }
        println!("    again: STILLPOINT_WALK='{case}' cargo test --workspace --test walk");
    }
}

/// Prints the table. True when every case is good and, in a whole walk, every step was reached.
pub fn print(outcomes: &[Outcome], whole: bool, took: Duration) -> bool {
    let mut faults: BTreeMap<Fault, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        faults.entry(outcome.case.fault).or_default().push(outcome);
    }
    println!("{:<12} {:>5} {:>6} {:>22}  ended with", "fault", "cases", "failed", "to last thaw, ms");
    println!("{:<12} {:>5} {:>6} {:>10} {:>11}", "", "", "", "median", "worst");
    for (fault, outcomes) in &faults {
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for outcome in outcomes {
            *ends.entry(outcome.end.map_or_else(|| "no end".to_owned(), |e| e.to_string())).or_default() += 1;
        }
        let ends: Vec<_> = ends.iter().map(|(end, n)| format!("{end}: {n}")).collect();
        let failed = outcomes.iter().filter(|o| !o.wrong.is_empty()).count();
        let mut times: Vec<_> = outcomes.iter().filter_map(|o| o.thawed_ns).collect();
        times.sort_unstable();
        let ms = |ns: Option<&i128>| {
            ns.map_or_else(
                || "-".to_owned(),
                |ns| format!("{:.1}", i32::try_from(ns / 1000).unwrap_or_default() as f64 / 1e3),
            )
        };
        let (median, worst) = (ms(times.get(times.len() / 2)), ms(times.last()));
        println!(
            "{:<12} {:>5} {failed:>6} {median:>10} {worst:>11}  {}",
            fault.name(),
            outcomes.len(),
            ends.join(", ")
        );
    }
    let failed = outcomes.iter().filter(|o| !o.wrong.is_empty()).count();
    let busy = outcomes.iter().filter(|o| o.busy).count();
    println!("{} cases, {failed} failed, {:.0} s", outcomes.len(), took.as_secs_f64());
    if busy > 0 {
        println!(
            "{busy} of them reached less than they could have, since this machine was busy, and said so"
        );
    }
    let read_only: Vec<_> = outcomes.iter().filter(|o| o.read_only).map(|o| o.case.to_string()).collect();
    if !read_only.is_empty() {
        println!("the kernel made a btrfs read-only, killed inside FITHAW: {}", read_only.join(" "));
    }
    let reached: BTreeSet<&str> =
        outcomes.iter().flat_map(|o| o.reached.iter().map(String::as_str)).collect();
    let steps = Step::ALL.into_iter().filter(|s| !s.of_group()).map(|s| format!("{}#1", s.name()));
    let missed: Vec<String> = Point::all()
        .iter()
        .map(Point::to_string)
        .chain(steps)
        .filter(|p| !reached.contains(p.as_str()))
        .collect();
    if whole && !missed.is_empty() {
        println!("FAILED never reached: {}", missed.join(" "));
        return false;
    }
    failed == 0
}
