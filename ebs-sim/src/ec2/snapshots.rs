//! DescribeSnapshots and DeleteSnapshot.
//!
//! In: the account's snapshots. Out: those that are meant, with the progress of this moment. An image must
//! never be removed while another snapshot of its set still needs it.

use jiff::Timestamp;

use super::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::xml::{Xml, time};
use crate::host::Window;
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
        let mine =
            |names: &[String]| names.is_empty() || names.iter().any(|name| name == "self" || name == account);
        let wanted = known
            .into_iter()
            .filter(|snapshot| {
                let id = snapshot.id.as_str();
                let field = |name: &str| field(&world, snapshot, name, now);
                mine(&self.owners)
                    && (mine(&self.restorable_by) || self.restorable_by.iter().any(|n| n == "all"))
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
        "storage-tier" | "transfer-type" => "standard".into(),
        "volume-id" => snapshot.volume_id.to_string(),
        "volume-size" => snapshot.size_gib.to_string(),
        _ => return vec![],
    };
    vec![value]
}

/// A snapshot as DescribeSnapshots shows it.
fn write(xml: &mut Xml, world: &World, snapshot: &Snapshot, now: Timestamp) {
    let progress = snapshot.progress(now);
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", progress.state);
    if progress.state == "error" {
        xml.text("statusMessage", "An internal error occurred while the snapshot was created");
    }
    xml.text("startTime", time(snapshot.started));
    xml.text("progress", &progress.percent);
    xml.text("ownerId", &world.scenario.instance.account_id);
    xml.text("volumeSize", snapshot.size_gib);
    xml.text("description", &snapshot.description);
    xml.tags(world.tags_of(snapshot.id.as_str()));
    xml.text("encrypted", snapshot.encrypted);
    if snapshot.encrypted {
        xml.text("kmsKeyId", super::volumes::kms_key(world));
        xml.text("sseType", "sse-kms");
    }
    xml.text("storageTier", "standard");
    xml.text("transferType", "standard");
    if progress.state == "completed" {
        xml.text("completionTime", time(snapshot.completion()));
        if let Sizes::Known { full, .. } = snapshot.sizes {
            xml.text("fullSnapshotSizeInBytes", full);
        }
    }
}

/// DeleteSnapshot.
pub struct Delete {
    id: SnapshotId,
}

impl Delete {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = params.required("SnapshotId")?;
        match SnapshotId::parse(&id) {
            Some(id) => Ok(Self { id }),
            None => Err(Ec2Error::new(
                "InvalidSnapshotID.Malformed",
                format!("Invalid id: \"{id}\" (expecting \"snap-...\")"),
            )),
        }
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        let resource = format!("snapshot/{}", self.id);
        vec![Need::on("ec2:DeleteSnapshot", world, &resource)]
    }

    pub async fn act(self, context: &Context) -> Result<String, Ec2Error> {
        // An image that a creation is about to share must not be judged unused.
        let _commit = context.sim.commit.lock().await;
        let (image, kept) = {
            let mut world = context.sim.change();
            let known = world.snapshot(context.region(), &self.id).is_some();
            let Some(gone) = known.then(|| world.snapshots.shift_remove(&self.id)).flatten() else {
                return Err(not_found(self.id.as_str()));
            };
            world.tags.remove(self.id.as_str());
            let Some(image) = gone.image else {
                return Ok(context.done());
            };
            let kept: Vec<Window> = world
                .snapshots
                .values()
                .filter_map(|snapshot| snapshot.image.as_ref())
                .filter(|other| other.path == image.path)
                .map(|other| other.window)
                .collect();
            (image, kept)
        };
        let sim = context.sim.clone();
        let freed = tokio::task::spawn_blocking(move || {
            if kept.is_empty() {
                std::fs::remove_file(&image.path).map_err(|error| error.to_string())
            } else {
                sim.store.trim(&image.path, &kept).map_err(|error| error.to_string())
            }
        })
        .await;
        if let Ok(Err(error)) = freed {
            tracing::warn!("the space of {} is not freed: {error}", self.id);
        }
        Ok(context.done())
    }
}
