//! The tags of a set. Read on another host, they are enough to rebuild volumes, device stacks, filesystems
//! and mounts.
//!
//! In: facts, plan, verdict. Out: key-value pairs within EC2's limits. Must never: exceed 50 tags a
//! resource, 128 characters a key or 256 a value (EC2 guide, "tag restrictions"), or put a verdict into the
//! create call.
//!
//! | tag | when | value |
//! |---|---|---|
//! | `stillpoint:run` | create | run id |
//! | `stillpoint:plan`, `:host`, `:instance`, `:requested-consistency` | create | |
//! | `stillpoint:volume.N` | create | `vol-… device=/dev/sdf gib=8 type=gp3 …`, one for each volume of the set |
//! | `stillpoint:fs.N`, `stillpoint:fs.N.M` | create | `/data type=ext4 uuid=… method=freeze on=vol-…,… stack=…`, continued in M = 1, 2, … |
//! | `stillpoint:layout` | create | `partial` when not every line fitted |
//! | `stillpoint:consistency`, `:reason`, `:frozen`, `:requested`, `:responded`, `:thawed` | verdict | of the set |
//! | `stillpoint:app.N`, `stillpoint:app.N.M` | verdict | `orders type=postgresql label=application lsn=0/3000028 …`, continued |
//! | `stillpoint:apps` | verdict | `partial` when not every line fitted whole: the record has them |
//! | `stillpoint:part`, `:device`, `:mounts` | verdict | of this snapshot |

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::record::{ApplicationRecord, SetRecord};
use crate::config::settings::PlanSettings;
use crate::discover::{Identity, Volume};
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::ids::{InstanceId, RunId, SnapshotId, VolumeId};
use crate::plan::{Consistency, Plan, PlannedFilesystem, PlannedVolume};

/// EC2 allows this many tags a resource.
pub(crate) const MAX_TAGS: usize = 50;
/// EC2 allows this many characters a value.
const MAX_VALUE: usize = 256;
/// Tags that the verdict adds later, without those of applications: room must be kept for them.
const VERDICT_TAGS: usize = 9;
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
/// Space and comma separate, `%` escapes.
const ESCAPE: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'<').add(b'>').add(b'\\').add(b'"');

fn path(p: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    percent_encoding::percent_encode(p.as_os_str().as_bytes(), ESCAPE).to_string()
}

fn text(s: &str) -> String {
    utf8_percent_encode(s, ESCAPE).to_string()
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
    // The lines of volumes are the first, so all of them are there where one of a filesystem is.
    let partial = |s: &TaggedSnapshot| {
        s.tag("stillpoint:layout") == Some("partial") && s.tag("stillpoint:fs.0").is_none()
    };
    found.into_iter().partition(|s| {
        let with_others = s.view.started.is_some_and(|at| started.contains(&at));
        listed(s) || (agrees(s) && (with_others || partial(s)))
    })
}

/// Do these tags list this volume as one of the set?
fn lists(snapshot: &TaggedSnapshot, volume: &VolumeId) -> bool {
    let of_volume = |line: &str| line.split(' ').next() == Some(volume.as_str());
    snapshot.tags.iter().any(|(key, line)| key.starts_with("stillpoint:volume.") && of_volume(line))
}

/// The tags of the create call.
#[must_use]
pub(crate) fn on_create(
    run: &RunId,
    identity: &Identity,
    hostname: &str,
    plan: &Plan,
    settings: &PlanSettings,
    requested: Consistency,
    copied: usize,
) -> Vec<(String, String)> {
    let tag = |k: &str, v: String| (k.to_owned(), clip(&v, MAX_VALUE));
    let mut tags = vec![
        tag(RUN_TAG, run.to_string()),
        tag("stillpoint:plan", plan.name.clone()),
        tag("stillpoint:host", hostname.to_owned()),
        tag(INSTANCE_TAG, identity.instance_id.to_string()),
        tag("stillpoint:requested-consistency", requested.to_string()),
    ];
    tags.extend(settings.tags.iter().map(|(k, v)| (k.clone(), v.clone())));
    let mut layout = Vec::new();
    for (n, volume) in plan.volumes.iter().enumerate() {
        layout.push(vec![tag(&format!("stillpoint:volume.{n}"), volume_line(volume))]);
    }
    for (n, filesystem) in plan.filesystems.iter().enumerate() {
        layout.push(continued(&format!("stillpoint:fs.{n}"), &filesystem_line(filesystem)));
    }
    // Room for the tag `layout=partial` itself.
    let room = MAX_TAGS.saturating_sub(later(settings) + copied + 1);
    for lines in layout {
        if tags.len() + lines.len() > room {
            tags.push(tag("stillpoint:layout", "partial".to_owned()));
            break;
        }
        tags.extend(lines);
    }
    tags
}

/// How many tags the verdict adds to a snapshot at most.
#[must_use]
pub fn later(settings: &PlanSettings) -> usize {
    VERDICT_TAGS + app_tags(settings)
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
        let mut line = format!("{} type={} label={label}", text(&app.name), app.kind);
        let key = format!("stillpoint:app.{n}");
        let mut facts: Vec<_> = app.facts.iter().collect();
        // Short facts first: positions are short and needed for a restore; what does not fit is in the
        // record.
        facts.sort_by_key(|(k, v)| (v.len(), *k));
        for (name, value) in facts {
            let longer = format!("{line} {}={}", text(name), text(value));
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

fn volume_line(v: &PlannedVolume) -> String {
    let mut line =
        format!("{} device={} gib={} type={}", v.id, text(&v.device_name), v.size_gib, v.volume_type);
    for (name, value) in [("iops", v.iops), ("throughput", v.throughput)] {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    if v.encrypted {
        line.push_str(" encrypted");
    }
    if v.boot {
        line.push_str(" boot");
    }
    line
}

fn filesystem_line(f: &PlannedFilesystem) -> String {
    let volumes: Vec<_> = f.volumes.iter().map(|v| v.as_str()).collect();
    let mut line = format!("{} type={}", path(&f.mount_point), f.fstype);
    if let Some(uuid) = &f.uuid {
        line.push_str(&format!(" uuid={uuid}"));
    }
    let method = match f.method {
        crate::plan::Method::Freeze => "freeze",
        crate::plan::Method::Sync => "sync",
        crate::plan::Method::Unmount => "unmount",
    };
    line.push_str(&format!(
        " method={method} on={} stack={} options={}",
        volumes.join(","),
        text(&f.stack),
        text(&f.options)
    ));
    for other in f.mount_points.iter().filter(|m| **m != f.mount_point) {
        line.push_str(&format!(" also={}", path(other)));
    }
    line
}

/// Splits a long line over several tags: `key`, `key.1`, `key.2`, …
fn continued(key: &str, line: &str) -> Vec<(String, String)> {
    let characters: Vec<char> = line.chars().collect();
    characters
        .chunks(MAX_VALUE)
        .enumerate()
        .map(|(n, chunk)| {
            let key = if n == 0 { key.to_owned() } else { format!("{key}.{n}") };
            (key, chunk.iter().collect())
        })
        .collect()
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
    if let Some(reason) = &record.reason {
        tags.push(("stillpoint:reason".to_owned(), clip(reason, MAX_VALUE)));
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
    tags
}

/// The tags that differ between snapshots, for each of them.
#[must_use]
pub fn parts(record: &SetRecord) -> Vec<(SnapshotId, Vec<(String, String)>)> {
    let mut all = Vec::new();
    for snapshot in &record.snapshots {
        let mut tags = vec![("stillpoint:part".to_owned(), snapshot.achieved.to_string())];
        if let Some(device) = &snapshot.device_name {
            tags.push(("stillpoint:device".to_owned(), device.clone()));
        }
        if !snapshot.mount_points.is_empty() {
            let mounts: Vec<_> = snapshot.mount_points.iter().map(|m| path(m)).collect();
            tags.push(("stillpoint:mounts".to_owned(), clip(&mounts.join(","), MAX_VALUE)));
        }
        all.push((snapshot.id.clone(), tags));
    }
    all
}

#[cfg(test)]
mod tests;
