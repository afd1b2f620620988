//! DeleteSnapshot, and giving up what snapshots needed.
//!
//! In: a snapshot. Out: it is gone or in the Recycle Bin, and so is its data where nobody else needs it. An image must never be
//! removed or trimmed where another snapshot of its set, or a copy, still needs it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::bin;
use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::snapshots::{self, not_found};
use crate::faults::{Hit, Kind};
use crate::ids::SnapshotId;
use crate::sim::Sim;
use crate::window::Window;
use crate::world::{Image, Snapshot, State, World};

/// The tag by which AWS Backup knows what is its own.
const BACKUP: &str = "aws:backup:source-resource";

/// DeleteSnapshot.
pub struct Delete {
    id: SnapshotId,
}

impl Delete {
    pub fn parse(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self { id: snapshots::parse_id(&params.required("SnapshotId")?)? })
    }

    pub fn needs(&self, world: &World) -> Vec<Need> {
        vec![Need::on("ec2:DeleteSnapshot", world, &format!("snapshot/{}", self.id))]
    }

    pub async fn act(self, context: &Context, faults: &[Hit]) -> Result<String, Ec2Error> {
        // Without it an image could be removed that a copy is about to share.
        let _commit = context.sim.commit.lock().await;
        let gone = {
            let mut world = context.sim.change();
            check(&world, context.region(), &self.id, context.now)?;
            let late = faults.iter().find(|hit| hit.fault.kind == Kind::LateDeletion);
            let listed = late.map_or(world.scenario.snapshots.listed_after_deletion, |hit| hit.fault.delay());
            forget(&mut world, &self.id, context.now, listed)
        };
        free(&context.sim, gone).await;
        bin::purge(&context.sim, context.now).await;
        Ok(context.done())
    }
}

/// Fails when the snapshot is not there, locked, or an image's.
pub fn check(world: &World, region: &str, id: &SnapshotId, now: Timestamp) -> Result<(), Ec2Error> {
    let snapshot = world.snapshot(region, id).ok_or_else(|| not_found(id.as_str()))?;
    if let Some(image) = world.images.values().find(|image| image.region == region && image.uses(id)) {
        return Err(Ec2Error::new(
            "InvalidSnapshot.InUse",
            format!("The snapshot {id} is currently in use by {}", image.id),
        ));
    }
    if snapshot.tags.contains_key(BACKUP) {
        return Err(Ec2Error::invalid_value(format!(
            "The snapshot {id} is managed by the AWS Backup service and cannot be deleted via EC2 APIs. If you \
             wish to delete it, do so via the Backup console."
        )));
    }
    if snapshot.lock(now).is_some_and(|lock| lock.state(now) != State::Expired) {
        return Err(Ec2Error::new(
            "SnapshotLocked",
            format!("The snapshot {id} is locked and cannot be deleted"),
        ));
    }
    Ok(())
}

/// What is left of a snapshot that is no longer known: its image, and what others need of it.
pub struct Gone {
    id: SnapshotId,
    image: Image,
    kept: Vec<Window>,
}

/// Takes a snapshot out of the account: into the Recycle Bin, where a rule means it. DescribeSnapshots lists it
/// for as long as `listed` says.
pub fn forget(world: &mut World, id: &SnapshotId, now: Timestamp, listed: Duration) -> Option<Gone> {
    let snapshot = world.snapshots.get(id)?.clone();
    let until = now.checked_add(listed).unwrap_or(Timestamp::MAX);
    if until > now {
        // It keeps its place in the list, without its data.
        let ghost = world.snapshots.get_mut(id)?;
        ghost.image = None;
        ghost.later.listed_until = Some(until);
    } else {
        world.snapshots.remove(id);
    }
    if snapshot.state(now) == "pending" {
        world.doomed.retain(|(_, until)| now < *until);
        world.doomed.push((snapshot.volume_id.clone(), snapshot.completion()));
    }
    match world.retention(&snapshot) {
        Some(days) => {
            world.put_into_bin(snapshot, days, now);
            None
        }
        None => left_of(world, snapshot),
    }
}

/// What there is to free of a snapshot that was taken out.
pub fn left_of(world: &World, snapshot: Snapshot) -> Option<Gone> {
    let image = snapshot.image?;
    let kept = world
        .snapshots
        .values()
        .chain(world.bin.values())
        .filter_map(|snapshot| snapshot.image.as_ref())
        .filter(|other| other.path == image.path)
        .map(|other| other.window)
        .collect();
    Some(Gone { id: snapshot.id, image, kept })
}

/// Gives up the space that nobody needs any more. `commit` must be held.
pub async fn free(sim: &Arc<Sim>, gone: impl IntoIterator<Item = Gone>) {
    for Gone { id, image, kept } in gone {
        let sim = Arc::clone(sim);
        let freed = tokio::task::spawn_blocking(move || {
            if kept.is_empty() {
                std::fs::remove_file(&image.path).map_err(|error| error.to_string())
            } else if kept.contains(&image.window) {
                Ok(())
            } else {
                sim.store.trim(&image.path, &kept).map_err(|error| error.to_string())
            }
        })
        .await;
        if let Ok(Err(error)) = freed {
            tracing::warn!("the space of {id} is not freed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::{Ami, Lock, Mode, Target, Until, test_snapshot};

    #[test]
    fn what_a_copy_shares_is_kept() {
        let mut world = World::new(&Scenario::default(), &[], Timestamp::UNIX_EPOCH);
        let window = |offset| Window { offset, length: 1 << 20 };
        let mut ids = Vec::new();
        for offset in [0, 1 << 20, 0] {
            let mut snapshot = test_snapshot(0, false);
            snapshot.image = Some(Image { path: "set".into(), window: window(offset) });
            ids.push(snapshot.id.clone());
            world.snapshots.insert(snapshot);
        }
        let gone = |world: &mut World, id| forget(world, id, Timestamp::MAX, Duration::ZERO);
        let kept = |gone: Option<Gone>| gone.expect("it had an image").kept;
        assert_eq!(kept(gone(&mut world, &ids[0])), [window(1 << 20), window(0)]);
        assert_eq!(kept(gone(&mut world, &ids[1])), [window(0)]);
        assert_eq!(kept(gone(&mut world, &ids[2])), []);
        assert!(gone(&mut world, &ids[2]).is_none());
    }

    #[test]
    fn locks_and_images_keep_snapshots() {
        let now = Timestamp::UNIX_EPOCH;
        let mut world = World::new(&Scenario::default(), &[], now);
        let snapshot = test_snapshot(0, false);
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        let code = |world: &World, region| check(world, region, &id, now).map_err(|error| error.code);
        assert_eq!(code(&world, "us-east-1"), Ok(()));
        assert_eq!(code(&world, "us-west-2"), Err("InvalidSnapshot.NotFound".into()));
        let mut image = Ami::of_instance(&Scenario::default(), now);
        image.id = crate::ids::ImageId::random();
        if let Target::Ebs(ebs) = &mut image.mapping[0].target {
            ebs.snapshot = Some(id.clone());
        }
        world.images.insert(image.id.clone(), image.clone());
        let error = check(&world, "us-east-1", &id, now).expect_err("in use");
        assert_eq!(error.code, "InvalidSnapshot.InUse");
        assert!(error.message.ends_with(image.id.as_str()));
        world.images.clear();
        let day = Until::Days(1);
        let mode = Mode::Governance;
        let lock = Lock { mode, until: day, cool_off: None, created: now, mode_since: now, completed: now };
        world.snapshots.get_mut(&id).expect("there").later.lock = Some(lock);
        assert_eq!(code(&world, "us-east-1"), Err("SnapshotLocked".into()));
        // The snapshot was completed at 1000.
        let at = |second| Timestamp::from_second(second).expect("in range");
        assert!(check(&world, "us-east-1", &id, at(1000 + 86_399)).is_err());
        assert!(check(&world, "us-east-1", &id, at(1000 + 86_400)).is_ok());
    }

    #[test]
    fn the_bin_keeps_the_data_until_it_is_purged() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let mut snapshot = test_snapshot(0, false);
        let window = Window { offset: 0, length: 1 << 20 };
        snapshot.image = Some(Image { path: "set".into(), window });
        let id = snapshot.id.clone();
        let copy = Snapshot { id: SnapshotId::random(), ..snapshot.clone() };
        let copy_id = copy.id.clone();
        world.snapshots.insert(snapshot);
        world.snapshots.insert(copy);
        world.rules = vec![crate::world::Rule {
            id: "0".into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            description: None,
            days: 1,
            resource_type: crate::world::SNAPSHOT_RULES.into(),
            tags: vec![],
            excluded: vec![],
        }];
        assert!(forget(&mut world, &id, at(2000), Duration::ZERO).is_none(), "nothing is freed");
        world.rules.clear();
        let gone = forget(&mut world, &copy_id, at(2000), Duration::ZERO).expect("no rule is left");
        assert_eq!(gone.kept, [window], "what is in the bin needs it");
        assert!(world.snapshots.get(&id).is_none() && world.bin.get(&id).is_some());
    }

    #[test]
    fn a_pending_one_counts_until_it_would_have_been_completed() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut world = World::new(&Scenario::default(), &[], at(0));
        // From 1000 to 1010.
        let snapshot = test_snapshot(10, false);
        let (id, volume) = (snapshot.id.clone(), snapshot.volume_id.clone());
        world.snapshots.insert(snapshot);
        forget(&mut world, &id, at(1005), Duration::from_secs(3));
        assert_eq!(world.doomed, [(volume, at(1010))]);
        let ghost = &world.snapshots[&id];
        assert_eq!(ghost.later.listed_until, Some(at(1008)));
        assert!(world.snapshot("us-east-1", &id).is_none() && world.live().next().is_none());
    }

    #[test]
    fn what_aws_backup_made_stays() {
        let now = Timestamp::UNIX_EPOCH;
        let mut world = World::new(&Scenario::default(), &[], now);
        let mut snapshot = test_snapshot(0, false);
        snapshot.tags.insert(BACKUP.into(), "arn:aws:ec2:us-east-1:123456789012:volume/vol-1".into());
        let id = snapshot.id.clone();
        world.snapshots.insert(snapshot);
        let error = check(&world, "us-east-1", &id, now).expect_err("it is AWS Backup's");
        assert!(error.code == "InvalidParameterValue" && error.message.contains("AWS Backup"), "{error}");
    }
}
