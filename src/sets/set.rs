//! A set and its members, as values.
//!
//! In: nothing; [`super::read`] makes them. Out: plain values, and what follows from them: the state, the label, the
//! size. Must never: call a set complete that lacks a member, or labelled that has no verdict.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

use super::before::Before;
use super::ledger::{FaultFound, Verified};
use super::tags::SCHEMA;
use crate::consistency::Consistency;
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};

/// A set, as its snapshots say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSet {
    /// The run that took it, or the copy that made it.
    pub id: RunId,
    /// The version of its tags. A newer one than this program's means that only what is here is known of it.
    pub schema: u32,
    /// The account that owns its snapshots, where EC2 says.
    pub account: Option<String>,
    /// The Region that its snapshots are in.
    pub region: String,
    /// The plan that it was taken by.
    pub plan: String,
    /// The name of the host.
    pub host: String,
    /// The instance.
    pub instance: InstanceId,
    /// The key that its host has beside its instance's id, where it has one.
    pub host_key: Option<String>,
    /// Of a copy: what it is a copy of.
    pub copy_of: Option<CopyOf>,
    /// EC2's StartTime, the earliest of its members; of a copy, that of its source.
    pub time: Option<Timestamp>,
    /// The consistency that was requested.
    pub requested: Option<Consistency>,
    /// The label. None: it has no verdict, and counts as `crash`.
    pub achieved: Option<Consistency>,
    /// Why it is less than requested.
    pub reason: Option<String>,
    /// Its snapshots, by their numbers.
    pub members: Vec<Member>,
    /// Volumes of the set without a snapshot, with their numbers.
    pub missing: Vec<Missing>,
    /// The value of the tag `stillpoint:keep-until`.
    pub keep_until: Option<String>,
    /// What it was taken before, where that was for a command.
    pub before: Option<Box<Before>>,
    /// The last verify that found no fault, as every snapshot of it says.
    pub verified: Option<Verified>,
    /// The last verify that found one, as any snapshot of it says.
    pub verify_fault: Option<FaultFound>,
    /// Somebody began to remove it.
    pub deleting: bool,
    /// Tags of other tools on its members that say that they care for these, such as `aws:backup:source-resource`.
    pub foreign: Vec<String>,
    /// What its snapshots do not agree on. Nothing is removed of such a set.
    pub doubts: Vec<String>,
}

/// What a copied set is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyOf {
    /// The Region of the source.
    pub region: String,
    /// The set.
    pub id: RunId,
}

/// A snapshot of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its number in the set.
    pub number: usize,
    /// The snapshot.
    pub id: SnapshotId,
    /// The volume that was snapshotted, also of a copy.
    pub volume_id: VolumeId,
    /// The device name of its attachment, where its verdict has said.
    pub device_name: Option<String>,
    /// `pending`, `completed`, `error`, …
    pub state: Cow<'static, str>,
    /// EC2's progress, such as `42%`.
    pub progress: Option<Cow<'static, str>>,
    /// In EC2's words, of a snapshot in the state `error`.
    pub error: Option<String>,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// When it was completed.
    pub completed: Option<Timestamp>,
    /// Size of the volume in GiB; 0 of a copy that is pending.
    pub size_gib: i32,
    /// Bytes that a restore would read, where EC2 says. Not what the snapshot takes beside others.
    pub full_bytes: Option<i64>,
    /// Encrypted at rest.
    pub encrypted: bool,
    /// `standard` or `archive`.
    pub tier: &'static str,
    /// When one that is out of the archive for some days goes back.
    pub restored_until: Option<Timestamp>,
    /// Its own label.
    pub achieved: Option<Consistency>,
}

/// A volume of a set of which there is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its number in the set.
    pub number: usize,
    /// The volume.
    pub volume_id: VolumeId,
}

/// What is known of a set as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SetState {
    /// Every member is completed.
    Completed,
    /// A member is pending, and none has failed.
    Pending,
    /// A member ended in `error`.
    Error,
    /// A member is missing.
    Partial,
    /// A member is missing, because somebody is removing the set.
    Torn,
}

impl std::fmt::Display for SetState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Completed => "completed",
            Self::Pending => "pending",
            Self::Error => "error",
            Self::Partial => "partial",
            Self::Torn => "torn",
        })
    }
}

impl SnapshotSet {
    /// The state of the set as a whole.
    #[must_use]
    pub fn state(&self) -> SetState {
        let any = |state: &str| self.members.iter().any(|m| m.state == state);
        match () {
            () if any("error") => SetState::Error,
            () if !self.missing.is_empty() && self.deleting => SetState::Torn,
            () if !self.missing.is_empty() => SetState::Partial,
            () if self.members.iter().any(|m| m.state != "completed") => SetState::Pending,
            () => SetState::Completed,
        }
    }

    /// The label that it may be counted at.
    #[must_use]
    pub fn label(&self) -> Consistency {
        self.achieved.unwrap_or(Consistency::Crash)
    }

    /// Its tags have a version that this program does not know.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.schema > SCHEMA
    }

    /// The sum of its volumes' sizes in GiB.
    #[must_use]
    pub fn size_gib(&self) -> i64 {
        self.members.iter().map(|m| i64::from(m.size_gib)).sum()
    }

    /// Its snapshots, by their numbers: the root device's first, where it is of the set.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.members.iter().map(|m| &m.id)
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    //! A set made by hand, for tests of what is decided about one.

    use super::{Member, SnapshotSet};
    use crate::consistency::Consistency;
    use crate::ec2::{SnapshotDetail, SnapshotView, TaggedSnapshot};
    use crate::ids::RunId;

    /// A complete set of so many members.
    pub(crate) fn set(members: usize) -> SnapshotSet {
        let member = |number: usize| Member {
            number,
            id: format!("snap-{number:017x}").parse().unwrap(),
            volume_id: format!("vol-{number:017x}").parse().unwrap(),
            device_name: None,
            state: "completed".into(),
            progress: None,
            error: None,
            started: None,
            completed: None,
            size_gib: 8,
            full_bytes: None,
            encrypted: false,
            tier: "standard",
            restored_until: None,
            achieved: Some(Consistency::Filesystem),
        };
        SnapshotSet {
            id: RunId::generate(),
            schema: super::SCHEMA,
            account: Some("123456789012".into()),
            region: "us-east-1".into(),
            plan: "default".into(),
            host: "host".into(),
            instance: "i-0123456789abcdef0".parse().unwrap(),
            host_key: None,
            copy_of: None,
            time: Some(jiff::Timestamp::UNIX_EPOCH),
            requested: Some(Consistency::Filesystem),
            achieved: Some(Consistency::Filesystem),
            reason: None,
            members: (0..members).map(member).collect(),
            missing: Vec::new(),
            keep_until: None,
            before: None,
            verified: None,
            verify_fault: None,
            deleting: false,
            foreign: Vec::new(),
            doubts: Vec::new(),
        }
    }

    /// Its members, as EC2 would list them.
    pub(crate) fn listed(set: &SnapshotSet) -> Vec<TaggedSnapshot> {
        let one = |m: &Member| TaggedSnapshot {
            view: SnapshotView {
                id: m.id.clone(),
                volume: m.volume_id.clone(),
                state: m.state.clone(),
                started: m.started,
                progress: None,
            },
            tags: Vec::new(),
            detail: SnapshotDetail {
                size_gib: m.size_gib,
                encrypted: m.encrypted,
                owner: set.account.clone(),
                archived: m.tier == "archive",
                full_bytes: m.full_bytes,
                ..SnapshotDetail::default()
            },
        };
        set.members.iter().map(one).collect()
    }
}
