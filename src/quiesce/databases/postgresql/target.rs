//! Which server, as whom, and with which password.
//!
//! In: the section's settings, a service file, a password file. Out: a [`Target`]; this process is the system
//! user to connect as from then on. Must never: read a file as root that the section does not name, or let a
//! password be printed.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::super::{Refusal, become_user};
use super::local::{PORT, SOCKET, SOCKETS};
use super::passfile::{self, Wanted};
use super::service::{self, Service};
use crate::config::settings::Postgresql;

/// Role, database and system user.
const POSTGRES: &str = "postgres";
/// Where packages look for a service file that is no user's own: Debian's, Red Hat's.
const SYSTEM_SERVICES: [&str; 2] =
    ["/etc/postgresql-common/pg_service.conf", "/etc/sysconfig/pgsql/pg_service.conf"];

/// A server and how it is entered.
pub(super) struct Target {
    /// A folder with a socket, or a host.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    /// Never printed: there is no `Debug`.
    pub password: Option<String>,
}

/// As it is called in messages.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_socket() {
            write!(f, "PostgreSQL on {}/{SOCKET}{}", self.host, self.port)
        } else {
            write!(f, "PostgreSQL on {}, port {}", self.host, self.port)
        }
    }
}

impl Target {
    /// Is it reached by a socket of this host?
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// Finds out, and becomes the system user. This process must have one thread.
pub(super) fn resolve(settings: &Postgresql) -> Result<Target, Refusal> {
    // What the section names is root's to name, and may be root's alone to read.
    let services = settings.service_file.as_deref().map(services).transpose()?;
    let passwords = settings.passfile.as_deref().map(passwords).transpose()?;
    let home = enter(settings.os_user.as_deref())?;
    let service = match &settings.service {
        None => Service::default(),
        Some(name) => named(name, settings.service_file.as_deref(), services, home.as_deref())?,
    };
    // The address is connected to, and the password looked up by the name, as libpq does both.
    let (host, name) = match &settings.host {
        Some(host) => (Some(host.clone()), None),
        None => (service.address.or_else(|| service.host.clone()), service.host),
    };
    let target = Target {
        host: host.unwrap_or_else(|| SOCKETS.to_owned()),
        port: settings.port.or(service.port).unwrap_or(PORT),
        user: settings.user.clone().or(service.user).unwrap_or_else(|| POSTGRES.to_owned()),
        database: settings.database.clone().or(service.database).unwrap_or_else(|| POSTGRES.to_owned()),
        password: None,
    };
    if target.host.contains(',') {
        return Err(Refusal::new(format!("`{}` names more than one host", target.host))
            .hint("a section is for one server: name the one on this host"));
    }
    let lines = match (passwords, service.passfile, home) {
        (Some(text), _, _) => Some(text),
        (None, Some(path), _) => Some(self::passwords(&path)?),
        (None, None, Some(home)) => passfile::read(&home.join(".pgpass"))?,
        (None, None, None) => None,
    };
    let looked_up = lines.and_then(|text| passfile::lookup(&text, wanted(&target, name.as_deref())));
    Ok(Target { password: service.password.or(looked_up), ..target })
}

fn wanted<'a>(target: &'a Target, name: Option<&'a str>) -> Wanted<'a> {
    let host = name.unwrap_or(&target.host);
    let host = if host == SOCKETS { "localhost" } else { host };
    Wanted { host, port: target.port, database: &target.database, user: &target.user }
}

/// Becomes the user that the server's peer authentication is to see. Its home.
fn enter(os_user: Option<&str>) -> Result<Option<PathBuf>, Refusal> {
    let known = |name: &str| User::from_name(name).ok().flatten();
    let user = match os_user {
        Some(name) => {
            become_user(name)?;
            known(name)
        }
        None if geteuid().is_root() => match known(POSTGRES) {
            Some(user) => {
                become_user(POSTGRES)?;
                Some(user)
            }
            None => User::from_uid(geteuid()).ok().flatten(),
        },
        None => User::from_uid(geteuid()).ok().flatten(),
    };
    Ok(user.map(|u| u.dir))
}

fn services(path: &Path) -> Result<String, Refusal> {
    std::fs::read_to_string(path)
        .map_err(|e| Refusal::new(format!("cannot read the service file {}: {e}", path.display())))
}

fn passwords(path: &Path) -> Result<String, Refusal> {
    let missing = || Refusal::new(format!("the password file {} is not there", path.display()));
    passfile::read(path)?.ok_or_else(missing)
}

fn named(
    name: &str,
    file: Option<&Path>,
    text: Option<String>,
    home: Option<&Path>,
) -> Result<Service, Refusal> {
    if let (Some(file), Some(text)) = (file, text) {
        return service::find(&text, name)?.ok_or_else(|| no_service(name, &[file.to_owned()]));
    }
    let mut files: Vec<PathBuf> = home.map(|h| h.join(".pg_service.conf")).into_iter().collect();
    files.extend(SYSTEM_SERVICES.map(PathBuf::from));
    for file in &files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(Refusal::new(format!("cannot read the service file {}: {e}", file.display())));
            }
        };
        if let Some(found) = service::find(&text, name)? {
            return Ok(found);
        }
    }
    Err(no_service(name, &files))
}

fn no_service(name: &str, files: &[PathBuf]) -> Refusal {
    let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    Refusal::new(format!("there is no service `{name}` in {}", files.join(", ")))
        .hint("name the file with `service_file`, or the service as it is written there")
}
