//! What several tests need: made hosts, and settings as they are without configuration.

#![allow(dead_code, reason = "each test uses its part")]

pub mod copy;
pub mod fixture;
pub mod hooks;
pub mod listener;
pub mod mysql;
pub mod namespace;
pub mod postgresql;
pub mod probe;
pub mod program;
pub mod redis;
pub mod rig;
pub mod systemd;

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint::config::settings::{OnDegraded, PlanSettings, UnmountedVolumes};
use stillpoint::discover::Facts;
use stillpoint::ids::VolumeId;
use stillpoint::plan::{Plan, PlanError, plan};

/// The settings of a host without configuration.
pub fn settings() -> PlanSettings {
    PlanSettings {
        name: "default".into(),
        mounts: vec![],
        volumes: vec![],
        volume_tags: BTreeMap::new(),
        exclude_mounts: vec![],
        exclude_volumes: vec![],
        exclude_boot_volume: false,
        allow_partial: false,
        unmounted_volumes: UnmountedVolumes::Exclude,
        methods: BTreeMap::new(),
        consistency: None,
        on_degraded: OnDegraded::Fail,
        window: Duration::from_secs(10),
        freeze_timeout: Duration::from_secs(5),
        flush_timeout: Duration::from_secs(300),
        stop_units: vec![],
        unmount_timeout: Duration::from_secs(30),
        rcu_expedited: false,
        copy_volume_tags: false,
        tags: BTreeMap::new(),
        description: None,
        hooks: vec![],
    }
}

/// The plan with the settings changed.
pub fn plan_with(facts: &Facts, change: impl FnOnce(&mut PlanSettings)) -> Result<Plan, PlanError> {
    let mut settings = settings();
    change(&mut settings);
    plan(facts, &settings)
}

/// An error with its hint, as it is printed.
pub fn told(error: &PlanError) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

/// `vol-` and a digit seventeen times.
pub fn vol(digit: char) -> VolumeId {
    format!("vol-{}", digit.to_string().repeat(17)).parse().unwrap()
}

/// The section of docs/databases.md whose example begins with this plan.
#[allow(dead_code)] // not every test is about a database
pub fn documented(plan: &str) -> &'static str {
    let blocks = include_str!("../../docs/databases.md").split("```toml\n").skip(1);
    let mut blocks = blocks.filter_map(|b| b.split_once("```")).map(|(block, _)| block);
    let head = format!("[plan.{plan}]");
    blocks.find(|b| b.starts_with(&head)).unwrap_or_else(|| panic!("no example of {plan}"))
}
