//! CreateTags, DeleteTags, DescribeTags.
//!
//! In: resource ids and tags. Out: the account's tags changed, or listed. A call over several resources must
//! never change some of them and then fail.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::{images, instances, replace_root, snapshots, volumes};
use crate::faults::{Hit, Kind};
use crate::ids::{ImageId, InstanceId, SnapshotId};
use crate::world::{Snapshot, Tags, World};

/// Most tags that a resource may have.
const MAX_TAGS: usize = 50;

/// Fails when a resource would have more tags than it may.
pub fn check_count(count: usize) -> Result<(), Ec2Error> {
    if count > MAX_TAGS {
        return Err(Ec2Error::new(
            "TagLimitExceeded",
            format!("You have reached the maximum number of tags allowed per resource: {MAX_TAGS}"),
        ));
    }
    Ok(())
}

fn resource_type(id: &str) -> &'static str {
    match id.split('-').next() {
        Some("i") => "instance",
        Some("vol") => "volume",
        Some("snap") => "snapshot",
        Some("ami") => "image",
        Some("replacevol") => "replace-root-volume-task",
        _ => "unknown",
    }
}

fn exists(world: &World, context: &Context, id: &str) -> bool {
    let region = context.region();
    let home = region == world.home() && context.account == world.account();
    match resource_type(id) {
        "instance" => {
            context.account == world.account()
                && InstanceId::parse(id).is_some_and(|id| instances::find(world, region, &id).is_ok())
        }
        "replace-root-volume-task" => home && world.root_tasks.iter().any(|task| task.id.as_str() == id),
        "volume" => home && world.ebs().any(|v| v.id.as_str() == id),
        // Those in the Recycle Bin too: their tags can be changed.
        "snapshot" => SnapshotId::parse(id).is_some_and(|id| {
            let own = |snapshot: &Snapshot| snapshot.owner == context.account;
            world.snapshot(region, &id).is_some_and(own)
                || world.binned(region, &context.account, &id, context.now).is_some()
        }),
        "image" => ImageId::parse(id)
            .is_some_and(|id| world.image(region, &id).is_some() && context.account == world.account()),
        _ => false,
    }
}

fn check_exists(world: &World, context: &Context, id: &str) -> Result<(), Ec2Error> {
    let missing = match resource_type(id) {
        "instance" => instances::not_found,
        "volume" => volumes::not_found,
        "snapshot" => snapshots::not_found,
        "image" => images::not_found,
        "replace-root-volume-task" => replace_root::not_found,
        _ => {
            return Err(Ec2Error::new("InvalidID", format!("The ID '{id}' is not valid")));
        }
    };
    if exists(world, context, id) { Ok(()) } else { Err(missing(id)) }
}

/// Before a snapshot's tags change: what Describe calls go on showing, where they are late.
fn remember(world: &mut World, faults: &[Hit], id: &str, now: Timestamp) {
    let late = faults.iter().find(|hit| hit.fault.kind == Kind::LateTags);
    let delay = late.map_or(world.scenario.snapshots.tags_visible_after, |hit| hit.fault.delay());
    let snapshot = SnapshotId::parse(id).and_then(|id| world.snapshots.get_mut(&id));
    let Some(snapshot) = snapshot.filter(|_| !delay.is_zero()) else { return };
    let shown = snapshot.shown_tags(now).clone();
    snapshot.later.old_tags = now.checked_add(delay).ok().map(|until| (shown, until));
}

fn resources(params: &mut Params) -> Result<Vec<String>, Ec2Error> {
    let ids = params.list("ResourceId");
    if ids.is_empty() {
        return Err(Ec2Error::missing("ResourceId"));
    }
    Ok(ids)
}

fn needs(action: &'static str, world: &World, ids: &[String], tags: &Tags) -> Vec<Need> {
    let need = |id: &String| Need::on(action, world, &format!("{}/{id}", resource_type(id))).tagged(tags);
    ids.iter().map(need).collect()
}

/// CreateTags.
pub struct Create {
    ids: Vec<String>,
    tags: Tags,
}

impl Create {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let ids = resources(params)?;
        let tags = params.tags("Tag")?;
        if tags.is_empty() {
            return Err(Ec2Error::missing("Tag"));
        }
        Ok(Self { ids, tags })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        needs("ec2:CreateTags", world, &self.ids, &self.tags)
    }

    pub fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        for id in &self.ids {
            check_exists(&world, context, id)?;
            let mut merged = world.tags_of(id).clone();
            merged.extend(self.tags.clone());
            check_count(merged.len())?;
        }
        for id in self.ids {
            remember(&mut world, faults, &id, context.now);
            if let Some(tags) = world.tags_of_mut(&id) {
                tags.extend(self.tags.clone());
            }
        }
        Ok(context.done())
    }
}

/// DeleteTags.
pub struct Delete {
    ids: Vec<String>,
    /// A value that is given must match; no tags at all means all of them.
    tags: Vec<(String, Option<String>)>,
}

impl Delete {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self { ids: resources(params)?, tags: params.key_values("Tag")? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let named = self.tags.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()));
        needs("ec2:DeleteTags", world, &self.ids, &named.collect())
    }

    pub fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        for id in &self.ids {
            check_exists(&world, context, id)?;
        }
        for id in &self.ids {
            remember(&mut world, faults, id, context.now);
            let Some(tags) = world.tags_of_mut(id) else { continue };
            tags.retain(|key, value| {
                // AWS's own stay: nobody else can take them away.
                key.starts_with("aws:")
                    || !self.tags.is_empty()
                        && !self
                            .tags
                            .iter()
                            .any(|(gone, only)| gone == key && only.as_ref().is_none_or(|only| only == value))
            });
        }
        Ok(context.done())
    }
}

const FILTERS: &[&str] = &["key", "resource-id", "resource-type", "value"];

/// DescribeTags.
pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Query::parse(params, "DescribeTags", None, FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let mut found = Vec::new();
        let others = world.tags.keys();
        let others = others.map(|id| (id.as_str(), world.shown_tags_of_volume(id, context.now)));
        let snapshots = world.snapshots.values().chain(world.bin.values());
        let snapshots = snapshots.map(|snapshot| (snapshot.id.as_str(), snapshot.shown_tags(context.now)));
        for (id, tags) in others.chain(snapshots).filter(|(id, _)| exists(&world, context, id)) {
            for (key, value) in tags {
                // tag:KEY here means this very tag.
                let this = Tags::from([(key.clone(), value.clone())]);
                let wanted = self.0.wants(id, &this, |name| match name {
                    "key" => vec![key.clone()],
                    "value" => vec![value.clone()],
                    "resource-id" => vec![id.to_owned()],
                    "resource-type" => vec![resource_type(id).into()],
                    _ => vec![],
                });
                if wanted {
                    found.push((id, key, value));
                }
            }
        }
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(found, limit, |(id, key, _)| format!("{id} {key}"));
        Ok(context.response(|xml| {
            xml.list("tagSet", page, |xml, (id, key, value)| {
                xml.text("resourceId", id);
                xml.text("resourceType", resource_type(id));
                xml.text("key", key);
                xml.text("value", value);
            });
            xml.maybe("nextToken", token);
        }))
    }
}
