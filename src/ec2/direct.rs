//! The EBS direct APIs: what is in a snapshot, without a volume.
//!
//! In: ids. Out: plain values or an [`Ec2Error`]. Must never: write, or be called by a run.
//!
//! `completed` is not "readable": for up to some minutes after it, these APIs may answer that there is no such
//! snapshot (awslabs/coldsnap, issues 43 and 141).

use std::future::Future;

use super::Ec2Error;
use crate::ids::SnapshotId;

/// The least and the most that a page of blocks may be asked for (EBS direct APIs reference, ListSnapshotBlocks).
pub const SHORT_PAGE: u16 = 100;
/// See [`SHORT_PAGE`].
pub const LONG_PAGE: u16 = 10_000;

/// A page of the blocks that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Size of the volume in bytes.
    pub volume_bytes: u64,
    /// Size of a block in bytes; 512 KiB.
    pub block_bytes: u64,
    /// Index and token of each, in order. It may be empty and not be the last.
    pub blocks: Vec<(u32, String)>,
    /// There are more behind these.
    pub more: bool,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its data.
    pub data: Vec<u8>,
    /// The data is what EC2's checksum (SHA-256) is of.
    pub fits: bool,
}

/// Reading snapshots without a volume.
pub trait Direct {
    /// ListSnapshotBlocks, one short page: can it be read? False while EC2 has it, and it is not known here yet.
    fn readable(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<bool, Ec2Error>>;
    /// ListSnapshotBlocks, one page from this block on, of so many blocks at most ([`SHORT_PAGE`] to [`LONG_PAGE`]). An
    /// empty page that is not the last is asked for again.
    fn blocks(
        &self,
        snapshot: &SnapshotId,
        from: u32,
        most: u16,
    ) -> impl Future<Output = Result<Blocks, Ec2Error>>;
    /// GetSnapshotBlock.
    fn block(
        &self,
        snapshot: &SnapshotId,
        index: u32,
        token: &str,
    ) -> impl Future<Output = Result<Block, Ec2Error>>;
}
