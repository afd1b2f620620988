//! ModifySnapshotTier, RestoreSnapshotTier, DescribeSnapshotTierStatus: the archive.
//!
//! In: a completed snapshot. Out: it moves to the archive or back, which takes its time. A snapshot that an
//! image is made of must never be archived.

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::query::Query;
use super::snapshots;
use super::xml::{Xml, time};
use crate::ids::SnapshotId;
use crate::world::{Move, Sharing, Snapshot, Tiering, World};

/// How many archived snapshots one volume has at most, and how many are archived and restored at once in a
/// Region. (EBS user guide.)
const MAX_OF_VOLUME: usize = 25;
const MAX_ARCHIVING: usize = 25;
const MAX_RESTORING: usize = 5;

fn too_many(text: String) -> Ec2Error {
    Ec2Error::new("ResourceLimitExceeded", text)
}

fn incorrect(id: &SnapshotId, why: &str) -> Ec2Error {
    Ec2Error::new("IncorrectState", format!("The snapshot '{id}' {why}"))
}

/// ModifySnapshotTier.
pub struct Archive(SnapshotId);

impl Archive {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        match params.choice("StorageTier", &["archive"])? {
            Some(_) => Ok(Self(id)),
            None => Err(Ec2Error::missing("StorageTier")),
        }
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:ModifySnapshotTier", world, &format!("snapshot/{}", self.0))]
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let now = context.now;
        let mut world = context.sim.change();
        archive(&mut world, context.region(), &self.0, now)?;
        Ok(context.response(|xml| {
            xml.text("snapshotId", &self.0);
            xml.text("tieringStartTime", time(now));
        }))
    }
}

fn archive(world: &mut World, region: &str, id: &SnapshotId, now: Timestamp) -> Result<(), Ec2Error> {
    let snapshot = snapshots::usable(world, region, id, now)?;
    let last = snapshot.later.tiering.as_ref();
    if last.is_some_and(|tiering| now < tiering.done() || tiering.expires().is_some()) {
        return Err(incorrect(id, "is being archived or restored"));
    }
    // Images that are all disabled do not keep it.
    let mut images = world.images.values();
    if let Some(image) = images.find(|image| image.region == region && !image.disabled && image.uses(id)) {
        return Err(Ec2Error::new(
            "InvalidSnapshot.InUse",
            format!("The snapshot {id} is currently in use by {}", image.id),
        ));
    }
    let volume = snapshot.volume_id.clone();
    let is_moving =
        |known: &Snapshot| known.later.tiering.as_ref().is_some_and(|tiering| now < tiering.done());
    let kept = |known: &&Snapshot| {
        let archive = |tiering: &Tiering| tiering.wanted == Move::Archive || tiering.is_archived(now);
        known.region == region && known.later.tiering.as_ref().is_some_and(archive)
    };
    if world.live().filter(kept).filter(|known| known.volume_id == volume).count() >= MAX_OF_VOLUME {
        return Err(too_many(format!("{MAX_OF_VOLUME} snapshots of {volume} are archived")));
    }
    if world.live().filter(kept).filter(|known| is_moving(known)).count() >= MAX_ARCHIVING {
        return Err(too_many(format!("{MAX_ARCHIVING} snapshots are being archived")));
    }
    let snapshot = snapshots::find(world, region, id)?;
    let takes = world.scenario.snapshots.time_to_complete(snapshot.size_bytes);
    let archived = now.checked_add(takes).unwrap_or(Timestamp::MAX);
    let snapshot = snapshots::find_mut(world, region, id)?;
    snapshot.later.tiering = Some(Tiering { wanted: Move::Archive, started: now, takes, archived });
    Ok(())
}

/// RestoreSnapshotTier.
pub struct Restore {
    id: SnapshotId,
    wanted: Move,
}

impl Restore {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        let id = snapshots::parse_id(&params.required("SnapshotId")?)?;
        let days: Option<u32> = params.number("TemporaryRestoreDays")?;
        let wanted = match (days, params.flag("PermanentRestore")?) {
            (None, true) => Move::Return,
            (Some(days), false) if (1..=180).contains(&days) => Move::Borrow(days),
            (Some(_), false) => {
                return Err(Ec2Error::invalid_value("TemporaryRestoreDays must be between 1 and 180"));
            }
            (Some(_), true) => {
                return Err(Ec2Error::new(
                    "InvalidParameterCombination",
                    "The parameter TemporaryRestoreDays cannot be used with PermanentRestore",
                ));
            }
            (None, false) => return Err(Ec2Error::missing("TemporaryRestoreDays or PermanentRestore")),
        };
        Ok(Self { id, wanted })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:RestoreSnapshotTier", world, &format!("snapshot/{}", self.id))]
    }

    pub fn act(self, context: &Context) -> Result<String, Ec2Error> {
        let now = context.now;
        let mut world = context.sim.change();
        let started = restore(&mut world, context.region(), &self.id, self.wanted, now)?;
        Ok(context.response(|xml| {
            xml.text("snapshotId", &self.id);
            xml.text("restoreStartTime", time(started));
            if let Move::Borrow(days) = self.wanted {
                xml.text("restoreDuration", days);
            }
            xml.text("isPermanentRestore", self.wanted == Move::Return);
        }))
    }
}

/// Says when the restore began.
fn restore(
    world: &mut World,
    region: &str,
    id: &SnapshotId,
    wanted: Move,
    now: Timestamp,
) -> Result<Timestamp, Ec2Error> {
    let snapshot = snapshots::find(world, region, id)?;
    let last = snapshot.later.tiering.clone().ok_or_else(|| incorrect(id, "is not archived"))?;
    let takes = world.scenario.snapshots.time_to_complete(snapshot.size_bytes);
    let next = match last.wanted {
        // It is there already, or will be: only how long it stays changes.
        Move::Borrow(_) if last.expires().is_some_and(|end| now < end) => Tiering { wanted, ..last },
        Move::Archive | Move::Borrow(_) if last.is_archived(now) => {
            let restoring = |known: &&Snapshot| {
                let of = |tiering: &Tiering| tiering.wanted != Move::Archive && now < tiering.done();
                known.region == region && known.later.tiering.as_ref().is_some_and(of)
            };
            if world.live().filter(restoring).count() >= MAX_RESTORING {
                return Err(too_many(format!("{MAX_RESTORING} snapshots are being restored")));
            }
            Tiering { wanted, started: now, takes, archived: last.expires().unwrap_or(last.archived) }
        }
        _ => return Err(incorrect(id, "is not archived")),
    };
    let started = next.started;
    let snapshot = snapshots::find_mut(world, region, id)?;
    // Archiving ended the sharing for good.
    snapshot.later.shared = Sharing::default();
    snapshot.later.tiering = Some(next);
    Ok(started)
}

const FILTERS: &[&str] = &["last-tiering-operation", "snapshot-id", "volume-id"];

/// DescribeSnapshotTierStatus.
pub struct Describe(Query);

impl Describe {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Query::parse(params, "DescribeSnapshotTierStatus", None, FILTERS).map(Self)
    }

    pub fn act(&self, context: &Context) -> Result<String, Ec2Error> {
        let now = context.now;
        let world = context.sim.world();
        let wanted = world
            .live()
            .filter(|snapshot| snapshot.region == context.region() && snapshot.owner == context.account)
            .filter(|snapshot| {
                let id = snapshot.id.as_str();
                self.0.wants(id, snapshot.shown_tags(now), |name| match name {
                    "snapshot-id" => vec![id.to_owned()],
                    "volume-id" => vec![snapshot.volume_id.to_string()],
                    "last-tiering-operation" => {
                        snapshot.later.tiering.iter().map(|tiering| tiering.status(now)).collect()
                    }
                    _ => vec![],
                })
            })
            .collect();
        let limit = world.scenario.limits.page_size;
        let (page, token) = self.0.page(wanted, limit, |snapshot: &&Snapshot| snapshot.id.to_string());
        Ok(context.response(|xml| {
            xml.list("snapshotTierStatusSet", page, |xml, snapshot| write(xml, snapshot, now));
            xml.maybe("nextToken", token);
        }))
    }
}

fn write(xml: &mut Xml, snapshot: &Snapshot, now: Timestamp) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", snapshot.state(now));
    xml.text("ownerId", &snapshot.owner);
    xml.tags(snapshot.shown_tags(now));
    xml.text("storageTier", snapshots::storage_tier(snapshot, now));
    if let Some(tiering) = &snapshot.later.tiering {
        xml.text("lastTieringStartTime", time(tiering.started));
        xml.text("lastTieringProgress", tiering.percent(now));
        xml.text("lastTieringOperationStatus", tiering.status(now));
        if now >= tiering.archived {
            xml.text("archivalCompleteTime", time(tiering.archived));
        }
        xml.maybe("restoreExpiryTime", tiering.expires().filter(|end| now < *end).map(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::test_snapshot;

    const HOME: &str = "us-east-1";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn an_archived_snapshot_cannot_be_used_until_it_is_back() {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let mut snapshot = test_snapshot(10, false);
        snapshot.later.shared.public = true;
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        let usable = |world: &World, now| snapshots::usable(world, HOME, &id, at(now)).is_ok();
        assert!(archive(&mut world, HOME, &id, at(1009)).is_err(), "it is pending");
        assert!(restore(&mut world, HOME, &id, Move::Return, at(1010)).is_err(), "it is not archived");
        archive(&mut world, HOME, &id, at(1010)).expect("completed");
        assert!(archive(&mut world, HOME, &id, at(1011)).is_err(), "it is on its way");
        assert!(usable(&world, 1011) && !usable(&world, 1012), "two seconds is the default");
        assert!(world.snapshots[&id].shared(at(1012)).is_none());
        restore(&mut world, HOME, &id, Move::Borrow(1), at(2000)).expect("archived");
        assert!(!usable(&world, 2001) && usable(&world, 2002) && !usable(&world, 2002 + 86_400));
        restore(&mut world, HOME, &id, Move::Return, at(3000)).expect("borrowed");
        assert!(usable(&world, 3000) && usable(&world, 1_000_000));
        assert!(!world.snapshots[&id].later.shared.public, "archiving ended that");
        assert!(restore(&mut world, HOME, &id, Move::Return, at(4000)).is_err(), "it is back");
        assert!(archive(&mut world, HOME, &id, at(4000)).is_ok());
    }

    #[test]
    fn the_archive_has_limits() {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let volume = crate::ids::VolumeId::random();
        let mut add = |volume: &crate::ids::VolumeId| {
            let snapshot = Snapshot { volume_id: volume.clone(), ..test_snapshot(0, false) };
            let id = snapshot.id.clone();
            world.snapshots.insert(snapshot);
            id
        };
        let ids: Vec<SnapshotId> = (0..26).map(|_| add(&volume)).collect();
        let others: Vec<SnapshotId> = (0..26).map(|_| add(&crate::ids::VolumeId::random())).collect();
        let code = |outcome: Result<(), Ec2Error>| outcome.err().map(|error| error.code);
        let limit = Some("ResourceLimitExceeded".to_owned());
        for id in &ids[..25] {
            archive(&mut world, HOME, id, at(2000)).expect("room");
        }
        assert_eq!(code(archive(&mut world, HOME, &others[0], at(2001))), limit, "25 at once");
        assert_eq!(code(archive(&mut world, HOME, &ids[25], at(3000))), limit, "25 of a volume");
        archive(&mut world, HOME, &others[0], at(3000)).expect("another volume's, and nothing is moving");
        for id in &ids[..5] {
            restore(&mut world, HOME, id, Move::Return, at(4000)).expect("room");
        }
        let sixth = |world: &mut World, now| restore(world, HOME, &ids[5], Move::Return, at(now)).map(|_| ());
        assert_eq!(code(sixth(&mut world, 4001)), limit, "5 at once");
        assert_eq!(code(sixth(&mut world, 4002)), None);
        archive(&mut world, HOME, &ids[25], at(5000)).expect("some are back");
    }
}
