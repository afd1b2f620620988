//! The environment variables that the SDK's settings are looked up in.
//!
//! In: this process's own, or those of a test. Out: values. Must never: print one, since some are secrets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Names and values. One that is empty counts as not set, as in the SDK and the aws CLI.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// As this process was started. Where HOME is not set, as in a unit of systemd's, it is the one of the
    /// user database, as in the aws CLI.
    pub fn own() -> Self {
        let mut own = Self(std::env::vars_os().collect());
        if own.os("HOME").is_none()
            && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid())
        {
            own.0.insert("HOME".into(), user.dir.into());
        }
        own
    }

    /// The same, with this profile in force.
    pub fn with_profile(mut self, name: &str) -> Self {
        self.0.remove(OsStr::new("AWS_DEFAULT_PROFILE"));
        self.0.insert("AWS_PROFILE".into(), name.into());
        self
    }

    /// The value, where there is one that is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.os(name).and_then(OsStr::to_str)
    }

    /// The value.
    pub fn os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// Is it there, be it empty?
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(OsStr::new(name))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
impl Environment {
    /// One of a test.
    pub fn made<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(vars.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(vars: [(&str, &str); N]) -> Self {
        Self::made(vars)
    }
}
