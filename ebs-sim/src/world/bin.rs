//! The Recycle Bin: its rules, and what they keep.
//!
//! In: rules, and snapshots that are deleted. Out: how long one is kept, if at all. It must never read the clock:
//! `now` comes in. What no rule means must never be kept.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Binned, Snapshot, Tags, World};
use crate::ids::SnapshotId;

/// The tag that what is in the bin has besides its own.
const IN_BIN: &str = "aws:recycle-bin:resource-in-bin";
/// The resource type of the rules that mean snapshots. Rules of other types can be made and keep nothing.
pub const SNAPSHOTS: &str = "EBS_SNAPSHOT";

/// A retention rule of one Region and account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// 11 letters and digits.
    pub id: String,
    pub account: String,
    pub region: String,
    pub description: Option<String>,
    pub days: u32,
    /// `EBS_SNAPSHOT` …
    pub resource_type: String,
    /// What has one of these is meant; with none it is a rule for the whole Region.
    pub tags: Vec<TagPattern>,
    /// What has one of these is not meant by a rule for the whole Region.
    pub excluded: Vec<TagPattern>,
}

/// A tag's key, and its value when that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagPattern {
    pub key: String,
    pub value: Option<String>,
}

impl TagPattern {
    fn is_in(&self, tags: &Tags) -> bool {
        tags.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

impl Rule {
    /// A new id for a rule.
    pub fn new_id() -> String {
        crate::ids::random_hex().chars().skip(1).take(11).collect()
    }

    fn keeps(&self, snapshot: &Snapshot) -> bool {
        let has = |patterns: &[TagPattern]| patterns.iter().any(|pattern| pattern.is_in(&snapshot.tags));
        self.resource_type == SNAPSHOTS
            && self.region == snapshot.region
            && self.account == snapshot.owner
            && if self.tags.is_empty() { !has(&self.excluded) } else { has(&self.tags) }
    }
}

impl World {
    /// For how many days the bin keeps a snapshot that is deleted: by the longest rule that means it.
    pub fn retention(&self, snapshot: &Snapshot) -> Option<u32> {
        self.rules.iter().filter(|rule| rule.keeps(snapshot)).map(|rule| rule.days).max()
    }

    /// Puts a snapshot that was taken out of the account into the bin.
    pub fn put_into_bin(&mut self, mut snapshot: Snapshot, days: u32, now: Timestamp) {
        let kept = SignedDuration::from_secs(i64::from(days) * 24 * 3600);
        let until = now.checked_add(kept).unwrap_or(Timestamp::MAX);
        snapshot.later.binned = Some(Binned { entered: now, until, restored: None });
        snapshot.tags.insert(IN_BIN.into(), "true".into());
        self.bin.insert(snapshot);
    }

    /// A snapshot that is in the bin, of this Region and account, with its stay.
    pub fn binned(
        &self,
        region: &str,
        account: &str,
        id: &SnapshotId,
        now: Timestamp,
    ) -> Option<(&Snapshot, Binned)> {
        let snapshot = self.bin.get(id)?;
        let binned = snapshot.later.binned.filter(|binned| now < binned.until)?;
        (snapshot.region == region && snapshot.owner == account).then_some((snapshot, binned))
    }

    /// Takes a snapshot out of the bin again, as it was. It is `recovering` for a moment.
    pub fn restore_from_bin(&mut self, id: &SnapshotId, now: Timestamp) {
        let Some(mut snapshot) = self.bin.remove(id) else { return };
        let usable = now.checked_add(self.scenario.recycle_bin.time_to_restore()).unwrap_or(Timestamp::MAX);
        if let Some(binned) = &mut snapshot.later.binned {
            binned.restored = Some((now, usable));
        }
        snapshot.tags.remove(IN_BIN);
        self.snapshots.insert(snapshot);
    }

    /// Those whose time in the bin is over.
    pub fn expired_in_bin(&self, now: Timestamp) -> Vec<SnapshotId> {
        let expired = |snapshot: &&Snapshot| snapshot.later.binned.is_some_and(|binned| now >= binned.until);
        self.bin.values().filter(expired).map(|snapshot| snapshot.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::test_snapshot;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn pattern(text: &str) -> TagPattern {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        TagPattern { key: key.into(), value: value.map(str::to_owned) }
    }

    fn rule(days: u32, tags: &[&str], excluded: &[&str]) -> Rule {
        let patterns = |texts: &[&str]| texts.iter().map(|text| pattern(text)).collect();
        Rule {
            id: Rule::new_id(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            description: None,
            days,
            resource_type: SNAPSHOTS.into(),
            tags: patterns(tags),
            excluded: patterns(excluded),
        }
    }

    fn kept(rules: &[Rule], tags: &[(&str, &str)]) -> Option<u32> {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        world.rules = rules.to_vec();
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        world.retention(&Snapshot { tags, ..test_snapshot(0, false) })
    }

    #[test]
    fn the_longest_rule_that_means_it_wins() {
        let rules = [rule(7, &["Keep=yes", "Stage"], &[]), rule(30, &["Keep=long"], &[])];
        assert_eq!(kept(&rules, &[]), None);
        assert_eq!(kept(&rules, &[("Keep", "no")]), None);
        assert_eq!(kept(&rules, &[("Keep", "yes")]), Some(7));
        assert_eq!(kept(&rules, &[("Stage", "anything")]), Some(7));
        assert_eq!(kept(&rules, &[("Keep", "long"), ("Stage", "x")]), Some(30));
        let region = [rule(1, &[], &["Temp", "Stage=test"])];
        assert_eq!(kept(&region, &[]), Some(1));
        assert_eq!(kept(&region, &[("Temp", "")]), None);
        assert_eq!(kept(&region, &[("Stage", "test"), ("Name", "x")]), None);
        assert_eq!(kept(&region, &[("Stage", "live")]), Some(1));
        for other in [
            Rule { region: "us-west-2".into(), ..rule(1, &[], &[]) },
            Rule { account: "111122223333".into(), ..rule(1, &[], &[]) },
            Rule { resource_type: "EC2_IMAGE".into(), ..rule(1, &[], &[]) },
        ] {
            assert_eq!(kept(std::slice::from_ref(&other), &[]), None, "{other:?}");
        }
        assert_eq!(Rule::new_id().len(), 11);
    }

    #[test]
    fn what_is_restored_is_as_it_was_and_what_is_not_goes() {
        let mut world = World::new(&Scenario::default(), &[], at(0));
        let mut snapshot = test_snapshot(0, false);
        snapshot.tags.insert("Name".into(), "db".into());
        snapshot.later.shared.users.insert("111122223333".into());
        let id = snapshot.id.clone();
        let before = snapshot.clone();
        world.put_into_bin(snapshot, 2, at(5000));
        assert_eq!(world.tags_of(id.as_str()).get(IN_BIN).map(String::as_str), Some("true"));
        assert_eq!(world.bin[&id].state(at(6000)), "recoverable");
        let (own, end) = ("123456789012", 5000 + 2 * 86_400);
        let found =
            |world: &World, region, account, now| world.binned(region, account, &id, at(now)).is_some();
        assert!(found(&world, "us-east-1", own, end - 1));
        assert!(!found(&world, "us-east-1", own, end));
        assert!(!found(&world, "us-west-2", own, 6000) && !found(&world, "us-east-1", "111122223333", 6000));
        assert_eq!((world.expired_in_bin(at(end - 1)).len(), world.expired_in_bin(at(end)).len()), (0, 1));
        world.restore_from_bin(&id, at(7000));
        let restored = &world.snapshots[&id];
        assert_eq!((&restored.tags, &restored.later.shared), (&before.tags, &before.later.shared));
        assert_eq!((restored.state(at(7000)), restored.state(at(7001))), ("recovering", "completed"));
        assert!(world.bin.get(&id).is_none());
    }
}
