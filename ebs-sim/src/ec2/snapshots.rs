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
use crate::ids::SnapshotId;
use crate::world::{Sizes, Snapshot, World};

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
    let found = world.snapshots.get_mut(id).filter(|snapshot| snapshot.region == region);
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
    let state = snapshot.progress(now).state;
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
pub fn check_room(world: &World, region: &str, more: usize) -> Result<(), Ec2Error> {
    let most = world.scenario.limits.snapshots;
    let here = || world.snapshots.values().filter(|snapshot| snapshot.region == region).count();
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
        let known: Vec<&Snapshot> = world
            .snapshots
            .values()
            .filter(|snapshot| snapshot.region == context.region() && visible(&world, snapshot, now))
            .collect();
        self.query.check_ids("snap-", "InvalidSnapshotID.Malformed", not_found, |id| {
            known.iter().any(|snapshot| snapshot.id.as_str() == id)
        })?;
        let account = &world.scenario.instance.account_id;
        let mine = |name: &String| name == "self" || name == account;
        // Whoever owns it can restore it too.
        let restorable = |snapshot: &Snapshot, by: &String| {
            mine(by)
                || snapshot
                    .shared(now)
                    .is_some_and(|shared| if by == "all" { shared.public } else { shared.users.contains(by) })
        };
        let wanted = known
            .into_iter()
            .filter(|snapshot| {
                let id = snapshot.id.as_str();
                let field = |name: &str| field(&world, snapshot, name, now);
                (self.owners.is_empty() || self.owners.iter().any(mine))
                    && (self.restorable_by.is_empty()
                        || self.restorable_by.iter().any(|by| restorable(snapshot, by)))
                    && self.query.wants(id, world.tags_of(id), field)
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.query.page(wanted, limit, |s: &&Snapshot| s.id.to_string());
        Ok(context.response(|xml| {
            xml.list("snapshotSet", page, |xml, snapshot| {
                write(xml, &world, snapshot, now);
            });
            xml.maybe("nextToken", token);
        }))
    }
}

/// EC2 is eventually consistent: a new snapshot may not be found for a while.
fn visible(world: &World, snapshot: &Snapshot, now: Timestamp) -> bool {
    let hidden = world.scenario.snapshots.visible_after;
    if snapshot.visible_from.is_some_and(|from| now < from) {
        return false;
    }
    hidden.is_zero() || snapshot.started.checked_add(hidden).is_ok_and(|from| from <= now)
}

fn field(world: &World, snapshot: &Snapshot, name: &str, now: Timestamp) -> Vec<String> {
    let progress = snapshot.progress(now);
    let value = match name {
        "description" => snapshot.description.clone(),
        "encrypted" => snapshot.encrypted.to_string(),
        "owner-id" => world.scenario.instance.account_id.clone(),
        "progress" => progress.percent,
        "snapshot-id" => snapshot.id.to_string(),
        "start-time" => time(snapshot.started),
        "status" => progress.state.into(),
        "storage-tier" => storage_tier(snapshot, now).into(),
        "transfer-type" => transfer_type(snapshot).into(),
        "volume-id" => snapshot.volume_id.to_string(),
        "volume-size" => snapshot.size_gib.to_string(),
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
fn write(xml: &mut Xml, world: &World, snapshot: &Snapshot, now: Timestamp) {
    let progress = snapshot.progress(now);
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", progress.state);
    if progress.state == "error" {
        let unknown = "An internal error occurred while the snapshot was created";
        xml.text("statusMessage", snapshot.reason.as_deref().unwrap_or(unknown));
    }
    xml.text("startTime", time(snapshot.started));
    xml.text("progress", &progress.percent);
    xml.text("ownerId", &world.scenario.instance.account_id);
    xml.text("volumeSize", snapshot.size_gib);
    xml.text("description", &snapshot.description);
    xml.tags(world.tags_of(snapshot.id.as_str()));
    xml.text("encrypted", snapshot.encrypted);
    if snapshot.encrypted {
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
