//! DescribeSnapshots, and what all actions on snapshots have in common.
//!
//! In: the account's snapshots. Out: those that are meant, with the progress of this moment. A snapshot of
//! another Region must never be found.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::params::Params;
use super::query::Query;
use super::xml::{Xml, time};
use crate::ids::{SnapshotId, VolumeId};
use crate::world::{Sizes, Snapshot, Tags, World};

const FILTERS: &[&str] = &[
    "description",
    "encrypted",
    "owner-alias",
    "owner-id",
    "progress",
    "snapshot-id",
    "start-time",
    "status",
    "storage-tier",
    "transfer-type",
    "volume-id",
    "volume-size",
];

/// A snapshot that does not exist.
pub fn not_found(id: &str) -> Ec2Error {
    Ec2Error::new("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist."))
}

/// The id in a request.
pub fn parse_id(id: &str) -> Result<SnapshotId, Ec2Error> {
    SnapshotId::parse(id).ok_or_else(|| {
        Ec2Error::new("InvalidSnapshotID.Malformed", format!("Invalid id: \"{id}\" (expecting \"snap-...\")"))
    })
}

/// `Description`, which may not be too long.
pub fn description(params: &mut Params) -> Result<String, Ec2Error> {
    let text = params.text("Description").unwrap_or_default();
    if text.chars().count() > 255 {
        return Err(Ec2Error::invalid_value("Description exceeds the maximum length of 255 characters"));
    }
    Ok(text)
}

pub fn find<'a>(world: &'a World, region: &str, id: &SnapshotId) -> Result<&'a Snapshot, Ec2Error> {
    world.snapshot(region, id).ok_or_else(|| not_found(id.as_str()))
}

/// The same, to change.
pub fn find_mut<'a>(
    world: &'a mut World,
    region: &str,
    id: &SnapshotId,
) -> Result<&'a mut Snapshot, Ec2Error> {
    find(world, region, id)?;
    let found = world.snapshots.get_mut(id);
    found.ok_or_else(|| not_found(id.as_str()))
}

/// A snapshot of this Region whose data can be used: it is completed and not in the archive.
pub fn usable<'a>(
    world: &'a World,
    region: &str,
    id: &SnapshotId,
    now: Timestamp,
) -> Result<&'a Snapshot, Ec2Error> {
    let snapshot = find(world, region, id)?;
    let state = snapshot.state(now);
    if state != "completed" {
        return Err(Ec2Error::new(
            "IncorrectState",
            format!("The snapshot '{id}' is '{state}'; it must be 'completed'."),
        ));
    }
    if snapshot.is_archived(now) {
        return Err(Ec2Error::new(
            "IncorrectState",
            format!("The snapshot '{id}' is archived. Restore it to the standard tier to use it."),
        ));
    }
    Ok(snapshot)
}

/// Fails when a Region would have more snapshots than it may.
pub fn check_room(world: &World, account: &str, region: &str, more: usize) -> Result<(), Ec2Error> {
    let most = world.scenario.limits.snapshots;
    let mine = |snapshot: &&Snapshot| snapshot.region == region && snapshot.owner == account;
    let here = || world.live().filter(mine).count();
    if most > 0 && here() + more > most {
        return Err(Ec2Error::new(
            "SnapshotLimitExceeded",
            format!("You have exceeded your maximum snapshot limit: {most}"),
        ));
    }
    Ok(())
}

/// DescribeSnapshots.
pub struct Describe {
    query: Query,
    owners: Vec<String>,
    restorable_by: Vec<String>,
}

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let query = Query::parse(params, "DescribeSnapshots", Some("SnapshotId"), FILTERS)?;
        Ok(Self { query, owners: params.list("Owner"), restorable_by: params.list("RestorableBy") })
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let now = context.now;
        let known = |snapshot: &Snapshot| {
            snapshot.region == context.region()
                && visible(&world, snapshot, now)
                && world.can_use(snapshot, &context.account, now)
        };
        let by_id = |id: &str| world.snapshots.numbered(&SnapshotId::parse(id)?);
        self.query.check_ids("snap-", "InvalidSnapshotID.Malformed", not_found, |id| {
            by_id(id).is_some_and(|(_, snapshot)| known(snapshot))
        })?;
        let from = self.query.paging().first_number()?;
        if world.scenario.limits.empty_pages
            && let Some(token) = self.query.paging().empty_before()
        {
            return Ok(context.response(|xml| {
                xml.list("snapshotSet", [(); 0], |_, ()| {});
                xml.text("nextToken", token);
            }));
        }
        let limit = world.scenario.limits.page_size;
        let size = self.query.paging().size(limit);
        let (mut page, mut token) = (Vec::new(), None);
        for (number, snapshot) in self.candidates(&world, from) {
            if !known(snapshot) || !self.wants(&world, context, snapshot) {
                continue;
            }
            if page.len() == size {
                token = Some(self.query.paging().token(number));
                break;
            }
            page.push(snapshot);
        }
        Ok(context.response(|xml| {
            xml.list("snapshotSet", page, |xml, snapshot| {
                write(xml, &context.account, snapshot, now);
            });
            xml.maybe("nextToken", token);
        }))
    }

    /// The snapshots among which those that are meant are, from a number on: as few as ids and volumes tell
    /// beforehand, so that nobody goes through a hundred thousand for one.
    fn candidates<'a>(
        &self,
        world: &'a World,
        from: u64,
    ) -> Box<dyn Iterator<Item = (u64, &'a Snapshot)> + 'a> {
        let all = &world.snapshots;
        let mut found: Vec<(u64, &Snapshot)> = if !self.query.ids.is_empty() {
            let ids = self.query.ids.iter().filter_map(|id| SnapshotId::parse(id));
            ids.filter_map(|id| all.numbered(&id)).collect()
        } else if let Some(volumes) = self.query.exact("volume-id") {
            let volumes = volumes.iter().filter_map(|id| VolumeId::parse(id));
            volumes.flat_map(|id| all.numbered_of_volume(&id).collect::<Vec<_>>()).collect()
        } else {
            return Box::new(all.from(from));
        };
        found.sort_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        Box::new(found.into_iter().filter(move |(number, _)| *number >= from))
    }

    fn wants(&self, world: &World, context: &Context, snapshot: &Snapshot) -> bool {
        let now = context.now;
        let owner =
            |name: &String| *name == snapshot.owner || (name == "self" && snapshot.owner == context.account);
        // Whoever owns it can restore it too.
        let restorable = |by: &String| match by.as_str() {
            "self" => true,
            "all" => snapshot.shared(now).is_some_and(|shared| shared.public) && world.is_public(snapshot),
            by => {
                snapshot.owner == by || snapshot.shared(now).is_some_and(|shared| shared.users.contains(by))
            }
        };
        (self.owners.is_empty() || self.owners.iter().any(owner))
            && (self.restorable_by.is_empty() || self.restorable_by.iter().any(restorable))
            && self.query.wants(snapshot.id.as_str(), seen_tags(snapshot, &context.account, now), |name| {
                field(snapshot, name, now)
            })
    }
}

/// The tags that an account sees: nobody else's.
pub fn seen_tags<'a>(snapshot: &'a Snapshot, account: &str, now: Timestamp) -> &'a Tags {
    static NONE: Tags = Tags::new();
    if snapshot.owner == account { snapshot.shown_tags(now) } else { &NONE }
}

/// EC2 is eventually consistent: a new snapshot may not be found for a while, a deleted one still be.
fn visible(world: &World, snapshot: &Snapshot, now: Timestamp) -> bool {
    let hidden = world.scenario.snapshots.visible_after;
    if snapshot.later.listed_until.is_some_and(|until| now >= until) {
        return false;
    }
    if snapshot.visible_from.is_some_and(|from| now < from) {
        return false;
    }
    hidden.is_zero() || snapshot.started.checked_add(hidden).is_ok_and(|from| from <= now)
}

fn field(snapshot: &Snapshot, name: &str, now: Timestamp) -> Vec<String> {
    let value = match name {
        "description" => snapshot.description.clone(),
        "encrypted" => snapshot.shown_encrypted(now).to_string(),
        "owner-id" => snapshot.owner.clone(),
        "progress" => snapshot.progress(now).percent,
        "snapshot-id" => snapshot.id.to_string(),
        "start-time" => time(snapshot.started),
        "status" => snapshot.state(now).into(),
        "storage-tier" => storage_tier(snapshot, now).into(),
        "transfer-type" => transfer_type(snapshot).into(),
        "volume-id" => snapshot.volume_id.to_string(),
        "volume-size" => snapshot.shown_gib(now).to_string(),
        _ => return vec![],
    };
    vec![value]
}

/// `archive` or `standard`.
pub fn storage_tier(snapshot: &Snapshot, now: Timestamp) -> &'static str {
    if snapshot.is_archived(now) { "archive" } else { "standard" }
}

fn transfer_type(snapshot: &Snapshot) -> &'static str {
    if snapshot.later.completion_minutes.is_some() { "time-based" } else { "standard" }
}

/// A snapshot as DescribeSnapshots shows it.
fn write(xml: &mut Xml, account: &str, snapshot: &Snapshot, now: Timestamp) {
    let progress = snapshot.progress(now);
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", progress.state);
    if progress.state == "error" {
        let unknown = "An internal error occurred while the snapshot was created";
        xml.text("statusMessage", snapshot.reason.as_deref().unwrap_or(unknown));
    } else if snapshot.is_unfinished_copy(now) {
        // Recorded of healthy copies: it is no error.
        xml.text("statusMessage", "Metadata not updated");
    }
    xml.text("startTime", time(snapshot.started));
    xml.text("progress", &progress.percent);
    xml.text("ownerId", &snapshot.owner);
    xml.text("volumeSize", snapshot.shown_gib(now));
    xml.text("description", &snapshot.description);
    xml.tags(seen_tags(snapshot, account, now));
    xml.text("encrypted", snapshot.shown_encrypted(now));
    if snapshot.shown_encrypted(now) {
        xml.maybe("kmsKeyId", snapshot.kms_key_id.as_ref());
        xml.text("sseType", "sse-kms");
    }
    xml.text("storageTier", storage_tier(snapshot, now));
    let expiry = snapshot.later.tiering.as_ref().and_then(crate::world::Tiering::expires);
    xml.maybe("restoreExpiryTime", expiry.filter(|end| now < *end).map(time));
    xml.text("transferType", transfer_type(snapshot));
    xml.maybe("completionDurationMinutes", snapshot.later.completion_minutes);
    if progress.state == "completed" {
        xml.text("completionTime", time(snapshot.completion()));
        if let Sizes::Known { full, .. } = snapshot.sizes {
            xml.text("fullSnapshotSizeInBytes", full);
        }
    }
}
