//! The actions that are known, each with its parameters.
//!
//! In: an action's name and the form. Out: a typed call that says which permissions it needs and then acts.
//! An action must never be half known: what is not here is answered with InvalidAction.

use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{Context, create, instances, snapshots, tags, volumes};
use crate::faults::Fault;
use crate::world::World;

/// Every action; nothing else is parsed.
pub const ACTIONS: &[&str] = &[
    "CreateSnapshot",
    "CreateSnapshots",
    "CreateTags",
    "DeleteSnapshot",
    "DeleteTags",
    "DescribeInstances",
    "DescribeSnapshots",
    "DescribeTags",
    "DescribeVolumes",
];

fn invalid(action: &str) -> Ec2Error {
    Ec2Error::new("InvalidAction", format!("The action {action} is not valid for this web service."))
}

/// One call.
pub enum Call {
    CreateSnapshot(create::One),
    CreateSnapshots(create::Set),
    CreateTags(tags::Create),
    AttachVolume(volumes::Attach),
    CreateVolume(Box<volumes::Create>),
    DeleteVolume(volumes::Delete),
    DetachVolume(volumes::Detach),
    DeleteSnapshot(snapshots::Delete),
    DeleteTags(tags::Delete),
    DescribeInstances(instances::Describe),
    DescribeSnapshots(snapshots::Describe),
    DescribeTags(tags::Describe),
    DescribeVolumes(volumes::Describe),
}

impl Call {
    /// Reads the parameters of `action`.
    pub fn parse(action: &str, params: &mut Params) -> Result<Self, Ec2Error> {
        if !ACTIONS.contains(&action) {
            return Err(invalid(action));
        }
        Ok(match action {
            "CreateSnapshot" => Call::CreateSnapshot(create::One::parse(params)?),
            "CreateSnapshots" => Call::CreateSnapshots(create::Set::parse(params)?),
            "AttachVolume" => Call::AttachVolume(volumes::Attach::parse(params)?),
            "CreateVolume" => Call::CreateVolume(Box::new(volumes::Create::parse(params)?)),
            "DeleteVolume" => Call::DeleteVolume(volumes::Delete::parse(params)?),
            "DetachVolume" => Call::DetachVolume(volumes::Detach::parse(params)?),
            "CreateTags" => Call::CreateTags(tags::Create::parse(params)?),
            "DeleteSnapshot" => Call::DeleteSnapshot(snapshots::Delete::parse(params)?),
            "DeleteTags" => Call::DeleteTags(tags::Delete::parse(params)?),
            "DescribeInstances" => Call::DescribeInstances(instances::Describe::parse(params)?),
            "DescribeSnapshots" => Call::DescribeSnapshots(snapshots::Describe::parse(params)?),
            "DescribeTags" => Call::DescribeTags(tags::Describe::parse(params)?),
            "DescribeVolumes" => Call::DescribeVolumes(volumes::Describe::parse(params)?),
            _ => return Err(invalid(action)),
        })
    }

    /// What the caller must be allowed to do.
    pub fn needs(&self, world: &World) -> Vec<Need> {
        match self {
            Call::CreateSnapshot(call) => call.needs(world),
            Call::CreateSnapshots(call) => call.needs(world),
            Call::AttachVolume(call) => call.needs(world),
            Call::CreateVolume(call) => call.needs(world),
            Call::DeleteVolume(call) => call.needs(world),
            Call::DetachVolume(call) => call.needs(world),
            Call::CreateTags(call) => call.needs(world),
            Call::DeleteSnapshot(call) => call.needs(world),
            Call::DeleteTags(call) => call.needs(world),
            Call::DescribeInstances(_) => vec![Need::on_all("ec2:DescribeInstances")],
            Call::DescribeSnapshots(_) => vec![Need::on_all("ec2:DescribeSnapshots")],
            Call::DescribeTags(_) => vec![Need::on_all("ec2:DescribeTags")],
            Call::DescribeVolumes(_) => vec![Need::on_all("ec2:DescribeVolumes")],
        }
    }

    /// Does it, and gives the response body.
    pub async fn act(self, context: &Context, faults: &[Fault]) -> Result<String, Ec2Error> {
        match self {
            Call::CreateSnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshots(call) => call.act(context, faults).await,
            Call::AttachVolume(call) => call.act(context),
            Call::CreateVolume(call) => call.act(context).await,
            Call::DeleteVolume(call) => call.act(context),
            Call::DetachVolume(call) => call.act(context),
            Call::CreateTags(call) => call.act(context),
            Call::DeleteSnapshot(call) => call.act(context).await,
            Call::DeleteTags(call) => call.act(context),
            Call::DescribeInstances(call) => call.act(context),
            Call::DescribeSnapshots(call) => call.act(context),
            Call::DescribeTags(call) => call.act(context),
            Call::DescribeVolumes(call) => call.act(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_the_list_is_parsed() {
        for action in ACTIONS {
            // Most miss parameters; none may be unknown.
            let code = Call::parse(action, &mut Params::default()).err().map(|error| error.code);
            assert_ne!(code.as_deref(), Some("InvalidAction"), "{action}");
        }
        assert!(Call::parse("RunInstances", &mut Params::default()).is_err());
    }
}
