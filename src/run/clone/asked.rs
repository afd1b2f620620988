//! The requests of a run that clones: as each volume is, or otherwise where that was asked for.
//!
//! In: a plan, what is asked for of its clones. Out: a [`CloneRequest`], or why EC2 would refuse it. Pure. Must never: let a
//! request go into the window that EC2 is known to refuse.

use std::collections::BTreeMap;
use std::path::Path;

use crate::ec2::CreateRequest;
use crate::ec2::clones::{CloneOf, CloneRequest};
use crate::ec2::volume_type::{Instead, Misfit, Performance, no};
use crate::ids::VolumeId;
use crate::path_encoding::shown;
use crate::plan::{Plan, PlannedFilesystem, PlannedVolume};
use crate::restore::size::{Size, by_volume};
use crate::run::job::Job;
use crate::sets::tags;

/// What is asked for of clones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// In the place of what each volume has.
    pub instead: Instead,
    /// Larger ones.
    pub sizes: Vec<Size>,
}

/// The requests of this job.
///
/// # Errors
/// Why EC2 would refuse one of them.
pub fn request(job: &Job<'_>, base: &CreateRequest, asked: &Asked) -> Result<CloneRequest, Misfit> {
    let sizes = sizes(job.plan, &asked.sizes)?;
    let of_one = |(n, volume): (usize, &PlannedVolume)| {
        let mut tags = base.tags.clone();
        let own = base.of_volume(&volume.id).filter(|(k, _)| !base.tags.iter().any(|(taken, _)| taken == k));
        tags.extend(own.cloned());
        tags.extend(tags::of_clone(n, volume));
        let size = sizes.get(&volume.id).copied();
        let Performance { kind, iops, throughput } = performance(volume, size, &asked.instead)?;
        Ok(CloneOf {
            volume: volume.id.clone(),
            token: format!("{}-{}", job.run, volume.id.as_str().trim_start_matches("vol-")),
            volume_type: kind,
            iops,
            throughput,
            size_gib: size.filter(|gib| *gib > volume.size_gib),
            tags,
        })
    };
    Ok(CloneRequest {
        instance: job.facts.identity.instance_id.clone(),
        volumes: job.plan.volumes.iter().enumerate().map(of_one).collect::<Result<_, _>>()?,
    })
}

/// Type and speed of the clone of a volume that gets this size.
fn performance(volume: &PlannedVolume, size: Option<i32>, instead: &Instead) -> Result<Performance, Misfit> {
    let id = volume.id.as_str();
    let has =
        Performance { kind: volume.volume_type.clone(), iops: volume.iops, throughput: volume.throughput };
    let made = has.with(instead, &format!("the clone of {id}"))?;
    let gib = size.unwrap_or(volume.size_gib);
    if gib < volume.size_gib {
        return no(
            format!("{gib} GiB are less than the {} GiB of {id}", volume.size_gib),
            "a clone cannot be smaller than its volume",
        );
    }
    if size.is_some() || *instead != Instead::default() {
        made.fits(gib, &format!("the clone of {id}"), &format!("--size {id}"))?;
    }
    Ok(made)
}

/// The size that was asked for each volume.
fn sizes(plan: &Plan, asked: &[Size]) -> Result<BTreeMap<VolumeId, i32>, Misfit> {
    let on = |place: &Path| {
        let is_it = |f: &&PlannedFilesystem| f.mount_points.iter().any(|at| at == place);
        match plan.filesystems.iter().find(is_it) {
            Some(filesystem) => Ok(&filesystem.volumes[..]),
            None => no(
                format!("the plan has no {}", shown(place)),
                "`stillpoint plan` lists what is mounted on its volumes",
            ),
        }
    };
    by_volume(asked, on, |id| {
        if plan.volumes.iter().any(|v| v.id == *id) {
            return Ok(());
        }
        let all: Vec<&str> = plan.volumes.iter().map(|v| v.id.as_str()).collect();
        no(format!("{id} is not cloned by this plan"), format!("its volumes are {}", all.join(", ")))
    })
}
