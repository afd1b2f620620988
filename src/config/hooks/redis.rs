//! `[[redis]]`: a Redis or Valkey server.
//!
//! In: its keys. Out: [`Redis`]. Must never: keep a password: where it is found is all that is kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, TIMEOUT, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// What `pause_limit` may be.
const PAUSE_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redis {
    /// What happens before the window: a pause of writes, or a dump.
    pub mode: RedisMode,
    /// Path of the Unix socket; none means TCP to `host` and `port`.
    pub socket: Option<PathBuf>,
    /// Its host; default 127.0.0.1.
    pub host: Option<String>,
    /// Port; default 6379.
    pub port: Option<u16>,
    /// ACL user.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// A systemd credential (`LoadCredential=`) that is the password.
    pub credential: Option<String>,
    /// After this time Redis ends the pause by itself, even if every process of stillpoint has died. None
    /// means the longest time that the run can need.
    #[serde(default, with = "super::optional_duration", skip_serializing_if = "Option::is_none")]
    pub pause_limit: Option<Duration>,
}

/// What is done to a Redis server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// CLIENT PAUSE … WRITE, and the append-only file is on the disk (default).
    Pause,
    /// BGSAVE, awaited: the dump file is whole, and as old as that.
    Bgsave,
}

const MODES: &[(&str, RedisMode)] = &[("pause", RedisMode::Pause), ("bgsave", RedisMode::Bgsave)];

keys! { Keys {
    /// `"pause"`, `"bgsave"` | `"pause"` | writes are paused over the window, or a dump is [awaited](databases.md#redis-and-valkey) before it
    mode: RedisMode = |n: &Node<'_>| n.checked(|t| check::choice(t, MODES));
    /// absolute path | not set | its socket, instead of `host` | `"/run/redis/redis-server.sock"`
    socket: PathBuf = Node::path;
    /// host name | `"127.0.0.1"` | a server on this host. There is no TLS: use the socket
    host: String = |n: &Node<'_>| n.checked(check::word);
    /// port | `6379` | the port of `host`
    port: u16 = Node::port;
    /// ACL user | `"default"` | the user that connects
    user: String = |n: &Node<'_>| n.checked(check::word);
    /// absolute path | not set | its first line is the password; refused when group or others may read or
    /// change it | `"/etc/stillpoint/redis-password"`
    password_file: PathBuf = Node::path;
    /// name | not set | a systemd credential (`LoadCredential=`) of the unit that is the password, instead of
    /// a file | `"redis-password"`
    credential: String = |n: &Node<'_>| n.checked(check::credential);
    /// time, 1 s to 1 h | the longest time that the run can need | the server ends the pause after this time,
    /// even if stillpoint has died | `"2m"`
    pause_limit: Duration = |n: &Node<'_>| n.duration(PAUSE_LIMITS);
} per_entry {} }

impl Kind for Redis {
    const SECTION: &'static str = "redis";

    fn is_session(&self) -> bool {
        true
    }

    fn releases_again(&self) -> bool {
        true
    }
}

impl Section for Redis {
    type Keys = Keys;

    const TITLE: &'static str = "Redis and Valkey";

    const TIMEOUT: Option<Duration> = Some(TIMEOUT);

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let settings = Self {
            mode: value(k.mode).unwrap_or(RedisMode::Pause),
            socket: value(k.socket),
            host: value(k.host),
            port: value(k.port),
            user: value(k.user),
            password_file: value(k.password_file),
            credential: value(k.credential),
            pause_limit: value(k.pause_limit),
        };
        if settings.pause_limit.is_some() && settings.mode == RedisMode::Bgsave {
            let problem = "has a `pause_limit`, and mode \"bgsave\" pauses nothing";
            return Err(fault(problem, "leave one of them out"));
        }
        if settings.socket.is_some() && settings.host.is_some() {
            return Err(fault("has a `socket` and a `host`", "leave one of them out"));
        }
        if settings.password_file.is_some() && settings.credential.is_some() {
            return Err(fault("has a `password_file` and a `credential`", "leave one of them out"));
        }
        Ok((common, Self::SECTION.to_owned(), settings))
    }
}
