//! Instances: DescribeInstances, RunInstances, TerminateInstances.
//!
//! In: the scenario's instance, and those that were launched beside it. Out: each of them as a [`Machine`], which every
//! action on instances goes by. An instance of another Region must never be found.

mod describe;
mod mapping;
mod run;
mod terminate;

use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::error::Ec2Error;
use super::types;
use crate::ids::{ImageId, InstanceId};
use crate::scenario::VolumeKind;
use crate::world::{Attachment, INTERFACE, InstanceState, Launch, MAC, Volume, World, dns_name};

pub use describe::{Describe, write_mapping};
pub use run::Run;
pub use terminate::Terminate;

/// An instance, as EC2 shows it.
pub struct Machine<'a> {
    pub world: &'a World,
    pub id: &'a InstanceId,
    /// How it was launched; none of the scenario's.
    pub launch: Option<&'a Launch>,
    pub image_id: ImageId,
    /// `m6i.large`
    pub kind: String,
    pub zone: String,
    pub launched: Timestamp,
    pub reservation: &'a str,
    pub index: usize,
    pub ip: Ipv4Addr,
    pub architecture: String,
    pub root_device_name: String,
    /// What its image asks for.
    pub boot_mode: Option<String>,
    pub current_boot_mode: String,
    pub tpm: Option<String>,
    pub sriov: Option<String>,
    /// ENA, as all of Nitro's have.
    pub ena: bool,
    /// PlatformDetails and UsageOperation.
    pub billing: (String, String),
    pub state: InstanceState,
    /// Why it is in that state, where EC2 says so.
    pub reason: Option<(String, String)>,
}

/// An instance that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"))
}

/// All instances of a Region that EC2 shows, the scenario's first.
pub fn all<'a>(world: &'a World, region: &str, now: Timestamp) -> impl Iterator<Item = Machine<'a>> {
    let own = (region == world.home()).then(|| Machine::of_scenario(world));
    let shown: Vec<&Launch> =
        world.launches.iter().filter(|launch| launch.region() == region && launch.is_shown(now)).collect();
    own.into_iter().chain(shown.into_iter().map(|launch| Machine::of_launch(world, launch)))
}

/// An instance of this Region.
pub fn find<'a>(world: &'a World, region: &str, id: &InstanceId) -> Result<Machine<'a>, Ec2Error> {
    if id == world.instance_id() && region == world.home() {
        return Ok(Machine::of_scenario(world));
    }
    let launch = world.launch(region, id).ok_or_else(|| not_found(id.as_str()))?;
    Ok(Machine::of_launch(world, launch))
}

impl<'a> Machine<'a> {
    fn of_scenario(world: &'a World) -> Self {
        let instance = &world.scenario.instance;
        Self {
            world,
            id: world.instance_id(),
            launch: None,
            image_id: ImageId::parse(&instance.image_id).unwrap_or_else(ImageId::random),
            kind: instance.instance_type.clone(),
            zone: instance.zone(),
            launched: world.launched,
            reservation: &world.reservation_id,
            index: 0,
            ip: instance.private_ip,
            architecture: instance.architecture.clone(),
            root_device_name: world.root_device_name(),
            boot_mode: Some(instance.boot_mode()),
            current_boot_mode: instance.current_boot_mode.clone(),
            tpm: instance.tpm.clone(),
            sriov: instance.sriov.clone(),
            ena: !world.ebs().any(|volume| volume.kind == VolumeKind::Xen),
            billing: (instance.platform_details.clone(), instance.usage_operation.clone()),
            state: InstanceState::Running,
            reason: None,
        }
    }

    fn of_launch(world: &'a World, launch: &'a Launch) -> Self {
        let image = &launch.image;
        let pending = ("pending".to_owned(), "pending".to_owned());
        Self {
            world,
            id: &launch.id,
            launch: Some(launch),
            image_id: image.id.clone(),
            kind: launch.kind.clone(),
            zone: launch.zone.clone(),
            launched: launch.at,
            reservation: &launch.reservation,
            index: launch.index,
            ip: launch.private_ip(world.scenario.instance.private_ip),
            architecture: image.architecture.clone(),
            root_device_name: image.root_device_name.clone(),
            boot_mode: image.boot_mode.clone(),
            current_boot_mode: launch.current_boot_mode().to_owned(),
            tpm: image.tpm.clone(),
            sriov: image.sriov.clone(),
            ena: image.ena,
            billing: image.billing.clone(),
            state: launch.state,
            reason: match launch.state {
                InstanceState::Pending => Some(pending),
                _ => launch.reason.clone(),
            },
        }
    }

    /// Its volumes, with their attachments.
    pub fn attachments(&self) -> impl Iterator<Item = (&'a Volume, &'a Attachment)> {
        self.world.attached_to(self.id).filter_map(|volume| Some((volume, volume.attachment.as_ref()?)))
    }

    /// Passes when it runs.
    pub fn check_running(&self) -> Result<(), Ec2Error> {
        match self.state {
            InstanceState::Running => Ok(()),
            state => Err(Ec2Error::new(
                "IncorrectState",
                format!("Instance '{}' is not 'running': it is '{}'.", self.id, state.name()),
            )),
        }
    }

    /// How many volumes can be attached to it.
    pub fn most_attachments(&self) -> Option<usize> {
        let stored = self.world.volumes.iter().filter(|volume| !volume.is_ebs()).count();
        types::attachments(self.world, &self.kind, if self.launch.is_some() { 0 } else { stored })
    }

    /// Whether it has its network interface still.
    pub fn has_network(&self) -> bool {
        self.state != InstanceState::Terminated
    }

    pub fn dns(&self) -> String {
        let region = self.launch.map_or(self.world.home(), Launch::region);
        dns_name(region, self.ip)
    }

    /// The id of its network interface.
    pub fn interface(&self) -> String {
        // Another digit at the end for each.
        match self.launch {
            None => INTERFACE.to_owned(),
            Some(launch) => format!("{}{:02x}", &INTERFACE[..INTERFACE.len() - 2], launch.number),
        }
    }

    pub fn mac(&self) -> String {
        match self.launch {
            None => MAC.to_owned(),
            Some(launch) => format!("{}:{:02x}", &MAC[..MAC.len() - 3], launch.number),
        }
    }

    pub fn client_token(&self) -> &'a str {
        self.launch.and_then(|launch| launch.token.as_ref()).map_or("", |(token, _)| token)
    }

    /// Whether the metadata service wants a token of those in it.
    pub fn tokens(&self) -> &'static str {
        match self.launch {
            Some(launch) if launch.image.imds.is_none() => "optional",
            _ => "required",
        }
    }

    /// What EC2 says of its last change of state, where somebody asked for it.
    pub fn transition(&self) -> String {
        let ended = self.launch.and_then(|launch| launch.ended);
        ended
            .map(|at| format!("User initiated ({})", at.strftime("%Y-%m-%d %H:%M:%S GMT")))
            .unwrap_or_default()
    }
}
