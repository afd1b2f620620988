//! ListSnapshotsInRecycleBin, RestoreSnapshotFromRecycleBin.
//!
//! In: what DeleteSnapshot put into the bin. Out: a little about it, or the snapshot as it was. Tags and state of
//! what is in the bin must never be told.

use std::sync::Arc;

use jiff::Timestamp;

use super::context::Context;
use super::delete;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::snapshots::{self, not_found};
use super::xml::time;
use crate::ids::SnapshotId;
use crate::sim::Sim;
use crate::world::{Snapshot, World};

/// ListSnapshotsInRecycleBin.
pub struct List(Query);

impl List {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        if params.any("Filter.") {
            return Err(Ec2Error::new("UnknownParameter", "The parameter Filter is not recognized"));
        }
        Query::parse(params, "ListSnapshotsInRecycleBin", Some("SnapshotId"), &[]).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let world = context.sim.world();
        let binned = |id: &SnapshotId| world.binned(context.region(), &context.account, id, context.now);
        self.0.check_ids("snap-", "InvalidSnapshotID.Malformed", not_found, |id| {
            SnapshotId::parse(id).is_some_and(|id| binned(&id).is_some())
        })?;
        let kept: Vec<_> = world.bin.values().filter_map(|snapshot| binned(&snapshot.id)).collect();
        let wanted = kept
            .into_iter()
            .filter(|(snapshot, _)| self.0.wants(snapshot.id.as_str(), &snapshot.tags, |_| vec![]))
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |(snapshot, _)| snapshot.id.to_string());
        Ok(context.response(|xml| {
            xml.list("snapshotSet", page, |xml, (snapshot, binned)| {
                xml.text("snapshotId", &snapshot.id);
                xml.text("recycleBinEnterTime", time(binned.entered));
                xml.text("recycleBinExitTime", time(binned.until));
                xml.text("description", &snapshot.description);
                xml.text("volumeId", &snapshot.volume_id);
            });
            xml.maybe("nextToken", token);
        }))
    }
}

/// RestoreSnapshotFromRecycleBin.
pub struct Restore(SnapshotId);

impl Restore {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        snapshots::parse_id(&params.required("SnapshotId")?).map(Self)
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:RestoreSnapshotFromRecycleBin", world, &format!("snapshot/{}", self.0))]
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let mut world = context.sim.change();
        world
            .binned(context.region(), &context.account, &self.0, context.now)
            .ok_or_else(|| not_found(self.0.as_str()))?;
        world.restore_from_bin(&self.0, context.now);
        let snapshot = snapshots::find(&world, context.region(), &self.0)?;
        Ok(context.response(|xml| {
            xml.text("snapshotId", &snapshot.id);
            xml.text("description", &snapshot.description);
            xml.text("encrypted", snapshot.encrypted);
            xml.text("ownerId", &snapshot.owner);
            let progress = snapshot.progress(context.now);
            xml.text("progress", progress.percent);
            xml.text("startTime", time(snapshot.started));
            // Also where it takes no time at all: that is what the call says.
            xml.text("status", "recovering");
            xml.text("volumeId", &snapshot.volume_id);
            xml.text("volumeSize", snapshot.size_gib);
            if snapshot.encrypted {
                xml.text("sseType", "sse-kms");
            }
        }))
    }
}

/// Gives up what has been in the bin for long enough. `commit` must be held.
pub async fn purge(sim: &Arc<Sim>, now: Timestamp) {
    let gone: Vec<_> = {
        // Looked at first: a change would have the state written again.
        let expired = sim.world().expired_in_bin(now);
        if expired.is_empty() {
            return;
        }
        let mut world = sim.change();
        let removed: Vec<Snapshot> = expired.iter().filter_map(|id| world.bin.remove(id)).collect();
        removed.into_iter().filter_map(|snapshot| delete::left_of(&world, snapshot)).collect()
    };
    delete::free(sim, gone).await;
}
