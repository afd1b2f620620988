//! What the agent knows of Redis and Valkey by itself.
//!
//! In: a section's settings. Out: what differs from other databases before anybody connects. Must never:
//! connect.

use std::ffi::OsString;

use super::super::agent::DatabaseHook;
use super::connection::CREDENTIALS;
use crate::config::settings::Redis;

impl DatabaseHook for Redis {
    /// Where systemd put this service's credentials: the only variable of stillpoint's own that is handed on.
    fn variables(&self) -> Vec<(String, OsString)> {
        let folder = self.credential.as_ref().and_then(|_| std::env::var_os(CREDENTIALS));
        folder.map(|folder| (CREDENTIALS.to_owned(), folder)).into_iter().collect()
    }
}
