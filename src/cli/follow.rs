//! A set that is followed, on a terminal, in a log, and for systemd.
//!
//! In: how the members stand. Out: a bar for each volume on a terminal, one line a change elsewhere, and the state for
//! `systemctl status`. Must never: run while anything is frozen.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::termios::tcgetwinsize;
use sd_notify::NotifyState;

use super::say;
use crate::gate;
use crate::path_encoding::printable;
use crate::sets::follow::Tell;
use crate::sets::wait::{Known, Waiting, rough};

/// systemd is asked for so much more time than until the next look: that look may wait for the network.
const GRACE: Duration = Duration::from_secs(300);

/// Whoever waits for this set.
pub(super) struct Progress {
    bars: Option<Bars>,
}

impl Progress {
    /// Bars where stderr is a terminal that can move its cursor.
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t.is_empty() || t == "dumb");
        let bars = (std::io::stderr().is_terminal() && !dumb).then(Bars::default);
        Self { bars }
    }

    /// On a terminal there are bars.
    pub(super) fn has_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// How it stands: on a terminal, and for systemd, which is asked for time until the `next` look.
    pub(super) fn show(&mut self, rows: impl FnOnce() -> Vec<Row>, summary: &str, next: Duration) {
        if let Some(bars) = &mut self.bars {
            gate::finish();
            bars.show(rows(), summary);
        }
        let more = u32::try_from((next + GRACE).as_micros()).unwrap_or(u32::MAX);
        // Where nobody listens, this does nothing.
        let _ =
            sd_notify::notify(false, &[NotifyState::Status(summary), NotifyState::ExtendTimeoutUsec(more)]);
    }

    /// The bars go; what is said next has the terminal for itself.
    pub(super) fn end(self) {
        if let Some(bars) = self.bars {
            bars.bars.iter().for_each(ProgressBar::finish_and_clear);
            let _ = bars.all.clear();
        }
    }
}

/// One bar.
pub(super) struct Row {
    /// What it is about, of 31 characters at most.
    pub name: String,
    /// How far it is, where that is known.
    pub percent: Option<u8>,
    pub done: bool,
    /// Behind the bar.
    pub said: String,
}

impl Tell for Progress {
    fn line(&mut self, line: &str) {
        match &self.bars {
            // What is said goes by way of a thread: the bars wait for it.
            Some(bars) => bars.all.suspend(|| {
                say(line);
                gate::finish();
            }),
            None => say(line),
        }
    }

    fn looked(&mut self, waiting: &Waiting, now: Duration, next: Duration) {
        self.show(|| rows(waiting, now), &waiting.summary(now), next);
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    /// One a volume, where the terminal has as many rows; and a last one without a bar, for the whole.
    bars: Vec<ProgressBar>,
}

/// Without its unwraps: a template that is a constant can only be wrong in a test.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Bars {
    fn show(&mut self, mut members: Vec<Row>, summary: &str) {
        // The last row is for the whole, and the one before it for what does not fit.
        let rows = tcgetwinsize(std::io::stderr()).map_or(24, |w| usize::from(w.ws_row)).max(4) - 2;
        if members.len() > rows {
            members.sort_by_key(|m| (m.done, m.percent));
        }
        let more = members.len().saturating_sub(rows);
        members.truncate(rows);
        while self.bars.len() < members.len() + 1 {
            self.bars.push(self.all.add(ProgressBar::new(100)));
        }
        for (bar, member) in self.bars.iter().zip(members) {
            bar.set_style(style("{prefix:31} [{bar:18}] {msg}"));
            bar.set_prefix(member.name);
            bar.set_message(member.said);
            bar.set_position(if member.done { 100 } else { u64::from(member.percent.unwrap_or_default()) });
        }
        if let Some(whole) = self.bars.last() {
            whole.set_style(style("{msg}"));
            let more = if more > 0 { format!("and {more} more · ") } else { String::new() };
            whole.set_message(format!("{more}{summary}"));
        }
    }
}

fn rows(waiting: &Waiting, now: Duration) -> Vec<Row> {
    let row = |m: &Known| Row {
        name: m.name(),
        percent: m.percent,
        done: m.state == "completed",
        said: said(m, now),
    };
    waiting.members().map(row).collect()
}

/// What is behind a member's bar.
fn said(member: &Known, now: Duration) -> String {
    match (&*member.state, member.percent, member.full_bytes) {
        ("completed", _, Some(bytes)) => format!("done, {} in all", gib(bytes)),
        ("completed", ..) => "done".to_owned(),
        ("pending", Some(percent), _) => match member.time_left(now) {
            Some(left) => format!("{percent:3}%, about {} left", rough(left)),
            None => format!("{percent:3}%"),
        },
        ("pending", None, _) | ("", ..) => "pending".to_owned(),
        (state, ..) => printable(state).into_owned(),
    }
}

/// Bytes, with one digit behind the point.
pub(super) fn gib(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib < 1.0 { format!("{:.0} MiB", gib * 1024.0) } else { format!("{gib:.1} GiB") }
}
