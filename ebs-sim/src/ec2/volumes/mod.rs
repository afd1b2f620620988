//! Volumes: DescribeVolumes, DescribeVolumeStatus, CreateVolume, CopyVolumes, AttachVolume, DetachVolume,
//! DeleteVolume.
//!
//! In: requests. Out: volumes as they are, and what was asked for under way. What takes time is done by
//! `lifecycle`: an action must never wait for it.

mod attach;
mod copy;
mod create;
mod describe;
mod status;
mod wanted;
mod zone;

use super::error::Ec2Error;
use super::xml::Xml;
use crate::ids::VolumeId;
use crate::world::{Stage, Volume, World};

pub use attach::{Attach, Delete, Detach, parse_instance};
pub use copy::Copy;
pub use create::Create;
pub use describe::Describe;
pub use status::Status;
pub use wanted::{Token, Type, check_rate, initialization_rate, mismatch, origin_of, strike};
pub use zone::id as zone_id;
pub use zone::names as zones;

/// A volume that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
}

/// A volume that is in no state for what is asked.
pub fn incorrect_state(volume: &Volume) -> Ec2Error {
    Ec2Error::new(
        "IncorrectState",
        format!("The volume '{}' is in the '{}' state.", volume.id, volume.status()),
    )
}

/// That no service manages a resource, as was recorded of EC2.
pub fn write_operator(xml: &mut Xml) {
    xml.node("operator", |xml| {
        xml.text("managed", false);
        xml.text("hiddenByDefault", false);
    });
}

/// The id in `text`.
pub fn parse_id(text: &str) -> Result<VolumeId, Ec2Error> {
    VolumeId::parse(text).ok_or_else(|| {
        Ec2Error::new("InvalidVolumeID.Malformed", format!("Invalid id: \"{text}\" (expecting \"vol-...\")"))
    })
}

/// A volume of this Region. One that is being deleted can be looked at, but nothing can be done with it.
pub fn find<'a>(world: &'a World, region: &str, id: &str) -> Result<&'a Volume, Ec2Error> {
    world.volume(region, id).filter(|volume| volume.stage != Stage::Deleting).ok_or_else(|| not_found(id))
}

/// The ARN that encrypted volumes and snapshots name.
pub fn kms_key(world: &World) -> String {
    key_arn(world, world.home(), "00000000-0000-4000-8000-000000000000")
}

fn key_arn(world: &World, region: &str, id: &str) -> String {
    format!("arn:aws:kms:{region}:{}:key/{id}", world.scenario.instance.account_id)
}
