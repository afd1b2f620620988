//! What retention means here, a test each.

use super::*;

fn last(count: u32) -> Policy {
    Policy { last: some(count), ..Policy::default() }
}

/// 1. A set is kept or goes as a whole, and its time is EC2's: ids, which have the host's clock in them, do
///    not count.
#[test]
fn the_time_of_a_set_is_that_of_ec2_and_not_that_of_its_id() {
    let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03"]);
    for (set, n) in history.iter_mut().zip([9, 5, 1]) {
        set.id = id(n);
    }
    let plan = decide(&request(&last(1), "2026-12-04"), &history);
    assert_eq!(kept(&plan), ["2026-12-03"]);
    assert_eq!(plan.order, [id(9), id(5)]);
    assert_eq!(plan.sets.len(), 3, "one decision a set");
}

/// 2. Account, Region, host, plan, and whether they are copies.
#[test]
fn sets_that_differ_in_any_part_of_the_group_are_kept_and_do_not_count() {
    let own = sets(&["2026-12-01", "2026-12-02"]);
    let change = |n: usize, change: &dyn Fn(&mut Group)| {
        let mut group = Group::clone(&GROUP);
        change(&mut group);
        SetFacts { group: Arc::new(group), ..set(n, at("2026-12-03")) }
    };
    let others = [
        change(10, &|g| g.account = "210987654321".into()),
        change(11, &|g| g.region = "eu-west-1".into()),
        change(12, &|g| g.host = "i-0fedcba9876543210".into()),
        change(13, &|g| g.plan = "db".into()),
        change(14, &|g| g.copies = true),
    ];
    let all = Options { all: true, yes: true, including_the_last: true, stale: true, instance_named: true };
    for (n, other) in (10..).zip(&others) {
        let history = [own.as_slice(), std::slice::from_ref(other)].concat();
        let plan = decide(&request(&last(1), "2026-12-04"), &history);
        assert_eq!(kept(&plan), ["2026-12-02", "2026-12-03"], "{other:?}");
        assert_eq!(rules(&plan, n), [Rule::OtherGroup]);
        assert_eq!(decision(&plan, n).departure, Some(Departure::Never { rule: Rule::OtherGroup }));
        // Nor does it count for the half of the group.
        let no = Options::default();
        let plan = decide(&Request { options: no, ..request(&last(1), "2026-12-04") }, &history);
        assert!(plan.refusals.is_empty());
        let history = [&own[..1], std::slice::from_ref(other)].concat();
        let plan = decide(&Request { options: all, ..request(&last(1), "2026-12-04") }, &history);
        assert_eq!(plan.order, [id(0)]);
    }
}

/// 2. A group whose instance is gone is pruned by name alone, and keeps its last good set.
#[test]
fn the_sets_of_an_instance_that_is_gone_go_only_by_its_name() {
    let history = sets(&["2026-12-01", "2026-12-02", "2026-12-03"]);
    let policy = last(2);
    let ask = Request { instance_gone: true, ..request(&policy, "2026-12-30") };
    let plan = decide(&ask, &history);
    assert_eq!((plan.order.len(), plan.refusals.as_slice()), (0, [Refusal::InstanceGone].as_slice()));
    assert_eq!(verdict(&plan, 0), Verdict::Withheld);
    let named = Options { instance_named: true, ..ask.options };
    assert_eq!(decide(&Request { options: named, ..ask }, &history).order, [id(0)]);
    let all = Options { all: true, ..named };
    assert_eq!(decide(&Request { options: all, ..ask }, &history).order, [id(0), id(1)]);
}

/// 3. Only good sets use up counts; what is not good stays for `failed` and then goes.
#[test]
fn only_good_sets_count_and_leftovers_have_a_time_of_their_own() {
    let required = State::BelowRequired {
        achieved: crate::consistency::Consistency::Crash,
        required: crate::consistency::Consistency::Filesystem,
    };
    let states = [
        (required.clone(), [Rule::Failed].as_slice()),
        (State::Failed { why: "error".into() }, &[Rule::Failed]),
        (State::Partial { why: "vol-1".into() }, &[Rule::Failed]),
        (State::Torn { why: "vol-1".into() }, &[]),
        (State::Pending, &[Rule::Pending]),
    ];
    for (state, keeps) in states {
        let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03", "2026-12-04"]);
        history[2].state = state.clone();
        let plan = decide(&request(&last(2), "2026-12-05"), &history);
        // The third one does not use up a count.
        assert_eq!([0, 1, 3].map(|n| verdict(&plan, n)), [Verdict::Remove, Verdict::Keep, Verdict::Keep]);
        let kept = if keeps.is_empty() { Verdict::Remove } else { Verdict::Keep };
        assert_eq!(verdict(&plan, 2), kept, "{state:?}");
        if !keeps.is_empty() {
            assert_eq!(rules(&plan, 2), keeps, "{state:?}");
        }
        // Three days after it was taken, to the second.
        let now = |now: &str| verdict(&decide(&request(&last(2), now), &history), 2);
        if keeps == [Rule::Failed] {
            assert_eq!(now("2026-12-06T02:59:59Z"), Verdict::Keep, "{state:?}");
            assert_eq!(now("2026-12-06T03:00:00Z"), Verdict::Remove, "{state:?}");
        } else {
            assert_eq!(now("2027-12-06"), kept, "{state:?}");
        }
    }
    // What is complete and newer than every good set is the best of its time.
    let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03"]);
    history[2].state = required;
    let plan = decide(&request(&last(1), "2026-12-20"), &history);
    assert_eq!(kept(&plan), ["2026-12-02", "2026-12-03"]);
    assert_eq!(rules(&plan, 2), [Rule::NewestDegraded]);
    history.push(set(3, at("2026-12-04")));
    assert_eq!(kept(&decide(&request(&last(1), "2026-12-20"), &history)), ["2026-12-04"]);
}

/// 4. Each rule by itself: from the newest, one set of each period that has one.
#[test]
fn each_rule_keeps_what_it_says() {
    let history = sets(&[
        "2024-02-29T12:00:00Z", // Thursday, 2024-W09, Q1
        "2025-12-29T12:00:00Z", // Monday of 2026-W01
        "2026-06-30T12:00:00Z", // Q2
        "2026-10-01T12:00:00Z", // Q4
        "2026-12-01T00:10:00Z", // Tuesday
        "2026-12-01T00:50:00Z", // the same hour
        "2026-12-01T01:00:00Z",
        "2026-12-02T00:00:00Z",
        "2026-12-06T23:59:59Z", // Sunday
        "2026-12-07T00:00:00Z", // Monday
        "2026-12-07T00:00:30Z", // the same minute
    ]);
    let rules: [(&str, Policy, &[usize]); 13] = [
        ("last", Policy { last: some(3), ..Policy::default() }, &[7, 8, 10]),
        ("hourly", Policy { hourly: some(5), ..Policy::default() }, &[5, 6, 7, 8, 10]),
        ("daily", Policy { daily: some(4), ..Policy::default() }, &[6, 7, 8, 10]),
        ("weekly", Policy { weekly: some(4), ..Policy::default() }, &[2, 3, 8, 10]),
        ("monthly", Policy { monthly: some(3), ..Policy::default() }, &[2, 3, 10]),
        ("quarterly", Policy { quarterly: some(3), ..Policy::default() }, &[1, 2, 10]),
        ("yearly", Policy { yearly: some(5), ..Policy::default() }, &[0, 1, 10]),
        ("all", Policy { last: Some(Count::All), ..Policy::default() }, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("every year", Policy { yearly: Some(Count::All), ..Policy::default() }, &[0, 1, 10]),
        ("at_least", Policy { at_least: Some(3), ..Policy::default() }, &[8, 9, 10]),
        // Counted from now, which is 2026-12-08T00:00:00Z.
        ("within", Policy { within: Some(Age::days(6)), ..Policy::default() }, &[8, 9, 10]),
        ("within_daily", Policy { within_daily: Some(Age::days(7)), ..Policy::default() }, &[6, 7, 8, 10]),
        (
            "min_age",
            Policy { min_age: Some(Age::months(6)), ..Policy::default() },
            &[2, 3, 4, 5, 6, 7, 8, 9, 10],
        ),
    ];
    for (name, policy, wanted) in &rules {
        let plan = decide(&request(policy, "2026-12-08T00:00:00Z"), &history);
        let kept: Vec<_> = (0..history.len()).filter(|n| verdict(&plan, *n) == Verdict::Keep).collect();
        assert_eq!(&kept, wanted, "{name}");
    }
    // The first of a period.
    let first = |policy: Policy| {
        let policy = Policy { of_period: OfPeriod::First, ..policy };
        let plan = decide(&request(&policy, "2026-12-08T00:00:00Z"), &history);
        (0..history.len()).filter(|n| verdict(&plan, *n) == Verdict::Keep).collect::<Vec<_>>()
    };
    // The newest good set stays in any case.
    assert_eq!(first(Policy { daily: some(4), ..Policy::default() }), [4, 7, 8, 9, 10]);
    assert_eq!(first(Policy { yearly: some(5), ..Policy::default() }), [0, 1, 2, 10]);
    assert_eq!(first(Policy { within_monthly: Some(Age::months(1)), ..Policy::default() }), [4, 10]);
}

/// 4. The union: a set that two rules keep uses up both, and no rule takes anything from another one.
#[test]
fn what_any_rule_keeps_is_kept() {
    let policy = Policy { last: some(1), monthly: some(3), within: Some(Age::days(2)), ..Policy::default() };
    let history = sets(&[
        "2026-09-30",
        "2026-10-05",
        "2026-11-10",
        "2026-11-11",
        "2026-12-01",
        "2026-12-02",
        "2026-12-03",
    ]);
    let plan = decide(&request(&policy, "2026-12-03T12:00:00Z"), &history);
    assert_eq!(kept(&plan), ["2026-10-05", "2026-11-11", "2026-12-02", "2026-12-03"]);
    assert_eq!(rules(&plan, 6), [Rule::Last, Rule::Monthly, Rule::Within, Rule::LastGood]);
    assert_eq!(reasons(&plan, 5), ["within, until 2026-12-04 03:00Z"]);
}

/// 4. `min_age` protects against a loop of runs, also what is not good, also where everything was asked for.
#[test]
fn nothing_younger_than_min_age_goes() {
    let policy =
        Policy { last: some(1), min_age: Some(Age::hours(2)), failed: Age::default(), ..Policy::default() };
    let mut history: Vec<_> = (0..60).map(|n| set(n, at(&format!("2026-12-01T03:{n:02}:00Z")))).collect();
    history.push(failed(60, at("2026-12-01T03:30:00Z")));
    for all in [false, true] {
        let options = Options { all, yes: true, including_the_last: all, stale: all, instance_named: false };
        let at_five = Request { options, ..request(&policy, "2026-12-01T05:00:00Z") };
        // The set of 03:00 is of that age by now.
        assert_eq!(decide(&at_five, &history).order, [id(0)]);
    }
}

/// 4. The tag of a set: a date, for good, or something that nobody can read.
#[test]
fn a_set_is_kept_until_its_tag_says() {
    let berlin = zone("Europe/Berlin");
    let until = |text: &str| KeepUntil::from_tag(text, &berlin);
    // The day is a part of it, and ends at midnight in the plan's zone.
    assert_eq!(until("2026-12-31"), KeepUntil::Date(at("2026-12-31T23:00:00Z")));
    assert_eq!(until(" 2026-07-01T12:00:00+02:00 "), KeepUntil::Date(at("2026-07-01T10:00:00Z")));
    assert_eq!((until("forever"), until("Forever")), (KeepUntil::Forever, KeepUntil::Forever));
    for unreadable in
        ["", "2026-13-01", "2026-02-29", "tomorrow", "31.12.2026", "2026-12-31T10:00:00", "20261231"]
    {
        assert_eq!(until(unreadable), KeepUntil::Unreadable(unreadable.to_owned()));
    }

    let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03", "2026-12-04", "2026-12-05"]);
    history[0].keep_until = Some(until("2026-12-31"));
    history[1].keep_until = Some(KeepUntil::Forever);
    history[2].keep_until = Some(until("\u{1b}[2Jsoon"));
    let day = |now: &str| decide(&request(&last(1), now), &history);
    let plan = day("2026-12-31T22:59:59Z");
    assert_eq!(plan.order, [id(3)]);
    assert_eq!(reasons(&plan, 0), ["keep_until: 2026-12-31 23:00Z"]);
    assert_eq!(reasons(&plan, 1), ["keep_until: forever"]);
    assert_eq!(reasons(&plan, 2), ["keep_until: `\\u{1b}[2Jsoon`, which is not a date"]);
    assert_eq!(plan.warnings, [Warning::KeepUntil { id: id(2), value: "\u{1b}[2Jsoon".into() }]);
    assert!(!plan.warnings[0].to_string().contains('\u{1b}'));
    let at_end = Departure::Expected { at: at("2026-12-31T23:00:00Z"), rule: Rule::KeepUntil };
    assert_eq!(decision(&plan, 0).departure, Some(at_end));
    assert_eq!(decision(&plan, 1).departure, Some(Departure::Never { rule: Rule::KeepUntil }));
    assert_eq!(day("2026-12-31T23:00:00Z").order, [id(0), id(3)]);
    assert_eq!(day("2126-12-31").order, [id(0), id(3)]);
}

/// 4. Without rules nothing goes.
#[test]
fn without_rules_nothing_is_removed() {
    let mut history = daily(30, "2026-12-01");
    history.push(failed(99, at("2025-01-01")));
    let policy = last(1);
    let ask = Request { policy: None, ..request(&policy, "2026-12-02") };
    let everything =
        Options { all: true, yes: true, including_the_last: true, stale: true, instance_named: true };
    // Rules that are all off are none, wherever they come from.
    let off = [
        None,
        Some(Policy::default()),
        Some(Policy { daily: some(0), within: Some(Age::default()), ..Policy::default() }),
    ];
    for options in [ask.options, everything] {
        for policy in &off {
            let plan = decide(&Request { options, policy: policy.as_ref(), ..ask }, &history);
            assert!(plan.order.is_empty() && plan.refusals.is_empty());
            let no_rules = |set: &Decision| set.reasons.iter().any(|reason| reason.rule == Rule::NoRules);
            assert!(plan.sets.iter().all(no_rules), "{policy:?}");
        }
    }
}

/// 5. Days and hours are those of the plan's zone, which the plan names.
#[test]
fn days_and_hours_are_those_of_the_zone() {
    let of = |name: &str, policy: Policy, times: &[&str]| {
        let policy = Policy { timezone: zone(name), ..policy };
        let plan = decide(&request(&policy, "2026-12-30"), &sets(times));
        assert_eq!(serde_json::to_value(&plan).unwrap()["policy"]["timezone"], name);
        plan
    };
    let hours = || Policy { hourly: some(100), ..Policy::default() };
    let days = || Policy { daily: some(100), ..Policy::default() };
    // 23:30 and 00:30 in Berlin are one day in UTC.
    let night = ["2026-07-01T21:30:00Z", "2026-07-01T22:30:00Z"];
    assert_eq!(of("Europe/Berlin", days(), &night).order.len(), 0);
    assert_eq!(of("UTC", days(), &night).order.len(), 1);
    // At the end of summer time, 02:30 comes twice: two hours.
    let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
    let plan = of("Europe/Berlin", hours(), &twice);
    assert_eq!(plan.order.len(), 0);
    assert_eq!(
        [reasons(&plan, 0)[0].as_str(), reasons(&plan, 1)[0].as_str()],
        ["hourly 2 of 100 (2026-10-25T02+02:00)", "hourly 1 of 100 (2026-10-25T02+01:00)"]
    );
    // At its beginning, 02:00 to 03:00 is missing, and so are no hours.
    let gap = ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"];
    let plan = of("Europe/Berlin", hours(), &gap);
    assert_eq!(reasons(&plan, 1)[0], "hourly 1 of 100 (2026-03-29T03+02:00)");
    assert_eq!(plan.order.len(), 0);
    // Half an hour of summer time on Lord Howe Island: 01:30 to 02:00 comes twice.
    let half = ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"];
    assert_eq!(of("Australia/Lord_Howe", hours(), &half).order.len(), 0);
    // Samoa had no 30 December 2011.
    let skipped = ["2011-12-30T09:59:00Z", "2011-12-30T10:00:00Z"];
    let plan = of("Pacific/Apia", days(), &skipped);
    assert_eq!(reasons(&plan, 0)[0], "daily 2 of 100 (2011-12-29)");
    assert_eq!(reasons(&plan, 1)[0], "daily 1 of 100 (2011-12-31)");
    // St. John's went back from 00:01 to 23:01: the day before comes a second time, and is the same day.
    let back =
        ["2010-11-07T02:00:00Z", "2010-11-07T02:30:30Z", "2010-11-07T02:45:00Z", "2010-11-07T12:00:00Z"];
    let plan = of("America/St_Johns", days(), &back);
    assert_eq!(plan.order, [id(0), id(1)], "{:?}", plan.sets);
}

/// 5. A day to which a zone comes back stays older than the day after it, whichever set stands for it: else a
///    second prune would remove what the first one kept.
#[test]
fn periods_are_in_the_order_of_the_calendar() {
    // St. John's: 6 November, half a minute of the 7th, and the 6th again.
    let history = sets(&["2010-11-06T20:00:00Z", "2010-11-07T02:30:30Z", "2010-11-07T02:45:00Z"]);
    let policy = Policy {
        daily: some(1),
        of_period: OfPeriod::First,
        timezone: zone("America/St_Johns"),
        ..Policy::default()
    };
    let plan = decide(&request(&policy, "2010-11-08"), &history);
    assert_eq!(plan.order, [id(0)]);
    assert_eq!(rules(&plan, 1), [Rule::Daily]);
    assert_eq!(decide(&request(&policy, "2010-11-08"), &history[1..]).order, []);
}

/// 5. The year of an ISO week is not the year of its days.
#[test]
fn a_week_over_new_year_is_one_week() {
    let policy = Policy { weekly: some(10), ..Policy::default() };
    let history = sets(&["2026-12-27", "2026-12-31", "2027-01-01", "2027-01-03", "2027-01-04", "2024-12-31"]);
    let plan = decide(&request(&policy, "2027-01-05"), &history);
    assert_eq!(kept(&plan), ["2024-12-31", "2026-12-27", "2027-01-03", "2027-01-04"]);
    assert_eq!(reasons(&plan, 3), ["weekly 2 of 10 (2026-W53)"]);
    assert_eq!(reasons(&plan, 5), ["weekly 4 of 10 (2025-W01)"]);
}

/// 6. Ages are counted from EC2's clock; a history that has ended is not thinned by its own newest set.
#[test]
fn within_counts_from_now() {
    let policy = Policy { within: Some(Age::days(7)), ..Policy::default() };
    let history = sets(&["2026-11-20", "2026-11-25", "2026-11-26", "2026-11-30"]);
    assert_eq!(kept(&decide(&request(&policy, "2026-12-03"), &history)), ["2026-11-30"]);
    let second_before = decide(&request(&policy, "2026-12-03T02:59:59Z"), &history);
    assert_eq!(kept(&second_before), ["2026-11-26", "2026-11-30"]);
    // A month that has no such day ends with its last one.
    let month = Policy { within: Some(Age::months(1)), ..Policy::default() };
    let january = sets(&["2026-01-31", "2026-02-20"]);
    assert_eq!(kept(&decide(&request(&month, "2026-02-28T02:59:59Z"), &january)).len(), 2);
    assert_eq!(kept(&decide(&request(&month, "2026-02-28T03:00:00Z"), &january)).len(), 1);
}

/// 6. A period is of one age: it is kept a set of for as long as a part of it is younger.
#[test]
fn a_period_is_within_an_age_as_long_as_a_part_of_it_is() {
    let history = sets(&["2026-12-01T08:00:00Z", "2026-12-01T20:00:00Z", "2026-12-05", "2026-12-10"]);
    for (of_period, chosen) in [(OfPeriod::First, 0), (OfPeriod::Newest, 1)] {
        let policy = Policy { within_daily: Some(Age::days(7)), of_period, ..Policy::default() };
        let kept = |now: &str| {
            let plan = decide(&request(&policy, now), &history);
            [0, 1].map(|n| verdict(&plan, n) == Verdict::Keep)
        };
        // 1 December ends with the 2nd's first instant.
        assert_eq!(kept("2026-12-08T23:59:59Z"), [chosen == 0, chosen == 1]);
        assert_eq!(kept("2026-12-09T00:00:00Z"), [false, false]);
    }
}

/// 6. Clocks that differ by more than five minutes: ages are not known.
#[test]
fn clocks_that_differ_stop_a_prune() {
    let policy = last(1);
    let history = sets(&["2026-12-01", "2026-12-02"]);
    for (host, refused) in [
        ("2026-12-03T03:05:00Z", false),
        ("2026-12-03T02:55:00Z", false),
        ("2026-12-03T03:05:01Z", true),
        ("2026-12-03T02:54:59Z", true),
    ] {
        let now = Now { server: at("2026-12-03"), host: at(host) };
        let everything = Options { all: true, yes: true, stale: true, ..Options::default() };
        for options in [Options { yes: true, ..Options::default() }, everything] {
            let plan = decide(&Request { now, options, ..request(&policy, "2026-12-03") }, &history);
            let skew = matches!(plan.refusals.as_slice(), [Refusal::ClockSkew { .. }]);
            assert_eq!((skew, plan.order.is_empty()), (refused, refused), "{host}");
        }
    }
}

/// 6. A copied tag can be of any time.
#[test]
fn a_set_from_the_future_is_kept_reported_and_not_counted() {
    let history =
        sets(&["2026-12-01", "2026-12-02", "2026-12-03T03:05:00Z", "2026-12-03T03:05:01Z", "9000-01-01"]);
    let plan = decide(&request(&last(1), "2026-12-03"), &history);
    // Five minutes are within what clocks may differ by: that set counts.
    assert_eq!(plan.order, [id(0), id(1)]);
    assert_eq!((rules(&plan, 3), rules(&plan, 4)), (vec![Rule::Future], vec![Rule::Future]));
    let warned = [id(3), id(4)]
        .map(|id| plan.warnings.iter().any(|w| matches!(w, Warning::Future { id: i, .. } if *i == id)));
    assert_eq!(warned, [true, true]);
    // The last good set is one of those that count.
    let plan = decide(
        &request(&Policy { within: Some(Age::hours(1)), ..Policy::default() }, "2026-12-03"),
        &sets(&["2026-12-01", "2027-12-01"]),
    );
    assert!(plan.order.is_empty(), "{plan:?}");
}

/// 6. Nothing is removed from a history that has stopped growing.
#[test]
fn a_history_that_stopped_growing_is_not_thinned() {
    let policy = Policy { daily: some(2), ..Policy::default() };
    let mut history = daily(5, "2026-12-05");
    // It has runs, and none is good.
    history.push(failed(50, at("2026-12-06")));
    let plan = |now: &str, options: Options| {
        decide(&Request { interval: Some(DAY), options, ..request(&policy, now) }, &history)
    };
    let yes = Options { yes: true, ..Options::default() };
    assert_eq!(plan("2026-12-07T02:59:59Z", yes).order.len(), 3);
    let stale = plan("2026-12-07T03:00:00Z", yes);
    assert!(stale.order.is_empty());
    assert_eq!([0, 1, 2].map(|n| verdict(&stale, n)), [Verdict::Withheld; 3]);
    assert!(stale.refusals[0].to_string().starts_with(
        "stale: not thinning a history that has stopped growing (the newest good set is of 2026-12-05 03:00Z"
    ));
    let all = Options { all: true, ..yes };
    assert!(plan("2026-12-07T03:00:00Z", all).order.is_empty(), "not even everything goes");
    let over = Options { stale: true, ..yes };
    assert_eq!(plan("2026-12-07T03:00:00Z", over).order.len(), 3);
    // Where nothing would go, it is told all the same.
    let few = Policy { daily: some(20), ..Policy::default() };
    let ask = Request { interval: Some(DAY), ..request(&few, "2026-12-07T03:00:00Z") };
    let plan = decide(&ask, &history[..5]);
    assert!(
        plan.refusals.is_empty() && matches!(plan.warnings.as_slice(), [Warning::Stale { .. }]),
        "{plan:?}"
    );
    // Without a schedule it cannot be told, but a group without a good set is never thinned.
    let old = [failed(1, at("2026-01-01")), failed(2, at("2026-02-01")), failed(3, at("2026-03-01"))];
    assert_eq!(decide(&request(&policy, "2026-12-07"), &old).refusals, [Refusal::NoGoodSet]);
    let over = Options { stale: true, yes: true, ..Options::default() };
    let plan = decide(&Request { options: over, ..request(&policy, "2026-12-07") }, &old);
    assert_eq!(plan.order, [id(1), id(2)], "one is left");
}

#[test]
fn the_newest_verified_sets_are_kept_and_others_use_up_nothing() {
    let mut history = daily(10, "2026-12-10");
    for n in [1, 3, 6] {
        history[n].proven = true;
    }
    // Verified, and not good: it counts for nothing.
    history[8] = SetFacts { proven: true, ..failed(8, history[8].time) };
    let policy = Policy { last: some(1), verified: some(2), failed: Age::default(), ..Policy::default() };
    let plan = decide(&request(&policy, "2026-12-10T04:00:00Z"), &history);
    let kept: Vec<_> = (0..10).filter(|n| verdict(&plan, *n) == Verdict::Keep).collect();
    assert_eq!(kept, [3, 6, 9]);
    assert_eq!(reasons(&plan, 6), ["verified 1 of 2"]);
    assert_eq!(reasons(&plan, 3), ["verified 2 of 2"]);
    assert!(reasons(&plan, 1).contains(&"verified 3 of 2".to_owned()), "{:?}", reasons(&plan, 1));
    assert_eq!(decision(&plan, 3).departure, Some(Departure::Open { rule: Rule::Verified }));
    // Alone it is no rule: where nobody verifies, all would go.
    let alone = Policy { verified: some(2), ..Policy::default() };
    let plan = decide(&request(&alone, "2026-12-10T04:00:00Z"), &history);
    assert!(plan.order.is_empty(), "{:?}", plan.order);
}
