//! Snapshots → sets: what the tags of an account say, believed only where marker, set, number and volume agree.
//!
//! ```text
//! DescribeSnapshots, a page at a time ─▶ Gathered ─▶ sets (and what only looks like one)
//! ```
//!
//! In: snapshots as EC2 lists them; anybody may have written their tags. Out: [`SnapshotSet`]s. Must never: take
//! one key alone for a proof, put a snapshot into a set that another one has the place of, or keep the lines that
//! describe a set in memory unless they are asked for (an account may have 100,000 snapshots).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::before::{BEFORE_TAG, Before, ENDED_TAG};
use super::ledger::{FAULT_TAG, FaultFound, VERIFIED_TAG, Verified};
use super::set::{CopyOf, Member, Missing, SnapshotSet};
use super::tags::{self, HOST_KEY_TAG, INSTANCE_TAG, MEMBER_TAG, PLAN_TAG, SCHEMA_TAG};
use crate::consistency::Consistency;
use crate::ec2::{RUN_TAG, SnapshotDetail, SnapshotView, TaggedSnapshot};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};

/// A copied snapshot has no volume; EC2 gives it this id (EC2 API reference, CopySnapshot).
const NO_VOLUME: &str = "vol-ffffffff";
/// Copies carry the set, the Region and the time of their source.
pub(crate) const SOURCE_TAG: &str = "stillpoint:source";
/// The source's start time.
pub(crate) const SOURCE_TIME_TAG: &str = "stillpoint:source-time";
/// Until when somebody wants a set kept.
pub const KEEP_TAG: &str = "stillpoint:keep-until";
/// Somebody began to remove the set.
pub(crate) const DELETING_TAG: &str = "stillpoint:deleting";

/// The tags that a set is read from, once it is known which one a snapshot is of.
const KEPT: [&str; 17] = [
    PLAN_TAG,
    HOST_KEY_TAG,
    "stillpoint:host",
    "stillpoint:requested-consistency",
    "stillpoint:consistency",
    "stillpoint:reason",
    "stillpoint:part",
    "stillpoint:device",
    SOURCE_TAG,
    SOURCE_TIME_TAG,
    KEEP_TAG,
    DELETING_TAG,
    VERIFIED_TAG,
    FAULT_TAG,
    MEMBER_TAG,
    BEFORE_TAG,
    ENDED_TAG,
];

/// No instance has more volumes in a set.
const MOST_VOLUMES: usize = 128;

/// Does a tag of this key say that another tool cares for the snapshot?
pub(crate) fn is_foreign(key: &str) -> bool {
    ["aws:backup:", "aws:dlm:", "dlm:managed"].iter().any(|prefix| key.starts_with(prefix))
}

/// A snapshot that has the mark of a set and is of none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// The snapshot.
    pub id: SnapshotId,
    /// What does not agree.
    pub why: String,
}

/// Snapshots on their way to sets.
#[derive(Debug, Default)]
pub struct Gathered {
    region: String,
    sets: BTreeMap<(RunId, InstanceId), Gathering>,
    strangers: Vec<Stranger>,
    /// What tags say, each text once: those of a set say mostly the same, and so do those of a host.
    words: HashSet<Arc<str>>,
    /// The same of tags: one pointer a tag and snapshot, of very many.
    pairs: HashSet<Arc<Pair>>,
}

/// A tag: its key and its value.
type Pair = (Arc<str>, Arc<str>);

/// One set on its way.
#[derive(Debug)]
struct Gathering {
    schema: u32,
    volumes: Vec<VolumeId>,
    members: Vec<(Kept, Place)>,
}

/// What is kept of a snapshot until all are there.
#[derive(Debug)]
struct Kept {
    view: SnapshotView,
    detail: SnapshotDetail,
    owner: Option<Arc<str>>,
    tags: Box<[Arc<Pair>]>,
}

impl Kept {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|pair| &*pair.0 == key).map(|pair| &*pair.1)
    }
}

/// Where a snapshot says that it belongs.
#[derive(Debug, Clone)]
struct Place {
    /// None: the create call took a volume that nobody had planned, and it has no verdict yet.
    number: Option<usize>,
    volume: VolumeId,
}

impl Gathered {
    /// Nothing yet, of this Region.
    #[must_use]
    pub fn of(region: &str) -> Self {
        Self { region: region.to_owned(), ..Self::default() }
    }

    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.words.get(text) {
            return Arc::clone(known);
        }
        let word: Arc<str> = text.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    fn pair(&mut self, key: &str, value: &str) -> Arc<Pair> {
        let pair = (self.word(key), self.word(value));
        if let Some(known) = self.pairs.get(&pair) {
            return Arc::clone(known);
        }
        let pair = Arc::new(pair);
        self.pairs.insert(Arc::clone(&pair));
        pair
    }

    /// Of its tags, only what a set is read from.
    fn kept(&mut self, snapshot: TaggedSnapshot) -> Kept {
        let TaggedSnapshot { view, detail, tags } = snapshot;
        let kept = tags.iter().filter(|(k, _)| KEPT.contains(&k.as_str()) || is_foreign(k));
        let tags = kept.map(|(k, v)| self.pair(k, v)).collect();
        let owner = detail.owner.as_deref().map(|owner| self.word(owner));
        let detail = SnapshotDetail { description: String::new(), kms_key: None, owner: None, ..detail };
        Kept { view, detail, owner, tags }
    }

    /// Takes a snapshot into its set. The lines that describe the set are not kept.
    pub fn add(&mut self, snapshot: TaggedSnapshot) {
        let Some(run) = snapshot.tag(RUN_TAG) else { return };
        match place(&snapshot, run) {
            Ok((key, schema, volumes, place)) => {
                let snapshot = self.kept(snapshot);
                let set = self.sets.entry(key).or_insert_with(|| Gathering {
                    schema,
                    // As many as there will be: a vector that grows has room for four at first.
                    members: Vec::with_capacity(volumes.len().clamp(1, MOST_VOLUMES)),
                    volumes,
                });
                set.schema = set.schema.max(schema);
                set.members.push((snapshot, place));
            }
            Err(why) => self.strangers.push(Stranger { id: snapshot.view.id.clone(), why }),
        }
    }

    /// The sets, newest first, and the snapshots that only look like parts of one.
    #[must_use]
    pub fn sets(self) -> (Vec<SnapshotSet>, Vec<Stranger>) {
        let Self { region, sets, mut strangers, words: _, pairs: _ } = self;
        let made = |((id, instance), gathering)| set(&region, id, instance, gathering, &mut strangers);
        let mut sets: Vec<SnapshotSet> = sets.into_iter().filter_map(made).collect();
        // In place: a stable sort needs room for half of them.
        sets.sort_unstable_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
        (sets, strangers)
    }
}

type Key = (RunId, InstanceId);

/// Where a snapshot belongs.
fn place(snapshot: &TaggedSnapshot, run: &str) -> Result<(Key, u32, Vec<VolumeId>, Place), String> {
    let needed = |key: &str| snapshot.tag(key).ok_or_else(|| format!("it has no tag {key}"));
    let run: RunId = run.parse().map_err(|e| format!("the tag {RUN_TAG}: {e}"))?;
    let instance: InstanceId =
        needed(INSTANCE_TAG)?.parse().map_err(|e| format!("the tag {INSTANCE_TAG}: {e}"))?;
    let schema = needed(SCHEMA_TAG)?;
    let schema: u32 = schema.parse().map_err(|_| format!("the tag {SCHEMA_TAG} is no number: {schema}"))?;
    needed(PLAN_TAG)?;
    let volumes = tags::volumes_of(&snapshot.tags).ok_or("its tags do not list the volumes of its set")?;
    let number = match snapshot.tag(MEMBER_TAG) {
        Some(text) => Some(text.parse().map_err(|_| format!("the tag {MEMBER_TAG} is no number: {text}"))?),
        None => None,
    };
    let own = &snapshot.view.volume;
    let listed = volumes.iter().position(|v| v == own);
    let copied = snapshot.tag(SOURCE_TAG).is_some();
    let place = match (number, listed) {
        // A copy's number is all that says which volume it is of.
        (Some(n), None) if copied && own.as_str() == NO_VOLUME => match volumes.get(n) {
            Some(volume) => Place { number, volume: volume.clone() },
            None => return Err(format!("its set has no volume {n}")),
        },
        (Some(n), Some(at)) if n != at => {
            return Err(format!("its tags say that it is member {n} of its set, and {own} is member {at}"));
        }
        (_, Some(at)) => Place { number: Some(at), volume: own.clone() },
        (Some(n), None) if n < volumes.len() => {
            return Err(format!("its tags say that it is of {}, and it is of {own}", volumes[n]));
        }
        (number, None) => Place { number, volume: own.clone() },
    };
    Ok(((run, instance), schema, volumes, place))
}

fn set(
    region: &str,
    id: RunId,
    instance: InstanceId,
    gathering: Gathering,
    strangers: &mut Vec<Stranger>,
) -> Option<SnapshotSet> {
    let Gathering { schema, volumes, members } = gathering;
    let planned: Vec<_> = members
        .iter()
        .filter(|(_, p)| p.number.is_some_and(|n| n < volumes.len()))
        .filter_map(|(s, _)| s.view.started)
        .collect();
    // A volume that no tag lists was taken by the same call where it has its very start time.
    let (mut taken, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|(s, p)| {
        p.number.is_some_and(|n| n < volumes.len()) || s.view.started.is_some_and(|at| planned.contains(&at))
    });
    strangers.extend(others.into_iter().map(|(s, _)| Stranger {
        why: format!("its set does not list {}, and it was not started with the others", s.view.volume),
        id: s.view.id,
    }));
    taken.sort_by(|(a, p), (b, q)| (p.number, &a.view.id).cmp(&(q.number, &b.view.id)));
    let unplanned = taken.iter_mut().filter(|(_, p)| p.number.is_none_or(|n| n >= volumes.len()));
    for (beyond, (_, place)) in (volumes.len()..).zip(unplanned) {
        place.number = Some(beyond);
    }
    taken.sort_by_key(|(_, place)| place.number);
    let (first, _) = taken.first()?;
    let mut doubts = Vec::new();
    let mut agreed = |what: &str, key: &str| {
        let said = first.tag(key);
        if taken.iter().any(|(s, _)| s.tag(key) != said) {
            doubts.push(format!("its snapshots do not agree on {what}"));
        }
        said.map(str::to_owned)
    };
    let plan = agreed("the plan", PLAN_TAG).unwrap_or_default();
    let host = agreed("the host", "stillpoint:host").unwrap_or_default();
    let host_key = agreed("the key of the host", HOST_KEY_TAG);
    let requested = agreed("what was requested", "stillpoint:requested-consistency");
    let copy_of = agreed("the source of the copy", SOURCE_TAG);
    let source_time = agreed("the time of the source", SOURCE_TIME_TAG);
    let keep_until = agreed("how long to keep it", KEEP_TAG);
    let copy_of = copy_of.and_then(|text| {
        let (region, id) = text.split_once('/')?;
        Some(CopyOf { region: region.to_owned(), id: id.parse().ok()? })
    });
    let of_members = taken.iter().filter_map(|(s, _)| s.view.started).min();
    let time = match &copy_of {
        // Never a time that EC2 could not have: whoever wrote the tag may be wrong.
        Some(_) => {
            source_time.and_then(|t| t.parse().ok()).filter(|t| of_members.is_none_or(|made| *t <= made))
        }
        None => of_members,
    };
    let label = |key: &str, s: &Kept| s.tag(key).and_then(|t| t.parse::<Consistency>().ok());
    let labels: Option<Vec<_>> = taken.iter().map(|(s, _)| label("stillpoint:consistency", s)).collect();
    let keys = taken.iter().flat_map(|(s, _)| s.tags.iter().map(|pair| &pair.0));
    let mut foreign: Vec<String> = keys.filter(|key| is_foreign(key)).map(|key| key.to_string()).collect();
    foreign.sort_unstable();
    foreign.dedup();
    let (account, reason) =
        (first.owner.as_deref().map(str::to_owned), first.tag("stillpoint:reason").map(str::to_owned));
    let deleting = taken.iter().any(|(s, _)| s.tag(DELETING_TAG).is_some());
    // Where one snapshot has the end of the command and another has not, nothing about the set is doubtful.
    let any = |key: &str| taken.iter().find_map(|(s, _)| s.tag(key));
    let before = Before::read(any(BEFORE_TAG), any(ENDED_TAG));
    // What one snapshot alone says proves nothing of the others, and a fault of one is one of the set.
    let said = first.tag(VERIFIED_TAG).filter(|v| taken.iter().all(|(s, _)| s.tag(VERIFIED_TAG) == Some(v)));
    let verified = said.and_then(Verified::read);
    let faults = taken.iter().filter_map(|(s, _)| s.tag(FAULT_TAG)).map(FaultFound::read);
    let verify_fault = faults.max_by_key(|fault| (fault.at, fault.level));
    // Not collected: that would keep the room of what it is made of.
    let mut members: Vec<Member> = Vec::with_capacity(taken.len());
    members.extend(taken.into_iter().map(|(s, place)| member(s, place)));
    let twice = members.windows(2).find(|two| two[0].number == two[1].number);
    if let Some(two) = twice {
        doubts.push(format!("{} and {} are both member {}", two[0].id, two[1].id, two[0].number));
    }
    if time.is_none() {
        doubts.push("it is not known when it was taken".to_owned());
    }
    let has = |n: usize| members.iter().any(|m| m.number == n);
    let missing = volumes.iter().enumerate().filter(|(n, _)| !has(*n));
    let missing = missing.map(|(number, v)| Missing { number, volume_id: v.clone() }).collect();
    Some(SnapshotSet {
        id,
        schema,
        account,
        region: region.to_owned(),
        plan,
        host,
        instance,
        host_key,
        copy_of,
        time,
        requested: requested.and_then(|r| r.parse().ok()),
        achieved: labels.and_then(|all| all.into_iter().min()),
        reason,
        members,
        missing,
        keep_until,
        before,
        verified,
        verify_fault,
        deleting,
        foreign,
        doubts,
    })
}

fn member(s: Kept, place: Place) -> Member {
    let device_name = s.tag("stillpoint:device").map(str::to_owned);
    let achieved = s.tag("stillpoint:part").and_then(|t| t.parse().ok());
    let Kept { view, detail, .. } = s;
    Member {
        number: place.number.unwrap_or(usize::MAX),
        id: view.id,
        volume_id: place.volume,
        device_name,
        // Healthy copies that are pending have a message too: only the state says that it failed.
        error: detail.message.filter(|_| view.state == "error"),
        state: view.state,
        progress: view.progress,
        started: view.started,
        completed: detail.completed,
        size_gib: detail.size_gib,
        full_bytes: detail.full_bytes,
        encrypted: detail.encrypted,
        tier: if detail.archived { "archive" } else { "standard" },
        restored_until: detail.restored_until,
        achieved,
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
pub(crate) mod tests;
