//! One file's text → [`Fragment`]: every key is known and every single value is checked.
//!
//! In: text and the name of its file. Out: what the file sets, each value with its position; nothing is filled in.
//! Must never: ignore a key it does not know, or panic on any text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::node::{Document, Node, Table};
use super::settings::{OnFailure, OnLower, UnmountedVolumes};
use crate::ids::{InstanceId, VolumeId};
use crate::plan::{Consistency, Method};

/// A table of keys that may each be set.
pub(super) trait Input: Default {
    /// Every key, in documented order.
    const KEYS: &'static [&'static str];

    /// Takes one key; false when it is not known.
    fn set(&mut self, node: &Node<'_>) -> Result<bool, ConfigError>;

    /// Whatever `later` sets wins; tables merge entry by entry.
    fn overlay(&mut self, later: Self);

    fn read(table: &Table<'_>) -> Result<Self, ConfigError> {
        let mut input = Self::default();
        table.each(Self::KEYS, |node| input.set(node))?;
        Ok(input)
    }
}

/// The struct of a table, its list of keys, its reader and its merge, so that a key can be missing from none of them.
macro_rules! input {
    (
        $(#[$doc:meta])* $name:ident
        { $($key:ident: $type:ty = $read:expr;)* }
        per_entry { $($table:ident: $k:ty, $v:ty = $read_table:expr;)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub $key: Option<Sourced<$type>>,)*
            $(pub $table: BTreeMap<$k, Sourced<$v>>,)*
        }

        impl Input for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key),)* $(stringify!($table),)*];

            fn set(&mut self, node: &Node<'_>) -> Result<bool, ConfigError> {
                match node.name {
                    $(stringify!($key) => self.$key = Some(node.sourced($read)?),)*
                    $(stringify!($table) => self.$table = $read_table(node)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn overlay(&mut self, later: Self) {
                $(if later.$key.is_some() { self.$key = later.$key; })*
                $(self.$table.extend(later.$table);)*
            }
        }
    };
}

input! {
    /// What stands outside of tables.
    TopInput {
        state_dir: PathBuf = Node::path;
        run_dir: PathBuf = Node::path;
    } per_entry {}
}

input! {
    /// `[identity]`.
    IdentityInput {
        instance_id: InstanceId = Node::id;
        region: String = |n: &Node<'_>| n.checked(check::region);
        imds_endpoint: String = |n: &Node<'_>| n.checked(check::url);
    } per_entry {}
}

input! {
    /// `[ec2]`.
    Ec2Input {
        endpoint: String = |n: &Node<'_>| n.checked(check::url);
        call_timeout: Duration = |n: &Node<'_>| n.duration(check::CALL_TIMEOUT);
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
        boot_volume: bool = Node::flag;
        allow_partial: bool = Node::flag;
        unmounted_volumes: UnmountedVolumes = |n: &Node<'_>| n.checked(|t| check::choice(t, check::UNMOUNTED));
        consistency: Consistency = |n: &Node<'_>| n.checked(check::consistency);
        on_lower: OnLower = |n: &Node<'_>| n.checked(check::on_lower);
        window: Duration = |n: &Node<'_>| n.duration(check::WINDOW);
        freeze_timeout: Duration = |n: &Node<'_>| n.duration(check::FREEZE_TIMEOUT);
        flush_timeout: Duration = |n: &Node<'_>| n.duration(check::FLUSH_TIMEOUT);
        stop_units: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(check::unit_name));
        unmount_timeout: Duration = |n: &Node<'_>| n.duration(check::UNMOUNT_TIMEOUT);
        rcu_expedited: bool = Node::flag;
        copy_volume_tags: bool = Node::flag;
        description: String = |n: &Node<'_>| n.checked(check::description);
    } per_entry {
        volume_tags: String, String = |n: &Node<'_>| n.tags(check::filter_tag);
        methods: PathBuf, Method = |n: &Node<'_>| n.by_mount(check::METHODS);
        tags: String, String = |n: &Node<'_>| n.tags(check::own_tag);
    }
}

input! {
    /// The keys of a `[[hook]]`.
    HookKeys {
        name: String = |n: &Node<'_>| n.checked(check::hook_name);
        pre: Vec<String> = Node::argv;
        post: Vec<String> = Node::argv;
        timeout: Duration = |n: &Node<'_>| n.duration(check::HOOK_TIMEOUT);
        on_failure: OnFailure = |n: &Node<'_>| n.checked(|t| check::choice(t, check::ON_FAILURE));
        plans: Vec<Sourced<String>> = |n: &Node<'_>| n.list(|n| n.sourced(|n| n.checked(check::plan_name)));
    } per_entry {}
}

/// `[[hook]]`, complete in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookInput {
    pub name: String,
    pub pre: Option<Vec<String>>,
    pub post: Option<Vec<String>>,
    pub timeout: Duration,
    pub on_failure: OnFailure,
    /// The plans it belongs to; none means all.
    pub plans: Option<Vec<Sourced<String>>>,
    pub origin: Origin,
}

/// What one file sets, or what several set together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub top: TopInput,
    pub identity: IdentityInput,
    pub ec2: Ec2Input,
    pub defaults: PlanInput,
    pub plans: BTreeMap<String, PlanInput>,
    pub hooks: Vec<HookInput>,
}

/// The tables beside the keys of [`TopInput`].
const TABLES: [&str; 5] = ["identity", "ec2", "defaults", "plan", "hook"];

/// Reads one file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Fragment, ConfigError> {
    let doc = Document { file: Arc::from(file), text };
    let parsed = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        place: doc.place(e.span().map_or(0, |span| span.start)),
        message: e.message().to_owned(),
    })?;
    let known = [TopInput::KEYS, &TABLES].concat();
    let mut fragment = Fragment::default();
    Table::top(&doc, parsed.get_ref()).each(&known, |node| {
        match node.name {
            "identity" => fragment.identity = IdentityInput::read(&node.table()?)?,
            "ec2" => fragment.ec2 = Ec2Input::read(&node.table()?)?,
            "defaults" => fragment.defaults = PlanInput::read(&node.table()?)?,
            "plan" => fragment.plans = plans(node)?,
            "hook" => fragment.hooks = hooks(node)?,
            _ => return fragment.top.set(node),
        }
        Ok(true)
    })?;
    Ok(fragment)
}

fn plans(node: &Node<'_>) -> Result<BTreeMap<String, PlanInput>, ConfigError> {
    let mut plans = BTreeMap::new();
    for plan in node.table()?.nodes() {
        let name = check::plan_name(plan.name).map_err(|f| f.at(plan.origin(), &plan.key))?;
        let table = plan.table().map_err(|e| match e {
            // `[plan]` with keys right below it: the name was forgotten.
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

fn hooks(node: &Node<'_>) -> Result<Vec<HookInput>, ConfigError> {
    let mut hooks = Vec::<HookInput>::new();
    for element in node.elements()? {
        let hook = hook(&element)?;
        if let Some(first) = hooks.iter().find(|h| h.name == hook.name) {
            let fault =
                Fault::new(format!("has the name `{}`, as has the one at {}", hook.name, first.origin))
                    .hint("give one of them another `name`");
            return Err(fault.at(hook.origin, "hook"));
        }
        hooks.push(hook);
    }
    Ok(hooks)
}

fn hook(element: &Node<'_>) -> Result<HookInput, ConfigError> {
    let origin = element.origin();
    let HookKeys { name, pre, post, timeout, on_failure, plans } =
        HookKeys::read(&element.table_as("[[hook]]".to_owned())?)?;
    let missing = |problem: &str, hint: &str| Fault::new(problem).hint(hint).at(origin.clone(), "hook");
    let (pre, post) = (pre.map(|s| s.value), post.map(|s| s.value));
    let Some(program) = pre.as_ref().or(post.as_ref()).and_then(|argv| argv.first()) else {
        return Err(missing(
            "has neither `pre` nor `post`",
            "give it a command: pre = [\"/path/to/program\"]",
        ));
    };
    let Some(timeout) = timeout else {
        let hint = "give each hook the longest time it may take: timeout = \"30s\"";
        return Err(missing("has no `timeout`", hint));
    };
    let name = match name {
        Some(name) => name.value,
        None => {
            let file_name = Path::new(program).file_name().and_then(|n| n.to_str()).unwrap_or(program);
            check::hook_name(file_name).map_err(|f| f.at(origin.clone(), "hook"))?
        }
    };
    Ok(HookInput {
        name,
        pre,
        post,
        timeout: timeout.value,
        on_failure: on_failure.map_or(OnFailure::Abort, |s| s.value),
        plans: plans.map(|s| s.value),
        origin,
    })
}
