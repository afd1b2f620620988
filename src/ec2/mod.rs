//! The boundary to EC2: the few calls this tool makes, behind one narrow trait.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`] that says whether the outcome is known. Must never:
//! retry a create call: a retry after a lost response makes a duplicate set, and EC2 has no ClientToken for
//! this call.

pub mod aws;
pub mod connect;
pub mod imds;
pub(crate) mod reconcile;
pub(crate) mod sdk;

use std::collections::BTreeMap;
use std::future::Future;

use jiff::Timestamp;

use crate::discover::volumes::AttachedVolume;
use crate::error::Error;
use crate::exit::Exit;
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
    pub state: String,
    /// When EC2 says it was started.
    pub started: Option<Timestamp>,
    /// Progress as EC2 writes it, such as `42%`; none when EC2 has not said it yet.
    pub progress: Option<String>,
}

/// A snapshot with its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedSnapshot {
    /// The snapshot.
    pub view: SnapshotView,
    /// Its tags, in EC2's order.
    pub tags: Vec<(String, String)>,
}

impl TaggedSnapshot {
    /// The value of this tag.
    #[must_use]
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum Ec2Error {
    /// EC2 answered with an error, so it did nothing.
    #[error("{action}: {code}: {message}")]
    Refused { action: &'static str, code: String, message: String },
    /// The request was not sent: there was no connection, or there were no credentials.
    #[error("{action}: cannot reach EC2: {message}")]
    Unreached { action: &'static str, message: String },
    /// The request was sent and no readable answer came: it is not known whether EC2 carried it out.
    #[error("{action}: no answer from EC2, the outcome is unknown: {message}")]
    Unknown { action: &'static str, message: String },
}

impl Ec2Error {
    /// True when EC2 may have carried out the request: look it up, never repeat it.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// True when the role lacks a permission (`UnauthorizedOperation` and its like).
    #[must_use]
    pub fn denied(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "UnauthorizedOperation")
    }

    /// The action that is not allowed, without `ec2:`. It can differ from the call's: tagging on create needs
    /// CreateTags.
    #[must_use]
    pub(crate) fn denied_action(&self) -> Option<&str> {
        match self {
            Self::Refused { action, message, .. } if self.denied() => {
                Some(denied_in(message).unwrap_or(action))
            }
            _ => None,
        }
    }

    /// The exit code of a run that fails by it: a missing permission has a code of its own.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.denied() { Exit::Permission } else { Exit::Ec2 }
    }

    /// What the user can do about it, by EC2's error code; none for a code that is not known here.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { action, code, message } => hint_for(action, code, message),
            Self::Unreached { .. } => Some(
                "check the network path, security group or VPC endpoint to EC2, and AWS_ENDPOINT_URL_EC2 if \
                 set"
                .to_owned(),
            ),
            Self::Unknown { .. } => None,
        }
    }
}

impl From<Ec2Error> for Error {
    fn from(error: Ec2Error) -> Self {
        let hint = error.hint();
        Self::new(error.exit(), error).maybe_hint(hint)
    }
}

/// What to do about an EC2 error code (EC2 API reference, "error codes").
fn hint_for(action: &str, code: &str, message: &str) -> Option<String> {
    Some(match code {
        "UnauthorizedOperation" => {
            return Some(policy_hint(denied_in(message).unwrap_or(action)));
        }
        "SnapshotCreationPerVolumeRateExceeded" => {
            "EC2 allows one snapshot of a volume every 15 s: run again later".to_owned()
        }
        "ConcurrentSnapshotLimitExceeded" => {
            "too many pending snapshots of one volume (5; st1 and sc1: 1): run again when they are completed"
                .to_owned()
        }
        "PendingSnapshotLimitExceeded" => {
            "the account has 100 pending snapshots: run again when some are completed".to_owned()
        }
        "SnapshotLimitExceeded" => {
            "the account's snapshot quota is used up: delete some or ask AWS for more".to_owned()
        }
        "RequestLimitExceeded" => {
            "EC2 throttles this account: run again later, or spread the timers".to_owned()
        }
        "AuthFailure" | "SignatureDoesNotMatch" | "RequestExpired" => {
            "check the credentials and this host's clock (chronyc tracking)".to_owned()
        }
        "TagLimitExceeded" => {
            "set fewer tags, or copy_volume_tags = false (EC2 allows 50 a resource)".to_owned()
        }
        "InvalidVolume.NotFound" | "InvalidInstanceID.NotFound" => {
            "it is gone, or in another Region or account: check `stillpoint plan`".to_owned()
        }
        _ => return None,
    })
}

/// The action that EC2's message names as not allowed.
fn denied_in(message: &str) -> Option<&str> {
    message.split_once("perform: ec2:").and_then(|(_, rest)| rest.split_whitespace().next())
}

/// A hint with the IAM statement that allows one action and no more.
#[must_use]
pub fn policy_hint(action: &str) -> String {
    let statement = match action {
        "CreateTags" => {
            r#"{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"arn:aws:ec2:*::snapshot/*"}"#
                .to_owned()
        }
        "CreateSnapshots" | "CreateSnapshot" => format!(
            r#"{{"Effect":"Allow","Action":"ec2:{action}","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ec2:*:*:volume/*","arn:aws:ec2:*::snapshot/*"]}}"#
        ),
        _ => format!(r#"{{"Effect":"Allow","Action":"ec2:{action}","Resource":"*"}}"#),
    };
    format!("ec2:{action} is missing in the instance role's policy; add\n  {statement}")
}

/// The calls that change nothing, DryRun among them. One implementation is the AWS SDK; tests have others.
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
    /// The create call with DryRun: permission check and connection warm-up in one.
    fn dry_run(&self, request: &CreateRequest) -> impl Future<Output = Result<(), Ec2Error>>;
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
