//! How many snapshots may be made, and how soon.
//!
//! In: the volumes of one call and what there is. Out: nothing, or the limit that is in the way. It must
//! never take longer the more volumes a call has: an account may have a hundred thousand snapshots.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::error::Ec2Error;
use crate::ids::VolumeId;
use crate::world::{Volume, World};

/// Passes when these volumes may be snapshotted now.
pub fn check(world: &World, volumes: &[Volume], now: Timestamp) -> Result<(), Ec2Error> {
    let limits = &world.scenario.limits;
    let watched = !limits.per_volume_interval.is_zero() || limits.pending_per_volume > 0;
    if !watched && limits.pending_per_account == 0 {
        return Ok(());
    }
    let mut pending = 0;
    // The youngest, and how many are in progress.
    let mut of: HashMap<&VolumeId, (Option<Timestamp>, usize)> =
        volumes.iter().map(|volume| (&volume.id, (None, 0))).collect();
    for (volume, _) in world.doomed.iter().filter(|(_, until)| now < *until) {
        // Deleted while it was pending: it counts until it would have been completed.
        pending += 1;
        if let Some((_, busy)) = of.get_mut(volume) {
            *busy += 1;
        }
    }
    for snapshot in world.live().filter(|snapshot| snapshot.owner == world.account()) {
        let state = snapshot.state(now);
        pending += usize::from(state == "pending");
        if let Some((youngest, busy)) = of.get_mut(&snapshot.volume_id) {
            *youngest = (*youngest).max(Some(snapshot.started));
            // EC2 counts snapshots that ended in error as if they were still in progress.
            *busy += usize::from(state != "completed");
        }
    }
    for volume in volumes {
        let Some((youngest, busy)) = of.get(&volume.id) else { continue };
        let too_soon = youngest.is_some_and(|youngest| {
            Duration::try_from(now.duration_since(youngest))
                .is_ok_and(|since| since < limits.per_volume_interval)
        });
        if too_soon {
            return Err(Ec2Error::new(
                "SnapshotCreationPerVolumeRateExceeded",
                "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or \
                 variable sleep interval between requests.",
            ));
        }
        // HDD volumes may have only one.
        let most = match volume.volume_type.as_str() {
            "st1" | "sc1" => limits.pending_per_volume.min(1),
            _ => limits.pending_per_volume,
        };
        if most > 0 && *busy >= most {
            return Err(Ec2Error::new(
                "ConcurrentSnapshotLimitExceeded",
                format!("Maximum allowed in-progress snapshots for a single volume exceeded: {}", volume.id),
            ));
        }
    }
    let most = limits.pending_per_account;
    if most > 0 && pending + volumes.len() > most {
        return Err(Ec2Error::new(
            "PendingSnapshotLimitExceeded",
            format!("Maximum allowed pending snapshots exceeded: {most}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::{Snapshot, test_snapshot};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// One volume of this type, with snapshots that take this long and were started at 1000 s.
    fn world(volume_type: &str, snapshots: &[(u64, bool)]) -> World {
        let mut scenario = Scenario::default();
        let spec = format!("name=a,size=1MiB,type={volume_type}");
        scenario.volumes.push(spec.parse().expect("a good spec"));
        let mut world = World::new(&scenario, &crate::window::lay_out(&[1 << 20]), Timestamp::UNIX_EPOCH);
        let volume_id = world.volumes[0].id.clone();
        for &(takes, fails) in snapshots {
            let snapshot = Snapshot { volume_id: volume_id.clone(), ..test_snapshot(takes, fails) };
            world.snapshots.insert(snapshot);
        }
        world
    }

    fn code(world: &World, now: i64) -> Option<String> {
        check(world, &world.volumes, at(now)).err().map(|error| error.code)
    }

    #[test]
    fn fifteen_seconds_between_two_of_a_volume() {
        let world = world("gp3", &[(1, false)]);
        assert_eq!(code(&world, 1014).as_deref(), Some("SnapshotCreationPerVolumeRateExceeded"));
        assert_eq!(code(&world, 1015), None);
    }

    #[test]
    fn five_in_progress_or_one_and_failed_ones_count() {
        let pending = [(9000, false), (9000, false), (9000, false), (9000, false), (1, true)];
        assert_eq!(code(&world("gp3", &pending), 2000).as_deref(), Some("ConcurrentSnapshotLimitExceeded"));
        assert_eq!(code(&world("gp3", &pending[1..]), 2000), None);
        assert_eq!(
            code(&world("st1", &pending[..1]), 2000).as_deref(),
            Some("ConcurrentSnapshotLimitExceeded")
        );
        assert_eq!(code(&world("st1", &[(1, false)]), 2000), None);
    }

    #[test]
    fn pending_ones_of_all_volumes_count() {
        let mut world = world("gp3", &[]);
        for _ in 0..100 {
            let other = test_snapshot(9000, false);
            world.snapshots.insert(other);
        }
        assert_eq!(code(&world, 2000).as_deref(), Some("PendingSnapshotLimitExceeded"));
        world.scenario.limits.pending_per_account = 101;
        assert_eq!(code(&world, 2000), None);
    }

    #[test]
    fn what_was_deleted_while_it_was_pending_counts_until_its_end() {
        let mut volume = world("gp3", &[]);
        volume.doomed = vec![(volume.volumes[0].id.clone(), at(3000)); 5];
        assert_eq!(code(&volume, 2999).as_deref(), Some("ConcurrentSnapshotLimitExceeded"));
        assert_eq!(code(&volume, 3000), None);
        let mut others = world("gp3", &[]);
        others.doomed = vec![(VolumeId::random(), at(3000)); 100];
        assert_eq!(code(&others, 2999).as_deref(), Some("PendingSnapshotLimitExceeded"));
        assert_eq!(code(&others, 3000), None);
    }
}
