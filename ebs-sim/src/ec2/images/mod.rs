//! AMIs: RegisterImage, DescribeImages, DeregisterImage, and the UEFI data that goes into one.
//!
//! In: snapshots of a Region. Out: images of that Region. An image of another Region must never be found.

mod deregister;
mod describe;
mod mapping;
mod register;
mod uefi;

pub use deregister::Deregister;
pub use describe::Describe;
pub use register::Register;
pub use uefi::Uefi;

use super::error::Ec2Error;
use crate::ids::ImageId;

/// An image that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
}

/// The id in a request.
fn parse_id(id: &str) -> Result<ImageId, Ec2Error> {
    ImageId::parse(id).ok_or_else(|| {
        Ec2Error::new("InvalidAMIID.Malformed", format!("Invalid id: \"{id}\" (expecting \"ami-...\")"))
    })
}
