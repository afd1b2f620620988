//! 7. What is never removed, whatever the rules and the flags say.

use super::*;

const EVERYTHING: Options =
    Options { stale: true, yes: true, all: true, including_the_last: true, instance_named: true };

fn one() -> Policy {
    Policy { last: some(1), ..Policy::default() }
}

#[test]
fn what_is_held_stays_whatever_was_asked_for() {
    let snapshot = || "snap-0123456789abcdef0".parse().unwrap();
    let image = |state: &str| Hold::Image { image: "ami-0123456789abcdef0".into(), state: state.into() };
    let lock = |mode: &str| Hold::Locked { mode: mode.into(), until: None };
    let holds = [
        (image("available"), "hold: the image ami-0123456789abcdef0 (available) uses it"),
        (image("disabled"), "hold: the image ami-0123456789abcdef0 (disabled) uses it"),
        (image("deprecated"), "hold: the image ami-0123456789abcdef0 (deprecated) uses it"),
        (lock("governance"), "hold: locked (governance)"),
        (lock("compliance-cooloff"), "hold: locked (compliance-cooloff)"),
        (
            Hold::Locked { mode: "compliance".into(), until: Some(at("2027-01-01")) },
            "hold: locked (compliance) until 2027-01-01 03:00Z",
        ),
        (
            Hold::Shared { with: vec!["111122223333".into(), "444455556666".into()] },
            "hold: shared with 111122223333, 444455556666",
        ),
        (
            Hold::PendingCopy { copy: snapshot(), region: "eu-west-1".into() },
            "hold: being copied to snap-0123456789abcdef0 in eu-west-1",
        ),
        (
            Hold::NewestCopy { volume: "vol-0123456789abcdef0".parse().unwrap() },
            "hold: the newest copy of vol-0123456789abcdef0 here, which the next copy is based on",
        ),
        (
            Hold::Archived { since: at("2026-09-05") },
            "hold: archived since 2026-09-05 03:00Z: 90 days are billed in any case",
        ),
        (Hold::ForeignSchema { version: "7".into() }, "hold: its tags have the unknown schema 7"),
        (
            Hold::Foreign { what: "aws:dlm:lifecycle-policy-id".into() },
            "hold: it is another tool's: aws:dlm:lifecycle-policy-id",
        ),
    ];
    let policy = one();
    for (hold, words) in holds {
        for state in [State::Good, State::Torn { why: String::new() }, State::Failed { why: String::new() }] {
            let mut history = sets(&["2026-09-01", "2026-12-01", "2026-12-02"]);
            history[0].state = state;
            history[0].holds = vec![hold.clone()];
            for options in [Options { yes: true, ..Options::default() }, EVERYTHING] {
                let plan = decide(&Request { options, ..request(&policy, "2026-12-03") }, &history);
                assert!(!plan.order.contains(&id(0)) && plan.order.contains(&id(1)), "{words}");
                assert_eq!(reasons(&plan, 0), [words]);
                assert!(decision(&plan, 0).over_kept(), "nothing else keeps it");
            }
        }
    }
}

/// A word from a tag or an answer acts on no terminal.
#[test]
fn words_of_a_hold_are_printed_without_control_characters() {
    for hold in [
        Hold::Image { image: "ami\u{1b}[2J".into(), state: "\u{202e}".into() },
        Hold::Locked { mode: "\r".into(), until: None },
        Hold::Shared { with: vec!["\u{7}".into()] },
        Hold::ForeignSchema { version: "\n".into() },
        Hold::Foreign { what: "\u{9b}".into() },
    ] {
        let text = hold.to_string();
        assert_eq!(crate::path_encoding::printable(&text), text);
    }
    let group = Group { plan: "\u{1b}".into(), ..Group::clone(&GROUP) };
    assert!(!group.to_string().contains('\u{1b}'));
}

#[test]
fn what_is_shared_may_go_where_the_plan_says_so() {
    let mut history = sets(&["2026-12-01", "2026-12-02"]);
    history[0].holds = vec![Hold::Shared { with: vec!["111122223333".into()] }];
    let allowed = Policy { delete_shared: true, ..one() };
    assert_eq!(decide(&request(&allowed, "2026-12-03"), &history).order, [id(0)]);
    history[0].holds.push(Hold::Locked { mode: "governance".into(), until: None });
    assert!(decide(&request(&allowed, "2026-12-03"), &history).order.is_empty());
}

#[test]
fn what_is_archived_is_held_for_ninety_days() {
    let policy = one();
    let mut history = sets(&["2026-01-01", "2026-11-29"]);
    history[0].holds = vec![Hold::Archived { since: at("2026-09-01") }];
    let on = |now: &str| decide(&request(&policy, now), &history);
    let plan = on("2026-11-30T02:59:59Z");
    assert!(plan.order.is_empty());
    let until = Departure::Expected { at: at("2026-11-30"), rule: Rule::Hold };
    assert_eq!(decision(&plan, 0).departure, Some(until));
    assert_eq!(decide(&request(&policy, "2026-11-30T03:00:00Z"), &history).order, [id(0)]);
}

/// A set that is held is a good set all the same: it counts, so nothing older takes its place.
#[test]
fn a_set_that_is_held_counts() {
    let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03"]);
    history[1].holds = vec![Hold::Locked { mode: "governance".into(), until: None }];
    let policy = Policy { last: some(2), ..Policy::default() };
    let plan = decide(&request(&policy, "2026-12-04"), &history);
    assert_eq!(plan.order, [id(0)]);
    assert!(!decision(&plan, 1).over_kept(), "the rules keep it as well");
}

#[test]
fn the_last_good_set_goes_only_when_it_is_asked_for_by_name() {
    let policy = Policy { within: Some(Age::days(1)), at_least: Some(2), ..Policy::default() };
    let mut history = sets(&["2026-01-01", "2026-01-02", "2026-01-03"]);
    history.push(failed(9, at("2026-01-04")));
    let order =
        |options: Options| decide(&Request { options, ..request(&policy, "2026-12-01") }, &history).order;
    let yes = Options { yes: true, ..Options::default() };
    // `at_least` is a floor against `all` too.
    assert_eq!(order(yes), [id(0), id(9)]);
    assert_eq!(order(Options { all: true, ..yes }), [id(0), id(9)]);
    assert_eq!(order(Options { all: true, including_the_last: true, ..yes }), [0, 1, 2, 9].map(id));
    let plan = decide(&Request { options: yes, ..request(&policy, "2026-12-01") }, &history);
    assert_eq!(rules(&plan, 2), [Rule::AtLeast, Rule::LastGood]);
    // Without the floor, it is the newest good one, though a failed one is newer.
    let policy = Policy { at_least: None, ..policy };
    let plan = decide(&request(&policy, "2026-12-01"), &history);
    assert_eq!(rules(&plan, 2), [Rule::LastGood]);
    assert_eq!(plan.order, [0, 1, 9].map(id));
}

/// A group without a good set keeps the one that is worth most.
#[test]
fn the_best_of_a_group_without_a_good_set_stays() {
    let policy = one();
    let required = crate::consistency::Consistency::Filesystem;
    let degraded = State::BelowRequired { achieved: crate::consistency::Consistency::Crash, required };
    let mut history = sets(&["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]);
    history[0].state = degraded.clone();
    history[1].state = degraded;
    history[2].state = State::Partial { why: "vol-1 is missing".into() };
    history[3].state = State::Failed { why: "error".into() };
    let stale = Options { yes: true, stale: true, all: true, ..Options::default() };
    let plan = |options: Options, history: &[SetFacts]| {
        decide(&Request { options, ..request(&policy, "2026-12-01") }, history)
    };
    let left = plan(stale, &history);
    assert_eq!(left.order, [0, 2, 3].map(id));
    assert_eq!(reasons(&left, 1), ["last_good: of the group: crash-consistent, and filesystem is required"]);
    // What is complete and newer than every good set stays without `all`.
    assert_eq!(plan(Options { all: false, ..stale }, &history).order, [2, 3].map(id));
    assert_eq!(plan(stale, &history[2..]).order, [id(3)]);
    assert_eq!(plan(EVERYTHING, &history).order.len(), 4);
}

/// Two sets of one id cannot be told apart by whoever removes them.
#[test]
fn sets_of_one_id_are_both_kept() {
    let mut history = sets(&["2026-12-01", "2026-12-02", "2026-12-03", "2026-12-04"]);
    history[1].id = id(0);
    let policy = one();
    for options in [Options { yes: true, ..Options::default() }, EVERYTHING] {
        let plan = decide(&Request { options, ..request(&policy, "2026-12-05") }, &history);
        assert!(!plan.order.contains(&id(0)));
        assert_eq!(plan.warnings, [Warning::SameId { id: id(0) }]);
    }
}
