//! When a set will go: said beforehand, and then watched.

use proptest::prelude::*;

use super::random::{good, policy, unhindered};
use super::*;

fn departure(plan: &PrunePlan, n: usize) -> Departure {
    decision(plan, n).departure.unwrap()
}

#[test]
fn each_set_says_when_it_goes_and_by_which_rule() {
    let policy = Policy { daily: some(3), weekly: some(2), monthly: some(2), ..Policy::default() };
    // From Sunday, 15 November, to Thursday, 3 December.
    let history = daily(19, "2026-12-03");
    let on = |date: &str| history.iter().position(|set| set.time == at(date)).unwrap();
    let plan = decide(&Request { interval: Some(DAY), ..request(&policy, "2026-12-03T12:00:00Z") }, &history);
    assert_eq!(kept(&plan), ["2026-11-29", "2026-11-30", "2026-12-01", "2026-12-02", "2026-12-03"]);
    let expected = |date: &str, rule| Departure::Expected { at: at(date), rule };
    // The week W48 is the second until the week W50 begins, with the run of 7 December.
    assert_eq!(departure(&plan, on("2026-11-29")), expected("2026-12-07", Rule::Weekly));
    // November is the second month until January has a run.
    assert_eq!(departure(&plan, on("2026-11-30")), expected("2027-01-01", Rule::Monthly));
    assert_eq!(departure(&plan, on("2026-12-01")), expected("2026-12-04", Rule::Daily));
    assert_eq!(departure(&plan, on("2026-12-02")), expected("2026-12-05", Rule::Daily));
    // The newest stays as a day; the week and the month get a newer one tomorrow.
    assert_eq!(departure(&plan, on("2026-12-03")), expected("2026-12-06", Rule::Daily));

    // With the first of each period, nothing newer takes its place.
    let first = Policy { of_period: OfPeriod::First, ..policy.clone() };
    let plan = decide(&Request { interval: Some(DAY), ..request(&first, "2026-12-03T12:00:00Z") }, &history);
    assert_eq!(departure(&plan, on("2026-11-30")), expected("2026-12-14", Rule::Weekly));
    assert_eq!(departure(&plan, on("2026-12-01")), expected("2027-02-01", Rule::Monthly));

    // Without a schedule: not before the calendar allows it.
    let plan = decide(&request(&policy, "2026-12-03T12:00:00Z"), &history);
    let not_before = |time: &str, rule| Departure::NotBefore { at: at(time), rule };
    assert_eq!(departure(&plan, on("2026-11-29")), not_before("2026-12-07T00:00:00Z", Rule::Weekly));
    assert_eq!(departure(&plan, on("2026-11-30")), not_before("2027-01-01T00:00:00Z", Rule::Monthly));
    assert_eq!(departure(&plan, on("2026-12-01")), not_before("2026-12-04T00:00:00Z", Rule::Daily));
}

#[test]
fn what_ends_with_an_age_goes_to_the_second_and_what_has_no_end_never() {
    let policy = Policy { within: Some(Age::days(30)), min_age: Some(Age::days(40)), ..Policy::default() };
    let mut history = sets(&["2026-11-20", "2026-12-01"]);
    let plan = decide(&request(&policy, "2026-12-02"), &history);
    assert_eq!(departure(&plan, 0), Departure::Expected { at: at("2026-12-30"), rule: Rule::MinAge });
    // The last good set depends on the next one as well.
    assert_eq!(departure(&plan, 1), Departure::NotBefore { at: at("2027-01-10"), rule: Rule::MinAge });
    history[0].holds = vec![Hold::Image { image: "ami-0123456789abcdef0".into(), state: "available".into() }];
    let plan = decide(&request(&policy, "2026-12-02"), &history);
    assert_eq!(departure(&plan, 0), Departure::Open { rule: Rule::Hold });
    history[0].keep_until = Some(KeepUntil::Forever);
    let plan = decide(&request(&policy, "2026-12-02"), &history);
    assert_eq!(departure(&plan, 0), Departure::Never { rule: Rule::KeepUntil });
    let all = Policy { last: Some(Count::All), ..Policy::default() };
    let plan = decide(&request(&all, "2026-12-02"), &sets(&["2026-11-20", "2026-12-01"]));
    assert_eq!(departure(&plan, 0), Departure::Never { rule: Rule::Last });
    let years = Policy { yearly: Some(Count::All), ..Policy::default() };
    let plan = decide(&request(&years, "2027-12-02"), &sets(&["2026-12-20", "2027-12-01"]));
    assert_eq!(departure(&plan, 0), Departure::Never { rule: Rule::Yearly });
}

/// Runs seldom enough that periods are left out: the count is of periods that have a set.
#[test]
fn runs_that_are_far_apart_are_counted_as_they_come() {
    let policy = Policy { daily: some(2), ..Policy::default() };
    let history = sets(&["2026-11-26", "2026-12-03"]);
    let ask = Request { interval: Some(DAY * 7), ..request(&policy, "2026-12-04") };
    let plan = decide(&ask, &history);
    assert_eq!(departure(&plan, 0), Departure::Expected { at: at("2026-12-10"), rule: Rule::Daily });
    assert_eq!(departure(&plan, 1), Departure::Expected { at: at("2026-12-17"), rule: Rule::Daily });
    let floor = Policy { at_least: Some(2), ..Policy::default() };
    let ask = Request { interval: Some(DAY * 7), ..request(&floor, "2026-12-04") };
    let plan = decide(&ask, &history);
    assert_eq!(departure(&plan, 0), Departure::Expected { at: at("2026-12-10"), rule: Rule::AtLeast });
    assert_eq!(departure(&plan, 1), Departure::Expected { at: at("2026-12-17"), rule: Rule::AtLeast });
}

/// Takes sets at these times, prunes after each, and returns when each of the first sets went.
fn watch(policy: &Policy, sets: &[SetFacts], times: &[Timestamp]) -> Vec<Option<Timestamp>> {
    let mut left = sets.to_vec();
    let mut gone = vec![None; sets.len()];
    for (n, time) in times.iter().enumerate() {
        left.push(set(1000 + n, *time));
        let order = decide(&unhindered(policy, *time), &left).order;
        for (set, when) in sets.iter().zip(&mut gone) {
            if order.contains(&set.id) {
                *when = Some(*time);
            }
        }
        left.retain(|set| !order.contains(&set.id));
    }
    gone
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The plan's runs go on: each set goes with the first prune from the time that was said.
    #[test]
    fn a_set_goes_when_it_was_said_that_it_would(
        (sets, now) in good(12),
        policy in policy(),
        hours in prop::sample::select(vec![1_u64, 6, 24, 24 * 7, 24 * 31]),
        late in any::<bool>(),
    ) {
        // Zones do not come back to a day that they have left any more.
        let newest = sets.last().map_or(now, |set| set.time);
        prop_assume!(newest > at("2012-01-01"));
        let now = if late { now } else { newest };
        let interval = Duration::from_secs(hours * 3600);
        let plan = decide(&Request { interval: Some(interval), ..unhindered(&policy, now) }, &sets);
        let step = SignedDuration::try_from(interval).unwrap();
        let runs: Vec<_> = (1..)
            .map(|n| newest.checked_add(step * n).unwrap())
            .filter(|run| *run > now)
            .take(50)
            .collect();
        let left: Vec<_> = sets.iter().filter(|set| !plan.order.contains(&set.id)).cloned().collect();
        for (gone, set) in watch(&policy, &left, &runs).into_iter().zip(&left) {
            let said = plan.sets.iter().find(|said| said.id == set.id).unwrap();
            match said.departure.unwrap() {
                Departure::Expected { at, .. } => {
                    let first = runs.iter().find(|run| **run >= at);
                    prop_assert_eq!(gone, first.copied(), "{:?}", said);
                }
                // No newer set is verified here.
                Departure::Never { .. } | Departure::Open { rule: Rule::Verified } => {
                    prop_assert_eq!(gone, None, "{:?}", said);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    /// Whatever comes, and whenever: no set goes before the time that was said.
    #[test]
    fn no_set_goes_before_the_time_that_was_said(
        (sets, now) in good(12),
        policy in policy(),
        gaps in prop::collection::vec(prop_oneof![1..100_i64, 1..90_000_i64, 1..3_000_000_i64], 1..40),
    ) {
        prop_assume!(now > at("2012-01-01"));
        let plan = decide(&unhindered(&policy, now), &sets);
        let mut time = now.as_second();
        let mut runs = Vec::new();
        for gap in gaps {
            time += gap;
            runs.push(Timestamp::from_second(time).unwrap());
        }
        let left: Vec<_> = sets.iter().filter(|set| !plan.order.contains(&set.id)).cloned().collect();
        for (gone, set) in watch(&policy, &left, &runs).into_iter().zip(&left) {
            let said = plan.sets.iter().find(|said| said.id == set.id).unwrap();
            match said.departure.unwrap() {
                Departure::Expected { at, .. } | Departure::NotBefore { at, .. } => {
                    prop_assert!(gone.is_none_or(|gone| gone >= at), "{:?} {:?}", said, gone);
                }
                // No newer set is verified here.
                Departure::Never { .. } | Departure::Open { rule: Rule::Verified } => {
                    prop_assert_eq!(gone, None, "{:?}", said);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
