//! The user's own checks, on the restored filesystems.
//!
//! In: the sections `[[check]]` of the set's plan, the filesystems on their devices. Out: a finding each. Must never:
//! mount anything where the host sees it, let one check go on while the next one looks, or call sound what did not end
//! well.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::contained::{self, Database, Ended, Mounted, Outcome, Request, SCRATCH, SET};
use super::{Finding, Verdict};
use crate::config::settings::Check;
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::path_encoding::{printable, shown};
use crate::quiesce::{self, PATH};
use crate::restore::plan::PlannedFilesystem;
use crate::sets::set::SnapshotSet;

/// The most that a check's own folder holds: it is in memory.
const MEMORY: u64 = 256 << 20;

/// What the checks look at.
pub(super) struct Looking<'a> {
    pub set: &'a SnapshotSet,
    /// Each filesystem, and the devices that it is on: of a btrfs, there may be several.
    pub filesystems: Vec<(&'a PlannedFilesystem, DevNo, Vec<DevNo>)>,
    /// Filesystems of the set that are not there.
    pub missing: Vec<&'a Path>,
}

/// Can these be started at all?
///
/// # Errors
/// The first that cannot, and why.
pub fn startable(checks: &[Check]) -> Result<(), String> {
    let own = Path::new(crate::window::guard::process::OWN);
    for check in checks {
        let hook = [check.as_hook()];
        if let Some(not) = quiesce::trial::not_startable(&hook, own).first() {
            return Err(format!(
                "[[check]] `{}`: {} cannot be run: {}",
                check.name,
                shown(&not.program),
                not.source
            ));
        }
        if let Some((_, loose)) = quiesce::loose(&hook[0]).first() {
            return Err(format!("[[check]] `{}` is not run: {loose}", check.name));
        }
        if let Some(database) = check.database {
            contained::installed(database).map_err(|why| format!("[[check]] `{}`: {why}", check.name))?;
        }
    }
    Ok(())
}

impl Looking<'_> {
    /// Runs them one after the other.
    ///
    /// # Errors
    /// The signal that ended it.
    pub async fn run(
        &self,
        checks: &[Check],
        tell: &dyn Fn(&str),
        interrupt: &mut Interrupt,
    ) -> Result<Vec<Finding>, Signal> {
        let mut findings = Vec::new();
        for check in checks {
            tell(&format!("check {} runs", check.name));
            let done = contained::run(&check.name, &self.request(check), check.timeout, interrupt).await;
            if done.ended == Ended::Interrupted {
                return Err(interrupt.pending().unwrap_or(Signal::SIGTERM));
            }
            let (verdict, what) = self.verdict(check, &done);
            findings.push(Finding::of_check(&check.name, verdict, what));
        }
        Ok(findings)
    }

    fn request(&self, check: &Check) -> Request {
        let database = check.database.zip(check.data.clone()).map(|(kind, data)| Database { kind, data });
        // A database writes when it starts.
        let writable = check.writable || database.is_some();
        let mut mounts: Vec<Mounted> = self
            .filesystems
            .iter()
            .flat_map(|(f, dev, others)| mounts_of(f, *dev, others, writable))
            .collect();
        mounts.sort_by_key(|m| (m.at.components().count(), m.at.clone()));
        let places: Vec<String> = mounts.iter().map(|m| shown(&Path::new(SET).join(&m.at))).collect();
        let own = [
            ("PATH", PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", SCRATCH.to_owned()),
            ("TMPDIR", SCRATCH.to_owned()),
            ("STILLPOINT_ROOT", SET.to_owned()),
            ("STILLPOINT_MOUNTS", places.join("\n")),
            ("STILLPOINT_CHECK", check.name.clone()),
            ("STILLPOINT_SET", self.set.id.to_string()),
            ("STILLPOINT_PLAN", self.set.plan.clone()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let vars = own.chain(check.environment.clone()).collect();
        let (user, argv) = (check.user.clone(), check.command.clone().unwrap_or_default());
        Request { mounts, scratch: MEMORY, user, argv, vars, database }
    }

    fn verdict(&self, check: &Check, done: &Outcome) -> (Verdict, String) {
        let last = printable(done.last_line()).into_owned();
        let fault = |what: String| {
            let missing: Vec<String> = self.missing.iter().map(|m| shown(m)).collect();
            let without = if missing.is_empty() {
                String::new()
            } else {
                format!(" (not put together here: {})", missing.join(", "))
            };
            (Verdict::Fault, format!("{what}{without}"))
        };
        match &done.ended {
            Ended::Well => (Verdict::Sound, "it ended well".to_owned()),
            Ended::Code(code) => fault(format!("it ended with exit code {code}: {last}")),
            Ended::TimedOut => {
                let limit = humantime::format_duration(check.timeout);
                fault(format!("it did not end within {limit}, and was killed with all that it had started"))
            }
            // The kernel ends what takes too much memory.
            Ended::Signal(9) => (Verdict::NotLooked, "it was killed, perhaps for lack of memory".to_owned()),
            Ended::Signal(signal) => fault(format!("it was ended by signal {signal}: {last}")),
            Ended::NotStarted(why) => {
                (Verdict::NotLooked, format!("it could not be run: {}", printable(why)))
            }
            // Handled by the caller.
            Ended::Interrupted => (Verdict::NotLooked, "it was interrupted".to_owned()),
        }
    }
}

/// A filesystem, as a check sees it: nothing on it is executed, no device on it opened.
fn mounts_of(filesystem: &PlannedFilesystem, dev: DevNo, others: &[DevNo], writable: bool) -> Vec<Mounted> {
    let options: Vec<String> = match (writable, filesystem.fstype.as_str()) {
        (false, _) => filesystem.options.filesystem.clone(),
        (true, "xfs") => vec!["nouuid".to_owned()],
        (true, _) => Vec::new(),
    };
    let attributes = filesystem.options.attributes | libc::MOUNT_ATTR_NOEXEC;
    let attributes = if writable { attributes & !libc::MOUNT_ATTR_RDONLY } else { attributes };
    let one = |at: &PathBuf, root: &PathBuf| Mounted {
        dev,
        others: others.to_vec(),
        fstype: filesystem.fstype.clone(),
        options: options.clone(),
        attributes,
        at: at.clone(),
        root: root.clone(),
    };
    filesystem.mounts.iter().map(|m| one(&m.at, &m.root)).collect()
}
