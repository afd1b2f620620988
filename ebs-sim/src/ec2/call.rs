//! The actions that are known, each with its parameters.
//!
//! In: an action's name and the form. Out: a typed call that says which permissions it needs and then acts.
//! An action must never be half known: what is not here is answered with InvalidAction.

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{
    bin, block_public, copy, create, delete, images, instance_attribute, instances, keys, lock, regions,
    replace_root, share, snapshots, tags, tier, types, volumes,
};
use crate::faults::Hit;
use crate::world::World;

/// Every action; nothing else is parsed.
pub const ACTIONS: &[&str] = &[
    "AttachVolume",
    "CopyImage",
    "CopySnapshot",
    "CopyVolumes",
    "CreateReplaceRootVolumeTask",
    "CreateSnapshot",
    "CreateSnapshots",
    "CreateTags",
    "CreateVolume",
    "DeleteSnapshot",
    "DeleteTags",
    "DeleteVolume",
    "DeregisterImage",
    "DescribeImageAttribute",
    "DescribeImages",
    "DescribeInstanceAttribute",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeLockedSnapshots",
    "DescribeRegions",
    "DescribeReplaceRootVolumeTasks",
    "DescribeSnapshotAttribute",
    "DescribeSnapshotTierStatus",
    "DescribeSnapshots",
    "DescribeTags",
    "DescribeVolumeStatus",
    "DescribeVolumes",
    "DetachVolume",
    "DisableImage",
    "DisableImageBlockPublicAccess",
    "DisableImageDeprecation",
    "DisableSnapshotBlockPublicAccess",
    "EnableImage",
    "EnableImageBlockPublicAccess",
    "EnableImageDeprecation",
    "EnableSnapshotBlockPublicAccess",
    "GetEbsDefaultKmsKeyId",
    "GetEbsEncryptionByDefault",
    "GetImageBlockPublicAccessState",
    "GetInstanceUefiData",
    "GetSnapshotBlockPublicAccessState",
    "ListSnapshotsInRecycleBin",
    "LockSnapshot",
    "ModifyImageAttribute",
    "ModifyInstanceAttribute",
    "ModifySnapshotAttribute",
    "ModifySnapshotTier",
    "RegisterImage",
    "ResetSnapshotAttribute",
    "RestoreSnapshotFromRecycleBin",
    "RestoreSnapshotTier",
    "RunInstances",
    "TerminateInstances",
    "UnlockSnapshot",
];

fn invalid(action: &str) -> Ec2Error {
    Ec2Error::new("InvalidAction", format!("The action {action} is not valid for this web service."))
}

pub enum Call {
    AttachVolume(volumes::Attach),
    CopyImage(Box<images::Copy>),
    CopySnapshot(copy::Copy),
    CopyVolumes(Box<volumes::Copy>),
    CreateReplaceRootVolumeTask(replace_root::Create),
    CreateSnapshot(create::One),
    CreateSnapshots(create::Set),
    CreateTags(tags::Create),
    CreateVolume(Box<volumes::Create>),
    DeleteSnapshot(delete::Delete),
    DeleteTags(tags::Delete),
    DeleteVolume(volumes::Delete),
    DeregisterImage(images::Deregister),
    DescribeImageAttribute(images::DescribeAttribute),
    DescribeImages(images::Describe),
    DescribeInstanceAttribute(instance_attribute::Describe),
    DescribeInstanceTypes(types::Describe),
    DescribeInstances(instances::Describe),
    DescribeLockedSnapshots(lock::Describe),
    DescribeRegions(regions::Describe),
    DescribeReplaceRootVolumeTasks(replace_root::Describe),
    DescribeSnapshotAttribute(share::Describe),
    DescribeSnapshotTierStatus(tier::Describe),
    DescribeSnapshots(snapshots::Describe),
    DescribeTags(tags::Describe),
    DescribeVolumeStatus(volumes::Status),
    DescribeVolumes(volumes::Describe),
    DetachVolume(volumes::Detach),
    DisableImage(images::Disable),
    DisableImageBlockPublicAccess(block_public::DisableOfImages),
    DisableImageDeprecation(images::Deprecate),
    DisableSnapshotBlockPublicAccess(block_public::Disable),
    EnableImage(images::Disable),
    EnableImageBlockPublicAccess(block_public::EnableOfImages),
    EnableImageDeprecation(images::Deprecate),
    EnableSnapshotBlockPublicAccess(block_public::Enable),
    GetEbsDefaultKmsKeyId(keys::OfVolumes),
    GetEbsEncryptionByDefault(keys::ByDefault),
    GetImageBlockPublicAccessState(block_public::GetOfImages),
    GetInstanceUefiData(images::Uefi),
    GetSnapshotBlockPublicAccessState(block_public::Get),
    ListSnapshotsInRecycleBin(bin::List),
    LockSnapshot(lock::Set),
    ModifyImageAttribute(images::ModifyAttribute),
    ModifyInstanceAttribute(instance_attribute::Modify),
    ModifySnapshotAttribute(share::Modify),
    ModifySnapshotTier(tier::Archive),
    RegisterImage(images::Register),
    ResetSnapshotAttribute(share::Reset),
    RestoreSnapshotFromRecycleBin(bin::Restore),
    RestoreSnapshotTier(tier::Restore),
    RunInstances(Box<instances::Run>),
    TerminateInstances(instances::Terminate),
    UnlockSnapshot(lock::Unset),
}

impl Call {
    /// Reads the parameters of `action`.
    pub fn parse(action: &str, params: &mut Params) -> Result<Self, Ec2Error> {
        if !ACTIONS.contains(&action) {
            return Err(invalid(action));
        }
        Ok(match action {
            "AttachVolume" => Call::AttachVolume(volumes::Attach::parse(params)?),
            "CopySnapshot" => Call::CopySnapshot(copy::Copy::parse(params)?),
            "CreateSnapshot" => Call::CreateSnapshot(create::One::parse(params)?),
            "CreateSnapshots" => Call::CreateSnapshots(create::Set::parse(params)?),
            "CreateTags" => Call::CreateTags(tags::Create::parse(params)?),
            "CreateVolume" => Call::CreateVolume(Box::new(volumes::Create::parse(params)?)),
            "DeleteSnapshot" => Call::DeleteSnapshot(delete::Delete::parse(params)?),
            "DeleteTags" => Call::DeleteTags(tags::Delete::parse(params)?),
            "DeleteVolume" => Call::DeleteVolume(volumes::Delete::parse(params)?),
            "DeregisterImage" => Call::DeregisterImage(images::Deregister::parse(params)?),
            "DescribeImageAttribute" => {
                Call::DescribeImageAttribute(images::DescribeAttribute::parse(params)?)
            }
            "DescribeImages" => Call::DescribeImages(images::Describe::parse(params)?),
            "DescribeInstanceTypes" => Call::DescribeInstanceTypes(types::Describe::parse(params)?),
            "DescribeInstances" => Call::DescribeInstances(instances::Describe::parse(params)?),
            "DescribeLockedSnapshots" => Call::DescribeLockedSnapshots(lock::Describe::parse(params)?),
            "DescribeRegions" => Call::DescribeRegions(regions::Describe::parse(params)?),
            "DescribeSnapshotAttribute" => Call::DescribeSnapshotAttribute(share::Describe::parse(params)?),
            "DescribeSnapshotTierStatus" => Call::DescribeSnapshotTierStatus(tier::Describe::parse(params)?),
            "DescribeSnapshots" => Call::DescribeSnapshots(snapshots::Describe::parse(params)?),
            "DescribeTags" => Call::DescribeTags(tags::Describe::parse(params)?),
            "DescribeVolumes" => Call::DescribeVolumes(volumes::Describe::parse(params)?),
            "DetachVolume" => Call::DetachVolume(volumes::Detach::parse(params)?),
            "DisableImage" => Call::DisableImage(images::Disable::parse(params, true)?),
            "DisableImageBlockPublicAccess" => {
                Call::DisableImageBlockPublicAccess(block_public::DisableOfImages)
            }
            "DisableSnapshotBlockPublicAccess" => {
                Call::DisableSnapshotBlockPublicAccess(block_public::Disable)
            }
            "EnableImage" => Call::EnableImage(images::Disable::parse(params, false)?),
            "EnableImageBlockPublicAccess" => {
                Call::EnableImageBlockPublicAccess(block_public::EnableOfImages::parse(params)?)
            }
            "EnableSnapshotBlockPublicAccess" => {
                Call::EnableSnapshotBlockPublicAccess(block_public::Enable::parse(params)?)
            }
            "GetEbsDefaultKmsKeyId" => Call::GetEbsDefaultKmsKeyId(keys::OfVolumes),
            "GetEbsEncryptionByDefault" => Call::GetEbsEncryptionByDefault(keys::ByDefault),
            "GetImageBlockPublicAccessState" => {
                Call::GetImageBlockPublicAccessState(block_public::GetOfImages)
            }
            "GetInstanceUefiData" => Call::GetInstanceUefiData(images::Uefi::parse(params)?),
            "GetSnapshotBlockPublicAccessState" => Call::GetSnapshotBlockPublicAccessState(block_public::Get),
            "ListSnapshotsInRecycleBin" => Call::ListSnapshotsInRecycleBin(bin::List::parse(params)?),
            "LockSnapshot" => Call::LockSnapshot(lock::Set::parse(params)?),
            "ModifyImageAttribute" => Call::ModifyImageAttribute(images::ModifyAttribute::parse(params)?),
            "ModifySnapshotAttribute" => Call::ModifySnapshotAttribute(share::Modify::parse(params)?),
            "ModifySnapshotTier" => Call::ModifySnapshotTier(tier::Archive::parse(params)?),
            "RegisterImage" => Call::RegisterImage(images::Register::parse(params)?),
            "ResetSnapshotAttribute" => Call::ResetSnapshotAttribute(share::Reset::parse(params)?),
            "RestoreSnapshotFromRecycleBin" => {
                Call::RestoreSnapshotFromRecycleBin(bin::Restore::parse(params)?)
            }
            "RestoreSnapshotTier" => Call::RestoreSnapshotTier(tier::Restore::parse(params)?),
            "RunInstances" => Call::RunInstances(Box::new(instances::Run::parse(params)?)),
            "TerminateInstances" => Call::TerminateInstances(instances::Terminate::parse(params)?),
            "UnlockSnapshot" => Call::UnlockSnapshot(lock::Unset::parse(params)?),
            "CopyVolumes" => Call::CopyVolumes(Box::new(volumes::Copy::parse(params)?)),
            "DescribeVolumeStatus" => Call::DescribeVolumeStatus(volumes::Status::parse(params)?),
            "CopyImage" => Call::CopyImage(Box::new(images::Copy::parse(params)?)),
            "CreateReplaceRootVolumeTask" => {
                Call::CreateReplaceRootVolumeTask(replace_root::Create::parse(params)?)
            }
            "DescribeInstanceAttribute" => {
                Call::DescribeInstanceAttribute(instance_attribute::Describe::parse(params)?)
            }
            "DescribeReplaceRootVolumeTasks" => {
                Call::DescribeReplaceRootVolumeTasks(replace_root::Describe::parse(params)?)
            }
            "DisableImageDeprecation" => {
                Call::DisableImageDeprecation(images::Deprecate::parse(params, false)?)
            }
            "EnableImageDeprecation" => Call::EnableImageDeprecation(images::Deprecate::parse(params, true)?),
            "ModifyInstanceAttribute" => {
                Call::ModifyInstanceAttribute(instance_attribute::Modify::parse(params)?)
            }
            _ => return Err(invalid(action)),
        })
    }

    /// What the caller must be allowed to do.
    pub fn needs(&self, world: &World) -> Vec<Need> {
        match self {
            Call::CopyImage(call) => call.needs(world),
            Call::AttachVolume(call) => call.needs(world),
            Call::CreateReplaceRootVolumeTask(call) => call.needs(world),
            Call::CopyVolumes(call) => call.needs(world),
            Call::CopySnapshot(call) => call.needs(world),
            Call::CreateSnapshot(call) => call.needs(world),
            Call::CreateSnapshots(call) => call.needs(world),
            Call::CreateTags(call) => call.needs(world),
            Call::CreateVolume(call) => call.needs(world),
            Call::DeleteSnapshot(call) => call.needs(world),
            Call::DeleteTags(call) => call.needs(world),
            Call::DeleteVolume(call) => call.needs(world),
            Call::DeregisterImage(call) => call.needs(world),
            Call::DescribeImageAttribute(call) => call.needs(world),
            Call::DescribeInstanceAttribute(call) => call.needs(world),
            Call::DescribeImages(_) => vec![Need::on_all("ec2:DescribeImages")],
            Call::DescribeInstanceTypes(_) => vec![Need::on_all("ec2:DescribeInstanceTypes")],
            Call::DescribeInstances(_) => vec![Need::on_all("ec2:DescribeInstances")],
            Call::DescribeLockedSnapshots(_) => vec![Need::on_all("ec2:DescribeLockedSnapshots")],
            Call::DescribeReplaceRootVolumeTasks(_) => {
                vec![Need::on_all("ec2:DescribeReplaceRootVolumeTasks")]
            }
            Call::DescribeRegions(_) => vec![Need::on_all("ec2:DescribeRegions")],
            Call::DescribeSnapshotAttribute(call) => call.needs(world),
            Call::DescribeSnapshotTierStatus(_) => vec![Need::on_all("ec2:DescribeSnapshotTierStatus")],
            Call::DescribeSnapshots(_) => vec![Need::on_all("ec2:DescribeSnapshots")],
            Call::DescribeVolumeStatus(_) => vec![Need::on_all("ec2:DescribeVolumeStatus")],
            Call::DescribeTags(_) => vec![Need::on_all("ec2:DescribeTags")],
            Call::DescribeVolumes(_) => vec![Need::on_all("ec2:DescribeVolumes")],
            Call::DetachVolume(call) => call.needs(world),
            Call::DisableImageDeprecation(call) => call.needs(world),
            Call::DisableImage(call) => call.needs(world),
            Call::DisableImageBlockPublicAccess(_) => vec![Need::on_all("ec2:DisableImageBlockPublicAccess")],
            Call::DisableSnapshotBlockPublicAccess(_) => {
                vec![Need::on_all("ec2:DisableSnapshotBlockPublicAccess")]
            }
            Call::EnableImageDeprecation(call) => call.needs(world),
            Call::EnableImage(call) => call.needs(world),
            Call::EnableImageBlockPublicAccess(_) => vec![Need::on_all("ec2:EnableImageBlockPublicAccess")],
            Call::EnableSnapshotBlockPublicAccess(_) => {
                vec![Need::on_all("ec2:EnableSnapshotBlockPublicAccess")]
            }
            Call::GetEbsDefaultKmsKeyId(_) => vec![Need::on_all("ec2:GetEbsDefaultKmsKeyId")],
            Call::GetEbsEncryptionByDefault(_) => vec![Need::on_all("ec2:GetEbsEncryptionByDefault")],
            Call::GetInstanceUefiData(call) => call.needs(world),
            Call::GetImageBlockPublicAccessState(_) => {
                vec![Need::on_all("ec2:GetImageBlockPublicAccessState")]
            }
            Call::GetSnapshotBlockPublicAccessState(_) => {
                vec![Need::on_all("ec2:GetSnapshotBlockPublicAccessState")]
            }
            Call::ListSnapshotsInRecycleBin(_) => vec![Need::on_all("ec2:ListSnapshotsInRecycleBin")],
            Call::LockSnapshot(call) => call.needs(world),
            Call::ModifyInstanceAttribute(call) => call.needs(world),
            Call::ModifyImageAttribute(call) => call.needs(world),
            Call::ModifySnapshotAttribute(call) => call.needs(world),
            Call::ModifySnapshotTier(call) => call.needs(world),
            Call::RegisterImage(call) => call.needs(world),
            Call::ResetSnapshotAttribute(call) => call.needs(world),
            Call::RestoreSnapshotFromRecycleBin(call) => call.needs(world),
            Call::RestoreSnapshotTier(call) => call.needs(world),
            Call::RunInstances(call) => call.needs(world),
            Call::TerminateInstances(call) => call.needs(world),
            Call::UnlockSnapshot(call) => call.needs(world),
        }
    }

    /// Does it, and gives the response body.
    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        match self {
            Call::CopyImage(call) => call.act(context, faults).await,
            Call::AttachVolume(call) => call.act(context),
            Call::CreateReplaceRootVolumeTask(call) => call.act(context, faults).await,
            Call::CopyVolumes(call) => call.act(context, faults).await,
            Call::CopySnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshots(call) => call.act(context, faults).await,
            Call::CreateTags(call) => call.act(context, faults),
            Call::CreateVolume(call) => call.act(context, faults).await,
            Call::DeleteSnapshot(call) => call.act(context, faults).await,
            Call::DeleteTags(call) => call.act(context, faults),
            Call::DeleteVolume(call) => call.act(context),
            Call::DeregisterImage(call) => call.act(context).await,
            Call::DescribeImageAttribute(call) => call.act(context),
            Call::DescribeInstanceAttribute(call) => call.act(context),
            Call::DescribeImages(call) => call.act(context),
            Call::DescribeInstanceTypes(call) => call.act(context),
            Call::DescribeInstances(call) => call.act(context),
            Call::DescribeLockedSnapshots(call) => call.act(context),
            Call::DescribeReplaceRootVolumeTasks(call) => call.act(context),
            Call::DescribeRegions(call) => call.act(context),
            Call::DescribeSnapshotAttribute(call) => call.act(context),
            Call::DescribeSnapshotTierStatus(call) => call.act(context),
            Call::DescribeSnapshots(call) => call.act(context),
            Call::DescribeVolumeStatus(call) => call.act(context),
            Call::DescribeTags(call) => call.act(context),
            Call::DescribeVolumes(call) => call.act(context),
            Call::DetachVolume(call) => call.act(context),
            Call::DisableImageDeprecation(call) => call.act(context),
            Call::DisableImage(call) => call.act(context),
            Call::DisableImageBlockPublicAccess(call) => Ok(call.act(context)),
            Call::DisableSnapshotBlockPublicAccess(call) => Ok(call.act(context)),
            Call::EnableImageDeprecation(call) => call.act(context),
            Call::EnableImage(call) => call.act(context),
            Call::EnableImageBlockPublicAccess(call) => Ok(call.act(context)),
            Call::EnableSnapshotBlockPublicAccess(call) => Ok(call.act(context)),
            Call::GetEbsDefaultKmsKeyId(call) => Ok(call.act(context)),
            Call::GetEbsEncryptionByDefault(call) => Ok(call.act(context)),
            Call::GetInstanceUefiData(call) => call.act(context),
            Call::GetImageBlockPublicAccessState(call) => Ok(call.act(context)),
            Call::GetSnapshotBlockPublicAccessState(call) => Ok(call.act(context)),
            Call::ListSnapshotsInRecycleBin(call) => call.act(context),
            Call::LockSnapshot(call) => call.act(context),
            Call::ModifyInstanceAttribute(call) => call.act(context),
            Call::ModifyImageAttribute(call) => call.act(context),
            Call::ModifySnapshotAttribute(call) => call.act(context),
            Call::ModifySnapshotTier(call) => call.act(context),
            Call::RegisterImage(call) => call.act(context, faults),
            Call::ResetSnapshotAttribute(call) => call.act(context),
            Call::RestoreSnapshotFromRecycleBin(call) => call.act(context),
            Call::RestoreSnapshotTier(call) => call.act(context),
            Call::RunInstances(call) => call.act(context, faults).await,
            Call::TerminateInstances(call) => call.act(context),
            Call::UnlockSnapshot(call) => call.act(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    /// Each action with the least that it takes.
    const LEAST: &[(&str, &str)] = &[
        ("AttachVolume", "VolumeId=vol-0123456789abcdef0&InstanceId=i-0123456789abcdef0&Device=/dev/sdf"),
        ("CopyImage", "Name=abc&SourceRegion=us-east-1&SourceImageId=ami-0123456789abcdef0"),
        ("CopySnapshot", "SourceRegion=us-east-1&SourceSnapshotId=snap-0123456789abcdef0"),
        ("CopyVolumes", "SourceVolumeId=vol-0123456789abcdef0"),
        ("CreateReplaceRootVolumeTask", "InstanceId=i-0123456789abcdef0"),
        ("CreateSnapshot", "VolumeId=vol-0123456789abcdef0"),
        ("CreateSnapshots", "InstanceSpecification.InstanceId=i-0123456789abcdef0"),
        ("CreateTags", "ResourceId.1=snap-0123456789abcdef0&Tag.1.Key=k"),
        ("CreateVolume", "AvailabilityZone=us-east-1a&Size=1"),
        ("DeleteSnapshot", "SnapshotId=snap-0123456789abcdef0"),
        ("DeleteTags", "ResourceId.1=snap-0123456789abcdef0"),
        ("DeleteVolume", "VolumeId=vol-0123456789abcdef0"),
        ("DeregisterImage", "ImageId=ami-0123456789abcdef0"),
        ("DescribeImageAttribute", "ImageId=ami-0123456789abcdef0&Attribute=description"),
        ("DescribeImages", ""),
        ("DescribeInstanceAttribute", "InstanceId=i-0123456789abcdef0&Attribute=instanceType"),
        ("DescribeInstanceTypes", ""),
        ("DescribeInstances", ""),
        ("DescribeLockedSnapshots", ""),
        ("DescribeRegions", ""),
        ("DescribeReplaceRootVolumeTasks", ""),
        ("DescribeSnapshotAttribute", "SnapshotId=snap-0123456789abcdef0&Attribute=productCodes"),
        ("DescribeSnapshotTierStatus", ""),
        ("DescribeSnapshots", ""),
        ("DescribeTags", ""),
        ("DescribeVolumeStatus", ""),
        ("DescribeVolumes", ""),
        ("DetachVolume", "VolumeId=vol-0123456789abcdef0"),
        ("DisableImage", "ImageId=ami-0123456789abcdef0"),
        ("DisableImageBlockPublicAccess", ""),
        ("DisableImageDeprecation", "ImageId=ami-0123456789abcdef0"),
        ("DisableSnapshotBlockPublicAccess", ""),
        ("EnableImage", "ImageId=ami-0123456789abcdef0"),
        ("EnableImageBlockPublicAccess", "ImageBlockPublicAccessState=block-new-sharing"),
        ("EnableImageDeprecation", "ImageId=ami-0123456789abcdef0&DeprecateAt=2030-01-01T00:00:00Z"),
        ("EnableSnapshotBlockPublicAccess", "State=block-new-sharing"),
        ("GetEbsDefaultKmsKeyId", ""),
        ("GetEbsEncryptionByDefault", ""),
        ("GetImageBlockPublicAccessState", ""),
        ("GetInstanceUefiData", "InstanceId=i-0123456789abcdef0"),
        ("GetSnapshotBlockPublicAccessState", ""),
        ("ListSnapshotsInRecycleBin", ""),
        ("LockSnapshot", "SnapshotId=snap-0123456789abcdef0&LockMode=governance&LockDuration=1"),
        ("ModifyImageAttribute", "ImageId=ami-0123456789abcdef0&Description.Value=x"),
        (
            "ModifyInstanceAttribute",
            "InstanceId=i-0123456789abcdef0&BlockDeviceMapping.1.DeviceName=/dev/sdf&BlockDeviceMapping.1.Ebs.DeleteOnTermination=true",
        ),
        ("ModifySnapshotAttribute", "SnapshotId=snap-0123456789abcdef0&OperationType=add&UserGroup.1=all"),
        ("ModifySnapshotTier", "SnapshotId=snap-0123456789abcdef0&StorageTier=archive"),
        ("RegisterImage", "Name=abc&RootDeviceName=/dev/xvda"),
        ("ResetSnapshotAttribute", "SnapshotId=snap-0123456789abcdef0&Attribute=createVolumePermission"),
        ("RestoreSnapshotFromRecycleBin", "SnapshotId=snap-0123456789abcdef0"),
        ("RestoreSnapshotTier", "SnapshotId=snap-0123456789abcdef0&PermanentRestore=true"),
        ("RunInstances", "ImageId=ami-0123456789abcdef0&MinCount=1&MaxCount=1&InstanceType=m6i.large"),
        ("TerminateInstances", "InstanceId.1=i-0123456789abcdef0"),
        ("UnlockSnapshot", "SnapshotId=snap-0123456789abcdef0"),
    ];

    #[test]
    fn every_action_needs_its_own_permission_and_refuses_what_it_does_not_know() {
        assert!(LEAST.iter().map(|(action, _)| *action).eq(ACTIONS.iter().copied()));
        let world = World::new(&Scenario::default(), &[], jiff::Timestamp::UNIX_EPOCH);
        for (action, form) in LEAST {
            let mut params = Params::parse(&[form.as_bytes(), b"Colour=red"]);
            let call = Call::parse(action, &mut params).map_err(|error| error.to_string()).expect(action);
            let left = params.finish().expect_err("the colour");
            assert_eq!(left.message, "The parameter Colour is not recognized", "{action}");
            let needs = call.needs(&world);
            let own = format!("ec2:{action}");
            assert!(needs.iter().any(|need| need.action() == own), "{action} needs {needs:?}");
        }
        let unknown = Call::parse("MakeCoffee", &mut Params::default()).err().map(|error| error.code);
        assert_eq!(unknown.as_deref(), Some("InvalidAction"));
    }
}
