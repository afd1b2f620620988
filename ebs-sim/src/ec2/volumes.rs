//! DescribeVolumes.
//!
//! In: the account. Out: volumes and their attachments. Instance-store disks are not volumes and must never
//! appear.

use super::Context;
use super::error::Ec2Error;
use super::params::Params;
use super::query::Query;
use super::xml::{Xml, time};
use crate::world::{Volume, World};

const FILTERS: &[&str] = &[
    "attachment.attach-time",
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "create-time",
    "encrypted",
    "fast-restored",
    "multi-attach-enabled",
    "size",
    "snapshot-id",
    "status",
    "volume-id",
    "volume-type",
];

/// A volume that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidVolume.NotFound", format!("The volume '{id}' does not exist."))
}

/// The request.
pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // Nothing here is managed by a service, so it makes no difference.
        params.flag("IncludeManagedResources")?;
        Query::parse(params, "DescribeVolumes", Some("VolumeId"), FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let exists = |id: &str| world.ebs().any(|volume| volume.id.as_str() == id);
        self.0.check_ids("vol-", "InvalidVolumeID.Malformed", not_found, exists)?;
        let wanted = world
            .ebs()
            .filter(|volume| {
                let tags = world.tags_of(volume.id.as_str());
                self.0.wants(volume.id.as_str(), tags, |name| field(&world, volume, name))
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |volume: &&Volume| volume.id.to_string());
        Ok(context.response(|xml| {
            xml.list("volumeSet", page, |xml, volume| write(xml, &world, volume));
            xml.maybe("nextToken", token);
        }))
    }
}

fn field(world: &World, volume: &Volume, name: &str) -> Vec<String> {
    let attached = |value: String| if volume.attached { vec![value] } else { vec![] };
    match name {
        "attachment.attach-time" => attached(time(volume.since)),
        "attachment.delete-on-termination" => attached(volume.boot.to_string()),
        "attachment.device" => attached(volume.device_name.clone()),
        "attachment.instance-id" => attached(world.instance_id().to_string()),
        "attachment.status" => attached("attached".into()),
        "availability-zone" => vec![world.scenario.instance.zone()],
        "create-time" => vec![time(volume.since)],
        "encrypted" => vec![volume.encrypted.to_string()],
        "fast-restored" | "multi-attach-enabled" => vec!["false".into()],
        "size" => vec![volume.size_gib().to_string()],
        "status" => vec![status(volume).into()],
        "volume-id" => vec![volume.id.to_string()],
        "volume-type" => vec![volume.volume_type.clone()],
        _ => vec![],
    }
}

fn status(volume: &Volume) -> &'static str {
    if volume.attached { "in-use" } else { "available" }
}

/// The ARN that encrypted volumes and snapshots name.
pub fn kms_key(world: &World) -> String {
    let instance = &world.scenario.instance;
    format!(
        "arn:aws:kms:{}:{}:key/00000000-0000-4000-8000-000000000000",
        instance.region, instance.account_id
    )
}

fn write(xml: &mut Xml, world: &World, volume: &Volume) {
    xml.text("volumeId", &volume.id);
    xml.text("size", volume.size_gib());
    xml.text("snapshotId", "");
    xml.text("availabilityZone", world.scenario.instance.zone());
    xml.text("status", status(volume));
    xml.text("createTime", time(volume.since));
    xml.node("attachmentSet", |xml| {
        if volume.attached {
            xml.node("item", |xml| {
                xml.text("volumeId", &volume.id);
                xml.text("instanceId", world.instance_id());
                xml.text("device", &volume.device_name);
                xml.text("status", "attached");
                xml.text("attachTime", time(volume.since));
                xml.text("deleteOnTermination", volume.boot);
            });
        }
    });
    xml.tags(world.tags_of(volume.id.as_str()));
    xml.text("volumeType", &volume.volume_type);
    let (iops, throughput) = performance(volume);
    xml.maybe("iops", iops);
    xml.maybe("throughput", throughput);
    xml.text("encrypted", volume.encrypted);
    if volume.encrypted {
        xml.text("kmsKeyId", kms_key(world));
        xml.text("sseType", "sse-kms");
    }
    xml.text("multiAttachEnabled", false);
    xml.node("operator", |xml| xml.text("managed", false));
}

/// What EC2 reports when nothing was provisioned.
fn performance(volume: &Volume) -> (Option<u64>, Option<u64>) {
    let chosen = (volume.iops.map(u64::from), volume.throughput.map(u64::from));
    match volume.volume_type.as_str() {
        "gp3" => (chosen.0.or(Some(3000)), chosen.1.or(Some(125))),
        "gp2" => (Some((volume.size_gib() * 3).clamp(100, 16000)), None),
        "io1" | "io2" => (chosen.0.or(Some(100)), None),
        _ => (None, None),
    }
}
