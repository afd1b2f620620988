//! The sections of hooks: `[[hook]]`, `[[session]]`, `[[postgresql]]` … → [`HookInput`].
//!
//! In: one section of a file. Out: the hook, complete in itself, with its position. Must never: let one through that could not be
//! released, or that has no limit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{self, Fault};
use super::error::{ConfigError, Origin, Sourced};
use super::node::{Node, Table};
use super::raw::{Input, input};
use super::settings::{
    CommandHook, ContainerEngine, ContainerHook, DirectoryHook, HookKind, Mysql, MysqlMethod, OnFailure,
    Postgresql, PostgresqlMode, Redis, RedisMode, SessionHook, SystemdHook, UnitMethod,
};

/// Longest time for what has no timeout of its own in the file.
const TIMEOUT: Duration = Duration::from_secs(60);
const LOCK_WAIT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;

/// The names of the sections.
pub(super) const SECTIONS: [&str; 8] =
    ["hook", "session", "hook_directory", "systemd", "container", "postgresql", "mysql", "redis"];

/// A hook of any section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookInput {
    pub name: String,
    /// The name is the user's own.
    pub named: bool,
    pub kind: HookKind,
    pub timeout: Duration,
    pub on_failure: OnFailure,
    /// The plans it belongs to; none means all.
    pub plans: Option<Vec<Sourced<String>>>,
    pub origin: Origin,
}

type Words = Vec<String>;

fn plans(n: &Node<'_>) -> Result<Vec<Sourced<String>>, ConfigError> {
    n.list(|n| n.sourced(|n| n.checked(check::plan_name)))
}

/// The keys that every section has, and its own.
macro_rules! section {
    ($name:ident { $($key:ident: $type:ty = $read:expr;)* } per_entry { $($table:ident: $k:ty, $v:ty = $read_table:expr;)* }) => {
        input! {
            /// The keys of a section.
            $name {
                name: String = |n: &Node<'_>| n.checked(check::hook_name);
                $($key: $type = $read;)*
                timeout: Duration = |n: &Node<'_>| n.duration(check::HOOK_TIMEOUT);
                on_failure: OnFailure = |n: &Node<'_>| n.checked(|t| check::choice(t, check::ON_FAILURE));
                plans: Vec<Sourced<String>> = plans;
            } per_entry { $($table: $k, $v = $read_table;)* }
        }
    };
}

section! { HookKeys {
    pre: Words = Node::argv;
    post: Words = Node::argv;
    completed: Words = Node::argv;
    failed: Words = Node::argv;
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry { environment: String, String = |n: &Node<'_>| n.tags(check::variable); } }

section! { SessionKeys {
    command: Words = Node::argv;
    release: Words = Node::argv;
    user: String = |n: &Node<'_>| n.checked(check::user_name);
} per_entry { environment: String, String = |n: &Node<'_>| n.tags(check::variable); } }

section! { DirectoryKeys { path: PathBuf = Node::path; } per_entry {} }

section! { SystemdKeys {
    units: Words = |n: &Node<'_>| n.list(|n| n.checked(check::unit_name));
    method: UnitMethod = |n: &Node<'_>| n.checked(|t| check::choice(t, check::UNIT_METHODS));
} per_entry {} }

section! { ContainerKeys {
    engine: ContainerEngine = |n: &Node<'_>| n.checked(|t| check::choice(t, check::ENGINES));
    containers: Words = |n: &Node<'_>| n.list(|n| n.checked(check::container_name));
} per_entry {} }

section! { PostgresqlKeys {
    mode: PostgresqlMode = |n: &Node<'_>| n.checked(|t| check::choice(t, check::POSTGRESQL_MODES));
    host: String = |n: &Node<'_>| n.checked(check::word);
    port: u16 = Node::port;
    user: String = |n: &Node<'_>| n.checked(check::word);
    database: String = |n: &Node<'_>| n.checked(check::word);
    service: String = |n: &Node<'_>| n.checked(check::word);
    service_file: PathBuf = Node::path;
    passfile: PathBuf = Node::path;
    os_user: String = |n: &Node<'_>| n.checked(check::user_name);
    allow_standby: bool = Node::flag;
} per_entry {} }

section! { MysqlKeys {
    socket: PathBuf = Node::path;
    host: String = |n: &Node<'_>| n.checked(check::word);
    port: u16 = Node::port;
    user: String = |n: &Node<'_>| n.checked(check::word);
    defaults_file: PathBuf = Node::path;
    os_user: String = |n: &Node<'_>| n.checked(check::user_name);
    lock_wait: Duration = |n: &Node<'_>| n.duration(check::LOCK_WAIT);
    tries: u32 = |n: &Node<'_>| n.number(1, 100);
    stop_replica: bool = Node::flag;
    method: MysqlMethod = |n: &Node<'_>| n.checked(|t| check::choice(t, check::MYSQL_METHODS));
} per_entry {} }

section! { RedisKeys {
    mode: RedisMode = |n: &Node<'_>| n.checked(|t| check::choice(t, check::REDIS_MODES));
    socket: PathBuf = Node::path;
    host: String = |n: &Node<'_>| n.checked(check::word);
    port: u16 = Node::port;
    user: String = |n: &Node<'_>| n.checked(check::word);
    password_file: PathBuf = Node::path;
    credential: String = |n: &Node<'_>| n.checked(check::credential);
    pause_limit: Duration = |n: &Node<'_>| n.duration(check::PAUSE_LIMIT);
} per_entry {} }

/// What every section has.
struct Common {
    name: Option<Sourced<String>>,
    timeout: Option<Sourced<Duration>>,
    on_failure: Option<Sourced<OnFailure>>,
    plans: Option<Sourced<Vec<Sourced<String>>>>,
}

macro_rules! common {
    ($keys:ident) => {
        Common { name: $keys.name, timeout: $keys.timeout, on_failure: $keys.on_failure, plans: $keys.plans }
    };
}

fn value<T>(sourced: Option<Sourced<T>>) -> Option<T> {
    sourced.map(|s| s.value)
}

fn entries(table: BTreeMap<String, Sourced<String>>) -> BTreeMap<String, String> {
    table.into_iter().map(|(k, v)| (k, v.value)).collect()
}

/// One element of a section.
pub(super) fn hook(section: &str, element: &Node<'_>) -> Result<HookInput, ConfigError> {
    let table = element.table_as(format!("[[{section}]]"))?;
    let fault = |problem: &str, hint: &str| Fault::new(problem).hint(hint).at(element.origin(), section);
    let (common, called, kind) = match section {
        "hook" => command(&table, fault)?,
        "session" => {
            let k = SessionKeys::read(&table)?;
            let common = common!(k);
            let command = value(k.command).ok_or_else(|| {
                fault(
                    "has no `command`",
                    "give it one that prints `ready` and waits: command = [\"/path/to/program\"]",
                )
            })?;
            let called = file_name(&command[0]);
            (
                common,
                called,
                HookKind::Session(SessionHook {
                    release: value(k.release),
                    command,
                    user: value(k.user),
                    environment: entries(k.environment),
                }),
            )
        }
        "hook_directory" => {
            let k = DirectoryKeys::read(&table)?;
            let common = common!(k);
            let path = value(k.path).ok_or_else(|| {
                fault("has no `path`", "name the directory: path = \"/etc/stillpoint/hooks.d\"")
            })?;
            (common, file_name(&path.to_string_lossy()), HookKind::HookDirectory(DirectoryHook { path }))
        }
        "systemd" => {
            let k = SystemdKeys::read(&table)?;
            let common = common!(k);
            let units = value(k.units).filter(|u| !u.is_empty());
            let units =
                units.ok_or_else(|| fault("has no `units`", "name them: units = [\"app.service\"]"))?;
            let called = units.join(" ");
            let method = value(k.method).unwrap_or(UnitMethod::Stop);
            (common, called, HookKind::Systemd(SystemdHook { units, method }))
        }
        "container" => {
            let k = ContainerKeys::read(&table)?;
            let common = common!(k);
            let containers = value(k.containers).filter(|c| !c.is_empty());
            let containers = containers
                .ok_or_else(|| fault("has no `containers`", "name them: containers = [\"app\"]"))?;
            let engine = value(k.engine)
                .ok_or_else(|| fault("has no `engine`", "it can be \"docker\" or \"podman\""))?;
            let called = containers.join(" ");
            (common, called, HookKind::Container(ContainerHook { engine, containers }))
        }
        "postgresql" => postgresql(&table, fault)?,
        "mysql" => mysql(&table, fault)?,
        _ => redis(&table, fault)?,
    };
    let own_limit = matches!(section, "hook" | "session" | "hook_directory");
    let timeout = match common.timeout {
        Some(timeout) => timeout.value,
        None if own_limit => {
            let hint = "give each hook the longest time it may take: timeout = \"30s\"";
            return Err(fault("has no `timeout`", hint));
        }
        None => TIMEOUT,
    };
    let named = common.name.is_some();
    let name = match common.name {
        Some(name) => name.value,
        None => check::hook_name(&called).map_err(|f| f.at(element.origin(), section))?,
    };
    Ok(HookInput {
        name,
        named,
        kind,
        timeout,
        on_failure: value(common.on_failure).unwrap_or(OnFailure::Abort),
        plans: value(common.plans),
        origin: element.origin(),
    })
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or(path).to_owned()
}

type Section = Result<(Common, String, HookKind), ConfigError>;

fn command(table: &Table<'_>, fault: impl Fn(&str, &str) -> ConfigError) -> Section {
    let k = HookKeys::read(table)?;
    let common = common!(k);
    let hook = CommandHook {
        pre: value(k.pre),
        post: value(k.post),
        completed: value(k.completed),
        failed: value(k.failed),
        user: value(k.user),
        environment: entries(k.environment),
    };
    let first = [&hook.pre, &hook.post, &hook.completed, &hook.failed].into_iter().flatten().next();
    let Some(program) = first.and_then(|argv| argv.first()) else {
        return Err(fault("has neither `pre` nor `post`", "give it a command: pre = [\"/path/to/program\"]"));
    };
    let called = file_name(program);
    Ok((common, called, HookKind::Hook(hook)))
}

fn postgresql(table: &Table<'_>, fault: impl Fn(&str, &str) -> ConfigError) -> Section {
    let k = PostgresqlKeys::read(table)?;
    let common = common!(k);
    let settings = Postgresql {
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
    Ok((common, "postgresql".to_owned(), HookKind::Postgresql(settings)))
}

fn mysql(table: &Table<'_>, fault: impl Fn(&str, &str) -> ConfigError) -> Section {
    let k = MysqlKeys::read(table)?;
    let common = common!(k);
    let settings = Mysql {
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
    Ok((common, "mysql".to_owned(), HookKind::Mysql(settings)))
}

fn redis(table: &Table<'_>, fault: impl Fn(&str, &str) -> ConfigError) -> Section {
    let k = RedisKeys::read(table)?;
    let common = common!(k);
    let settings = Redis {
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
        return Err(fault(
            "has a `pause_limit`, and mode \"bgsave\" pauses nothing",
            "leave one of them out",
        ));
    }
    if settings.socket.is_some() && settings.host.is_some() {
        return Err(fault("has a `socket` and a `host`", "leave one of them out"));
    }
    if settings.password_file.is_some() && settings.credential.is_some() {
        return Err(fault("has a `password_file` and a `credential`", "leave one of them out"));
    }
    Ok((common, "redis".to_owned(), HookKind::Redis(settings)))
}
