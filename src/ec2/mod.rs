//! The boundary to EC2: the few calls this tool makes, behind one narrow trait.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`] that says whether the outcome is known. Must never:
//! retry a create call: a retry after a lost response makes a duplicate set, and EC2 has no ClientToken for
//! this call.

pub mod aws;
pub mod blocks;
pub mod clones;
pub mod connect;
pub mod copies;
mod denial;
pub mod direct;
mod error;
pub mod images;
pub mod imds;
pub mod keep;
pub(crate) mod late;
pub mod policy;
pub(crate) mod reconcile;
pub mod repeat;
pub mod roots;
pub(crate) mod sdk;
pub mod tagging;
pub mod volume_type;
pub mod volumes;

pub use self::denial::{PARTITIONS, partition, policy_hint};
pub use self::error::{Ec2Error, Unreached};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;

use self::tagging::Said;
use crate::discover::volumes::AttachedVolume;
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::plan::PointInTimeCall;

/// The tag that carries the run id, set in the create call itself.
pub const RUN_TAG: &str = "stillpoint:run";

/// What DescribeInstances returns about this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Device name of the boot volume.
    pub root_device_name: Option<String>,
}

/// A create call, complete but for `DryRun`.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The instance whose volumes CreateSnapshots takes.
    pub instance: InstanceId,
    /// CreateSnapshots or CreateSnapshot, and over which volumes.
    pub call: PointInTimeCall,
    /// At most 255 characters (EC2 API reference, CreateSnapshots).
    pub description: String,
    /// The tags of every snapshot, among them [`RUN_TAG`] with the run id.
    pub tags: Vec<(String, String)>,
    /// What each volume's snapshot gets beside `tags` of the lines that describe the set, where not all of them
    /// fit on every snapshot. As with `copied_tags`, CreateSnapshot takes them in the call.
    pub(crate) spread_tags: BTreeMap<VolumeId, Vec<(String, String)>>,
    /// What a volume's snapshot gets of the volume's own tags beside `tags`. CreateSnapshot takes them in the
    /// call. CreateSnapshots has one list for all its snapshots, so there they are put on with the verdict. Its
    /// `CopyTagsFromSource` is not used: it copies every tag, and also those that a volume got after it was
    /// looked at, such as a label that a restore has copied from another set.
    pub(crate) copied_tags: BTreeMap<VolumeId, Vec<(String, String)>>,
    /// How many more tags a snapshot gets once the verdict is known.
    pub(crate) later_tags: usize,
}

/// A snapshot as a create or describe call returns it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotView {
    /// Known from EC2's answer to the create call, or from a look-up.
    pub id: SnapshotId,
    /// The volume that it is a snapshot of.
    pub volume: VolumeId,
    /// `pending`, `completed`, `error`, …
    pub state: Cow<'static, str>,
    /// When EC2 says it was started.
    pub started: Option<Timestamp>,
    /// Progress as EC2 writes it, such as `42%`; none when EC2 has not said it yet.
    pub progress: Option<Cow<'static, str>>,
}

/// A snapshot with its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedSnapshot {
    /// The snapshot.
    pub view: SnapshotView,
    /// Its tags, in EC2's order.
    pub tags: Vec<(String, String)>,
    /// What else DescribeSnapshots says of it.
    pub detail: SnapshotDetail,
}

/// What DescribeSnapshots says of a snapshot beside its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotDetail {
    /// Size of its volume in GiB; 0 of a copy that is pending.
    pub size_gib: i32,
    /// Bytes of all its blocks, once it is completed.
    pub full_bytes: Option<i64>,
    /// Encrypted at rest.
    pub encrypted: bool,
    /// The ARN of its key.
    pub kms_key: Option<String>,
    /// The account that owns it.
    pub owner: Option<String>,
    /// As the create call gave it.
    pub description: String,
    /// It is in the archive tier.
    pub archived: bool,
    /// When one that is out of the archive for some days goes back.
    pub restored_until: Option<Timestamp>,
    /// When it was completed.
    pub completed: Option<Timestamp>,
    /// StateMessage. Healthy copies that are pending have one too.
    pub message: Option<String>,
}

impl CreateRequest {
    /// What this volume's snapshot gets beside the tags of every snapshot.
    pub(crate) fn of_volume(&self, volume: &VolumeId) -> impl Iterator<Item = &(String, String)> {
        [&self.spread_tags, &self.copied_tags].into_iter().filter_map(|of| of.get(volume)).flatten()
    }

    /// The most tags that a snapshot of this request will have.
    #[must_use]
    pub(crate) fn most_tags(&self) -> usize {
        let volumes = self.spread_tags.keys().chain(self.copied_tags.keys());
        let own = volumes.map(|v| self.of_volume(v).count()).max().unwrap_or_default();
        self.tags.len() + own + self.later_tags
    }
}

/// The value of a tag among these.
#[must_use]
pub(crate) fn tag_of<'t>(tags: &'t [(String, String)], key: &str) -> Option<&'t str> {
    tags.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

impl TaggedSnapshot {
    /// The value of this tag.
    #[must_use]
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        tag_of(&self.tags, key)
    }
}

/// The calls that change nothing, DryRun among them. One implementation is the AWS SDK; tests have others, and
/// [`repeat::Repeating`] is one around any other.
pub trait Describe {
    /// DescribeInstances for this instance.
    fn instance(&self, id: &InstanceId) -> impl Future<Output = Result<InstanceView, Ec2Error>>;
    /// DescribeVolumes, every page, attached to this instance.
    fn volumes(&self, id: &InstanceId) -> impl Future<Output = Result<Vec<AttachedVolume>, Ec2Error>>;
    /// DescribeSnapshots of these volumes that are pending, every page.
    fn pending(&self, volumes: &[VolumeId]) -> impl Future<Output = Result<Vec<SnapshotView>, Ec2Error>>;
    /// DescribeSnapshots of these volumes that were started in these minutes (`2026-11-21T03:00`), in any
    /// state.
    fn started(
        &self,
        volumes: &[VolumeId],
        minutes: &[String],
    ) -> impl Future<Output = Result<Vec<SnapshotView>, Ec2Error>>;
    /// DescribeSnapshots of these, every page. One that is gone is not in the answer.
    fn states(&self, snapshots: &[SnapshotId]) -> impl Future<Output = Result<Vec<SnapshotView>, Ec2Error>>;
    /// The create call with DryRun: permission check and connection warm-up in one.
    fn dry_run(&self, request: &CreateRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// CreateTags with DryRun, with tags of a verdict: of this snapshot, or of one that nobody has.
    fn may_tag(&self, snapshot: Option<&SnapshotId>) -> impl Future<Output = Result<Said, Ec2Error>>;
    /// DescribeSnapshots: one of these volumes' snapshots that carries [`RUN_TAG`], if there is any.
    fn one_of_ours(&self, volumes: &[VolumeId])
    -> impl Future<Output = Result<Option<SnapshotId>, Ec2Error>>;
    /// Has credentials that last for `need` from now on: new ones are fetched where those at hand do not.
    fn renew(&self, need: Duration) -> impl Future<Output = Result<(), Ec2Error>>;
    /// The number of idle connections that the next calls can use; none when it is not known.
    fn warm_connections(&self) -> Option<usize>;
}

/// The calls of a run that takes a set. A goal that takes no set gets only [`Describe`], so that it cannot
/// change anything.
pub trait Ec2: Describe {
    /// The create call: one attempt, never retried. Snapshots made before a failure of a multi-call create
    /// come with it.
    fn create(
        &self,
        request: &CreateRequest,
    ) -> impl Future<Output = Result<Vec<SnapshotView>, CreateFailed>>;
    /// DescribeSnapshots by the tag [`RUN_TAG`], every page. Whoever carries that tag need not be of that run.
    fn find_run(&self, run: &RunId) -> impl Future<Output = Result<Vec<TaggedSnapshot>, Ec2Error>>;
    /// CreateTags; may be retried, since it is idempotent.
    fn tag(
        &self,
        snapshots: &[SnapshotId],
        tags: &[(String, String)],
    ) -> impl Future<Output = Result<(), Ec2Error>>;
}

/// A create call that failed, and the snapshots that it made nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CreateFailed {
    /// The first error of the calls that it consists of.
    pub error: Ec2Error,
    /// True when EC2 may have carried out any part of it without an answer.
    pub outcome_unknown: bool,
    /// Snapshots that are known to have been made (only with one CreateSnapshot a volume).
    pub made: Vec<SnapshotView>,
}
