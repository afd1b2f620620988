//! The ledger: what verify has found out of a set, in its tags and in the record of its host.
//!
//! | tag | value |
//! |---|---|
//! | `stillpoint:verified` | `probe at=2027-01-31T03:00:00Z by=i-0123456789abcdef0 sound=3/3`: the last time that no fault was found |
//! | `stillpoint:verify-fault` | `whole at=2027-02-28T03:00:00Z by=elsewhere what=…`: the last fault |
//!
//! A fault stands until a later look that sees as much finds none.
//!
//! In: tags that anybody may have written, what a verify has come to. Out: values, tags. Must never: let a look that
//! is less deep take the place of a deeper one, or a fault be forgotten for one.

use std::fmt;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::Serialize;

use super::set::SnapshotSet;
use super::tags::Tag;
use crate::ids::InstanceId;

/// The last look that found no fault.
pub(crate) const VERIFIED_TAG: &str = "stillpoint:verified";
/// The last fault.
pub(crate) const FAULT_TAG: &str = "stillpoint:verify-fault";
/// EC2 allows so many characters a value (EC2 guide, "tag restrictions").
const MAX_VALUE: usize = 256;
/// By whom, where it was not an instance that knows who it is.
const ELSEWHERE: &str = "elsewhere";
const ESCAPE: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'<').add(b'>').add(b'\\').add(b'"');

/// How far a verify looks. Each level includes the first two; [`Level::covers`] says which other ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Members, states, times and tags: no data is read.
    Arithmetic,
    /// The same, then superblocks and journals of each filesystem, without a volume.
    #[default]
    Probe,
    /// The same, then every block that was written, against its checksum. It costs by the block.
    Whole,
    /// `probe`, then mount and fsck of each filesystem without a volume: blocks are fetched as they are read, what is
    /// written stays in memory. It costs by the block. Needs root.
    Mount,
    /// `probe`, then volumes that are made of the set and thrown away: mount and fsck of each filesystem. Needs root.
    Restore,
}

impl Level {
    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Probe => "probe",
            Self::Whole => "whole",
            Self::Mount => "mount",
            Self::Restore => "restore",
        }
    }

    /// Does a look at this level see all that one at the other level does? A mount or a restore does not read every block,
    /// and reading every block mounts nothing.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == other || (self > other && (other <= Self::Probe || other == Self::Mount))
    }

    fn from_name(text: &str) -> Option<Self> {
        [Self::Arithmetic, Self::Probe, Self::Whole, Self::Mount, Self::Restore]
            .into_iter()
            .find(|level| level.name() == text)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By(Option<InstanceId>);

impl By {
    /// This instance, or somebody elsewhere.
    #[must_use]
    pub fn of(instance: Option<&InstanceId>) -> Self {
        Self(instance.cloned())
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or(ELSEWHERE, InstanceId::as_str))
    }
}

impl Serialize for By {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A look that found no fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How far.
    pub level: Level,
    /// When, in whole seconds.
    pub at: Timestamp,
    /// Who.
    pub by: By,
    /// Filesystems that were found sound.
    pub sound: usize,
    /// Filesystems that the set has: the others were not looked at.
    pub filesystems: usize,
}

/// A look that found a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultFound {
    /// How far.
    pub level: Level,
    /// When, in whole seconds.
    pub at: Timestamp,
    /// Who.
    pub by: By,
    /// The first fault, in words; it may be cut off.
    pub what: String,
}

/// What a look has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No fault.
    NoFault(Verified),
    /// A fault.
    Fault(FaultFound),
}

impl Verified {
    /// The data of every filesystem was read, and is sound.
    #[must_use]
    pub fn proven(&self) -> bool {
        let all = self.sound == self.filesystems;
        all && (self.level == Level::Whole || (self.level >= Level::Probe && self.filesystems > 0))
    }

    fn line(&self) -> String {
        let Self { level, at, by, sound, filesystems } = self;
        format!("{level} at={at} by={by} sound={sound}/{filesystems}")
    }

    /// From a tag's value; none where it says nothing that can be believed.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let head = Head::read(text)?;
        let (sound, filesystems) = head.word("sound")?.split_once('/')?;
        let (sound, filesystems) = (sound.parse().ok()?, filesystems.parse().ok()?);
        let Head { level, at, by, .. } = head;
        (sound <= filesystems).then_some(Self { level, at, by, sound, filesystems })
    }
}

impl FaultFound {
    /// Within what a tag can have.
    fn line(&self) -> String {
        let Self { level, at, by, what } = self;
        let mut line = format!("{level} at={at} by={by} what=");
        for c in what.chars() {
            let escaped = percent_encode(c.encode_utf8(&mut [0; 4]).as_bytes(), ESCAPE).to_string();
            if line.len() + escaped.len() > MAX_VALUE {
                break;
            }
            line.push_str(&escaped);
        }
        line
    }

    /// From a tag's value. One that cannot be read is a fault too: somebody has found one.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let read = || {
            let head = Head::read(text)?;
            let what = percent_decode_str(head.word("what")?).decode_utf8_lossy().into_owned();
            let Head { level, at, by, .. } = head;
            Some(Self { level, at, by, what })
        };
        read().unwrap_or_else(|| Self {
            level: Level::Whole,
            at: Timestamp::UNIX_EPOCH,
            by: By(None),
            what: format!("the tag {FAULT_TAG} cannot be read: {text}"),
        })
    }
}

/// What both have.
struct Head<'a> {
    level: Level,
    at: Timestamp,
    by: By,
    rest: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (level, rest) = text.split_once(' ')?;
        // Words that a newer version adds are left alone.
        let rest: Vec<_> = rest.split(' ').filter_map(|word| word.split_once('=')).collect();
        let word = |name: &str| rest.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let by = match word("by")? {
            ELSEWHERE => By(None),
            id => By(Some(id.parse().ok()?)),
        };
        Some(Self { level: Level::from_name(level)?, at: word("at")?.parse().ok()?, by, rest })
    }

    fn word(&self, name: &str) -> Option<&'a str> {
        self.rest.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

impl SnapshotSet {
    /// The fault that stands: no later look that was at least as deep has found none.
    #[must_use]
    pub fn fault(&self) -> Option<&FaultFound> {
        let cleared =
            |f: &&FaultFound| self.verified.as_ref().is_some_and(|v| v.at > f.at && v.level.covers(f.level));
        self.verify_fault.as_ref().filter(|f| !cleared(f))
    }

    /// The last look that found no fault, unless a fault stands.
    #[must_use]
    pub fn sound(&self) -> Option<&Verified> {
        self.verified.as_ref().filter(|_| self.fault().is_none())
    }

    /// Its data is proven to be sound.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.sound().is_some_and(Verified::proven)
    }
}

/// The tag for what was found of this set; none where what is known of it already says more.
#[must_use]
pub fn tag(set: &SnapshotSet, found: &Found) -> Option<Tag> {
    match found {
        Found::Fault(fault) => Some((FAULT_TAG.to_owned(), fault.line())),
        Found::NoFault(new) => {
            let more = set.sound().is_some_and(|old| {
                let deeper = old.level != new.level && old.level.covers(new.level);
                deeper || (old.level == new.level && old.sound > new.sound)
            });
            (!more).then(|| (VERIFIED_TAG.to_owned(), new.line()))
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
