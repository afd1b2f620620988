//! What systemctl says of a unit, and a hook that stops one.
//!
//! In: unit names, paths. Out: properties, and hooks whose commands are systemctl's. Must never: take what
//! systemctl did not say for an answer.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::HookEnv;
use super::query::{program, query, query_alone};
use crate::config::settings::{CommandHook, Hook, HookKind, OnFailure};

/// The program's absolute path. It goes into the journal, where a recovery must find the same program.
#[derive(Debug, Clone)]
pub(crate) struct Systemctl(pub(super) PathBuf);

/// True when systemd is this host's service manager (as sd_booted(3) decides).
#[must_use]
pub fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Systemctl {
    /// Looks for `systemctl` where hooks' programs are looked for. None where there is none.
    #[must_use]
    pub fn find() -> Option<Self> {
        systemctl().ok()
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Stop as the pre command, start as the post command.
    #[must_use]
    pub fn hook(&self, unit: &str, timeout: Duration) -> Hook {
        let argv =
            |verb: &str| Some(vec![self.0.to_string_lossy().into_owned(), verb.to_owned(), unit.to_owned()]);
        Hook {
            name: format!("unit {unit}"),
            kind: HookKind::Hook(CommandHook {
                pre: argv("stop"),
                post: argv("start"),
                ..CommandHook::default()
            }),
            timeout,
            on_failure: OnFailure::Abort,
        }
    }

    /// Tells systemd something.
    ///
    /// # Errors
    /// When systemctl fails: the message that it printed.
    pub async fn tell(&self, words: &[&str], env: &HookEnv) -> Result<(), String> {
        let said = query(&self.0, words, env).await.map(drop);
        said.map_err(|why| format!("systemctl {}: {why}", words.join(" ")))
    }

    /// Properties of a unit.
    ///
    /// # Errors
    /// When systemctl fails: the message that it printed.
    pub async fn show(
        &self,
        unit: &str,
        properties: &str,
        env: &HookEnv,
    ) -> Result<BTreeMap<String, String>, String> {
        let said = query(&self.0, &["show", "--property", properties, "--", unit], env).await;
        said.map(|said| read(&said)).map_err(|why| format!("systemctl does not say what {unit} is: {why}"))
    }
}

/// What systemd knows of every mount and automount unit: blocks of properties. None where systemd is not the
/// service manager.
///
/// # Errors
/// When there is no systemctl, or it fails: why.
pub async fn mount_units(properties: &str) -> Option<Result<String, String>> {
    if !booted() {
        return None;
    }
    let Systemctl(program) = match systemctl() {
        Ok(found) => found,
        Err(why) => return Some(Err(why)),
    };
    Some(query_alone(&program, &["show", "--property", properties, "--", "*.mount", "*.automount"]).await)
}

/// What systemd says of a plan's timer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Timer {
    /// `active`, `inactive`, `failed`, …
    pub state: String,
    /// When it elapses next, as systemd writes it; none when it does not.
    pub next: Option<String>,
    /// When it did last.
    pub last: Option<String>,
}

/// The timers of plans, by the plan's name. Empty where there is no systemctl, or it does not say.
pub async fn timers() -> BTreeMap<String, Timer> {
    let properties = "Id,ActiveState,NextElapseUSecRealtime,LastTriggerUSec";
    let Ok(Systemctl(program)) = systemctl() else { return BTreeMap::new() };
    let said = query_alone(&program, &["show", "--property", properties, "--", "stillpoint@*.timer"]).await;
    let timer = |block: &str| {
        let mut properties = read(block);
        let plan = properties.remove("Id")?.strip_prefix("stillpoint@")?.strip_suffix(".timer")?.to_owned();
        let mut time = |key| properties.remove(key).filter(|t| !matches!(t.as_str(), "" | "n/a" | "0"));
        let (next, last) = (time("NextElapseUSecRealtime"), time("LastTriggerUSec"));
        Some((plan, Timer { state: properties.remove("ActiveState").unwrap_or_default(), next, last }))
    };
    said.unwrap_or_default().split("\n\n").filter_map(timer).collect()
}

pub(super) fn systemctl() -> Result<Systemctl, String> {
    program("systemctl").map(Systemctl)
}

fn read(output: &str) -> BTreeMap<String, String> {
    output.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// True when the unit runs, starts or reloads.
#[must_use]
pub(crate) fn is_active(properties: &BTreeMap<String, String>) -> bool {
    let state = properties.get("ActiveState").map(String::as_str);
    matches!(state, Some("active" | "activating" | "reloading" | "refreshing"))
}

/// The name of the mount or automount unit of a path, as `systemd-escape --path` makes it.
#[must_use]
pub(crate) fn named_after(path: &Path, kind: &str) -> String {
    let mut name = String::new();
    let text = path.as_os_str().as_bytes();
    let parts: Vec<&[u8]> = text.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
    for (i, byte) in parts.join(&b'/').iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if i == 0 => name.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.') => name.push(char::from(*b)),
            b => name.push_str(&format!("\\x{b:02x}")),
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    format!("{name}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_systemd_escape_does() {
        // Each as `systemd-escape --path --suffix=mount` prints it (systemd 252).
        for (path, name) in [
            ("/", "-.mount"),
            ("/data", "data.mount"),
            ("//srv//my-data/", r"srv-my\x2ddata.mount"),
            ("/.hidden/a.b", r"\x2ehidden-a.b.mount"),
            ("/mnt/é x", r"mnt-\xc3\xa9\x20x.mount"),
        ] {
            assert_eq!(named_after(Path::new(path), "mount"), name);
        }
    }

    #[test]
    fn only_what_runs_is_started_again() {
        let of = |text: &str| is_active(&read(text));
        assert!(of("LoadState=loaded\nActiveState=active\n") && of("ActiveState=activating"));
        assert!(!of("ActiveState=inactive") && !of("ActiveState=failed") && !of("ActiveState=deactivating"));
        assert!(!of(""));
    }
}
