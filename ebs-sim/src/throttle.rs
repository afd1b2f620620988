//! Request rates: a token bucket for each action, in each Region.
//!
//! In: an action and the time. Out: whether it has a token left. It must never read the clock, and a request
//! that is refused must never cost a token.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::scenario::{Bucket, Limits};

/// The actions for which a request without a filter and without pages has a smaller bucket of its own.
const UNFILTERED: &[&str] = &["DescribeInstances", "DescribeSnapshots", "DescribeVolumes"];

/// What buckets differ by, besides the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Every other request.
    Usual,
    /// Those that neither filter nor page where that counts.
    Unfiltered,
}

impl Class {
    /// The class of a request; `narrowed` when it filters or pages.
    pub fn of(action: &str, narrowed: bool) -> Self {
        if UNFILTERED.contains(&action) && !narrowed { Class::Unfiltered } else { Class::Usual }
    }
}

/// EC2's sizes and refills, by its throttling guide.
fn usual(action: &str, class: Class) -> Bucket {
    let (size, refill) = match action {
        _ if class == Class::Unfiltered => (50.0, 10.0),
        "CreateSnapshot"
        | "CreateSnapshots"
        | "DeleteSnapshot"
        | "CreateVolume"
        | "DeleteVolume"
        | "ModifySnapshotAttribute"
        | "DeregisterImage" => (100.0, 5.0),
        "CreateTags" | "DeleteTags" => (100.0, 10.0),
        // EBS direct APIs' quotas: lists by account, blocks by snapshot.
        "ebs:ListSnapshotBlocks" | "ebs:ListChangedBlocks" => (50.0, 50.0),
        "ebs:GetSnapshotBlock" => (1000.0, 1000.0),
        _ if ["Describe", "Get", "List", "Search"].iter().any(|verb| action.starts_with(verb)) => {
            (100.0, 20.0)
        }
        _ => (50.0, 5.0),
    };
    Bucket { size, refill }
}

#[derive(Debug, Clone, Copy)]
struct Level {
    tokens: f64,
    at: Timestamp,
}

/// All buckets that were drawn from.
#[derive(Debug, Default)]
pub struct Throttle(HashMap<(String, String, Class), Level>);

impl Throttle {
    /// Takes one token for a request, and says whether there was one.
    #[must_use]
    pub fn take(
        &mut self,
        limits: &Limits,
        region: &str,
        action: &str,
        class: Class,
        now: Timestamp,
    ) -> bool {
        if !limits.throttling {
            return true;
        }
        // What follows the action's name has buckets of its own, of the same size.
        let name = action.split(' ').next().unwrap_or(action);
        // A bucket of the scenario's own holds for all requests of its action.
        let (bucket, class) = match limits.bucket.get(name) {
            Some(bucket) => (*bucket, Class::Usual),
            None => (usual(name, class), class),
        };
        let level = self
            .0
            .entry((region.to_owned(), action.to_owned(), class))
            .or_insert(Level { tokens: bucket.size, at: now });
        // A clock that went back adds nothing.
        let passed = Duration::try_from(now.duration_since(level.at)).unwrap_or_default();
        level.tokens = (level.tokens + passed.as_secs_f64() * bucket.refill).min(bucket.size);
        level.at = level.at.max(now);
        let has_one = level.tokens >= 1.0;
        if has_one {
            level.tokens -= 1.0;
        }
        has_one
    }

    /// All buckets are full again.
    pub fn refill(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).expect("in range")
    }

    /// How many of a thousand requests at one moment pass.
    fn pass(throttle: &mut Throttle, limits: &Limits, action: &str, class: Class, now: i64) -> usize {
        (0..1000).filter(|_| throttle.take(limits, "us-east-1", action, class, at(now))).count()
    }

    #[test]
    fn buckets_have_ec2s_sizes_and_refills() {
        let limits = Limits::default();
        for (action, class, size, refill) in [
            ("DeleteTags", Class::Usual, 100, 10),
            ("ModifySnapshotAttribute", Class::Usual, 100, 5),
            ("LockSnapshot", Class::Usual, 50, 5),
            ("ebs:ListChangedBlocks", Class::Usual, 50, 50),
            ("CreateSnapshots", Class::Usual, 100, 5),
            ("CreateTags", Class::Usual, 100, 10),
            ("DescribeSnapshots", Class::Usual, 100, 20),
            ("DescribeSnapshots", Class::Unfiltered, 50, 10),
            ("CopySnapshot", Class::Usual, 50, 5),
        ] {
            let mut throttle = Throttle::default();
            assert_eq!(pass(&mut throttle, &limits, action, class, 0), size, "{action} {class:?}");
            assert_eq!(pass(&mut throttle, &limits, action, class, 1000), refill, "{action} {class:?}");
            assert_eq!(pass(&mut throttle, &limits, action, class, 1_000_000), size, "{action} {class:?}");
        }
    }

    #[test]
    fn a_refusal_costs_nothing_and_the_clock_may_go_back() {
        let mut limits = Limits::default();
        limits.bucket.insert("CreateSnapshots".into(), Bucket { size: 1.0, refill: 0.5 });
        let mut throttle = Throttle::default();
        let mut take = |now| throttle.take(&limits, "us-east-1", "CreateSnapshots", Class::Usual, at(now));
        assert!(take(10_000));
        for now in [10_000, 5_000, 11_000, 11_900] {
            assert!(!take(now), "{now}");
        }
        assert!(take(12_000));
    }

    #[test]
    fn actions_and_regions_have_buckets_of_their_own_and_all_can_be_off() {
        let mut limits = Limits::default();
        let mut throttle = Throttle::default();
        assert_eq!(pass(&mut throttle, &limits, "CreateSnapshot", Class::Usual, 0), 100);
        assert_eq!(pass(&mut throttle, &limits, "CreateSnapshots", Class::Usual, 0), 100);
        assert!(throttle.take(&limits, "us-west-2", "CreateSnapshot", Class::Usual, at(0)));
        assert_eq!(pass(&mut throttle, &limits, "CreateSnapshot", Class::Usual, 0), 0);
        throttle.refill();
        assert_eq!(pass(&mut throttle, &limits, "CreateSnapshot", Class::Usual, 0), 100);
        limits.throttling = false;
        assert_eq!(pass(&mut throttle, &limits, "CreateSnapshot", Class::Usual, 0), 1000);
    }
}
