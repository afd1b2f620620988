//! CreateTags, DeleteTags, DescribeTags.
//!
//! In: resource ids and tags. Out: the account's tags changed, or listed. A call over several resources must
//! never change some of them and then fail.

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::{images, instances, snapshots, volumes};
use crate::ids::{ImageId, SnapshotId};
use crate::world::{Tags, World};

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
        _ => "unknown",
    }
}

fn exists(world: &World, region: &str, id: &str) -> bool {
    let home = region == world.home();
    match resource_type(id) {
        "instance" => home && world.instance_id().as_str() == id,
        "volume" => home && world.ebs().any(|v| v.id.as_str() == id),
        "snapshot" => SnapshotId::parse(id).is_some_and(|id| world.snapshot(region, &id).is_some()),
        "image" => ImageId::parse(id).is_some_and(|id| world.image(region, &id).is_some()),
        _ => false,
    }
}

fn check_exists(world: &World, region: &str, id: &str) -> Result<(), Ec2Error> {
    let missing = match resource_type(id) {
        "instance" => instances::not_found,
        "volume" => volumes::not_found,
        "snapshot" => snapshots::not_found,
        "image" => images::not_found,
        _ => {
            return Err(Ec2Error::new("InvalidID", format!("The ID '{id}' is not valid")));
        }
    };
    if exists(world, region, id) { Ok(()) } else { Err(missing(id)) }
}

fn resources(params: &mut Params) -> Result<Vec<String>, Ec2Error> {
    let ids = params.list("ResourceId");
    if ids.is_empty() {
        return Err(Ec2Error::missing("ResourceId"));
    }
    Ok(ids)
}

fn needs(action: &'static str, world: &World, ids: &[String]) -> Vec<Need> {
    ids.iter().map(|id| Need::on(action, world, &format!("{}/{id}", resource_type(id)))).collect()
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
        needs("ec2:CreateTags", world, &self.ids)
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        for id in &self.ids {
            check_exists(&world, context.region(), id)?;
            let mut merged = world.tags_of(id).clone();
            merged.extend(self.tags.clone());
            check_count(merged.len())?;
        }
        for id in self.ids {
            world.tags.entry(id).or_default().extend(self.tags.clone());
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
        needs("ec2:DeleteTags", world, &self.ids)
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        for id in &self.ids {
            check_exists(&world, context.region(), id)?;
        }
        for id in &self.ids {
            let Some(tags) = world.tags.get_mut(id) else { continue };
            tags.retain(|key, value| {
                !self.tags.is_empty()
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
        for (id, tags) in world.tags.iter().filter(|(id, _)| exists(&world, context.region(), id)) {
            for (key, value) in tags {
                // tag:KEY here means this very tag.
                let this = Tags::from([(key.clone(), value.clone())]);
                let wanted = self.0.wants(id, &this, |name| match name {
                    "key" => vec![key.clone()],
                    "value" => vec![value.clone()],
                    "resource-id" => vec![id.clone()],
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
