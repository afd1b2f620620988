use proptest::prelude::*;

use super::*;
use crate::sets::set::tests_support::set;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn verified(level: Level, time: &str, sound: usize) -> Verified {
    let by = By::of(Some(&"i-0123456789abcdef0".parse().unwrap()));
    Verified { level, at: at(time), by, sound, filesystems: 3 }
}

fn fault(level: Level, time: &str) -> FaultFound {
    FaultFound { level, at: at(time), by: By::of(None), what: "61 items of its log: 100 % é".to_owned() }
}

#[test]
fn what_is_written_is_read() {
    let one = verified(Level::Whole, "2027-01-31T03:00:00Z", 2);
    let line = one.line();
    assert_eq!(line, "whole at=2027-01-31T03:00:00Z by=i-0123456789abcdef0 sound=2/3");
    assert_eq!(Verified::read(&line), Some(one.clone()));
    assert_eq!(Verified::read(&format!("{line} more=1 word")), Some(one), "a newer version says more");
    let bad = fault(Level::Probe, "2027-01-31T03:00:00Z");
    let line = bad.line();
    assert_eq!(
        line,
        "probe at=2027-01-31T03:00:00Z by=elsewhere what=61%20items%20of%20its%20log:%20100%20%25%20%C3%A9"
    );
    assert_eq!(FaultFound::read(&line), bad);
    let long = FaultFound { what: "é".repeat(500), ..bad };
    assert!(long.line().len() <= MAX_VALUE);
    assert!(FaultFound::read(&long.line()).what.chars().all(|c| c == 'é'), "cut off between characters");
}

#[test]
fn what_cannot_be_believed_proves_nothing_and_a_fault_that_cannot_be_read_is_one() {
    for bad in [
        "",
        "whole",
        "all at=2027-01-31T03:00:00Z by=elsewhere sound=1/1",
        "whole at=yesterday by=elsewhere sound=1/1",
        "whole at=2027-01-31T03:00:00Z by=me sound=1/1",
        "whole at=2027-01-31T03:00:00Z by=elsewhere sound=2/1",
        "whole at=2027-01-31T03:00:00Z by=elsewhere",
    ] {
        assert_eq!(Verified::read(bad), None, "{bad}");
        let set = SnapshotSet { verify_fault: Some(FaultFound::read(bad)), ..set(1) };
        assert!(set.fault().is_some(), "{bad}");
    }
}

#[test]
fn a_fault_stands_until_a_later_look_as_deep_finds_none() {
    use Level::{Arithmetic, Mount, Probe, Restore, Whole};
    let of = |v: Option<(Level, &str)>, f: Option<(Level, &str)>| SnapshotSet {
        verified: v.map(|(level, time)| verified(level, time, 3)),
        verify_fault: f.map(|(level, time)| fault(level, time)),
        ..set(1)
    };
    let (first, later) = ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z");
    for (v, f, stands) in [
        (None, Some((Probe, first)), true),
        (Some((Probe, later)), Some((Probe, first)), false),
        (Some((Whole, later)), Some((Probe, first)), false),
        (Some((Probe, later)), Some((Whole, first)), true),
        (Some((Whole, first)), Some((Probe, later)), true),
        (Some((Probe, first)), Some((Probe, first)), true),
        // Neither of them sees all that the other one does.
        (Some((Restore, later)), Some((Whole, first)), true),
        (Some((Whole, later)), Some((Restore, first)), true),
        (Some((Restore, later)), Some((Probe, first)), false),
        (Some((Restore, later)), Some((Restore, first)), false),
        // A mount on a volume is one, too.
        (Some((Restore, later)), Some((Mount, first)), false),
        (Some((Mount, later)), Some((Restore, first)), true),
        (Some((Mount, later)), Some((Whole, first)), true),
        (Some((Whole, later)), Some((Mount, first)), true),
        (Some((Mount, later)), Some((Probe, first)), false),
        (Some((Probe, first)), None, false),
    ] {
        let set = of(v, f);
        assert_eq!(set.fault().is_some(), stands, "{v:?} {f:?}");
        assert_eq!(set.proven(), v.is_some() && !stands, "{v:?} {f:?}");
    }
    assert!(!of(Some((Arithmetic, first)), None).proven(), "no data was read");
    let part = SnapshotSet { verified: Some(verified(Whole, first, 2)), ..set(1) };
    assert!(!part.proven(), "one filesystem was not looked at");
}

#[test]
fn a_look_that_is_less_deep_takes_no_place_but_that_of_a_fault() {
    use Level::{Probe, Whole};
    let (first, later, last) = ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z");
    let deep = SnapshotSet { verified: Some(verified(Whole, first, 3)), ..set(1) };
    let shallow = Found::NoFault(verified(Probe, last, 3));
    assert_eq!(tag(&deep, &shallow), None);
    assert_eq!(tag(&deep, &Found::NoFault(verified(Whole, last, 2))), None, "less of it was looked at");
    assert!(tag(&deep, &Found::NoFault(verified(Whole, last, 3))).is_some());
    assert!(tag(&set(1), &shallow).is_some());
    assert_eq!(tag(&deep, &Found::Fault(fault(Probe, last))).unwrap().0, FAULT_TAG);
    // The fault that came in between is cleared by it, and must not stand for ever.
    let faulty = SnapshotSet { verify_fault: Some(fault(Probe, later)), ..deep };
    assert_eq!(tag(&faulty, &shallow).unwrap().0, VERIFIED_TAG);
}

proptest! {
    #[test]
    fn no_text_makes_reading_fail(text in any::<String>(), words in "[a-z]{0,9}( (at|by|sound|what)=[ -~]{0,30}){0,5}") {
        for text in [text, words] {
            let _ = (Verified::read(&text), FaultFound::read(&text));
        }
    }
}
