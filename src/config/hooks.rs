//! Settings of what is held and let go around the window: commands, sessions, units, containers, databases.
//!
//! In: nothing but what [`crate::config`] checked. Out: plain values; they are also what the journal keeps, so that whoever cleans up after a
//! dead run knows what it owes. Must never: hold a password.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One application's quiesce and release: a section of the configuration, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Name, for messages and the environment.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: HookKind,
    /// Longest time that holding may take, and letting go.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// What it means when the application cannot be held.
    pub on_failure: OnFailure,
}

/// What a hook is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HookKind {
    /// `[[hook]]`.
    Hook(CommandHook),
    /// `[[session]]`.
    Session(SessionHook),
    /// `[[hook_directory]]`; becomes a [`HookKind::Script`] for each of its files.
    HookDirectory(DirectoryHook),
    /// One executable of a hook directory. Not a section.
    Script(ScriptHook),
    /// `[[systemd]]`.
    Systemd(SystemdHook),
    /// `[[container]]`.
    Container(ContainerHook),
    /// `[[postgresql]]`.
    Postgresql(Postgresql),
    /// `[[mysql]]`.
    Mysql(Mysql),
    /// `[[redis]]`.
    Redis(Redis),
}

/// What a failure to hold does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Stop before anything is frozen, exit 20 (default).
    Abort,
    /// Go on; the set is at most filesystem-consistent.
    Degrade,
}

/// A pair of commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandHook {
    /// Run before the window.
    pub pre: Option<Vec<String>>,
    /// Run after the thaw, in reverse order of the hooks, when pre was attempted.
    pub post: Option<Vec<String>>,
    /// Run at the end of a run that took a set, once its label is known.
    #[serde(default)]
    pub completed: Option<Vec<String>>,
    /// Run at the end of a run that took none.
    #[serde(default)]
    pub failed: Option<Vec<String>>,
    /// The user to run as, by name; none means stillpoint's own.
    #[serde(default)]
    pub user: Option<String>,
    /// Further variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// One process that holds for as long as it is told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHook {
    /// Its argv.
    pub command: Vec<String>,
    /// Run when nobody saw it let go: it was killed, or stillpoint was. It has to be right when nothing is held.
    #[serde(default)]
    pub release: Option<Vec<String>>,
    /// As in [`CommandHook`].
    #[serde(default)]
    pub user: Option<String>,
    /// As in [`CommandHook`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Executables that are called with `freeze`, and with `thaw` in reverse order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHook {
    /// The directory.
    pub path: PathBuf,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptHook {
    /// The executable.
    pub program: PathBuf,
}

/// systemd units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdHook {
    /// The units, with their types spelled out.
    pub units: Vec<String>,
    /// How they are held.
    pub method: UnitMethod,
}

/// How a unit is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitMethod {
    /// Stopped, and started again (default).
    Stop,
    /// Its processes are stopped by the cgroup freezer, and go on.
    Freeze,
}

/// Containers that are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerHook {
    /// Whose they are.
    pub engine: ContainerEngine,
    /// Names or ids.
    pub containers: Vec<String>,
}

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerEngine {
    /// `docker`.
    Docker,
    /// `podman`.
    Podman,
}

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postgresql {
    /// What is done.
    pub mode: PostgresqlMode,
    /// Host name, or the folder of its socket; none means libpq's order: service file, PGHOST's default, /var/run/postgresql.
    pub host: Option<String>,
    /// Port; default 5432.
    pub port: Option<u16>,
    /// Role; default `postgres`.
    pub user: Option<String>,
    /// Database to connect to; default `postgres`.
    pub database: Option<String>,
    /// A service of the connection service file.
    pub service: Option<String>,
    /// Where services are looked up; default `~/.pg_service.conf` of `os_user`, then `/etc/postgresql-common/pg_service.conf`.
    pub service_file: Option<PathBuf>,
    /// Where the password is looked up; default `~/.pgpass` of `os_user`.
    pub passfile: Option<PathBuf>,
    /// The system user to connect as, for peer authentication; default `postgres` where it exists.
    pub os_user: Option<String>,
    /// Hold a standby too; default false.
    pub allow_standby: bool,
}

/// What is done to a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresqlMode {
    /// CHECKPOINT, so that recovery is short; the frozen volumes are what a crash would leave, at one instant (default).
    Checkpoint,
    /// pg_backup_start … pg_backup_stop.
    Backup,
}

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
    /// Read instead of the usual option files (`/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`), groups `client` and `stillpoint`.
    pub defaults_file: Option<PathBuf>,
    /// The system user to connect as, for socket authentication; default stillpoint's own, root.
    pub os_user: Option<String>,
    /// Longest wait for the locks, each try; default 5 s.
    #[serde(with = "duration")]
    pub lock_wait: Duration,
    /// How often the locks are tried; default 3.
    pub tries: u32,
    /// Stop the SQL thread of a replica, and start it again; default false.
    pub stop_replica: bool,
    /// How it is held.
    pub method: MysqlMethod,
    /// The sources whose SQL threads ran when the run came to this hook: these are stopped, and no others are started. Not a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopping: Vec<String>,
}

/// How a MySQL or MariaDB server is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MysqlMethod {
    /// By what the server has for backups: BACKUP STAGE, or LOCK INSTANCE FOR BACKUP and FLUSH TABLES WITH READ LOCK (default).
    Backup,
    /// FLUSH TABLES WITH READ LOCK alone.
    ReadLock,
}

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redis {
    /// What is done.
    pub mode: RedisMode,
    /// Its socket.
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
    /// When a pause ends by itself, whatever has died; none means the longest time that the run can need.
    #[serde(default, with = "optional_duration", skip_serializing_if = "Option::is_none")]
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

impl HookKind {
    /// The section it is configured in, without the brackets; an executable of a directory has its directory's.
    #[must_use]
    pub fn section(&self) -> &'static str {
        match self {
            Self::Hook(_) => "hook",
            Self::Session(_) => "session",
            Self::HookDirectory(_) | Self::Script(_) => "hook_directory",
            Self::Systemd(_) => "systemd",
            Self::Container(_) => "container",
            Self::Postgresql(_) => "postgresql",
            Self::Mysql(_) => "mysql",
            Self::Redis(_) => "redis",
        }
    }
}

impl Hook {
    /// The commands that are the user's own: what each is for, and its argv.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let mut found: Vec<(&'static str, &[String])> = Vec::new();
        match &self.kind {
            HookKind::Hook(h) => {
                let all =
                    [("pre", &h.pre), ("post", &h.post), ("completed", &h.completed), ("failed", &h.failed)];
                found.extend(all.into_iter().filter_map(|(edge, argv)| Some((edge, argv.as_deref()?))));
            }
            HookKind::Session(h) => {
                found.push(("session", &h.command));
                found.extend(h.release.as_deref().map(|argv| ("release", argv)));
            }
            _ => {}
        }
        found.into_iter()
    }

    /// Does it hold anything? A `[[hook]]` without `pre` only tells somebody something.
    #[must_use]
    pub fn holds(&self) -> bool {
        !matches!(&self.kind, HookKind::Hook(CommandHook { pre: None, .. }))
    }

    /// Can its release be done again without harm?
    #[must_use]
    pub fn releases_again(&self) -> bool {
        matches!(
            self.kind,
            HookKind::Systemd(_) | HookKind::Container(_) | HookKind::Mysql(_) | HookKind::Redis(_)
        )
    }

    /// Does a process of it hold the application across the window?
    #[must_use]
    pub fn is_session(&self) -> bool {
        matches!(
            self.kind,
            HookKind::Session(_) | HookKind::Postgresql(_) | HookKind::Mysql(_) | HookKind::Redis(_)
        )
    }
}

/// Times as people write them: `1m 30s`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match d {
            Some(d) => super::duration::serialize(d, s),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "super::duration")] Duration);
        Ok(Option::<Text>::deserialize(d)?.map(|text| text.0))
    }
}
