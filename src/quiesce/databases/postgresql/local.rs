//! What the agent knows of PostgreSQL by itself.
//!
//! In: a section's settings; what /proc shows of its processes. Out: what differs from other databases before
//! anybody connects. Must never: connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::super::agent::DatabaseHook;
use super::super::sections;
use super::super::server::{RunningServer, ServerKind, same_path};
use crate::config::settings::{HookKind, Postgresql};

/// Where PostgreSQL's packages put the socket; an empty host means this folder to libpq, and `localhost` to a
/// password file.
pub(super) const SOCKETS: &str = "/var/run/postgresql";
/// The name of a socket, up to the port.
pub(super) const SOCKET: &str = ".s.PGSQL.";
pub(super) const PORT: u16 = 5432;

impl DatabaseHook for Postgresql {}

/// PostgreSQL.
pub(in crate::quiesce::databases) struct Kind;

impl ServerKind for Kind {
    fn id(&self) -> &'static str {
        "postgresql"
    }

    fn title(&self) -> &'static str {
        "PostgreSQL"
    }

    fn process_names(&self) -> &'static [&'static str] {
        &["postgres", "postmaster"]
    }

    fn is_for(&self, section: &HookKind) -> bool {
        matches!(section, HookKind::Postgresql(_))
    }

    fn leads_to(&self, section: &HookKind, server: &RunningServer) -> bool {
        match section {
            // The service file is not read for this.
            HookKind::Postgresql(p) => p.service.is_none() && ports(server).contains(&p.port.unwrap_or(PORT)),
            _ => false,
        }
    }

    fn suggestion(&self, server: &RunningServer, name: Option<&str>) -> String {
        let host = match server.sockets.iter().find_map(|s| s.parent()) {
            Some(folder) if same_path(folder, Path::new(SOCKETS)) => None,
            Some(folder) => Some(sections::path(folder)),
            None => Some(server.host_or_local().into()),
        };
        let port = ports(server).first().copied().filter(|p| *p != PORT);
        sections::text(self.id(), name, &[("host", host), ("port", port.map(sections::port))])
    }
}

/// Its ports. A socket's name has one too.
fn ports(server: &RunningServer) -> Vec<u16> {
    let of_socket = |s: &PathBuf| s.file_name()?.to_str()?.strip_prefix(SOCKET)?.parse().ok();
    let sockets = server.sockets.iter().filter_map(of_socket);
    sockets.chain(server.addresses.iter().map(SocketAddr::port)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::server::made;
    use super::*;
    use crate::config::settings::PostgresqlMode;

    fn section(port: Option<u16>, service: Option<&str>) -> HookKind {
        HookKind::Postgresql(Postgresql {
            mode: PostgresqlMode::Checkpoint,
            host: None,
            port,
            user: None,
            database: None,
            service: service.map(str::to_owned),
            service_file: None,
            passfile: None,
            os_user: None,
            allow_standby: false,
        })
    }

    #[test]
    fn a_section_leads_to_its_port_by_socket_or_address_and_a_service_to_none() {
        let usual = made(&Kind, &["/run/postgresql/.s.PGSQL.5432"], &[]);
        let other = made(&Kind, &[], &["10.0.0.1:5433"]);
        for (section, leads) in [
            (section(None, None), [true, false]),
            (section(Some(5433), None), [false, true]),
            (section(Some(5434), None), [false, false]),
            (section(None, Some("main")), [false, false]),
        ] {
            let found = [&usual, &other].map(|server| Kind.leads_to(&section, server));
            assert_eq!(found, leads, "{section:?}");
        }
    }

    #[test]
    fn what_is_the_default_is_not_suggested() {
        let suggested =
            |sockets: &[&str], addresses: &[&str]| Kind.suggestion(&made(&Kind, sockets, addresses), None);
        for folder in ["/var/run/postgresql", "/run/postgresql"] {
            let socket = format!("{folder}/.s.PGSQL.5432");
            assert_eq!(suggested(&[&socket], &["10.0.0.1:5432"]), "[[postgresql]]\n");
        }
        assert_eq!(suggested(&["/srv/.s.PGSQL.5433"], &[]), "[[postgresql]]\nhost = \"/srv\"\nport = 5433\n");
        assert_eq!(suggested(&[], &["0.0.0.0:5432"]), "[[postgresql]]\nhost = \"127.0.0.1\"\n");
        assert_eq!(suggested(&[], &["10.0.0.1:5432"]), "[[postgresql]]\nhost = \"10.0.0.1\"\n");
        assert_eq!(suggested(&[], &[]), "[[postgresql]]\nhost = \"127.0.0.1\"\n");
    }
}
