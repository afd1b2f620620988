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
use crate::discover::Identity;
use crate::ec2::RUN_TAG;
use crate::ids::{RunId, SnapshotId};
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
/// Space and comma separate, `%` escapes.
const ESCAPE: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'<').add(b'>').add(b'\\').add(b'"');

fn path(p: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    percent_encoding::percent_encode(p.as_os_str().as_bytes(), ESCAPE).to_string()
}

fn text(s: &str) -> String {
    utf8_percent_encode(s, ESCAPE).to_string()
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
        tag("stillpoint:instance", identity.instance_id.to_string()),
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
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn long_lines_go_on_in_further_tags_and_read_back_whole() {
        let line = "ä".repeat(600);
        let tags = continued("stillpoint:fs.0", &line);
        let keys: Vec<_> = tags.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["stillpoint:fs.0", "stillpoint:fs.0.1", "stillpoint:fs.0.2"]);
        assert!(tags.iter().all(|(_, v)| v.chars().count() <= MAX_VALUE));
        assert_eq!(tags.into_iter().map(|(_, v)| v).collect::<String>(), line);
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(path(Path::new("/a b,c%")), "/a%20b%2Cc%25");
    }

    fn defaults() -> PlanSettings {
        let nothing = crate::config::Overrides::default();
        crate::config::load_with(Path::new("/nonexistent"), None, None, &nothing, &|_| None)
            .unwrap()
            .settings
            .plan
    }

    fn filesystem(n: usize) -> PlannedFilesystem {
        let mount_point = PathBuf::from(format!("/{}/{n}", "deep/".repeat(40)));
        PlannedFilesystem {
            dev: "7:1".parse().unwrap(),
            mount_points: vec![mount_point.clone()],
            mount_point,
            fstype: "ext4".into(),
            uuid: Some("0197f3c2-8b1e-7c55-9d3f-2f6a1c0b9e11".into()),
            options: "rw,relatime".into(),
            method: crate::plan::Method::Freeze,
            wave: crate::plan::Wave::Data,
            stack: "nvme1n1".into(),
            witnesses: vec![],
            volumes: vec!["vol-0123456789abcdef0".parse().unwrap()],
            reason: String::new(),
        }
    }

    #[test]
    fn applications_have_their_positions_in_tags_and_never_more_than_was_kept_for_them() {
        use crate::config::settings::{Hook, HookKind, OnFailure, SessionHook};
        let hook = |name: &str| Hook {
            name: name.into(),
            kind: HookKind::Session(SessionHook {
                release: None,
                command: vec![],
                user: None,
                environment: Default::default(),
            }),
            timeout: std::time::Duration::ZERO,
            on_failure: OnFailure::Abort,
        };
        let mut settings = defaults();
        let app = |name: &str, facts: &[(&str, String)]| ApplicationRecord {
            name: name.into(),
            kind: "session".into(),
            achieved: Some(Consistency::Application),
            reason: None,
            facts: facts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        };
        settings.hooks = vec![hook("my db")];
        let tags =
            applications(&[app("my db", &[("lsn", "0/30".into()), ("label", "A\nB c".into())])], &settings);
        assert_eq!(
            tags,
            [(
                "stillpoint:app.0".to_owned(),
                "my%20db type=session label=application lsn=0/30 label=A%0AB%20c".to_owned()
            )]
        );
        // A fact that is too long is left out as a whole, with a tag that says so; positions stay.
        let long = app("a", &[("huge", "x".repeat(2000)), ("gtid", "0-1-7".into())]);
        let tags = applications(&[long], &settings);
        assert_eq!(tags.last().unwrap(), &("stillpoint:apps".to_owned(), "partial".to_owned()));
        assert!(tags[0].1.ends_with("gtid=0-1-7"), "{tags:?}");
        for n in [1, 2, 5, 40] {
            settings.hooks = vec![hook("x"); n];
            let half = app("h", &[("half", "y".repeat(700))]);
            let tags = applications(&vec![half; n], &settings);
            assert!(tags.len() + VERDICT_TAGS <= later(&settings), "{n}: {}", tags.len());
            assert!(later(&settings) <= VERDICT_TAGS + MAX_APP_TAGS);
        }
        settings.hooks = Vec::new();
        assert!(applications(&[], &settings).is_empty() && later(&settings) == VERDICT_TAGS);
    }

    #[test]
    fn the_create_call_and_the_verdict_together_stay_within_fifty_tags() {
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".parse().unwrap(),
            region: "eu-west-1".into(),
            availability_zone: None,
            account_id: None,
        };
        let plan = |n: usize| Plan {
            name: "p".into(),
            filesystems: (0..n).map(filesystem).collect(),
            volumes: vec![],
            witnesses: vec![],
            left_out: vec![],
            call: crate::plan::PointInTimeCall::CreateSnapshot {
                volume: "vol-0123456789abcdef0".parse().unwrap(),
            },
            notes: vec![],
            best: Consistency::Filesystem,
        };
        let settings = defaults();
        let tags = |n: usize, copied: usize| {
            on_create(
                &RunId::generate(),
                &identity,
                "h",
                &plan(n),
                &settings,
                Consistency::Filesystem,
                copied,
            )
        };
        let partial = |tags: &[(String, String)]| tags.iter().any(|(k, _)| k == "stillpoint:layout");
        assert!(!partial(&tags(3, 0)));
        for (n, copied) in [(60, 0), (60, 20), (10, 10)] {
            let tags = tags(n, copied);
            assert!(tags.len() + copied + later(&settings) <= MAX_TAGS, "{} tags", tags.len());
        }
        assert!(partial(&tags(60, 0)), "and it says so when a line was left out");
    }
}
