//! The calls that copy volumes: EBS volume clones.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: send a CopyVolumes twice, though its token would
//! allow that: a second one that is the first to arrive copies the volume as it is then, outside of the window.

use std::future::Future;

use super::repeat::Repeating;
use super::{Describe, Ec2Error};
use crate::ids::{InstanceId, RunId, VolumeId};

/// EC2 has at most so many copies of volumes in progress in a Region, unless the quota was raised (EBS guide, "copy a
/// volume").
pub const IN_PROGRESS: usize = 5;

/// CopyVolumes for each volume of a set.
#[derive(Debug, Clone)]
pub struct CloneRequest {
    /// The instance that the volumes are attached to.
    pub instance: InstanceId,
    /// One call each, in the order of the plan.
    pub volumes: Vec<CloneOf>,
}

/// One CopyVolumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneOf {
    /// The volume that is copied.
    pub volume: VolumeId,
    /// At most 64 characters; of this volume in this run.
    pub token: String,
    /// Such as `gp3`. EC2 takes gp2 where none is named.
    pub volume_type: String,
    /// Provisioned IOPS, of the types that have them.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s, of gp3.
    pub throughput: Option<i32>,
    /// Size in GiB; none for the volume's.
    pub size_gib: Option<i32>,
    /// The tags of the new volume.
    pub tags: Vec<(String, String)>,
}

/// A volume that is a copy of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneView {
    /// Its id.
    pub id: VolumeId,
    /// The volume that it is a copy of. Nobody but EC2 writes that.
    pub source: VolumeId,
    /// `creating`, `available`, `in-use`, `deleting`, `deleted` or `error`.
    pub state: String,
    /// Its tags; empty in the answer to the call that made it.
    pub tags: Vec<(String, String)>,
}

/// Some CopyVolumes failed; others may have made clones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CloneFailed {
    /// The first error.
    pub error: Ec2Error,
    /// True when EC2 may have carried out any of them without an answer.
    pub outcome_unknown: bool,
    /// Clones that are known to have been made.
    pub made: Vec<CloneView>,
}

/// EC2 where volumes are copied.
pub trait Clones: Describe {
    /// Every call of the request with DryRun, all at once: permission check and connection warm-up in one.
    fn may_clone(&self, request: &CloneRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// Every call of the request, all at once: one attempt each.
    fn clone_volumes(
        &self,
        request: &CloneRequest,
    ) -> impl Future<Output = Result<Vec<CloneView>, CloneFailed>>;
    /// DescribeVolumeStatus, every page: the copies of volumes in this Region that are not initialised yet.
    fn copies_in_progress(&self) -> impl Future<Output = Result<Vec<VolumeId>, Ec2Error>>;
    /// DescribeVolumes of these. One that is gone, or is no copy, is not in the answer.
    fn clones(&self, ids: &[VolumeId]) -> impl Future<Output = Result<Vec<CloneView>, Ec2Error>>;
    /// DescribeVolumes by the tag of a run: the copies among them. Whoever carries that tag need not be of that run.
    fn clones_of(&self, run: &RunId) -> impl Future<Output = Result<Vec<CloneView>, Ec2Error>>;
    /// CreateTags; may be retried, since it is idempotent.
    fn label_clones(
        &self,
        ids: &[VolumeId],
        tags: &[(String, String)],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeleteVolume. One that is gone already is no error.
    fn delete_clone(&self, id: &VolumeId) -> impl Future<Output = Result<(), Ec2Error>>;
}

impl<E: Clones> Clones for Repeating<'_, E> {
    async fn may_clone(&self, request: &CloneRequest) -> Result<(), Ec2Error> {
        self.call("DryRun", async || self.inner().may_clone(request).await).await
    }

    /// Once, whatever comes of it.
    async fn clone_volumes(&self, request: &CloneRequest) -> Result<Vec<CloneView>, CloneFailed> {
        self.inner().clone_volumes(request).await
    }

    async fn copies_in_progress(&self) -> Result<Vec<VolumeId>, Ec2Error> {
        self.call("DescribeVolumeStatus", async || self.inner().copies_in_progress().await).await
    }

    async fn clones(&self, ids: &[VolumeId]) -> Result<Vec<CloneView>, Ec2Error> {
        self.call("DescribeVolumes", async || self.inner().clones(ids).await).await
    }

    async fn clones_of(&self, run: &RunId) -> Result<Vec<CloneView>, Ec2Error> {
        self.call("DescribeVolumes", async || self.inner().clones_of(run).await).await
    }

    async fn label_clones(&self, ids: &[VolumeId], tags: &[(String, String)]) -> Result<(), Ec2Error> {
        self.call("CreateTags", async || self.inner().label_clones(ids, tags).await).await
    }

    async fn delete_clone(&self, id: &VolumeId) -> Result<(), Ec2Error> {
        self.call("DeleteVolume", async || self.inner().delete_clone(id).await).await
    }
}
