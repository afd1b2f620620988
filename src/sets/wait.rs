//! Waiting for a set: what has changed since the last look, and when to look again.
//!
//! In: a set, then its snapshots again and again. Out: a line a change, and whether it is over. Pure. Must never:
//! call a set complete by its progress: only the state says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::record::SetRecord;
use super::set::SnapshotSet;
use crate::ec2::TaggedSnapshot;
use crate::ids::{SnapshotId, VolumeId};
use crate::path_encoding::printable;

/// The first pause between two looks, and the longest. DescribeSnapshots is asked once for all members.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);
/// For so long EC2 may not show a snapshot that exists (EC2 guide, "eventual consistency").
const LOOKS: u32 = 5;

/// What is known of a set that is waited for.
#[derive(Debug)]
pub struct Waiting {
    members: BTreeMap<SnapshotId, Known>,
}

/// One member, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The snapshot.
    pub id: SnapshotId,
    /// The volume that was snapshotted.
    pub volume: VolumeId,
    /// The device name of its attachment, where that is known.
    pub device: String,
    /// `pending`, `completed`, `error`, …; empty before the first look.
    pub state: Cow<'static, str>,
    /// EC2's progress of a pending snapshot, in percent; none where EC2 says nothing that is a number.
    pub percent: Option<u8>,
    /// What a restore would read, in bytes: only known of a completed snapshot.
    pub full_bytes: Option<u64>,
    message: Option<String>,
    /// Looks in a row that did not show it.
    absent: u32,
    /// The first percentage, and when it was seen.
    first: Option<(u8, Duration)>,
    /// When the present percentage was seen first.
    changed: Duration,
}

impl Known {
    fn new(id: &SnapshotId, volume: &VolumeId, device: Option<&str>) -> Self {
        Self {
            id: id.clone(),
            volume: volume.clone(),
            device: printable(device.unwrap_or_default()).into_owned(),
            state: Cow::default(),
            percent: None,
            full_bytes: None,
            message: None,
            absent: 0,
            first: None,
            changed: Duration::ZERO,
        }
    }

    /// Such as `vol-0123456789abcdef0 /dev/sdf`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.volume, self.device).trim_end().to_owned()
    }

    /// Time until it is completed, if it goes on as until now; none where EC2's percentage has not moved yet.
    /// `now` is on the clock that [`Waiting::see`] was given.
    #[must_use]
    pub fn time_left(&self, now: Duration) -> Option<Duration> {
        let (from, since) = self.first?;
        let to = self.percent.filter(|p| *p > from && self.state == "pending")?;
        // Of the whole percents that have passed: EC2 tells one late.
        let each = self.changed.checked_sub(since)?.div_f64(f64::from(to - from));
        let at = self.changed.saturating_add(each.mul_f64(f64::from(100 - to)));
        Some(at.saturating_sub(now))
    }
}

/// One member, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// The snapshot.
    pub id: SnapshotId,
    /// `pending`, `completed`, `error`, …; none where EC2 has not shown it.
    pub state: Option<String>,
    /// EC2's progress; none where it says nothing that is a number.
    pub percent: Option<u8>,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Every member is completed.
    Completed,
    /// A member is neither completed nor lost.
    Pending,
    /// A member is lost, and why.
    Failed(String),
}

impl Waiting {
    /// As the set was when it was read.
    #[must_use]
    pub fn of(set: &SnapshotSet) -> Self {
        let known = set.members.iter().map(|m| Known::new(&m.id, &m.volume_id, m.device_name.as_deref()));
        Self { members: known.map(|k| (k.id.clone(), k)).collect() }
    }

    /// As a run has made it.
    #[must_use]
    pub fn made(record: &SetRecord) -> Self {
        let made = &record.snapshots;
        let known = made.iter().map(|s| Known::new(&s.id, &s.volume_id, s.device_name.as_deref()));
        Self { members: known.map(|k| (k.id.clone(), k)).collect() }
    }

    /// Every member, by its id.
    pub fn members(&self) -> impl Iterator<Item = &Known> {
        self.members.values()
    }

    /// Takes what EC2 shows `now`, a time of any clock that goes on evenly. A line for each member whose state has
    /// changed.
    pub fn see(&mut self, shown: &[TaggedSnapshot], now: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, known) in &mut self.members {
            let Some(s) = shown.iter().find(|s| s.view.id == *id) else {
                known.absent += 1;
                continue;
            };
            known.absent = 0;
            let percent = s.view.progress.as_deref().and_then(percent);
            if known.percent != percent {
                known.percent = percent;
                known.changed = now;
                known.first = known.first.or(percent.map(|p| (p, now)));
            }
            known.full_bytes = s.detail.full_bytes.and_then(|b| u64::try_from(b).ok());
            if known.state != s.view.state {
                known.state.clone_from(&s.view.state);
                let failed = s.view.state == "error";
                known.message = s.detail.message.clone().filter(|_| failed);
                let more = match (&known.message, percent) {
                    (Some(why), _) => format!(": {}", printable(why)),
                    (None, Some(percent)) if s.view.state == "pending" => format!(" {percent}%"),
                    (None, _) => String::new(),
                };
                lines.push(format!("{id} {}: {}{more}", known.name(), printable(&known.state)));
            }
        }
        lines
    }

    /// How it stands.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut pending = false;
        for (id, known) in &self.members {
            match &*known.state {
                "error" => {
                    let why = known.message.as_deref().unwrap_or("EC2 gives no reason");
                    return Seen::Failed(format!("{id} {}: {}", known.name(), printable(why)));
                }
                _ if known.absent > LOOKS => {
                    return Seen::Failed(format!("{id} {} is gone: somebody has deleted it", known.name()));
                }
                "completed" if known.absent == 0 => {}
                _ => pending = true,
            }
        }
        if pending { Seen::Pending } else { Seen::Completed }
    }

    /// The whole in a line: what systemd shows, and a bar for all.
    #[must_use]
    pub fn summary(&self, now: Duration) -> String {
        let done = self.members().filter(|k| k.state == "completed").count();
        let mut said = format!("{done} of {} snapshots completed", self.members.len());
        let pending = || self.members().filter(|k| k.state == "pending");
        if let Some(least) = pending().filter_map(|k| k.percent).min() {
            said = format!("{said}, the slowest at {least}%");
        }
        // The whole takes as long as its slowest member, and is not guessed at while one says nothing.
        let left: Option<Vec<Duration>> = pending().map(|k| k.time_left(now)).collect();
        if let Some(left) = left.and_then(|l| l.into_iter().max()) {
            said = format!("{said}, about {} left", rough(left));
        }
        said
    }

    /// Each member, as it was seen last.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        let of = |known: &Known| State {
            id: known.id.clone(),
            state: Some(known.state.to_string()).filter(|s| !s.is_empty()),
            percent: known.percent,
        };
        self.members().map(of).collect()
    }

    /// The pause before the next look: longer the longer it lasts, and not in step with others.
    #[must_use]
    pub fn pause(&self, waited: Duration) -> Duration {
        let pause = (waited / 10).clamp(FIRST, LONGEST);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

/// EC2's progress: `42%`; it may be empty.
fn percent(text: &str) -> Option<u8> {
    text.strip_suffix('%')?.parse().ok().filter(|p| *p <= 100)
}

/// A time to go, no more exact than it is known.
#[must_use]
pub fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=59 => format!("{} s", seconds.max(1)),
        60..=5399 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(first: u8, since: u64, percent: u8, changed: u64) -> Known {
        Known {
            state: "pending".into(),
            percent: Some(percent),
            first: Some((first, Duration::from_secs(since))),
            changed: Duration::from_secs(changed),
            ..Known::new(
                &"snap-0123456789abcdef0".parse().unwrap(),
                &"vol-0123456789abcdef0".parse().unwrap(),
                Some("/dev/sdf"),
            )
        }
    }

    #[test]
    fn the_time_left_comes_from_what_has_passed_and_from_nothing_else() {
        let at = |now, known: Known| known.time_left(Duration::from_secs(now)).map(|d| d.as_secs());
        assert_eq!(at(100, known(10, 0, 10, 0)), None, "nothing has moved");
        assert_eq!(at(100, known(10, 0, 20, 100)), Some(800), "10 s a percent");
        assert_eq!(at(150, known(10, 0, 20, 100)), Some(750), "the clock goes on between two percents");
        assert_eq!(at(5000, known(10, 0, 20, 100)), Some(0), "late");
        assert_eq!(at(200, known(90, 0, 20, 100)), None, "EC2 went back");
        let done = Known { state: "completed".into(), ..known(10, 0, 20, 100) };
        assert_eq!(at(100, done), None);
    }

    #[test]
    fn a_percentage_is_read_where_there_is_one() {
        let all = ["42%", "0%", "100%", "", "%", "101%", "-1%", "42", "4 2%"].map(percent);
        assert_eq!(all, [Some(42), Some(0), Some(100), None, None, None, None, None, None]);
        assert_eq!(
            [0, 59, 61, 5399, 5400, 90_000].map(|s| rough(Duration::from_secs(s))),
            ["1 s", "59 s", "2 min", "90 min", "1 h 30 min", "25 h 0 min"]
        );
    }
}
