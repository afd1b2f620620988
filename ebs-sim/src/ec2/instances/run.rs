//! RunInstances: instances of an image of this account.
//!
//! In: an image, a type, and what is to be otherwise than in the image. Out: instances that are `pending` until their
//! volumes are there. Their data must be held before the answer, as the snapshots may be deleted right after; and an
//! image that would not boot on the type must never be launched where EC2 refuses it.

use std::collections::BTreeMap;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::types::{self, Platform, Type};
use super::super::volumes::{self, Token, mismatch};
use super::super::{images, keys, tags};
use super::describe::write_reservation;
use super::mapping::{self, Entry};
use super::{Machine, find};
use crate::faults::Hit;
use crate::ids::{ImageId, InstanceId, SnapshotId, VolumeId, random_hex};
use crate::lifecycle;
use crate::scenario::VolumeKind;
use crate::world::{
    Ami, Attachment, AttachmentState, GROUP, Image, InstanceState, Launch, Origin, SUBNET, Stage, Tags,
    Volume, World,
};

/// Most instances beside the scenario's.
const MOST: usize = 20;
/// What EC2 takes where no type is named; it is none of those that are known here.
const DEFAULT_TYPE: &str = "m1.small";

pub struct Run {
    image: ImageId,
    kind: &'static Type,
    least: usize,
    most: usize,
    zone: Option<String>,
    entries: Vec<Entry>,
    tags: Tags,
    volume_tags: Tags,
    token: Token,
}

impl Run {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = Token::parse(params)?;
        let image = images::parse_id(&params.required("ImageId")?)?;
        let count = |number: Option<usize>, name: &str| number.ok_or_else(|| Ec2Error::missing(name));
        let least = count(params.number("MinCount")?, "MinCount")?;
        let most = count(params.number("MaxCount")?, "MaxCount")?;
        if least == 0 || least > most {
            return Err(Ec2Error::invalid_value(format!(
                "Value ({least}) for parameter minCount is invalid. It must be from 1 to maxCount ({most})"
            )));
        }
        let zone =
            match (params.text("Placement.AvailabilityZone"), params.text("Placement.AvailabilityZoneId")) {
                (Some(_), Some(_)) => {
                    return Err(Ec2Error::new(
                        "InvalidParameterCombination",
                        "AvailabilityZone and AvailabilityZoneId cannot be used together",
                    ));
                }
                (name, id) => name.or(id),
            };
        params.choice("Placement.Tenancy", &["default"])?;
        // All types here are optimized anyway.
        params.flag("EbsOptimized")?;
        let entries = mapping::parse(params)?;
        let mut by_kind = params.tags_by_kind(&["instance", "volume"])?;
        let mut of = |kind: &str| by_kind.remove(kind).unwrap_or_default();
        let (tags, volume_tags) = (of("instance"), of("volume"));
        tags::check_count(tags.len())?;
        tags::check_count(volume_tags.len())?;
        let kind = params.text("InstanceType").unwrap_or_else(|| DEFAULT_TYPE.into());
        let kind = types::find(&kind)
            .ok_or_else(|| Ec2Error::invalid_value(format!("Invalid value '{kind}' for InstanceType.")))?;
        Ok(Self { image, kind, least, most, zone, entries, tags, volume_tags, token })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:RunInstances";
        let mut needs = vec![
            Need::on(action, world, &format!("image/{}", self.image)),
            Need::on(action, world, "instance/*").tagged(&self.tags),
            Need::on(action, world, "volume/*").tagged(&self.volume_tags),
            Need::on(action, world, "network-interface/*"),
            Need::on(action, world, &format!("security-group/{GROUP}")),
            Need::on(action, world, &format!("subnet/{SUBNET}")),
        ];
        let named = self.entries.iter().filter_map(Entry::snapshot);
        needs.extend(named.map(|id| Need::on(action, world, &format!("snapshot/{id}"))));
        for (name, tags) in [("instance/*", &self.tags), ("volume/*", &self.volume_tags)] {
            if !tags.is_empty() {
                needs.push(Need::tags_of_new(world, "RunInstances", name, tags));
            }
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let sim = &context.sim;
        // Two requests with one token are one launch; and no snapshot is deleted while its data is taken.
        let _commit = sim.commit.lock().await;
        let (image, zone, wanted) = {
            let world = sim.world();
            if let Some(known) = self.known(&world, context.region())? {
                return Ok(answer(context, &world, &known));
            }
            self.check(&world, context)?
        };
        let room = MOST.saturating_sub(sim.world().launches.iter().filter(|l| l.state.is_there()).count());
        if self.least > room {
            return Err(Ec2Error::new(
                "InstanceLimitExceeded",
                format!("You have requested more instances than {MOST}, which is the limit here"),
            ));
        }
        let count = self.most.min(room);
        let mut data = Vec::new();
        for _ in 0..count {
            for volume in &wanted {
                data.push(held(context, volume.snapshot.as_ref()).await?);
            }
        }
        let mut world = sim.change();
        let reservation = format!("r-{}", random_hex());
        let mut ids = Vec::new();
        let mut data = data.into_iter();
        for index in 0..count {
            let number = u8::try_from(world.launches.len() % 200 + 1).unwrap_or(1);
            let launch = Launch {
                id: InstanceId::random(),
                image: image.clone(),
                kind: self.kind.name.to_owned(),
                zone: zone.clone(),
                at: context.now,
                reservation: reservation.clone(),
                index,
                number,
                state: InstanceState::Pending,
                reason: None,
                ended: None,
                token: self.token.0.clone(),
            };
            for volume in &wanted {
                let mut volume = make(&world, context, &launch, volume);
                volume.source = data.next().flatten();
                volumes::strike(&mut volume.origin, faults, context.now);
                if !self.volume_tags.is_empty() {
                    world.tags.insert(volume.id.to_string(), self.volume_tags.clone());
                }
                world.volumes.push(volume.clone());
                lifecycle::resume(sim, &volume);
            }
            if !self.tags.is_empty() {
                world.tags.insert(launch.id.to_string(), self.tags.clone());
            }
            ids.push(launch.id.clone());
            world.launches.push(launch);
        }
        for id in &ids {
            lifecycle::launch(sim, id);
        }
        Ok(answer(context, &world, &ids))
    }

    /// What an earlier request with the same token launched.
    fn known(&self, world: &World, region: &str) -> Result<Option<Vec<InstanceId>>, Ec2Error> {
        let Some((token, asked)) = &self.token.0 else { return Ok(None) };
        let mut found = Vec::new();
        for launch in world.launches.iter().filter(|launch| launch.region() == region) {
            match &launch.token {
                Some((known, before)) if known == token && before == asked => found.push(launch.id.clone()),
                Some((known, _)) if known == token => {
                    return Err(mismatch(
                        "a resource whose parameters are different from those in this request",
                    ));
                }
                _ => {}
            }
        }
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    /// Passes when EC2 would launch it: the image, the zone, the volumes of each instance.
    fn check(
        &self,
        world: &World,
        context: &Context,
    ) -> Result<(Ami, String, Vec<mapping::Volume>), Ec2Error> {
        let (region, now) = (context.region(), context.now);
        let image = images::to_launch(world, region, &self.image, &context.account, now)?;
        check_type(self.kind, image)?;
        let own = Some(world.scenario.instance.zone()).filter(|_| region == world.home());
        let mut zones = own.clone().into_iter().chain(volumes::zones(region));
        let zone = match &self.zone {
            None => zones.next(),
            Some(wanted) => zones.find(|zone| zone == wanted || volumes::zone_id(zone) == *wanted),
        };
        let zone = zone.ok_or_else(|| {
            let named = self.zone.as_deref().unwrap_or_default();
            Ec2Error::new("InvalidParameterValue", format!("Invalid availability zone: [{named}]"))
        })?;
        let wanted = mapping::volumes(world, image, &self.entries, now)?;
        if !wanted.iter().any(|volume| volume.device == image.root_device_name) {
            return Err(Ec2Error::new(
                "InvalidBlockDeviceMapping",
                format!("The image has no volume at its root device name '{}'", image.root_device_name),
            ));
        }
        if types::attachments(world, self.kind.name, 0).is_some_and(|most| wanted.len() > most) {
            return Err(Ec2Error::new(
                "AttachmentLimitExceeded",
                format!("A {} cannot have {} volumes", self.kind.name, wanted.len()),
            ));
        }
        Ok((image.clone(), zone, wanted))
    }
}

/// What EC2 refuses of an image on a type, since it would not boot.
fn check_type(kind: &Type, image: &Ami) -> Result<(), Ec2Error> {
    let (name, architecture) = (kind.name, image.architecture.as_str());
    if !kind.architectures.contains(&architecture) {
        return Err(Ec2Error::invalid_value(format!(
            "The architecture '{}' of the specified instance type does not match the architecture \
             '{architecture}' of the specified AMI. Specify an instance type and an AMI that have matching \
             architectures, and try again.",
            kind.architectures.join(","),
        )));
    }
    let refused = |what: String| Err(Ec2Error::new("InvalidParameterCombination", what));
    if image.virtualization != "hvm" {
        return refused(format!(
            "Virtualization type '{}' is not supported for the '{name}' instance type.",
            image.virtualization
        ));
    }
    if kind.ena == "required" && !image.ena {
        return refused(format!(
            "Enhanced networking with the Elastic Network Adapter (ENA) is required for the '{name}' instance \
             type. Ensure that you are using an AMI that is enabled for ENA."
        ));
    }
    let mode =
        image.boot_mode.as_deref().unwrap_or(if architecture == "arm64" { "uefi" } else { "legacy-bios" });
    if mode != "uefi-preferred" && !kind.boot_modes.contains(&mode) {
        return refused(format!(
            "The '{name}' instance type does not support the boot mode '{mode}' of the AMI."
        ));
    }
    if image.tpm.is_some() && kind.tpm != Some(true) {
        return refused(format!(
            "The '{name}' instance type does not support NitroTPM, which the AMI needs."
        ));
    }
    if kind.platform == Platform::Xen {
        return Err(Ec2Error::new(
            "Unsupported",
            format!("No '{name}' is launched here: its disks are Xen's"),
        ));
    }
    Ok(())
}

/// A copy of a snapshot's data that nobody deletes.
async fn held(context: &Context, snapshot: Option<&SnapshotId>) -> Result<Option<Image>, Ec2Error> {
    let of = |id: &SnapshotId| context.sim.world().snapshots.get(id).and_then(|known| known.image.clone());
    let Some(image) = snapshot.and_then(of) else { return Ok(None) };
    let worker = context.sim.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let path = worker.store.private_copy(&image.path)?;
        Ok::<_, crate::host::Error>(Image { path, window: image.window })
    })
    .await;
    match copied {
        Ok(Ok(image)) => Ok(Some(image)),
        failed => {
            tracing::error!("the snapshot's data cannot be taken: {failed:?}");
            Err(Ec2Error::internal())
        }
    }
}

fn make(world: &World, context: &Context, launch: &Launch, wanted: &mapping::Volume) -> Volume {
    let region = context.region();
    let snapshot = wanted.snapshot.as_ref().and_then(|id| world.snapshot(region, id));
    let id = VolumeId::random();
    Volume {
        name: id.to_string(),
        id,
        region: region.to_owned(),
        zone: launch.zone.clone(),
        device_name: wanted.device.clone(),
        size_bytes: wanted.size_bytes,
        volume_type: wanted.of_type.name.clone(),
        kind: VolumeKind::Nvme,
        boot: false,
        stage: Stage::Creating,
        snapshot_id: wanted.snapshot.clone(),
        created: context.now,
        attachment: Some(Attachment {
            since: context.now,
            state: AttachmentState::Attaching,
            delete_on_termination: wanted.delete_on_termination,
            instance: Some(launch.id.clone()),
        }),
        encrypted: wanted.encrypted || keys::encrypts_by_default(world, &context.account, region),
        kms_key: match &wanted.kms_key {
            Some(name) => Some(keys::find(world, region, Some(name)).arn.unwrap_or_else(|| name.clone())),
            None => snapshot.and_then(|snapshot| snapshot.kms_key_id.clone()),
        },
        iops: wanted.of_type.iops,
        throughput: wanted.of_type.throughput,
        initialization_rate: wanted.rate,
        token: None,
        source: None,
        origin: snapshot.map_or_else(Origin::default, |snapshot| {
            volumes::origin_of(world, snapshot, wanted.rate, context.now)
        }),
        window: Some(world.free_window(wanted.size_bytes)),
        loop_device: None,
        disk: None,
    }
}

fn answer(context: &Context, world: &World, ids: &[InstanceId]) -> String {
    let machines: BTreeMap<usize, Machine<'_>> =
        ids.iter().filter_map(|id| find(world, context.region(), id).ok()).enumerate().collect();
    context.response(|xml| write_reservation(xml, world, machines.values()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn what_would_not_boot_on_a_type_is_refused() {
        let image = |change: fn(&mut Ami)| {
            let mut image = Ami::of_instance(&Scenario::default(), Timestamp::UNIX_EPOCH);
            change(&mut image);
            image
        };
        let code = |kind: &str, change| {
            check_type(types::find(kind).expect(kind), &image(change)).err().map(|error| error.code)
        };
        assert_eq!(code("m6i.large", |_| ()), None);
        let combination = Some("InvalidParameterCombination".to_owned());
        assert_eq!(code("m6i.large", |image| image.ena = false), combination);
        assert_eq!(code("m6i.large", |image| image.virtualization = "paravirtual".into()), combination);
        assert_eq!(code("c7g.large", |image| image.architecture = "arm64".into()), None);
        let legacy = |image: &mut Ami| {
            (image.architecture, image.boot_mode) = ("arm64".into(), Some("legacy-bios".into()));
        };
        assert_eq!(code("c7g.large", legacy), combination);
        assert_eq!(code("c7g.large", |_| ()).as_deref(), Some("InvalidParameterValue"));
        assert_eq!(code("t2.micro", |image| image.boot_mode = None).as_deref(), Some("Unsupported"));
        assert_eq!(code("t2.micro", |image| image.boot_mode = Some("uefi".into())), combination);
    }
}
