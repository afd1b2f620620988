//! CreateVolume.
//!
//! In: a size or a snapshot. Out: a volume that is `creating`, with a window of its own in the pool. The
//! snapshot's data must be held before the answer: the snapshot may be deleted right after.

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::{keys, snapshots, tags};
use super::describe::write;
use super::wanted::{Token, Type, initialization_rate, origin_of, strike};
use super::zone;
use crate::faults::Hit;
use crate::ids::{SnapshotId, VolumeId};
use crate::lifecycle;
use crate::scenario::VolumeKind;
use crate::units::GIB;
use crate::world::{Image, Snapshot, Stage, Tags, Volume, World};

/// CreateVolume.
pub struct Create {
    wanted: Wanted,
    zone: Zone,
    encrypted: bool,
    kms_key: Option<String>,
    initialization_rate: Option<u32>,
    tags: Tags,
    token: Token,
}

/// What kind of volume is asked for.
struct Wanted {
    snapshot: Option<SnapshotId>,
    gib: Option<u64>,
    of_type: Type,
}

enum Zone {
    Named(String),
    Id(String),
}

impl Create {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = Token::parse(params)?;
        let zone = match (params.text("AvailabilityZone"), params.text("AvailabilityZoneId")) {
            (Some(name), None) => Zone::Named(name),
            (None, Some(id)) => Zone::Id(id),
            (None, None) => return Err(Ec2Error::missing("AvailabilityZone")),
            (Some(_), Some(_)) => {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "AvailabilityZone and AvailabilityZoneId cannot be used together",
                ));
            }
        };
        let wanted = Wanted::parse(params)?;
        let encrypted = params.flag("Encrypted")?;
        let kms_key = params.text("KmsKeyId");
        if kms_key.is_some() && !encrypted {
            return Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        let initialization_rate = initialization_rate(params)?;
        if initialization_rate.is_some() && wanted.snapshot.is_none() {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "VolumeInitializationRate is only supported for volumes created from snapshots",
            ));
        }
        if params.flag("MultiAttachEnabled")? {
            return Err(Ec2Error::new(
                "UnsupportedOperation",
                "The MultiAttachEnabled parameter is not supported: there is one instance",
            ));
        }
        if params.text("OutpostArn").is_some() {
            return Err(Ec2Error::invalid_value(
                "The OutpostArn parameter is not supported: the instance is not on an Outpost",
            ));
        }
        let tags = params.tag_specifications("volume")?;
        tags::check_count(tags.len())?;
        Ok(Self { wanted, zone, encrypted, kms_key, initialization_rate, tags, token })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CreateVolume";
        let mut needs = vec![Need::on(action, world, "volume/*").tagged(&self.tags)];
        if let Some(id) = &self.wanted.snapshot {
            needs.push(Need::on(action, world, &format!("snapshot/{id}")));
        }
        if !self.tags.is_empty() {
            needs.push(Need::tags_of_new(world, "CreateVolume", "volume/*", &self.tags));
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let sim = &context.sim;
        // Two requests with one token make one volume; and no snapshot is deleted while its data is taken.
        let _commit = sim.commit.lock().await;
        let image = {
            let world = sim.world();
            if let Some(known) = self.token.known(&world, context.region())? {
                return Ok(context.response(|xml| write(xml, &world, known)));
            }
            self.check(&world, context)?.and_then(|snapshot| snapshot.image.clone())
        };
        let source = match image {
            None => None,
            Some(image) => {
                let worker = sim.clone();
                let copied = tokio::task::spawn_blocking(move || {
                    let path = worker.store.private_copy(&image.path)?;
                    Ok::<_, crate::host::Error>(Image { path, window: image.window })
                })
                .await;
                match copied {
                    Ok(Ok(image)) => Some(image),
                    failed => {
                        tracing::error!("the snapshot's data cannot be taken: {failed:?}");
                        return Err(Ec2Error::internal());
                    }
                }
            }
        };
        let mut world = sim.change();
        let mut volume = self.make(&world, context)?;
        volume.source = source;
        strike(&mut volume.origin, faults, context.now);
        if !self.tags.is_empty() {
            world.tags.insert(volume.id.to_string(), self.tags.clone());
        }
        world.volumes.push(volume.clone());
        lifecycle::resume(sim, &volume);
        Ok(context.response(|xml| write(xml, &world, &volume)))
    }

    /// Checks what depends on the account, and gives the snapshot.
    fn check<'a>(&self, world: &'a World, context: &Context) -> Result<Option<&'a Snapshot>, Ec2Error> {
        let region = context.region();
        self.zone_in(world, region)?;
        let snapshot = match &self.wanted.snapshot {
            None => None,
            Some(id) => Some(snapshots::usable(world, region, id, context.now)?),
        };
        self.wanted.size(snapshot)?;
        Ok(snapshot)
    }

    fn zone_in(&self, world: &World, region: &str) -> Result<String, Ec2Error> {
        let own = Some(world.scenario.instance.zone()).filter(|_| region == world.home());
        let (known, text) = match &self.zone {
            Zone::Named(name) => (zone::names(region).chain(own).find(|zone| zone == name), name),
            Zone::Id(id) => (zone::names(region).chain(own).find(|zone| zone::id(zone) == *id), id),
        };
        known.ok_or_else(|| {
            Ec2Error::new("InvalidZone.NotFound", format!("The zone '{text}' does not exist."))
        })
    }

    fn make(&self, world: &World, context: &Context) -> Result<Volume, Ec2Error> {
        let region = context.region();
        let snapshot = self.wanted.snapshot.as_ref().and_then(|id| world.snapshot(region, id));
        let size_bytes = self.wanted.size(snapshot)?;
        let id = VolumeId::random();
        let kind = match world.ebs().any(|volume| volume.kind == VolumeKind::Xen) {
            true => VolumeKind::Xen,
            false => VolumeKind::Nvme,
        };
        Ok(Volume {
            name: id.to_string(),
            id,
            region: region.to_owned(),
            zone: self.zone_in(world, region)?,
            device_name: String::new(),
            size_bytes,
            volume_type: self.wanted.of_type.name.clone(),
            kind,
            boot: false,
            stage: Stage::Creating,
            snapshot_id: self.wanted.snapshot.clone(),
            created: context.now,
            attachment: None,
            encrypted: self.encrypted
                || snapshot.is_some_and(|snapshot| snapshot.encrypted)
                || keys::encrypts_by_default(world, &context.account, region),
            // EC2 shows the key's ARN, whichever way it was named. Without one it is the snapshot's.
            kms_key: match &self.kms_key {
                Some(name) => Some(keys::find(world, region, Some(name)).arn.unwrap_or_else(|| name.clone())),
                None => snapshot.and_then(|snapshot| snapshot.kms_key_id.clone()),
            },
            iops: self.wanted.of_type.iops,
            throughput: self.wanted.of_type.throughput,
            initialization_rate: self.initialization_rate,
            token: self.token.0.clone(),
            source: None,
            origin: snapshot
                .map(|snapshot| origin_of(world, snapshot, self.initialization_rate, context.now))
                .unwrap_or_default(),
            window: Some(world.free_window(size_bytes)),
            loop_device: None,
            disk: None,
        })
    }
}

impl Wanted {
    fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let snapshot = match params.text("SnapshotId") {
            None => None,
            Some(id) => Some(SnapshotId::parse(&id).ok_or_else(|| {
                Ec2Error::new(
                    "InvalidSnapshotID.Malformed",
                    format!("Invalid id: \"{id}\" (expecting \"snap-...\")"),
                )
            })?),
        };
        let gib = params.number("Size")?;
        if snapshot.is_none() && gib.is_none() {
            return Err(Ec2Error::new(
                "MissingParameter",
                "The request must contain the parameter size or snapshotId",
            ));
        }
        Ok(Self { snapshot, gib, of_type: Type::parse(params)? })
    }

    /// The size in bytes. Without one, or with the snapshot's, it is exactly the snapshot's, which in a
    /// simulation may be no whole GiB.
    fn size(&self, snapshot: Option<&Snapshot>) -> Result<u64, Ec2Error> {
        let least = snapshot.map_or(0, |snapshot| snapshot.size_gib);
        // A size below the snapshot's is raised to it without a word, as was seen on EC2.
        let gib = self.gib.unwrap_or(least).max(least);
        self.of_type.check_size(gib)?;
        match snapshot {
            Some(snapshot) if gib == least => Ok(snapshot.size_bytes),
            _ => Ok(gib * GIB),
        }
    }
}
