//! `[[systemd]]`: units that are stopped and started again, or frozen and thawed.
//!
//! In: its keys. Out: [`SystemdHook`]. Must never: let one through without a unit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, TIMEOUT, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// systemd units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdHook {
    /// The units, with their types spelled out.
    pub units: Vec<String>,
    /// Stop the units, or freeze their processes.
    pub method: UnitMethod,
}

/// How a unit is quiesced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitMethod {
    /// Stopped, and started again (default).
    Stop,
    /// Its processes are stopped by the cgroup freezer, and continue after the window.
    Freeze,
}

const METHODS: &[(&str, UnitMethod)] = &[("stop", UnitMethod::Stop), ("freeze", UnitMethod::Freeze)];

keys! { Keys {
    /// list of unit names | required | those that run are quiesced, and only those are released |
    /// `["app.service", "worker@1.service"]`
    units: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(check::unit_name));
    /// `"stop"`, `"freeze"` | `"stop"` | stop and start the units, or pause their processes with the cgroup
    /// freezer
    method: UnitMethod = |n: &Node<'_>| n.checked(|t| check::choice(t, METHODS));
} per_entry {} }

impl Kind for SystemdHook {
    const SECTION: &'static str = "systemd";

    fn releases_again(&self) -> bool {
        true
    }
}

impl Section for SystemdHook {
    type Keys = Keys;

    const TITLE: &'static str = "Units of systemd";

    const TIMEOUT: Option<Duration> = Some(TIMEOUT);

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let Some(units) = value(k.units).filter(|u| !u.is_empty()) else {
            return Err(fault("has no `units`", "name them: units = [\"app.service\"]"));
        };
        let method = value(k.method).unwrap_or(UnitMethod::Stop);
        Ok((common, units.join(" "), Self { units, method }))
    }
}
