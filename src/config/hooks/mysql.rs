//! `[[mysql]]`: a MySQL or MariaDB server.
//!
//! In: its keys. Out: [`Mysql`]. Must never: keep a password: where it is found is all that is kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, TIMEOUT, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// The longest wait for the locks in one try, where the section gives none.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// What `lock_wait` may be.
const LOCK_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How often the locks are tried, where the section does not say.
const TRIES: u32 = 3;

/// A MySQL or MariaDB server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mysql {
    /// Its socket; none means what the option files say, then /run/mysqld/mysqld.sock.
    pub socket: Option<PathBuf>,
    /// Its host, instead of a socket.
    pub host: Option<String>,
    /// Port; default 3306.
    pub port: Option<u16>,
    /// Account; none means what the option files say, then the name of `os_user`, then `root`.
    pub user: Option<String>,
    /// Read instead of the usual option files (`/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`), groups
    /// `client` and `stillpoint`.
    pub(crate) defaults_file: Option<PathBuf>,
    /// The system user to connect as, for socket authentication; default stillpoint's own, root.
    pub(crate) os_user: Option<String>,
    /// Longest wait for the locks, each try; default 5 s.
    #[serde(with = "super::duration")]
    pub(crate) lock_wait: Duration,
    /// How often the locks are tried; default 3.
    pub(crate) tries: u32,
    /// Stop the SQL thread of a replica, and start it again; default false.
    pub stop_replica: bool,
    /// How it is quiesced.
    pub method: MysqlMethod,
    /// The replication sources whose SQL threads ran when this hook began. Only these are stopped and
    /// started again. This is filled in by the run; it is no key of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stopping: Vec<String>,
}

/// How a MySQL or MariaDB server is quiesced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MysqlMethod {
    /// By what the server has for backups: BACKUP STAGE, or LOCK INSTANCE FOR BACKUP and FLUSH TABLES WITH
    /// READ LOCK (default).
    Backup,
    /// FLUSH TABLES WITH READ LOCK alone.
    ReadLock,
}

const METHODS: &[(&str, MysqlMethod)] =
    &[("backup", MysqlMethod::Backup), ("read-lock", MysqlMethod::ReadLock)];

keys! { Keys {
    /// absolute path | what the option files say, then the usual places | its socket, instead of `host` |
    /// `"/run/mysqld/mysqld.sock"`
    socket: PathBuf = Node::path;
    /// host name | what the option files say | a server on this host, instead of a socket | `"localhost"`
    host: String = |n: &Node<'_>| n.checked(check::word);
    /// port | what the option files say, then 3306 | the port of `host` | `3306`
    port: u16 = Node::port;
    /// account | what the option files say, then the name of `os_user` | the account that connects |
    /// `"stillpoint"`
    user: String = |n: &Node<'_>| n.checked(check::word);
    /// absolute path | the usual option files | read instead of the usual option files | `"/etc/stillpoint/my.cnf"`
    defaults_file: PathBuf = Node::path;
    /// user name | stillpoint's own: root | the system user that connects: what `unix_socket` and
    /// `auth_socket` see | `"mysql"`
    os_user: String = |n: &Node<'_>| n.checked(check::user_name);
    /// time, 1 s to 1 h | `"5s"` | longest wait for the locks in each try
    lock_wait: Duration = |n: &Node<'_>| n.duration(LOCK_WAITS);
    /// number, 1 to 100 | `3` | how often the locks are tried; `tries` × `lock_wait` has to fit into
    /// `timeout`
    tries: u32 = |n: &Node<'_>| n.number(1, 100);
    /// true or false | `false` | stop a replica's SQL threads while it is quiesced
    stop_replica: bool = Node::flag;
    /// `"backup"`, `"read-lock"` | `"backup"` | [which locks](databases.md#mysql-and-mariadb) are taken
    method: MysqlMethod = |n: &Node<'_>| n.checked(|t| check::choice(t, METHODS));
} per_entry {} }

impl Kind for Mysql {
    const SECTION: &'static str = "mysql";

    fn is_session(&self) -> bool {
        true
    }

    fn releases_again(&self) -> bool {
        true
    }
}

impl Section for Mysql {
    type Keys = Keys;

    const TITLE: &'static str = "MySQL and MariaDB";

    const TIMEOUT: Option<Duration> = Some(TIMEOUT);

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let settings = Self {
            socket: value(k.socket),
            host: value(k.host),
            port: value(k.port),
            user: value(k.user),
            defaults_file: value(k.defaults_file),
            os_user: value(k.os_user),
            lock_wait: value(k.lock_wait).unwrap_or(LOCK_WAIT),
            tries: value(k.tries).unwrap_or(TRIES),
            stop_replica: value(k.stop_replica).unwrap_or(false),
            method: value(k.method).unwrap_or(MysqlMethod::Backup),
            stopping: Vec::new(),
        };
        if settings.socket.is_some() && settings.host.is_some() {
            return Err(fault("has a `socket` and a `host`", "leave one of them out"));
        }
        let limit = common.timeout.as_ref().map_or(TIMEOUT, |t| t.value);
        if settings.lock_wait.saturating_mul(settings.tries) > limit {
            let hint = "give it a longer `timeout`, fewer `tries` or a shorter `lock_wait`";
            return Err(fault("has more tries of `lock_wait` than its `timeout` has room for", hint));
        }
        Ok((common, Self::SECTION.to_owned(), settings))
    }
}
