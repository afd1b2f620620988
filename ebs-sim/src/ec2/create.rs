//! CreateSnapshot and CreateSnapshots: the point in time.
//!
//! In: an instance or a volume. Out: pending snapshots over one clone of the pool. The clone is made while
//! the request is handled: it must never begin before the request was read, nor end after the answer.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::xml::{Xml, time};
use super::{instances, limits, snapshots, tags, volumes};
use crate::faults::{Hit, Kind};
use crate::ids::{InstanceId, SnapshotId, VolumeId};
use crate::log::unix_nanos;
use crate::measure::measure;
use crate::world::{Image, Later, Sizes, Snapshot, Stage, Tags, Volume, World};

/// Most volumes that one CreateSnapshots takes.
const MAX_VOLUMES: usize = 128;
/// Most data volumes that can be excluded.
const MAX_EXCLUDED: usize = 40;

/// What both actions take besides their target.
struct Common {
    description: String,
    tags: Tags,
}

impl Common {
    fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let description = snapshots::description(params)?;
        if params.text("OutpostArn").is_some() {
            return Err(Ec2Error::invalid_value(
                "The OutpostArn parameter is not supported: the instance is not on an Outpost",
            ));
        }
        if params.text("Location").is_some_and(|place| place != "regional") {
            return Err(Ec2Error::invalid_value(
                "Location local is only supported for volumes in a Local Zone",
            ));
        }
        Ok(Self { description, tags: params.tag_specifications("snapshot")? })
    }

    /// Tags in the call need a permission of their own.
    fn needs(&self, world: &World, creating: &'static str, tagging: bool, tags: &Tags) -> Vec<Need> {
        if !tagging && tags.is_empty() {
            return vec![];
        }
        vec![Need::tags_of_new(world, creating, "snapshot/*", tags)]
    }
}

/// CreateSnapshot.
pub struct One {
    volume: VolumeId,
    common: Common,
}

impl One {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = params.required("VolumeId")?;
        Ok(Self { volume: volumes::parse_id(&id)?, common: Common::parse(params)? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CreateSnapshot";
        let mut needs = vec![
            Need::on(action, world, &format!("volume/{}", self.volume)),
            Need::on(action, world, "snapshot/*").tagged(&self.common.tags),
        ];
        needs.extend(self.common.needs(world, "CreateSnapshot", false, &self.common.tags));
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let choose = |world: &World| {
            let volume = volumes::find(world, context.region(), self.volume.as_str())?;
            match volume.stage {
                Stage::Ready => Ok(vec![volume.clone()]),
                _ => Err(volumes::incorrect_state(volume)),
            }
        };
        let made = commit(context, faults, &self.common, false, choose).await?;
        Ok(context.response(|xml| {
            for snapshot in &made {
                write(xml, snapshot, "status");
            }
        }))
    }
}

/// CreateSnapshots.
pub struct Set {
    instance: InstanceId,
    exclude_boot: bool,
    excluded: Vec<VolumeId>,
    copy_tags: bool,
    common: Common,
}

impl Set {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let instance = volumes::parse_instance(&params.required("InstanceSpecification.InstanceId")?)?;
        let exclude_boot = params.flag("InstanceSpecification.ExcludeBootVolume")?;
        let excluded = params.list("InstanceSpecification.ExcludeDataVolumeId");
        if excluded.len() > MAX_EXCLUDED {
            return Err(Ec2Error::invalid_value(format!(
                "The number of excluded data volumes exceeds the maximum of {MAX_EXCLUDED}"
            )));
        }
        let excluded = excluded.iter().map(|id| volumes::parse_id(id)).collect::<Result<_, _>>()?;
        let copy_tags = match params.text("CopyTagsFromSource").as_deref() {
            None => false,
            Some("volume") => true,
            Some(other) => {
                return Err(Ec2Error::invalid_value(format!(
                    "Value ({other}) for parameter copyTagsFromSource is invalid. Expected: 'volume'."
                )));
            }
        };
        Ok(Self { instance, exclude_boot, excluded, copy_tags, common: Common::parse(params)? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CreateSnapshots";
        let mut needs = vec![Need::on(action, world, &format!("instance/{}", self.instance))];
        needs.extend(
            world
                .attached_to(&self.instance)
                .map(|volume| Need::on(action, world, &format!("volume/{}", volume.id))),
        );
        // Copied tags are tags of the call: those of every volume count.
        let mut tags = self.common.tags.clone();
        if self.copy_tags {
            let copied =
                world.attached_to(&self.instance).flat_map(|volume| world.tags_of(volume.id.as_str()));
            for (key, value) in copied {
                tags.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        needs.push(Need::on(action, world, "snapshot/*").tagged(&tags));
        needs.extend(self.common.needs(world, "CreateSnapshots", self.copy_tags, &tags));
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let choose = |world: &World| self.choose(world, context.region());
        let mut made = commit(context, faults, &self.common, self.copy_tags, choose).await?;
        if faults.iter().any(|hit| hit.fault.kind == Kind::MissingSnapshot) {
            made.pop();
        }
        Ok(context.response(|xml| {
            xml.list("snapshotSet", &made, |xml, snapshot| {
                write(xml, snapshot, "state");
            });
        }))
    }

    /// Everything that is attached, but what is excluded.
    fn choose(&self, world: &World, region: &str) -> Result<Vec<Volume>, Ec2Error> {
        instances::find(world, region, &self.instance)?.check_running()?;
        for id in &self.excluded {
            match world.attached_to(&self.instance).find(|volume| volume.id == *id) {
                None => return Err(volumes::not_found(id.as_str())),
                Some(volume) if world.is_root(volume) => {
                    return Err(Ec2Error::invalid_value(format!(
                        "The volume '{id}' is the root volume of the instance. Use ExcludeBootVolume to \
                         exclude it."
                    )));
                }
                Some(_) => {}
            }
        }
        let chosen: Vec<Volume> = world
            .attached_to(&self.instance)
            .filter(|volume| !(self.exclude_boot && world.is_root(volume)))
            .filter(|volume| !self.excluded.contains(&volume.id))
            .cloned()
            .collect();
        match chosen.len() {
            0 => Err(Ec2Error::invalid_value("All volumes of the instance are excluded")),
            n if n > MAX_VOLUMES => Err(Ec2Error::invalid_value(format!(
                "The instance has {n} volumes to snapshot, which exceeds the maximum of {MAX_VOLUMES}"
            ))),
            _ => Ok(chosen),
        }
    }
}

/// Chooses, checks the limits, clones, and makes the snapshots known.
async fn commit(
    context: &Context,
    faults: &[Hit],
    common: &Common,
    copy_tags: bool,
    choose: impl Fn(&World) -> Result<Vec<Volume>, Ec2Error>,
) -> Result<Vec<Snapshot>, Ec2Error> {
    let sim = &context.sim;
    let has = |kind| faults.iter().any(|hit| hit.fault.kind == kind);
    let fault_of = |kind| faults.iter().map(|hit| &hit.fault).find(|fault| fault.kind == kind);
    let _commit = sim.commit.lock().await;
    let started = context.sim.world().clock(Timestamp::now());
    let volumes = {
        let mut world = sim.change();
        if has(Kind::ExtraVolume) {
            world.attach_unknown_volume(started);
        }
        if let Some(fault) = fault_of(Kind::DetachVolume) {
            world.detach_silently(fault.volume.as_deref());
        }
        let volumes = choose(&world)?;
        snapshots::check_room(&world, &context.account, context.region(), volumes.len())?;
        limits::check(&world, &volumes, started)?;
        for volume in &volumes {
            tags::check_count(tags_for(&world, common, copy_tags, volume).len())?;
        }
        volumes
    };

    let path = sim.store.image_path(&context.request_id);
    let clone_started = unix_nanos();
    let worker = sim.clone();
    let to = path.clone();
    let cloned = tokio::task::spawn_blocking(move || worker.store.clone_pool(&to)).await;
    let point_in_time = unix_nanos();
    if let Ok(Err(error)) = &cloned {
        tracing::error!("{error}: {:?}", std::error::Error::source(error).map(ToString::to_string));
    }
    if !matches!(cloned, Ok(Ok(()))) {
        return Err(Ec2Error::internal());
    }

    let made: Vec<Snapshot> = {
        let mut world = sim.change();
        volumes
            .iter()
            .map(|volume| {
                let takes = world.scenario.snapshots.time_to_complete(volume.size_bytes);
                let snapshot = Snapshot {
                    id: SnapshotId::random(),
                    owner: context.account.clone(),
                    region: context.region().to_owned(),
                    volume_id: volume.id.clone(),
                    size_gib: volume.size_gib(),
                    size_bytes: volume.size_bytes,
                    description: common.description.clone(),
                    started,
                    takes: fault_of(Kind::SlowProgress).map_or(takes, |fault| fault.slowed(takes)),
                    fails: has(Kind::SnapshotError),
                    visible_from: fault_of(Kind::LateVisibility)
                        .and_then(|fault| started.checked_add(fault.delay()).ok()),
                    encrypted: volume.encrypted,
                    kms_key_id: volume
                        .encrypted
                        .then(|| volume.kms_key.clone().unwrap_or_else(|| volumes::kms_key(&world))),
                    reason: None,
                    is_copy: false,
                    lineage: None,
                    tags: tags_for(&world, common, copy_tags, volume),
                    later: late_tags(faults, started),
                    image: volume.window.map(|window| Image { path: path.clone(), window }),
                    sizes: match volume.window {
                        Some(_) => Sizes::Measuring,
                        None => Sizes::Unknown,
                    },
                };
                world.snapshots.insert(snapshot.clone());
                snapshot
            })
            .collect()
    };
    sim.note(context.number, |entry| {
        entry.clone_started_ns = Some(clone_started);
        entry.point_in_time_ns = Some(point_in_time);
        entry.snapshot_ids = made.iter().map(|snapshot| snapshot.id.to_string()).collect();
    });

    // The point in time is fixed. Freeing what no snapshot of the set needs, and measuring the rest, goes on
    // in the background, so that the answer does not wait for it.
    let kept: Vec<_> = volumes.iter().filter_map(|volume| volume.window).collect();
    let ids: Vec<_> = made.iter().map(|snapshot| snapshot.id.clone()).collect();
    let worker = sim.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = worker.store.trim(&path, &kept) {
            tracing::warn!("{error}");
        }
        measure(&worker, &ids);
    });
    Ok(made)
}

/// A new snapshot's tags, when Describe calls are to know of them only later.
pub fn late_tags(faults: &[Hit], started: Timestamp) -> Later {
    let late = faults.iter().find(|hit| hit.fault.kind == Kind::LateTags);
    let until = late.and_then(|hit| started.checked_add(hit.fault.delay()).ok());
    Later { old_tags: until.map(|until| (Tags::new(), until)), ..Later::default() }
}

fn tags_for(world: &World, common: &Common, copy_tags: bool, volume: &Volume) -> Tags {
    let mut tags = if copy_tags { world.tags_of(volume.id.as_str()).clone() } else { Tags::new() };
    tags.extend(common.tags.clone());
    tags
}

/// A snapshot as the two actions answer it; they differ in how they call the state. It is always pending,
/// whatever it has become since.
fn write(xml: &mut Xml, snapshot: &Snapshot, state: &str) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text(state, "pending");
    xml.text("startTime", time(snapshot.started));
    xml.text("progress", "");
    xml.text("ownerId", &snapshot.owner);
    xml.text("volumeSize", snapshot.size_gib);
    xml.text("description", &snapshot.description);
    xml.text("encrypted", snapshot.encrypted);
    if snapshot.encrypted {
        xml.text("sseType", "sse-kms");
    }
    xml.tag_set(&snapshot.tags);
}
