//! The block device mapping of RegisterImage.
//!
//! In: `BlockDeviceMapping.N.…`, and the Region's snapshots. Out: the image's devices, with what EC2 fills
//! in. A mapping must never name a snapshot that is not there, not completed, or in the archive.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::error::Ec2Error;
use super::super::params::Params;
use super::super::snapshots;
use crate::ids::SnapshotId;
use crate::world::{Ebs, Mapped, Target, World};

const TYPES: &[&str] = &["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"];

/// A mapping that EC2 refuses.
pub fn wrong(message: impl Into<String>) -> Ec2Error {
    Ec2Error::new("InvalidBlockDeviceMapping", message)
}

/// The device of the entry that begins so, which none of those `seen` may be, and whether it is to be nothing.
pub fn device(
    params: &mut Params,
    prefix: &str,
    seen: &mut BTreeSet<String>,
) -> Result<(String, bool), Ec2Error> {
    let device = params.required(&format!("{prefix}.DeviceName"))?;
    if !seen.insert(device.clone()) {
        return Err(wrong(format!("The device '{device}' is used in more than one block-device mapping")));
    }
    let name = format!("{prefix}.NoDevice");
    let nothing = params.any(&name);
    params.text(&name);
    Ok((device, nothing))
}

/// One entry as asked for.
pub struct Entry {
    device: String,
    target: Wanted,
}

enum Wanted {
    Volume(Volume),
    Virtual(String),
    Nothing,
}

struct Volume {
    snapshot: Option<SnapshotId>,
    size_gib: Option<u64>,
    volume_type: Option<String>,
    delete_on_termination: Option<bool>,
    encrypted: Option<bool>,
    iops: Option<u32>,
    throughput: Option<u32>,
}

/// Reads all entries.
pub fn parse(params: &mut Params) -> Result<Vec<Entry>, Ec2Error> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    for n in params.indexes("BlockDeviceMapping") {
        let prefix = format!("BlockDeviceMapping.{n}");
        let (device, nothing) = device(params, &prefix, &mut seen)?;
        let virtual_name = params.text(&format!("{prefix}.VirtualName"));
        let ebs = format!("{prefix}.Ebs.");
        let target = match (params.any(&ebs), virtual_name, nothing) {
            (true, None, false) => Wanted::Volume(Volume::parse(params, &ebs)?),
            (false, Some(name), false) => Wanted::Virtual(name),
            (false, None, true) => Wanted::Nothing,
            _ => {
                return Err(wrong(format!(
                    "The device '{device}' needs one of Ebs, VirtualName and NoDevice"
                )));
            }
        };
        entries.push(Entry { device, target });
    }
    Ok(entries)
}

impl Volume {
    fn parse(params: &mut Params, ebs: &str) -> Result<Self, Ec2Error> {
        let name = |name: &str| format!("{ebs}{name}");
        for launch_only in ["KmsKeyId", "OutpostArn", "AvailabilityZone", "AvailabilityZoneId"] {
            if params.text(&name(launch_only)).is_some() {
                return Err(Ec2Error::invalid_value(format!(
                    "The parameter {launch_only} is not supported in the block device mapping of an image"
                )));
            }
        }
        let snapshot = params.text(&name("SnapshotId")).map(|id| snapshots::parse_id(&id)).transpose()?;
        Ok(Self {
            snapshot,
            size_gib: params.number(&name("VolumeSize"))?,
            volume_type: params.choice(&name("VolumeType"), TYPES)?,
            delete_on_termination: params.maybe_flag(&name("DeleteOnTermination"))?,
            encrypted: params.maybe_flag(&name("Encrypted"))?,
            iops: params.number(&name("Iops"))?,
            throughput: params.number(&name("Throughput"))?,
        })
    }
}

impl Entry {
    /// The snapshot that it names.
    pub fn snapshot(&self) -> Option<&SnapshotId> {
        match &self.target {
            Wanted::Volume(volume) => volume.snapshot.as_ref(),
            Wanted::Virtual(_) | Wanted::Nothing => None,
        }
    }

    pub fn resolve(&self, world: &World, region: &str, now: Timestamp) -> Result<Mapped, Ec2Error> {
        let target = match &self.target {
            Wanted::Volume(volume) => Target::Ebs(volume.resolve(&self.device, world, region, now)?),
            Wanted::Virtual(name) => Target::Virtual(name.clone()),
            Wanted::Nothing => Target::Nothing,
        };
        Ok(Mapped { device: self.device.clone(), target })
    }
}

impl Volume {
    fn resolve(&self, device: &str, world: &World, region: &str, now: Timestamp) -> Result<Ebs, Ec2Error> {
        let snapshot =
            self.snapshot.as_ref().map(|id| snapshots::usable(world, region, id, now)).transpose()?;
        let encrypted = match (snapshot, self.encrypted) {
            (Some(_), Some(_)) => {
                return Err(wrong(format!(
                    "The encrypted flag cannot be specified since device {device} has a snapshot specified."
                )));
            }
            (Some(snapshot), None) => snapshot.encrypted,
            (None, wanted) => wanted.unwrap_or(false),
        };
        let size_gib = match (snapshot, self.size_gib) {
            (Some(snapshot), Some(size)) if size < snapshot.size_gib => {
                return Err(wrong(format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                    snapshot.id, snapshot.size_gib
                )));
            }
            (_, Some(0)) | (None, None) => {
                return Err(wrong(format!(
                    "The device {device} needs a snapshot or a size of at least 1 GiB"
                )));
            }
            (_, Some(size)) => size,
            (Some(snapshot), None) => snapshot.size_gib,
        };
        let volume_type = self.volume_type.clone().unwrap_or_else(|| "gp2".into());
        let kind = volume_type.as_str();
        if self.iops.is_some() && !["io1", "io2", "gp3"].contains(&kind) {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                format!("The parameter iops is not supported for {kind} volumes."),
            ));
        }
        if self.iops.is_none() && ["io1", "io2"].contains(&kind) {
            return Err(Ec2Error::missing("iops"));
        }
        if self.throughput.is_some() && kind != "gp3" {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                format!("The parameter throughput is not supported for {kind} volumes."),
            ));
        }
        Ok(Ebs {
            snapshot: self.snapshot.clone(),
            size_gib,
            // The documented defaults of an image that says nothing.
            delete_on_termination: self.delete_on_termination.unwrap_or(true),
            encrypted,
            iops: self.iops,
            throughput: self.throughput,
            volume_type,
        })
    }
}
