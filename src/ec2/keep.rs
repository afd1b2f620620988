//! The calls for the life of a set, after the run that took it: find, look who holds it, keep, remove.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: be given to a run that takes a set, or
//! remove anything but one snapshot by its id.
//!
//! Every call here may be made twice: reads change nothing, tags are as they are put, a snapshot that is deleted
//! twice is gone once, and one that is locked twice in a moment is locked as long.

use std::future::Future;

use jiff::Timestamp;

use super::images::SnapshotResult;
use super::{Ec2Error, TaggedSnapshot};
use crate::ids::{ImageId, RunId, SnapshotId, VolumeId};

/// What DescribeSnapshots is asked for, of the own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every set of the account in the Region.
    All,
    /// Those of sets with these values of tags.
    Tagged(Vec<(String, String)>),
    /// Every snapshot of these volumes, whoever made it.
    OfVolumes(Vec<VolumeId>),
    /// These, whatever their tags: one that is gone is not in the answer.
    Ids(Vec<SnapshotId>),
}

/// One page of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its snapshots; a page may be empty and not be the last.
    pub snapshots: Vec<TaggedSnapshot>,
    /// Of the next page.
    pub next: Option<String>,
}

/// An image that uses a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageUse {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// It.
    pub image: ImageId,
    /// `available`, `disabled`, …; `deprecated` where its time has come.
    pub state: String,
    /// The set that its tags say it goes with. Whoever may tag can write that.
    #[serde(skip)]
    pub goes_with: Option<RunId>,
    /// Every snapshot of it; none where it has other devices, too.
    #[serde(skip)]
    pub all: Option<Vec<SnapshotId>>,
}

/// A lock on a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LockView {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// `governance`, `compliance`, `compliance-cooloff` or `expired`.
    pub state: String,
    /// When it ends; none while the snapshot is pending.
    pub until: Option<Timestamp>,
    /// Its length in days, which begin when the snapshot is locked, or later, when it is completed.
    pub days: Option<u32>,
    /// Until then a compliance lock can be changed and taken off.
    pub cool_off_until: Option<Timestamp>,
}

/// How hard a lock is (EC2 API reference, LockSnapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever has the permission changes it and takes it off.
    Governance,
    /// Nobody takes it off or shortens it, once its cooling-off period is over.
    Compliance,
}

impl std::fmt::Display for LockMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

/// When a lock ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockEnd {
    /// So many days after it begins, at most [`MOST_LOCKED_DAYS`].
    Days(u32),
    /// Then.
    At(Timestamp),
}

/// A lock as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// How hard.
    pub mode: LockMode,
    /// Until when.
    pub end: LockEnd,
    /// The cooling-off period of a compliance lock in hours, at most [`MOST_COOL_OFF_HOURS`].
    pub cool_off: Option<u32>,
}

/// The longest lock in days (EC2 API reference, LockSnapshot).
pub const MOST_LOCKED_DAYS: u32 = 36_500;
/// The longest cooling-off period in hours (EC2 API reference, LockSnapshot).
pub const MOST_COOL_OFF_HOURS: u32 = 72;

/// Where a snapshot is stored, and on its way to where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TierView {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// `standard` or `archive`.
    pub tier: String,
    /// The last move, such as `archival-in-progress`, `archival-failed` or `temporary-restore-completed`; none where
    /// there was none.
    pub last_move: Option<String>,
    /// How far that is, in percent.
    pub progress: Option<i32>,
    /// When it was archived, the last time.
    pub archived: Option<Timestamp>,
    /// When one that is out of the archive for some days goes back.
    pub restored_until: Option<Timestamp>,
}

/// The longest temporary restore in days (EC2 API reference, RestoreSnapshotTier).
pub const MOST_RESTORED_DAYS: u32 = 180;

/// The group of all accounts there are, among those that a snapshot is shared with.
pub const EVERYBODY: &str = "all";

/// One request changes so many permissions at most (EC2 API reference, ModifySnapshotAttribute).
pub const MOST_CHANGES: usize = 500;

/// What happens to permissions to use a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// They are added.
    Add,
    /// They are removed.
    Remove,
}

/// A snapshot in the Recycle Bin. Its tags are not listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Binned {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its volume.
    pub volume_id: VolumeId,
    /// As the create call gave it.
    pub description: String,
    /// When it was deleted.
    pub entered: Option<Timestamp>,
    /// When it is gone for good.
    pub exits: Option<Timestamp>,
}

/// The calls for the life of a set.
pub trait Keep {
    /// The Region that this is about.
    fn region(&self) -> &str;
    /// The time by EC2's clock, and by this host's when EC2's answer came.
    fn clocks(&self) -> impl Future<Output = Result<(Timestamp, Timestamp), Ec2Error>>;
    /// DescribeSnapshots, one page.
    fn page(&self, wanted: &Wanted, token: Option<&str>) -> impl Future<Output = Result<Page, Ec2Error>>;
    /// DescribeImages of the own account, disabled ones too: those that use these snapshots.
    fn images(&self, snapshots: &[SnapshotId]) -> impl Future<Output = Result<Vec<ImageUse>, Ec2Error>>;
    /// DescribeLockedSnapshots: those of these that are or were locked.
    fn locks(&self, snapshots: &[SnapshotId]) -> impl Future<Output = Result<Vec<LockView>, Ec2Error>>;
    /// LockSnapshot: locks it, or changes its lock.
    fn lock(&self, snapshot: &SnapshotId, lock: &Lock) -> impl Future<Output = Result<LockView, Ec2Error>>;
    /// UnlockSnapshot.
    fn unlock(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DescribeSnapshotAttribute: the accounts that may use it, `all` among them.
    fn shared_with(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<Vec<String>, Ec2Error>>;
    /// ModifySnapshotAttribute: these accounts, [`EVERYBODY`] among them, may use it, or no longer. No more than
    /// [`MOST_CHANGES`].
    fn permit(
        &self,
        snapshot: &SnapshotId,
        change: Permission,
        who: &[String],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// GetSnapshotBlockPublicAccessState: `unblocked`, `block-new-sharing` or `block-all-sharing`.
    fn public_access(&self) -> impl Future<Output = Result<String, Ec2Error>>;
    /// DescribeSnapshotTierStatus of these. One that is gone is not in the answer.
    fn tiers(&self, snapshots: &[SnapshotId]) -> impl Future<Output = Result<Vec<TierView>, Ec2Error>>;
    /// ModifySnapshotTier: into the archive, as a full copy.
    fn archive(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<(), Ec2Error>>;
    /// RestoreSnapshotTier: back, for so many days, or for good.
    fn unarchive(
        &self,
        snapshot: &SnapshotId,
        days: Option<u32>,
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// Of these instances, those that exist.
    fn instances(
        &self,
        ids: &[crate::ids::InstanceId],
    ) -> impl Future<Output = Result<Vec<crate::ids::InstanceId>, Ec2Error>>;
    /// DescribeRegions: those that the account can use.
    fn regions(&self) -> impl Future<Output = Result<Vec<String>, Ec2Error>>;
    /// ListSnapshotsInRecycleBin, every page.
    fn bin(&self) -> impl Future<Output = Result<Vec<Binned>, Ec2Error>>;
    /// CreateTags.
    fn put_tags(
        &self,
        snapshots: &[SnapshotId],
        tags: &[(String, String)],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeleteTags, whatever their values.
    fn remove_tags(
        &self,
        snapshots: &[SnapshotId],
        keys: &[&str],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeleteSnapshot. One that is gone already is no error.
    fn delete(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DeregisterImage, with its snapshots: EC2's code for each of them. One that is gone already is no error.
    fn deregister_image(
        &self,
        image: &ImageId,
    ) -> impl Future<Output = Result<Vec<SnapshotResult>, Ec2Error>>;
    /// RestoreSnapshotFromRecycleBin.
    fn undelete(&self, snapshot: &SnapshotId) -> impl Future<Output = Result<(), Ec2Error>>;
}
