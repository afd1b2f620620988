//! DescribeVolumes.
//!
//! In: the account. Out: volumes and their attachments. Instance-store disks are not volumes and must never
//! appear.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::params::Params;
use super::super::query::Query;
use super::super::xml::{Xml, time};
use super::{kms_key, not_found, write_operator, zone};
use crate::world::{Attachment, Tags, Volume, World};

const FILTERS: &[&str] = &[
    "attachment.attach-time",
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "availability-zone-id",
    "create-time",
    "encrypted",
    "fast-restored",
    "multi-attach-enabled",
    "operator.managed",
    "operator.principal",
    "size",
    "snapshot-id",
    "status",
    "volume-id",
    "volume-type",
];

pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        // Nothing here is managed by a service, so it makes no difference.
        params.flag("IncludeManagedResources")?;
        Query::parse(params, "DescribeVolumes", Some("VolumeId"), FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let region = context.region();
        // Other accounts have no volumes.
        let at_home = context.account == world.account();
        let now = context.now;
        let known = |volume: &Volume| at_home && volume.region == region && volume.origin.is_visible(now);
        let exists = |id: &str| world.volume(region, id).is_some_and(known);
        self.0.check_ids("vol-", "InvalidVolumeID.Malformed", not_found, exists)?;
        let wanted = world
            .ebs()
            .filter(|volume| known(volume))
            .filter(|volume| {
                let tags = world.shown_tags_of_volume(volume.id.as_str(), now);
                self.0.wants(volume.id.as_str(), tags, |name| field(&world, volume, name))
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |volume: &&Volume| volume.id.to_string());
        Ok(context.response(|xml| {
            xml.list("volumeSet", page, |xml, volume| {
                write_with(xml, &world, volume, world.shown_tags_of_volume(volume.id.as_str(), now));
            });
            xml.maybe("nextToken", token);
        }))
    }
}

fn field(world: &World, volume: &Volume, name: &str) -> Vec<String> {
    let attached = |of: fn(&Attachment) -> String| volume.attachment.iter().map(of).collect();
    match name {
        "attachment.attach-time" => attached(|attachment| time(attachment.since)),
        "attachment.delete-on-termination" => {
            attached(|attachment| attachment.delete_on_termination.to_string())
        }
        "attachment.device" => volume.attachment.iter().map(|_| volume.device_name.clone()).collect(),
        "attachment.instance-id" => {
            volume.attachment.iter().map(|_| world.instance_of(volume).to_string()).collect()
        }
        "attachment.status" => attached(|attachment| attachment.state.name().into()),
        "availability-zone" => vec![volume.zone.clone()],
        "availability-zone-id" => vec![zone::id(&volume.zone)],
        "create-time" => vec![time(volume.created)],
        "encrypted" => vec![volume.encrypted.to_string()],
        "fast-restored" | "multi-attach-enabled" | "operator.managed" => vec!["false".into()],
        "size" => vec![volume.size_gib().to_string()],
        "snapshot-id" => volume.snapshot_id.iter().map(ToString::to_string).collect(),
        "status" => vec![volume.status().into()],
        "volume-id" => vec![volume.id.to_string()],
        "volume-type" => vec![volume.volume_type.clone()],
        _ => vec![],
    }
}

/// A volume, as CreateVolume and CopyVolumes show it.
pub fn write(xml: &mut Xml, world: &World, volume: &Volume) {
    write_with(xml, world, volume, world.tags_of(volume.id.as_str()));
}

/// The same with the tags that are shown of it.
fn write_with(xml: &mut Xml, world: &World, volume: &Volume, tags: &Tags) {
    xml.text("volumeId", &volume.id);
    xml.text("size", volume.size_gib());
    xml.text("snapshotId", volume.snapshot_id.as_ref().map_or("", |id| id.as_str()));
    xml.text("availabilityZone", &volume.zone);
    xml.text("availabilityZoneId", zone::id(&volume.zone));
    xml.text("status", volume.status());
    xml.text("createTime", time(volume.created));
    xml.list("attachmentSet", &volume.attachment, |xml, attachment| {
        write_attachment(xml, world, volume, attachment);
    });
    xml.tags(tags);
    xml.text("volumeType", &volume.volume_type);
    let (iops, throughput) = performance(volume);
    xml.maybe("iops", iops);
    xml.maybe("throughput", throughput);
    xml.text("encrypted", volume.encrypted);
    if volume.encrypted {
        xml.text("kmsKeyId", volume.kms_key.clone().unwrap_or_else(|| kms_key(world)));
        xml.text("sseType", "sse-kms");
    }
    xml.text("multiAttachEnabled", false);
    xml.maybe("volumeInitializationRate", volume.initialization_rate);
    xml.maybe("sourceVolumeId", volume.origin.volume.as_ref());
    xml.text("ownerId", world.account());
    let (region, partition) = (&volume.region, super::super::partition(&volume.region));
    let arn = format!("arn:{partition}:ec2:{region}:{}:volume/{}", world.account(), volume.id);
    xml.text("volumeArn", arn);
    write_operator(xml);
}

/// An attachment, as AttachVolume, DetachVolume and DescribeVolumes show it.
pub fn write_attachment(xml: &mut Xml, world: &World, volume: &Volume, attachment: &Attachment) {
    xml.text("volumeId", &volume.id);
    xml.text("instanceId", world.instance_of(volume));
    xml.text("device", &volume.device_name);
    xml.text("status", attachment.state.name());
    xml.text("attachTime", time(attachment.since));
    xml.text("deleteOnTermination", attachment.delete_on_termination);
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
