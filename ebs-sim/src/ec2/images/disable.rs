//! DisableImage, EnableImage.
//!
//! In: an image of this account. Out: whether anything can be launched from it. A disabled image must go on keeping
//! its snapshots.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::{own, parse_id};
use crate::ids::ImageId;
use crate::world::World;

pub struct Disable {
    id: ImageId,
    disable: bool,
}

impl Disable {
    /// Reads either action.
    pub fn parse(params: &mut Params, disable: bool) -> Result<Self, Ec2Error> {
        Ok(Self { id: parse_id(&params.required("ImageId")?)?, disable })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = if self.disable { "ec2:DisableImage" } else { "ec2:EnableImage" };
        vec![Need::on(action, world, &format!("image/{}", self.id))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        own(&world, context.region(), &self.id)?;
        if let Some(image) = world.images.get_mut(&self.id) {
            image.disabled = self.disable;
            if self.disable {
                // Nobody else sees it any more, and enabling it does not bring that back.
                image.shared = crate::world::Sharing::default();
            }
        }
        Ok(context.done())
    }
}
