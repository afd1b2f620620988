//! What a copy would cost: incremental or full, how many bytes at most, how long at least.
//!
//! The rule (EBS guide, "Copy an Amazon EBS snapshot"): in the account, Region and under the key of the source, a copy
//! is incremental. Elsewhere it is where the last copy of the volume is still there, is not archived, and all copies
//! of the volume there are unencrypted, or all under the key of the new one.
//!
//! In: a source, what is at the destination. Out: [`Forecast`]. Pure. Must never: promise what only EC2 knows: copies
//! that other programs made count too, and are not seen here.

use std::time::Duration;

use super::AWS_KEY;
use super::source::{Part, Source};
use super::{ByDefault, How};
use crate::ec2::TaggedSnapshot;
use crate::ec2::copies::Encryption;
use crate::ids::{SnapshotId, VolumeId};
use crate::sets::read::Gathered;

/// The most that EC2 promises for one time-based copy, and for all from one Region to another, in bytes a second
/// (EBS guide, "Time-based copies"; the second can be raised).
const A_COPY: u64 = 500 << 20;
const A_PAIR: u64 = 2000 << 20;

/// What would become of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Each snapshot, in the order of the source's.
    pub parts: Vec<Expected>,
    /// Bytes of all of them, as if each was copied in full; none where EC2 does not say.
    pub full_bytes: Option<u64>,
    /// No time-based copy is faster than this, if it has to be full.
    pub least: Option<Duration>,
}

/// Whether EC2 copies all of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// What has changed since the source of this copy; since the last snapshot of the volume, where none is named.
    Incremental(Option<SnapshotId>),
    /// All of it, because of this.
    Full(String),
    /// EC2 alone knows, because of this.
    NotKnown(String),
}

/// An earlier copy of a volume.
struct Earlier {
    id: SnapshotId,
    time: Option<jiff::Timestamp>,
    completed: bool,
    archived: bool,
    /// None: not encrypted.
    key: Option<String>,
}

/// Looks ahead. `there`: the copies of the instance's sets at the destination. `same_place`: it is the account and
/// Region of the source.
#[must_use]
pub fn forecast(source: &Source, how: &How, there: &[TaggedSnapshot], same_place: bool) -> Forecast {
    let mut gathered = Gathered::of("");
    there.iter().cloned().for_each(|s| gathered.add(s));
    let (sets, _) = gathered.sets();
    let of = |volume: &VolumeId| -> Vec<Earlier> {
        let copies = sets.iter().filter(|s| s.copy_of.is_some() && s.instance == source.set.instance);
        let members = copies.flat_map(|s| s.members.iter().map(move |m| (s, m)));
        let mut all: Vec<Earlier> = members
            .filter(|(_, m)| m.volume_id == *volume && m.state != "error")
            .map(|(s, m)| Earlier {
                id: m.id.clone(),
                time: s.time,
                completed: m.state == "completed",
                archived: m.tier == "archive",
                key: there
                    .iter()
                    .find(|t| t.view.id == m.id)
                    .and_then(|t| t.detail.kms_key.clone())
                    .filter(|_| m.encrypted),
            })
            .collect();
        all.sort_by_key(|e| std::cmp::Reverse(e.time));
        all
    };
    let parts = source
        .parts
        .iter()
        .map(|part| if same_place { in_place(part, how) } else { elsewhere(part, how, &of(&part.volume)) });
    let parts: Vec<Expected> = parts.collect();
    let bytes: Option<Vec<u64>> =
        source.parts.iter().map(|p| p.full_bytes.and_then(|b| u64::try_from(b).ok())).collect();
    let least = bytes.as_ref().map(|bytes| {
        let most = bytes.iter().copied().max().unwrap_or_default() / A_COPY;
        let all = bytes.iter().sum::<u64>() / A_PAIR;
        Duration::from_secs(most.max(all))
    });
    Forecast { parts, full_bytes: bytes.map(|b| b.iter().sum()), least }
}

/// Which key the copy gets. None: unencrypted; an error where only EC2 knows its ARN.
fn key<'a>(part: &Part, how: &'a How) -> Result<Option<&'a str>, &'static str> {
    match &how.encryption {
        Encryption::AsSource => match &how.by_default {
            ByDefault::On(key) => named(key).map(Some),
            _ if part.key.is_some() => Err(NO_ARN),
            ByDefault::Off => Ok(None),
            ByDefault::NotKnown => Err("whether the account encrypts by default there is not known"),
        },
        Encryption::Key(key) => named(key).map(Some),
        Encryption::Unnamed => Err(NO_ARN),
    }
}

const NO_ARN: &str = "the ARN of aws/ebs is not known";

/// A key of this name, where the name is an ARN that only one key has.
fn named(key: &str) -> Result<&str, &'static str> {
    match key {
        arn if arn.starts_with("arn:") && arn.contains(":key/") => Ok(arn),
        AWS_KEY => Err(NO_ARN),
        _ => Err("which key that is only KMS knows"),
    }
}

/// Is it sure that the copy is encrypted?
fn encrypts(how: &How) -> bool {
    how.encryption != Encryption::AsSource || matches!(how.by_default, ByDefault::On(_))
}

fn in_place(part: &Part, how: &How) -> Expected {
    match (&part.key, key(part, how)) {
        (None, Ok(None)) => Expected::Incremental(None),
        (Some(old), Ok(Some(new))) if old == new => Expected::Incremental(None),
        (_, Ok(_)) => Expected::Full("another key than the source's".to_owned()),
        (None, Err(why)) if !encrypts(how) => {
            Expected::NotKnown(format!("incremental unless it is encrypted: {why}"))
        }
        (None, Err(_)) => Expected::Full("the source is not encrypted, and the copy is".to_owned()),
        (Some(_), Err(why)) => Expected::NotKnown(format!("full unless the key is the source's: {why}")),
    }
}

fn elsewhere(part: &Part, how: &How, earlier: &[Earlier]) -> Expected {
    let full = |why: &str| Expected::Full(why.to_owned());
    let Some(last) = earlier.first() else { return full("the first copy of the volume there") };
    if last.archived {
        return Expected::Full(format!("the last copy, {}, is in the archive", last.id));
    }
    if !last.completed {
        return Expected::NotKnown(format!("the last copy, {}, is still pending", last.id));
    }
    if earlier.iter().any(|e| e.completed && e.key != last.key) {
        return full("the copies of the volume there do not have one key");
    }
    match key(part, how) {
        Ok(new) if new == last.key.as_deref() => Expected::Incremental(Some(last.id.clone())),
        Ok(_) => Expected::Full(format!("the last copy, {}, has another key", last.id)),
        Err(_) if last.key.is_none() && encrypts(how) => {
            Expected::Full(format!("the last copy, {}, is not encrypted", last.id))
        }
        Err(why) => Expected::NotKnown(format!("incremental if {} has the same key: {why}", last.id)),
    }
}
