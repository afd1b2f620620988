//! A question to a program that quiesces nothing: systemctl, docker, podman.
//!
//! In: a program and arguments. Out: its standard output. Must never: wait without a limit, take a failure
//! for an answer, or start what the PATH of whoever started stillpoint names: with `sudo` that may be
//! anybody's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{HookEnv, PATH, Phase, executable, user};
use crate::host::trust::{self, Trusted};

/// The longest that such a program may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Finds a program by its name, in the PATH of hooks alone. One that somebody else could change is passed
/// over.
///
/// # Errors
/// When there is none, or only such.
pub(crate) fn program(name: &str) -> Result<PathBuf, String> {
    find_in(PATH, name)
}

fn find_in(path: &str, name: &str) -> Result<PathBuf, String> {
    let mut passed_over = None;
    for program in std::env::split_paths(path).map(|p| p.join(name)).filter(|p| executable(p).is_ok()) {
        match trust::check(&program, Trusted::own()) {
            Ok(()) => return Ok(program),
            Err(loose) => passed_over = passed_over.or(Some(loose)),
        }
    }
    Err(match passed_over {
        Some(loose) => format!("{name} is not started: {}", super::not_started(&loose)),
        None => format!("there is no {name} in {path}"),
    })
}

/// Returns the standard output.
///
/// # Errors
/// When it does not end within [`LIMIT`], or fails: the last that it printed on standard error.
pub(super) async fn query(program: &Path, arguments: &[&str], env: &HookEnv) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    answer(command.args(arguments).env_clear().envs(env.vars("", Phase::Pre)), LIMIT).await
}

/// The same as a user, with these variables alone. The user's own process looks who could change what it starts.
///
/// # Errors
/// As [`query`].
pub(super) async fn query_as(
    user: Option<&str>,
    argv: &[String],
    vars: &[(String, OsString)],
) -> Result<String, String> {
    let as_user = user.map(|user| user::argv(user, argv));
    let words = as_user.as_deref().unwrap_or(argv);
    let Some((program, arguments)) = words.split_first() else { return Err("nothing is asked".to_owned()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().envs(vars.iter().map(|(k, v)| (k, v)));
    let said = answer(&mut command, LIMIT).await;
    // It was started by way of this program.
    let name = Path::new(&argv[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
    said.map_err(|why| why.replacen("exe", &name, 1))
}

/// The same outside of a run.
///
/// # Errors
/// As [`query`].
pub(crate) async fn query_alone(program: &Path, arguments: &[&str]) -> Result<String, String> {
    query_within(program, arguments, LIMIT).await
}

/// The same of a program that may take longer, or less.
///
/// # Errors
/// As [`query`], when it does not end within `limit`.
pub(crate) async fn query_within(
    program: &Path,
    arguments: &[&str],
    limit: Duration,
) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    answer(command.args(arguments).env_clear().env("PATH", PATH), limit).await
}

async fn answer(command: &mut tokio::process::Command, limit: Duration) -> Result<String, String> {
    let program = PathBuf::from(command.as_std().get_program());
    command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let output = tokio::time::timeout(limit, command.output()).await;
    let output =
        output.map_err(|_| format!("{name} does not answer within {}", humantime::format_duration(limit)))?;
    let output = output.map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it says nothing").trim();
    Err(format!("{name}: {why} ({})", output.status))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_program_may_take_as_long_as_it_is_given() {
        let ask = async |limit| query_within(Path::new("/bin/sleep"), &["0.2"], limit).await;
        let said = ask(Duration::from_millis(1)).await.unwrap_err();
        assert!(said.contains("sleep does not answer within 1ms"), "{said}");
        assert_eq!(ask(Duration::from_secs(600)).await, Ok(String::new()));
    }

    #[test]
    fn a_program_that_somebody_else_could_change_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for folder in ["one", "two"] {
            std::fs::create_dir(at(folder)).unwrap();
            mode(&at(folder), 0o755);
            std::fs::write(at(folder).join("ctl"), "").unwrap();
            mode(&at(folder).join("ctl"), 0o755);
        }
        let path = format!("{}:{}", at("one").display(), at("two").display());
        assert_eq!(find_in(&path, "ctl"), Ok(at("one/ctl")));
        mode(&at("one"), 0o777);
        assert_eq!(find_in(&path, "ctl"), Ok(at("two/ctl")));
        mode(&at("two/ctl"), 0o757);
        let said = find_in(&path, "ctl").unwrap_err();
        assert!(said.contains(&format!("{} can be written by everybody", at("one").display())), "{said}");
        assert!(find_in(&path, "none").unwrap_err().contains("there is no none in"));
    }
}
