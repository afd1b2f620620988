//! The calls that make volumes of snapshots, attach them and take them away again.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: make a volume without its tags, or without the
//! client token that makes a second call of the same kind return the first one's volume.

use std::future::Future;

use jiff::Timestamp;

use super::Ec2Error;
use super::keep::Keep;
use crate::ids::{InstanceId, SnapshotId, VolumeId};

/// The tag of a volume that a restore has made: its id.
pub const RESTORE_TAG: &str = "stillpoint:restore";
/// The tag of a volume that a restore has made to be attached in the place of another one: that one.
pub const IN_PLACE_TAG: &str = "stillpoint:restore-in-place";
/// The tag of a volume that a restore has put another one in the place of: the restore.
pub const REPLACED_TAG: &str = "stillpoint:replaced-by";

/// A volume that is made of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRequest {
    /// At most 64 characters. The same token and the same request are the same volume (EC2 API reference,
    /// "Ensuring idempotency").
    pub token: String,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The zone that it can be attached in.
    pub zone: String,
    /// Such as `gp3`. EC2 takes gp2 where none is named.
    pub volume_type: String,
    /// Provisioned IOPS, of the types that have them.
    pub iops: Option<i32>,
    /// Provisioned throughput in MiB/s, of gp3.
    pub throughput: Option<i32>,
    /// Size in GiB; none for the snapshot's.
    pub size_gib: Option<i32>,
    /// Encrypt with this key: an id, an ARN or an alias; none for the snapshot's encryption.
    pub key: Option<String>,
    /// EC2 reads all of it from the snapshot at this rate in MiB/s, for a price; none for as it is used.
    pub initialization_rate: Option<i32>,
    /// The tags of the volume.
    pub tags: Vec<(String, String)>,
}

/// A volume, as DescribeVolumes shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Its id.
    pub id: VolumeId,
    /// `creating`, `available`, `in-use`, `deleting`, `deleted` or `error`.
    pub state: String,
    /// Its zone.
    pub zone: String,
    /// Size in GiB.
    pub size_gib: i32,
    /// Such as `gp3`.
    pub volume_type: String,
    /// The snapshot that it was made of. Nobody but EC2 writes that.
    pub snapshot: Option<SnapshotId>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its attachments: one, but of Multi-Attach.
    pub attachments: Vec<Attachment>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl VolumeView {
    /// The value of this tag.
    #[must_use]
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        super::tag_of(&self.tags, key)
    }

    /// Is it deleted, or as good as that? EC2 shows it for a while.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "deleting" | "deleted")
    }
}

/// Where a volume is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The instance; none of one that is another service's.
    pub instance: Option<InstanceId>,
    /// The device name, AWS's meaning.
    pub device_name: String,
    /// `attaching`, `attached`, `detaching`, `detached` or `busy`.
    pub state: String,
    /// The volume is deleted with the instance. AttachVolume makes it false.
    pub delete_on_termination: bool,
}

/// What DescribeInstances says of an instance that volumes are to be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Its zone.
    pub zone: String,
    /// Such as `m6i.large`.
    pub instance_type: String,
    /// Device names of its block device mapping, attachments under way among them.
    pub device_names: Vec<String>,
    /// Its network interfaces, which count for a shared limit.
    pub interfaces: usize,
}

/// How many volumes an instance of a type can have (DescribeInstanceTypes, EbsInfo and InstanceStorageInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentLimit {
    /// At most so many.
    pub most: usize,
    /// Network interfaces and instance store disks count too.
    pub shared: bool,
    /// Instance store disks of the type.
    pub instance_store: usize,
}

/// Which volumes are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those with this value of a tag.
    Tagged(String, String),
    /// Every one that has this tag.
    WithTag(String),
    /// These. One that is gone is not in the answer.
    Ids(Vec<VolumeId>),
}

/// EC2 where volumes are made of snapshots. Every call may be made twice: a token makes one volume, and what is
/// attached, detached or deleted already is so once.
pub trait Volumes: Keep {
    /// DescribeInstances of this one.
    fn host(&self, id: &InstanceId) -> impl Future<Output = Result<HostView, Ec2Error>>;
    /// DescribeInstanceTypes: none where EC2 does not say.
    fn attachment_limit(
        &self,
        instance_type: &str,
    ) -> impl Future<Output = Result<Option<AttachmentLimit>, Ec2Error>>;
    /// CreateVolume.
    fn create_volume(&self, request: &VolumeRequest) -> impl Future<Output = Result<VolumeId, Ec2Error>>;
    /// The same with DryRun.
    fn may_create_volume(&self, request: &VolumeRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DescribeVolumes, every page.
    fn volumes_that_are(&self, which: &Which) -> impl Future<Output = Result<Vec<VolumeView>, Ec2Error>>;
    /// AttachVolume.
    fn attach_volume(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device_name: &str,
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DetachVolume from this instance, not forced.
    fn detach_volume(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DetachVolume and AttachVolume with DryRun, of a volume that is attached there: an error where the permission is
    /// missing.
    fn may_exchange(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device_name: &str,
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// ModifyInstanceAttribute: what has this device name is deleted with the instance.
    fn delete_with_instance(
        &self,
        instance: &InstanceId,
        device_name: &str,
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// CreateTags.
    fn tag_volumes(
        &self,
        volumes: &[VolumeId],
        tag: (&str, &str),
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeleteTags. One that has another value stays.
    fn untag_volumes(
        &self,
        volumes: &[VolumeId],
        tag: (&str, &str),
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeleteVolume. One that is gone is deleted.
    fn delete_volume(&self, volume: &VolumeId) -> impl Future<Output = Result<(), Ec2Error>>;
}
