//! What a hook is told: its environment, and nothing else.
//!
//! In: facts of the run. Out: the complete environment of a command. Must never: pass on anything of
//! stillpoint's own environment, which may have AWS credentials.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::Phase;
use crate::ids::{DevNo, InstanceId, RunId, SnapshotId, VolumeId};
use crate::plan::Consistency;

/// A filesystem of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMount {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its key in mountinfo.
    pub dev: DevNo,
}

/// What hooks get to know of the run. It is in the journal too, so that post commands can be run after a
/// crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEnv {
    /// `STILLPOINT_RUN_ID`.
    pub run_id: RunId,
    /// `STILLPOINT_PLAN`.
    pub plan: String,
    /// `STILLPOINT_INSTANCE_ID`; none where the run did not come to know it.
    pub instance_id: Option<InstanceId>,
    /// `STILLPOINT_REGION`.
    pub region: String,
    /// Mount points that are frozen, unmounted or synced.
    #[serde(with = "paths")]
    pub mounts: Vec<PathBuf>,
    /// Volumes of the set.
    pub volumes: Vec<VolumeId>,
    /// The run's result as far as it is known; post commands get it in `STILLPOINT_RESULT`.
    #[serde(default)]
    pub result: RunResult,
    /// The set's label, for commands at the end of the run; none when there is no set.
    #[serde(default)]
    pub consistency: Option<Consistency>,
    /// The set's snapshots, for post commands; empty when there is no set.
    #[serde(default)]
    pub snapshots: Vec<SnapshotId>,
    /// Mount points that could not be mounted again, for post commands.
    #[serde(default, with = "paths")]
    pub(crate) not_mounted: Vec<PathBuf>,
    /// The filesystems of the set: what a database writes to has to lie there.
    #[serde(default)]
    pub set: Vec<SetMount>,
    /// The longest time from quiescing to releasing that this run can need; a session releases by itself
    /// after it.
    #[serde(default)]
    pub quiesce_limit: Duration,
    /// Everything was frozen when the snapshots were asked for, as far as known.
    #[serde(default)]
    pub frozen: bool,
    /// Why no set was taken, for the commands at the end of such a run.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// The result of a run, as post commands see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// A set was taken.
    Taken,
    /// No set was taken.
    Failed,
    /// A rehearsal went well; it takes no set.
    Rehearsed,
    /// Not known yet. The journal says so from the start, so post commands see it when the run has died.
    #[default]
    Unknown,
}

/// The PATH of hooks. This process's own is not passed on.
pub(crate) use crate::host::process::SEARCH_PATH as PATH;

impl HookEnv {
    /// The complete environment of a hook's command.
    #[must_use]
    pub(crate) fn vars(&self, hook: &str, phase: Phase) -> Vec<(String, OsString)> {
        let mut vars: Vec<(&'static str, OsString)> = vec![
            ("PATH", PATH.into()),
            ("LANG", "C.UTF-8".into()),
            ("HOME", home()),
            ("STILLPOINT_RUN_ID", self.run_id.as_str().into()),
            ("STILLPOINT_PLAN", self.plan.as_str().into()),
            ("STILLPOINT_HOOK", hook.into()),
            ("STILLPOINT_PHASE", phase.to_string().into()),
            ("STILLPOINT_INSTANCE_ID", self.instance_id.as_ref().map_or("", |id| id.as_str()).into()),
            ("STILLPOINT_REGION", self.region.as_str().into()),
            ("STILLPOINT_MOUNTS", mount_lines(&self.mounts)),
            ("STILLPOINT_VOLUMES", words(self.volumes.iter().map(VolumeId::as_str))),
        ];
        if phase == Phase::Pre {
            vars.push(("STILLPOINT_QUIESCE_LIMIT", self.quiesce_limit.as_secs().to_string().into()));
        } else {
            let result = match self.result {
                RunResult::Taken => "taken",
                RunResult::Failed => "failed",
                RunResult::Rehearsed => "rehearsed",
                RunResult::Unknown => "unknown",
            };
            vars.extend([
                ("STILLPOINT_RESULT", result.into()),
                ("STILLPOINT_SNAPSHOTS", words(self.snapshots.iter().map(SnapshotId::as_str))),
                ("STILLPOINT_NOT_MOUNTED", mount_lines(&self.not_mounted)),
            ]);
        }
        if matches!(phase, Phase::Completed | Phase::Failed) {
            let consistency = self.consistency.map(|c| c.to_string()).unwrap_or_default();
            vars.push(("STILLPOINT_CONSISTENCY", consistency.into()));
        }
        if phase == Phase::Failed {
            // A NUL cannot be in a variable.
            let reason = self.reason.as_deref().unwrap_or_default().replace('\0', " ");
            vars.push(("STILLPOINT_REASON", reason.into()));
        }
        vars.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// Of a run that was refused before it knew what it would take.
    #[must_use]
    pub(crate) fn refused(plan: &str, reason: String) -> Self {
        Self { result: RunResult::Failed, reason: Some(reason), ..Self::of(RunId::generate(), plan) }
    }

    /// Of what has touched nothing yet.
    #[must_use]
    pub(crate) fn of(run_id: RunId, plan: &str) -> Self {
        Self {
            run_id,
            plan: plan.to_owned(),
            instance_id: None,
            region: String::new(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            result: RunResult::default(),
            consistency: None,
            snapshots: Vec::new(),
            not_mounted: Vec::new(),
            set: Vec::new(),
            quiesce_limit: Duration::ZERO,
            frozen: false,
            reason: None,
        }
    }
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> OsString {
    words.collect::<Vec<_>>().join(" ").into()
}

/// One mount point a line. A line feed in one becomes `\012`, as in /proc/mounts; a backslash stays as it is,
/// since systemd makes mount points with `\x2d` in them that a hook should find as they are.
fn mount_lines(mounts: &[PathBuf]) -> OsString {
    let mut lines = Vec::new();
    for (i, mount) in mounts.iter().enumerate() {
        if i > 0 {
            lines.push(b'\n');
        }
        for byte in mount.as_os_str().as_bytes() {
            match byte {
                b'\n' => lines.extend(b"\\012"),
                other => lines.push(*other),
            }
        }
    }
    OsString::from_vec(lines)
}

/// The home directory of this process's user: /root for root, else $HOME. It is not looked up in the user
/// database, because that may ask a directory server, which may hang.
pub(super) fn home() -> OsString {
    if nix::unistd::geteuid().is_root() {
        return "/root".into();
    }
    std::env::var_os("HOME").filter(|h| !h.is_empty()).unwrap_or_else(|| "/".into())
}

/// Paths as text, and as bytes where they are not UTF-8: the journal of a run must not fail over a mount
/// point's name.
mod paths {
    use super::{Deserialize, OsString, OsStringExt, PathBuf, Serialize};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum PathText {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(paths.iter().map(|p| match p.clone().into_os_string().into_string() {
            Ok(text) => PathText::Text(text),
            Err(bytes) => PathText::Bytes(bytes.into_vec()),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<PathBuf>, D::Error> {
        let read = |path| match path {
            PathText::Text(text) => PathBuf::from(text),
            PathText::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        };
        Ok(Vec::<PathText>::deserialize(d)?.into_iter().map(read).collect())
    }
}
