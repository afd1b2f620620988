//! `[plan.NAME.keep]`: what arrives, which table wins, and what is refused.

use super::super::files::MAIN_FILE;
use super::super::input::Input as _;
use super::*;
use crate::sets::retention::{Age, Count, OfPeriod, Policy, Zone};

fn keep(text: &str) -> settings::KeepSettings {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).settings.plan.keep.unwrap()
}

/// Every key, as the table `head`.
fn every_key(head: &str) -> String {
    format!(
        "[{head}]\nlast = 1\nhourly = 24\ndaily = 7\nweekly = 4\nmonthly = 12\nquarterly = 8\nyearly = \"all\"\n\
         within = \"36h\"\nwithin_hourly = \"2d\"\nwithin_daily = \"2w\"\nwithin_weekly = \"3mo\"\n\
         within_monthly = \"1y\"\nwithin_quarterly = \"2y 6mo\"\nwithin_yearly = \"100 years\"\nverified = 2\nat_least = 3\n\
         min_age = \"6h\"\nfailed = \"0h\"\nof_period = \"first\"\ntimezone = \"Europe/Berlin\"\nmax_deletes = 30\n\
         delete_shared = true\n"
    )
}

#[test]
fn every_key_of_the_rules_arrives() {
    let all = Policy {
        last: Some(Count::Of(1)),
        hourly: Some(Count::Of(24)),
        daily: Some(Count::Of(7)),
        weekly: Some(Count::Of(4)),
        monthly: Some(Count::Of(12)),
        quarterly: Some(Count::Of(8)),
        yearly: Some(Count::All),
        within: Some(Age::hours(36)),
        within_hourly: Some(Age::days(2)),
        within_daily: Some(Age::days(14)),
        within_weekly: Some(Age::months(3)),
        within_monthly: Some(Age::months(12)),
        within_quarterly: Some(Age::months(30)),
        within_yearly: Some(Age::months(1200)),
        verified: Some(Count::Of(2)),
        at_least: Some(3),
        min_age: Some(Age::hours(6)),
        failed: Age::default(),
        of_period: OfPeriod::First,
        timezone: Zone::named("Europe/Berlin").unwrap(),
        max_deletes: Some(30),
        delete_shared: true,
    };
    let text = every_key("plan.default.keep") + &every_key("plan.default.keep.copies");
    let loaded = parse(&text).unwrap();
    let keep = loaded.settings.plan.keep.as_ref().unwrap();
    assert_eq!((&keep.sets, keep.copies.as_ref()), (&all, Some(&all)));
    let unset: Vec<_> = loaded
        .origins
        .iter()
        .filter(|(key, origin)| key.starts_with("plan.keep") && **origin == Origin::Default)
        .collect();
    assert!(unset.is_empty(), "{unset:?}");
    // As many keys as the policy has, and the file above has each.
    let fields = serde_json::to_value(&all).unwrap().as_object().unwrap().len();
    assert_eq!(super::super::keep::KeepInput::KEYS.len(), fields + 1);
    assert_eq!(every_key("x").lines().count(), fields + 1);
}

#[test]
fn without_a_table_nothing_is_removed_and_what_is_not_set_is_off() {
    assert_eq!(parse("[plan.default]").unwrap().settings.plan.keep, None);
    let keep = keep("[plan.default.keep]\ndaily = 7");
    assert_eq!(keep.sets, Policy { daily: Some(Count::Of(7)), ..Policy::default() });
    assert_eq!((keep.copies, keep.sets.failed), (None, Age::days(3)));
    assert_eq!((keep.sets.timezone.name(), keep.sets.of_period), ("UTC", OfPeriod::Newest));
}

#[test]
fn the_rules_of_a_plan_are_over_those_of_the_defaults_key_by_key() {
    let defaults = "[defaults.keep]\ndaily = 7\nweekly = 4\ntimezone = \"Europe/Berlin\"\n\
                    [defaults.keep.copies]\nmonthly = 6\nyearly = 1\n";
    let of = |plan: &str| keep(&format!("{defaults}{plan}"));
    let berlin = Zone::named("Europe/Berlin").unwrap();
    let base = Policy {
        daily: Some(Count::Of(7)),
        weekly: Some(Count::Of(4)),
        timezone: berlin.clone(),
        ..Policy::default()
    };
    assert_eq!(of("").sets, base);
    let keep = of("[plan.default.keep]\nweekly = 0\nmonthly = 12\ncopies.yearly = 0\n");
    assert_eq!(keep.sets, Policy { weekly: None, monthly: Some(Count::Of(12)), ..base.clone() });
    // The copies have the zone of the plan.
    let copies = Policy { monthly: Some(Count::Of(6)), timezone: berlin, ..Policy::default() };
    assert_eq!(keep.copies, Some(copies));
    // Every set of one plan, without a word on what the defaults have.
    let all = of("[plan.default.keep]\nlast = \"all\"\n").sets;
    assert_eq!((all.last, all.daily, all.weekly), (Some(Count::All), None, None));
    let wide = of("[plan.default.keep]\nwithin = \"1y\"\nwithin_daily = \"0h\"\n").sets;
    assert_eq!(
        (wide.within, wide.within_daily, wide.daily),
        (Some(Age::months(12)), None, Some(Count::Of(7)))
    );

    // Over several files, too.
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, "[plan.db.keep]\ndaily = 7\n[plan.db.keep.copies]\ndaily = 1\n");
    put(root.path(), "etc/stillpoint/config.d/1.toml", "[plan.db.keep]\nweekly = 2\ncopies.weekly = 3\n");
    let loaded = get(root.path(), Some("db"), &Overrides::default()).unwrap();
    let keep = loaded.settings.plan.keep.clone().unwrap();
    assert_eq!((keep.sets.daily, keep.sets.weekly), (Some(Count::Of(7)), Some(Count::Of(2))));
    let copies = keep.copies.unwrap();
    assert_eq!((copies.daily, copies.weekly), (Some(Count::Of(1)), Some(Count::Of(3))));
    let at = |key: &str| loaded.origin(key).to_string().replace(&format!("{}/", root.path().display()), "");
    assert_eq!(at("plan.keep.daily"), format!("{MAIN_FILE}:2"));
    assert_eq!(at("plan.keep.copies.weekly"), "etc/stillpoint/config.d/1.toml:3");
    assert_eq!(at("plan.keep.failed"), "built-in default");
}

#[test]
fn wrong_values_of_rules_name_their_place_and_what_to_write() {
    let cases = [
        ("daily = -1", ":2:9: `plan.default.keep.daily` is -1", "\"all\" for every one"),
        ("daily = \"7\"", ":2:9: `plan.default.keep.daily` is \"7\"", "a whole number"),
        ("daily = \"All\"", ":2:9: `plan.default.keep.daily` is \"All\"", "\"all\""),
        ("daily = 1.5", ":2:9: `plan.default.keep.daily` must be a whole number or \"all\"", ""),
        ("daily = true", ":2:9: `plan.default.keep.daily` must be a whole number or \"all\"", ""),
        ("daily = 10001", ":2:9: `plan.default.keep.daily` is 10001, outside 0 to 10000", ""),
        ("daily = 99999999999999", ":2:9: `plan.default.keep.daily` is 99999999999999, outside", ""),
        ("within = 7", ":2:10: `plan.default.keep.within` is `7`, a number without a unit", "\"7d\""),
        (
            "within = \"6m\"",
            ":2:10: `plan.default.keep.within` is `6m`, and ages are",
            "for months write `mo`",
        ),
        ("within = \"-7d\"", ":2:10: `plan.default.keep.within` is `-7d`, which is not an age", "units are"),
        ("within = [\"7d\"]", ":2:10: `plan.default.keep.within` must be an age, as in \"14d\"", ""),
        ("within_daily = \"23h\"", ":2:16: `plan.default.keep.within_daily` is 23h, less than 1d", "0h"),
        ("within_weekly = \"6d\"", ":2:17: `plan.default.keep.within_weekly` is 6d, less than 7d", "0h"),
        ("within_yearly = \"1mo\"", ":2:17: `plan.default.keep.within_yearly` is 1mo, less than 1y", "0h"),
        ("at_least = \"all\"", ":2:12: `plan.default.keep.at_least` must be a whole number", ""),
        ("max_deletes = 0", ":2:15: `plan.default.keep.max_deletes` is 0, outside 1 to", ""),
        (
            "of_period = \"last\"",
            ":2:13: `plan.default.keep.of_period` is `last`",
            "it can be: newest, first",
        ),
        (
            "timezone = \"Europe/Berln\"",
            ":2:12: `plan.default.keep.timezone` is `Europe/Berln`, which is not a time zone",
            "did you mean `Europe/Berlin`?",
        ),
        (
            "timezone = \"Mars\"",
            ":2:12: `plan.default.keep.timezone` is `Mars`, which is not a time zone",
            "",
        ),
        ("timezone = \"+02:00\"", ":2:12: `plan.default.keep.timezone` is `+02:00`", ""),
        ("timezone = 2", ":2:12: `plan.default.keep.timezone` must be a string", ""),
        ("dayly = 7", ":2:1: unknown key `dayly` in [plan.default.keep]", "did you mean `daily`?"),
        ("keep_daily = 7", ":2:1: unknown key `keep_daily` in [plan.default.keep]", "daily"),
        ("copies.copies.daily = 7", ":2:8: unknown key `copies` in [plan.default.keep.copies]", "daily"),
        ("copies = 7", ":2:10: `plan.default.keep.copies` must be a table", ""),
    ];
    for (text, message, hint) in cases {
        let (found, found_hint) = error(&format!("[plan.default.keep]\n{text}"));
        assert!(found.starts_with(message), "{text}\nfound {found}\nwanted {message}");
        assert!(found_hint.contains(hint), "{text}\n{found_hint}");
    }
    assert!(error("[plan.default]\nkeep = 7").0.starts_with(":2:8: `plan.default.keep` must be a table"));
}

/// A policy that keeps nothing would empty the group, as far as it is let.
#[test]
fn rules_that_keep_nothing_are_refused() {
    for text in [
        "",
        "daily = 0",
        "within = \"0h\"",
        "verified = 1",
        "verified = \"all\"",
        "daily = 0\nweekly = 0\nwithin_monthly = \"0d\"\nat_least = 0\nmin_age = \"0h\"",
        "failed = \"9d\"",
        "timezone = \"Europe/Berlin\"\nof_period = \"first\"",
        "max_deletes = 5\ndelete_shared = true",
        "copies.daily = 7",
    ] {
        let (message, hint) = error(&format!("[plan.default.keep]\n{text}"));
        assert_eq!(message, ":1:15: `keep` has no rule that keeps a set", "{text}");
        assert!(hint.contains("last = \"all\""), "{hint}");
    }
    let (message, _) = error("[defaults.keep]\ndaily = 7\n[plan.default.keep]\ndaily = 0");
    assert!(message.contains("`keep` has no rule that keeps a set"), "{message}");
    let (message, _) = error("[defaults.keep]\ndaily = 7\n[defaults.keep.copies]\nfailed = \"1d\"");
    assert!(message.contains("`keep.copies` has no rule that keeps a set"), "{message}");
    for text in [
        "last = 1",
        "yearly = \"all\"",
        "within = \"1h\"",
        "within_yearly = \"1y\"",
        "at_least = 1",
        "min_age = \"1h\"",
        "last = \"all\"",
    ] {
        assert!(keep(&format!("[plan.default.keep]\n{text}")).sets.keeps_something(), "{text}");
    }
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    let cases = [
        ("last = \"all\"\ndaily = 7", ":3:1: `keep.daily` keeps nothing that last = \"all\" does not keep"),
        ("yearly = 1\nlast = \"all\"", ":2:1: `keep.yearly` keeps nothing that last = \"all\""),
        ("last = \"all\"\nwithin = \"9d\"", ":3:1: `keep.within` keeps nothing that last = \"all\""),
        (
            "last = \"all\"\nwithin_daily = \"9d\"",
            ":3:1: `keep.within_daily` keeps nothing that last = \"all\"",
        ),
        ("within = \"9d\"\nmin_age = \"9d\"", ":2:1: `keep.within` keeps nothing that min_age = \"9d\""),
        (
            "within = \"11d\"\nwithin_daily = \"9d\"",
            ":3:1: `keep.within_daily` keeps nothing that within = \"11d\"",
        ),
        (
            "within = \"2mo\"\nwithin_weekly = \"4w\"",
            ":3:1: `keep.within_weekly` keeps nothing that within = \"2mo\"",
        ),
        (
            "min_age = \"3y\"\nwithin_yearly = \"1y\"",
            ":3:1: `keep.within_yearly` keeps nothing that min_age = \"3y\"",
        ),
        (
            "within = \"9d\"\nof_period = \"first\"",
            ":3:1: `keep.of_period` is \"first\", and no rule has periods",
        ),
        (
            "daily = 1\ntimezone = \"Europe/Berlin\"\n[plan.default.keep.copies]\ndaily = 1\ntimezone = \"UTC\"",
            ":6:1: `keep.copies.timezone` is UTC, and the plan's own sets have Europe/Berlin",
        ),
        (
            "daily = 1\n[plan.default.keep.copies]\nlast = \"all\"\ndaily = 1",
            ":5:1: `keep.copies.daily` keeps nothing that last = \"all\"",
        ),
    ];
    for (text, message) in cases {
        let (found, hint) = error(&format!("[plan.default.keep]\n{text}"));
        assert!(found.starts_with(message), "{text}\nfound {found}\nwanted {message}");
        assert!(!hint.is_empty());
    }
    // Of other plans and of the defaults as well, before one of them is used.
    assert!(error("[plan.other.keep]\nlast = \"all\"\ndaily = 7").0.contains("`keep.daily`"));
    for text in [
        "last = \"all\"\ndaily = 0\nwithin = \"0h\"",
        "within = \"9d\"\nwithin_daily = \"10d\"",
        // A day is kept a set of until it has ended nine days ago.
        "within = \"9d\"\nwithin_daily = \"9d\"",
        "within = \"10d\"\nwithin_daily = \"9d\"",
        // Of a February in it, four weeks are all.
        "within = \"1mo\"\nwithin_hourly = \"28d\"",
        "within = \"10d\"\nmin_age = \"9d\"",
        "last = 3\nat_least = 9",
        "last = \"all\"\nmin_age = \"9d\"",
    ] {
        keep(&format!("[plan.default.keep]\n{text}"));
    }
}

#[test]
fn check_tells_of_the_rules_of_every_plan() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        MAIN_FILE,
        "[plan.a.keep]\ndaily = 0\n[plan.b.keep]\n[plan.c.keep]\nlast = \"all\"\ndaily = 1\n",
    );
    let faults: Vec<_> = check(root.path(), None).unwrap().faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn show_prints_every_rule_and_can_be_read_again() {
    let texts = [
        every_key("plan.db.keep") + &every_key("plan.db.keep.copies"),
        "[plan.db.keep]\nwithin = \"9d\"".to_owned(),
        "[defaults.keep]\ndaily = 7\nwithin = \"9d\"\ncopies.weekly = 3\n[plan.db.keep]\nlast = \"all\""
            .to_owned(),
        "[plan.db]".to_owned(),
    ];
    for text in &texts {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), MAIN_FILE, text);
        let loaded = get(root.path(), Some("db"), &Overrides::default()).unwrap();
        let shown = loaded.show();
        put(root.path(), "shown.toml", &shown);
        let again =
            load(root.path(), Some(&root.path().join("shown.toml")), Some("db"), &Overrides::default());
        assert_eq!(again.expect(&shown).settings, loaded.settings, "{shown}");
    }
    let root = tempfile::tempdir().unwrap();
    put(root.path(), MAIN_FILE, &texts[2]);
    let loaded = get(root.path(), Some("db"), &Overrides::default()).unwrap();
    let lines: Vec<_> =
        loaded.show().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let has = |start: &str, end: &str| {
        assert!(lines.iter().any(|l| l.starts_with(start) && l.ends_with(end)), "{start} {end}\n{lines:#?}");
    };
    has("keep.last = \"all\" # ", "stillpoint.toml:6");
    has("keep.failed = \"3d\" # ", "built-in default");
    has("# keep.hourly: not set # ", "built-in default");
    has("keep.copies.weekly = 3 # ", "stillpoint.toml:4");
    has("keep.copies.timezone = \"UTC\" # ", "built-in default");
    let json = loaded.show_json();
    let value =
        json["values"].as_array().unwrap().iter().find(|v| v["key"] == "plan.keep.copies.weekly").unwrap();
    assert_eq!((&value["value"], &value["origin"]["line"]), (&3.into(), &4.into()));
}
