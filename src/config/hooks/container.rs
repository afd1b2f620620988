//! `[[container]]`: containers that are paused, and go on.
//!
//! In: its keys. Out: [`ContainerHook`]. Must never: guess the engine: the same name may mean two containers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, TIMEOUT, entries, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// Containers to pause over the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerHook {
    /// The engine that runs them.
    pub engine: ContainerEngine,
    pub(crate) containers: Vec<String>,
    /// The user whose containers they are, for a rootless engine; none means stillpoint's own.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Further variables for the engine's program, such as `DOCKER_HOST`.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
}

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerEngine {
    /// The program `docker`.
    Docker,
    /// The program `podman`.
    Podman,
}

const ENGINES: &[(&str, ContainerEngine)] =
    &[("docker", ContainerEngine::Docker), ("podman", ContainerEngine::Podman)];

keys! { Keys {
    /// `"docker"`, `"podman"` | required | the engine whose containers they are | `"docker"`
    engine: ContainerEngine = |n: &Node<'_>| n.checked(|t| check::choice(t, ENGINES));
    /// list of names or ids | required | those that run are paused, and only those are unpaused | `["app"]`
    containers: Vec<String> = |n: &Node<'_>| n.list(|n| n.checked(check::container_name));
    /// user name | stillpoint's own | whose containers they are, for a rootless engine: its program runs as
    /// that user | `"containers"`
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry {
    /// table of strings | `{}` | further variables for the engine's program, such as `DOCKER_HOST`
    environment: String, String = |n: &Node<'_>| n.tags(check::variable);
} }

impl Kind for ContainerHook {
    const SECTION: &'static str = "container";

    fn releases_again(&self) -> bool {
        true
    }
}

impl Section for ContainerHook {
    type Keys = Keys;

    const TITLE: &'static str = "Containers";

    const TIMEOUT: Option<Duration> = Some(TIMEOUT);

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let Some(containers) = value(k.containers).filter(|c| !c.is_empty()) else {
            return Err(fault("has no `containers`", "name them: containers = [\"app\"]"));
        };
        let Some(engine) = value(k.engine) else {
            return Err(fault("has no `engine`", "it can be \"docker\" or \"podman\""));
        };
        Ok((
            common,
            containers.join(" "),
            Self { engine, containers, user: value(k.user), environment: entries(k.environment) },
        ))
    }
}
