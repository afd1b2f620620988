//! 400 days of daily runs under 7 days, 4 weeks, 12 months, 2 years: what is left was counted by hand, with a
//! calendar.

use super::*;

/// Wednesday, and the first week of 2027 began on 4 January: 2026 has 53 weeks.
const LAST: &str = "2027-01-20";

fn policy() -> Policy {
    Policy { daily: some(7), weekly: some(4), monthly: some(12), yearly: some(2), ..Policy::default() }
}

#[test]
fn of_400_daily_runs_the_newest_of_each_period_are_left() {
    let history = daily(400, LAST);
    assert_eq!(history[0].time, at("2025-12-17"));
    let plan = decide(&request(&policy(), "2027-01-20T04:00:00Z"), &history);
    let by_hand = [
        // Months, of which December is also the year 2026.
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
        "2026-06-30",
        "2026-07-31",
        "2026-08-31",
        "2026-09-30",
        "2026-10-31",
        "2026-11-30",
        "2026-12-31",
        // The Sundays of the weeks 2026-W53 (from 28 December) and 2027-W01.
        "2027-01-03",
        "2027-01-10",
        // Seven days. The 17th is also the week W02; the 20th the week W03, the month and the year.
        "2027-01-14",
        "2027-01-15",
        "2027-01-16",
        "2027-01-17",
        "2027-01-18",
        "2027-01-19",
        "2027-01-20",
    ];
    assert_eq!(kept(&plan), by_hand);
    assert_eq!(plan.order.len(), 380);
    let of = |date: &str| {
        let n = history.iter().position(|set| set.time == at(date)).unwrap();
        reasons(&plan, n)
    };
    assert_eq!(of("2026-12-31"), ["monthly 2 of 12 (2026-12)", "yearly 2 of 2 (2026)"]);
    assert_eq!(of("2027-01-03"), ["weekly 4 of 4 (2026-W53)"]);
    assert_eq!(of("2027-01-17"), ["daily 4 of 7 (2027-01-17)", "weekly 2 of 4 (2027-W02)"]);
    assert_eq!(
        of("2027-01-20"),
        [
            "daily 1 of 7 (2027-01-20)",
            "weekly 1 of 4 (2027-W03)",
            "monthly 1 of 12 (2027-01)",
            "yearly 1 of 2 (2027)",
            "last_good"
        ]
    );
    // Why the set before the last of a month goes.
    let newer = |date: &str| history.iter().find(|set| set.time == at(date)).unwrap().id.to_string();
    assert_eq!(
        of("2026-10-30"),
        [
            "daily 83 of 7 (2026-10-30)".to_owned(),
            format!("weekly 13 of 4 (2026-W44), which has {}", newer("2026-11-01")),
            format!("monthly 4 of 12 (2026-10), which has {}", newer("2026-10-31")),
            format!("yearly 2 of 2 (2026), which has {}", newer("2026-12-31")),
        ]
    );
}

#[test]
fn of_400_daily_runs_the_first_of_each_period_are_left() {
    let policy = Policy { of_period: OfPeriod::First, ..policy() };
    let plan = decide(&request(&policy, "2027-01-20T04:00:00Z"), &daily(400, LAST));
    let by_hand = [
        // The year 2026, then months. The twelfth month from the newest is February.
        "2026-01-01",
        "2026-02-01",
        "2026-03-01",
        "2026-04-01",
        "2026-05-01",
        "2026-06-01",
        "2026-07-01",
        "2026-08-01",
        "2026-09-01",
        "2026-10-01",
        "2026-11-01",
        "2026-12-01",
        // The Mondays of four weeks, and the month January, which is also the year 2027.
        "2026-12-28",
        "2027-01-01",
        "2027-01-04",
        "2027-01-11",
        // Seven days; the 18th is also the week W03.
        "2027-01-14",
        "2027-01-15",
        "2027-01-16",
        "2027-01-17",
        "2027-01-18",
        "2027-01-19",
        "2027-01-20",
    ];
    assert_eq!(kept(&plan), by_hand);
}

/// A prune a day leaves what one at the end leaves, so the first day of the rules makes no difference.
#[test]
fn a_prune_a_day_leaves_the_same() {
    for of_period in [OfPeriod::Newest, OfPeriod::First] {
        let policy = Policy { of_period, ..policy() };
        let all = daily(400, LAST);
        let at_once = kept(&decide(&request(&policy, "2027-01-20T04:00:00Z"), &all));
        let mut left: Vec<SetFacts> = Vec::new();
        for set in all {
            let now = set.time;
            left.push(set);
            let mut ask = request(&policy, LAST);
            ask.now = Now { server: now, host: now };
            let plan = decide(&ask, &left);
            left.retain(|set| !plan.order.contains(&set.id));
        }
        let dates: Vec<_> = left.iter().map(|set| set.time.to_string().replace("T03:00:00Z", "")).collect();
        assert_eq!(dates, at_once);
    }
}
