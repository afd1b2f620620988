//! docs/retention.svg: a year of daily runs under the rules, drawn from real decisions.

use std::fmt::Write as _;

use super::*;

const DAYS: usize = 365;
/// Where the first day is, and how wide a day is; it is one unit high.
const LEFT: usize = 70;
const TOP: usize = 60;
const WIDE: usize = 2;

/// From the rule that keeps a set first, to the one that keeps it last.
const RULES: [(Rule, &str, &str); 3] = [
    (Rule::Daily, "#4c8bbf", "daily = 7"),
    (Rule::Weekly, "#d98a29", "weekly = 4"),
    (Rule::Monthly, "#3f9a5b", "monthly = 12"),
];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Which rule kept each set on each day: `[set][day]`, and how many sets there were on each day.
fn year() -> (Vec<Vec<Option<Rule>>>, Vec<usize>) {
    let policy = Policy { daily: some(7), weekly: some(4), monthly: some(12), ..Policy::default() };
    let mut kept = vec![vec![None; DAYS]; DAYS];
    let mut left: Vec<SetFacts> = Vec::new();
    let mut counts = Vec::new();
    for (day, set) in daily(DAYS, "2026-12-31").into_iter().enumerate() {
        let mut ask = request(&policy, "2026-12-31");
        ask.now = Now { server: set.time, host: set.time };
        left.push(set);
        let plan = decide(&ask, &left);
        left.retain(|set| !plan.order.contains(&set.id));
        for decided in plan.sets.iter().filter(|set| set.verdict == Verdict::Keep) {
            let n = (0..DAYS).find(|n| id(*n) == decided.id).unwrap();
            let by = |rule: Rule| decided.reasons.iter().any(|reason| reason.rule == rule);
            kept[n][day] = RULES.iter().map(|(rule, ..)| *rule).find(|rule| by(*rule));
        }
        counts.push(left.len());
    }
    (kept, counts)
}

fn draw() -> String {
    let (kept, counts) = year();
    let first_days: Vec<usize> =
        (1..=12).map(|m| jiff::civil::date(2026, m, 1).day_of_year() as usize - 1).collect();
    let (right, bottom) = (LEFT + DAYS * WIDE, TOP + DAYS);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" \
         font-size=\"13\" role=\"img\">\n<title>A year of daily runs: which sets exist on which day</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        right + 90,
        bottom + 20
    );
    let rows: String = first_days.iter().map(|day| format!("M{LEFT} {}H{right}", TOP + day)).collect();
    let _ = writeln!(svg, "<path d=\"{rows}M{LEFT} {bottom}H{right}\" stroke=\"#ddd\" fill=\"none\"/>");
    let (x, y) = (right - 160, TOP + 36);
    let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"140\" height=\"70\" fill=\"#fff\"/>");
    let mut text = |x: usize, y: usize, anchor: &str, text: &str| {
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    text(LEFT, 24, "start", "the day a set was taken");
    text(LEFT - 10, TOP - 12, "end", "today");
    text(right + 10, TOP - 12, "start", "sets");
    for (month, day) in MONTHS.iter().zip(&first_days) {
        text(LEFT + day * WIDE, 44, "start", month);
        text(LEFT - 10, TOP + day + 4, "end", &format!("1 {month}"));
        text(right + 10, TOP + day + 4, "start", &counts[*day].to_string());
    }
    text(LEFT - 10, bottom + 3, "end", "31 Dec");
    text(right + 10, bottom + 3, "start", &counts[DAYS - 1].to_string());
    for (n, (_, _, name)) in RULES.iter().enumerate() {
        text(right - 120, TOP + 54 + n * 22, "start", name);
    }
    for (n, (rule, colour, _)) in RULES.iter().enumerate() {
        let mut path = String::new();
        for (set, days) in kept.iter().enumerate() {
            let of_rule: Vec<usize> = (0..DAYS).filter(|day| days[*day] == Some(*rule)).collect();
            // What a rule has let go it does not take up again.
            let (Some(from), Some(to)) = (of_rule.first(), of_rule.last()) else { continue };
            assert_eq!(to - from + 1, of_rule.len());
            let _ = write!(path, "M{} {}V{}", LEFT + set * WIDE, TOP + from, TOP + to + 1);
        }
        let y = TOP + 50 + n * 22;
        let _ = write!(path, "M{} {y}H{}", right - 150, right - 128);
        let _ = writeln!(svg, "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"1.8\" fill=\"none\"/>");
    }
    svg.push_str("</svg>\n");
    svg
}

#[test]
fn the_picture_in_the_documentation_is_what_the_rules_make() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/retention.svg");
    let drawn = draw();
    if std::env::var_os("DRAW").is_some() {
        std::fs::write(path, &drawn).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == drawn, "docs/retention.svg is not what the rules make: run scripts/draw-retention");
    assert!(drawn.len() < 20_000, "{}", drawn.len());
}

/// The picture can be read: a set goes from the rule of days to that of weeks, and to that of months.
#[test]
fn in_the_picture_a_set_goes_from_rule_to_rule() {
    let (kept, counts) = year();
    // Saturday, 28 February: the last of its month, not of its week. Sunday, 1 March: the last of its week.
    let day = |month: i8, day: i8| jiff::civil::date(2026, month, day).day_of_year() as usize - 1;
    let february = &kept[day(2, 28)];
    assert_eq!(february[day(2, 28)], Some(Rule::Daily));
    assert_eq!(february[day(3, 6)], Some(Rule::Daily));
    assert_eq!(february[day(3, 7)], Some(Rule::Monthly));
    assert_eq!(february[DAYS - 1], Some(Rule::Monthly));
    let march = &kept[day(3, 1)];
    assert_eq!((march[day(3, 7)], march[day(3, 8)]), (Some(Rule::Daily), Some(Rule::Weekly)));
    assert_eq!((march[day(3, 22)], march[day(3, 23)]), (Some(Rule::Weekly), None));
    // On 31 December, a Thursday: 7 days, of which two are also weeks, 2 weeks more, and 11 months more.
    assert_eq!(counts[DAYS - 1], 20);
}
