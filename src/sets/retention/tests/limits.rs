//! What retention means here, a test each: the order, the limits, and the plan as data.

use super::*;

fn last(count: u32) -> Policy {
    Policy { last: some(count), ..Policy::default() }
}

/// 8. Oldest first, and every set has reasons.
#[test]
fn the_oldest_goes_first_and_every_set_has_a_reason() {
    let mut history = daily(10, "2026-12-10");
    history.push(failed(20, at("2026-12-03T05:00:00Z")));
    history.push(SetFacts {
        state: State::Torn { why: "refused".into() },
        ..set(21, at("2026-12-09T05:00:00Z"))
    });
    history.reverse();
    let plan = decide(&request(&last(4), "2026-12-10T12:00:00Z"), &history);
    assert_eq!(plan.order, [0, 1, 2, 20, 3, 4, 5, 21].map(id));
    assert!(plan.sets.iter().all(|set| !set.reasons.is_empty()), "{plan:?}");
    assert!(plan.sets.windows(2).all(|pair| pair[0].time <= pair[1].time));
    assert_eq!(reasons(&plan, 21), ["torn: refused"]);
    assert_eq!(reasons(&plan, 20), ["failed: Client.InternalError, until 2026-12-06 05:00Z"]);
}

/// 8. A removal that cannot end is told.
#[test]
fn a_torn_set_that_is_held_is_reported() {
    let torn = SetFacts {
        state: State::Torn { why: "snap-0123456789abcdef0 in use".into() },
        holds: vec![Hold::Image { image: "ami-0123456789abcdef0".into(), state: "disabled".into() }],
        ..set(5, at("2026-11-01"))
    };
    let history = [sets(&["2026-12-01", "2026-12-02"]), vec![torn]].concat();
    let plan = decide(&request(&last(2), "2026-12-03"), &history);
    assert!(plan.order.is_empty());
    let told = plan.warnings[0].to_string();
    assert!(told.contains("removed in part") && told.contains("ami-0123456789abcdef0 (disabled)"), "{told}");
}

/// 9. More than half of the group, or than `max_deletes`, goes only with `--yes`; and then all of it.
#[test]
fn more_than_half_of_a_group_needs_a_yes() {
    let no = Options::default();
    let yes = Options { yes: true, ..no };
    let plan = |count: usize, keep: u32, max: Option<u32>, options: Options| {
        let policy = Policy { max_deletes: max, ..last(keep) };
        decide(&Request { options, ..request(&policy, "2026-12-02") }, &daily(count, "2026-12-01"))
    };
    for (count, keep, refused) in [(2, 1, false), (3, 1, true), (4, 2, false), (10, 5, false), (10, 4, true)]
    {
        let found = plan(count, keep, None, no);
        assert_eq!(!found.refusals.is_empty(), refused, "{count} {keep}");
        assert_eq!(found.order.is_empty(), refused);
        assert_eq!(plan(count, keep, None, yes).order.len(), count - keep as usize);
    }
    let found = plan(10, 4, None, no);
    assert_eq!(found.refusals, [Refusal::MoreThanHalf { going: 6, of: 10 }]);
    assert_eq!(found.sets.iter().filter(|set| set.verdict == Verdict::Withheld).count(), 6);
    // The plan's own limit takes the place of the half.
    assert_eq!(plan(10, 4, Some(6), no).order.len(), 6);
    assert_eq!(plan(10, 4, Some(5), no).refusals, [Refusal::MaxDeletes { going: 6, max: 5 }]);
    assert_eq!(plan(10, 8, Some(1), no).refusals, [Refusal::MaxDeletes { going: 2, max: 1 }]);
    assert_eq!(plan(10, 4, Some(5), yes).order.len(), 6);
}

/// 9. The same facts give the same bytes, and each set has its rule, counter and period.
#[test]
fn the_plan_as_json_has_rule_counter_and_period_for_each_set() {
    let policy = Policy { daily: some(1), weekly: some(2), ..Policy::default() };
    let history = sets(&["2026-11-29", "2026-12-01", "2026-12-02"]);
    let json = || serde_json::to_string(&decide(&request(&policy, "2026-12-03"), &history)).unwrap();
    assert_eq!(json(), json());
    let plan: serde_json::Value = serde_json::from_str(&json()).unwrap();
    let expected = serde_json::json!({
        "id": id(0), "time": "2026-11-29T03:00:00Z", "state": "good", "verdict": "keep",
        "reasons": [{"rule": "weekly", "nth": 2, "of": 2, "period": "2026-W48", "text": "weekly 2 of 2 (2026-W48)"}],
        "departure": {"when": "not_before", "at": "2026-12-07T00:00:00Z", "rule": "weekly"},
    });
    assert_eq!(plan["sets"][0], expected);
    let reason = serde_json::json!({
        "rule": "daily", "nth": 2, "of": 1, "period": "2026-12-01", "text": "daily 2 of 1 (2026-12-01)",
    });
    assert_eq!((&plan["sets"][1]["verdict"], &plan["sets"][1]["reasons"][0]), (&"remove".into(), &reason));
    assert_eq!(plan["sets"][1]["reasons"][1]["by"], serde_json::json!(id(2)));
    assert_eq!(plan["order"], serde_json::json!([id(1)]));
    assert_eq!(plan["policy"]["daily"], 1);
}

/// 10. A lock that ends before the rules let the set go protects it only in part.
#[test]
fn locks_that_end_too_early_are_a_warning() {
    let policy = Policy { daily: some(7), ..Policy::default() };
    let mut history = daily(7, "2026-12-07");
    let lock = |until: Option<Timestamp>| vec![Hold::Locked { mode: "governance".into(), until }];
    let warnings = |history: &[SetFacts]| {
        decide(&Request { interval: Some(DAY), ..request(&policy, "2026-12-07T12:00:00Z") }, history).warnings
    };
    // The first set goes by the rules on the 8th, the second on the 9th.
    history[0].holds = lock(Some(at("2026-12-08")));
    history[1].holds = lock(Some(at("2026-12-09")));
    history[2].holds = lock(None);
    assert_eq!(warnings(&history), []);
    history[1].holds = lock(Some(at("2026-12-09T02:59:59Z")));
    history[3].holds = lock(Some(at("2026-12-08")));
    assert_eq!(warnings(&history), [Warning::LockEndsFirst { sets: 2, id: id(3), until: at("2026-12-08") }]);
}

/// What a machine reads is what a person reads.
#[test]
fn refusals_and_warnings_have_a_name_and_words() {
    let policy = last(1);
    let mut history = daily(6, "2026-12-06");
    history[2].keep_until = Some(KeepUntil::Unreadable("soon".into()));
    history[5].time = at("2027-12-06");
    let now = Now { server: at("2026-12-20"), host: at("2026-12-21") };
    let options = Options::default();
    let ask =
        Request { now, options, interval: Some(DAY), instance_gone: true, ..request(&policy, "2026-12-20") };
    let plan = decide(&ask, &history);
    let json = serde_json::to_value(&plan).unwrap();
    let names = |list: &str, key: &str| -> Vec<String> {
        let list = json[list].as_array().unwrap().iter();
        list.map(|entry| {
            assert!(entry["text"].as_str().is_some_and(|text| text.len() > 20), "{entry}");
            entry[key].as_str().unwrap().to_owned()
        })
        .collect()
    };
    assert_eq!(names("refusals", "refusal"), ["clock_skew", "instance_gone", "stale"]);
    assert_eq!(names("warnings", "warning"), ["keep_until", "future"]);
    assert!(plan.refusals.iter().all(|refusal| refusal.hint().len() > 20));
    assert_eq!(json["sets"][0]["verdict"], "withheld");
}

#[test]
fn a_rule_has_one_name() {
    let rules = [
        Rule::Last,
        Rule::Hourly,
        Rule::Daily,
        Rule::Weekly,
        Rule::Monthly,
        Rule::Quarterly,
        Rule::Yearly,
        Rule::Within,
        Rule::WithinHourly,
        Rule::WithinDaily,
        Rule::WithinWeekly,
        Rule::WithinMonthly,
        Rule::WithinQuarterly,
        Rule::WithinYearly,
        Rule::AtLeast,
        Rule::MinAge,
        Rule::Failed,
        Rule::KeepUntil,
        Rule::Hold,
        Rule::LastGood,
        Rule::NewestDegraded,
        Rule::Pending,
        Rule::Future,
        Rule::OtherGroup,
        Rule::SameId,
        Rule::NoRules,
        Rule::Torn,
        Rule::All,
    ];
    for rule in rules {
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.name());
    }
}
