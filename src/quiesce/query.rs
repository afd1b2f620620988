//! A question to a program that quiesces nothing: systemctl, docker, podman.
//!
//! In: a program and arguments. Out: its standard output. Must never: wait without a limit, or take a failure
//! for an answer.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{HookEnv, PATH, Phase, executable};

/// The longest that such a program may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Finds a program by its name, in this process's PATH, then in the PATH of hooks.
pub(super) fn program(name: &str) -> Result<PathBuf, String> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&own).chain(std::env::split_paths(PATH));
    let found = places.filter(|p| p.is_absolute()).map(|p| p.join(name)).find(|p| executable(p).is_ok());
    found.ok_or_else(|| format!("there is no {name} in PATH"))
}

/// Returns the standard output.
///
/// # Errors
/// When it does not end within [`LIMIT`], or fails: the last that it printed on standard error.
pub(super) async fn query(program: &Path, arguments: &[&str], env: &HookEnv) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().envs(env.vars("", Phase::Pre));
    command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output =
        output.map_err(|_| format!("{name} does not answer within {}", humantime::format_duration(LIMIT)))?;
    let output = output.map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it says nothing").trim();
    Err(format!("{name}: {why} ({})", output.status))
}
