//! Whose resources a request may touch: those of its account, and what others share with it.
//!
//! In: what a request needs, and who asks. Out: nothing, or the error that EC2 gives for what is not there. A
//! snapshot that is not shared with an account must never be told apart from one that does not exist.

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::snapshots::not_found;
use crate::world::World;

/// Actions about more than snapshots that other accounts have too. They find nothing of this account's.
const ELSEWHERE: &[&str] = &[
    "DescribeImages",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeVolumeStatus",
    "DescribeVolumes",
];
/// Actions that are about resources which only the instance's account has.
const AT_HOME: &[&str] = &[
    "AttachVolume",
    "CopyImage",
    "CopyVolumes",
    "CreateReplaceRootVolumeTask",
    "CreateSnapshot",
    "CreateSnapshots",
    "CreateVolume",
    "DeleteVolume",
    "DeregisterImage",
    "DescribeImageAttribute",
    "DescribeInstanceAttribute",
    "DescribeReplaceRootVolumeTasks",
    "DetachVolume",
    "DisableImage",
    "DisableImageDeprecation",
    "EnableImage",
    "EnableImageDeprecation",
    "GetInstanceUefiData",
    "ModifyImageAttribute",
    "ModifyInstanceAttribute",
    "RegisterImage",
    "RunInstances",
    "TerminateInstances",
];
/// Actions that whoever may use a snapshot can do with it; its copy looks for itself.
const SHARED: &[&str] = &["ec2:CopySnapshot", "ec2:CreateVolume", "ec2:RunInstances"];

/// Passes when the caller's account may do this with what it names.
pub fn check(world: &World, context: &Context, needs: &[Need]) -> Result<(), Ec2Error> {
    let is_home = context.account == world.account();
    if !is_home && AT_HOME.contains(&context.action.as_str()) {
        return Err(Ec2Error::new(
            "UnsupportedOperation",
            format!(
                "The account {} has snapshots only: {} is for the instance's",
                context.account, context.action
            ),
        ));
    }
    if !is_home && ELSEWHERE.contains(&context.action.as_str()) {
        return Ok(());
    }
    for need in needs {
        if !is_home && matches!(need.kind(), Some("volume" | "instance" | "image")) {
            return Err(Ec2Error::new("InvalidID", "The ID is not one of this account's"));
        }
        let Some(id) = need.snapshot() else { continue };
        let Some(snapshot) = world.snapshots.get(&id) else { continue };
        if snapshot.owner == context.account {
            continue;
        }
        let visible = world.can_use(snapshot, &context.account, context.now);
        if need.action() == "ec2:CopySnapshot" || (visible && SHARED.contains(&need.action())) {
            continue;
        }
        if visible && need.action() == "ec2:RegisterImage" {
            return Err(Ec2Error::invalid_value(format!("The snapshot '{id}' belongs to another account")));
        }
        return Err(if visible {
            Ec2Error::new("OperationNotPermitted", format!("The snapshot '{id}' belongs to another account"))
        } else {
            not_found(id.as_str())
        });
    }
    Ok(())
}
