//! The window that a rehearsal suggests.
//!
//! In: rounds, and how long EC2 took to answer. Out: a [`Suggestion`]. Pure. Must never: suggest less than
//! what was measured.

use std::time::Duration;

use serde::Serialize;

use super::round::{Round, millis};

/// The shortest window that is suggested: EC2's real answer takes longer than that of a DryRun, and its time
/// varies.
pub(crate) const LEAST: Duration = Duration::from_secs(2);
/// The suggested window is this many times what was measured.
pub(crate) const FACTOR: u32 = 3;

/// A window that is long enough for what was measured, with a margin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// Whole seconds, for the setting `window`.
    #[serde(rename = "window_ms", serialize_with = "millis::duration")]
    pub window: Duration,
    /// The longest window of all rounds, without the time that stands for the create call.
    #[serde(rename = "longest_ms", serialize_with = "millis::duration")]
    pub longest: Duration,
    /// EC2's slowest answer: of the DryRuns, and of the calls in this plan's kept records.
    #[serde(rename = "answer_ms", serialize_with = "millis::duration")]
    pub answer: Duration,
}

/// [`FACTOR`] × (longest window without its hold + slowest answer), rounded up to whole seconds, never below
/// [`LEAST`]. None when no round had a window that was kept.
#[must_use]
pub fn suggest(rounds: &[Round], answers: &[Duration]) -> Option<Suggestion> {
    let kept = rounds.iter().filter(|r| r.achieved.is_some() && !r.window.is_zero());
    let longest = kept.map(|r| r.window.saturating_sub(r.hold)).max()?;
    let answer = answers.iter().max().copied().unwrap_or_default();
    let wanted = (longest + answer) * FACTOR;
    let whole = Duration::from_secs(wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0));
    Some(Suggestion { window: whole.max(LEAST), longest, answer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::plan::Consistency;

    fn round(window: u64, hold: u64) -> Round {
        Round {
            window: Duration::from_millis(window),
            hold: Duration::from_millis(hold),
            mounts: vec![],
            hooks: vec![],
            achieved: Some(Consistency::Filesystem),
            reason: None,
            unwitnessed: vec![],
            still_frozen: vec![],
            missing: Vec::new(),
            after: vec![],
            exit: Exit::Ok,
            hint: None,
            signal: None,
        }
    }

    #[test]
    fn the_suggestion_is_the_documented_rule() {
        let ms = Duration::from_millis;
        let suggested = |rounds: &[Round], answers: &[Duration]| suggest(rounds, answers).unwrap().window;
        assert_eq!(suggested(&[round(60, 0)], &[ms(5)]), LEAST);
        // 3 × (800 + 400 ms) = 3.6 s.
        assert_eq!(suggested(&[round(60, 0), round(1300, 500)], &[ms(5), ms(400)]), ms(4000));
        assert_eq!(suggested(&[round(1000, 0)], &[]), ms(3000), "whole seconds stay what they are");
        let failed = Round { achieved: None, ..round(9000, 0) };
        assert_eq!(suggested(&[failed, round(1000, 0)], &[]), ms(3000));
        assert_eq!(suggest(&[], &[ms(5)]), None);
    }
}
