//! Which blocks of a snapshot were written, and which differ from another one: the EBS direct APIs, without the data.
//!
//! In: snapshots of one volume. Out: numbers of blocks, a page at a time. Must never: read what is in a block.

use std::future::Future;

use super::Ec2Error;
use crate::ids::SnapshotId;

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockPage {
    /// The blocks, in ascending order.
    pub blocks: Vec<Block>,
    /// Bytes of a block.
    pub block_size: u64,
    /// Of the next page. A page may be empty and not be the last.
    pub next: Option<String>,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub index: i32,
    /// The first of two snapshots has it.
    pub first: bool,
    /// The second one has it; of one snapshot alone, that one.
    pub second: bool,
}

/// The calls.
pub trait Blocks {
    /// ListSnapshotBlocks: what the snapshot has.
    fn written(
        &self,
        snapshot: &SnapshotId,
        token: Option<&str>,
    ) -> impl Future<Output = Result<BlockPage, Ec2Error>>;
    /// ListChangedBlocks: what differs between two snapshots of one volume, the older one first.
    fn changed(
        &self,
        first: &SnapshotId,
        second: &SnapshotId,
        token: Option<&str>,
    ) -> impl Future<Output = Result<BlockPage, Ec2Error>>;
}
