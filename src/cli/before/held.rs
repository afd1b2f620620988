//! The set that a command was begun after: what is needed of its record, and, between `--begin` and `--end`, a file.
//!
//! In: the record that `snapshot` prints. Out: a [`Taken`], kept as RUN_DIR/before/PLAN.json. Must never: believe a file
//! that somebody else than root could have written.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::thaw::folders;
use crate::cli::{Global, say};
use crate::config::{self, DEFAULT_PLAN};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::file::{self, Lasts};
use crate::host::trust::{self, Trusted};
use crate::ids::{RunId, SnapshotId};
use crate::sets::before;

/// A set that a command is to come after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub set: RunId,
    pub region: String,
    pub snapshots: Vec<SnapshotId>,
    /// Where the filesystems of it are mounted.
    pub mounts: Vec<String>,
}

/// The same in its file.
pub(super) struct Held {
    pub taken: Taken,
    path: PathBuf,
}

impl Taken {
    /// From the record of the run.
    pub fn read(record: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(record).ok()?;
        let of_snapshot = |s: &Value| s["id"].as_str()?.parse().ok();
        let mount = |f: &Value| f["mount_point"].as_str().map(str::to_owned);
        let snapshots: Vec<_> = record["snapshots"].as_array()?.iter().filter_map(of_snapshot).collect();
        Some(Self {
            set: record["run_id"].as_str()?.parse().ok()?,
            region: record["identity"]["region"].as_str()?.to_owned(),
            mounts: record["plan"]["filesystems"].as_array()?.iter().filter_map(mount).collect(),
            snapshots,
        })
        .filter(|taken| !taken.snapshots.is_empty())
    }

    /// What can be done with it.
    pub fn ways_back(&self) -> String {
        let set = self.set.as_str();
        let mut text = format!("set {set} is from before that\n");
        let data: Vec<String> =
            self.mounts.iter().filter(|m| *m != "/").map(|m| before::quoted(m.as_ref())).collect();
        let _ = writeln!(text, "  look at it:       stillpoint restore {set}");
        if !data.is_empty() {
            let these: String = data.iter().map(|m| format!(" --mount {m}")).collect();
            let _ = writeln!(text, "  data back:        stillpoint restore {set} --in-place{these}");
        }
        if self.mounts.iter().any(|m| m == "/") {
            let _ = writeln!(text, "  / back (reboots): stillpoint restore {set} --root");
        }
        let _ = writeln!(text, "  let it go:        stillpoint release {set}");
        text
    }
}

impl Held {
    /// Notes it until `--end`.
    pub fn note(global: &Global, plan: Option<&str>, taken: Taken) -> Result<(), Error> {
        let path = place(global, plan)?;
        if let Some(former) = read(&path) {
            say(&format!("nobody has said how what set {} was taken before has ended", former.set));
        }
        let write = || {
            let folder = path.parent().unwrap_or(Path::new("/"));
            file::make_folder(folder, 0o700)?;
            trust::check(folder, Trusted::own()).map_err(std::io::Error::other)?;
            file::replace(&path, &serde_json::to_vec(&taken)?, 0o600, Lasts::UntilShutdown)
        };
        write().map_err(|e| {
            let what = format!("set {} is taken, and {} cannot be written: {e}", taken.set, path.display());
            Error::new(Exit::After, what)
                .hint("`--end` will not find the set; it is kept until `stillpoint release`")
        })
    }

    /// The one that was begun with this plan.
    pub fn find(global: &Global, plan: Option<&str>) -> Result<Self, Error> {
        let path = place(global, plan)?;
        match read(&path) {
            Some(taken) => Ok(Self { taken, path }),
            None => {
                let plan = plan.unwrap_or(DEFAULT_PLAN);
                Err(Error::new(Exit::Config, format!("nothing was begun with plan {plan}")).hint(
                    "`stillpoint before PLAN --begin` takes the set; a reboot since then has ended it, too",
                ))
            }
        }
    }

    /// It has ended.
    pub fn forget(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn place(global: &Global, plan: Option<&str>) -> Result<PathBuf, Error> {
    let plan = plan.unwrap_or(DEFAULT_PLAN);
    if !config::is_plan_name(plan) {
        return Err(Error::new(Exit::Config, format!("{plan} is no name of a plan")));
    }
    let (run_dir, _) = folders(global);
    Ok(run_dir.join("before").join(format!("{plan}.json")))
}

fn read(path: &Path) -> Option<Taken> {
    let file = trust::open(path, Trusted::own()).ok()?;
    serde_json::from_reader(std::io::BufReader::new(file)).ok()
}
