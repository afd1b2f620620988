//! What a rehearsal measured, for people and for programs.
//!
//! In: the rounds. Out: text of 80 columns, or JSON (the values themselves). Must never: print, or round a
//! time down to nothing.

use std::fmt::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::page::{Columns, Page};
use crate::path_encoding::shown;
use crate::run::rehearsal::{FACTOR, LEAST, MountRound, Round, SLOW, Suggestion};

/// Version of the JSON form. It grows when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;
const WIDTH: usize = 80;

/// What `rehearse` prints.
#[derive(Debug, Serialize)]
pub struct Rehearsal {
    /// Version of this JSON: [`VERSION`].
    pub version: u32,
    /// Name of the plan.
    pub plan: String,
    /// The plan's `window`.
    #[serde(rename = "configured_window_ms", serialize_with = "milliseconds")]
    pub configured_window: Duration,
    /// One entry for each round.
    pub rounds: Vec<Round>,
    /// How long each DryRun took.
    #[serde(rename = "dry_runs_ms", serialize_with = "all_milliseconds")]
    pub dry_runs: Vec<Duration>,
    /// How long EC2's answers took in this plan's kept records.
    #[serde(rename = "calls_ms", serialize_with = "all_milliseconds")]
    pub calls: Vec<Duration>,
    /// The suggested window; none when no round kept its window.
    pub suggestion: Option<Suggestion>,
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn milliseconds<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(ms(*d))
}

fn all_milliseconds<S: Serializer>(ds: &[Duration], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(ds.iter().map(|d| ms(*d)))
}

/// `12.3 ms`, or `4.56 s`.
fn time(d: Duration) -> String {
    if d < Duration::from_secs(1) { format!("{:.1} ms", ms(d)) } else { format!("{:.2} s", d.as_secs_f64()) }
}

/// A table of the longest times, then the suggested window.
#[must_use]
pub fn human(rehearsal: &Rehearsal) -> String {
    let mut page = Page::new(WIDTH);
    let n = rehearsal.rounds.len();
    let rounds = if n == 1 { "1 round".to_owned() } else { format!("{n} rounds") };
    page.wrapped("", "", &format!("Rehearsal of plan {}, {rounds}: nothing was taken.", rehearsal.plan));
    mounts(&mut page, &rehearsal.rounds);
    writers(&mut page, &rehearsal.rounds);
    hooks(&mut page, &rehearsal.rounds);
    windows(&mut page, rehearsal);
    troubles(&mut page, &rehearsal.rounds);
    page.finish()
}

/// The longest of a mount's times over all rounds.
fn longest(rounds: &[Round], at: usize, of: impl Fn(&MountRound) -> Option<Duration>) -> Option<Duration> {
    rounds.iter().filter_map(|r| of(r.mounts.get(at)?)).max()
}

fn mounts(page: &mut Page, rounds: &[Round]) {
    let Some(first) = rounds.first().filter(|r| !r.mounts.is_empty()) else { return };
    let cell = |d: Option<Duration>| format!("{:>10}", d.map_or_else(|| "-".to_owned(), time));
    let stalls: Vec<_> = (0..first.mounts.len()).map(|i| longest(rounds, i, |m| m.stall)).collect();
    let slowest = stalls.iter().max().copied().flatten();
    let head = |text: &str| format!("{text:>10}");
    let mut rows =
        vec![[String::new(), String::new(), head("stalled"), head("FIFREEZE"), head("flush before")]];
    rows.extend(first.mounts.iter().enumerate().map(|(i, m)| {
        [
            shown(&m.mount_point),
            m.fstype.clone(),
            cell(stalls[i]),
            cell(longest(rounds, i, |m| m.freeze)),
            format!("{:>12}", cell(longest(rounds, i, |m| Some(m.flush))).trim()),
        ]
    }));
    page.blank();
    page.wrapped("", "", if rounds.len() == 1 { "Mounts" } else { "Mounts, the longest of all rounds" });
    let columns = Columns::of(&rows, WIDTH);
    for (at, row) in rows.iter().enumerate() {
        let note = match at.checked_sub(1).and_then(|i| stalls[i]) {
            stall @ Some(_) if stall == slowest && first.mounts.len() > 1 => "longest",
            _ => "",
        };
        page.row(&columns, row, &[note.to_owned()]);
    }
}

/// The processes that were writing where FIFREEZE took long.
fn writers(page: &mut Page, rounds: &[Round]) {
    let slow = rounds.iter().flat_map(|r| &r.mounts).filter(|m| m.freeze.is_some_and(|f| f >= SLOW));
    let mut told: Vec<&std::path::Path> = Vec::new();
    for mount in slow {
        if told.contains(&mount.mount_point.as_path()) {
            continue;
        }
        if told.is_empty() {
            page.blank();
            page.wrapped("", "", "Where freezing took long, and who had files open for writing there");
        }
        told.push(&mount.mount_point);
        if mount.writers.is_empty() {
            page.wrapped("  ", "    ", &format!("{}: nobody that can be seen", shown(&mount.mount_point)));
        }
        for writer in &mount.writers {
            let mut text =
                format!("{}: {} with {}", shown(&mount.mount_point), writer.process, shown(&writer.path));
            if let Some(bytes) = writer.written {
                let _ = write!(text, ", {} written meanwhile", size(bytes));
            }
            page.wrapped("  ", "    ", &text);
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn hooks(page: &mut Page, rounds: &[Round]) {
    let Some(first) = rounds.first().filter(|r| !r.hooks.is_empty()) else { return };
    page.blank();
    page.wrapped("", "", if rounds.len() == 1 { "Hooks" } else { "Hooks, the longest of all rounds" });
    let rows: Vec<[String; 3]> = first
        .hooks
        .iter()
        .map(|hook| {
            let same = |h: &&crate::quiesce::HookOutcome| h.name == hook.name && h.phase == hook.phase;
            let took = rounds.iter().flat_map(|r| &r.hooks).filter(same).map(|h| h.duration).max();
            [hook.name.clone(), hook.phase.to_string(), format!("{:>10}", time(took.unwrap_or_default()))]
        })
        .collect();
    let columns = Columns::of(&rows, WIDTH);
    for row in &rows {
        page.row(&columns, row, &[]);
    }
}

fn windows(page: &mut Page, rehearsal: &Rehearsal) {
    page.blank();
    let windows: Vec<_> =
        rehearsal.rounds.iter().filter(|r| !r.window.is_zero()).map(|r| (r.window, r.hold)).collect();
    if let Some((window, hold)) = windows.iter().max() {
        let text = if hold.is_zero() {
            format!("Frozen window: {}, without a call.", time(*window))
        } else {
            format!("Frozen window: {}, {} of it held.", time(*window), time(*hold))
        };
        page.wrapped("", "", &text);
    }
    let mut answers = rehearsal.dry_runs.clone();
    answers.sort_unstable();
    if let (Some(median), Some(slowest)) = (answers.get(answers.len() / 2), answers.last()) {
        let n = answers.len();
        let mut text =
            format!("EC2's answer to {n} DryRuns: median {}, slowest {}.", time(*median), time(*slowest));
        if let Some(call) = rehearsal.calls.iter().max() {
            let _ = write!(text, " Slowest real call on record: {}.", time(*call));
        }
        page.wrapped("", "", &text);
    }
    let Some(suggestion) = &rehearsal.suggestion else { return };
    let text = format!(
        "Suggested window: {} = {FACTOR} × ({} + {}), rounded up, at least {}.",
        humantime::format_duration(suggestion.window),
        time(suggestion.longest),
        time(suggestion.answer),
        humantime::format_duration(LEAST)
    );
    page.wrapped("", "", &text);
    let configured = humantime::format_duration(rehearsal.configured_window);
    page.wrapped(
        "",
        "",
        &if rehearsal.configured_window < suggestion.window {
            format!("The plan's window of {configured} is shorter: raise `window`.")
        } else {
            format!("The plan's window of {configured} has room for that.")
        },
    );
}

fn troubles(page: &mut Page, rounds: &[Round]) {
    for (i, round) in rounds.iter().enumerate() {
        let which = if rounds.len() == 1 { "Result: ".to_owned() } else { format!("Round {}: ", i + 1) };
        if let Some(reason) = &round.reason {
            let what = match round.achieved {
                Some(reached) => format!("{which}a set would only be {reached}-consistent: {reason}"),
                None => format!("{which}failed: {reason}"),
            };
            page.wrapped("", "  ", &what);
        }
        for device in &round.unwitnessed {
            page.wrapped("", "  ", &format!("{which}no independent witness: {device}"));
        }
        for missing in &round.missing {
            page.wrapped("", "  ", &format!("{which}should be mounted and is not: {missing}"));
        }
        for trouble in &round.after {
            page.wrapped("", "  ", &format!("{which}after the thaw: {trouble}"));
        }
        for mount in &round.still_frozen {
            let text = format!(
                "STILL FROZEN: {} (the watchdog keeps trying; `stillpoint thaw --all` thaws everything)",
                shown(mount)
            );
            page.wrapped("", "  ", &text);
        }
    }
}
