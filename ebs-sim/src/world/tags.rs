//! Tags of any resource: a snapshot has its own, all others are in one map.
//!
//! In: a resource's id. Out: its tags, to look at or to change.

use super::{Tags, World};
use crate::ids::SnapshotId;

static NO_TAGS: Tags = Tags::new();

impl World {
    /// A resource's tags.
    pub fn tags_of(&self, id: &str) -> &Tags {
        let of_snapshot = || {
            let id = SnapshotId::parse(id)?;
            self.snapshots.get(&id).or_else(|| self.bin.get(&id)).map(|snapshot| &snapshot.tags)
        };
        self.tags.get(id).or_else(of_snapshot).unwrap_or(&NO_TAGS)
    }

    /// The same, to change. Of snapshots that there are, and of anything else.
    pub fn tags_of_mut(&mut self, id: &str) -> Option<&mut Tags> {
        match SnapshotId::parse(id) {
            Some(id) => {
                let found = self.snapshots.get_mut(&id).or_else(|| self.bin.get_mut(&id));
                found.map(|snapshot| &mut snapshot.tags)
            }
            None => Some(self.tags.entry(id.to_owned()).or_default()),
        }
    }
}
