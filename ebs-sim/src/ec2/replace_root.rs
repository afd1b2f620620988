//! CreateReplaceRootVolumeTask and DescribeReplaceRootVolumeTasks.
//!
//! In: a snapshot of the root, an image, or a volume. Out: a task at whose end that is the root. A snapshot that was
//! not taken directly of the root, as it is or was, must never become it: EC2 refuses copies too.

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::volumes::{self, mismatch};
use super::xml::{Xml, time};
use super::{images, instances, snapshots, tags};
use crate::faults::{Hit, Kind};
use crate::ids::{ImageId, InstanceId, SnapshotId, TaskId, VolumeId};
use crate::lifecycle;
use crate::units::GIB;
use crate::world::{Image, RootTask, Snapshot, Stage, Tags, TaskState, Volume, World};

/// CreateReplaceRootVolumeTask.
pub struct Create {
    instance: InstanceId,
    with: With,
    rate: Option<u32>,
    delete_old: bool,
    tags: Tags,
    token: Option<(String, String)>,
}

/// What the new root is.
enum With {
    Snapshot(SnapshotId),
    Image(ImageId),
    Volume(VolumeId),
    /// As it was when the instance was launched.
    Launch,
}

/// What is known of the new root once the request has passed.
struct Source {
    snapshot: Option<Snapshot>,
    image: Option<ImageId>,
    volume: Option<VolumeId>,
}

impl Create {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = params.text("ClientToken");
        let asked = format!("{:?}", params.all());
        let instance = volumes::parse_instance(&params.required("InstanceId")?)?;
        let snapshot = params.text("SnapshotId").map(|id| snapshots::parse_id(&id)).transpose()?;
        let image = params.text("ImageId").map(|id| images::parse_id(&id)).transpose()?;
        let volume = params.text("VolumeId").map(|id| volumes::parse_id(&id)).transpose()?;
        let with = match (snapshot, image, volume) {
            (Some(id), None, None) => With::Snapshot(id),
            (None, Some(id), None) => With::Image(id),
            (None, None, Some(id)) => With::Volume(id),
            (None, None, None) => With::Launch,
            _ => {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "Only one of SnapshotId, ImageId and VolumeId can be specified",
                ));
            }
        };
        let rate = volumes::initialization_rate(params)?;
        if rate.is_some() && matches!(with, With::Volume(_)) {
            return Err(Ec2Error::new(
                "InvalidParameterCombination",
                "VolumeInitializationRate is only supported for volumes created from snapshots",
            ));
        }
        let delete_old = params.flag("DeleteReplacedRootVolume")?;
        let tags = params.tag_specifications("replace-root-volume-task")?;
        tags::check_count(tags.len())?;
        Ok(Self { instance, with, rate, delete_old, tags, token: token.map(|token| (token, asked)) })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CreateReplaceRootVolumeTask";
        let mut needs = vec![
            Need::on(action, world, &format!("instance/{}", self.instance)),
            Need::on(action, world, "replace-root-volume-task/*").tagged(&self.tags),
        ];
        match &self.with {
            With::Snapshot(id) => {
                needs.push(Need::on(action, world, "volume/*"));
                needs.push(Need::on(action, world, &format!("snapshot/{id}")));
            }
            With::Image(id) => {
                needs.push(Need::on(action, world, "volume/*"));
                needs.push(Need::on(action, world, &format!("image/{id}")));
            }
            With::Volume(id) => needs.push(Need::on(action, world, &format!("volume/{id}"))),
            With::Launch => needs.push(Need::on(action, world, "volume/*")),
        }
        if !self.tags.is_empty() {
            let name = "replace-root-volume-task/*";
            needs.push(Need::tags_of_new(world, "CreateReplaceRootVolumeTask", name, &self.tags));
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let sim = &context.sim;
        // Two requests with one token are one task; and no snapshot is deleted while its data is taken.
        let _commit = sim.commit.lock().await;
        let source = {
            let world = sim.world();
            if let Some(known) = self.known(&world)? {
                return Ok(answer(context, &world, known));
            }
            self.check(&world, context)?
        };
        let data = match source.snapshot.as_ref().and_then(|snapshot| snapshot.image.clone()) {
            None => None,
            Some(image) => {
                let worker = sim.clone();
                let copied = tokio::task::spawn_blocking(move || {
                    let path = worker.store.private_copy(&image.path)?;
                    Ok::<_, crate::host::Error>(Image { path, window: image.window })
                })
                .await;
                let Ok(Ok(image)) = copied else {
                    tracing::error!("the snapshot's data cannot be taken: {copied:?}");
                    return Err(Ec2Error::internal());
                };
                Some(image)
            }
        };
        let mut world = sim.change();
        let volume = match (&source.volume, &source.snapshot) {
            (Some(id), _) => id.clone(),
            (None, Some(snapshot)) => {
                let mut volume = self.make(&world, snapshot, context)?;
                volumes::strike(&mut volume.origin, faults, context.now);
                volume.source = data;
                world.volumes.push(volume.clone());
                lifecycle::resume(sim, &volume);
                volume.id
            }
            (None, None) => return Err(Ec2Error::internal()),
        };
        let task = RootTask {
            id: TaskId::random(),
            snapshot: source.snapshot.map(|snapshot| snapshot.id),
            image: source.image,
            volume,
            delete_old: self.delete_old,
            started: context.now,
            completed: None,
            state: TaskState::Pending,
            loses_root: faults.iter().any(|hit| hit.fault.kind == Kind::RootDetached),
            token: self.token.clone(),
        };
        if !self.tags.is_empty() {
            world.tags.insert(task.id.to_string(), self.tags.clone());
        }
        world.root_tasks.push(task.clone());
        lifecycle::replace_root(sim, &task.id);
        Ok(answer(context, &world, &task))
    }

    fn known<'a>(&self, world: &'a World) -> Result<Option<&'a RootTask>, Ec2Error> {
        let Some((token, asked)) = &self.token else { return Ok(None) };
        let same = |task: &&RootTask| task.token.as_ref().is_some_and(|(known, _)| known == token);
        match world.root_tasks.iter().find(same) {
            Some(task) if task.token.as_ref().is_some_and(|(_, before)| before != asked) => {
                Err(mismatch("a resource whose parameters are different from those in this request"))
            }
            found => Ok(found),
        }
    }

    /// Passes when the root can be replaced by this now.
    fn check(&self, world: &World, context: &Context) -> Result<Source, Ec2Error> {
        let region = context.region();
        if instances::find(world, region, &self.instance)?.launch.is_some() {
            return Err(Ec2Error::new(
                "UnsupportedOperation",
                "The root volume of an instance that was launched is not replaced",
            ));
        }
        let Some(root) = world.volumes.iter().find(|volume| volume.boot) else {
            return Err(Ec2Error::new("UnsupportedOperation", "The root volume is not simulated"));
        };
        if world.root_tasks.iter().any(|task| !task.state.is_over()) {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("The root volume of instance '{}' is being replaced already.", self.instance),
            ));
        }
        let nothing = Source { snapshot: None, image: None, volume: None };
        match &self.with {
            With::Launch => Err(Ec2Error::new(
                "UnsupportedOperation",
                "The launch state of the root volume is not simulated: name a snapshot, an image or a volume",
            )),
            With::Snapshot(id) => {
                let snapshot = snapshots::usable(world, region, id, context.now)?;
                if snapshot.is_copy || !world.was_root(&snapshot.volume_id) {
                    return Err(Ec2Error::invalid_value(format!(
                        "The snapshot '{id}' was not created from a root volume of instance '{}'",
                        self.instance
                    )));
                }
                Ok(Source { snapshot: Some(snapshot.clone()), ..nothing })
            }
            With::Image(id) => {
                let image = world.image(region, id).filter(|image| image.is_visible_to(&context.account));
                let image = image.ok_or_else(|| images::not_found(id.as_str()))?;
                if image.architecture != world.scenario.instance.architecture || image.virtualization != "hvm"
                {
                    return Err(Ec2Error::invalid_value(format!(
                        "The image '{id}' has not the architecture and virtualization type of the instance"
                    )));
                }
                let of_root = image.volumes().find(|(device, _)| *device == image.root_device_name);
                let snapshot = of_root.and_then(|(_, ebs)| ebs.snapshot.as_ref());
                let known = snapshot.filter(|id| world.snapshot(region, id).is_some()).ok_or_else(|| {
                    Ec2Error::new(
                        "UnsupportedOperation",
                        format!("The data of the image '{id}' is not simulated"),
                    )
                })?;
                let snapshot = snapshots::usable(world, region, known, context.now)?;
                Ok(Source { snapshot: Some(snapshot.clone()), image: Some(id.clone()), volume: None })
            }
            With::Volume(id) => {
                let volume = volumes::find(world, region, id.as_str())?;
                if volume.stage != Stage::Ready || volume.attachment.is_some() {
                    return Err(volumes::incorrect_state(volume));
                }
                if volume.zone != root.zone {
                    return Err(Ec2Error::new(
                        "InvalidVolume.ZoneMismatch",
                        format!(
                            "The volume '{id}' is not in the same availability zone as instance '{}'",
                            self.instance
                        ),
                    ));
                }
                if root.encrypted && !volume.encrypted {
                    return Err(Ec2Error::invalid_value(format!(
                        "The volume '{id}' is not encrypted, unlike the root volume that it is to replace"
                    )));
                }
                Ok(Source { volume: Some(id.clone()), ..nothing })
            }
        }
    }

    /// A volume like the root, with this data.
    fn make(&self, world: &World, snapshot: &Snapshot, context: &Context) -> Result<Volume, Ec2Error> {
        let root = world.volumes.iter().find(|volume| volume.boot).ok_or_else(Ec2Error::internal)?;
        let id = VolumeId::random();
        let gib = root.size_gib().max(snapshot.size_gib);
        let size_bytes = if gib == snapshot.size_gib { snapshot.size_bytes } else { gib * GIB };
        let encrypted = root.encrypted || snapshot.encrypted;
        Ok(Volume {
            name: id.to_string(),
            id,
            size_bytes,
            stage: Stage::Creating,
            boot: false,
            snapshot_id: Some(snapshot.id.clone()),
            created: context.now,
            attachment: None,
            encrypted,
            kms_key: snapshot.kms_key_id.clone().or_else(|| root.kms_key.clone()),
            initialization_rate: self.rate,
            token: None,
            source: None,
            origin: volumes::origin_of(world, snapshot, self.rate, context.now),
            window: Some(world.free_window(size_bytes)),
            loop_device: None,
            disk: None,
            ..root.clone()
        })
    }
}

fn answer(context: &Context, world: &World, task: &RootTask) -> String {
    context.response(|xml| xml.node("replaceRootVolumeTask", |xml| write(xml, world, task)))
}

fn write(xml: &mut Xml, world: &World, task: &RootTask) {
    xml.text("replaceRootVolumeTaskId", &task.id);
    xml.text("instanceId", world.instance_id());
    xml.text("taskState", task.state.name());
    xml.text("startTime", time(task.started));
    xml.maybe("completeTime", task.completed.map(time));
    xml.tags(world.tags_of(task.id.as_str()));
    xml.maybe("imageId", task.image.as_ref());
    xml.maybe("snapshotId", task.snapshot.as_ref());
    xml.text("deleteReplacedRootVolume", task.delete_old);
}

pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new(
        "InvalidReplaceRootVolumeTaskID.NotFound",
        format!("The replace root volume task ID '{id}' does not exist"),
    )
}

/// DescribeReplaceRootVolumeTasks.
pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let action = "DescribeReplaceRootVolumeTasks";
        Query::parse(params, action, Some("ReplaceRootVolumeTaskId"), &["instance-id"]).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let here = context.region() == world.home() && context.account == world.account();
        let known = |id: &str| here && world.root_tasks.iter().any(|task| task.id.as_str() == id);
        self.0.check_ids(TaskId::PREFIX, "InvalidReplaceRootVolumeTaskID.Malformed", not_found, known)?;
        let instance = vec![world.instance_id().to_string()];
        let wanted = world
            .root_tasks
            .iter()
            .filter(|task| {
                let id = task.id.as_str();
                here && self.0.wants(id, world.tags_of(id), |name| match name {
                    "instance-id" => instance.clone(),
                    _ => vec![],
                })
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |task: &&RootTask| task.id.to_string());
        Ok(context.response(|xml| {
            xml.list("replaceRootVolumeTaskSet", page, |xml, task| write(xml, &world, task));
            xml.maybe("nextToken", token);
        }))
    }
}
