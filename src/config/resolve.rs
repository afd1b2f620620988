//! Merged inputs → [`Settings`]: fills in defaults, and checks values against each other.
//!
//! In: one [`Fragment`] and a plan's name. Out: settings, and the origin of every value. Must never: lose an
//! origin, or accept a plan whose values contradict each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{Fault, MAX_TAGS};
use super::checks::{self, Check, CheckInput};
use super::error::{ConfigError, Origin, Sourced, choices};
use super::hooks::section::HookInput;
use super::input::Input as _;
use super::notify::{self, Notify, NotifyInput};
use super::raw::{Fragment, PlanInput, same_name};
use super::settings::{
    Automounts, Ec2Settings, Expedite, Hook, IdentityOverrides, MissingMounts, OnDegraded, PlanSettings,
    Settings, UnmountedVolumes,
};
use super::{group, keep, lock};
use crate::consistency::Method;

/// Where records are kept when nothing says where.
pub(crate) const STATE_DIR: &str = "/var/lib/stillpoint";
/// Where the lock and the journals of runs are.
pub(crate) const RUN_DIR: &str = "/run/stillpoint";
/// The plan that exists without configuration.
pub(crate) const DEFAULT_PLAN: &str = "default";

const WINDOW: Duration = Duration::from_secs(10);
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_TIMEOUT: Duration = Duration::from_secs(600);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// EC2's own limit (errors overview, SnapshotCreationPerVolumeRateExceeded).
const VOLUME_INTERVAL: Duration = Duration::from_secs(15);

/// Where each value came from: `run_dir`, `ec2.endpoint_url`, `plan.window`, `plan.tags.Team`,
/// `plan.hooks.NAME`.
pub(crate) type Origins = BTreeMap<String, Origin>;

/// The origins of a table's values, while they are taken out of the inputs.
pub(super) struct Taken<'a> {
    origins: &'a mut Origins,
    pub(super) table: &'static str,
}

impl Taken<'_> {
    pub(super) fn optional<T>(&mut self, key: &str, input: Option<Sourced<T>>) -> Option<T> {
        let (value, origin) = match input {
            Some(sourced) => (Some(sourced.value), sourced.origin),
            None => (None, Origin::Default),
        };
        self.origins.insert(format!("{}{key}", self.table), origin);
        value
    }

    pub(super) fn or<T>(&mut self, key: &str, input: Option<Sourced<T>>, default: T) -> T {
        self.optional(key, input).unwrap_or(default)
    }

    fn entries<K: Ord, V>(
        &mut self,
        key: &str,
        input: BTreeMap<K, Sourced<V>>,
        show: fn(&K) -> String,
    ) -> BTreeMap<K, V> {
        let origins = &mut *self.origins;
        let table = self.table;
        input
            .into_iter()
            .map(|(k, sourced)| {
                origins.insert(format!("{table}{key}.{}", show(&k)), sourced.origin);
                (k, sourced.value)
            })
            .collect()
    }
}

/// Names of all plans, sorted.
pub(super) fn plan_names(inputs: &Fragment) -> Vec<String> {
    let mut names: Vec<String> = inputs.plans.keys().cloned().collect();
    if !inputs.plans.contains_key(DEFAULT_PLAN) {
        names.push(DEFAULT_PLAN.to_owned());
    }
    names.sort();
    names
}

/// An error unless the plan exists.
pub(super) fn known_plan(inputs: &Fragment, name: &str) -> Result<(), ConfigError> {
    let known = plan_names(inputs);
    if known.iter().any(|k| k == name) {
        return Ok(());
    }
    let hint = choices(name, "configured plans", known.iter().map(String::as_str));
    Err(ConfigError::UnknownPlan { name: name.to_owned(), hint })
}

/// An error when a hook belongs to a plan that does not exist, because it would never run.
pub(super) fn check_hook_plans(inputs: &Fragment) -> Result<(), ConfigError> {
    let named = |h: &'_ HookInput| {
        h.plans.iter().flatten().map(|p| (h.kind.section(), p.clone())).collect::<Vec<_>>()
    };
    let told = notify::plans(&inputs.notify).map(|plan| (notify::SECTION, plan.clone()));
    let looking = checks::plans(&inputs.checks).map(|plan| (checks::SECTION, plan.clone()));
    let together = group::plan(inputs.group.as_ref());
    let together = together.iter().filter(|plan| plan.value != DEFAULT_PLAN).map(|p| ("group", p.clone()));
    for (section, plan) in inputs.hooks.iter().flat_map(named).chain(told).chain(looking).chain(together) {
        known_plan(inputs, &plan.value).map_err(|e| {
            let fault = Fault::new(format!("names the plan `{}`, which does not exist", plan.value));
            let fault = match e.hint() {
                Some(hint) => fault.hint(hint),
                None => fault,
            };
            let key = if section == "group" { "plan" } else { "plans" };
            fault.at(plan.origin.clone(), &format!("{section}.{key}"))
        })?;
    }
    Ok(())
}

/// An error when two hooks have the same name, because the record could not tell them apart. Within one file
/// the reader has checked that.
pub(super) fn check_hook_names(inputs: &Fragment) -> Result<(), ConfigError> {
    for (i, hook) in inputs.hooks.iter().enumerate() {
        if let Some(first) = inputs.hooks[..i].iter().find(|h| h.name == hook.name) {
            return Err(Fault::new(same_name(hook, first))
                .hint("give both the same `name` to replace the first one, or give one of them another")
                .at(hook.origin.clone(), hook.kind.section()));
        }
    }
    Ok(())
}

/// An error when a rule of a table makes another one of that table void.
pub(super) fn check_keep(inputs: &Fragment) -> Result<(), ConfigError> {
    let tables = inputs.plans.values().chain([&inputs.defaults]);
    tables.map(|table| table.keep.as_ref()).try_for_each(keep::check_void)
}

/// The settings of one plan, which must exist.
pub(super) fn settings(inputs: Fragment, name: &str) -> Result<(Settings, Origins), ConfigError> {
    let mut origins = Origins::new();
    let Fragment { top, identity, ec2, group, defaults, mut plans, hooks, notify, checks } = inputs;
    let mut input = defaults;
    input.overlay(plans.remove(name).unwrap_or_default());

    let mut take = Taken { origins: &mut origins, table: "" };
    let state_dir = take.or("state_dir", top.state_dir, PathBuf::from(STATE_DIR));
    let run_dir = take.or("run_dir", top.run_dir, PathBuf::from(RUN_DIR));
    let textfile = take.optional("textfile", top.textfile);
    take.table = "identity.";
    let identity = IdentityOverrides {
        instance_id: take.optional("instance_id", identity.instance_id),
        region: take.optional("region", identity.region),
        imds_endpoint: take.optional("imds_endpoint", identity.imds_endpoint),
        imds_timeout: take.optional("imds_timeout", identity.imds_timeout),
    };
    take.table = "ec2.";
    let ec2 = Ec2Settings {
        endpoint_url: take.optional("endpoint_url", ec2.endpoint_url),
        call_timeout: take.or("call_timeout", ec2.call_timeout, CALL_TIMEOUT),
        retry_timeout: take.or("retry_timeout", ec2.retry_timeout, RETRY_TIMEOUT),
        volume_interval: take.or("volume_interval", ec2.volume_interval, VOLUME_INTERVAL),
    };
    let plan = PlanSettings {
        notify: self::notify(notify, name, &mut origins),
        checks: self::checks(checks, name, &mut origins),
        group: group::settings(group, name, &mut Taken { origins: &mut origins, table: "" })?,
        ..plan(name, input, hooks, &mut origins)?
    };
    Ok((Settings { identity, ec2, state_dir, run_dir, textfile, plan }, origins))
}

fn plan(
    name: &str,
    input: PlanInput,
    hooks: Vec<HookInput>,
    origins: &mut Origins,
) -> Result<PlanSettings, ConfigError> {
    check_freeze_timeout(&input)?;
    check_tag_count(&input)?;
    check_stop_units(&input)?;
    let mut take = Taken { origins, table: "plan." };
    let window = take.or("window", input.window, WINDOW);
    // A short `window` alone must not be an error, so the default of `freeze_timeout` follows it.
    let freeze_timeout = take.or("freeze_timeout", input.freeze_timeout, FREEZE_TIMEOUT.min(window / 2));
    let path = |p: &PathBuf| p.display().to_string();
    Ok(PlanSettings {
        name: name.to_owned(),
        mounts: take.or("mounts", input.mounts, Vec::new()),
        volumes: take.or("volumes", input.volumes, Vec::new()),
        volume_tags: take.entries("volume_tags", input.volume_tags, String::clone),
        exclude_mounts: take.or("exclude_mounts", input.exclude_mounts, Vec::new()),
        exclude_volumes: take.or("exclude_volumes", input.exclude_volumes, Vec::new()),
        exclude_boot_volume: take.or("exclude_boot_volume", input.exclude_boot_volume, false),
        allow_partial: take.or("allow_partial", input.allow_partial, false),
        allow_pid_namespace: take.or("allow_pid_namespace", input.allow_pid_namespace, false),
        unmounted_volumes: take.or("unmounted_volumes", input.unmounted_volumes, UnmountedVolumes::Exclude),
        automounts: take.or("automounts", input.automounts, Automounts::Mount),
        missing_mounts: take.or("missing_mounts", input.missing_mounts, MissingMounts::Degrade),
        methods: take.entries("methods", input.methods, path),
        consistency: take.optional("consistency", input.consistency),
        on_degraded: take.or("on_degraded", input.on_degraded, OnDegraded::Fail),
        window,
        freeze_timeout,
        busy_timeout: take.or("busy_timeout", input.busy_timeout, BUSY_TIMEOUT),
        flush_timeout: take.or("flush_timeout", input.flush_timeout, FLUSH_TIMEOUT),
        stop_units: take.or("stop_units", input.stop_units, Vec::new()),
        unmount_timeout: take.or("unmount_timeout", input.unmount_timeout, UNMOUNT_TIMEOUT),
        rcu_expedited: take.or("rcu_expedited", input.rcu_expedited, Expedite::Auto),
        copy_volume_tags: take.or("copy_volume_tags", input.copy_volume_tags, false),
        wait: take.or("wait", input.wait, false),
        tags: take.entries("tags", input.tags, String::clone),
        host_key: take.optional("host_key", input.host_key),
        description: take.optional("description", input.description),
        keep: keep::settings(input.keep, &mut take)?,
        lock: lock::settings(input.lock, &mut take)?,
        copy: take.or("copy", input.copy, Vec::new()),
        luks_key_files: take.or("luks_key_files", input.luks_key_files, Vec::new()),
        hooks: self::hooks(hooks, name, take.origins),
        notify: Vec::new(),
        checks: Vec::new(),
        group: None,
    })
}

/// The hooks of this plan.
pub(super) fn hooks(all: Vec<HookInput>, plan: &str, origins: &mut Origins) -> Vec<Hook> {
    let mut take = Taken { origins, table: "plan." };
    all.into_iter().filter(|h| belongs(h, plan)).map(|h| hook(h, &mut take)).collect()
}

fn notify(all: Vec<NotifyInput>, plan: &str, origins: &mut Origins) -> Vec<Notify> {
    let noted = |(notify, origin): (Notify, Origin)| {
        origins.insert(format!("plan.notify.{}", notify.name), origin);
        notify
    };
    notify::of_plan(all, plan).into_iter().map(noted).collect()
}

fn checks(all: Vec<CheckInput>, plan: &str, origins: &mut Origins) -> Vec<Check> {
    let noted = |(check, origin): (Check, Origin)| {
        origins.insert(format!("plan.checks.{}", check.name), origin);
        check
    };
    checks::of_plan(all, plan).into_iter().map(noted).collect()
}

fn belongs(hook: &HookInput, plan: &str) -> bool {
    hook.plans.as_ref().is_none_or(|plans| plans.iter().any(|p| p.value == plan))
}

fn hook(input: HookInput, take: &mut Taken<'_>) -> Hook {
    let HookInput { name, named: _, kind, timeout, on_failure, plans: _, origin } = input;
    take.origins.insert(format!("plan.hooks.{name}"), origin);
    Hook { name, kind, timeout, on_failure }
}

fn check_freeze_timeout(input: &PlanInput) -> Result<(), ConfigError> {
    let Some(freeze) = &input.freeze_timeout else { return Ok(()) };
    let (window, from) = match &input.window {
        Some(w) => (w.value, w.origin.to_string()),
        None => (WINDOW, Origin::Default.to_string()),
    };
    if freeze.value < window {
        return Ok(());
    }
    let show = humantime::format_duration;
    let problem =
        format!("is {}, not less than `window`, which is {} ({from})", show(freeze.value), show(window));
    let hint = "the window also has to hold the snapshot request and the thaw";
    Err(Fault::new(problem).hint(hint).at(freeze.origin.clone(), "freeze_timeout"))
}

/// `stop_units` without an unmount is an error, because the units would never be stopped.
fn check_stop_units(input: &PlanInput) -> Result<(), ConfigError> {
    let Some(units) = input.stop_units.as_ref().filter(|u| !u.value.is_empty()) else { return Ok(()) };
    if input.methods.values().any(|m| m.value == Method::Unmount) {
        return Ok(());
    }
    let fault = Fault::new("names units, but no mount of this plan has the method `unmount`");
    Err(fault
        .hint("units are stopped for an unmount only; hooks can stop them for a freeze")
        .at(units.origin.clone(), "stop_units"))
}

fn check_tag_count(input: &PlanInput) -> Result<(), ConfigError> {
    // The error has the position of one tag, because no single line is wrong.
    match input.tags.values().nth(MAX_TAGS) {
        None => Ok(()),
        Some(tag) => Err(Fault::new(format!("has {} tags, and may have {MAX_TAGS}", input.tags.len()))
            .hint("EC2 allows 50 on a snapshot, and the record of the set needs the rest")
            .at(tag.origin.clone(), "tags")),
    }
}
