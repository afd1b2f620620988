//! What goes to the archive, what stays, and what it costs.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::sets::set::Missing;
use crate::sets::set::tests_support::set;

/// A set of the same volumes, so many days old.
fn old(members: usize, days: i64) -> SnapshotSet {
    let now: Timestamp = "2026-12-01T03:00:00Z".parse().unwrap();
    SnapshotSet { time: Some(now - SignedDuration::from_hours(days * 24)), ..set(members) }
}

fn refused(set: &SnapshotSet, holds: &[Hold], others: &[&SnapshotSet]) -> Option<String> {
    let all: Vec<SnapshotSet> = others.iter().copied().chain([set]).cloned().collect();
    archive_refusal(set, holds, &all).map(|refusal| refusal.what)
}

fn tier(set: &SnapshotSet, member: usize, tier: &str, last_move: &str) -> TierView {
    TierView {
        snapshot: set.members[member].id.clone(),
        tier: tier.into(),
        last_move: (!last_move.is_empty()).then(|| last_move.into()),
        progress: None,
        archived: None,
        restored_until: None,
    }
}

#[test]
fn what_the_next_snapshot_is_based_on_stays() {
    let (older, newer) = (old(2, 100), old(2, 1));
    assert_eq!(refused(&older, &[], &[&newer]), None);
    let is_base = |set: &SnapshotSet, others: &[&SnapshotSet]| {
        refused(set, &[], others).is_some_and(|what| what.contains("the newest snapshot of vol-"))
    };
    assert!(is_base(&newer, &[&older]), "the newest");
    assert!(is_base(&older, &[]), "the only one");
    // The newer set has one volume less: the other one has its newest snapshot here.
    assert!(is_base(&older, &[&old(1, 1)]));
    // A newer set that nothing can be based on is none.
    let changed = |change: fn(&mut SnapshotSet)| {
        let mut newer = newer.clone();
        change(&mut newer);
        newer
    };
    for useless in [
        changed(|s| s.members[1].state = "pending".into()),
        changed(|s| s.members[1].state = "error".into()),
        changed(|s| s.members[1].tier = "archive"),
        changed(|s| s.members[1].restored_until = Some(Timestamp::MAX)),
        changed(|s| s.deleting = true),
        changed(|s| s.doubts.push("two claim one place".into())),
        changed(|s| {
            s.copy_of = Some(crate::sets::set::CopyOf { region: "eu-west-1".into(), id: s.id.clone() });
        }),
    ] {
        assert!(is_base(&older, &[&useless]), "{useless:?}");
    }
}

#[test]
fn what_somebody_uses_or_is_not_whole_stays() {
    let newer = old(2, 1);
    let told = |set: &SnapshotSet, holds: &[Hold], what: &str| {
        let said = refused(set, holds, &[&newer]);
        assert!(said.as_ref().is_some_and(|said| said.contains(what)), "{what}: {said:?}");
    };
    let older = old(2, 100);
    told(&older, &[Hold::Image { image: "ami-1".into(), state: "disabled".into() }], "ami-1");
    told(&older, &[Hold::Shared { with: vec!["111122223333".into()] }], "shared with");
    told(&older, &[Hold::Foreign { what: "aws:backup:x".into() }], "another tool's");
    let lock = Hold::Locked { mode: "governance".into(), until: None };
    assert_eq!(refused(&older, &[lock], &[&newer]), None, "a locked one may go");
    let mut pending = older.clone();
    pending.members[0].state = "pending".into();
    told(&pending, &[], "is pending");
    let missing = Missing { number: 2, volume_id: "vol-00000000000000009".parse().unwrap() };
    told(&SnapshotSet { missing: vec![missing], ..older.clone() }, &[], "lacks the snapshot");
    told(&SnapshotSet { deleting: true, ..older.clone() }, &[], "being removed");
    told(&SnapshotSet { doubts: vec!["x".into()], ..older }, &[], "doubtful");
}

#[test]
fn only_what_is_not_there_or_on_its_way_moves() {
    let four = old(4, 100);
    let id = |n: usize| four.members[n].id.clone();
    let tiers = [
        tier(&four, 0, "archive", "archival-completed"),
        tier(&four, 1, "standard", "archival-in-progress"),
        TierView {
            restored_until: Some(Timestamp::MAX),
            ..tier(&four, 2, "standard", "temporary-restore-completed")
        },
        tier(&four, 3, "standard", "archival-failed"),
    ];
    assert_eq!(to_archive(&four, &tiers), [id(3)]);
    assert!(to_restore(&four, &tiers).is_err_and(|r| r.what.contains("cannot be cancelled")));
    let settled = [
        tiers[0].clone(),
        tier(&four, 1, "archive", "permanent-restore-in-progress"),
        tiers[2].clone(),
        tier(&four, 3, "standard", ""),
    ];
    assert_eq!(to_restore(&four, &settled), Ok(vec![id(0), id(2)]));
}

#[test]
fn an_answer_that_got_lost_counts_only_if_the_move_is_the_one_that_was_asked_for() {
    let one = old(1, 100);
    let came = |last: &str, how: Move| came_of(&tier(&one, 0, "standard", last), how);
    assert!(came("archival-in-progress", Move::Archive) && came("archival-completed", Move::Archive));
    assert!(!came("archival-failed", Move::Archive) && !came("", Move::Archive));
    assert!(!came("archival-completed", Move::Restore(None)));
    assert!(came("permanent-restore-in-progress", Move::Restore(None)));
    assert!(!came("temporary-restore-completed", Move::Restore(None)));
    assert!(came("temporary-restore-in-progress", Move::Restore(Some(3))));
}

#[test]
fn the_cost_is_of_the_full_size_and_of_90_days_at_least() {
    let mut two = old(2, 100);
    let cost = Cost::of(two.members.iter());
    assert!(cost.at_most && (cost.gib - 16.0).abs() < 1e-9, "{cost:?}");
    two.members.iter_mut().for_each(|m| m.full_bytes = Some(5 << 30));
    let cost = Cost::of(two.members.iter());
    assert!(!cost.at_most && (cost.gib - 10.0).abs() < 1e-9, "{cost:?}");
    assert!((cost.month() - 0.125).abs() < 1e-9 && (cost.least() - 0.375).abs() < 1e-9);
    assert!((cost.restore() - 0.3).abs() < 1e-9);
}
