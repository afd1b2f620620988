//! The calls that copy snapshots to a Region. They are made at the destination.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: make a copy without its tags, or repeat the
//! call that makes one: CopySnapshot has no client token, and a second call makes a second copy.

use std::future::Future;

use super::Ec2Error;
use super::keep::Keep;
use crate::ids::SnapshotId;

/// With which key copies are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// As the source: what is encrypted there stays so, with the key that EC2 takes when none is named.
    AsSource,
    /// With the key that EC2 takes when none is named: `aws/ebs` of the account and Region.
    Unnamed,
    /// With this one: an id, an ARN or an alias.
    Key(String),
}

/// A call that copies one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// The Region of the source.
    pub source_region: String,
    /// The snapshot that is copied.
    pub source: SnapshotId,
    /// At most 255 characters (EC2 API reference, CopySnapshot).
    pub description: String,
    /// The tags of the copy. EC2 copies none of its source's.
    pub tags: Vec<(String, String)>,
    /// With which key.
    pub encryption: Encryption,
    /// Within how many minutes EC2 has to be done, for a higher price; none for a copy without such a promise.
    pub minutes: Option<u16>,
}

/// EC2 at the destination of copies.
pub trait Copies: Keep {
    /// CopySnapshot: one attempt. What it asks for is checked by EC2 later: the copy may still end in `error`.
    fn copy(&self, request: &CopyRequest) -> impl Future<Output = Result<SnapshotId, Ec2Error>>;
    /// The same with DryRun: may this be done? It says nothing about the source's state, nor about keys.
    fn may_copy(&self, request: &CopyRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// GetEbsDefaultKmsKeyId: the key that new volumes get when none is named.
    fn default_key(&self) -> impl Future<Output = Result<String, Ec2Error>>;
    /// GetEbsEncryptionByDefault: is everything new encrypted there, asked for or not?
    fn encrypts_by_default(&self) -> impl Future<Output = Result<bool, Ec2Error>>;
}
