//! Who can use whose snapshots.
//!
//! In: a snapshot, an account, and some moment. Out: whether that account sees it. What is shared with nobody must
//! never be seen by anybody else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Snapshot, World};

/// What "block public access for snapshots" blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// All public sharing: what is public already is treated as private.
    All,
    /// New public sharing only.
    New,
}

impl World {
    /// Whether an account can make volumes and copies of a snapshot: its own, or one that is shared with it.
    pub fn can_use(&self, snapshot: &Snapshot, account: &str, now: Timestamp) -> bool {
        snapshot.owner == account
            || snapshot.shared(now).is_some_and(|shared| {
                shared.users.contains(account) || (shared.public && self.is_public(snapshot))
            })
    }

    /// Whether what says that it is public is: not while its account blocks all public sharing.
    pub fn is_public(&self, snapshot: &Snapshot) -> bool {
        self.block_public(&snapshot.owner, &snapshot.region) != Some(Block::All)
    }

    /// What an account blocks of public sharing in a Region.
    pub fn block_public(&self, account: &str, region: &str) -> Option<Block> {
        let place = (account.to_owned(), region.to_owned());
        self.blocks.iter().find(|(known, _)| *known == place).map(|(_, block)| *block)
    }

    /// Whether no image of an account becomes public in a Region.
    pub fn blocks_public_images(&self, account: &str, region: &str) -> bool {
        self.image_blocks.iter().any(|(who, place)| who == account && place == region)
    }
}
