//! The actions that are known, each with its parameters.
//!
//! In: an action's name and the form. Out: a typed call that says which permissions it needs and then acts.
//! An action must never be half known: what is not here is answered with InvalidAction.

use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{
    Context, copy, create, delete, images, instances, lock, share, snapshots, tags, tier, types, volumes,
};
use crate::faults::Fault;
use crate::world::World;

/// One call.
pub enum Call {
    CopySnapshot(copy::Copy),
    CreateSnapshot(create::One),
    CreateSnapshots(create::Set),
    CreateTags(tags::Create),
    DeleteSnapshot(delete::Delete),
    DeleteTags(tags::Delete),
    DeregisterImage(images::Deregister),
    DescribeImages(images::Describe),
    DescribeInstanceTypes(types::Describe),
    DescribeInstances(instances::Describe),
    DescribeLockedSnapshots(lock::Describe),
    DescribeSnapshotAttribute(share::Describe),
    DescribeSnapshotTierStatus(tier::Describe),
    DescribeSnapshots(snapshots::Describe),
    DescribeTags(tags::Describe),
    DescribeVolumes(volumes::Describe),
    GetInstanceUefiData(images::Uefi),
    LockSnapshot(lock::Set),
    ModifySnapshotAttribute(share::Modify),
    ModifySnapshotTier(tier::Archive),
    RegisterImage(images::Register),
    ResetSnapshotAttribute(share::Reset),
    RestoreSnapshotTier(tier::Restore),
    UnlockSnapshot(lock::Unset),
}

impl Call {
    /// Reads the parameters of `action`.
    pub fn parse(action: &str, params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(match action {
            "CopySnapshot" => Call::CopySnapshot(copy::Copy::parse(params)?),
            "CreateSnapshot" => Call::CreateSnapshot(create::One::parse(params)?),
            "CreateSnapshots" => Call::CreateSnapshots(create::Set::parse(params)?),
            "CreateTags" => Call::CreateTags(tags::Create::parse(params)?),
            "DeleteSnapshot" => Call::DeleteSnapshot(delete::Delete::parse(params)?),
            "DeleteTags" => Call::DeleteTags(tags::Delete::parse(params)?),
            "DeregisterImage" => Call::DeregisterImage(images::Deregister::parse(params)?),
            "DescribeImages" => Call::DescribeImages(images::Describe::parse(params)?),
            "DescribeInstanceTypes" => Call::DescribeInstanceTypes(types::Describe::parse(params)?),
            "DescribeInstances" => Call::DescribeInstances(instances::Describe::parse(params)?),
            "DescribeLockedSnapshots" => Call::DescribeLockedSnapshots(lock::Describe::parse(params)?),
            "DescribeSnapshotAttribute" => Call::DescribeSnapshotAttribute(share::Describe::parse(params)?),
            "DescribeSnapshotTierStatus" => Call::DescribeSnapshotTierStatus(tier::Describe::parse(params)?),
            "DescribeSnapshots" => Call::DescribeSnapshots(snapshots::Describe::parse(params)?),
            "DescribeTags" => Call::DescribeTags(tags::Describe::parse(params)?),
            "DescribeVolumes" => Call::DescribeVolumes(volumes::Describe::parse(params)?),
            "GetInstanceUefiData" => Call::GetInstanceUefiData(images::Uefi::parse(params)?),
            "LockSnapshot" => Call::LockSnapshot(lock::Set::parse(params)?),
            "ModifySnapshotAttribute" => Call::ModifySnapshotAttribute(share::Modify::parse(params)?),
            "ModifySnapshotTier" => Call::ModifySnapshotTier(tier::Archive::parse(params)?),
            "RegisterImage" => Call::RegisterImage(images::Register::parse(params)?),
            "ResetSnapshotAttribute" => Call::ResetSnapshotAttribute(share::Reset::parse(params)?),
            "RestoreSnapshotTier" => Call::RestoreSnapshotTier(tier::Restore::parse(params)?),
            "UnlockSnapshot" => Call::UnlockSnapshot(lock::Unset::parse(params)?),
            _ => {
                return Err(Ec2Error::new(
                    "InvalidAction",
                    format!("The action {action} is not valid for this web service."),
                ));
            }
        })
    }

    /// What the caller must be allowed to do.
    pub fn needs(&self, world: &World) -> Vec<Need> {
        match self {
            Call::CopySnapshot(call) => call.needs(world),
            Call::CreateSnapshot(call) => call.needs(world),
            Call::CreateSnapshots(call) => call.needs(world),
            Call::CreateTags(call) => call.needs(world),
            Call::DeleteSnapshot(call) => call.needs(world),
            Call::DeleteTags(call) => call.needs(world),
            Call::DeregisterImage(call) => call.needs(world),
            Call::DescribeImages(_) => vec![Need::on_all("ec2:DescribeImages")],
            Call::DescribeInstanceTypes(_) => vec![Need::on_all("ec2:DescribeInstanceTypes")],
            Call::DescribeInstances(_) => vec![Need::on_all("ec2:DescribeInstances")],
            Call::DescribeLockedSnapshots(_) => vec![Need::on_all("ec2:DescribeLockedSnapshots")],
            Call::DescribeSnapshotAttribute(call) => call.needs(world),
            Call::DescribeSnapshotTierStatus(_) => vec![Need::on_all("ec2:DescribeSnapshotTierStatus")],
            Call::DescribeSnapshots(_) => vec![Need::on_all("ec2:DescribeSnapshots")],
            Call::DescribeTags(_) => vec![Need::on_all("ec2:DescribeTags")],
            Call::DescribeVolumes(_) => vec![Need::on_all("ec2:DescribeVolumes")],
            Call::GetInstanceUefiData(call) => call.needs(world),
            Call::LockSnapshot(call) => call.needs(world),
            Call::ModifySnapshotAttribute(call) => call.needs(world),
            Call::ModifySnapshotTier(call) => call.needs(world),
            Call::RegisterImage(call) => call.needs(world),
            Call::ResetSnapshotAttribute(call) => call.needs(world),
            Call::RestoreSnapshotTier(call) => call.needs(world),
            Call::UnlockSnapshot(call) => call.needs(world),
        }
    }

    /// Does it, and gives the response body.
    pub async fn act(self, context: &Context, faults: &[Fault]) -> Result<String, Ec2Error> {
        match self {
            Call::CopySnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshots(call) => call.act(context, faults).await,
            Call::CreateTags(call) => call.act(context),
            Call::DeleteSnapshot(call) => call.act(context).await,
            Call::DeleteTags(call) => call.act(context),
            Call::DeregisterImage(call) => call.act(context).await,
            Call::DescribeImages(call) => call.act(context),
            Call::DescribeInstanceTypes(call) => call.act(context),
            Call::DescribeInstances(call) => call.act(context),
            Call::DescribeLockedSnapshots(call) => call.act(context),
            Call::DescribeSnapshotAttribute(call) => call.act(context),
            Call::DescribeSnapshotTierStatus(call) => call.act(context),
            Call::DescribeSnapshots(call) => call.act(context),
            Call::DescribeTags(call) => call.act(context),
            Call::DescribeVolumes(call) => call.act(context),
            Call::GetInstanceUefiData(call) => call.act(context),
            Call::LockSnapshot(call) => call.act(context),
            Call::ModifySnapshotAttribute(call) => call.act(context),
            Call::ModifySnapshotTier(call) => call.act(context),
            Call::RegisterImage(call) => call.act(context),
            Call::ResetSnapshotAttribute(call) => call.act(context),
            Call::RestoreSnapshotTier(call) => call.act(context),
            Call::UnlockSnapshot(call) => call.act(context),
        }
    }
}
