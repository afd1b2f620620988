//! CopyImage: another image of the same data, here or in another Region.
//!
//! In: an image that the account sees. Out: an image that is `pending` until its snapshots, which are copies of the
//! source's, are completed. A copy of which one snapshot fails must never become `available`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::super::context::Context;
use super::super::error::Ec2Error;
use super::super::iam::Need;
use super::super::params::Params;
use super::super::volumes::mismatch;
use super::super::{copy, snapshots, tags};
use super::register::{check_name, check_unused};
use super::{not_found, parse_id};
use crate::faults::{Hit, Kind};
use crate::ids::{ImageId, SnapshotId};
use crate::world::{Ami, Copied, Sharing, Snapshot, Tags, Target, World};

pub struct Copy {
    source_region: String,
    source: ImageId,
    name: String,
    description: Option<String>,
    encrypted: Option<bool>,
    key: Option<String>,
    minutes: Option<u32>,
    copy_tags: bool,
    tags: Tags,
    snapshot_tags: Tags,
    token: Option<(String, String)>,
}

impl Copy {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let token = params.text("ClientToken");
        let asked = format!("{:?}", params.all());
        let name = params.required("Name")?;
        check_name(&name)?;
        let source_region = params.required("SourceRegion")?;
        let source = parse_id(&params.required("SourceImageId")?)?;
        for elsewhere in
            ["DestinationOutpostArn", "DestinationAvailabilityZoneId", "DestinationAvailabilityZone"]
        {
            if params.text(elsewhere).is_some() {
                return Err(Ec2Error::invalid_value(format!(
                    "The {elsewhere} parameter is not supported: images are in Regions"
                )));
            }
        }
        let description = Some(snapshots::description(params)?).filter(|text| !text.is_empty());
        let copy::Encryption { encrypted, key } = copy::Encryption::parse(params)?;
        let minutes = copy::minutes(params, "SnapshotCopyCompletionDurationMinutes")?;
        let copy_tags = params.flag("CopyImageTags")?;
        let mut by_kind = params.tags_by_kind(&["image", "snapshot"])?;
        let mut of = |kind: &str| by_kind.remove(kind).unwrap_or_default();
        let (tags, snapshot_tags) = (of("image"), of("snapshot"));
        tags::check_count(tags.len())?;
        tags::check_count(snapshot_tags.len())?;
        let token = token.map(|token| (token, asked));
        Ok(Self {
            source_region,
            source,
            name,
            description,
            encrypted,
            key,
            minutes,
            copy_tags,
            tags,
            snapshot_tags,
            token,
        })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let action = "ec2:CopyImage";
        let source = Need::on(action, world, &format!("image/{}", self.source));
        let tags = self.tags_of_image(world);
        let mut needs = vec![
            source.in_region(&self.source_region),
            Need::on(action, world, "image/*").tagged(&tags),
            Need::on(action, world, "snapshot/*").tagged(&self.snapshot_tags),
        ];
        for (name, tags) in [("image/*", &tags), ("snapshot/*", &self.snapshot_tags)] {
            if !tags.is_empty() {
                needs.push(Need::tags_of_new(world, "CopyImage", name, tags));
            }
        }
        needs
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        // Without it a deletion could remove a source's data before a copy is known to need it.
        let _commit = context.sim.commit.lock().await;
        let mut world = context.sim.change();
        let (region, now) = (context.region(), context.now);
        if let Some(known) = self.known(&world, region)? {
            return Ok(context.response(|xml| xml.text("imageId", &known.id)));
        }
        let (mut image, mut copies) = self.make(&world, context)?;
        for fault in faults.iter().map(|hit| &hit.fault) {
            for copy in &mut copies {
                match fault.kind {
                    Kind::SnapshotError => copy.fails = true,
                    Kind::SlowProgress => copy.takes = fault.slowed(copy.takes),
                    _ => {}
                }
            }
        }
        let failed = copies.iter().find(|copy| copy.fails);
        image.copied = Some(Copied {
            region: self.source_region.clone(),
            image: self.source.clone(),
            takes: copies.iter().map(|copy| copy.takes).max().unwrap_or(Duration::ZERO),
            failure: failed.map(|copy| {
                let why = copy.reason.as_deref().unwrap_or("An internal error has occurred");
                format!("The snapshot {} could not be copied: {why}", copy.id)
            }),
            token: self.token.clone(),
        });
        image.created = now;
        let id = image.id.clone();
        let tags = self.tags_of_image(&world);
        if !tags.is_empty() {
            world.tags.insert(id.to_string(), tags);
        }
        let made: Vec<String> = copies.iter().map(|copy| copy.id.to_string()).collect();
        context.sim.note(context.number, |entry| entry.snapshot_ids = made);
        for copy in copies {
            world.snapshots.insert(copy);
        }
        world.images.insert(id.clone(), image);
        Ok(context.response(|xml| xml.text("imageId", &id)))
    }

    /// The image that an earlier request with the same token made.
    fn known<'a>(&self, world: &'a World, region: &str) -> Result<Option<&'a Ami>, Ec2Error> {
        let Some((token, asked)) = &self.token else { return Ok(None) };
        let before = |image: &'a Ami| {
            let (known, asked) = image.copied.as_ref()?.token.as_ref()?;
            (known == token && image.region == region).then_some((image, asked))
        };
        match world.images.values().find_map(before) {
            Some((image, before)) if before == asked => Ok(Some(image)),
            Some(_) => Err(mismatch("a resource whose parameters are different from those in this request")),
            None => Ok(None),
        }
    }

    fn tags_of_image(&self, world: &World) -> Tags {
        let mut tags = Tags::new();
        if self.copy_tags {
            let own = world.tags_of(self.source.as_str()).iter();
            let own = own.filter(|(key, _)| !key.starts_with("aws:"));
            tags.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        }
        tags.extend(self.tags.clone());
        tags
    }

    /// The image and the copies of its snapshots, when it may be copied.
    fn make(&self, world: &World, context: &Context) -> Result<(Ami, Vec<Snapshot>), Ec2Error> {
        let (region, now) = (context.region(), context.now);
        if !world.regions().any(|known| known == self.source_region) {
            return Err(Ec2Error::invalid_value(format!(
                "Value ({}) for parameter sourceRegion is invalid. It is not a Region.",
                self.source_region
            )));
        }
        let source = world.image(&self.source_region, &self.source);
        let source = source.filter(|image| image.is_visible_to(&context.account));
        let source = source.ok_or_else(|| not_found(self.source.as_str()))?;
        if source.state(now) != "available" {
            return Err(Ec2Error::new(
                "IncorrectState",
                format!("The image '{}' is '{}'; it must be 'available'.", self.source, source.state(now)),
            ));
        }
        check_unused(world, region, &self.name)?;
        let id = ImageId::random();
        let mut copies: BTreeMap<SnapshotId, Snapshot> = BTreeMap::new();
        let mut mapping = source.mapping.clone();
        for mapped in &mut mapping {
            let Target::Ebs(ebs) = &mut mapped.target else { continue };
            let Some(of) = ebs.snapshot.take() else { continue };
            if world.snapshot(&self.source_region, &of).is_none() {
                return Err(Ec2Error::new(
                    "InvalidRequest",
                    "The storage for the ami is not available in the source Region.",
                ));
            }
            if !copies.contains_key(&of) {
                let copy = self.copy_of(&of, &id, now).make(world, &context.account, region, now)?;
                copies.insert(of.clone(), copy);
            }
            let copy = &copies[&of];
            ebs.encrypted = copy.encrypted;
            ebs.snapshot = Some(copy.id.clone());
        }
        copy::check_copies(world, &context.account, region, now, copies.len())?;
        snapshots::check_room(world, &context.account, region, copies.len())?;
        let image = Ami {
            id,
            region: region.to_owned(),
            name: self.name.clone(),
            description: self.description.clone(),
            owner: context.account.clone(),
            owner_alias: None,
            shared: Sharing::default(),
            mapping,
            deprecate_at: None,
            visible_from: None,
            ..source.clone()
        };
        Ok((image, copies.into_values().collect()))
    }

    fn copy_of(&self, of: &SnapshotId, to: &ImageId, now: Timestamp) -> copy::Copy {
        let description = format!(
            "Copied for DestinationAmi {to} from SourceAmi {} for SourceSnapshot {of}. Task created on {}.",
            self.source,
            now.as_millisecond()
        );
        let encryption = copy::Encryption { encrypted: self.encrypted, key: self.key.clone() };
        copy::Copy::of(&self.source_region, of, description, encryption, self.minutes, &self.snapshot_tags)
    }
}
