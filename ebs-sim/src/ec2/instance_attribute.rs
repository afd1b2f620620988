//! ModifyInstanceAttribute and DescribeInstanceAttribute.
//!
//! In: an attached volume's device name. Out: whether the volume goes with the instance. Nothing else of an
//! instance can be changed here: what is asked for and not done must be refused.

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::instances::{self, Machine};
use super::params::Params;
use super::volumes;
use super::xml::Xml;
use crate::ids::{InstanceId, VolumeId};
use crate::world::{GROUP, World};

/// ModifyInstanceAttribute.
pub struct Modify {
    instance: InstanceId,
    changes: Vec<Change>,
}

struct Change {
    device: String,
    volume: Option<VolumeId>,
    delete_on_termination: bool,
}

/// What the model has and nothing here does.
const OTHERS: &[&str] = &[
    "Attribute",
    "DisableApiStop.",
    "DisableApiTermination.",
    "EbsOptimized.",
    "EnaSupport.",
    "EnclaveOptions.",
    "GroupId.",
    "InstanceInitiatedShutdownBehavior.",
    "InstanceType.",
    "Kernel.",
    "Ramdisk.",
    "SourceDestCheck.",
    "SriovNetSupport.",
    "UserData.",
    "Value",
];

fn unsupported(name: &str) -> Ec2Error {
    Ec2Error::new("UnsupportedOperation", format!("The parameter {name} is not supported"))
}

impl Modify {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let instance = volumes::parse_instance(&params.required("InstanceId")?)?;
        if let Some(name) = OTHERS.iter().find_map(|prefix| params.first(prefix)) {
            return Err(unsupported(name));
        }
        let mut changes = Vec::new();
        for n in params.indexes("BlockDeviceMapping") {
            let prefix = format!("BlockDeviceMapping.{n}");
            for other in ["VirtualName", "NoDevice"] {
                if params.any(&format!("{prefix}.{other}")) {
                    return Err(unsupported(&format!("{prefix}.{other}")));
                }
            }
            let device = params.required(&format!("{prefix}.DeviceName"))?;
            let volume = params.text(&format!("{prefix}.Ebs.VolumeId"));
            let flag = format!("{prefix}.Ebs.DeleteOnTermination");
            changes.push(Change {
                device,
                volume: volume.map(|id| volumes::parse_id(&id)).transpose()?,
                delete_on_termination: params.maybe_flag(&flag)?.ok_or_else(|| Ec2Error::missing(&flag))?,
            });
        }
        if changes.is_empty() {
            return Err(Ec2Error::new("InvalidParameterCombination", "No attributes specified."));
        }
        Ok(Self { instance, changes })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:ModifyInstanceAttribute", world, &format!("instance/{}", self.instance))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        instances::find(&world, context.region(), &self.instance)?;
        let mut found = Vec::new();
        for change in &self.changes {
            let volume = world.attached_to(&self.instance).find(|volume| {
                volume.device_name == change.device
                    && change.volume.as_ref().is_none_or(|id| *id == volume.id)
            });
            let volume = volume.ok_or_else(|| {
                Ec2Error::new(
                    "InvalidInstanceAttributeValue",
                    format!("No device is currently mapped at {}", change.device),
                )
            })?;
            found.push((volume.id.clone(), change.delete_on_termination));
        }
        for (id, delete) in found {
            if let Some(attachment) = world.volume_mut(&id).and_then(|volume| volume.attachment.as_mut()) {
                attachment.delete_on_termination = delete;
            }
        }
        Ok(context.done())
    }
}

const ATTRIBUTES: &[&str] = &[
    "blockDeviceMapping",
    "disableApiStop",
    "disableApiTermination",
    "ebsOptimized",
    "enaSupport",
    "enclaveOptions",
    "groupSet",
    "instanceInitiatedShutdownBehavior",
    "instanceType",
    "kernel",
    "productCodes",
    "ramdisk",
    "rootDeviceName",
    "sourceDestCheck",
    "sriovNetSupport",
    "userData",
];

/// DescribeInstanceAttribute.
pub struct Describe {
    instance: InstanceId,
    attribute: String,
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let instance = volumes::parse_instance(&params.required("InstanceId")?)?;
        let attribute =
            params.choice("Attribute", ATTRIBUTES)?.ok_or_else(|| Ec2Error::missing("Attribute"))?;
        Ok(Self { instance, attribute })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:DescribeInstanceAttribute", world, &format!("instance/{}", self.instance))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let machine = instances::find(&world, context.region(), &self.instance)?;
        Ok(context.response(|xml| {
            xml.text("instanceId", &self.instance);
            self.write(xml, &machine);
        }))
    }

    fn write(&self, xml: &mut Xml, machine: &Machine<'_>) {
        let name = self.attribute.as_str();
        let ena = machine.ena.to_string();
        let value = match name {
            "blockDeviceMapping" => return instances::write_mapping(xml, machine, false),
            "groupSet" => {
                return xml.list(name, [GROUP], |xml, group| {
                    xml.text("groupId", group);
                    xml.text("groupName", "default");
                });
            }
            "enclaveOptions" => return xml.node(name, |xml| xml.text("enabled", false)),
            // The scenario's goes on for as long as the simulation does.
            "disableApiTermination" if machine.launch.is_none() => "true",
            "disableApiStop" | "disableApiTermination" => "false",
            "ebsOptimized" | "enaSupport" => &ena,
            "instanceInitiatedShutdownBehavior" => "stop",
            "instanceType" => &machine.kind,
            "rootDeviceName" => &machine.root_device_name,
            "sourceDestCheck" => "true",
            "sriovNetSupport" if machine.sriov.is_some() => machine.sriov.as_deref().unwrap_or_default(),
            // There are none.
            _ => return xml.node(name, |_| {}),
        };
        xml.node(name, |xml| xml.text("value", value));
    }
}
