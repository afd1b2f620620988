//! The root volume of an instance, replaced by one of a set.
//!
//! ```text
//! set + layout, what EC2 says of the instance ─▶ plan (here, pure) ─▶ record.rs: what is asked for, before it is
//!                                                                  └▶ CreateReplaceRootVolumeTask, with tags
//! a task, by its tags ─▶ follow.rs: to its end ─▶ how it ended, and what is to be done
//! ```
//!
//! EC2 makes the volume, takes the old one off, attaches the new one and reboots the instance. What follows cannot go by
//! this host's memory, which may be on the root that goes: the tags of the task say all of it.
//!
//! In: a set, an instance. Out: a [`RootPlan`], or a [`Refusal`]. Must never: ask EC2 for another root than the one that
//! a set was taken of, or delete the old one unless that is asked for.

pub mod follow;
pub mod record;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::{RESTORE_HOST_TAG, RESTORE_OF_TAG, RESTORE_VOLUME_TAG, Refusal, no, readable};
use crate::ec2::roots::{ROOT_TAG, RootRequest, RootView};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::{printable, shown};
use crate::sets::guard::unclear;
use crate::sets::layout::Layout;
use crate::sets::lines::SetVolume;
use crate::sets::set::SnapshotSet;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose root.
    pub instance: InstanceId,
    /// That is the instance that this runs on.
    pub here: bool,
    /// The old volume is deleted afterwards.
    pub delete_replaced: bool,
    /// See [`RootRequest::initialization_rate`].
    pub initialization_rate: Option<i32>,
}

/// A root that will be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPlan {
    /// The restore's id, and the token of the call.
    pub id: RunId,
    /// The set.
    pub set: RunId,
    /// When the set was taken.
    pub taken: Option<Timestamp>,
    /// The Region.
    pub region: String,
    /// The instance's zone.
    pub zone: String,
    /// The instance.
    pub instance: InstanceId,
    /// It is the one that this runs on.
    pub here: bool,
    /// What the new root is made of.
    pub snapshot: SnapshotId,
    /// The volume that goes.
    pub replaced: VolumeId,
    /// Its device name, which the new one gets.
    pub device_name: String,
    /// Size of the new one in GiB: that of the old one.
    pub size_gib: i32,
    /// The old one is deleted afterwards.
    pub delete_replaced: bool,
    /// See [`RootRequest::initialization_rate`].
    pub initialization_rate: Option<i32>,
    /// Volumes of the set that stay as they are.
    pub stays: Vec<Stays>,
    /// What is to be said of it before.
    pub notes: Vec<String>,
}

/// A volume of the set that is attached, and stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// It.
    pub volume: VolumeId,
    /// What is mounted of it, in words.
    pub mounts: Vec<String>,
}

/// What can be done where EC2 takes no snapshot for a root: it takes an image of it, or a volume.
#[must_use]
pub fn other_ways(set: &RunId, zone: &str) -> String {
    format!(
        "EC2 takes no copy, and no snapshot of another root. Two other ways: `stillpoint image {set}`, or `stillpoint \
         restore {set} --no-attach --mount / --az {}`; then `aws ec2 create-replace-root-volume-task` with its \
         --image-id, or --volume-id",
        printable(zone)
    )
}

impl RootPlan {
    /// The call. Its token is the restore's, so that asking twice makes one task.
    #[must_use]
    pub fn request(&self) -> RootRequest {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        RootRequest {
            token: self.id.to_string(),
            instance: self.instance.clone(),
            snapshot: self.snapshot.clone(),
            delete_replaced: self.delete_replaced,
            initialization_rate: self.initialization_rate,
            tags: vec![
                tag(ROOT_TAG, self.id.as_str()),
                tag(RESTORE_OF_TAG, self.set.as_str()),
                tag(RESTORE_VOLUME_TAG, self.replaced.as_str()),
                tag(RESTORE_HOST_TAG, self.instance.as_str()),
            ],
        }
    }
}

/// Decides. `root` is the instance as EC2 has it now.
///
/// # Errors
/// Why it cannot be done, before anything is.
pub fn plan(set: &SnapshotSet, layout: &Layout, root: &RootView, asked: &Asked) -> Result<RootPlan, Refusal> {
    let (id, instance) = (&set.id, &asked.instance);
    if let Some(refusal) = unclear(set) {
        return no(refusal.what, refusal.hint);
    }
    let Some(boot) = layout.volumes.iter().find(|v| v.boot) else {
        return no(
            format!("{id} has no snapshot of a root device"),
            "restore another set: `stillpoint list` shows them, `stillpoint show` what is in them",
        );
    };
    if set.copy_of.is_some() {
        return no(format!("{id} is a copy"), other_ways(id, &root.zone));
    }
    let member = snapshot_of(set, boot)?;
    let Some(replaced) = can_be_replaced(root, instance, boot)? else {
        return no(
            format!("{instance} has no root volume: nothing is attached as {}", printable(&root.device_name)),
            format!(
                "`stillpoint restore {id} --no-attach --mount / --az {}` makes one; stop the instance, and `aws ec2 \
                 attach-volume --device {}`",
                printable(&root.zone),
                printable(&root.device_name)
            ),
        );
    };
    if set.instance != *instance && boot.id != *replaced {
        return no(
            format!("{id} is of {}, and {} is not the root of {instance}", set.instance, boot.id),
            other_ways(id, &root.zone),
        );
    }
    let (stays, mut notes) = around(set, layout, root, replaced);
    if asked.here {
        notes.push(
            "what this host remembers of restores goes with the root, where state_dir is on it".to_owned(),
        );
    } else {
        notes.push("what runs there is not looked at: a run of stillpoint would be cut off".to_owned());
    }
    Ok(RootPlan {
        id: RunId::generate(),
        set: id.clone(),
        taken: set.time,
        region: set.region.clone(),
        zone: root.zone.clone(),
        instance: instance.clone(),
        here: asked.here,
        snapshot: member,
        replaced: replaced.clone(),
        device_name: root.device_name.clone(),
        size_gib: root.size_gib,
        delete_replaced: asked.delete_replaced,
        initialization_rate: asked.initialization_rate,
        stays,
        notes,
    })
}

/// The snapshot of the root, of which a volume can be made. What is wrong with others does not matter here.
fn snapshot_of(set: &SnapshotSet, boot: &SetVolume) -> Result<SnapshotId, Refusal> {
    let id = &set.id;
    let Some(member) = set.members.iter().find(|m| m.volume_id == boot.id) else {
        return no(format!("{id} has no snapshot of {}, the root device", boot.id), "restore another set");
    };
    readable(id, std::slice::from_ref(member))?;
    match &*member.state {
        "completed" => Ok(member.id.clone()),
        _ => {
            no(format!("{} of {id} is not completed yet", member.id), format!("`stillpoint wait {id}` first"))
        }
    }
}

/// The root volume that EC2 can replace; none where nothing is attached.
fn can_be_replaced<'r>(
    root: &'r RootView,
    instance: &InstanceId,
    boot: &SetVolume,
) -> Result<Option<&'r VolumeId>, Refusal> {
    if root.state != "running" {
        return no(
            format!("{instance} is {}: EC2 replaces the root of a running instance", printable(&root.state)),
            format!(
                "start it; or, while it is stopped, exchange its root by hand: detach-volume, attach-volume --device {}",
                printable(&root.device_name)
            ),
        );
    }
    if root.root_device_type != "ebs" {
        return no(
            format!("the root of {instance} is not on EBS"),
            "restore it beside: `stillpoint restore`",
        );
    }
    // EC2 guide, "Replace the root volume": virtualized types, and those of Macs.
    let metal = root.instance_type.split('.').nth(1).is_some_and(|size| size.starts_with("metal"));
    if metal && !root.instance_type.starts_with("mac") {
        return no(
            format!("{instance} is a {}, whose root EC2 does not replace", printable(&root.instance_type)),
            format!(
                "stop it, and exchange {} by hand: detach-volume, attach-volume --device {}",
                boot.id,
                printable(&root.device_name)
            ),
        );
    }
    Ok(root.volume.as_ref())
}

/// The volumes of the set that stay, and what that means.
fn around(
    set: &SnapshotSet,
    layout: &Layout,
    root: &RootView,
    replaced: &VolumeId,
) -> (Vec<Stays>, Vec<String>) {
    let mounts_of = |volume: &VolumeId| -> Vec<String> {
        let on = layout.filesystems.iter().filter(|f| f.volumes.contains(volume));
        on.map(|f| shown(&f.mount_point)).collect()
    };
    let others = layout.volumes.iter().filter(|v| !v.boot && v.id != *replaced);
    let (there, gone): (Vec<&SetVolume>, Vec<&SetVolume>) =
        others.partition(|v| root.attached.contains(&v.id));
    let stays: Vec<Stays> =
        there.iter().map(|v| Stays { volume: v.id.clone(), mounts: mounts_of(&v.id) }).collect();
    let mut notes = Vec::new();
    if !stays.is_empty() {
        notes.push(format!(
            "the set is of one instant, and its root will be alone of it: `stillpoint restore {} --in-place`, after the \
             reboot, puts the data volumes back to it too",
            set.id
        ));
    }
    for volume in gone {
        let places = mounts_of(&volume.id).join(", ");
        if !places.is_empty() {
            notes.push(format!(
                "{places} was on {}, which is not attached: without `nofail` in the /etc/fstab of the set, the boot waits \
                 for it",
                volume.id
            ));
        }
    }
    (stays, notes)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
