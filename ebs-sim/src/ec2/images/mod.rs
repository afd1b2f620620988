//! AMIs: RegisterImage, CopyImage, DescribeImages, DeregisterImage, and the UEFI data that goes into one.
//!
//! In: snapshots of a Region. Out: images of that Region. An image of another Region must never be found.

mod attribute;
mod copy;
mod deprecate;
mod deregister;
mod describe;
mod disable;
pub mod mapping;
mod register;
mod uefi;

pub use attribute::{DescribeAttribute, ModifyAttribute};
pub use copy::Copy;
pub use deprecate::Deprecate;
pub use deregister::Deregister;
pub use describe::Describe;
pub use disable::Disable;
pub use register::Register;
pub use uefi::Uefi;

use jiff::Timestamp;

use super::error::Ec2Error;
use crate::ids::ImageId;
use crate::world::{Ami, World};

/// An image that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
}

/// An image of this Region.
fn known<'a>(world: &'a World, region: &str, id: &ImageId) -> Result<&'a Ami, Ec2Error> {
    world.image(region, id).ok_or_else(|| {
        if world.deregistered.get(id).is_some_and(|was| was == region) {
            return Ec2Error::new(
                "InvalidAMIID.Unavailable",
                format!("The image ID '{id}' is no longer available"),
            );
        }
        not_found(id.as_str())
    })
}

/// An image that an account can launch now.
pub fn to_launch<'a>(
    world: &'a World,
    region: &str,
    id: &ImageId,
    account: &str,
    now: Timestamp,
) -> Result<&'a Ami, Ec2Error> {
    let image = known(world, region, id)?;
    if !image.is_visible_to(account) {
        return Err(not_found(id.as_str()));
    }
    match image.state(now) {
        "available" => Ok(image),
        state => Err(Ec2Error::new(
            "InvalidAMIID.Unavailable",
            format!("The image ID '{id}' is not available: it is '{state}'"),
        )),
    }
}

/// An image of this Region that belongs to this account.
fn own<'a>(world: &'a World, region: &str, id: &ImageId) -> Result<&'a Ami, Ec2Error> {
    let image = known(world, region, id)?;
    if image.owner == world.scenario.instance.account_id {
        Ok(image)
    } else {
        Err(Ec2Error::new("AuthFailure", format!("Not authorized for image:{id}")))
    }
}

/// The id in a request.
pub fn parse_id(id: &str) -> Result<ImageId, Ec2Error> {
    ImageId::parse(id).ok_or_else(|| {
        Ec2Error::new("InvalidAMIID.Malformed", format!("Invalid id: \"{id}\" (expecting \"ami-...\")"))
    })
}
