//! The calls that replace the root volume of an instance.
//!
//! In: plain values. Out: plain values or an [`Ec2Error`]. Must never: replace a root twice where that was asked for
//! once: the client token is the restore's.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::str::FromStr;

use jiff::Timestamp;

use super::Ec2Error;
use crate::ids::{InstanceId, RootTaskId, SnapshotId, VolumeId};

/// The tag of a task: the restore that it is of. It is not the one of the volumes that a restore makes: whatever EC2
/// does with the tags of a task, no `--undo` may take a root for such a volume.
pub const ROOT_TAG: &str = "stillpoint:restore-root";

/// A root volume that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRequest {
    /// At most 64 characters. The same token and the same request are the same task.
    pub token: String,
    /// Whose root.
    pub instance: InstanceId,
    /// What the new one is made of.
    pub snapshot: SnapshotId,
    /// The old one is deleted afterwards.
    pub delete_replaced: bool,
    /// EC2 reads all of it from the snapshot at this rate in MiB/s, for a price; none for as it is used.
    pub initialization_rate: Option<i32>,
    /// The tags of the task.
    pub tags: Vec<(String, String)>,
}

/// How far a task is (EC2 API reference, "ReplaceRootVolumeTask").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// The new volume is being made.
    Pending,
    /// The volumes change places, and the instance is rebooted.
    InProgress,
    /// The new one is the root.
    Succeeded,
    /// It will be [`TaskState::Failed`].
    Failing,
    /// The old one is the root still; the instance was rebooted all the same.
    Failed,
    /// It will be [`TaskState::FailedDetached`].
    FailingDetached,
    /// The instance has no root.
    FailedDetached,
    /// A newer EC2's.
    Other(String),
}

impl TaskState {
    /// Nothing will change any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::FailedDetached)
    }

    /// As EC2 writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in-progress",
            Self::Succeeded => "succeeded",
            Self::Failing => "failing",
            Self::Failed => "failed",
            Self::FailingDetached => "failing-detached",
            Self::FailedDetached => "failed-detached",
            Self::Other(other) => other,
        }
    }
}

impl FromStr for TaskState {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "pending" => Self::Pending,
            "in-progress" => Self::InProgress,
            "succeeded" => Self::Succeeded,
            "failing" => Self::Failing,
            "failed" => Self::Failed,
            "failing-detached" => Self::FailingDetached,
            "failed-detached" => Self::FailedDetached,
            other => Self::Other(other.to_owned()),
        })
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A replacement, as EC2 shows it. It does not say which volume is the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootTask {
    /// It.
    pub id: RootTaskId,
    /// Whose root.
    pub instance: InstanceId,
    /// How far it is.
    pub state: TaskState,
    /// What the new one is made of; none where that is a volume, or the image that the instance was launched from.
    pub snapshot: Option<SnapshotId>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// The old one is deleted afterwards.
    pub deletes_replaced: bool,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl RootTask {
    /// The value of this tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        super::tag_of(&self.tags, key)
    }
}

/// What DescribeInstances says of an instance and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootView {
    /// Such as `running`.
    pub state: String,
    /// Such as `m6i.large`.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// `ebs` or `instance-store`.
    pub root_device_type: String,
    /// The device name of its root.
    pub device_name: String,
    /// The volume that has it; none where nothing is attached there.
    pub volume: Option<VolumeId>,
    /// What that was made of. Nobody but EC2 writes that.
    pub snapshot: Option<SnapshotId>,
    /// The size of that volume in GiB.
    pub size_gib: i32,
    /// Every volume that is attached, the root among them.
    pub attached: Vec<VolumeId>,
}

/// EC2 where the root of an instance is replaced.
pub trait Roots {
    /// DescribeInstances, and DescribeVolumes of its root; none of one that is not there.
    fn root_of(&self, id: &InstanceId) -> impl Future<Output = Result<Option<RootView>, Ec2Error>>;
    /// CreateReplaceRootVolumeTask. It may be made twice: a token makes one task.
    fn replace_root(&self, request: &RootRequest) -> impl Future<Output = Result<RootTask, Ec2Error>>;
    /// The same with DryRun.
    fn may_replace_root(&self, request: &RootRequest) -> impl Future<Output = Result<(), Ec2Error>>;
    /// DescribeReplaceRootVolumeTasks of this instance, or of all, every page.
    fn root_tasks(&self, of: Option<&InstanceId>) -> impl Future<Output = Result<Vec<RootTask>, Ec2Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_is_written_and_a_new_one_is_not_an_end() {
        for text in [
            "pending",
            "in-progress",
            "succeeded",
            "failing",
            "failed",
            "failing-detached",
            "failed-detached",
            "resting",
        ] {
            let Ok(state) = text.parse::<TaskState>();
            assert_eq!(state.to_string(), text);
            let ends = ["succeeded", "failed", "failed-detached"].contains(&text);
            assert_eq!(state.is_over(), ends, "{text}");
        }
    }
}
