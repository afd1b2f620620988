//! Filling an account: very many snapshots at once, that have no data and everything else.
//!
//! In: how many sets of how many members, and what they are like. Out: completed snapshots, the oldest first. What
//! they are made like must stay as it is, and no two sets may have what is to differ in common.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::Outcome;
use crate::ids::{SnapshotId, VolumeId};
use crate::sim::Sim;
use crate::units::GIB;
use crate::world::{Later, Sizes, Snapshot, Tags, World};

/// `POST /_ebs-sim/fill`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    sets: u64,
    /// How many snapshots a set has, when they are not like others.
    #[serde(default)]
    members: Option<u64>,
    /// Snapshots of a set: each new set has one like each of them.
    #[serde(default)]
    like: Vec<SnapshotId>,
    /// Tags whose values differ from set to set, wherever they appear.
    #[serde(default)]
    vary: Vec<String>,
    /// Tags besides. `{set}`, `{member}` and `{time}` stand for what they say.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    description: Option<String>,
    /// The Region; the instance's when absent.
    #[serde(default)]
    region: Option<String>,
    /// The account; the instance's when absent.
    #[serde(default)]
    account: Option<String>,
    /// From one set to the next.
    every_seconds: u32,
}

/// What the members of each set are like.
struct Template {
    snapshot: Snapshot,
    tags: Tags,
}

/// Adds the snapshots. The last set is as old as one interval.
pub fn fill(sim: &Sim, fill: &Fill) -> Outcome {
    let now = sim.world().clock(Timestamp::now());
    let mut world = sim.change();
    let templates = templates(&world, fill).map_err(|error| (400, error))?;
    let limit = world.scenario.limits.snapshots as u64;
    let more = fill.sets.saturating_mul(templates.len() as u64);
    if more > 10_000_000 || (limit > 0 && world.live().count() as u64 + more > limit) {
        return Err((409, format!("{more} more are too many: limits.snapshots = {limit}")));
    }
    let varied: Vec<String> = fill
        .vary
        .iter()
        .flat_map(|key| templates.iter().filter_map(|template| template.tags.get(key).cloned()))
        .filter(|value| !value.is_empty())
        .collect();
    for set in 0..fill.sets {
        let sets_to_come = i64::try_from(fill.sets - set).unwrap_or(i64::MAX);
        let age = SignedDuration::from_secs(i64::from(fill.every_seconds).saturating_mul(sets_to_come));
        let started = now.checked_sub(age).map_err(|_| (400, "the oldest set is too old".to_owned()))?;
        let fresh: Vec<(&String, String)> = varied.iter().map(|old| (old, other_like(old))).collect();
        for (member, template) in templates.iter().enumerate() {
            let write = |text: &str| {
                let mut text = text
                    .replace("{set}", &set.to_string())
                    .replace("{member}", &member.to_string())
                    .replace("{time}", &started.to_string());
                for (old, new) in &fresh {
                    text = text.replace(old.as_str(), new);
                }
                text
            };
            let tags = template.tags.iter().map(|(key, value)| (key.clone(), write(value))).collect();
            world.snapshots.insert(Snapshot {
                id: SnapshotId::random(),
                description: write(&template.snapshot.description),
                started,
                tags,
                ..template.snapshot.clone()
            });
        }
    }
    Ok(json!({ "made": more }))
}

fn templates(world: &World, fill: &Fill) -> Result<Vec<Template>, String> {
    let region = fill.region.clone().unwrap_or_else(|| world.home().to_owned());
    if !world.regions().any(|known| known == region) {
        return Err(format!("{region} is neither the instance's Region nor in other_regions"));
    }
    let owner = fill.account.clone().unwrap_or_else(|| world.account().to_owned());
    let others = world.scenario.accounts.iter().map(|account| account.id.as_str());
    if !others.chain([world.account()]).any(|known| known == owner) {
        return Err(format!("there is no account {owner}"));
    }
    let blank = |volume: VolumeId| Snapshot {
        id: SnapshotId::random(),
        owner: owner.clone(),
        region: region.clone(),
        volume_id: volume,
        size_gib: 8,
        size_bytes: 8 * GIB,
        description: fill.description.clone().unwrap_or_default(),
        started: Timestamp::UNIX_EPOCH,
        takes: std::time::Duration::ZERO,
        fails: false,
        is_copy: false,
        visible_from: None,
        encrypted: false,
        kms_key_id: None,
        reason: None,
        image: None,
        lineage: None,
        tags: Tags::new(),
        later: Later::default(),
        sizes: Sizes::Unknown,
    };
    let template = |snapshot: Snapshot, mut tags: Tags| {
        tags.extend(fill.tags.clone());
        if tags.len() > 50 {
            return Err("a snapshot has at most 50 tags".to_owned());
        }
        Ok(Template { snapshot, tags })
    };
    match (fill.members, fill.like.as_slice()) {
        (Some(members @ 1..=128), []) => {
            (0..members).map(|_| template(blank(VolumeId::random()), Tags::new())).collect()
        }
        (None, like @ [_, ..]) => like
            .iter()
            .map(|id| {
                let found = world.snapshots.get(id).ok_or_else(|| format!("there is no snapshot {id}"))?;
                let snapshot = Snapshot {
                    size_gib: found.size_gib,
                    size_bytes: found.size_bytes,
                    encrypted: found.encrypted,
                    kms_key_id: found.kms_key_id.clone(),
                    sizes: found.sizes,
                    description: fill.description.clone().unwrap_or_else(|| found.description.clone()),
                    ..blank(found.volume_id.clone())
                };
                template(snapshot, found.tags.clone())
            })
            .collect(),
        _ => Err("members is 1 to 128, or like names snapshots: one of the two".into()),
    }
}

/// Another value of the same form: other letters and digits, of the same kinds and at the same places.
fn other_like(value: &str) -> String {
    let is_hex = value.bytes().all(|byte| !byte.is_ascii_alphabetic() || byte.is_ascii_hexdigit());
    let other = |c: char| match c {
        '0'..='9' => fastrand::digit(10),
        'a'..='z' if is_hex => char::from(b'a' + fastrand::u8(0..6)),
        'A'..='Z' if is_hex => char::from(b'A' + fastrand::u8(0..6)),
        'a'..='z' => fastrand::lowercase(),
        'A'..='Z' => fastrand::uppercase(),
        other => other,
    };
    value.chars().map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_has_the_same_form() {
        for value in ["0f3c", "2026-01-31T00:00:00Z", "Run-77/x"] {
            let other = other_like(value);
            assert_eq!(other.len(), value.len());
            for (a, b) in value.chars().zip(other.chars()) {
                assert_eq!((a.is_ascii_digit(), a.is_lowercase()), (b.is_ascii_digit(), b.is_lowercase()));
                assert!(a.is_alphanumeric() || a == b);
            }
        }
    }
}
