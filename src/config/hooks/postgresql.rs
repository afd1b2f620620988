//! `[[postgresql]]`: a PostgreSQL server.
//!
//! In: its keys. Out: [`Postgresql`]. Must never: keep a password: where it is found is all that is kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::section::{Common, FaultAt, Section, TIMEOUT, keys, value};
use crate::config::check;
use crate::config::error::ConfigError;
use crate::config::input::Input as _;
use crate::config::node::{Node, Table};

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postgresql {
    /// What happens before the window: a checkpoint, or the start of a backup.
    pub mode: PostgresqlMode,
    /// Host name, or the folder of its socket; none means libpq's order: service file, PGHOST's default,
    /// /var/run/postgresql.
    pub host: Option<String>,
    /// Port; default 5432.
    pub port: Option<u16>,
    /// Role; default `postgres`.
    pub user: Option<String>,
    /// Database to connect to; default `postgres`.
    pub database: Option<String>,
    /// A service of the connection service file.
    pub service: Option<String>,
    /// Where services are looked up; default `~/.pg_service.conf` of `os_user`, then
    /// `/etc/postgresql-common/pg_service.conf`.
    pub(crate) service_file: Option<PathBuf>,
    /// Where the password is looked up; default `~/.pgpass` of `os_user`.
    pub(crate) passfile: Option<PathBuf>,
    /// The system user to connect as, for peer authentication; default `postgres` where it exists.
    pub os_user: Option<String>,
    /// Quiesce a standby too; default false.
    pub allow_standby: bool,
}

/// What is done to a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresqlMode {
    /// CHECKPOINT, so that recovery is short; the frozen volumes are what a crash would leave, at one instant
    /// (default).
    Checkpoint,
    /// pg_backup_start … pg_backup_stop.
    Backup,
}

const MODES: &[(&str, PostgresqlMode)] =
    &[("checkpoint", PostgresqlMode::Checkpoint), ("backup", PostgresqlMode::Backup)];

keys! { Keys {
    /// `"checkpoint"`, `"backup"` | `"checkpoint"` | a checkpoint before the freeze, or a backup that is
    /// begun before it and ended after it
    mode: PostgresqlMode = |n: &Node<'_>| n.checked(|t| check::choice(t, MODES));
    /// host name, or the folder of the socket | what the service says, then `/var/run/postgresql` | a server
    /// on this host. There is no TLS: use the socket | `"/run/postgresql"`
    host: String = |n: &Node<'_>| n.checked(check::word);
    /// port | what the service says, then 5432 | the port of the server, or of its socket | `5432`
    port: u16 = Node::port;
    /// role | what the service says, then `postgres` | the role that connects | `"stillpoint"`
    user: String = |n: &Node<'_>| n.checked(check::word);
    /// database | what the service says, then `postgres` | the database to connect to; any will do |
    /// `"postgres"`
    database: String = |n: &Node<'_>| n.checked(check::word);
    /// string | not set | a service of the connection service file | `"orders"`
    service: String = |n: &Node<'_>| n.checked(check::word);
    /// absolute path | libpq's, in the home of `os_user` and of the system | where the service is looked up |
    /// `"/etc/postgresql-common/pg_service.conf"`
    service_file: PathBuf = Node::path;
    /// absolute path | `~/.pgpass` of `os_user` | the file in which the password is looked up; refused when
    /// group or others may read it | `"/var/lib/postgresql/.pgpass"`
    passfile: PathBuf = Node::path;
    /// user name | `postgres` where it exists, else root | the system user that connects: what `peer`
    /// authentication sees | `"postgres"`
    os_user: String = |n: &Node<'_>| n.checked(check::user_name);
    /// true or false | `false` | quiesce a standby too
    allow_standby: bool = Node::flag;
} per_entry {} }

impl Kind for Postgresql {
    const SECTION: &'static str = "postgresql";

    fn is_session(&self) -> bool {
        true
    }
}

impl Section for Postgresql {
    type Keys = Keys;

    const TITLE: &'static str = "PostgreSQL";

    const TIMEOUT: Option<Duration> = Some(TIMEOUT);

    fn read(table: &Table<'_>, fault: &FaultAt<'_>) -> Result<(Common, String, Self), ConfigError> {
        let mut k = Keys::read(table)?;
        let common = k.common();
        let settings = Self {
            mode: value(k.mode).unwrap_or(PostgresqlMode::Checkpoint),
            host: value(k.host),
            port: value(k.port),
            user: value(k.user),
            database: value(k.database),
            service: value(k.service),
            service_file: value(k.service_file),
            passfile: value(k.passfile),
            os_user: value(k.os_user),
            allow_standby: value(k.allow_standby).unwrap_or(false),
        };
        if settings.service_file.is_some() && settings.service.is_none() {
            return Err(fault("has a `service_file` and no `service`", "name the service in that file"));
        }
        Ok((common, Self::SECTION.to_owned(), settings))
    }
}
