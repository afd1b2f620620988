//! `[[hook_directory]]`: executables that are called with `freeze`, and with `thaw` in reverse order.
//!
//! In: its keys. Out: [`DirectoryHook`], which becomes a [`ScriptHook`] for each of its files when a run
//! begins. Must never: look into the directory: what is in it counts when it is called.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, file_name, keys, value};
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// A directory of executables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHook {
    /// Absolute. Its content is read when a run begins.
    pub path: PathBuf,
}

/// One of its executables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptHook {
    /// Absolute path of the executable.
    pub program: PathBuf,
}

keys! { Keys {
    /// absolute path | required | its executables are called with `freeze`, and later in reverse order with
    /// `thaw` | `"/etc/qemu/fsfreeze-hook.d"`
    path: PathBuf = Node::path;
} per_entry {} }

impl Kind for DirectoryHook {
    const SECTION: &'static str = "hook_directory";
}

impl Kind for ScriptHook {
    const SECTION: &'static str = DirectoryHook::SECTION;
}

impl Section for DirectoryHook {
    type Keys = Keys;

    const TITLE: &'static str = "A folder of scripts";

    const TIMEOUT: Option<Duration> = None;

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let Some(path) = value(k.path) else {
            let hint = "name the directory: path = \"/etc/stillpoint/hooks.d\"";
            return Err(fault("has no `path`", hint));
        };
        Ok((common, file_name(&path.to_string_lossy()), Self { path }))
    }
}
