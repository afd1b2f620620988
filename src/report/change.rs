//! What a command has changed of sets, for programs: the JSON of `keep`, `release`, `delete`, `undelete`, `share`,
//! `unshare`, `lock`, `unlock` and `tier`.
//!
//! In: sets, and what became of each of their snapshots. Out: stable, documented JSON. Must never: call a snapshot
//! changed before EC2 has said so.

use serde::Serialize;

use crate::exit::Exit;
use crate::ids::{RunId, SnapshotId};
use crate::sets::remove::Removed;
use crate::sets::set::SnapshotSet;

/// Version of the JSON below; raised when a field changes its meaning or goes.
pub(crate) const VERSION: u32 = 1;

/// What a command has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// Version of this JSON: [`VERSION`].
    pub version: u32,
    /// The command, such as `keep`.
    pub command: &'static str,
    /// Nothing was changed: this is what would be.
    pub dry_run: bool,
    /// The sets that it is about.
    pub sets: Vec<OfSet>,
    /// The exit code.
    pub exit_code: Exit,
}

/// What became of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OfSet {
    /// The set.
    pub id: RunId,
    /// The Region that its snapshots are in.
    pub region: String,
    /// The tag `stillpoint:keep-until` that it has now; none where it has none.
    pub keep_until: Option<String>,
    /// Its snapshots, each with what became of it.
    pub snapshots: Vec<Changed>,
}

/// What became of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Changed {
    /// The snapshot.
    pub id: SnapshotId,
    /// It was changed, or in a dry run would be. False where it had to stay, was refused, or already was so.
    pub changed: bool,
    /// Accounts that it was shared with, or no longer is; `all` for everybody.
    pub accounts: Vec<String>,
    /// Why it was refused.
    pub error: Option<String>,
}

impl Changed {
    /// Of one that EC2 was asked to change.
    pub fn by<E: std::fmt::Display>(id: &SnapshotId, said: &Result<(), E>) -> Self {
        let error = said.as_ref().err().map(ToString::to_string);
        Self { error, ..Self::would(id, said.is_ok()) }
    }

    /// Of one that would be changed, or would stay as it is.
    pub fn would(id: &SnapshotId, changed: bool) -> Self {
        Self { id: id.clone(), changed, accounts: Vec::new(), error: None }
    }
}

impl OfSet {
    /// Each snapshot on its own.
    pub fn of(set: &SnapshotSet, snapshots: Vec<Changed>) -> Self {
        let (id, region, keep_until) = (set.id.clone(), set.region.clone(), set.keep_until.clone());
        Self { id, region, keep_until, snapshots }
    }

    /// Every snapshot is changed in the same way, or none is.
    pub fn whole(set: &SnapshotSet, changed: bool) -> Self {
        Self::of(set, set.snapshots().map(|id| Changed::would(id, changed)).collect())
    }

    /// A set that was to be removed.
    pub fn removed(set: &SnapshotSet, removed: &Removed) -> Self {
        let of = |id: &SnapshotId| {
            let failed = removed.failed.as_ref().filter(|f| f.snapshot.as_ref().is_none_or(|s| s == id));
            let changed = removed.deleted.contains(id);
            Changed {
                error: failed.filter(|_| !changed).map(|f| f.why.clone()),
                ..Changed::would(id, changed)
            }
        };
        Self::of(set, set.snapshots().map(of).collect())
    }
}
