//! Ages, zones and periods.

use proptest::prelude::*;

use super::super::period::Unit;
use super::*;

#[test]
fn ages_have_units_of_an_hour_or_more() {
    for (text, age, shown) in [
        ("36h", Age::hours(36), "36h"),
        ("48 hours", Age::days(2), "2d"),
        ("14d", Age::days(14), "14d"),
        ("8w", Age::days(56), "56d"),
        ("6mo", Age::months(6), "6mo"),
        ("6 months", Age::months(6), "6mo"),
        ("1y 6mo", Age::months(18), "1y 6mo"),
        (" 2 years ", Age::months(24), "2y"),
        ("0h", Age::default(), "0h"),
        ("0d", Age::default(), "0h"),
        ("100y", Age::months(1200), "100y"),
    ] {
        assert_eq!(Age::parse(text), Ok(age), "{text}");
        assert_eq!(age.to_string(), shown);
        assert_eq!(Age::parse(shown), Ok(age));
    }
    for (text, problem, hint) in [
        ("7", "is `7`, a number without a unit", "write \"7d\" for days"),
        ("1.5", "is `1.5`, a number without a unit", "days"),
        ("-3", "is `-3`, a number without a unit", "days"),
        // Not six months.
        ("6m", "is `6m`, and ages are counted in whole hours", "for months write `mo`"),
        ("1y6m", "is `1y6m`, and ages are counted in whole hours", "for months write `mo`"),
        ("90s", "is `90s`, and ages are counted in whole hours", "`m` is minutes"),
        ("1ms", "is `1ms`, and ages are counted in whole hours", ""),
        ("6M", "is `6M`, which is not an age", "units are"),
        ("", "is ``, which is not an age", "units are"),
        ("-1d", "is `-1d`, which is not an age", "units are"),
        ("1d ago", "is `1d ago`, which is not an age", "units are"),
        ("P1D", "is `P1D`, which is not an age", "units are"),
        ("1.5d", "is `1.5d`, which is not an age", "units are"),
        ("07:00:00", "is `07:00:00`, which is not an age", "units are"),
        ("101y", "is `101y`, more than 100 years", ""),
        ("1000000h", "is `1000000h`, more than 100 years", ""),
        ("99999999999999d", "is `99999999999999d`", ""),
        ("inf", "is `inf`", ""),
    ] {
        let fault = Age::parse(text).unwrap_err();
        assert!(fault.problem.starts_with(problem), "{text}: {}", fault.problem);
        assert!(fault.hint.contains(hint), "{text}: {}", fault.hint);
    }
}

#[test]
fn a_day_of_an_age_has_24_hours_and_a_month_ends_with_its_last_day() {
    // Summer time ends in between, in Berlin.
    assert_eq!(Age::days(1).after(at("2026-10-24T22:30:00Z")), at("2026-10-25T22:30:00Z"));
    assert_eq!(Age::months(1).after(at("2027-01-31")), at("2027-02-28"));
    assert_eq!(Age::months(1).after(at("2028-01-31")), at("2028-02-29"));
    assert_eq!(Age::months(12).after(at("2028-02-29")), at("2029-02-28"));
    assert_eq!(Age::months(1).after(at("2027-02-28")), at("2027-03-28"));
    assert_eq!(Age::months(1200).after(Timestamp::MAX), Timestamp::MAX);
    assert!(Age::days(28).never_longer(Age::months(1)) && !Age::days(29).never_longer(Age::months(1)));
    assert!(Age::months(1).never_longer(Age::days(31)) && !Age::months(1).never_longer(Age::days(30)));
    assert!(Age::months(12).never_longer(Age::months(12)) && !Age::months(13).never_longer(Age::months(12)));
}

#[test]
fn a_zone_is_one_that_iana_names() {
    for (text, name) in [("UTC", "UTC"), ("utc", "UTC"), ("Europe/Berlin", "Europe/Berlin")] {
        assert_eq!(zone(text).name(), name);
    }
    assert_eq!(zone("europe/berlin"), zone("Europe/Berlin"));
    for text in [
        "",
        "Europe",
        "Europe/",
        "Berlin",
        "+02:00",
        "UTC+2",
        "CET-1CEST",
        "localtime",
        "posixrules",
        "Factory",
        "Etc/Unknown",
        "/etc/localtime",
        "../../../etc/passwd",
        "Europe/../Europe/Berlin",
        "zone.tab",
        "a\0b",
        "posix/Europe/Berlin",
        "right/UTC",
    ] {
        let fault = Zone::named(text).expect_err(text);
        assert!(fault.known.iter().any(|name| name == "Europe/Berlin"), "{text}");
        assert!(!fault.known.iter().any(|name| name == "localtime"));
    }
}

/// Whoever sets the variable would decide which sets go.
#[test]
fn no_variable_says_what_a_zone_is() {
    const SUMMER: &str = "TEST_SUMMER_IN_BERLIN";
    let summer = || zone("Europe/Berlin").rules().to_offset(at("2026-07-01")).seconds().to_string();
    if let Ok(wanted) = std::env::var(SUMMER) {
        assert_eq!(summer(), wanted);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("Europe")).unwrap();
    std::fs::copy("/usr/share/zoneinfo/Etc/UTC", folder.path().join("Europe/Berlin")).unwrap();
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sets::retention::tests::values::no_variable_says_what_a_zone_is"])
        .env("TZDIR", folder.path())
        .env("TZ", "Asia/Tokyo")
        .env(SUMMER, "7200")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && out.contains("1 passed"), "{out}");
}

/// Clocks that change within an hour end it: St. John's once did so at one minute past midnight.
#[test]
fn a_change_of_the_offset_ends_an_hour() {
    let time = at("2010-11-07T02:30:30Z");
    assert_eq!(Unit::Hour.end(time, &zone("America/St_Johns")), at("2010-11-07T02:31:00Z"));
    assert_eq!(Unit::Hour.end(time, &Zone::UTC), at("2010-11-07T03:00:00Z"));
    assert_eq!(Unit::Hour.end(time, &zone("Asia/Kathmandu")), at("2010-11-07T03:15:00Z"));
}

fn zones() -> impl Strategy<Value = Zone> {
    prop::sample::select(super::random::ZONES.to_vec()).prop_map(zone)
}

const UNITS: [Unit; 7] =
    [Unit::Minute, Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Quarter, Unit::Year];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A period ends where another one begins, and not before.
    #[test]
    fn the_end_of_a_period_is_the_first_instant_of_another(
        // From 2012: before that some zones came back to a day that they had left.
        second in 1_325_400_000_i64..2_000_000_000,
        nano in 0..1_000_000_000_i32,
        before_change in prop::option::of(0..7200_i64),
        zone in zones(),
    ) {
        let time = Timestamp::new(second, nano).unwrap();
        // Shortly before the clocks change, where they do.
        let change = || zone.rules().following(time).next().map(|change| change.timestamp());
        let before = before_change.and_then(|s| change()?.checked_sub(SignedDuration::from_secs(s)).ok());
        let time = before.unwrap_or(time);
        for unit in UNITS {
            let end = unit.end(time, &zone);
            prop_assert!(end > time);
            let length = unit.end(end, &zone).duration_since(end);
            prop_assert!(length <= SignedDuration::from_hours(unit.most_hours().into()), "{:?} {}", unit, end);
            let before = end.checked_sub(SignedDuration::from_nanos(1)).unwrap();
            prop_assert_eq!(unit.key(time, &zone), unit.key(before, &zone), "{:?} {} {}", unit, time, &zone);
            prop_assert!(unit.key(end, &zone) > unit.key(time, &zone), "{:?} {} {}", unit, time, &zone);
        }
    }

    /// The name tells periods apart as the key does.
    #[test]
    fn a_period_has_one_name(
        second in 0..2_000_000_000_i64,
        to_change in any::<bool>(),
        apart in [-7200..7200_i64, -7200..7200_i64],
        zone in zones(),
    ) {
        let time = Timestamp::from_second(second).unwrap();
        // Around a change of the clocks, where one comes.
        let change = zone.rules().following(time).next().filter(|_| to_change).map(|c| c.timestamp());
        let [a, b] = apart.map(|s| change.unwrap_or(time).checked_add(SignedDuration::from_secs(s)).unwrap());
        for unit in UNITS {
            let same = unit.name(a, &zone) == unit.name(b, &zone);
            prop_assert_eq!(same, unit.key(a, &zone) == unit.key(b, &zone), "{:?} {} {}", unit, a, b);
        }
    }

    #[test]
    fn no_text_makes_an_age_or_a_date_panic(text in any::<String>()) {
        if let Ok(age) = Age::parse(&text) {
            prop_assert_eq!(Age::parse(&age.to_string()), Ok(age));
        }
        let _ = (Zone::named(&text), KeepUntil::from_tag(&text, &Zone::UTC));
    }

    /// No time makes a decision panic: tags can say anything.
    #[test]
    fn no_time_makes_a_decision_panic(times in prop::collection::vec(
        prop_oneof![
            Just(Timestamp::MIN), Just(Timestamp::MAX),
            (-377_705_023_201_i64..253_402_207_200).prop_map(|s| Timestamp::from_second(s).unwrap()),
        ], 0..6), now in 0..4_usize, zone in zones(), interval in prop::option::of(0..u64::MAX)) {
        let history: Vec<_> = times.iter().enumerate().map(|(n, time)| set(n, *time)).collect();
        let policy = Policy {
            last: some(2),
            hourly: some(2),
            daily: some(2),
            weekly: some(9),
            monthly: some(2),
            quarterly: some(2),
            yearly: some(10_000),
            within: Some(Age::months(1200)),
            within_weekly: Some(Age::days(9)),
            timezone: zone,
            ..Policy::default()
        };
        let now = times.get(now).copied().unwrap_or(Timestamp::UNIX_EPOCH);
        let ask = Request {
            now: Now { server: now, host: now },
            interval: interval.map(Duration::from_secs),
            ..request(&policy, "2026-12-01")
        };
        prop_assert_eq!(decide(&ask, &history).sets.len(), history.len());
    }
}
