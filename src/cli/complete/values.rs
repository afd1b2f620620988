//! Which values an argument may have, and those that this host knows.
//!
//! In: an argument; the configuration, records, the mount table and sysfs, below a root that can be set. Out: values that
//! begin with what was typed, each with what it is. Must never: fail, read without a limit, or touch a mount.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Arg;
use serde_json::Value;

use crate::config::{self, Overrides, STATE_DIR};
use crate::host::mountinfo;
use crate::ids::{RunId, VolumeId};

/// The sets that are offered: the newest ones.
const SETS: usize = 50;
/// The most that is read of a record, in bytes. That of a set of ten volumes has about 30 KiB.
const RECORD: u64 = 1 << 20;
/// Filesystems on block devices that hold no data of this host.
const IMAGES: [&str; 2] = ["squashfs", "iso9660"];

/// What the values of an argument are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Plans,
    /// Ids of sets; of snapshots, once that is what is typed.
    Sets,
    SetsAndPlans,
    Mounts,
    Volumes,
    /// Ids of restores, beside what is there and of roots.
    Restores,
    /// Ids of runs that have cloned.
    Clones,
    /// Ids of runs with a journal.
    Runs,
    Regions,
    Words(&'static [&'static str]),
    /// The shell completes these.
    Files,
    Folders,
    Command,
    /// Nobody knows them.
    Unknown,
}

impl Values {
    /// Of an argument; none where it has no value, or clap knows its values.
    pub(super) fn of(argument: &Arg) -> Option<Self> {
        let takes = argument.get_action().takes_values();
        if !takes || !argument.get_possible_values().is_empty() {
            return None;
        }
        let name =
            argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        Some(match (argument.get_id().as_str(), name) {
            ("mount" | "exclude_mount", _) => Self::Mounts,
            ("volume" | "exclude_volume", _) => Self::Volumes,
            ("undo" | "go_on", _) => Self::Restores,
            ("delete", "RUN") => Self::Clones,
            ("run", "RUN") => Self::Runs,
            ("consistency", _) => Self::Words(&["application", "filesystem", "crash"]),
            ("on_degraded", _) => Self::Words(&["fail", "keep"]),
            ("label", _) => Self::Words(&["application", "filesystem", "crash", "none"]),
            ("hold", _) => Self::Words(&["answer"]),
            ("keep_until", _) => Self::Words(&["forever"]),
            ("plan", _) | (_, "PLAN") => Self::Plans,
            ("set", _) | (_, "SET") => Self::Sets,
            (_, "SET|PLAN") => Self::SetsAndPlans,
            ("region", _) | (_, "REGION") => Self::Regions,
            (_, "FILE") => Self::Files,
            (_, "DIR") => Self::Folders,
            ("copy_out", _) => Self::Files,
            ("command", "COMMAND") => Self::Command,
            _ => Self::Unknown,
        })
    }

    /// How the shell's script is told that the shell itself knows the values.
    pub(super) fn by_shell(self) -> Option<&'static str> {
        match self {
            Self::Files => Some("files"),
            Self::Folders => Some("folders"),
            Self::Command => Some("command"),
            _ => None,
        }
    }
}

/// Where values are looked for.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
}

/// A value, and what it is.
type Known = (String, String);

impl Place {
    /// As the words of the command line say.
    pub(super) fn of(root: &Path, words: &[OsString]) -> Self {
        let option = |name| super::option(words, name);
        Self {
            root: root.to_owned(),
            config: option("--config"),
            state_dir: option("--state-dir"),
            run_dir: option("--run-dir"),
        }
    }

    /// Those that begin with this.
    pub(super) fn find(&self, values: Values, typed: &str) -> Vec<Known> {
        let mut found = match values {
            Values::Plans => self.plans(),
            Values::Sets => self.sets(typed),
            Values::SetsAndPlans => [self.plans(), self.sets(typed)].concat(),
            Values::Mounts => self.mounts(),
            Values::Volumes => self.volumes(),
            Values::Restores => {
                let folders = ["restores", "restores/root"].map(|folder| self.state_dir().join(folder));
                folders.iter().flat_map(|folder| ids(folder)).map(|id| bare(id.as_str())).collect()
            }
            Values::Clones => ids(&self.state_dir().join("clones")).map(|id| bare(id.as_str())).collect(),
            Values::Runs => ids(&self.run_dir().join("runs")).map(|id| bare(id.as_str())).collect(),
            Values::Regions => self.regions(),
            Values::Words(words) => words.iter().map(|word| bare(word)).collect(),
            Values::Files | Values::Folders | Values::Command | Values::Unknown => Vec::new(),
        };
        found.retain(|(value, _)| value.starts_with(typed));
        found
    }

    fn load(&self, plan: Option<&str>) -> Option<config::Loaded> {
        config::load(&self.root, self.config.as_deref(), plan, &Overrides::default()).ok()
    }

    /// The plans of the files that can be read; `default` is always one.
    fn plans(&self) -> Vec<Known> {
        let mut plans = vec![config::DEFAULT_PLAN.to_owned()];
        if let Ok(checked) = config::check(&self.root, self.config.as_deref()) {
            plans.extend(checked.plans);
        }
        plans.sort();
        plans.dedup();
        plans.into_iter().map(|plan| (plan, "plan".to_owned())).collect()
    }

    fn regions(&self) -> Vec<Known> {
        let mut regions = Vec::new();
        let plans = self.plans().into_iter().map(|(plan, _)| plan);
        for loaded in plans.filter_map(|plan| self.load(Some(&plan))) {
            regions.extend(loaded.settings.identity.region);
            regions.extend(loaded.settings.plan.copy.into_iter().map(|copy| copy.region));
        }
        regions.sort();
        regions.dedup();
        regions.iter().map(|region| bare(region)).collect()
    }

    fn state_dir(&self) -> PathBuf {
        let of_files = || self.load(None).map(|loaded| loaded.settings.state_dir);
        self.below(self.state_dir.clone().or_else(of_files).unwrap_or_else(|| STATE_DIR.into()))
    }

    fn run_dir(&self) -> PathBuf {
        let of_files = || self.load(None).map(|loaded| loaded.settings.run_dir);
        self.below(self.run_dir.clone().or_else(of_files).unwrap_or_else(|| config::RUN_DIR.into()))
    }

    fn below(&self, path: PathBuf) -> PathBuf {
        path.strip_prefix("/").map(|path| self.root.join(path)).unwrap_or(path)
    }

    /// The newest sets that this host has taken, and their snapshots where such a name is begun.
    fn sets(&self, typed: &str) -> Vec<Known> {
        let by_snapshot = typed.starts_with("snap-");
        let folder = self.state_dir().join("sets");
        // An id begins with its time.
        let mut ids: Vec<RunId> =
            ids(&folder).filter(|id| by_snapshot || id.as_str().starts_with(typed)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let mut found = Vec::new();
        for id in ids.iter().take(SETS) {
            let Some(record) = read(&folder.join(format!("{id}.json"))) else { continue };
            let snapshots = record["snapshots"].as_array().map_or(&[][..], Vec::as_slice);
            // The record of a run that took none.
            if snapshots.is_empty() {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            // To the minute; the rest only makes the line longer.
            let taken = text(&record["times"]["started"]).replace('T', " ");
            let taken: String = taken.chars().take(16).collect();
            let plan = text(&record["plan"]["name"]);
            if by_snapshot {
                let of_set =
                    |s: &Value| (text(&s["id"]), format!("{} of {taken}, {plan}", text(&s["volume_id"])));
                found.extend(snapshots.iter().map(of_set));
            } else {
                found.push((id.to_string(), format!("{taken}, {plan}, {}", text(&record["achieved"]))));
            }
        }
        found
    }

    /// Where filesystems on block devices are mounted. Only the kernel's table is read.
    fn mounts(&self) -> Vec<Known> {
        let table = mountinfo::read(&self.root, "self").unwrap_or_default();
        let on_disk = |line: &&mountinfo::MountLine| {
            (line.dev.major != 0 || line.fstype == "btrfs") && !IMAGES.contains(&line.fstype.as_str())
        };
        let mut found: Vec<Known> = Vec::new();
        for line in table.lines.iter().filter(on_disk) {
            // A path that is no text could not be typed.
            let Some(path) = line.mount_point.to_str() else { continue };
            found.push((path.to_owned(), line.fstype.clone()));
        }
        found.sort();
        found.dedup_by(|a, b| a.0 == b.0);
        found
    }

    /// The volumes that are attached as NVMe devices. sysfs has their serial numbers; no device is opened.
    fn volumes(&self) -> Vec<Known> {
        let mut found = Vec::new();
        for device in fs::read_dir(self.root.join("sys/block")).into_iter().flatten().flatten() {
            let serial = fs::read_to_string(device.path().join("device/serial")).unwrap_or_default();
            if let Ok(id) = VolumeId::from_nvme_serial(&serial) {
                found.push((id.to_string(), device.file_name().to_string_lossy().into_owned()));
            }
        }
        found.sort();
        found
    }
}

fn bare(value: &str) -> Known {
    (value.to_owned(), String::new())
}

/// The ids that files of a folder have as their names; none where the folder cannot be read.
fn ids(folder: &Path) -> impl Iterator<Item = RunId> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
}

/// A record; none where it cannot be read, or is too long to be one.
fn read(path: &Path) -> Option<Value> {
    // A pipe in its place is not waited for.
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > RECORD {
        return None;
    }
    let mut text = Vec::new();
    file.take(RECORD).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
