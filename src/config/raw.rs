//! One file's text → [`Fragment`]: every key is known and every single value is checked.
//!
//! In: text and the name of its file. Out: what the file sets, each value with its position; nothing is
//! filled in. Must never: ignore a key it does not know, or panic on any text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::check::{self, Fault};
use super::checks::{self, CheckInput};
use super::copies;
use super::error::{ConfigError, Origin, Sourced};
use super::group::GroupInput;
use super::hooks::section::{HookInput, SECTIONS};
use super::input::{Input, input};
use super::keep::KeepInput;
use super::lock::LockInput;
use super::node::{Document, Node, Table};
use super::notify::{self, NotifyInput};
use super::settings::{Automounts, CopySettings, Expedite, MissingMounts, OnDegraded, UnmountedVolumes};
use crate::consistency::{Consistency, Method};
use crate::ids::{InstanceId, VolumeId};

input! {
    /// The keys outside of tables.
    TopInput {
        state_dir: PathBuf = Node::path;
        run_dir: PathBuf = Node::path;
        textfile: PathBuf = |n: &Node<'_>| n.checked(check::textfile);
    } per_entry {}
}

input! {
    /// `[identity]`.
    IdentityInput {
        instance_id: InstanceId = Node::id;
        region: String = |n: &Node<'_>| n.checked(check::region);
        imds_endpoint: String = |n: &Node<'_>| n.checked(check::url);
        imds_timeout: Duration = |n: &Node<'_>| n.duration(check::IMDS_TIMEOUT);
    } per_entry {}
}

input! {
    /// `[ec2]`.
    Ec2Input {
        endpoint_url: String = |n: &Node<'_>| n.checked(check::url);
        call_timeout: Duration = |n: &Node<'_>| n.duration(check::CALL_TIMEOUT);
        retry_timeout: Duration = |n: &Node<'_>| n.duration(check::RETRY_TIMEOUT);
        volume_interval: Duration = |n: &Node<'_>| n.duration(check::VOLUME_INTERVAL);
    } per_entry {}
}

input! {
    /// `[defaults]` and `[plan.NAME]`.
    PlanInput {
        mounts: Vec<PathBuf> = Node::paths;
        volumes: Vec<VolumeId> = Node::ids;
        exclude_mounts: Vec<PathBuf> = Node::paths;
        exclude_volumes: Vec<VolumeId> = Node::ids;
        exclude_boot_volume: bool = Node::flag;
        allow_partial: bool = Node::flag;
        allow_pid_namespace: bool = Node::flag;
        unmounted_volumes: UnmountedVolumes = |n: &Node<'_>| n.checked(|t| check::choice(t, check::UNMOUNTED));
        automounts: Automounts = |n: &Node<'_>| n.checked(|t| check::choice(t, check::AUTOMOUNTS));
        missing_mounts: MissingMounts = |n: &Node<'_>| n.checked(|t| check::choice(t, check::MISSING_MOUNTS));
        consistency: Consistency = |n: &Node<'_>| n.checked(check::consistency);
        on_degraded: OnDegraded = |n: &Node<'_>| n.checked(check::on_degraded);
        window: Duration = |n: &Node<'_>| n.duration(check::WINDOW);
        freeze_timeout: Duration = |n: &Node<'_>| n.duration(check::FREEZE_TIMEOUT);
        busy_timeout: Duration = |n: &Node<'_>| n.duration(check::BUSY_TIMEOUT);
        flush_timeout: Duration = |n: &Node<'_>| n.duration(check::FLUSH_TIMEOUT);
        stop_units: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(check::unit_name));
        unmount_timeout: Duration = |n: &Node<'_>| n.duration(check::UNMOUNT_TIMEOUT);
        rcu_expedited: Expedite = Node::expedite;
        copy_volume_tags: bool = Node::flag;
        wait: bool = Node::flag;
        host_key: String = |n: &Node<'_>| n.checked(check::host_key);
        description: String = |n: &Node<'_>| n.checked(check::description);
        copy: Vec<CopySettings> = copies::read;
    } per_entry {
        volume_tags: String, String = |n: &Node<'_>| n.tags(check::filter_tag);
        methods: PathBuf, Method = |n: &Node<'_>| n.by_mount(check::METHODS);
        tags: String, String = |n: &Node<'_>| n.tags(check::own_tag);
    } tables {
        keep: KeepInput;
        lock: LockInput;
    }
}

/// What one file sets, or several merged files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(crate) top: TopInput,
    pub identity: IdentityInput,
    pub ec2: Ec2Input,
    pub group: Option<Sourced<GroupInput>>,
    pub(crate) defaults: PlanInput,
    pub(crate) plans: BTreeMap<String, PlanInput>,
    pub hooks: Vec<HookInput>,
    pub notify: Vec<NotifyInput>,
    pub checks: Vec<CheckInput>,
}

/// The tables at the top level.
const TABLES: [&str; 5] = ["identity", "ec2", "group", "defaults", "plan"];

/// Reads one file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Fragment, ConfigError> {
    let doc = Document { file: Arc::from(file), text };
    let parsed = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        place: doc.place(e.span().map_or(0, |span| span.start)),
        message: e.message().to_owned(),
    })?;
    let sections = SECTIONS.map(|section| section.name);
    let known = [TopInput::KEYS, &TABLES, &sections, &[notify::SECTION, checks::SECTION]].concat();
    let mut found = Vec::new();
    let mut fragment = Fragment::default();
    Table::top(&doc, parsed.get_ref()).each(&known, |node| {
        match node.name {
            "identity" => fragment.identity = IdentityInput::read(&node.table()?)?,
            "ec2" => fragment.ec2 = Ec2Input::read(&node.table()?)?,
            "group" => fragment.group = Some(node.sourced(|n| GroupInput::read(&n.table()?))?),
            "defaults" => fragment.defaults = PlanInput::read(&node.table()?)?,
            "plan" => fragment.plans = plans(node)?,
            notify::SECTION => {
                for element in node.elements()? {
                    fragment.notify.push(notify::read(&element)?);
                }
            }
            checks::SECTION => {
                for element in node.elements()? {
                    fragment.checks.push(checks::read(&element)?);
                }
            }
            name => match SECTIONS.iter().find(|section| section.name == name) {
                Some(section) => {
                    for element in node.elements()? {
                        found.push((section.read)(&element)?);
                    }
                }
                None => return fragment.top.set(node),
            },
        }
        Ok(true)
    })?;
    fragment.hooks = hooks(found)?;
    Ok(fragment)
}

/// The hook sections of one file without a fault, in its order. None of a text that is no TOML.
pub(super) fn readable_hooks(file: &Path, text: &str) -> Vec<HookInput> {
    let doc = Document { file: Arc::from(file), text };
    let Ok(parsed) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    for node in Table::top(&doc, parsed.get_ref()).nodes() {
        let Some(section) = SECTIONS.iter().find(|section| section.name == node.name) else { continue };
        for element in node.elements().into_iter().flatten() {
            found.extend((section.read)(&element).ok());
        }
    }
    hooks(found).unwrap_or_default()
}

fn plans(node: &Node<'_>) -> Result<BTreeMap<String, PlanInput>, ConfigError> {
    let mut plans = BTreeMap::new();
    for plan in node.table()?.nodes() {
        let name = check::plan_name(plan.name).map_err(|f| f.at(plan.origin(), &plan.key))?;
        let table = plan.table().map_err(|e| match e {
            // `[plan]` with keys directly below it: the plan's name is missing.
            ConfigError::Invalid { origin, key, problem, .. } => {
                let hint =
                    Some("plans have names: write [plan.default], or [defaults] for all plans".to_owned());
                ConfigError::Invalid { origin, key, problem, hint }
            }
            other => other,
        })?;
        plans.insert(name, PlanInput::read(&table)?);
    }
    Ok(plans)
}

/// Two sections, which may be of different kinds, have one name.
pub(super) fn same_name(hook: &HookInput, first: &HookInput) -> String {
    let (section, at) = (first.kind.section(), &first.origin);
    format!("has the name `{}`, as has the [[{section}]] at {at}", hook.name)
}

/// The hook sections of one file, in the order of the file.
fn hooks(mut found: Vec<HookInput>) -> Result<Vec<HookInput>, ConfigError> {
    let line = |h: &HookInput| match &h.origin {
        Origin::File(place) => (place.line, place.column),
        _ => (0, 0),
    };
    found.sort_by_key(line);
    for (i, hook) in found.iter().enumerate() {
        if let Some(first) = found[..i].iter().find(|h| h.name == hook.name) {
            let fault = Fault::new(same_name(hook, first)).hint("give one of them another `name`");
            return Err(fault.at(hook.origin.clone(), hook.kind.section()));
        }
    }
    Ok(found)
}
