//! The actions that are known, each with its parameters.
//!
//! In: an action's name and the form. Out: a typed call that says which permissions it needs and then acts.
//! An action must never be half known: what is not here is answered with InvalidAction.

use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::{Context, create, instances, snapshots, tags, volumes};
use crate::faults::Hit;
use crate::world::World;

/// One call.
pub enum Call {
    CreateSnapshot(create::One),
    CreateSnapshots(create::Set),
    CreateTags(tags::Create),
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
        Ok(match action {
            "CreateSnapshot" => Call::CreateSnapshot(create::One::parse(params)?),
            "CreateSnapshots" => Call::CreateSnapshots(create::Set::parse(params)?),
            "CreateTags" => Call::CreateTags(tags::Create::parse(params)?),
            "DeleteSnapshot" => Call::DeleteSnapshot(snapshots::Delete::parse(params)?),
            "DeleteTags" => Call::DeleteTags(tags::Delete::parse(params)?),
            "DescribeInstances" => Call::DescribeInstances(instances::Describe::parse(params)?),
            "DescribeSnapshots" => Call::DescribeSnapshots(snapshots::Describe::parse(params)?),
            "DescribeTags" => Call::DescribeTags(tags::Describe::parse(params)?),
            "DescribeVolumes" => Call::DescribeVolumes(volumes::Describe::parse(params)?),
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
            Call::CreateSnapshot(call) => call.needs(world),
            Call::CreateSnapshots(call) => call.needs(world),
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
    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        match self {
            Call::CreateSnapshot(call) => call.act(context, faults).await,
            Call::CreateSnapshots(call) => call.act(context, faults).await,
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
