//! What is copied: may it be, and which tags do its copies get?
//!
//! In: a set and its snapshots, as EC2 shows them. Out: a [`Source`], or why it is none; tags within EC2's limits.
//! Pure. Must never: take a set that a copy of it could not be restored from, or give a copy a tag that says
//! something about its source alone (until when it is kept, that it is being removed, that it was verified, which other tool cares).

use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::ids::{RunId, SnapshotId, VolumeId};
use crate::sets::guard::{Refusal, unclear};
use crate::sets::layout::layout;
use crate::sets::ledger::{FAULT_TAG, VERIFIED_TAG};
use crate::sets::read::{DELETING_TAG, KEEP_TAG, SOURCE_TAG, SOURCE_TIME_TAG, is_foreign};
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::tags::{self, MAX_TAGS, MEMBER_TAG, Tag};

/// With which key a copy was asked for.
pub(crate) const KEY_TAG: &str = "stillpoint:copy-key";
/// So many tags are left free on each copy: for the mark of a set that is being removed, and what verify finds.
const MOST: usize = MAX_TAGS - 3;
/// What a copy can do without where its source has as many tags as EC2 allows: other tags or the source say it too.
/// The first goes first.
const SPARE: [&str; 5] = [
    "stillpoint:mounts",
    "stillpoint:requested",
    "stillpoint:responded",
    "stillpoint:thawed",
    "stillpoint:frozen",
];

/// A set that can be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The set.
    pub set: SnapshotSet,
    /// Its snapshots, by their numbers.
    pub parts: Vec<Part>,
    /// Snapshots that stay out: their volumes were attached in the last moment, and no tag describes them.
    pub unplanned: Vec<SnapshotId>,
}

/// One snapshot that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number in the set.
    pub number: usize,
    /// The snapshot.
    pub id: SnapshotId,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// All its tags.
    pub tags: Vec<Tag>,
    /// Size of the volume in GiB.
    pub size_gib: i32,
    /// Bytes of all its blocks, where EC2 says.
    pub full_bytes: Option<i64>,
    /// The ARN of its key; none where it is not encrypted.
    pub key: Option<String>,
}

/// The tags of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// In no special order.
    pub tags: Vec<Tag>,
    /// Keys of tags of the user's that found no room.
    pub left_out: Vec<String>,
}

impl Source {
    /// The set, if it can be copied. `snapshots` are its members with all their tags.
    ///
    /// # Errors
    /// What stands against it. Nothing has been changed.
    pub fn of(set: &SnapshotSet, snapshots: &[TaggedSnapshot]) -> Result<Self, Refusal> {
        let no = |what: String, hint| Err(Refusal::new(what, hint));
        let id = &set.id;
        if let Some(refusal) = unclear(set) {
            return Err(refusal);
        }
        if let Some(missing) = set.missing.first() {
            let what = format!("{id} is not complete: there is no snapshot of {}", missing.volume_id);
            return no(what, "copy another set: from a part of one not all can be restored");
        }
        if let Some(lost) = set.members.iter().find(|m| m.state == "error") {
            let why = lost.error.as_deref().unwrap_or("EC2 gives no reason");
            return no(format!("{} of {id} is in error: {why}", lost.id), "copy another set");
        }
        if let Some(archived) = set.members.iter().find(|m| m.tier == "archive") {
            return no(
                format!("{} of {id} is in the archive, from which nothing can be copied", archived.id),
                "restore it to the standard tier first (aws ec2 restore-snapshot-tier)",
            );
        }
        if set.achieved.is_none() {
            return no(
                format!("{id} has no label yet: its run is not over, or it died"),
                "wait for its run; the next run on its host labels what a dead one left",
            );
        }
        if set.state() != SetState::Completed {
            return no(
                format!("{id} is not completed yet, and EC2 would fail its copy later"),
                "--wait-source waits for it, and so does `stillpoint wait`",
            );
        }
        if let Err(e) = layout(snapshots.iter().map(|s| s.tags.as_slice())) {
            return no(format!("{id} could not be restored from a copy: {e}"), "copy another set");
        }
        let planned = tags::volumes_of(snapshots.first().map_or(&[], |s| &s.tags)).map_or(0, |v| v.len());
        let mut source = Self { set: set.clone(), parts: Vec::new(), unplanned: Vec::new() };
        for member in &set.members {
            let Some(snapshot) = snapshots.iter().find(|s| s.view.id == member.id) else {
                return no(format!("{} of {id} is gone", member.id), "copy another set");
            };
            if member.number >= planned {
                source.unplanned.push(member.id.clone());
                continue;
            }
            source.parts.push(Part {
                number: member.number,
                id: member.id.clone(),
                volume: member.volume_id.clone(),
                tags: snapshot.tags.clone(),
                size_gib: member.size_gib,
                full_bytes: member.full_bytes,
                key: snapshot.detail.kms_key.clone().filter(|_| member.encrypted),
            });
        }
        Ok(source)
    }

    /// What its copies name as their source.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.set.region, self.set.id)
    }

    /// What its copies are described as: that, and the set's id, are all that the Recycle Bin lists.
    #[must_use]
    pub(crate) fn described(&self, run: &RunId) -> String {
        tags::described(run, &format!("copy of {} in {}", self.set.id, self.set.region))
    }

    /// Is anything of it encrypted?
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.parts.iter().any(|p| p.key.is_some())
    }

    /// The tags of the copy of one part, for the copied set `run`. `key`: with which key it was asked for.
    #[must_use]
    pub fn tags(&self, part: &Part, run: &RunId, key: Option<&str>) -> Carried {
        let time = self.set.time.map(|t| t.to_string()).unwrap_or_default();
        let mut own = vec![
            (RUN_TAG.to_owned(), run.to_string()),
            (SOURCE_TAG.to_owned(), self.name()),
            (SOURCE_TIME_TAG.to_owned(), time),
            (MEMBER_TAG.to_owned(), part.number.to_string()),
        ];
        own.extend(key.map(|key| (KEY_TAG.to_owned(), key.to_owned())));
        let not_carried = [KEEP_TAG, DELETING_TAG, VERIFIED_TAG, FAULT_TAG, KEY_TAG];
        let carried = |(k, _): &&Tag| {
            !own.iter().any(|(taken, _)| taken == k)
                && !not_carried.contains(&k.as_str())
                && !is_foreign(k)
                && !k.to_ascii_lowercase().starts_with("aws:")
        };
        let mut rest: Vec<Tag> = part.tags.iter().filter(carried).cloned().collect();
        let room = MOST - own.len();
        for spare in SPARE {
            if rest.len() > room {
                rest.retain(|(k, _)| k != spare);
            }
        }
        let mut left_out = Vec::new();
        while rest.len() > room {
            // Its own tags are what makes it a set: the user's are at the source too.
            let Some(at) = rest.iter().rposition(|(k, _)| tags::reserved(k).is_none()) else { break };
            left_out.push(rest.remove(at).0);
        }
        own.extend(rest);
        Carried { tags: own, left_out }
    }
}
