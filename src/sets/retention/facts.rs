//! What a decision is made of: the sets of one group, the clocks, and what was asked for.
//!
//! In: what whoever reads the sets has found. Out: plain values. Must never: be filled in from a guess:
//! what is not known of a set is a hold on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use serde::Serialize;

use super::age::Age;
use super::policy::Policy;
use super::zone::Zone;
use crate::consistency::Consistency;
use crate::ids::{ImageId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::printable;

/// An archived snapshot is billed for at least so many days (EBS guide, "Archive Amazon EBS snapshots").
const ARCHIVED: Age = Age::days(90);

/// Whose sets are counted together. Two sets that differ in any of these are never in one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Group {
    /// The account that owns the snapshots.
    pub account: String,
    /// The Region that they are in. Of copies: the destination.
    pub region: String,
    /// The instance's id, or the key that the configuration gives a host that is built anew.
    pub host: String,
    /// The plan's name.
    pub plan: String,
    /// Copies are a group of their own, in the Region of their source too.
    pub copies: bool,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, region, host, plan, copies } = self;
        let what = if *copies { "copies of " } else { "" };
        let text = format!("{what}plan {plan} of {host} in {region}, account {account}");
        f.write_str(&printable(&text))
    }
}

/// One set, as far as retention is about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetFacts {
    /// The run that took it; a copy has its source's.
    pub id: RunId,
    /// Where its own tags say that it belongs.
    pub group: Arc<Group>,
    /// EC2's StartTime, the earliest of its members. Of a copy: that of its source. Never the host's clock.
    pub time: Timestamp,
    /// What is known of its members.
    pub state: State,
    /// Everything that holds it, or one of its members.
    pub holds: Vec<Hold>,
    /// The tag `stillpoint:keep-until`.
    pub keep_until: Option<KeepUntil>,
    /// Verify has read its data and found it sound.
    pub proven: bool,
}

/// What is known of the members of a set. Only good sets count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Every member is completed, none is missing, and the label is at least what the plan requires.
    Good,
    /// A member is pending, and none has failed.
    Pending,
    /// Every member is completed and none is missing, at a label that is less than the plan requires.
    BelowRequired {
        /// The set's label.
        achieved: Consistency,
        /// What the plan requires.
        required: Consistency,
    },
    /// A member ended in `error`, or the run was aborted.
    Failed {
        /// In EC2's or the run's words.
        why: String,
    },
    /// A member is missing, and nobody was removing the set.
    Partial {
        /// Which one.
        why: String,
    },
    /// Somebody began to remove it, and not every member is gone.
    Torn {
        /// What was refused, where that is known.
        why: String,
    },
}

impl State {
    /// How much a restore gets of it: more is better.
    pub(super) fn worth(&self) -> u8 {
        match self {
            Self::Good => 4,
            Self::BelowRequired { .. } => 3,
            Self::Pending => 2,
            Self::Partial { .. } | Self::Torn { .. } => 1,
            Self::Failed { .. } => 0,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Good => "good".to_owned(),
            Self::Pending => "pending".to_owned(),
            Self::BelowRequired { achieved, required } => {
                format!("{achieved}-consistent, and {required} is required")
            }
            Self::Failed { why } => format!("failed: {why}"),
            Self::Partial { why } => format!("partial: {why}"),
            Self::Torn { why } => format!("removed in part: {why}"),
        };
        f.write_str(&printable(&text))
    }
}

/// What holds a set, so that no rule may let it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "hold", rename_all = "snake_case")]
pub enum Hold {
    /// A registered image uses a member, also one that is disabled or deprecated.
    Image {
        /// Such as `ami-0123456789abcdef0`.
        image: String,
        /// `available`, `disabled`, `deprecated`, …
        state: String,
    },
    /// An image of this set that goes with it: it holds nothing, and is deregistered first.
    OwnImage {
        /// It.
        image: ImageId,
        /// `available`, `disabled`, `deprecated`, …
        state: String,
    },
    /// A lock that has not expired.
    Locked {
        /// `governance`, `compliance` or `compliance-cooloff`.
        mode: String,
        /// When it expires, where EC2 says. A reason, which it is a part of, has an `until` of its own.
        #[serde(rename = "locked_until")]
        until: Option<Timestamp>,
    },
    /// Other accounts may use a member. It holds unless the policy has `delete_shared`.
    Shared {
        /// Account ids, or `all`.
        with: Vec<String>,
    },
    /// A copy that is pending names a member as its source.
    PendingCopy {
        /// The copy.
        copy: SnapshotId,
        /// The Region that it is in.
        region: String,
    },
    /// It has the newest copy of a volume at this destination, which makes the next copy incremental. Whoever
    /// reads the sets leaves it out where nothing else will be copied there.
    NewestCopy {
        /// The volume that was copied.
        volume: VolumeId,
    },
    /// A member is in the archive. It holds for 90 days, which are billed in any case.
    Archived {
        /// When it was archived.
        since: Timestamp,
    },
    /// Its tags have a schema that this program does not know.
    ForeignSchema {
        /// The version that they name.
        version: String,
    },
    /// Another tool has made or marked a member.
    Foreign {
        /// Such as `aws:dlm:lifecycle-policy-id`.
        what: String,
    },
}

impl Hold {
    /// Does it hold at this time?
    pub(super) fn holds(&self, policy: Option<&Policy>, now: Timestamp) -> bool {
        match self {
            Self::Archived { since } => ARCHIVED.after(*since) > now,
            Self::OwnImage { .. } => false,
            Self::Shared { .. } => !policy.is_some_and(|p| p.delete_shared),
            _ => true,
        }
    }

    /// Does it go with its set, and hold nothing?
    #[must_use]
    pub fn goes_along(&self) -> bool {
        matches!(self, Self::OwnImage { .. })
    }

    /// When it ends, where that is known.
    pub(super) fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Locked { until, .. } => *until,
            Self::Archived { since } => Some(ARCHIVED.after(*since)),
            _ => None,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Image { image, state } => format!("the image {image} ({state}) uses it"),
            Self::OwnImage { image, state } => format!("its image {image} ({state}) goes with it"),
            Self::Locked { mode, until: Some(until) } => {
                format!("locked ({mode}) until {}", super::reason::minute(*until))
            }
            Self::Locked { mode, until: None } => format!("locked ({mode})"),
            Self::Shared { with } => format!("shared with {}", with.join(", ")),
            Self::PendingCopy { copy, region } => format!("being copied to {copy} in {region}"),
            Self::NewestCopy { volume } => {
                format!("the newest copy of {volume} here, which the next copy is based on")
            }
            Self::Archived { since } => {
                format!("archived since {}: 90 days are billed in any case", super::reason::minute(*since))
            }
            Self::ForeignSchema { version } => format!("its tags have the unknown schema {version}"),
            Self::Foreign { what } => format!("it is another tool's: {what}"),
        };
        f.write_str(&printable(&text))
    }
}

/// What the tag `stillpoint:keep-until` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepUntil {
    /// Kept until then.
    Date(Timestamp),
    /// Kept until somebody releases it.
    Forever,
    /// Neither: somebody wants it kept, and nobody knows for how long, so it is kept.
    Unreadable(String),
}

impl KeepUntil {
    /// From the tag's value: `forever`, a date in `zone`, whose day is a part of it, or an RFC 3339 time.
    #[must_use]
    pub fn from_tag(value: &str, zone: &Zone) -> Self {
        let text = value.trim();
        if text.eq_ignore_ascii_case("forever") {
            return Self::Forever;
        }
        let day = || {
            let next =
                text.parse::<Date>().ok().filter(|_| text.len() == "2026-12-31".len())?.tomorrow().ok()?;
            zone.rules().to_timestamp(next.to_datetime(Time::MIN)).ok()
        };
        let time = day().or_else(|| text.parse().ok());
        time.map_or_else(|| Self::Unreadable(value.to_owned()), Self::Date)
    }
}

impl fmt::Display for KeepUntil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date(until) => f.write_str(&super::reason::minute(*until)),
            Self::Forever => f.write_str("forever"),
            Self::Unreadable(text) => write!(f, "`{}`, which is not a date", printable(text)),
        }
    }
}

/// The time now, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Now {
    /// The `Date` of EC2's last answer. Ages are counted from it.
    pub server: Timestamp,
    /// The host's clock when that answer came.
    pub host: Timestamp,
}

/// What was asked for on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Options {
    /// Go on although the history has stopped growing.
    pub stale: bool,
    /// Remove more than half of the group, or more than `max_deletes`.
    pub yes: bool,
    /// Let everything go but the floors (`at_least`, `min_age`), what is held, and the last good set.
    pub all: bool,
    /// The last good set may go too, and `at_least` does not count.
    pub including_the_last: bool,
    /// The instance was named by its id, which a group whose instance is gone needs.
    pub instance_named: bool,
}

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The group whose sets may go.
    pub group: &'a Group,
    /// Its rules: those of the plan, or of the plan's copies. None, or rules that keep nothing: nothing is
    /// removed.
    pub policy: Option<&'a Policy>,
    /// The time now.
    pub now: Now,
    /// How far apart the plan's runs are, where that is known. None for a group whose instance is gone.
    pub interval: Option<Duration>,
    /// EC2 no longer has the group's instance.
    pub instance_gone: bool,
    /// What was asked for.
    pub options: Options,
}
