//! What all members have said, as far as it is known here, and what follows from it.
//!
//! In: entries, in whatever order they arrive. Out: whether a phase is reached by all, who is missing, or why it
//! cannot be any more. Pure. Must never: take the entry of another run, or of another epoch, for a member's.

use std::collections::BTreeMap;

use super::engine::{EngineError, Raw, Read, Version};
use super::entry::{Entry, Epoch, Phase};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;

/// Why the members do not come to one point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum Broken {
    #[error("the member {member} of the group left: {reason}")]
    Left { member: String, reason: String },
    #[error("the member {member} of the group is lost: its entry in etcd is gone")]
    Gone { member: String },
    #[error("the member {member} of the group has begun another run")]
    Replaced { member: String },
    #[error("the member {member} of the group is together with other runs")]
    OtherEpoch { member: String },
    #[error("the entry of the member {member} of the group cannot be read: {why}")]
    Unreadable { member: String, why: String },
    #[error("this host's own entry in etcd is gone: it could not be kept alive, or somebody else removed it")]
    OwnGone,
    #[error("the name {member} in the group is taken by run {by}, on {instance}")]
    Taken { member: String, by: RunId, instance: String },
    #[error("the members of the group differ: here {here}, by {member} {there}")]
    OtherMembers { member: String, here: String, there: String },
    #[error("not {phase} within {limit}: {members}")]
    Late { phase: &'static str, limit: String, members: String },
    #[error("{0}")]
    Engine(EngineError),
}

impl Broken {
    /// The exit code that follows.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::OtherMembers { .. } | Self::Taken { .. } => Exit::Config,
            Self::Engine(EngineError::Denied(_)) => Exit::Permission,
            _ => Exit::Group,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OtherMembers { .. } => "give every member the same list in [group] `members`",
            Self::Taken { .. } => {
                "each host needs a name of its own in [group] `member`; an entry that a dead run left goes by \
                 itself within the time of its `lease`"
            }
            Self::Late { phase: "here", .. } => {
                "the members have to start at about the same time: see the timers of the others, and `join_timeout`"
            }
            Self::Engine(EngineError::Denied(_)) => {
                "see [group] `user` and `password_file`, and the role in docs/group.md; `stillpoint doctor` asks etcd"
            }
            Self::Engine(_) | Self::OwnGone => {
                "see [group] `endpoints`, and etcd's health; `stillpoint doctor` asks it"
            }
            Self::Unreadable { .. } => "every member needs the same version of stillpoint",
            _ => "the log of that host says why; the next run of all members is a new try",
        }
    }
}

/// The refusal of a command before anything is touched.
impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        let hint = broken.hint();
        Self::new(broken.exit(), broken).hint(hint)
    }
}

/// Have all members reached a phase?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// All have.
    Passed,
    /// These have not yet.
    Waiting(Vec<String>),
}

/// Who takes part, as this member sees it.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub group: String,
    /// Sorted; this member is one of them.
    pub members: Vec<String>,
    pub me: String,
    pub run: RunId,
}

/// The runs that have come together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Together {
    pub epoch: Epoch,
    /// By member.
    pub runs: BTreeMap<String, RunId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    version: Version,
    /// None: there is no entry.
    entry: Option<Result<Entry, String>>,
}

/// The newest entry of each member that has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    known: BTreeMap<String, Known>,
}

impl View {
    /// Takes in one entry. What is older than what is known changes nothing.
    pub fn hear(&mut self, raw: &Raw) {
        if self.known.get(&raw.member).is_some_and(|known| known.version >= raw.version) {
            return;
        }
        let entry = raw.value.as_deref().map(|bytes| Entry::read(&raw.member, bytes));
        self.known.insert(raw.member.clone(), Known { version: raw.version, entry });
    }

    /// Takes in all entries of one moment: a member that has none there has none any more.
    pub fn take(&mut self, read: &Read) {
        for raw in &read.entries {
            self.hear(raw);
        }
        for (member, known) in &mut self.known {
            let there = read.entries.iter().any(|raw| raw.member == *member);
            if !there && known.version < read.revision {
                *known = Known { version: read.revision, entry: None };
            }
        }
    }

    /// The entry of a member, where it has one.
    pub(super) fn entry(&self, member: &str) -> Option<&Entry> {
        self.known.get(member)?.entry.as_ref()?.as_ref().ok()
    }

    /// Are all members here, each with a run that has not begun anything else? Else, who is not.
    pub(super) fn all_here(&self, who: &Who) -> Result<Result<Together, Vec<String>>, Broken> {
        let mut runs = BTreeMap::new();
        let mut missing = Vec::new();
        for member in &who.members {
            let entry = match self.known.get(member).and_then(|known| known.entry.as_ref()) {
                Some(Ok(entry)) if !entry.phase.is_over() => entry,
                Some(Err(why)) => {
                    return Err(Broken::Unreadable { member: member.clone(), why: why.clone() });
                }
                _ if *member == who.me => return Err(Broken::OwnGone),
                _ => {
                    missing.push(member.clone());
                    continue;
                }
            };
            if entry.phase == Phase::Here && entry.members != who.members {
                return Err(Broken::OtherMembers {
                    member: member.clone(),
                    here: who.members.join(", "),
                    there: super::entry::clip(&entry.members.join(", ")),
                });
            }
            if *member == who.me && entry.run != who.run {
                return Err(Broken::OwnGone);
            }
            runs.insert(member.clone(), entry.run.clone());
        }
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        let epoch = Epoch::of(&who.group, &runs.iter().map(|(m, r)| (m.as_str(), r)).collect());
        // A member that is in another epoch is not here: it ends, and comes again or not.
        let elsewhere = |member: &&String| {
            self.entry(member).is_some_and(|e| e.epoch.as_ref().is_some_and(|other| *other != epoch))
        };
        let missing: Vec<String> = who.members.iter().filter(elsewhere).cloned().collect();
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        Ok(Ok(Together { epoch, runs }))
    }

    /// Have all runs of this epoch reached this phase?
    pub(super) fn reached(&self, who: &Who, together: &Together, phase: Phase) -> Result<Barrier, Broken> {
        let mut waiting = Vec::new();
        for (member, run) in &together.runs {
            let named = || member.clone();
            let entry = match self.known.get(member).and_then(|known| known.entry.as_ref()) {
                Some(Ok(entry)) => entry,
                Some(Err(why)) => return Err(Broken::Unreadable { member: named(), why: why.clone() }),
                None if *member == who.me => return Err(Broken::OwnGone),
                None => return Err(Broken::Gone { member: named() }),
            };
            if entry.run != *run {
                return Err(match *member == who.me {
                    true => Broken::OwnGone,
                    false => Broken::Replaced { member: named() },
                });
            }
            if entry.phase == Phase::Left {
                let reason = entry.reason.clone().unwrap_or_else(|| "it did not say why".to_owned());
                return Err(Broken::Left { member: named(), reason });
            }
            match &entry.epoch {
                // It has not seen everybody yet.
                None => waiting.push(named()),
                Some(epoch) if *epoch != together.epoch => {
                    return Err(Broken::OtherEpoch { member: named() });
                }
                Some(_) if entry.phase < phase => waiting.push(named()),
                Some(_) => {}
            }
        }
        Ok(if waiting.is_empty() { Barrier::Passed } else { Barrier::Waiting(waiting) })
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
