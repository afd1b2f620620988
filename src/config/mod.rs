//! Files and drop-ins → merged → validated settings; every value knows the file it came from.
//!
//! ```text
//! files    which files there are, in which order        files.rs
//! parse    one file → Fragment, each value checked      raw.rs, keep.rs, copies.rs, lock.rs, group.rs, hooks/, input.rs, node.rs, check.rs
//! merge    later over earlier, then the flags           merge.rs
//! resolve  defaults < [defaults] < [plan.NAME] → Settings, and its origins   resolve.rs
//! show     config show, config check                    show.rs
//! reference  what the documentation says of each key; `config default`   reference.rs
//! ```
//!
//! In: TOML files and command-line overrides. Out: [`settings::Settings`],
//! where everything is checked. Must never: guess a unit, ignore a key it does not know, or read anything but
//! its files.

use std::path::Path;

pub(crate) mod check;
mod copies;
mod error;
mod files;
mod group;
pub mod hooks;
mod input;
mod keep;
mod lock;
mod merge;
mod node;
pub(crate) mod checks;
pub(crate) mod notify;
mod raw;
pub(crate) mod reference;
mod resolve;
pub mod settings;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use check::{Fault, consistency, duration, key_value, on_degraded, own_tag, region, whole_hours};
pub(crate) use copies::{kms_key, of_region, within};
pub(crate) use error::Sourced;
pub use error::{ConfigError, Origin, Place};
pub use files::{ConfigFile, FileStatus};
pub(crate) use files::{DROP_IN_DIRS, MAIN_FILE};
pub use merge::Overrides;
pub(crate) use resolve::{DEFAULT_PLAN, Origins, RUN_DIR, STATE_DIR};

use crate::path_encoding::shown;
use raw::Fragment;
use settings::{Hook, Notify, Settings};

/// May a plan have this name? It is a file name too.
pub(crate) fn is_plan_name(name: &str) -> bool {
    check::plan_name(name).is_ok()
}

/// May a Region have this name?
pub(crate) fn is_region(name: &str) -> bool {
    check::region(name).is_ok()
}

/// The settings of one plan, and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Complete and checked; every value that no file sets has its default.
    pub settings: Settings,
    /// Where each value came from.
    pub(crate) origins: Origins,
    /// The files that were considered, in the order in which they are merged.
    pub(crate) files: Vec<ConfigFile>,
    /// Names of all plans, sorted.
    pub(crate) plans: Vec<String>,
}

impl Loaded {
    /// Files and folders that count and that only root may read, where this process is not root's.
    pub(crate) fn not_read(&self) -> impl Iterator<Item = &Path> {
        not_read(&self.files)
    }
}

/// Those that count and that this process's user may not read.
pub(crate) fn not_read(files: &[ConfigFile]) -> impl Iterator<Item = &Path> {
    files.iter().filter(|f| f.status == FileStatus::NeedsRoot).map(|f| f.path.as_path())
}

/// The result of `config check`.
#[derive(Debug)]
pub struct Checked {
    /// The files that were considered, in the order in which they are merged.
    pub(crate) files: Vec<ConfigFile>,
    /// Names of all plans, sorted.
    pub(crate) plans: Vec<String>,
    /// Faults: at most one a file, and one a plan.
    pub faults: Vec<ConfigError>,
}

/// Loads the settings of `plan` (none means [`DEFAULT_PLAN`]) from the files below `root`, or from
/// `config_file` alone.
///
/// # Errors
/// When a file cannot be read or has an error, or the plan does not exist.
pub fn load(
    root: &Path,
    config_file: Option<&Path>,
    plan: Option<&str>,
    overrides: &Overrides,
) -> Result<Loaded, ConfigError> {
    let sources = files::find(root, config_file)?;
    let mut inputs = Fragment::default();
    for source in &sources {
        if let Some(text) = &source.text {
            inputs.overlay(raw::parse(&source.file.path, text)?);
        }
    }
    let plan = plan.unwrap_or(DEFAULT_PLAN);
    let files: Vec<ConfigFile> = sources.into_iter().map(|s| s.file).collect();
    resolve::known_plan(&inputs, plan).map_err(|e| match (e, not_read(&files).next()) {
        (ConfigError::UnknownPlan { name, hint }, Some(closed)) => {
            let hint = format!("{} is not read, which needs root; {hint}", shown(closed));
            ConfigError::UnknownPlan { name, hint }
        }
        (e, _) => e,
    })?;
    resolve::check_hook_plans(&inputs)?;
    resolve::check_hook_names(&inputs)?;
    resolve::check_keep(&inputs)?;
    let plans = resolve::plan_names(&inputs);
    inputs.overlay_flags(plan, overrides)?;
    let (settings, origins) = resolve::settings(inputs, plan)?;
    Ok(Loaded { settings, origins, files, plans })
}

/// The hooks of `plan` that can be read although the configuration as a whole is wrong: somebody has to be told
/// that there is no set. Files of which nothing can be read are passed over, and of the others the sections with
/// a fault.
#[must_use]
pub(crate) fn readable_hooks(root: &Path, config_file: Option<&Path>, plan: Option<&str>) -> Vec<Hook> {
    let mut inputs = Fragment::default();
    for source in files::find(root, config_file).unwrap_or_default() {
        if let Some(text) = &source.text {
            let hooks = raw::readable_hooks(&source.file.path, text);
            inputs.overlay(Fragment { hooks, ..Fragment::default() });
        }
    }
    resolve::hooks(inputs.hooks, plan.unwrap_or(DEFAULT_PLAN), &mut Origins::new())
}

/// Whom else to tell then: the sections `[[notify]]` of `plan` that can be read.
#[must_use]
pub(crate) fn readable_notify(root: &Path, config_file: Option<&Path>, plan: &str) -> Vec<Notify> {
    let mut all = Vec::new();
    for source in files::find(root, config_file).unwrap_or_default() {
        if let Some(text) = &source.text {
            notify::overlay(&mut all, notify::readable(&source.file.path, text));
        }
    }
    notify::of_plan(all, plan).into_iter().map(|(notify, _)| notify).collect()
}

/// Checks every file and every plan, and goes on past faults.
///
/// # Errors
/// When a file cannot be read, because then the configuration is not known.
pub fn check(root: &Path, config_file: Option<&Path>) -> Result<Checked, ConfigError> {
    let sources = files::find(root, config_file)?;
    let mut inputs = Fragment::default();
    let mut faults = Vec::new();
    for source in &sources {
        let Some(text) = &source.text else { continue };
        match raw::parse(&source.file.path, text) {
            Ok(fragment) => inputs.overlay(fragment),
            Err(e) => faults.push(e),
        }
    }
    let plans = resolve::plan_names(&inputs);
    if faults.is_empty() {
        // With a faulty file left out, later checks would report faults that do not exist.
        faults.extend(resolve::check_hook_plans(&inputs).err());
        faults.extend(resolve::check_hook_names(&inputs).err());
        faults.extend(resolve::check_keep(&inputs).err());
        for plan in &plans {
            faults.extend(resolve::settings(inputs.clone(), plan).err());
        }
    }
    Ok(Checked { files: sources.into_iter().map(|s| s.file).collect(), plans, faults })
}
