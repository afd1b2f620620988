//! Databases on the filesystems of a plan: which of them the configuration quiesces, and the sections that
//! are missing for the others.
//!
//! In: what /proc shows, the configured hooks, the plan. Out: a value for JSON, and text. Must never: connect
//! to one, or call one configured that has no section.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::page::{Page, whole};
use crate::config::settings::{Hook, HookKind, Mysql, Postgresql, Redis};
use crate::path_encoding;
use crate::plan::Plan;
use crate::quiesce::databases::running::{Kind, RunningServer};

/// A database, and what the configuration does for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnSet {
    /// The server.
    #[serde(flatten)]
    pub server: RunningServer,
    /// The mount points that it writes to, of the plan.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mounts: Vec<PathBuf>,
    /// The name of the section that quiesces it, if there is one.
    pub section: Option<String>,
    /// The lines to add to the configuration, when there is no section; none when no section is possible.
    pub suggestion: Option<String>,
}

/// Finds the section for each of these databases.
#[must_use]
pub fn on_set(found: Vec<RunningServer>, hooks: &[Hook], plan: &Plan) -> Vec<OnSet> {
    let mut number: BTreeMap<String, usize> = BTreeMap::new();
    found.iter().for_each(|d| *number.entry(d.kind.to_string()).or_default() += 1);
    let sections = |kind: Kind| hooks.iter().filter(move |h| is_for(&h.kind, kind));
    let describe = |server: RunningServer| {
        let of_kind: Vec<&Hook> = sections(server.kind).collect();
        let alone = number[&server.kind.to_string()] == 1;
        let section = match of_kind.as_slice() {
            // Only one section of this kind, and only one server: it is meant, however the section connects.
            [one] if alone => Some(one.name.clone()),
            several => several.iter().find(|h| leads_to(&h.kind, &server)).map(|h| h.name.clone()),
        };
        let named = !alone || !of_kind.is_empty();
        let suggestion = if section.is_some() { None } else { suggestion(&server, named) };
        let on = plan.filesystems.iter().filter(|f| server.on.contains(&f.dev));
        OnSet { mounts: on.map(|f| f.mount_point.clone()).collect(), server, section, suggestion }
    };
    found.into_iter().map(describe).collect()
}

fn is_for(hook: &HookKind, kind: Kind) -> bool {
    match (hook, kind) {
        (HookKind::Postgresql(_), Kind::Postgresql)
        | (HookKind::Mysql(_), Kind::Mysql)
        | (HookKind::Redis(_), Kind::Redis) => true,
        (HookKind::Session(s), Kind::Mongodb) => s.command.iter().any(|word| word.contains("mongo")),
        _ => false,
    }
}

/// Does this section connect to where this server listens?
fn leads_to(hook: &HookKind, server: &RunningServer) -> bool {
    let listens = |port: u16| server.addresses.iter().any(|a| a.port() == port);
    match hook {
        HookKind::Postgresql(Postgresql { service: Some(_), .. }) => false, // the service file is not read for this
        HookKind::Postgresql(p) => pg_ports(server).contains(&p.port.unwrap_or(PG_PORT)),
        HookKind::Mysql(Mysql { socket: Some(socket), .. })
        | HookKind::Redis(Redis { socket: Some(socket), .. }) => {
            server.sockets.iter().any(|s| same(s, socket))
        }
        HookKind::Mysql(Mysql { host: None, port: None, .. }) => {
            server.sockets.iter().any(|s| MYSQL_SOCKETS.iter().any(|d| s.as_os_str() == *d))
        }
        HookKind::Mysql(m) => listens(m.port.unwrap_or(MYSQL_PORT)),
        HookKind::Redis(r) => listens(r.port.unwrap_or(REDIS_PORT)),
        _ => false,
    }
}

/// /var/run is a link to /run.
fn same(one: &Path, other: &Path) -> bool {
    let run = |p: &Path| {
        p.strip_prefix("/var/run").map_or(p.to_path_buf(), |rest| PathBuf::from("/run").join(rest))
    };
    run(one) == run(other)
}

const PG_PORT: u16 = 5432;
const PG_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/run/postgresql"];
const PG_SOCKET: &str = ".s.PGSQL.";
const MYSQL_PORT: u16 = 3306;
const MYSQL_SOCKETS: [&str; 2] = ["/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock"];
const REDIS_PORT: u16 = 6379;
const MONGODB_PORT: u16 = 27017;
const MONGODB_HOOK: &str = "/usr/share/stillpoint/hooks/mongodb-fsynclock";

/// The ports, of which the socket's name has one too.
fn pg_ports(server: &RunningServer) -> Vec<u16> {
    let of_socket = |s: &PathBuf| s.file_name()?.to_str()?.strip_prefix(PG_SOCKET)?.parse().ok();
    let sockets = server.sockets.iter().filter_map(of_socket);
    sockets.chain(server.addresses.iter().map(SocketAddr::port)).collect()
}

/// The section to add. `named`: it needs a name, because there is another of its kind.
fn suggestion(server: &RunningServer, named: bool) -> Option<String> {
    if server.container {
        return None;
    }
    let section = match server.kind {
        Kind::Postgresql => "postgresql",
        Kind::Mysql => "mysql",
        Kind::Redis => "redis",
        Kind::Mongodb => return Some(mongodb(server)),
    };
    let mut keys: Vec<(&str, String)> = Vec::new();
    let text = |p: &Path| toml::Value::String(p.to_string_lossy().into_owned()).to_string();
    // 0.0.0.0 cannot be connected to: it stands for every address, the host's own included.
    let address = server.addresses.first().map(|a| {
        let all = a.ip().is_unspecified() || a.ip().is_loopback();
        (if all { None } else { Some(format!("\"{}\"", a.ip())) }, a.port())
    });
    match server.kind {
        Kind::Postgresql => {
            let folder = server.sockets.iter().find_map(|s| s.parent());
            match folder {
                Some(folder) if PG_SOCKETS.iter().any(|d| folder.as_os_str() == *d) => {}
                Some(folder) => keys.push(("host", text(folder))),
                None => keys.push((
                    "host",
                    address.as_ref().and_then(|a| a.0.clone()).unwrap_or("\"127.0.0.1\"".into()),
                )),
            }
            keys.extend(pg_ports(server).first().filter(|p| **p != PG_PORT).map(|p| ("port", p.to_string())));
        }
        Kind::Mysql => {
            // The socket of the X protocol does not serve.
            let plain = server.sockets.iter().find(|s| !s.to_string_lossy().ends_with("x.sock"));
            match (plain, address) {
                (Some(socket), _) if MYSQL_SOCKETS.iter().any(|d| socket.as_os_str() == *d) => {}
                (Some(socket), _) => keys.push(("socket", text(socket))),
                (None, Some((host, port))) => {
                    keys.push(("host", host.unwrap_or("\"127.0.0.1\"".into())));
                    keys.push(("port", port.to_string()));
                }
                (None, None) => {}
            }
        }
        _ => {
            match (address, server.sockets.first()) {
                (Some((host, port)), _) => {
                    keys.extend(host.map(|h| ("host", h)));
                    keys.extend((port != REDIS_PORT).then(|| ("port", port.to_string())));
                }
                (None, Some(socket)) => keys.push(("socket", text(socket))),
                (None, None) => {}
            }
            if !server.append_only {
                keys.push(("mode", "\"bgsave\"".to_owned()));
            }
        }
    }
    if named {
        keys.insert(0, ("name", format!("\"{}\"", name(section, &server.data))));
    }
    let lines = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    Some(format!("[[{section}]]\n{}", lines.collect::<String>()))
}

/// MongoDB has no section of its own; a shipped hook quiesces it.
fn mongodb(server: &RunningServer) -> String {
    let other = server.addresses.iter().map(SocketAddr::port).find(|p| *p != MONGODB_PORT);
    let other = other.map(|p| format!("# port {p}: see MONGODB_URI_FILE in that file\n")).unwrap_or_default();
    format!(
        "[[session]]\nname = \"mongodb\"\ncommand = [\"{MONGODB_HOOK}\"]\nrelease = [\"{MONGODB_HOOK}\", \"unlock\"]\n\
         timeout = \"60s\"\n{other}"
    )
}

/// A name for the section: the last part of the data directory's path.
fn name(section: &str, data: &Path) -> String {
    let last = data.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let last: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let last = last.trim_matches('-');
    if last.starts_with(section) { last.to_owned() } else { format!("{section}-{last}") }
}

/// A section of the plan's text; nothing when there is no database.
pub(super) fn section(page: &mut Page, databases: &[OnSet]) {
    if databases.is_empty() {
        return;
    }
    page.heading("Databases on these filesystems");
    for found in databases {
        let OnSet { server, mounts, section, suggestion } = found;
        let mounts: Vec<String> = mounts.iter().map(|m| whole(m)).collect();
        let what = format!(
            "{}: {} in {}, on {}",
            server.kind,
            server.process,
            whole(&server.data),
            mounts.join(", ")
        );
        page.wrapped("  ", "    ", &what);
        let about = match (section, suggestion, server.kind) {
            (Some(name), _, _) => format!("held by the section `{name}`"),
            (None, Some(_), _) => "not configured: nothing holds it. To have it held, add".to_owned(),
            (None, None, _) => "it runs in a container, and nothing holds it that is seen here: \
                 a `[[container]]` or a `[[session]]` can"
                .to_owned(),
        };
        page.wrapped("    ", "    ", &about);
        for line in suggestion.iter().flat_map(|s| s.lines()) {
            page.line(&format!("      {line}"));
        }
    }
}
