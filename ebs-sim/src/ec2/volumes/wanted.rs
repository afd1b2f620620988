//! What CreateVolume, CopyVolumes and RunInstances have in common: the type of the new volume, and the client token.
//!
//! In: parameters. Out: a type with what is provisioned, and the volume that an earlier request with the same
//! token made. One token must never make two volumes.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use super::super::error::Ec2Error;
use super::super::params::Params;
use crate::faults::{Hit, Kind};
use crate::units::MIB;
use crate::world::{Initialization, Origin, Sizes, Snapshot, Volume, Way, World};

/// A volume type, and what is provisioned of it.
pub struct Type {
    pub name: String,
    pub iops: Option<u32>,
    pub throughput: Option<u32>,
}

/// The limits of a type: sizes in GiB, IOPS, IOPS for each GiB (which `free` are not), MiB/s.
struct Limits {
    sizes: RangeInclusive<u64>,
    iops: Option<RangeInclusive<u32>>,
    iops_per_gib: u64,
    free: u32,
    throughput: Option<RangeInclusive<u32>>,
}

fn limits(name: &str) -> Option<Limits> {
    let plain = |sizes| Limits { sizes, iops: None, iops_per_gib: 0, free: 0, throughput: None };
    let io = |sizes, iops, iops_per_gib| Limits { iops: Some(iops), iops_per_gib, ..plain(sizes) };
    Some(match name {
        "gp2" => plain(1..=16384),
        "gp3" => Limits { free: 3000, throughput: Some(125..=2000), ..io(1..=65536, 3000..=80000, 500) },
        "io1" => io(4..=16384, 100..=64000, 50),
        "io2" => io(4..=65536, 100..=256_000, 1000),
        "st1" | "sc1" => plain(125..=16384),
        "standard" => plain(1..=1024),
        _ => return None,
    })
}

impl Type {
    /// Reads VolumeType, Iops and Throughput. Without a type it is gp2.
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let name = params.text("VolumeType").unwrap_or_else(|| "gp2".into());
        Self::of(name, params.number("Iops")?, params.number("Throughput")?)
    }

    /// A type by its name, with what is to be provisioned of it.
    pub fn of(name: String, iops: Option<u32>, throughput: Option<u32>) -> Result<Self, Ec2Error> {
        let Some(limits) = limits(&name) else {
            return Err(Ec2Error::new(
                "UnknownVolumeType",
                format!("Unsupported volume type '{name}' for volume creation."),
            ));
        };
        if iops.is_none() && (name == "io1" || name == "io2") {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                format!("The parameter iops must be specified for {name} volumes."),
            ));
        }
        check_range("iops", &name, iops, limits.iops)?;
        check_range("throughput", &name, throughput, limits.throughput)?;
        let ratio = f64::from(throughput.unwrap_or(0)) / f64::from(iops.unwrap_or(limits.free.max(1)));
        if ratio > 0.25 {
            return Err(Ec2Error::invalid_value(format!(
                "Throughput (MiBps) to iops ratio of {ratio:.6} is too high; maximum is 0.250000 MiBps per iops"
            )));
        }
        Ok(Self { name, iops, throughput })
    }

    /// Passes when a volume of this type may be so large, and have so many IOPS then.
    pub fn check_size(&self, gib: u64) -> Result<(), Ec2Error> {
        let limits = limits(&self.name);
        if let (Some(limits), Some(iops)) = (&limits, self.iops)
            && iops > limits.free
            && u64::from(iops) > gib * limits.iops_per_gib
        {
            return Err(Ec2Error::invalid_value(format!(
                "Iops to volume size ratio of {:.6} is too high; maximum is {}",
                f64::from(iops) / gib.max(1) as f64,
                limits.iops_per_gib
            )));
        }
        let sizes = limits.map(|limits| limits.sizes);
        match sizes.filter(|sizes| !sizes.contains(&gib)) {
            None => Ok(()),
            Some(sizes) => Err(Ec2Error::invalid_value(format!(
                "Volume of {gib}GiB is invalid for the type {}; it must be from {}GiB to {}GiB",
                self.name,
                sizes.start(),
                sizes.end()
            ))),
        }
    }
}

fn check_range(
    what: &str,
    of: &str,
    value: Option<u32>,
    range: Option<RangeInclusive<u32>>,
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

/// A client token, and the request without it.
pub struct Token(pub Option<(String, String)>);

impl Token {
    /// Takes the token. What else is in `params` now is what it is bound to.
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = params.text("ClientToken");
        if token.as_ref().is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
            return Err(Ec2Error::invalid_value("ClientToken must be at most 64 ASCII characters"));
        }
        let asked = format!("{:?}", params.all());
        Ok(Self(token.map(|token| (token, asked))))
    }

    /// The volume that an earlier request with the same token made.
    pub fn known<'a>(&self, world: &'a World, region: &str) -> Result<Option<&'a Volume>, Ec2Error> {
        let Some((token, asked)) = &self.0 else { return Ok(None) };
        let made = world.volumes.iter().filter(|volume| volume.region == region).find_map(|volume| {
            volume.token.as_ref().filter(|(known, _)| known == token).map(|(_, asked)| (volume, asked))
        });
        match made {
            None if world.spent_tokens.contains(&(region.to_owned(), token.clone())) => {
                Err(mismatch("a volume that was deleted"))
            }
            None => Ok(None),
            Some((volume, before)) if before == asked => Ok(Some(volume)),
            Some(_) => Err(mismatch("a resource whose parameters are different from those in this request")),
        }
    }
}

/// What EC2 says of a token that means something else.
pub fn mismatch(with: &str) -> Ec2Error {
    Ec2Error::new(
        "IdempotentParameterMismatch",
        format!("The client token you have provided is associated with {with}"),
    )
}

/// VolumeInitializationRate, in MiB/s.
pub fn initialization_rate(params: &mut Params) -> Result<Option<u32>, Ec2Error> {
    check_rate(params.number("VolumeInitializationRate")?)
}

/// Passes when EC2 takes a rate of initialisation.
pub fn check_rate(rate: Option<u32>) -> Result<Option<u32>, Ec2Error> {
    if rate.is_some_and(|rate| !(100..=300).contains(&rate)) {
        return Err(Ec2Error::invalid_value("VolumeInitializationRate must be from 100 to 300 MiB/s"));
    }
    Ok(rate)
}

/// How the data of a snapshot comes into a new volume.
pub fn origin_of(world: &World, snapshot: &Snapshot, rate: Option<u32>, now: Timestamp) -> Origin {
    let bytes = match snapshot.sizes {
        Sizes::Known { full, .. } => full,
        Sizes::Measuring | Sizes::Unknown => snapshot.size_bytes,
    };
    let (way, takes) = match rate {
        Some(rate) => {
            let seconds = bytes as f64 / (f64::from(rate) * MIB as f64);
            (Way::Provisioned, Duration::try_from_secs_f64(seconds).unwrap_or_default())
        }
        None => (Way::Default, world.scenario.volume_times.time_to_initialize(bytes)),
    };
    Origin { initialization: Some(Initialization { way, began: now, takes }), ..Origin::default() }
}

/// What faults do to a new volume.
pub fn strike(origin: &mut Origin, faults: &[Hit], now: Timestamp) {
    for fault in faults.iter().map(|hit| &hit.fault) {
        let later = now.checked_add(fault.delay()).ok();
        match fault.kind {
            Kind::VolumeError => origin.fails = true,
            Kind::LateVisibility => origin.visible_from = later,
            Kind::LateTags => origin.tagged_from = later,
            Kind::SlowProgress => {
                if let Some(initialization) = &mut origin.initialization {
                    initialization.takes = fault.slowed(initialization.takes);
                }
            }
            _ => {}
        }
    }
}
