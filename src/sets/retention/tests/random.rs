//! Random histories and policies: summer time of several zones, leap days, clock jumps, gaps, duplicates in
//! one minute, sets that are not good, holds and tags.

use proptest::prelude::*;

use super::*;
use crate::consistency::Consistency;

/// Hours and half hours of summer time, both hemispheres, a day that was skipped, midnights that come twice.
pub(super) const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Apia",
    "Africa/Cairo",
    "America/Santiago",
    "Asia/Kathmandu",
];

/// Shortly before something that a calendar gets wrong.
const BEGINNINGS: [&str; 7] = [
    "2010-11-05T12:00:00Z",
    "2011-12-29T00:00:00Z",
    "2024-02-27T20:00:00Z",
    "2026-03-28T00:30:00Z",
    "2026-10-24T22:30:00Z",
    "2026-12-30T23:30:00Z",
    "2027-02-27T23:59:30Z",
];

fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => 0..60_i64,
        3 => 60..7200_i64,
        4 => Just(86_400),
        3 => 40_000..130_000_i64,
        1 => 86_400..86_400 * 45_i64,
        // The clock was set back.
        1 => -86_400 * 3..0_i64,
    ]
}

fn state() -> impl Strategy<Value = State> {
    let below = State::BelowRequired { achieved: Consistency::Crash, required: Consistency::Filesystem };
    prop_oneof![
        12 => Just(State::Good),
        1 => Just(State::Pending),
        1 => Just(below),
        1 => Just(State::Failed { why: "error".into() }),
        1 => Just(State::Partial { why: "missing".into() }),
        1 => Just(State::Torn { why: "refused".into() }),
    ]
}

fn hold() -> impl Strategy<Value = Option<Hold>> {
    prop_oneof![
        14 => Just(None),
        1 => Just(Some(Hold::Image { image: "ami-0123456789abcdef0".into(), state: "disabled".into() })),
        1 => Just(Some(Hold::Locked { mode: "compliance".into(), until: Some(at("2027-06-01")) })),
        1 => Just(Some(Hold::Shared { with: vec!["111122223333".into()] })),
        1 => Just(Some(Hold::Archived { since: at("2026-10-01") })),
        1 => Just(Some(Hold::ForeignSchema { version: "9".into() })),
    ]
}

fn keep_until() -> impl Strategy<Value = Option<KeepUntil>> {
    prop_oneof![
        16 => Just(None),
        1 => Just(Some(KeepUntil::Forever)),
        1 => Just(Some(KeepUntil::Unreadable("soon".into()))),
        1 => Just(Some(KeepUntil::Date(at("2026-12-31")))),
    ]
}

/// Times, and how far after the last of them it is now; before it, where some of them are from the future.
pub(super) fn times(most: usize) -> impl Strategy<Value = (Vec<Timestamp>, Timestamp)> {
    let now = prop_oneof![4 => 0..86_400 * 3_i64, 2 => 0..86_400 * 400_i64, 1 => -86_400 * 2..0_i64];
    (prop::sample::select(BEGINNINGS.to_vec()), prop::collection::vec(gap(), 0..most), now).prop_map(
        |(beginning, gaps, now)| {
            let mut time = at(beginning).as_second();
            let mut times = Vec::new();
            for gap in gaps {
                time += gap;
                times.push(Timestamp::from_second(time).unwrap());
            }
            (times, Timestamp::from_second(time + now).unwrap())
        },
    )
}

/// Good sets alone, in the order of their times.
pub(super) fn good(most: usize) -> impl Strategy<Value = (Vec<SetFacts>, Timestamp)> {
    times(most).prop_map(|(mut times, now)| {
        times.sort();
        let now = now.max(times.last().copied().unwrap_or(now));
        let one = |(n, time)| SetFacts { proven: n % 3 == 0, ..set(n, time) };
        (times.into_iter().enumerate().map(one).collect(), now)
    })
}

/// Sets of every kind.
pub(super) fn history(most: usize) -> impl Strategy<Value = (Vec<SetFacts>, Timestamp)> {
    let rest = || (state(), hold(), keep_until(), prop::bool::weighted(0.06), prop::bool::weighted(0.3));
    times(most).prop_flat_map(move |(times, now)| {
        let rest = prop::collection::vec(rest(), times.len());
        (Just(times), rest, Just(now)).prop_map(|(times, rest, now)| {
            let of = |(n, (time, (state, hold, keep_until, foreign, proven))): (usize, (Timestamp, _))| {
                let group = if foreign {
                    Arc::new(Group { plan: "other".into(), ..Group::clone(&GROUP) })
                } else {
                    GROUP.clone()
                };
                let hold: Option<Hold> = hold;
                let holds = hold.into_iter().collect();
                SetFacts { group, state, holds, keep_until, proven, ..set(n, time) }
            };
            (times.into_iter().zip(rest).enumerate().map(of).collect(), now)
        })
    })
}

fn count() -> impl Strategy<Value = Option<Count>> {
    prop_oneof![5 => Just(None), 5 => (1..6_u32).prop_map(some), 1 => Just(Some(Count::All))]
}

fn age() -> impl Strategy<Value = Option<Age>> {
    prop_oneof![5 => Just(None), 2 => (1..2400_u32).prop_map(|h| Some(Age::hours(h)))]
}

/// Rules without calendars: what is a month to them?
pub(super) fn rules_of_days() -> impl Strategy<Value = Policy> {
    let counts = (count(), count(), count(), count());
    let ages = (age(), age(), age(), age());
    let floors = (prop::option::weighted(0.2, 1..4_u32), age(), 0..200_u32, any::<bool>());
    (counts, ages, floors).prop_map(|(counts, ages, floors)| Policy {
        last: counts.0,
        hourly: counts.1,
        daily: counts.2,
        weekly: counts.3,
        within: ages.0,
        within_hourly: ages.1,
        within_daily: ages.2,
        within_weekly: ages.3,
        at_least: floors.0,
        min_age: floors.1,
        failed: Age::hours(floors.2),
        of_period: if floors.3 { OfPeriod::First } else { OfPeriod::Newest },
        ..Policy::default()
    })
}

/// Every rule, in every zone.
pub(super) fn policy() -> impl Strategy<Value = Policy> {
    let longer = (count(), count(), count(), age(), age(), age(), count());
    (rules_of_days(), longer, prop::sample::select(ZONES.to_vec()), any::<bool>()).prop_map(
        |(policy, longer, timezone, delete_shared)| Policy {
            monthly: longer.0,
            quarterly: longer.1,
            yearly: longer.2,
            within_monthly: longer.3,
            within_quarterly: longer.4,
            within_yearly: longer.5,
            verified: longer.6,
            timezone: zone(timezone),
            delete_shared,
            ..policy
        },
    )
}

pub(super) fn options() -> impl Strategy<Value = Options> {
    any::<[bool; 5]>().prop_map(|[stale, yes, all, including_the_last, instance_named]| Options {
        stale,
        yes,
        all,
        including_the_last,
        instance_named,
    })
}

/// A request that nothing refuses.
pub(super) fn unhindered(policy: &Policy, now: Timestamp) -> Request<'_> {
    let options = Options { yes: true, stale: true, instance_named: true, ..Options::default() };
    Request { now: Now { server: now, host: now }, options, ..request(policy, "2026-12-01") }
}
