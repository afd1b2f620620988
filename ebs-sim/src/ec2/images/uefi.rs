//! GetInstanceUefiData: the variables that an instance booted with.
//!
//! In: the scenario's `uefi_data`, or that of an image. Out: the same. Data must never be made up: an image that is registered
//! with it would boot with it.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::instances;
use super::super::params::Params;
use crate::ids::InstanceId;
use crate::world::World;

pub struct Uefi(InstanceId);

impl Uefi {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = params.required("InstanceId")?;
        InstanceId::parse(&id).map(Self).ok_or_else(|| {
            Ec2Error::new(
                "InvalidInstanceID.Malformed",
                format!("Invalid id: \"{id}\" (expecting \"i-...\")"),
            )
        })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:GetInstanceUefiData", world, &format!("instance/{}", self.0))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let machine = instances::find(&world, context.region(), &self.0)?;
        let data = match machine.launch {
            Some(launch) => &launch.image.uefi_data,
            None => &world.scenario.instance.uefi_data,
        };
        let Some(data) = data else {
            return Err(Ec2Error::new(
                "UnsupportedOperation",
                format!("The instance '{}' has no UEFI data", self.0),
            ));
        };
        Ok(context.response(|xml| {
            xml.text("instanceId", &self.0);
            xml.text("uefiData", data);
        }))
    }
}
