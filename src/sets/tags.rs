//! The tags of a set. Read on another host, they are enough to rebuild volumes, device stacks, filesystems
//! and mounts.
//!
//! In: facts, plan, verdict. Out: key-value pairs within EC2's limits. Must never: exceed 50 tags a
//! resource, 128 characters a key or 256 a value (EC2 guide, "tag restrictions"), or put a verdict into the
//! create call.
//!
//! | tag | when | value |
//! |---|---|---|
//! | `stillpoint:run` | create | run id: the set |
//! | `stillpoint:schema` | create | the version of these tags: [`SCHEMA`] |
//! | `stillpoint:plan`, `:host`, `:instance`, `:requested-consistency` | create | |
//! | `stillpoint:volumes`, `:volumes.N` | create | `0123456789abcdef0 …`: the volumes of the set without `vol-`; a member's number is its place here |
//! | `stillpoint:layout` | create | `volumes=2 filesystems=3 tags=5`: how many lines there are, over how many tags; and `spread` where each snapshot has only a share of them |
//! | `stillpoint:volume.N` | create, or verdict where spread | `vol-… device=/dev/sdf gib=8 type=gp3 …`, one for each volume of the set |
//! | `stillpoint:fs.N`, `stillpoint:fs.N.M` | the same | `/data type=ext4 uuid=… method=freeze on=vol-…,vol-… stack=…`, continued in M = 1, 2, … |
//! | `stillpoint:before`, `:keep-until` | create | where the run was told so: [`super::before`] |
//! | `stillpoint:consistency`, `:reason`, `:frozen`, `:requested`, `:responded`, `:thawed` | verdict | of the set |
//! | `stillpoint:app.N`, `stillpoint:app.N.M` | verdict | `orders type=postgresql label=application lsn=0/3000028 …`, continued |
//! | `stillpoint:apps` | verdict | `partial` when not every line fitted whole: the record has them |
//! | `stillpoint:member`, `:part`, `:device`, `:mounts` | verdict | of this snapshot |
//! | `stillpoint:source`, `:source-time`, `:copy-key` | copy | the Region and id of what it is a copy of, when that was taken, the key that was asked for: [`super::copy`] |
//!
//! The description of each snapshot has the run id too: what is in the Recycle Bin is listed without its tags.

use std::collections::BTreeMap;

use super::before::BEFORE_TAG;
use super::group;
use super::lines::{self, SetApplication, SetFilesystem, SetVolume};
use super::record::{ApplicationRecord, SetRecord};
pub use super::spread::Tag;
use super::spread::{Lines, MAX_VALUE, continued, spread};
use crate::config::settings::PlanSettings;
use crate::discover::{Identity, Volume};
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::path_encoding::printable;
use crate::plan::{Consistency, Plan, PlannedVolume};

/// The version of the tags: raised when one changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;
/// EC2 allows this many tags a resource.
pub(crate) const MAX_TAGS: usize = 50;
/// EC2 allows this many characters a description (EC2 API reference, CreateSnapshots).
pub(crate) const MAX_DESCRIPTION: usize = 255;
/// What a description begins with: `stillpoint`, a space, a UUID.
pub(crate) const DESCRIBED: usize = 10 + 1 + 36;
/// Tags that are added later, without those of applications and without shares of lines: room must be kept for them.
/// Ten of the verdict; until when it is kept, that it is being removed, and two of what verify finds.
const VERDICT_TAGS: usize = 14;
/// The most tags that all applications together get.
const MAX_APP_TAGS: usize = 15;
/// Tags for one session: a name, a label, positions, PostgreSQL's backup label.
const SESSION_TAGS: usize = 4;
/// What begins every key of this tool.
const OWN_PREFIX: &str = "stillpoint:";
/// What begins every key that only AWS sets (EC2 guide, "tag restrictions").
const AWS_PREFIX: &str = "aws:";
/// The tag that carries the instance.
pub(crate) const INSTANCE_TAG: &str = "stillpoint:instance";
/// The tag that carries the key of a host that is built anew.
pub(crate) const HOST_KEY_TAG: &str = "stillpoint:host-key";
/// The tag that carries the schema's version.
pub(crate) const SCHEMA_TAG: &str = "stillpoint:schema";
/// The tag that carries the plan.
pub(crate) const PLAN_TAG: &str = "stillpoint:plan";
/// The tag that says which volumes a set has, and the start of the keys that it goes on in.
pub(crate) const VOLUMES_TAG: &str = "stillpoint:volumes";
/// The tag that says how many lines there are.
pub(crate) const LAYOUT_TAG: &str = "stillpoint:layout";
/// The tag with a snapshot's number in its set.
pub(crate) const MEMBER_TAG: &str = "stillpoint:member";
/// The start of the keys of a volume's line.
pub(super) const VOLUME_LINE: &str = "stillpoint:volume.";
/// The start of the keys of a filesystem's line.
pub(super) const FILESYSTEM_LINE: &str = "stillpoint:fs.";
/// The start of the keys of an application's line.
pub(super) const APPLICATION_LINE: &str = "stillpoint:app.";

/// The tags of a set before it has a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    /// Of every snapshot, for the create call.
    pub common: Vec<Tag>,
    /// Of each volume's snapshot alone, where not every line fits on all of them.
    pub spread: BTreeMap<VolumeId, Vec<Tag>>,
}

/// The prefix of a key that neither a user nor a volume may give a snapshot: this tool's, or that of AWS.
///
/// In any letter case. EC2 refuses `aws:` so; a key such as `Stillpoint:Consistency` is another one to EC2, but
/// not to whoever reads it.
#[must_use]
pub(crate) fn reserved(key: &str) -> Option<&'static str> {
    let starts =
        |prefix: &&str| key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    [AWS_PREFIX, OWN_PREFIX].into_iter().find(starts)
}

/// The keys of a volume's tags that look like this tool's. Nobody but a run says anything by them, and it says
/// so of snapshots: a restore that copies a snapshot's tags puts them on a volume.
#[must_use]
pub(crate) fn strange(volume: &Volume) -> Vec<&str> {
    let own = |(key, _): &&(String, String)| reserved(key) == Some(OWN_PREFIX);
    volume.tags.iter().filter(own).map(|(key, _)| key.as_str()).collect()
}

/// The tags of a volume that its snapshot gets: those whose keys are nobody else's, and not `taken`.
#[must_use]
pub(crate) fn copied(volume: &Volume, taken: &[(String, String)]) -> Vec<(String, String)> {
    let free = |key: &str| reserved(key).is_none() && !taken.iter().any(|(other, _)| other == key);
    volume.tags.iter().filter(|(key, _)| free(key)).cloned().collect()
}

/// Of the snapshots that carry the tag of this run, those that this run on this instance has made, and those
/// that it has not.
///
/// One tag proves nothing, because anybody can copy it, from a snapshot to a volume and from there to the
/// snapshots of others. Run and instance have to agree, and the volume that EC2 names has to be one that the tags
/// themselves list. CreateSnapshots also takes a volume that was attached after the plan was made, which no tag
/// lists: it has the start time of the others, to the millisecond, and a later snapshot has not (EC2 API
/// reference, SnapshotInfo: "the same for all snapshots initiated by the same request").
#[must_use]
pub(crate) fn made_by(
    run: &RunId,
    instance: &InstanceId,
    found: Vec<TaggedSnapshot>,
) -> (Vec<TaggedSnapshot>, Vec<TaggedSnapshot>) {
    let agrees = |s: &TaggedSnapshot| {
        s.tag(RUN_TAG) == Some(run.as_str()) && s.tag(INSTANCE_TAG) == Some(instance.as_str())
    };
    let listed = |s: &TaggedSnapshot| agrees(s) && lists(s, &s.view.volume);
    let started: Vec<_> = found.iter().filter(|s| listed(s)).filter_map(|s| s.view.started).collect();
    found.into_iter().partition(|s| {
        let with_others = s.view.started.is_some_and(|at| started.contains(&at));
        listed(s) || (agrees(s) && with_others)
    })
}

/// Do these tags list this volume as one of the set?
fn lists(snapshot: &TaggedSnapshot, volume: &VolumeId) -> bool {
    volumes_of(&snapshot.tags).is_some_and(|volumes| volumes.contains(volume))
}

/// The volumes that a set's tags list, in the order of their numbers. None where there is no such list, or it
/// cannot be read.
#[must_use]
pub(crate) fn volumes_of(tags: &[Tag]) -> Option<Vec<VolumeId>> {
    let value = |key: &str| tags.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let mut text = value(VOLUMES_TAG)?.to_owned();
    (1..).map_while(|n| value(&format!("{VOLUMES_TAG}.{n}"))).for_each(|more| text.push_str(more));
    let all: Vec<VolumeId> =
        text.split(' ').map(|hex| format!("vol-{hex}").parse()).collect::<Result<_, _>>().ok()?;
    let mut unique: Vec<&VolumeId> = all.iter().collect();
    unique.sort_unstable();
    unique.dedup();
    // Then a number would not tell a volume.
    let twice = unique.len() < all.len();
    (!twice).then_some(all)
}

/// The tags that list these volumes.
fn list(volumes: &[VolumeId]) -> Vec<Tag> {
    let hex: Vec<&str> = volumes.iter().map(|v| v.as_str().trim_start_matches("vol-")).collect();
    continued(VOLUMES_TAG, &hex.join(" "))
}

/// The tags of the create call, and those that each snapshot gets of its own. `copied` is the number of a
/// volume's own tags that its snapshot gets too.
#[must_use]
pub(crate) fn on_create(
    run: &RunId,
    identity: &Identity,
    hostname: &str,
    plan: &Plan,
    settings: &PlanSettings,
    requested: Consistency,
    copied: usize,
) -> Created {
    let tag = |k: &str, v: String| (k.to_owned(), clip(&v, MAX_VALUE));
    let mut common = vec![
        tag(RUN_TAG, run.to_string()),
        tag(SCHEMA_TAG, SCHEMA.to_string()),
        tag(PLAN_TAG, plan.name.clone()),
        tag("stillpoint:host", hostname.to_owned()),
        tag(INSTANCE_TAG, identity.instance_id.to_string()),
        tag("stillpoint:requested-consistency", requested.to_string()),
    ];
    common.extend(settings.group.iter().flat_map(group::on_create));
    common.extend(settings.host_key.iter().map(|key| tag(HOST_KEY_TAG, key.clone())));
    common.extend(settings.tags.iter().map(|(k, v)| (k.clone(), v.clone())));
    let volumes: Vec<VolumeId> = plan.volumes.iter().map(|v| v.id.clone()).collect();
    common.extend(list(&volumes));
    let lines = layout(plan);
    let number: usize = lines.iter().map(|l| l.tags.len()).sum();
    let counts = format!("volumes={} filesystems={} tags={number}", volumes.len(), plan.filesystems.len());
    let room = MAX_TAGS.saturating_sub(common.len() + 1 + later(settings) + copied);
    if number <= room {
        common.push(tag(LAYOUT_TAG, counts));
        common.extend(lines.into_iter().flat_map(|l| l.tags));
        Created { common, spread: BTreeMap::new() }
    } else {
        common.push(tag(LAYOUT_TAG, format!("{counts} spread")));
        Created { common, spread: spread(lines, &volumes, room) }
    }
}

/// The lines of volumes and filesystems.
fn layout(plan: &Plan) -> Vec<Lines<'_>> {
    let volumes = plan.volumes.iter().enumerate().map(|(n, volume)| Lines {
        tags: continued(&format!("{VOLUME_LINE}{n}"), &SetVolume::from(volume).line()),
        volumes: std::slice::from_ref(&volume.id),
    });
    let filesystems = plan.filesystems.iter().enumerate().map(|(n, filesystem)| Lines {
        tags: continued(&format!("{FILESYSTEM_LINE}{n}"), &SetFilesystem::from(filesystem).line()),
        volumes: &filesystem.volumes,
    });
    volumes.chain(filesystems).collect()
}

/// How many tags the verdict adds to a snapshot at most, and the end of the command that it is taken before.
#[must_use]
pub fn later(settings: &PlanSettings) -> usize {
    let more = [settings.tags.contains_key(BEFORE_TAG), settings.group.is_some()];
    VERDICT_TAGS + app_tags(settings) + more.into_iter().filter(|yes| *yes).count()
}

fn app_tags(settings: &PlanSettings) -> usize {
    let each = settings.hooks.iter().map(|h| if h.is_session() { SESSION_TAGS } else { 1 });
    // One more for the tag that says that a line was left out.
    (each.sum::<usize>() + usize::from(!settings.hooks.is_empty())).min(MAX_APP_TAGS)
}

/// The tags of the applications, a line for each, within the number that [`later`] kept for them.
#[must_use]
pub fn applications(records: &[ApplicationRecord], settings: &PlanSettings) -> Vec<(String, String)> {
    let room = app_tags(settings).saturating_sub(1);
    let mut tags = Vec::new();
    let mut partial = false;
    for (n, app) in records.iter().enumerate() {
        let label = app.achieved.unwrap_or(Consistency::Crash);
        let mut line = SetApplication::start(&app.name, &app.kind, label);
        let key = format!("{APPLICATION_LINE}{n}");
        let mut facts: Vec<_> = app.facts.iter().collect();
        // Short facts first: positions are short and needed for a restore; what does not fit is in the
        // record.
        facts.sort_by_key(|(k, v)| (v.len(), *k));
        for (name, value) in facts {
            let longer = format!("{line}{}", SetApplication::fact(name, value));
            if tags.len() + continued(&key, &longer).len() > room {
                partial = true;
            } else {
                line = longer;
            }
        }
        let lines = continued(&key, &line);
        if tags.len() + lines.len() > room {
            partial = true;
        } else {
            tags.extend(lines);
        }
    }
    if partial {
        tags.push(("stillpoint:apps".to_owned(), "partial".to_owned()));
    }
    tags
}

/// The description of a snapshot of this set: what is in the Recycle Bin is listed with that, and without tags.
#[must_use]
pub(crate) fn described(run: &RunId, said: &str) -> String {
    clip(&format!("stillpoint {run} {said}"), MAX_DESCRIPTION)
}

/// The set that a description names.
#[must_use]
pub(crate) fn set_of_description(description: &str) -> Option<RunId> {
    description.strip_prefix("stillpoint ")?.split(' ').next()?.parse().ok()
}

fn clip(s: &str, limit: usize) -> String {
    s.chars().take(limit).collect()
}

/// The verdict's tags, the same for every snapshot of the set.
#[must_use]
pub fn verdict(record: &SetRecord) -> Vec<(String, String)> {
    let mut tags = vec![(
        "stillpoint:consistency".to_owned(),
        record.achieved.unwrap_or(Consistency::Crash).to_string(),
    )];
    let apart = || record.group.as_ref().and_then(|group| group.reason.as_ref());
    if let Some(reason) = record.reason.as_ref().or_else(apart) {
        // What a hook printed last may be in it. XML, in which EC2 answers, has no control characters: whoever asks
        // for the tags would get no answer that can be read.
        tags.push(("stillpoint:reason".to_owned(), clip(&printable(reason), MAX_VALUE)));
    }
    let times = [
        ("frozen", record.times.frozen),
        ("requested", record.times.requested),
        ("responded", record.times.responded),
        ("thawed", record.times.thawed),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            tags.push((format!("stillpoint:{name}"), time.to_string()));
        }
    }
    if let Some(instant) = record.group.as_ref().and_then(|group| group.instant) {
        tags.push((group::INSTANT_TAG.to_owned(), instant.name().to_owned()));
    }
    tags
}

/// The tags that differ between snapshots, for each of them. `spread` is of [`on_create`].
#[must_use]
pub fn parts(record: &SetRecord, spread: &BTreeMap<VolumeId, Vec<Tag>>) -> Vec<(SnapshotId, Vec<Tag>)> {
    let volumes: Vec<_> = record.plan.volumes.iter().map(|v| v.id.clone()).collect();
    let made: Vec<_> = record.snapshots.iter().map(|s| (s.id.clone(), s.volume_id.clone())).collect();
    let mut all = members(&volumes, spread, &made);
    for ((_, tags), snapshot) in all.iter_mut().zip(&record.snapshots) {
        tags.push(("stillpoint:part".to_owned(), snapshot.achieved.to_string()));
        if let Some(device) = &snapshot.device_name {
            tags.push(("stillpoint:device".to_owned(), device.clone()));
        }
        if !snapshot.mount_points.is_empty() {
            let mounts: Vec<_> = snapshot.mount_points.iter().map(|m| lines::path(m)).collect();
            tags.push(("stillpoint:mounts".to_owned(), clip(&mounts.join(","), MAX_VALUE)));
        }
    }
    all
}

/// What only the clone of this volume gets, the `n`th of its set.
#[must_use]
pub(crate) fn of_clone(n: usize, volume: &PlannedVolume) -> Vec<Tag> {
    let mut tags = vec![
        (MEMBER_TAG.to_owned(), n.to_string()),
        ("stillpoint:device".to_owned(), volume.device_name.clone()),
    ];
    if !volume.mount_points.is_empty() {
        let mounts: Vec<_> = volume.mount_points.iter().map(|m| lines::path(m)).collect();
        tags.push(("stillpoint:mounts".to_owned(), clip(&mounts.join(","), MAX_VALUE)));
    }
    tags
}

/// Each snapshot's number in its set, and its share of the lines. A volume that nobody planned (attached in the
/// last moment) has a number after those that are.
#[must_use]
pub(crate) fn members(
    volumes: &[VolumeId],
    spread: &BTreeMap<VolumeId, Vec<Tag>>,
    made: &[(SnapshotId, VolumeId)],
) -> Vec<(SnapshotId, Vec<Tag>)> {
    let mut beyond = volumes.len();
    let of_one = |(id, volume): &(SnapshotId, VolumeId)| {
        let number = volumes.iter().position(|v| v == volume).unwrap_or_else(|| {
            beyond += 1;
            beyond - 1
        });
        let mut tags = vec![(MEMBER_TAG.to_owned(), number.to_string())];
        tags.extend(spread.get(volume).into_iter().flatten().cloned());
        (id.clone(), tags)
    };
    made.iter().map(of_one).collect()
}

#[cfg(test)]
pub(crate) mod tests;
