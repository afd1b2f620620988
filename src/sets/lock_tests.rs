//! What a lock may become, and what is refused before EC2 is asked.

use super::*;
use crate::sets::set::tests_support::{listed, set};

fn now() -> Timestamp {
    "2026-12-01T12:00:00Z".parse().unwrap()
}

fn wanted(mode: LockMode, days: u32, cool_off: Option<u32>) -> Lock {
    Lock { mode, end: LockEnd::Days(days), cool_off }
}

fn lock_of(set: &SnapshotSet, member: usize, state: &str, days: Option<u32>) -> LockView {
    LockView {
        snapshot: set.members[member].id.clone(),
        state: state.into(),
        until: days.map(|days| days_after(now(), days)),
        days,
        cool_off_until: None,
    }
}

fn refused(set: &SnapshotSet, present: &[LockView], wanted: &Lock) -> Option<String> {
    refusal(set, &listed(set), present, wanted, now()).map(|refusal| refusal.what)
}

const SOFT: LockMode = LockMode::Governance;
const HARD: LockMode = LockMode::Compliance;

#[test]
fn a_final_lock_only_grows_and_every_other_may_change() {
    let two = set(2);
    let present = [lock_of(&two, 1, "compliance", Some(10))];
    let no = |wanted: Lock| refused(&two, &present, &wanted).expect("it was let through");
    assert!(no(wanted(SOFT, 20, None)).contains("governance would be weaker"));
    assert!(no(wanted(HARD, 20, Some(24))).contains("no second one"));
    assert!(no(wanted(HARD, 9, None)).contains("nobody can make that shorter"));
    assert_eq!(refused(&two, &present, &wanted(HARD, 10, None)), None);
    assert_eq!(refused(&two, &present, &wanted(HARD, 11, None)), None);
    for weaker in ["governance", "compliance-cooloff"] {
        let present = [lock_of(&two, 0, weaker, Some(10))];
        for any in [wanted(SOFT, 1, None), wanted(HARD, 1, Some(72)), wanted(HARD, 1, None)] {
            assert_eq!(refused(&two, &present, &any), None, "{weaker} {any:?}");
        }
    }
    // Of a pending snapshot: its days have not begun, so it ends later than they would from now.
    let pending = LockView { until: None, ..lock_of(&two, 0, "compliance", Some(10)) };
    assert!(refused(&two, std::slice::from_ref(&pending), &wanted(HARD, 9, None)).is_some());
    assert_eq!(refused(&two, &[pending], &wanted(HARD, 10, None)), None);
}

#[test]
fn an_end_is_to_come_and_within_what_ec2_takes() {
    let two = set(2);
    let until = |text: &str| Lock { mode: SOFT, end: LockEnd::At(text.parse().unwrap()), cool_off: None };
    assert!(refused(&two, &[], &until("2026-12-01T12:00:00Z")).is_some_and(|what| what.contains("is over")));
    assert_eq!(refused(&two, &[], &until("2026-12-01T12:00:01Z")), None);
    assert!(refused(&two, &[], &until("2126-12-01T12:00:00Z")).is_some_and(|what| what.contains("36500")));
    assert_eq!(refused(&two, &[], &wanted(SOFT, 36_500, None)), None);
}

#[test]
fn a_set_that_is_not_clear_or_lost_a_member_is_not_locked() {
    let any = wanted(SOFT, 1, None);
    let doubtful = SnapshotSet { doubts: vec!["two claim one place".into()], ..set(2) };
    assert!(refused(&doubtful, &[], &any).is_some_and(|what| what.contains("doubtful")));
    let going = SnapshotSet { deleting: true, ..set(2) };
    assert!(refused(&going, &[], &any).is_some_and(|what| what.contains("being removed")));
    let mut lost = set(2);
    lost.members[1].state = "error".into();
    assert!(refused(&lost, &[], &any).is_some_and(|what| what.contains("error")));
    lost.members[1].state = "pending".into();
    assert_eq!(refused(&lost, &[], &any), None);
}

#[test]
fn over_a_lock_days_are_counted_from_now_and_what_is_as_wanted_stays() {
    let three = set(3);
    let present = [
        lock_of(&three, 0, "governance", Some(5)),
        LockView { until: None, ..lock_of(&three, 1, "governance", Some(30)) },
    ];
    let lock = wanted(SOFT, 30, None);
    let steps = to_lock(&listed(&three), &present, &lock, now());
    let dated = Lock { end: LockEnd::At(days_after(now(), 30)), ..lock };
    assert_eq!(steps.iter().map(|s| s.lock).collect::<Vec<_>>(), [Some(dated), None, Some(lock)]);
    let until = Lock { end: LockEnd::At(days_after(now(), 5)), ..lock };
    assert_eq!(to_lock(&listed(&three), &present, &until, now())[0].lock, None);
    // The same end, and yet another lock.
    for other in [Lock { mode: HARD, ..until }, Lock { mode: HARD, cool_off: Some(1), ..until }] {
        assert_eq!(to_lock(&listed(&three), &present, &other, now())[0].lock, Some(other));
    }
    let cooling = [lock_of(&three, 0, "compliance-cooloff", Some(5))];
    let at_once = Lock { mode: HARD, ..until };
    assert_eq!(
        to_lock(&listed(&three), &cooling, &at_once, now())[0].lock,
        Some(at_once),
        "it becomes final"
    );
}

#[test]
fn an_answer_that_got_lost_counts_only_if_the_lock_is_the_one_that_was_asked_for() {
    let one = set(1);
    let hard = wanted(HARD, 10, Some(24));
    assert!(came_of(&lock_of(&one, 0, "compliance-cooloff", Some(10)), &hard));
    assert!(came_of(&lock_of(&one, 0, "compliance", Some(10)), &hard));
    assert!(!came_of(&lock_of(&one, 0, "governance", Some(10)), &hard));
    assert!(!came_of(&lock_of(&one, 0, "compliance", Some(9)), &hard));
    assert!(!came_of(&lock_of(&one, 0, "compliance", Some(10)), &wanted(SOFT, 10, None)));
    let dated = Lock { end: LockEnd::At(days_after(now(), 10)), ..hard };
    assert!(came_of(&lock_of(&one, 0, "compliance", Some(10)), &dated));
    assert!(!came_of(&lock_of(&one, 0, "compliance", Some(9)), &dated));
}

#[test]
fn nobody_unlocks_what_is_final_and_a_removal_can_end() {
    let two = set(2);
    let soft = lock_of(&two, 0, "governance", Some(5));
    let cooling = lock_of(&two, 1, "compliance-cooloff", Some(5));
    assert_eq!(unlock_refusal(&two, &[soft.clone(), cooling]), None);
    let hard = lock_of(&two, 1, "compliance", Some(5));
    assert!(
        unlock_refusal(&two, &[soft.clone(), hard]).is_some_and(|r| r.what.contains("nobody can unlock"))
    );
    let going = SnapshotSet { deleting: true, ..two };
    assert_eq!(unlock_refusal(&going, &[soft]), None);
}
