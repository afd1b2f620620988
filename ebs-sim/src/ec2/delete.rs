//! DeleteSnapshot, and giving up what snapshots needed.
//!
//! In: a snapshot. Out: it is gone, and so is its data where nobody else needs it. An image must never be
//! removed or trimmed where another snapshot of its set, or a copy, still needs it.

use std::sync::Arc;

use jiff::Timestamp;

use super::context::Context;
use super::error::Ec2Error;
use super::iam::Need;
use super::params::Params;
use super::snapshots::{self, not_found};
use crate::ids::SnapshotId;
use crate::sim::Sim;
use crate::window::Window;
use crate::world::{Image, State, World};

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

    pub async fn act(self, context: &Context) -> Result<String, Ec2Error> {
        // Without it an image could be removed that a copy is about to share.
        let _commit = context.sim.commit.lock().await;
        let gone = {
            let mut world = context.sim.change();
            check(&world, context.region(), &self.id, context.now)?;
            forget(&mut world, &self.id)
        };
        free(&context.sim, gone).await;
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
    if snapshot.lock().is_some_and(|lock| lock.state(now) != State::Expired) {
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

/// Takes a snapshot and its tags out of the account.
pub fn forget(world: &mut World, id: &SnapshotId) -> Option<Gone> {
    world.tags.remove(id.as_str());
    let image = world.snapshots.shift_remove(id)?.image?;
    let kept = world
        .snapshots
        .values()
        .filter_map(|snapshot| snapshot.image.as_ref())
        .filter(|other| other.path == image.path)
        .map(|other| other.window)
        .collect();
    Some(Gone { id: id.clone(), image, kept })
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
            world.snapshots.insert(snapshot.id.clone(), snapshot);
        }
        let kept = |gone: Option<Gone>| gone.expect("it had an image").kept;
        assert_eq!(kept(forget(&mut world, &ids[0])), [window(1 << 20), window(0)]);
        assert_eq!(kept(forget(&mut world, &ids[1])), [window(0)]);
        assert_eq!(kept(forget(&mut world, &ids[2])), []);
        assert!(forget(&mut world, &ids[2]).is_none());
    }

    #[test]
    fn locks_and_images_keep_snapshots() {
        let now = Timestamp::UNIX_EPOCH;
        let mut world = World::new(&Scenario::default(), &[], now);
        let snapshot = test_snapshot(0, false);
        let id = snapshot.id.clone();
        world.snapshots.insert(id.clone(), snapshot);
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
}
