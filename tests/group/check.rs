//! What has to hold of the labels after each case, by what writers on the hosts have seen and by what is in the images.

use std::collections::BTreeSet;

use rig::hosts::{NAMES, are_of_one_instant, number};
use rig::probe::{needs_recovery, tag};
use rig::program::Ended;
use serde_json::Value;

use crate::cases::{Case, Fault};
use crate::lane::{Events, Lane};

/// Looks at every set that there is. Returns how many hosts have one that says `group`.
pub fn labels(lane: &Lane, case: &Case, ended: &[Ended], wrong: &mut Vec<String>) -> usize {
    let rigs = &lane.hosts.rigs;
    rigs.iter().for_each(rig::Rig::await_quiet);
    let sets: Vec<Vec<Value>> = rigs.iter().map(rig::Rig::snapshots).collect();
    for (n, sets) in sets.iter().enumerate() {
        // One volume a host: with a second run of it, two sets.
        let most = if case.fault == Fault::Rerun && n == case.who { 2 } else { 1 };
        if sets.len() > most {
            wrong.push(format!("{} sets on {}", sets.len(), NAMES[n]));
        }
        for set in sets {
            let (label, instant) = (tag(set, "stillpoint:consistency"), tag(set, "stillpoint:instant"));
            if label == "filesystem" && needs_recovery(&rigs[n], set["id"].as_str().unwrap()) {
                wrong.push(format!("the set of {} was not taken frozen: {set}", NAMES[n]));
            }
            if instant == "group" && label != "filesystem" {
                wrong.push(format!("{}: the group's instant, and {label:?}", NAMES[n]));
            }
        }
    }
    ends(case, ended, &sets, wrong);
    let of_group =
        |sets: &Vec<Value>| sets.iter().find(|set| tag(set, "stillpoint:instant") == "group").cloned();
    let group: Vec<Value> = sets.iter().filter_map(of_group).collect();
    let Some(first) = group.first() else { return 0 };
    one_instant(lane, &sets, tag(first, "stillpoint:epoch"), wrong);
    group.len()
}

/// Some set of this epoch says `group`: then all of them show one instant, though others may say less of themselves.
fn one_instant(lane: &Lane, sets: &[Vec<Value>], epoch: &str, wrong: &mut Vec<String>) {
    let rigs = &lane.hosts.rigs;
    let mut numbers = Vec::new();
    for (n, sets) in sets.iter().enumerate() {
        let found = sets.iter().find(|set| tag(set, "stillpoint:epoch") == epoch);
        match found {
            Some(set) => numbers.push(number(&rigs[n], set)),
            None => wrong.push(format!("no set of {} in an epoch that is the group's", NAMES[n])),
        }
    }
    if numbers.len() < NAMES.len() {
        return;
    }
    if !are_of_one_instant(&numbers) {
        wrong.push(format!("not of one instant: {numbers:?}"));
    }
    // The same by the clock of this one machine.
    let events: Vec<Events> = rigs.iter().map(Events::read).collect();
    let all = |step: &str| -> Vec<i128> { events.iter().filter_map(|e| e.at(step)).collect() };
    let (frozen, answered) = (all("all-frozen").into_iter().max(), all("all-answered").into_iter().max());
    let (Some(frozen), Some(answered)) = (frozen, answered) else {
        wrong.push("the group's instant without a window".to_owned());
        return;
    };
    let requested = all("request").into_iter().min();
    if requested.is_none_or(|requested| requested < frozen) {
        wrong.push("a request was sent before all had frozen".to_owned());
    }
    for (n, load) in lane.loads.iter().enumerate() {
        if load.wrote_between(frozen, answered) {
            wrong.push(format!("{} was written to between the last freeze and the last answer", NAMES[n]));
        }
    }
}

/// Exit codes, and what they say.
fn ends(case: &Case, ended: &[Ended], sets: &[Vec<Value>], wrong: &mut Vec<String>) {
    let struck = |n: usize| n == case.who && case.fault.by_member();
    for (n, ended) in ended.iter().enumerate() {
        let record: Option<Value> = serde_json::from_str(&ended.out).ok();
        let instant = record.as_ref().map(|r| r["group"]["instant"].as_str().unwrap_or("none").to_owned());
        let achieved = record.as_ref().and_then(|r| r["achieved"].as_str()).unwrap_or("none").to_owned();
        let told = (ended.code, instant.as_deref(), achieved.as_str());
        let good = match told {
            (Some(0), Some("group"), "filesystem") => true,
            // Its label could not be put on: the next start does that.
            (Some(11), Some("group"), "filesystem") => true,
            (Some(22), Some("host"), "filesystem" | "crash") => true,
            // A run that was refused before anything was touched, or has taken nothing, or nothing that counts.
            (Some(20 | 21 | 23 | 25), None | Some("none"), "none") => true,
            (Some(20 | 21 | 23 | 25), Some("host"), "crash") => true,
            (Some(70), None, _) => struck(n) && case.fault == Fault::Panic,
            (None, _, _) => struck(n) && ended.signal.is_some(),
            _ => false,
        };
        if !good {
            wrong.push(format!("{} ended with {told:?}", NAMES[n]));
        }
        if let Some(said) = &instant
            && ended.code.is_some()
        {
            let tags: BTreeSet<&str> = sets[n].iter().map(|set| tag(set, "stillpoint:instant")).collect();
            let said = if said == "none" { BTreeSet::new() } else { BTreeSet::from([said.as_str()]) };
            // What a former run of the same member has left has no label yet.
            if !said.iter().all(|said| tags.contains(said)) {
                wrong.push(format!("{}: the record says {said:?}, the tags {tags:?}", NAMES[n]));
            }
        }
    }
    if case.is_plain() {
        let codes: Vec<_> = ended.iter().map(|e| e.code).collect();
        if codes != [Some(0); 3] {
            wrong.push(format!("nothing went wrong, and the members ended with {codes:?}"));
        }
    }
}
