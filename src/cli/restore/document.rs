//! A restore, for programs: docs/schema/restore-1.json.
//!
//! In: a plan, what was done of it. Out: a document. Must never: say `done` of what was only planned.

use jiff::Timestamp;
use serde::Serialize;

use crate::ec2::roots::TaskState;
use crate::exit::Exit;
use crate::ids::{InstanceId, RootTaskId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::shown;
use crate::restore::carry_out::Done;
use crate::restore::plan::RestorePlan;
use crate::restore::root::RootPlan;
use crate::restore::root::follow::Replacing;

/// Version of the JSON of `restore`.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    pub version: u32,
    pub command: &'static str,
    pub restores: Vec<OfRestore<'a>>,
    pub exit_code: Exit,
}

#[derive(Debug, Serialize)]
pub(super) struct OfRestore<'a> {
    pub id: RunId,
    pub set: Option<RunId>,
    pub region: &'a str,
    pub state: &'static str,
    pub in_place: bool,
    pub until: Option<Timestamp>,
    pub root: Option<OfRootTask>,
    pub volumes: Vec<OfVolume>,
    pub mounts: Vec<OfMount>,
    pub copied: Vec<String>,
    pub before_start: Vec<String>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct OfVolume {
    pub id: Option<VolumeId>,
    pub source: Option<VolumeId>,
    pub snapshot: Option<SnapshotId>,
    pub size_gib: i32,
    pub volume_type: Option<String>,
    pub device_name: Option<String>,
    pub state: Option<String>,
}

/// The root of an instance that is replaced.
#[derive(Debug, Serialize)]
pub(super) struct OfRootTask {
    pub instance: InstanceId,
    pub task: Option<RootTaskId>,
    pub task_state: Option<String>,
    pub replaced: Option<VolumeId>,
    pub deletes_replaced: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct OfMount {
    pub source: String,
    pub mount_point: String,
    pub fstype: String,
    pub uuid: Option<String>,
}

/// What is to be done before a database is started on what is mounted by now.
pub(super) fn before_start(plan: &RestorePlan) -> Vec<String> {
    plan.before_start.iter().flat_map(|one| one.lines(&plan.to)).collect()
}

impl<'a> OfRestore<'a> {
    /// A restore that is planned, or done.
    pub fn of(plan: &'a RestorePlan, done: Option<&Done>, state: &'static str) -> Self {
        let volumes = plan.volumes.iter().enumerate().map(|(n, v)| OfVolume {
            id: done.and_then(|d| Some(d.volumes.get(n)?.id.clone())).or(plan.clones.get(n).cloned()),
            source: Some(v.source.clone()),
            snapshot: v.snapshot.clone(),
            size_gib: v.size_gib,
            volume_type: Some(v.volume_type.clone()),
            device_name: v.device_name.clone(),
            state: None,
        });
        let mounts = plan.filesystems.iter().flat_map(|f| {
            f.mounts.iter().map(|mount| {
                let place = plan.place(mount);
                let made = done.and_then(|d| d.mounts.iter().find(|m| m.mount_point == place));
                OfMount {
                    source: shown(&f.source),
                    mount_point: shown(&place),
                    fstype: f.fstype.clone(),
                    uuid: made.and_then(|m| m.uuid.clone()).or(f.uuid.clone()),
                }
            })
        });
        Self {
            id: plan.id.clone(),
            set: Some(plan.set.clone()),
            region: &plan.region,
            state,
            in_place: plan.in_place.is_some(),
            until: plan.until,
            root: None,
            volumes: volumes.collect(),
            mounts: mounts.collect(),
            copied: Vec::new(),
            before_start: if done.is_some() { before_start(plan) } else { Vec::new() },
            notes: plan.notes.clone(),
        }
    }

    /// A root that would be replaced.
    pub fn of_root(plan: &RootPlan, region: &'a str) -> Self {
        Self {
            id: plan.id.clone(),
            set: Some(plan.set.clone()),
            region,
            state: "planned",
            in_place: false,
            until: None,
            root: Some(OfRootTask {
                instance: plan.instance.clone(),
                task: None,
                task_state: None,
                replaced: Some(plan.replaced.clone()),
                deletes_replaced: plan.delete_replaced,
            }),
            volumes: vec![OfVolume {
                id: None,
                source: Some(plan.replaced.clone()),
                snapshot: Some(plan.snapshot.clone()),
                size_gib: plan.size_gib,
                volume_type: None,
                device_name: Some(plan.device_name.clone()),
                state: None,
            }],
            mounts: Vec::new(),
            copied: Vec::new(),
            before_start: Vec::new(),
            notes: plan.notes.clone(),
        }
    }

    /// A task, for programs.
    pub fn of_task(of: &Replacing, region: &'a str) -> Self {
        let task = &of.task;
        Self {
            id: of.id.clone(),
            set: of.set.clone(),
            region,
            state: match task.state {
                TaskState::Succeeded => "done",
                TaskState::Failed | TaskState::FailedDetached => "failed",
                _ => "under-way",
            },
            in_place: false,
            until: None,
            root: Some(OfRootTask {
                instance: task.instance.clone(),
                task: Some(task.id.clone()),
                task_state: Some(task.state.to_string()),
                replaced: of.replaced.clone(),
                deletes_replaced: task.deletes_replaced,
            }),
            volumes: Vec::new(),
            mounts: Vec::new(),
            copied: Vec::new(),
            before_start: Vec::new(),
            notes: Vec::new(),
        }
    }
}
