//! Made histories → plans. What is counted by hand is written out by hand; what holds for every history is
//! tried on random ones.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;

mod docs;
mod forecast;
mod gfs;
mod holds;
mod limits;
mod meanings;
mod picture;
mod properties;
mod random;
mod values;

const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> Timestamp {
    let text = if text.contains('T') { text.to_owned() } else { format!("{text}T03:00:00Z") };
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn id(n: usize) -> RunId {
    format!("0197f3c2-8b1e-7c55-9d3f-{n:012x}").parse().unwrap()
}

static GROUP: LazyLock<Arc<Group>> = LazyLock::new(|| {
    Arc::new(Group {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        host: "i-0123456789abcdef0".into(),
        plan: "default".into(),
        copies: false,
    })
});

fn set(n: usize, time: Timestamp) -> SetFacts {
    SetFacts {
        id: id(n),
        group: GROUP.clone(),
        time,
        state: State::Good,
        holds: vec![],
        keep_until: None,
        proven: false,
    }
}

fn failed(n: usize, time: Timestamp) -> SetFacts {
    SetFacts { state: State::Failed { why: "Client.InternalError".into() }, ..set(n, time) }
}

/// Good sets at these times, numbered from 0.
fn sets(times: &[&str]) -> Vec<SetFacts> {
    times.iter().enumerate().map(|(n, time)| set(n, at(time))).collect()
}

/// So many sets, a day apart, the last one at `last`.
fn daily(count: usize, last: &str) -> Vec<SetFacts> {
    let time = |n: usize| {
        at(last).checked_sub(SignedDuration::from_hours(24) * i32::try_from(count - 1 - n).unwrap()).unwrap()
    };
    (0..count).map(|n| set(n, time(n))).collect()
}

fn request<'a>(policy: &'a Policy, now: &str) -> Request<'a> {
    Request {
        group: &GROUP,
        policy: Some(policy),
        now: Now { server: at(now), host: at(now) },
        interval: None,
        instance_gone: false,
        // Most tests are about what would go.
        options: Options { yes: true, ..Options::default() },
    }
}

/// The dates, or times of day, of the sets that are kept, oldest first.
fn kept(plan: &PrunePlan) -> Vec<String> {
    let shown = |time: Timestamp| {
        let text = time.to_string();
        text.strip_suffix("T03:00:00Z").map_or(text.clone(), str::to_owned)
    };
    plan.sets.iter().filter(|s| s.verdict == Verdict::Keep).map(|s| shown(s.time)).collect()
}

fn decision(plan: &PrunePlan, n: usize) -> &Decision {
    plan.sets.iter().find(|decision| decision.id == id(n)).unwrap()
}

/// The reasons of a set, in words.
fn reasons(plan: &PrunePlan, n: usize) -> Vec<String> {
    decision(plan, n).reasons.iter().map(ToString::to_string).collect()
}

fn rules(plan: &PrunePlan, n: usize) -> Vec<Rule> {
    decision(plan, n).reasons.iter().map(|reason| reason.rule).collect()
}

fn verdict(plan: &PrunePlan, n: usize) -> Verdict {
    decision(plan, n).verdict
}

fn some(count: u32) -> Option<Count> {
    Some(Count::Of(count))
}

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}
