//! Fragments and flags → one set of inputs, the later over the earlier, key by key.
//!
//! In: fragments in order, flags. Out: one [`Fragment`], every value still with its origin. Must
//! never: check values, except those of flags, which have not passed through the reader of a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{self, Fault};
use super::checks;
use super::error::{ConfigError, Origin, Sourced};
use super::input::{Input as _, overlay_table};
use super::lock;
use super::notify;
use super::raw::{Fragment, PlanInput};
use super::settings::OnDegraded;
use crate::consistency::Consistency;
use crate::ids::{InstanceId, VolumeId};

/// The values of command-line flags. `None`, an empty list or table, and `false` mean that the flag was not
/// given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--mount`. Any of `mounts`, `volumes` and `volume_tags` replaces all three keys of the plan.
    pub mounts: Option<Vec<PathBuf>>,
    /// `--volume`.
    pub volumes: Option<Vec<VolumeId>>,
    /// `--volume-tag`.
    pub volume_tags: Option<BTreeMap<String, String>>,
    /// `--exclude-mount`, replacing the plan's list.
    pub exclude_mounts: Option<Vec<PathBuf>>,
    /// `--exclude-volume`, replacing the plan's list.
    pub exclude_volumes: Option<Vec<VolumeId>>,
    /// `--exclude-boot-volume`.
    pub exclude_boot_volume: Option<bool>,
    /// `--allow-partial`.
    pub allow_partial: Option<bool>,
    /// `--allow-pid-namespace`.
    pub allow_pid_namespace: Option<bool>,
    /// `--consistency`.
    pub consistency: Option<Consistency>,
    /// `--on-degraded`.
    pub on_degraded: Option<OnDegraded>,
    /// `--window`.
    pub window: Option<Duration>,
    /// `--tag`, added to the plan's tags.
    pub tags: Option<BTreeMap<String, String>>,
    /// `--wait`.
    pub wait: Option<bool>,
    /// `--lock`, in place of the plan's table.
    pub lock: Option<String>,
    /// `--region`.
    pub region: Option<String>,
    /// `--instance-id`.
    pub instance_id: Option<InstanceId>,
    /// `--imds-endpoint`.
    pub imds_endpoint: Option<String>,
    /// `--endpoint-url`.
    pub endpoint_url: Option<String>,
    /// `--run-dir`.
    pub run_dir: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

impl Fragment {
    /// Merges a later file over these values.
    pub(super) fn overlay(&mut self, later: Self) {
        self.top.overlay(later.top);
        self.identity.overlay(later.identity);
        self.ec2.overlay(later.ec2);
        overlay_table(&mut self.group, later.group);
        self.defaults.overlay(later.defaults);
        for (name, plan) in later.plans {
            self.plans.entry(name).or_default().overlay(plan);
        }
        notify::overlay(&mut self.notify, later.notify);
        checks::overlay(&mut self.checks, later.checks);
        for hook in later.hooks {
            // In place, because a drop-in that changes a hook must not change the order of execution. Only
            // when both have an explicit name: two databases without a name are two hooks.
            match self.hooks.iter_mut().find(|h| h.name == hook.name && h.named && hook.named) {
                Some(slot) => *slot = hook,
                None => self.hooks.push(hook),
            }
        }
    }

    /// Merges the flags over the files; those about the plan over the plan `name`.
    pub(super) fn overlay_flags(&mut self, name: &str, flags: &Overrides) -> Result<(), ConfigError> {
        let identity = &mut self.identity;
        set(&mut identity.region, "--region", flags.region.as_deref(), check::region)?;
        set(&mut identity.instance_id, "--instance-id", flags.instance_id.as_ref(), copy)?;
        set(&mut identity.imds_endpoint, "--imds-endpoint", flags.imds_endpoint.as_deref(), check::url)?;
        set(&mut self.ec2.endpoint_url, "--endpoint-url", flags.endpoint_url.as_deref(), check::url)?;
        set(&mut self.top.run_dir, "--run-dir", flags.run_dir.as_deref(), check::absolute)?;
        set(&mut self.top.state_dir, "--state-dir", flags.state_dir.as_deref(), check::absolute)?;
        plan_flags(self.plans.entry(name.to_owned()).or_default(), &mut self.defaults, flags)
    }
}

fn plan_flags(plan: &mut PlanInput, defaults: &mut PlanInput, flags: &Overrides) -> Result<(), ConfigError> {
    let paths = |paths: &Vec<PathBuf>| paths.iter().map(|p| check::absolute(p)).collect();
    let mounts = flags.mounts.as_ref().filter(|l| !l.is_empty());
    let volumes = flags.volumes.as_ref().filter(|l| !l.is_empty());
    let volume_tags = flags.volume_tags.as_ref().filter(|t| !t.is_empty());
    let first_choice =
        [mounts.map(|_| "--mount"), volumes.map(|_| "--volume"), volume_tags.map(|_| "--volume-tag")];
    if let Some(flag) = first_choice.into_iter().flatten().next() {
        // `--mount /data` means only that mount, not also the volumes in the file.
        plan.mounts = Some(Sourced { value: Vec::new(), origin: Origin::Flag(flag) });
        plan.volumes = Some(Sourced { value: Vec::new(), origin: Origin::Flag(flag) });
        plan.volume_tags.clear();
        defaults.volume_tags.clear();
    }
    set(&mut plan.mounts, "--mount", mounts, paths)?;
    set(&mut plan.volumes, "--volume", volumes, copy)?;
    set_tags(&mut plan.volume_tags, "--volume-tag", volume_tags, check::filter_tag)?;
    let given = |list: &&Vec<PathBuf>| !list.is_empty();
    set(&mut plan.exclude_mounts, "--exclude-mount", flags.exclude_mounts.as_ref().filter(given), paths)?;
    let excluded = flags.exclude_volumes.as_ref().filter(|l| !l.is_empty());
    set(&mut plan.exclude_volumes, "--exclude-volume", excluded, copy)?;
    let boot = flags.exclude_boot_volume.filter(|yes| *yes);
    set(&mut plan.exclude_boot_volume, "--exclude-boot-volume", boot.as_ref(), copy)?;
    set(&mut plan.allow_partial, "--allow-partial", flags.allow_partial.filter(|yes| *yes).as_ref(), copy)?;
    let pid = flags.allow_pid_namespace.filter(|yes| *yes);
    set(&mut plan.allow_pid_namespace, "--allow-pid-namespace", pid.as_ref(), copy)?;
    set(&mut plan.consistency, "--consistency", flags.consistency.as_ref(), copy)?;
    set(&mut plan.on_degraded, "--on-degraded", flags.on_degraded.as_ref(), copy)?;
    set(&mut plan.wait, "--wait", flags.wait.filter(|yes| *yes).as_ref(), copy)?;
    if let Some(text) = &flags.lock {
        // Nothing of the tables is left: they may say a mode that the flag's days are not meant for.
        defaults.lock = None;
        set(&mut plan.lock, "--lock", Some(text.as_str()), lock::flag)?;
    }
    set(&mut plan.window, "--window", flags.window.as_ref(), |w| check::within(*w, check::WINDOW))?;
    set_tags(&mut plan.tags, "--tag", flags.tags.as_ref(), check::own_tag)
}

fn copy<T: Clone>(value: &T) -> Result<T, Fault> {
    Ok(value.clone())
}

fn set<T, V: ?Sized>(
    slot: &mut Option<Sourced<T>>,
    flag: &'static str,
    given: Option<&V>,
    check: impl FnOnce(&V) -> Result<T, Fault>,
) -> Result<(), ConfigError> {
    if let Some(given) = given {
        let origin = Origin::Flag(flag);
        let value = check(given).map_err(|f| f.at(origin.clone(), flag))?;
        *slot = Some(Sourced { value, origin });
    }
    Ok(())
}

fn set_tags(
    slots: &mut BTreeMap<String, Sourced<String>>,
    flag: &'static str,
    given: Option<&BTreeMap<String, String>>,
    check: fn(&str, &str) -> Result<(), Fault>,
) -> Result<(), ConfigError> {
    for (key, value) in given.into_iter().flatten() {
        check(key, value).map_err(|f| f.at(Origin::Flag(flag), flag))?;
        slots.insert(key.clone(), Sourced { value: value.clone(), origin: Origin::Flag(flag) });
    }
    Ok(())
}
