//! Clones, attached and mounted as what is restored of snapshots is.
//!
//! In: a run that has cloned, its clones, what their tags describe, a host. Out: a [`RestorePlan`] of volumes that are there
//! already; or a [`Refusal`]. Must never: take for a clone what EC2 does not call a copy of the volume that its tags name,
//! or one that somebody uses.

use super::device_names::names;
use super::plan::{
    Asked, Host, PlannedVolume, Reach, Refusal, RestorePlan, before_a_reboot, chosen, no, planned_filesystem,
};
use super::stack::planned::StackPlan;
use crate::ec2::clones::{CloneView, Clones};
use crate::ec2::volume_type::Instead;
use crate::ec2::volumes::{VolumeView, Volumes, Which};
use crate::ec2::{Ec2Error, repeat::Repeating};
use crate::ids::{RunId, VolumeId};
use crate::path_encoding::printable;
use crate::sets::layout::Layout;
use crate::sets::lines::SetVolume;

/// A clone, as EC2 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clone {
    /// What it is a copy of.
    pub source: VolumeId,
    /// It.
    pub view: VolumeView,
}

/// The clones of this run that are there.
///
/// # Errors
/// When EC2 does not say.
pub async fn find<E: Clones + Volumes>(ec2: &Repeating<'_, E>, run: &RunId) -> Result<Vec<Clone>, Ec2Error> {
    let copies: Vec<CloneView> = ec2.clones_of(run).await?;
    let ids: Vec<VolumeId> = copies.iter().map(|c| c.id.clone()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let which = Which::Ids(ids);
    let shown = ec2.call("DescribeVolumes", async || ec2.inner().volumes_that_are(&which).await).await?;
    let of = |view: VolumeView| {
        let source = copies.iter().find(|c| c.id == view.id)?.source.clone();
        (!view.is_gone()).then_some(Clone { source, view })
    };
    Ok(shown.into_iter().filter_map(of).collect())
}

/// Decides.
///
/// # Errors
/// Why it cannot be done, before anything is.
pub fn plan(
    run: &RunId,
    region: &str,
    clones: &[Clone],
    layout: &Layout,
    host: &Host,
    asked: &Asked,
) -> Result<RestorePlan, Refusal> {
    if asked.instead != Instead::default() || asked.key.is_some() || asked.initialization_rate.is_some() {
        return no(
            format!("{run} is of clones, which are there already"),
            "leave --type, --key and the like out: `clone` has --type, --iops and --throughput",
        );
    }
    let chosen = chosen(layout, asked)?;
    let wanted = |v: &&SetVolume| asked.mounts.is_empty() || chosen.iter().any(|f| f.volumes.contains(&v.id));
    let volumes: Vec<&SetVolume> = layout.volumes.iter().filter(wanted).collect();
    let (names, spare_names) = names(host, volumes.len())?;
    let (mut planned, mut ids) = (Vec::new(), Vec::new());
    for (volume, name) in volumes.iter().zip(names) {
        let view = one(run, clones, volume, host)?;
        ids.push(view.id.clone());
        planned.push(PlannedVolume {
            source: volume.id.clone(),
            snapshot: None,
            size_gib: view.size_gib,
            grown_from: None,
            volume_type: view.volume_type.clone(),
            iops: None,
            throughput: None,
            key: None,
            initialization_rate: None,
            tags: Vec::new(),
            device_name: Some(name),
        });
    }
    let mut notes: Vec<String> = before_a_reboot(asked).into_iter().collect();
    notes
        .push("the clones stay when this is taken back: `stillpoint clone --delete` deletes them".to_owned());
    let mut filesystems = Vec::new();
    if asked.reach == Reach::Mounted {
        // What is in a stack gets other names with the first restore, by which the next would not find it.
        for filesystem in chosen {
            filesystems.push(planned_filesystem(filesystem, &volumes, asked, &mut notes)?);
        }
        if filesystems.is_empty() {
            return no(format!("{run} has no filesystem to mount"), "--no-mount attaches its volumes");
        }
    }
    let id = RunId::generate();
    Ok(RestorePlan {
        stack: StackPlan::of(&id),
        id,
        set: run.clone(),
        region: region.to_owned(),
        reach: asked.reach,
        instance: Some(host.id.clone()),
        zone: host.view.zone.clone(),
        to: asked.to.clone(),
        read_only: asked.read_only,
        volumes: planned,
        filesystems,
        notes,
        spare_names,
        grow: false,
        in_place: None,
        until: asked.until,
        before_start: Vec::new(),
        clones: ids,
        copies: Vec::new(),
    })
}

/// The clone of this volume, which can be attached to this host.
fn one<'c>(
    run: &RunId,
    clones: &'c [Clone],
    volume: &SetVolume,
    host: &Host,
) -> Result<&'c VolumeView, Refusal> {
    let mut of_it = clones.iter().filter(|c| c.source == volume.id);
    let Some(clone) = of_it.next() else {
        return no(
            format!("there is no clone of {} of {run}", volume.id),
            "choose a filesystem that is not on that volume (--mount), or clone again",
        );
    };
    if let Some(other) = of_it.next() {
        return no(
            format!(
                "{} and {} are both clones of {} with the tag of {run}",
                clone.view.id, other.view.id, volume.id
            ),
            "take the tag stillpoint:run from the one that is not",
        );
    }
    let view = &clone.view;
    if view.zone != host.view.zone {
        return no(
            format!(
                "{} is in {}, and {} in {}",
                view.id,
                printable(&view.zone),
                host.id,
                printable(&host.view.zone)
            ),
            "attach it on an instance of that zone",
        );
    }
    if let Some(attached) = view.attachments.first() {
        let who = attached.instance.as_ref().map_or("another service", |i| i.as_str());
        return no(format!("{} is attached to {who}", view.id), "take it back there first");
    }
    match view.state.as_str() {
        "available" | "creating" => Ok(view),
        state => no(format!("{} is {}", view.id, printable(state)), "clone again"),
    }
}
