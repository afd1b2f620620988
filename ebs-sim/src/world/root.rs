//! The replacement of the root volume: which volumes there were, and the tasks.
//!
//! In: what CreateReplaceRootVolumeTask was asked for. Out: facts for the answers. It must never read the clock:
//! `now` comes in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attachment, Stage, World};
use crate::ids::{ImageId, SnapshotId, TaskId, VolumeId};

/// One replacement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootTask {
    pub id: TaskId,
    /// What the new volume is made from; none where it was there before.
    pub snapshot: Option<SnapshotId>,
    pub image: Option<ImageId>,
    /// The new volume.
    pub volume: VolumeId,
    /// Whether the old one is deleted afterwards.
    pub delete_old: bool,
    pub started: Timestamp,
    pub completed: Option<Timestamp>,
    pub state: TaskState,
    /// It will leave the instance without a root.
    #[serde(default)]
    pub loses_root: bool,
    /// The client token that made it, and what else was asked for.
    pub token: Option<(String, String)>,
}

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// The new volume is being made.
    Pending,
    /// The volumes change places.
    InProgress,
    /// The new volume is the root.
    Succeeded,
    /// The new volume did not come to be; the old one is the root still.
    Failing,
    Failed,
    /// The old volume is detached, and nothing is attached in its place.
    FailingDetached,
    FailedDetached,
}

impl TaskState {
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::InProgress => "in-progress",
            TaskState::Succeeded => "succeeded",
            TaskState::Failing => "failing",
            TaskState::Failed => "failed",
            TaskState::FailingDetached => "failing-detached",
            TaskState::FailedDetached => "failed-detached",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, TaskState::Succeeded | TaskState::Failed | TaskState::FailedDetached)
    }
}

impl World {
    /// Whether a volume is the root now, or was.
    pub fn was_root(&self, id: &VolumeId) -> bool {
        self.former_roots.contains(id) || self.volumes.iter().any(|volume| volume.boot && volume.id == *id)
    }

    pub fn task_mut(&mut self, id: &TaskId) -> Option<&mut RootTask> {
        self.root_tasks.iter_mut().find(|task| task.id == *id)
    }

    /// Takes the root off, and puts nothing in its place.
    pub fn lose_root(&mut self) {
        let Some(old) = self.volumes.iter_mut().find(|volume| volume.boot) else { return };
        old.attachment = None;
        old.boot = false;
        let id = old.id.clone();
        self.former_roots.push(id);
    }

    /// Makes another volume the root: the attachments change places, nothing else. The old volume, when there was one.
    pub fn swap_root(&mut self, new: &VolumeId, now: Timestamp, delete_old: bool) -> Option<VolumeId> {
        let old = self.volumes.iter_mut().find(|volume| volume.boot)?;
        let (id, name) = (old.id.clone(), old.device_name.clone());
        let goes = old.attachment.take().is_some_and(|attachment| attachment.delete_on_termination);
        old.boot = false;
        if delete_old {
            old.stage = Stage::Deleting;
        }
        self.former_roots.push(id.clone());
        if let Some(volume) = self.volume_mut(new) {
            volume.boot = true;
            volume.device_name = name;
            volume.attachment = Some(Attachment::complete(now, goes));
        }
        Some(id)
    }
}
