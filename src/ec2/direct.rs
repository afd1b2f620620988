//! The EBS direct APIs: can the data of a snapshot be read?
//!
//! In: ids. Out: plain values or an [`Ec2Error`]. Must never: write, or be called by a run.
//!
//! `completed` is not "readable": for up to some minutes after it, these APIs may answer that there is no such
//! snapshot (awslabs/coldsnap, issues 43 and 141).

use std::future::Future;

use super::Ec2Error;
use crate::ids::SnapshotId;

/// Reading snapshots without a volume.
pub trait Direct {
    /// ListSnapshotBlocks, one short page: can it be read? False while EC2 has it, and it is not known here yet.
    fn readable(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<bool, Ec2Error>>;
}
