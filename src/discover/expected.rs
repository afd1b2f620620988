//! What should be mounted and is not: in fstab, and in systemd's mount units.
//!
//! In: `/etc/fstab` and `/proc` below a root, what systemctl says, and who tells which device a name means.
//! Out: [`Expected`] mounts. Must never: mount anything, judge what follows, or take a name for a device.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::HostFacts;
use crate::discover::Backing;
use crate::host::fstab::{self, has_option};
use crate::host::inspect::{Answer, Inspect, Question};
use crate::host::mountinfo::{self, MountLine};
use crate::ids::DevNo;
use crate::path_encoding::{self, shown};

/// The file.
const FSTAB: &str = "etc/fstab";

/// The properties of units that [`expected`] needs, as `systemctl show` takes them.
pub const UNIT_PROPERTIES: &str = "Id,LoadState,ActiveState,Result,UnitFileState,Where,What,Options";

/// A mount from a device that something names, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Where it should be.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// What should be mounted, as it is written.
    pub source: String,
    /// Who says so: `/etc/fstab, line 3` or `data.mount`.
    pub named_by: String,
    /// The device; none when nothing here has that name.
    pub device: Option<DevNo>,
    /// It may be on another machine, though it is a device (iSCSI).
    pub remote: bool,
    /// The id of the mount of an automount that waits there.
    pub idle: Option<u32>,
    /// What has failed: its unit, or the try to mount it.
    pub failed: Option<String>,
}

/// What is expected, and what could not be found out about that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Expectations {
    /// What should be mounted and is not, by its mount point.
    pub mounts: Vec<Expected>,
    /// What could not be read, and automounts of which nobody knows what they would mount.
    pub notes: Vec<String>,
}

/// Somebody who says that something should be mounted.
struct Named {
    mount_point: PathBuf,
    source: OsString,
    by: String,
    remote: bool,
    automount: bool,
    failed: Option<String>,
}

/// Compares what should be mounted with what is. `units` is what `systemctl show` says of all mount units,
/// with [`UNIT_PROPERTIES`]; none where there is no systemd, and why where it did not say.
pub fn expected(
    root: &Path,
    host: &HostFacts,
    units: Option<Result<&str, &str>>,
    inspect: &dyn Inspect,
) -> Expectations {
    let mut found = Expectations::default();
    let lines = match mountinfo::read(root, "self") {
        Ok(table) => table.lines,
        Err(e) => {
            found.notes.push(format!("What should be mounted is not known: cannot read mountinfo: {e}."));
            return found;
        }
    };
    let mut named = in_fstab(root, &mut found.notes);
    match units {
        Some(Ok(said)) => in_units(said, &mut named),
        Some(Err(why)) => found.notes.push(format!("Mount units were not looked at: {why}.")),
        None => {}
    }
    for line in lines.iter().filter(|l| idle(&lines, l) && !is_of_the_kernel(&l.mount_point)) {
        let known = units.is_some_and(|u| u.is_ok()) && line.source == "systemd-1";
        if !known && !named.iter().any(|n| n.mount_point == line.mount_point) {
            let at = shown(&line.mount_point);
            found.notes.push(format!(
                "An automount waits at {at}, and neither fstab nor a unit says what it would mount: it was left \
                 alone."
            ));
        }
    }
    named.retain(|n| !lines.iter().any(|l| l.mount_point == n.mount_point && l.fstype != "autofs"));
    let paths: Vec<_> = named.into_iter().filter_map(|n| Some((fstab::device_path(&n.source)?, n))).collect();
    let questions: Vec<_> = paths.iter().map(|(path, _)| Question::Node { path: path.clone() }).collect();
    let answers = if questions.is_empty() { Vec::new() } else { inspect.ask(&questions) };
    let mounted = mounted(host);
    for ((_, named), answer) in paths.into_iter().zip(answers) {
        let device = match answer {
            Some(Answer::Node { dev, .. }) => Some(dev),
            _ => None,
        };
        // It is mounted elsewhere: another subvolume, or a link on the way to the mount point.
        if device.is_some_and(|dev| mounted.contains(&dev)) {
            continue;
        }
        let waits = lines.iter().rev().find(|l| l.mount_point == named.mount_point && idle(&lines, l));
        found.mounts.push(Expected {
            source: shown(Path::new(&named.source)),
            named_by: named.by,
            device,
            remote: named.remote,
            idle: waits.map(|l| l.id),
            // A mount that is made at the first access has not failed while that is still waited for.
            failed: named.failed.or_else(|| {
                (named.automount && waits.is_none()).then(|| "no automount waits there".to_owned())
            }),
            mount_point: named.mount_point,
        });
    }
    found.mounts.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    found
}

/// Does an automount wait there, and nothing is mounted on it? Not an indirect one, in whose folder any name
/// may be asked for.
fn idle(lines: &[MountLine], line: &MountLine) -> bool {
    line.fstype == "autofs"
        && has_option(&line.super_options.to_string_lossy(), "direct")
        && !lines.iter().any(|l| l.parent == line.id && l.mount_point == line.mount_point)
}

/// binfmt_misc waits on nearly every host, and is on no disk.
fn is_of_the_kernel(at: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|top| at.starts_with(top))
}

fn in_fstab(root: &Path, notes: &mut Vec<String>) -> Vec<Named> {
    let path = root.join(FSTAB);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            notes.push(format!("What should be mounted is not known: cannot read /{FSTAB}: {e}."));
            return Vec::new();
        }
    };
    let (entries, unread) = fstab::parse(&bytes);
    for line in unread {
        notes.push(format!("/{FSTAB}, line {line}, cannot be read."));
    }
    let expected = entries.into_iter().filter(fstab::Entry::is_expected);
    let named = expected.map(|e| Named {
        by: format!("/{FSTAB}, line {}", e.line),
        remote: e.is_remote(),
        automount: e.is_automount(),
        failed: None,
        mount_point: e.mount_point,
        source: e.source,
    });
    named.collect()
}

/// Adds what units name beside fstab, and what is said of the units that systemd makes of it.
fn in_units(said: &str, named: &mut Vec<Named>) {
    let blocks = said
        .split("\n\n")
        .map(|block| block.lines().filter_map(|l| l.split_once('=')).collect::<BTreeMap<&str, &str>>());
    let units: Vec<_> = blocks.filter(|u| u.get("LoadState") == Some(&"loaded")).collect();
    let automounts = |at: &str| {
        let is = |u: &&BTreeMap<&str, &str>| u.get("Id").is_some_and(|id| id.ends_with(".automount"));
        units.iter().filter(is).any(|u| u.get("Where") == Some(&at))
    };
    for unit in &units {
        let get = |key: &str| unit.get(key).copied().unwrap_or_default();
        let (id, at) = (get("Id"), get("Where"));
        if !id.ends_with(".mount") || at.is_empty() {
            continue;
        }
        let is_failed = get("ActiveState") == "failed";
        let failed = is_failed.then(|| format!("{id} has failed ({})", get("Result")));
        let mount_point: PathBuf = Path::new(at).components().collect();
        if let Some(known) = named.iter_mut().find(|n| n.mount_point == mount_point) {
            known.failed = failed.or(known.failed.take());
            continue;
        }
        let automount = automounts(at);
        let enabled = matches!(get("UnitFileState"), "enabled" | "enabled-runtime");
        let is_bind = ["bind", "rbind"].iter().any(|o| has_option(get("Options"), o));
        if is_bind || !(is_failed || enabled || automount) {
            continue;
        }
        named.push(Named {
            mount_point,
            source: OsStr::new(get("What")).to_owned(),
            by: id.to_owned(),
            remote: has_option(get("Options"), "_netdev"),
            automount: automount && !enabled && !is_failed,
            failed,
        });
    }
}

/// Every device that a mounted filesystem is on.
fn mounted(host: &HostFacts) -> Vec<DevNo> {
    let names = host.filesystems.iter().filter_map(|f| match &f.backing {
        Backing::Devices { devices } => Some(devices),
        _ => None,
    });
    let device = |name: &String| host.devices.iter().find(|d| d.name == *name).map(|d| d.dev);
    names.flatten().filter_map(device).collect()
}
