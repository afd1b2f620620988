//! `[plan.NAME.lock]` and `--lock`: what arrives, and what is refused because nobody could undo it.

use super::super::files::MAIN_FILE;
use super::super::settings::LockSettings;
use super::*;
use crate::ec2::keep::LockMode;

fn lock(text: &str) -> Option<LockSettings> {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.lock
}

fn governance(days: u32) -> LockSettings {
    LockSettings { mode: LockMode::Governance, days, cool_off: None, yes_nobody_can_undo_it: false }
}

#[test]
fn a_lock_arrives_and_a_plan_changes_that_of_the_defaults() {
    assert_eq!(lock(""), None);
    assert_eq!(lock("[defaults.lock]\nmode = 'governance'\ndays = 30\n"), Some(governance(30)));
    let over = "[defaults.lock]\nmode = 'governance'\ndays = 30\n[plan.default.lock]\n";
    assert_eq!(lock(&format!("{over}days = 7")), Some(governance(7)));
    assert_eq!(lock(&format!("{over}mode = 'off'")), None);
    let day = Some(Duration::from_secs(86_400));
    let hard = LockSettings { mode: LockMode::Compliance, cool_off: day, ..governance(365) };
    assert_eq!(
        lock("[plan.default.lock]\nmode = 'compliance'\ndays = 365\ncool_off = '1d'"),
        Some(hard.clone())
    );
    assert_eq!(hard.wanted().cool_off, Some(24));
    let at_once = "[plan.default.lock]\nmode = 'compliance'\ndays = 365\nyes_nobody_can_undo_it = true";
    let final_lock = LockSettings { cool_off: None, yes_nobody_can_undo_it: true, ..hard };
    assert_eq!(lock(at_once), Some(final_lock));
}

#[test]
fn what_nobody_could_undo_needs_a_word_and_contradictions_are_refused() {
    for (text, told) in [
        ("mode = 'compliance'\ndays = 1", "nobody could ever undo"),
        ("mode = 'compliance'\ndays = 1\nyes_nobody_can_undo_it = false", "nobody could ever undo"),
        (
            "mode = 'compliance'\ndays = 1\ncool_off = '1h'\nyes_nobody_can_undo_it = true",
            "nothing can be undone",
        ),
        ("mode = 'governance'\ndays = 1\ncool_off = '1h'", "can be undone at any time"),
        ("mode = 'governance'\ndays = 1\nyes_nobody_can_undo_it = true", "is for the mode `compliance`"),
        ("mode = 'governance'", "has no `days`"),
        ("days = 3", "has no `mode`"),
        ("mode = 'soft'\ndays = 1", "is `soft`"),
        ("mode = 'governance'\ndays = 0", "outside 1 to 36500"),
        ("mode = 'governance'\ndays = 36501", "outside 1 to 36500"),
        ("mode = 'compliance'\ndays = 1\ncool_off = '73h'", "1 to 72 whole hours"),
        ("mode = 'compliance'\ndays = 1\ncool_off = '90m'", "1 to 72 whole hours"),
    ] {
        let (message, _) = error(&format!("[plan.default.lock]\n{text}\n"));
        assert!(message.contains(told), "{text}: {message}");
    }
}

#[test]
fn the_flag_takes_the_place_of_both_tables() {
    let root = tempfile::tempdir().unwrap();
    let tables =
        "[defaults.lock]\nmode = 'compliance'\ndays = 9\ncool_off = '1h'\n[plan.default.lock]\ndays = 8\n";
    put(root.path(), MAIN_FILE, tables);
    let with = |flag: &str| {
        let flags = Overrides { lock: Some(flag.to_owned()), ..Overrides::default() };
        get(root.path(), None, &flags).map(|loaded| loaded.settings.plan.lock)
    };
    assert_eq!(with("governance:30d").unwrap(), Some(governance(30)));
    assert_eq!(with("off").unwrap(), None);
    let hard = with("compliance:365d:24h").unwrap().unwrap();
    assert_eq!((hard.days, hard.wanted().cool_off), (365, Some(24)));
    for wrong in [
        "",
        "on",
        "governance",
        "governance:30",
        "governance:36h",
        "governance:0d",
        "off:1d",
        "compliance:365d",
        "compliance:365d:100h",
        "governance:3d:1h",
        "compliance:1d:1h:1h",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}
