//! What other tools have of the volumes of a plan: Data Lifecycle Manager, AWS Backup, somebody else.
//!
//! In: every snapshot of these volumes. Out: findings, none of them a problem. Must never: take a set of stillpoint's for
//! another tool's, or say anything of what was not looked at.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Finding;
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::plan::Plan;

const ID: &str = "other-snapshots";
/// The newest moments of a tool that tell at which time it comes: fewer are no habit.
const HABIT: usize = 3;
/// Around that time.
const ABOUT: SignedDuration = SignedDuration::from_mins(45);
/// Snapshots of one moment: of one policy, of several volumes.
const ONE_MOMENT: SignedDuration = SignedDuration::from_mins(10);
const DAY: i64 = 24 * 3600;

/// Who made a snapshot, as its tags say; none where a run of stillpoint did.
fn maker(snapshot: &TaggedSnapshot) -> Option<&'static str> {
    let has = |start: &str| snapshot.tags.iter().any(|(key, _)| key.starts_with(start));
    match () {
        () if snapshot.tag(RUN_TAG).is_some() => None,
        () if has("aws:dlm:") || has("dlm:managed") => Some("Data Lifecycle Manager"),
        () if has("aws:backup:") => Some("AWS Backup"),
        () => Some("somebody else"),
    }
}

/// What each of the others has, a finding each.
#[must_use]
pub fn others(plan: &Plan, snapshots: &[TaggedSnapshot]) -> Vec<Finding> {
    let of_plan = |s: &&TaggedSnapshot| plan.volumes.iter().any(|v| v.id == s.view.volume);
    let mut makers: BTreeMap<&str, Vec<&TaggedSnapshot>> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(of_plan) {
        if let Some(who) = maker(snapshot) {
            makers.entry(who).or_default().push(snapshot);
        }
    }
    if makers.is_empty() {
        return vec![Finding::ok(ID, "nobody else has snapshots of these volumes")];
    }
    let of_maker = |(who, its): (&str, Vec<&TaggedSnapshot>)| {
        let volumes: BTreeSet<&str> = its.iter().map(|s| s.view.volume.as_str()).collect();
        let times: Vec<Timestamp> = its.iter().filter_map(|s| s.view.started).collect();
        let pending = its.iter().filter(|s| s.view.state == "pending").count();
        let mut what =
            format!("{who} has {} of {}", count(its.len(), "snapshot"), count(volumes.len(), "volume"));
        if let Some(newest) = times.iter().max() {
            let at = newest.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M");
            what += &format!(", the newest of {at} UTC");
        }
        if let Some(time) = habit(times) {
            what += &format!(", usually at about {:02}:{:02} UTC", time / 3600, time % 3600 / 60);
        }
        if pending > 0 {
            what += &format!("; {pending} of them pending");
        }
        Finding::ok(ID, what).at(volumes.iter().map(ToString::to_string))
    };
    makers.into_iter().map(of_maker).collect()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The time of day, in seconds, at which the newest moments are, where they agree.
fn habit(mut times: Vec<Timestamp>) -> Option<i64> {
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.dedup_by(|earlier, later| later.duration_since(*earlier) <= ONE_MOMENT);
    let newest = times.get(..HABIT)?;
    let of_day = |at: &Timestamp| at.as_second().rem_euclid(DAY);
    let first = of_day(&newest[0]);
    let near = |at: &Timestamp| {
        let apart = (of_day(at) - first).rem_euclid(DAY);
        apart.min(DAY - apart) <= ABOUT.as_secs()
    };
    newest.iter().all(near).then_some(first - first % 900)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_habit_is_three_moments_of_the_same_time_of_day() {
        let nights = ["2027-01-31T05:10:00Z", "2027-01-30T05:02:00Z", "2027-01-29T05:20:00Z"].map(at);
        assert_eq!(habit(nights.to_vec()), Some(5 * 3600));
        // Two volumes of one night are one moment.
        let volumes = ["2027-01-31T05:10:00Z", "2027-01-31T05:10:02Z", "2027-01-30T05:02:00Z"].map(at);
        assert_eq!(habit(volumes.to_vec()), None);
        let midnight = ["2027-01-31T00:05:00Z", "2027-01-29T23:50:00Z", "2027-01-29T00:01:00Z"].map(at);
        assert_eq!(habit(midnight.to_vec()), Some(0));
        let any = ["2027-01-31T05:10:00Z", "2027-01-30T11:02:00Z", "2027-01-29T05:20:00Z"].map(at);
        assert_eq!(habit(any.to_vec()), None);
        assert_eq!(habit(Vec::new()), None);
    }
}
