//! How far a whole read is: bars on a terminal, a line every so often elsewhere, and the state for systemd.
//!
//! In: [`Reading`]s, one after each block. Out: text on stderr. Must never: take longer than what it tells of.

use std::time::Duration;

use crate::cli::follow::{Progress, Row, gib};
use crate::cli::say;
use crate::restore::verify::{Part, Reading};
use crate::sets::wait::rough;

/// Between two looks at a bar, and between two lines where there is none.
const A_LOOK: Duration = Duration::from_millis(100);
const A_LINE: Duration = Duration::from_secs(30);
/// systemd is told how far it is so often.
const A_STATUS: Duration = Duration::from_secs(5);
/// Bytes of a block.
const BLOCK: u64 = 512 << 10;

/// Whoever watches a whole read.
pub(super) struct Watching {
    progress: Progress,
    began: Duration,
    shown: Duration,
    said: Duration,
}

impl Watching {
    /// It begins `now`.
    pub fn new(now: Duration) -> Self {
        Self { progress: Progress::new(), began: now, shown: Duration::ZERO, said: now }
    }

    /// How it stands `now`.
    pub fn see(&mut self, reading: &Reading, now: Duration) {
        let each = if self.progress.has_bars() { A_LOOK } else { A_STATUS };
        if now.saturating_sub(self.shown) >= each || self.shown.is_zero() {
            self.shown = now;
            let summary = summary(reading, now.saturating_sub(self.began));
            self.progress.show(|| reading.parts.iter().map(row).collect(), &summary, A_STATUS);
        }
        if !self.progress.has_bars() && now.saturating_sub(self.said) >= A_LINE {
            self.said = now;
            say(&summary(reading, now.saturating_sub(self.began)));
        }
    }

    pub fn end(self) {
        self.progress.end();
    }
}

fn percent(part: &Part) -> Option<u8> {
    let of = part.of.filter(|of| *of > 0)?;
    u8::try_from((part.read.saturating_mul(100) / of).min(100)).ok()
}

fn row(part: &Part) -> Row {
    let damaged = if part.damaged > 0 { format!(", {} DAMAGED", part.damaged) } else { String::new() };
    let bytes = gib(part.read.saturating_mul(BLOCK));
    let said = match percent(part).filter(|_| !part.done) {
        Some(percent) => format!("{percent:3}%, {bytes}{damaged}"),
        None if part.done => format!("done, {bytes}{damaged}"),
        None => format!("{bytes}{damaged}"),
    };
    Row { name: part.name.clone(), percent: percent(part), done: part.done, said }
}

/// The whole in a line.
fn summary(reading: &Reading, taken: Duration) -> String {
    let (read, done) = (reading.read(), reading.parts.iter().filter(|p| p.done).count());
    let mut said =
        format!("{} read, {done} of {} snapshots", gib(read.saturating_mul(BLOCK)), reading.parts.len());
    let of: Option<u64> = reading.parts.iter().map(|p| if p.done { Some(p.read) } else { p.of }).sum();
    #[allow(clippy::cast_precision_loss, reason = "a speed, and a time to go, are rough")]
    if read > 0 && taken >= Duration::from_secs(1) {
        let speed = read as f64 / taken.as_secs_f64();
        said = format!("{said}, {:.0} MiB/s", speed / 2.0);
        if let Some(left) = of.map(|of| of.saturating_sub(read)).filter(|left| *left > 0) {
            let left = Duration::try_from_secs_f64(left as f64 / speed).unwrap_or(Duration::MAX);
            said = format!("{said}, about {} left", rough(left));
        }
    }
    let damaged: u64 = reading.parts.iter().map(|p| p.damaged).sum();
    if damaged > 0 { format!("{said}; {damaged} blocks DAMAGED") } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        let part = |read, of, done| Part {
            id: "snap-0123456789abcdef0".parse().unwrap(),
            name: "vol-0123456789abcdef0 /dev/sdf".to_owned(),
            read,
            of,
            damaged: 0,
            done,
        };
        let said = |parts: &[Part], s| summary(&Reading { parts: parts.to_vec() }, Duration::from_secs(s));
        let half = [part(2048, Some(2048), true), part(2048, Some(6144), false)];
        assert_eq!(said(&half, 8), "2.0 GiB read, 1 of 2 snapshots, 256 MiB/s, about 8 s left");
        assert_eq!(said(&half, 0), "2.0 GiB read, 1 of 2 snapshots", "no speed before there is one");
        let unknown = [part(2048, None, false)];
        assert_eq!(said(&unknown, 4), "1.0 GiB read, 0 of 1 snapshots, 256 MiB/s", "its size is not known");
        let damaged = [Part { damaged: 2, ..part(2048, Some(2048), true) }];
        assert_eq!(said(&damaged, 4), "1.0 GiB read, 1 of 1 snapshots, 256 MiB/s; 2 blocks DAMAGED");
        assert_eq!(row(&half[1]).said, " 33%, 1.0 GiB");
        assert_eq!(row(&damaged[0]).said, "done, 1.0 GiB, 2 DAMAGED");
    }
}
