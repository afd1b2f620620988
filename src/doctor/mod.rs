//! The checks that can be made before a run, as findings with remedies.
//!
//! ```text
//! applications could each database be quiesced
//! group      can the members' engine be used
//! hooks      can they run; can others write them
//! busy       what a freeze would have to wait for
//! doubled    filesystems that are on two disks
//! processes  which may delay an open or a freeze
//! storage    what lies on the filesystems of the set: run_dir, images, swap, overlays, free space
//! system     capabilities, mount namespace, hung_task_panic, the program's own file
//! unit       the installed systemd unit
//! cloud      IMDS, credentials, IAM actions, volumes, pending snapshots, the clock
//! others     what other tools have of the same volumes
//! ```
//! In: `/proc` below a root, settings, what EC2 says. Out: [`Finding`]s: `doctor` prints all of them, and the
//! preflight of a run refuses at the first problem of the same rules. Must never: freeze, change anything, or
//! report as fine what was not checked.

pub mod applications;
pub mod busy;
pub mod cloud;
pub mod doubled;
pub mod group;
pub mod hooks;
pub mod others;
pub mod processes;
pub mod storage;
pub mod system;
pub mod unit;

use serde::Serialize;

use crate::discover::{Facts, Filesystem};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::DevNo;
use crate::path_encoding::shown;
use crate::plan::Plan;

/// Ordered: a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The check was made and found nothing.
    Ok,
    /// Could not be checked; the finding says why.
    NotChecked,
    /// A run works, but its result may be worse.
    Warning,
    /// A run would be refused or would fail, or its result could not be relied on.
    Problem,
}

/// What one check has to say. A check may have several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check. It does not change between versions, so that programs can rely on it.
    pub id: &'static str,
    /// A run is refused for [`Severity::Problem`] only.
    pub severity: Severity,
    /// One sentence without a capital letter: the fact.
    pub what: String,
    /// Mount points, volumes, paths and processes that it is about.
    #[serde(rename = "where")]
    pub at: Vec<String>,
    /// What happens in a run if nothing is done about it.
    pub why: Option<String>,
    /// What the user can do about it.
    pub remedy: Option<String>,
    /// The exit code of a run that is refused for it; only of problems.
    #[serde(skip)]
    exit: Exit,
}

impl Finding {
    fn new(id: &'static str, severity: Severity, exit: Exit, what: impl Into<String>) -> Self {
        Self { id, severity, what: what.into(), at: Vec::new(), why: None, remedy: None, exit }
    }

    /// A check that found nothing; `what` says what was checked.
    #[must_use]
    pub fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, Exit::Ok, what)
    }

    /// It could not be checked, and why.
    #[must_use]
    pub fn not_checked(id: &'static str, why: impl std::fmt::Display) -> Self {
        Self::new(id, Severity::NotChecked, Exit::Ok, format!("not checked: {why}"))
    }

    /// A run works, with this drawback.
    #[must_use]
    pub fn warning(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, Exit::Ok, what)
    }

    /// A run would end with this exit code.
    #[must_use]
    pub fn problem(id: &'static str, exit: Exit, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Problem, exit, what)
    }

    /// A run would be refused by this error.
    #[must_use]
    pub(crate) fn refusal(id: &'static str, error: &Error) -> Self {
        let finding = Self::problem(id, error.exit, error.to_string());
        match &error.hint {
            Some(hint) => finding.remedy(hint.clone()),
            None => finding,
        }
    }

    /// The same of another check, and no more than a warning: a run does without what it is about.
    #[must_use]
    pub(crate) fn at_most_a_warning(mut self, id: &'static str) -> Self {
        self.id = id;
        self.severity = self.severity.min(Severity::Warning);
        self
    }

    /// Sets the mount points, devices or processes that the finding is about.
    #[must_use]
    pub fn at(mut self, at: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.at = at.into_iter().map(Into::into).collect();
        self
    }

    /// What happens in a run if nothing is done about it.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The exit code of a run that is refused for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// Returns an error when a finding is a problem.
///
/// # Errors
/// The first problem, with its exit code.
pub fn refuse(findings: impl IntoIterator<Item = Finding>) -> Result<(), Error> {
    match findings.into_iter().find(|f| f.severity == Severity::Problem) {
        Some(f) => Err(Error::new(f.exit, f.what).maybe_hint(f.remedy)),
        None => Ok(()),
    }
}

/// The exit code of `doctor`: 0 without a problem; 77 when the first problem is a missing permission, else
/// 78.
#[must_use]
pub fn exit(findings: &[Finding]) -> Exit {
    match findings.iter().find(|f| f.severity == Severity::Problem).map(Finding::exit) {
        None => Exit::Ok,
        Some(Exit::Permission) => Exit::Permission,
        Some(_) => Exit::Config,
    }
}

/// The filesystems of this host that a run would freeze, unmount or sync.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    filesystems: &'a [Filesystem],
    devs: Vec<DevNo>,
}

impl<'a> Set<'a> {
    /// The filesystems of this plan.
    #[must_use]
    pub fn planned(facts: &'a Facts, plan: &Plan) -> Self {
        Self { filesystems: &facts.filesystems, devs: plan.filesystems.iter().map(|f| f.dev).collect() }
    }

    /// Every filesystem on a block device: what could be in a set, where no plan can be made.
    #[must_use]
    pub(crate) fn possible(filesystems: &'a [Filesystem]) -> Self {
        let on_device = |f: &&Filesystem| matches!(&f.backing, crate::discover::Backing::Devices { devices } if !devices.is_empty());
        Self { filesystems, devs: filesystems.iter().filter(on_device).map(|f| f.dev).collect() }
    }

    /// Keys of its filesystems.
    #[must_use]
    pub(crate) fn devs(&self) -> &[DevNo] {
        &self.devs
    }

    /// True when this superblock is one of the set's.
    #[must_use]
    pub fn has(&self, dev: DevNo) -> bool {
        self.devs.contains(&dev)
    }

    fn members(&self) -> impl Iterator<Item = &'a Filesystem> {
        let devs = self.devs.clone();
        self.filesystems.iter().filter(move |f| devs.contains(&f.dev))
    }

    /// The mount point of a filesystem, for messages.
    fn name(&self, dev: DevNo) -> String {
        let found = self.filesystems.iter().find(|f| f.dev == dev);
        found.map_or_else(|| dev.to_string(), |f| shown(f.mount_point()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_refused_by_problems_alone_and_doctor_ends_by_the_first() {
        let fine = || vec![Finding::ok("a", "x"), Finding::warning("b", "x"), Finding::not_checked("c", "x")];
        assert!(refuse(fine()).is_ok());
        assert_eq!(exit(&fine()), Exit::Ok);
        let problem = |exit| Finding::problem("d", exit, "bad").remedy("mend it");
        let mut found = fine();
        found.extend([problem(Exit::Imds), problem(Exit::Permission)]);
        assert_eq!(exit(&found), Exit::Config);
        let refused = refuse(found).unwrap_err();
        assert_eq!((refused.exit, refused.render().as_str()), (Exit::Imds, "error: bad\nhint: mend it"));
        assert_eq!(exit(&[problem(Exit::Permission), problem(Exit::Config)]), Exit::Permission);
    }
}
