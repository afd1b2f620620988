//! What a member says of itself, as it stands in the engine.
//!
//! In: bytes that anybody may have written. Out: an [`Entry`]. Must never: take for an entry what another version of
//! this program, or somebody else, has written.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::consistency::Consistency;
use crate::ids::{InstanceId, RunId};
use crate::path_encoding::printable;

/// The version of entries, and of what the phases mean: members of one run all have the same.
pub(super) const PROTOCOL: u32 = 1;
/// More than any entry needs, bytes.
const MAX_SIZE: usize = 16 << 10;
/// The longest reason that is told to others, characters.
const MAX_REASON: usize = 300;

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its checks are done, and nothing is touched yet.
    Here,
    /// Its applications are quiesced, everything is flushed, the watchdog waits.
    Ready,
    /// Nothing is left to do but to freeze.
    Set,
    /// Everything is frozen.
    Frozen,
    /// EC2's answer was read, and everything is frozen.
    Answered,
    /// Everything was frozen until after "answered" of every member was read.
    Held,
    /// It gave up.
    Left,
}

impl Phase {
    /// As in the engine and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Ready => "ready",
            Self::Set => "set",
            Self::Frozen => "frozen",
            Self::Answered => "answered",
            Self::Held => "held",
            Self::Left => "left",
        }
    }

    /// Has a run whose entry says this nothing more to say?
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Held | Self::Left)
    }
}

/// One coming together of certain runs: the same for all of them, and never again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(String);

impl Epoch {
    /// The epoch of these runs, by member.
    #[must_use]
    pub fn of(group: &str, runs: &BTreeMap<&str, &RunId>) -> Self {
        let mut hash = Sha256::new();
        hash.update(group);
        for (member, run) in runs {
            hash.update(format!("\n{member} {run}"));
        }
        let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self(hex)
    }

    /// As long as an epoch, where there is none yet.
    #[must_use]
    pub fn none() -> Self {
        Self("0".repeat(32))
    }

    /// As it stands in tags.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub(super) protocol: u32,
    /// Its name.
    pub member: String,
    /// Whom it takes for the group, sorted.
    pub(super) members: Vec<String>,
    /// Its run.
    pub run: RunId,
    /// The instance that it is.
    pub instance: InstanceId,
    /// Its Region.
    pub region: String,
    /// How far it is.
    pub phase: Phase,
    /// None before it has seen everybody.
    pub epoch: Option<Epoch>,
    /// The label of its set, with `held`.
    pub label: Option<Consistency>,
    /// Why it left.
    pub reason: Option<String>,
}

impl Entry {
    /// Reads what is in the engine under this member's name.
    ///
    /// # Errors
    /// Why it is no entry of this member.
    pub(super) fn read(member: &str, bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Any {
            protocol: u32,
        }
        if bytes.len() > MAX_SIZE {
            return Err(format!("it has {} bytes", bytes.len()));
        }
        let any: Any =
            serde_json::from_slice(bytes).map_err(|_| "it is no entry of stillpoint's".to_owned())?;
        if any.protocol != PROTOCOL {
            return Err(format!(
                "it is of version {}, this program's is {PROTOCOL}: update the members to one version",
                any.protocol
            ));
        }
        let mut entry: Self = serde_json::from_slice(bytes).map_err(|e| clip(&e.to_string()))?;
        if entry.member != member {
            return Err("it is the entry of another member".to_owned());
        }
        entry.region = clip(&entry.region);
        entry.reason = entry.reason.map(|reason| clip(&reason));
        Ok(entry)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// One short line.
pub(super) fn clip(text: &str) -> String {
    printable(text).chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            protocol: PROTOCOL,
            member: "a".to_owned(),
            members: vec!["a".to_owned(), "b".to_owned()],
            run: RunId::generate(),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            region: "eu-central-1".to_owned(),
            phase: Phase::Left,
            epoch: Some(Epoch::none()),
            label: None,
            reason: Some("the\nhook\u{1b}[31m failed".to_owned()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_reason_is_one_printable_line() {
        let read = Entry::read("a", &entry().bytes()).unwrap();
        assert_eq!((&read.members, read.phase), (&entry().members, Phase::Left));
        assert!(!read.reason.unwrap().chars().any(char::is_control));
    }

    #[test]
    fn what_is_no_entry_of_this_member_is_refused_with_the_reason() {
        let refused = |member: &str, bytes: &[u8]| Entry::read(member, bytes).unwrap_err();
        assert_eq!(refused("b", &entry().bytes()), "it is the entry of another member");
        assert_eq!(refused("a", b"\xff{"), "it is no entry of stillpoint's");
        let newer = Entry { protocol: 2, ..entry() };
        assert!(refused("a", &newer.bytes()).starts_with("it is of version 2"));
        let text = String::from_utf8(entry().bytes()).unwrap();
        assert!(refused("a", text.replace("\"left\"", "\"gone\"").as_bytes()).contains("unknown variant"));
        assert!(refused("a", text.replace("i-0123456789abcdef0", "x").as_bytes()).contains("instance"));
        assert_eq!(refused("a", &vec![b' '; MAX_SIZE + 1]), format!("it has {} bytes", MAX_SIZE + 1));
    }

    #[test]
    fn an_epoch_is_of_these_runs_and_no_others() {
        let (one, two, three) = (RunId::generate(), RunId::generate(), RunId::generate());
        let epoch = |a: &RunId, b: &RunId| Epoch::of("g", &BTreeMap::from([("a", a), ("b", b)]));
        assert_eq!(epoch(&one, &two), epoch(&one, &two));
        assert_ne!(epoch(&one, &two), epoch(&one, &three));
        assert_ne!(epoch(&one, &two), epoch(&two, &one));
        assert_eq!(epoch(&one, &two).as_str().len(), Epoch::none().as_str().len());
    }
}
