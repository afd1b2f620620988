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
use super::zone;
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
    /// The client token, and the request without it.
    token: Option<(String, String)>,
}

/// What kind of volume is asked for.
struct Wanted {
    snapshot: Option<SnapshotId>,
    gib: Option<u64>,
    volume_type: String,
    iops: Option<u32>,
    throughput: Option<u32>,
}

enum Zone {
    Named(String),
    Id(String),
}

/// The limits of a type: sizes in GiB, IOPS, MiB/s.
struct Type {
    sizes: std::ops::RangeInclusive<u64>,
    iops: Option<std::ops::RangeInclusive<u32>>,
    throughput: Option<std::ops::RangeInclusive<u32>>,
}

fn volume_type(name: &str) -> Option<Type> {
    let plain = |sizes| Type { sizes, iops: None, throughput: None };
    Some(match name {
        "gp2" => plain(1..=16384),
        "gp3" => Type { sizes: 1..=65536, iops: Some(3000..=80000), throughput: Some(125..=2000) },
        "io1" => Type { sizes: 4..=16384, iops: Some(100..=64000), throughput: None },
        "io2" => Type { sizes: 4..=65536, iops: Some(100..=256_000), throughput: None },
        "st1" | "sc1" => plain(125..=16384),
        "standard" => plain(1..=1024),
        _ => return None,
    })
}

impl Create {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = params.text("ClientToken");
        let asked = format!("{:?}", params.all());
        if token.as_ref().is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return Err(Ec2Error::invalid_value("ClientToken must be at most 64 ASCII characters"));
        }
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
        let initialization_rate = params.number("VolumeInitializationRate")?;
        if let Some(rate) = initialization_rate {
            if !(100..=300).contains(&rate) {
                return Err(Ec2Error::invalid_value(
                    "VolumeInitializationRate must be from 100 to 300 MiB/s",
                ));
            }
            if wanted.snapshot.is_none() {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "VolumeInitializationRate is only supported for volumes created from snapshots",
                ));
            }
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
        let token = token.map(|token| (token, asked));
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

    pub async fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let sim = &context.sim;
        // Two requests with one token make one volume; and no snapshot is deleted while its data is taken.
        let _commit = sim.commit.lock().await;
        let image = {
            let world = sim.world();
            if let Some(known) = self.known(&world, context.region())? {
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
        if !self.tags.is_empty() {
            world.tags.insert(volume.id.to_string(), self.tags.clone());
        }
        world.volumes.push(volume.clone());
        lifecycle::resume(sim, &volume);
        Ok(context.response(|xml| write(xml, &world, &volume)))
    }

    /// The volume that an earlier request with the same token made.
    fn known<'a>(&self, world: &'a World, region: &str) -> Result<Option<&'a Volume>, Ec2Error> {
        let Some((token, asked)) = &self.token else { return Ok(None) };
        let made = world.volumes.iter().filter(|volume| volume.region == region).find_map(|volume| {
            volume.token.as_ref().filter(|(known, _)| known == token).map(|(_, asked)| (volume, asked))
        });
        match made {
            None => Ok(None),
            Some((volume, before)) if before == asked => Ok(Some(volume)),
            Some(_) => Err(Ec2Error::new(
                "IdempotentParameterMismatch",
                "The client token you have provided is associated with a resource whose parameters are \
                 different from those in this request",
            )),
        }
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
            volume_type: self.wanted.volume_type.clone(),
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
            iops: self.wanted.iops,
            throughput: self.wanted.throughput,
            initialization_rate: self.initialization_rate,
            token: self.token.clone(),
            source: None,
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
        let name = params.text("VolumeType").unwrap_or_else(|| "gp2".into());
        let Some(limits) = volume_type(&name) else {
            return Err(Ec2Error::new(
                "UnknownVolumeType",
                format!("Unsupported volume type '{name}' for volume creation."),
            ));
        };
        let iops = params.number("Iops")?;
        if iops.is_none() && (name == "io1" || name == "io2") {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                format!("The parameter iops must be specified for {name} volumes."),
            ));
        }
        let throughput = params.number("Throughput")?;
        check_range("iops", &name, iops, limits.iops)?;
        check_range("throughput", &name, throughput, limits.throughput)?;
        Ok(Self { snapshot, gib, volume_type: name, iops, throughput })
    }

    /// The size in bytes. Without one, or with the snapshot's, it is exactly the snapshot's, which in a
    /// simulation may be no whole GiB.
    fn size(&self, snapshot: Option<&Snapshot>) -> Result<u64, Ec2Error> {
        let least = snapshot.map_or(0, |snapshot| snapshot.size_gib);
        // A size below the snapshot's is raised to it without a word, as was seen on EC2.
        let gib = self.gib.unwrap_or(least).max(least);
        let sizes = volume_type(&self.volume_type).map(|limits| limits.sizes);
        if let Some(sizes) = sizes.filter(|sizes| !sizes.contains(&gib)) {
            return Err(Ec2Error::invalid_value(format!(
                "Volume of {gib}GiB is invalid for the type {}; it must be from {}GiB to {}GiB",
                self.volume_type,
                sizes.start(),
                sizes.end()
            )));
        }
        match snapshot {
            Some(snapshot) if gib == least => Ok(snapshot.size_bytes),
            _ => Ok(gib * GIB),
        }
    }
}

fn check_range(
    what: &str,
    of: &str,
    value: Option<u32>,
    range: Option<std::ops::RangeInclusive<u32>>,
) -> Result<(), Ec2Error> {
    match (value, range) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Ec2Error::new(
            "InvalidParameterCombination",
            format!("The parameter {what} is not supported for {of} volumes."),
        )),
        (Some(value), Some(range)) if range.contains(&value) => Ok(()),
        (Some(value), Some(range)) => Err(Ec2Error::invalid_value(format!(
            "Volume {what} of {value} is invalid for the type {of}; it must be from {} to {}",
            range.start(),
            range.end()
        ))),
    }
}
