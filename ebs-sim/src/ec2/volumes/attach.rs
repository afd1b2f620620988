//! AttachVolume, DetachVolume and DeleteVolume.
//!
//! In: a volume and a state to bring it to. Out: the state on the way there. An attachment must never begin
//! or end without its device: `lifecycle` sees to that.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::instances;
use super::super::params::Params;
use super::describe::write_attachment;
use super::{find, incorrect_state, parse_id};
use crate::ids::{InstanceId, VolumeId};
use crate::lifecycle;
use crate::world::{Attachment, AttachmentState, Stage, Volume, World, attachment_point};

/// AttachVolume.
pub struct Attach {
    volume: VolumeId,
    instance: InstanceId,
    device: String,
}

impl Attach {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let volume = parse_id(&params.required("VolumeId")?)?;
        let instance = parse_instance(&params.required("InstanceId")?)?;
        let device = params.required("Device")?;
        if params.number::<u32>("EbsCardIndex")?.is_some_and(|card| card != 0) {
            return Err(Ec2Error::invalid_value("The instance type has one EBS card, which is number 0"));
        }
        Ok(Self { volume, instance, device })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        both("ec2:AttachVolume", world, &self.volume, Some(&self.instance))
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        self.check(&world, context.region())?;
        let launched = Some(self.instance.clone()).filter(|id| id != world.instance_id());
        let Some(volume) = world.volume_mut(&self.volume) else { return Err(Ec2Error::internal()) };
        volume.device_name.clone_from(&self.device);
        volume.attachment = Some(Attachment {
            since: context.now,
            state: AttachmentState::Attaching,
            delete_on_termination: false,
            instance: launched,
        });
        let volume = volume.clone();
        lifecycle::resume(&context.sim, &volume);
        Ok(answer(context, &world, &volume))
    }

    fn check(&self, world: &World, region: &str) -> Result<(), Ec2Error> {
        let volume = find(world, region, self.volume.as_str())?;
        let machine = instances::find(world, region, &self.instance)?;
        machine.check_running()?;
        if volume.attachment.is_some() {
            return Err(Ec2Error::new(
                "VolumeInUse",
                format!("{} is already attached to an instance", volume.id),
            ));
        }
        if volume.stage != Stage::Ready {
            return Err(Ec2Error::new("IncorrectState", format!("{} is not 'available'.", volume.id)));
        }
        if volume.zone != machine.zone {
            return Err(Ec2Error::new(
                "InvalidVolume.ZoneMismatch",
                format!(
                    "The volume '{}' is not in the same availability zone as instance '{}'",
                    volume.id, self.instance
                ),
            ));
        }
        let attached = world.attached_to(&self.instance).count();
        if machine.most_attachments().is_some_and(|most| attached >= most) {
            return Err(Ec2Error::new(
                "AttachmentLimitExceeded",
                format!(
                    "The maximum number of attachments of instance '{}' is reached: {attached}",
                    self.instance
                ),
            ));
        }
        check_device(&self.device)?;
        let point = attachment_point(&self.device);
        let root = machine.root_device_name.clone();
        let there =
            |volume: &&Volume| volume.attachment.is_some() && *world.instance_of(volume) == self.instance;
        let taken = std::iter::once(root.as_str())
            // Also of instance-store disks: they are in the launch's mapping.
            .chain(world.volumes.iter().filter(there).map(|v| v.device_name.as_str()))
            .any(|name| attachment_point(name) == point);
        if taken {
            return Err(Ec2Error::invalid_value(format!(
                "Invalid value '{0}' for unixDevice. Attachment point {0} is already in use",
                self.device
            )));
        }
        Ok(())
    }
}

/// `/dev/sdf`, `sda1`, `/dev/xvdba`.
fn check_device(name: &str) -> Result<(), Ec2Error> {
    let bare = name.strip_prefix("/dev/").unwrap_or(name);
    let (most, rest) = match bare.strip_prefix("xvd") {
        Some(rest) => (2, Some(rest)),
        None => (1, bare.strip_prefix("sd")),
    };
    let good = rest.is_some_and(|rest| {
        let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &rest[letters.len()..];
        (1..=most).contains(&letters.len())
            && letters.bytes().all(|b| b.is_ascii_lowercase())
            && digits.len() <= 2
            && !digits.starts_with('0')
    });
    if good {
        return Ok(());
    }
    Err(Ec2Error::invalid_value(format!(
        "Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name."
    )))
}

/// DetachVolume.
pub struct Detach {
    volume: VolumeId,
    instance: Option<InstanceId>,
    device: Option<String>,
}

impl Detach {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let volume = parse_id(&params.required("VolumeId")?)?;
        let instance = params.text("InstanceId").map(|id| parse_instance(&id)).transpose()?;
        // Nothing can pull a device from under its user here.
        params.flag("Force")?;
        Ok(Self { volume, instance, device: params.text("Device") })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        both("ec2:DetachVolume", world, &self.volume, self.instance.as_ref())
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        let begins = self.check(&world, context.region())?;
        let Some(volume) = world.volume_mut(&self.volume) else { return Err(Ec2Error::internal()) };
        if begins && let Some(attachment) = &mut volume.attachment {
            attachment.state = AttachmentState::Detaching;
        }
        let volume = volume.clone();
        if begins {
            lifecycle::resume(&context.sim, &volume);
        }
        Ok(answer(context, &world, &volume))
    }

    /// Whether it can be detached: false when it is on its way already.
    fn check(&self, world: &World, region: &str) -> Result<bool, Ec2Error> {
        let volume = find(world, region, self.volume.as_str())?;
        let Some(attachment) = &volume.attachment else {
            return Err(incorrect_state(volume));
        };
        let instance = world.instance_of(volume);
        if self.instance.as_ref().is_some_and(|named| named != instance)
            || self.device.as_ref().is_some_and(|named| *named != volume.device_name)
        {
            let named = self.instance.as_ref().unwrap_or(instance);
            let device = self.device.as_ref().map(|name| format!(" as '{name}'")).unwrap_or_default();
            return Err(Ec2Error::new(
                "InvalidAttachment.NotFound",
                format!("The volume '{}' is not attached to instance '{named}'{device}.", volume.id),
            ));
        }
        if world.is_root(volume) {
            return Err(Ec2Error::new(
                "OperationNotPermitted",
                format!("Unable to detach root volume '{}' from instance '{instance}'", volume.id),
            ));
        }
        match attachment.state {
            AttachmentState::Attaching => Err(Ec2Error::new(
                "IncorrectState",
                format!("The volume '{}' is still being attached.", volume.id),
            )),
            AttachmentState::Attached => Ok(true),
            AttachmentState::Detaching | AttachmentState::Busy => Ok(false),
        }
    }
}

/// DeleteVolume.
pub struct Delete {
    volume: VolumeId,
}

impl Delete {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self { volume: parse_id(&params.required("VolumeId")?)? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        both("ec2:DeleteVolume", world, &self.volume, None)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        let volume = find(&world, context.region(), self.volume.as_str())?;
        if volume.attachment.is_some() {
            return Err(Ec2Error::new(
                "VolumeInUse",
                format!("Volume {} is currently attached to {}", volume.id, world.instance_of(volume)),
            ));
        }
        if volume.stage == Stage::Creating {
            return Err(incorrect_state(volume));
        }
        if let Some(volume) = world.volume_mut(&self.volume) {
            volume.stage = Stage::Deleting;
            lifecycle::resume(&context.sim, volume);
        }
        Ok(context.done())
    }
}

pub fn parse_instance(id: &str) -> Result<InstanceId, Ec2Error> {
    InstanceId::parse(id).ok_or_else(|| {
        Ec2Error::new("InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\" (expecting \"i-...\")"))
    })
}

fn both(action: &'static str, world: &World, volume: &VolumeId, instance: Option<&InstanceId>) -> Vec<Need> {
    let mut needs = vec![Need::on(action, world, &format!("volume/{volume}"))];
    if let Some(instance) = instance {
        needs.push(Need::on(action, world, &format!("instance/{instance}")));
    }
    needs
}

fn answer(context: &Context, world: &World, volume: &Volume) -> String {
    context.response(|xml| {
        if let Some(attachment) = &volume.attachment {
            write_attachment(xml, world, volume, attachment);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_checked() {
        for good in ["/dev/sdf", "sdh", "/dev/sda1", "/dev/sdp15", "xvdh", "/dev/xvdba", "/dev/xvdzz"] {
            assert!(check_device(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/dev/", "/dev/sd", "/dev/sdF", "/dev/sdba", "/dev/nvme1n1", "/dev/xvdabc", "/dev/sda0", "f"]
        {
            assert_eq!(check_device(bad).expect_err(bad).code, "InvalidParameterValue");
        }
    }
}
