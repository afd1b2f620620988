//! The block device mapping of RunInstances: what the image says, and what the request says otherwise.
//!
//! In: an image's mapping and `BlockDeviceMapping.N.…`. Out: the volumes that the instance is launched with. The root
//! must never be left out, nor be made of another snapshot.

use std::collections::BTreeSet;

use super::super::error::Ec2Error;
use super::super::images::mapping::{device, wrong};
use super::super::params::Params;
use super::super::snapshots;
use super::super::volumes::{Type, check_rate};
use crate::ids::SnapshotId;
use crate::units::GIB;
use crate::world::{Ami, Ebs, Snapshot, World, attachment_point};

const TYPES: &[&str] = &["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"];

/// What a request says of one device.
pub struct Entry {
    device: String,
    /// None: nothing is to be there.
    ebs: Option<Asked>,
}

#[derive(Default)]
struct Asked {
    snapshot: Option<SnapshotId>,
    size_gib: Option<u64>,
    volume_type: Option<String>,
    delete_on_termination: Option<bool>,
    encrypted: Option<bool>,
    kms_key: Option<String>,
    iops: Option<u32>,
    throughput: Option<u32>,
    rate: Option<u32>,
}

/// A volume that an instance is launched with.
pub struct Volume {
    pub device: String,
    pub snapshot: Option<SnapshotId>,
    pub size_bytes: u64,
    pub of_type: Type,
    pub delete_on_termination: bool,
    pub encrypted: bool,
    pub kms_key: Option<String>,
    pub rate: Option<u32>,
}

/// Reads all entries.
pub fn parse(params: &mut Params) -> Result<Vec<Entry>, Ec2Error> {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for n in params.indexes("BlockDeviceMapping") {
        let prefix = format!("BlockDeviceMapping.{n}");
        let (device, nothing) = device(params, &prefix, &mut seen)?;
        if params.text(&format!("{prefix}.VirtualName")).is_some() {
            return Err(Ec2Error::invalid_value(
                "The parameter VirtualName is not supported: what is launched here has no instance store",
            ));
        }
        let ebs = format!("{prefix}.Ebs.");
        let ebs = match (params.any(&ebs), nothing) {
            (true, false) => Some(Asked::parse(params, &ebs)?),
            (false, true) => None,
            _ => return Err(wrong(format!("The device '{device}' needs one of Ebs and NoDevice"))),
        };
        entries.push(Entry { device, ebs });
    }
    Ok(entries)
}

impl Asked {
    fn parse(params: &mut Params, ebs: &str) -> Result<Self, Ec2Error> {
        let name = |name: &str| format!("{ebs}{name}");
        for unknown in ["OutpostArn", "AvailabilityZone", "AvailabilityZoneId"] {
            if params.text(&name(unknown)).is_some() {
                return Err(Ec2Error::invalid_value(format!(
                    "The parameter {unknown} is not supported in the block device mapping of an instance"
                )));
            }
        }
        if params.number::<u32>(&name("EbsCardIndex"))?.is_some_and(|card| card != 0) {
            return Err(Ec2Error::invalid_value(
                "The parameter EbsCardIndex must be 0: there is one EBS card",
            ));
        }
        let snapshot = params.text(&name("SnapshotId")).map(|id| snapshots::parse_id(&id)).transpose()?;
        let encrypted = params.maybe_flag(&name("Encrypted"))?;
        let kms_key = params.text(&name("KmsKeyId"));
        if kms_key.is_some() && encrypted != Some(true) {
            return Err(Ec2Error::new(
                "InvalidParameterDependency",
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            ));
        }
        Ok(Self {
            snapshot,
            size_gib: params.number(&name("VolumeSize"))?,
            volume_type: params.choice(&name("VolumeType"), TYPES)?,
            delete_on_termination: params.maybe_flag(&name("DeleteOnTermination"))?,
            encrypted,
            kms_key,
            iops: params.number(&name("Iops"))?,
            throughput: params.number(&name("Throughput"))?,
            rate: check_rate(params.number(&name("VolumeInitializationRate"))?)?,
        })
    }
}

impl Entry {
    /// The snapshot that it names.
    pub fn snapshot(&self) -> Option<&SnapshotId> {
        self.ebs.as_ref()?.snapshot.as_ref()
    }
}

/// The volumes of an instance of this image.
pub fn volumes(
    world: &World,
    image: &Ami,
    entries: &[Entry],
    now: jiff::Timestamp,
) -> Result<Vec<Volume>, Ec2Error> {
    let mut volumes = Vec::new();
    for (device, ebs) in image.volumes() {
        let entry = entries.iter().find(|entry| entry.device == device);
        let is_root = device == image.root_device_name;
        match entry.map(|entry| &entry.ebs) {
            Some(None) if is_root => {
                return Err(wrong(format!("The root device '{device}' cannot be left out")));
            }
            Some(None) => {}
            Some(Some(asked)) if is_root && asked.snapshot.is_some() => {
                return Err(wrong("snapshotId cannot be modified on root device"));
            }
            Some(Some(asked)) => volumes.push(volume(world, image, device, Some(ebs), asked, now)?),
            None => volumes.push(volume(world, image, device, Some(ebs), &Asked::default(), now)?),
        }
    }
    let new = entries.iter().filter(|entry| image.volumes().all(|(device, _)| device != entry.device));
    for entry in new {
        if let Some(asked) = &entry.ebs {
            volumes.push(volume(world, image, &entry.device, None, asked, now)?);
        }
    }
    let mut points = BTreeSet::new();
    for volume in &volumes {
        if !points.insert(attachment_point(&volume.device)) {
            return Err(wrong(format!("The device '{}' is used twice", volume.device)));
        }
    }
    Ok(volumes)
}

fn volume(
    world: &World,
    image: &Ami,
    device: &str,
    ebs: Option<&Ebs>,
    asked: &Asked,
    now: jiff::Timestamp,
) -> Result<Volume, Ec2Error> {
    let region = &image.region;
    let id = asked.snapshot.as_ref().or(ebs.and_then(|ebs| ebs.snapshot.as_ref()));
    let snapshot: Option<&Snapshot> = match id {
        None => None,
        // Amazon's own are in no account.
        Some(id) if asked.snapshot.is_none() && image.owner_alias.is_some() => {
            return Err(Ec2Error::new(
                "UnsupportedOperation",
                format!("The data of the image '{}' ({id}) is not simulated", image.id),
            ));
        }
        Some(id) => Some(snapshots::usable(world, region, id, now)?),
    };
    if asked.rate.is_some() && snapshot.is_none() {
        return Err(Ec2Error::new(
            "InvalidParameterCombination",
            "VolumeInitializationRate is only supported for volumes created from snapshots",
        ));
    }
    if asked.encrypted == Some(false) && snapshot.is_some_and(|snapshot| snapshot.encrypted) {
        return Err(wrong(format!(
            "The encrypted snapshot of the device '{device}' makes encrypted volumes only"
        )));
    }
    let least = snapshot.map_or(0, |snapshot| snapshot.size_gib);
    let Some(gib) = asked.size_gib.or(ebs.map(|ebs| ebs.size_gib)).or(snapshot.map(|_| least)) else {
        return Err(wrong(format!("The device {device} needs a snapshot or a size")));
    };
    if let Some(snapshot) = snapshot.filter(|_| gib < least) {
        return Err(wrong(format!(
            "Volume of size {gib}GB is smaller than snapshot '{}', expect size >= {least}GB",
            snapshot.id
        )));
    }
    let kind = asked.volume_type.clone().or(ebs.map(|ebs| ebs.volume_type.clone()));
    let kind = kind.unwrap_or_else(|| "gp2".into());
    // What was provisioned of another type is nothing of this one.
    let of_image = ebs.filter(|ebs| ebs.volume_type == kind);
    let of_type = Type::of(
        kind,
        asked.iops.or(of_image.and_then(|ebs| ebs.iops)),
        asked.throughput.or(of_image.and_then(|ebs| ebs.throughput)),
    )?;
    of_type.check_size(gib)?;
    Ok(Volume {
        device: device.to_owned(),
        snapshot: snapshot.map(|snapshot| snapshot.id.clone()),
        // A size that is the snapshot's is exactly that, which in a simulation may be no whole GiB.
        size_bytes: snapshot.filter(|_| gib == least).map_or(gib * GIB, |snapshot| snapshot.size_bytes),
        of_type,
        delete_on_termination: asked
            .delete_on_termination
            .or(ebs.map(|ebs| ebs.delete_on_termination))
            .unwrap_or(true),
        encrypted: asked.encrypted.unwrap_or(false)
            || ebs.is_some_and(|ebs| ebs.encrypted)
            || snapshot.is_some_and(|snapshot| snapshot.encrypted),
        kms_key: asked.kms_key.clone(),
        rate: asked.rate,
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::scenario::Scenario;
    use crate::world::{Mapped, Target, test_snapshot};

    fn ebs(snapshot: &SnapshotId) -> Ebs {
        Ebs {
            snapshot: Some(snapshot.clone()),
            size_gib: 8,
            volume_type: "gp3".into(),
            delete_on_termination: false,
            encrypted: false,
            iops: Some(4000),
            throughput: None,
        }
    }

    /// `device type iops GiB goes encrypted` of each volume.
    fn launched(form: &str) -> Result<Vec<String>, String> {
        let now = Timestamp::MAX;
        let mut world = World::new(&Scenario::default(), &[], Timestamp::UNIX_EPOCH);
        let mut image = Ami::of_instance(&Scenario::default(), Timestamp::UNIX_EPOCH);
        image.owner_alias = None;
        image.mapping.clear();
        for device in ["/dev/xvda", "/dev/sdf"] {
            let snapshot =
                crate::world::Snapshot { size_gib: 8, size_bytes: 8 * GIB, ..test_snapshot(0, false) };
            let target = Target::Ebs(ebs(&snapshot.id));
            image.mapping.push(Mapped { device: device.into(), target });
            world.snapshots.insert(snapshot);
        }
        let mut params = Params::parse(&[form.as_bytes()]);
        let entries = parse(&mut params).map_err(|error| error.code)?;
        params.finish().map_err(|error| error.code)?;
        let volumes = volumes(&world, &image, &entries, now).map_err(|error| error.code)?;
        let shown = |v: &Volume| {
            let (kind, iops) = (&v.of_type.name, v.of_type.iops);
            format!(
                "{} {kind} {iops:?} {} {} {}",
                v.device,
                v.size_bytes / GIB,
                v.delete_on_termination,
                v.encrypted
            )
        };
        Ok(volumes.iter().map(shown).collect())
    }

    #[test]
    fn an_instance_has_what_its_image_says_and_the_request_says_otherwise() {
        let root = "/dev/xvda gp3 Some(4000) 8 false false";
        let data = "/dev/sdf gp3 Some(4000) 8 false false";
        let with = |rest: &str| launched(&format!("BlockDeviceMapping.1.DeviceName=/dev/sdf&{rest}"));
        assert_eq!(launched(""), Ok(vec![root.into(), data.into()]));
        assert_eq!(with("BlockDeviceMapping.1.NoDevice="), Ok(vec![root.into()]));
        let ebs =
            |rest: &str| with(&format!("BlockDeviceMapping.1.Ebs.{rest}")).map(|found| found[1].clone());
        assert_eq!(
            ebs("VolumeType=io2&BlockDeviceMapping.1.Ebs.Iops=900"),
            Ok("/dev/sdf io2 Some(900) 8 false false".into())
        );
        assert_eq!(ebs("VolumeType=gp2"), Ok("/dev/sdf gp2 None 8 false false".into()));
        assert_eq!(ebs("VolumeSize=9"), Ok("/dev/sdf gp3 Some(4000) 9 false false".into()));
        assert_eq!(ebs("Encrypted=true"), Ok("/dev/sdf gp3 Some(4000) 8 false true".into()));
        assert_eq!(ebs("DeleteOnTermination=true"), Ok("/dev/sdf gp3 Some(4000) 8 true false".into()));
        for (bad, code) in [
            ("VolumeSize=7", "InvalidBlockDeviceMapping"),
            ("VolumeType=x", "InvalidParameterValue"),
            ("Iops=100", "InvalidParameterValue"),
            ("KmsKeyId=x", "InvalidParameterDependency"),
            ("SnapshotId=snap-0123456789abcdef0", "InvalidSnapshot.NotFound"),
            ("VolumeInitializationRate=99", "InvalidParameterValue"),
        ] {
            assert_eq!(ebs(bad), Err(code.into()), "{bad}");
        }
        let new = launched("BlockDeviceMapping.1.DeviceName=/dev/sdg&BlockDeviceMapping.1.Ebs.VolumeSize=1");
        assert_eq!(new.expect("a third")[2], "/dev/sdg gp2 None 1 true false");
        for bad in [
            "BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.NoDevice=",
            "BlockDeviceMapping.1.DeviceName=/dev/xvda&BlockDeviceMapping.1.Ebs.SnapshotId=snap-0123456789abcdef0",
            "BlockDeviceMapping.1.DeviceName=/dev/xvdf&BlockDeviceMapping.1.Ebs.VolumeSize=1",
            "BlockDeviceMapping.1.DeviceName=/dev/sdg&BlockDeviceMapping.1.Ebs.VolumeType=gp3",
            "BlockDeviceMapping.1.DeviceName=/dev/sdg",
        ] {
            assert_eq!(launched(bad), Err("InvalidBlockDeviceMapping".into()), "{bad}");
        }
    }
}
