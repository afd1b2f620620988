//! All snapshots, in the order in which they were made.
//!
//! In: snapshots, one by one. Out: one by its id, those of a volume, or all of them in order, from any place on.
//! Nothing here must take longer the more snapshots there are, but going through all of them: an account may
//! have a hundred thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Index;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Snapshot;
use crate::ids::{SnapshotId, VolumeId};

/// Snapshots by number: each gets the next one, and no number is given twice.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    by_number: BTreeMap<u64, Snapshot>,
    numbers: HashMap<SnapshotId, u64>,
    of_volume: HashMap<VolumeId, BTreeSet<u64>>,
    next: u64,
}

impl Snapshots {
    /// Adds one behind all others. One with the same id goes.
    pub fn insert(&mut self, snapshot: Snapshot) {
        self.remove(&snapshot.id);
        let number = self.next;
        self.next += 1;
        self.numbers.insert(snapshot.id.clone(), number);
        self.of_volume.entry(snapshot.volume_id.clone()).or_default().insert(number);
        self.by_number.insert(number, snapshot);
    }

    pub fn remove(&mut self, id: &SnapshotId) -> Option<Snapshot> {
        let number = self.numbers.remove(id)?;
        let snapshot = self.by_number.remove(&number)?;
        if let Some(numbers) = self.of_volume.get_mut(&snapshot.volume_id) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of_volume.remove(&snapshot.volume_id);
            }
        }
        Some(snapshot)
    }

    pub fn get(&self, id: &SnapshotId) -> Option<&Snapshot> {
        self.by_number.get(self.numbers.get(id)?)
    }

    /// One, to change. Its id and its volume stay what they are.
    pub fn get_mut(&mut self, id: &SnapshotId) -> Option<&mut Snapshot> {
        self.by_number.get_mut(self.numbers.get(id)?)
    }

    /// All of them, in order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Snapshot> {
        self.by_number.values()
    }

    /// Those whose number is at least this, with their numbers, in order.
    pub fn from(&self, number: u64) -> impl Iterator<Item = (u64, &Snapshot)> {
        self.by_number.range(number..).map(|(number, snapshot)| (*number, snapshot))
    }

    /// One with its number.
    pub fn numbered(&self, id: &SnapshotId) -> Option<(u64, &Snapshot)> {
        let number = *self.numbers.get(id)?;
        Some((number, self.by_number.get(&number)?))
    }

    /// Those of a volume with their numbers, in order.
    pub fn numbered_of_volume(&self, volume: &VolumeId) -> impl Iterator<Item = (u64, &Snapshot)> {
        let numbers = self.of_volume.get(volume);
        numbers.into_iter().flatten().filter_map(|number| Some((*number, self.by_number.get(number)?)))
    }

    /// Those of the same volume that were made before this one, the last of them first.
    pub fn before(&self, id: &SnapshotId) -> impl Iterator<Item = &Snapshot> {
        let one = self.numbers.get(id).and_then(|number| Some((*number, self.by_number.get(number)?)));
        let earlier = one.and_then(|(number, snapshot)| {
            Some(self.of_volume.get(&snapshot.volume_id)?.range(..number).rev())
        });
        earlier.into_iter().flatten().filter_map(|number| self.by_number.get(number))
    }

    /// Takes all of them out.
    pub fn take(&mut self) -> impl Iterator<Item = Snapshot> + use<> {
        self.numbers.clear();
        self.of_volume.clear();
        std::mem::take(&mut self.by_number).into_values()
    }
}

impl Index<&SnapshotId> for Snapshots {
    type Output = Snapshot;

    fn index(&self, id: &SnapshotId) -> &Snapshot {
        &self.by_number[&self.numbers[id]]
    }
}

impl FromIterator<Snapshot> for Snapshots {
    fn from_iter<I: IntoIterator<Item = Snapshot>>(snapshots: I) -> Self {
        let mut all = Self::default();
        for snapshot in snapshots {
            all.insert(snapshot);
        }
        all
    }
}

impl Serialize for Snapshots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values())
    }
}

impl<'de> Deserialize<'de> for Snapshots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Snapshot>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::test_snapshot;

    #[test]
    fn the_order_stays_when_one_in_the_middle_goes() {
        let (a, b) = (VolumeId::random(), VolumeId::random());
        let made: Vec<Snapshot> = [&a, &b, &a, &a]
            .map(|volume| Snapshot { volume_id: volume.clone(), ..test_snapshot(0, false) })
            .into();
        let ids: Vec<SnapshotId> = made.iter().map(|snapshot| snapshot.id.clone()).collect();
        let mut all: Snapshots = made.into_iter().collect();
        let shown = |snapshots: Vec<&Snapshot>| -> Vec<usize> {
            let place = |snapshot: &&Snapshot| ids.iter().position(|id| *id == snapshot.id);
            snapshots.iter().filter_map(place).collect()
        };
        assert_eq!(shown(all.values().collect()), [0, 1, 2, 3]);
        assert_eq!(shown(all.numbered_of_volume(&a).map(|(_, one)| one).collect()), [0, 2, 3]);
        assert_eq!(shown(all.before(&ids[3]).collect()), [2, 0]);
        let (number, _) = all.numbered(&ids[2]).expect("there");
        assert!(all.remove(&ids[2]).is_some() && all.remove(&ids[2]).is_none());
        assert_eq!(shown(all.from(number).map(|(_, snapshot)| snapshot).collect()), [3]);
        assert_eq!(shown(all.before(&ids[3]).collect()), [0]);
        assert!(all.get(&ids[2]).is_none());
        let text = serde_json::to_string(&all).expect("it can be written");
        let read: Snapshots = serde_json::from_str(&text).expect("it can be read");
        assert_eq!(shown(read.values().collect()), [0, 1, 3]);
        assert_eq!(shown(read.numbered_of_volume(&a).map(|(_, one)| one).collect()), [0, 3]);
        assert_eq!(all.take().count(), 3);
        assert_eq!((all.values().count(), all.numbered_of_volume(&a).count()), (0, 0));
    }
}
