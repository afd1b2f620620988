//! What the agent knows of MySQL and MariaDB by itself.
//!
//! In: a section's settings; what /proc shows of its processes. Out: what differs from other databases before
//! anybody connects. Must never: connect.

use std::path::Path;

use super::super::super::outcome::{HookOutcome, Phase};
use super::super::super::verbs::{Application, Narrowed};
use super::super::Task;
use super::super::agent::{DatabaseHook, ask};
use super::super::sections;
use super::super::server::{RunningServer, ServerKind, same_path};
use super::address::{PORT, SOCKETS};
use super::replica::{RUNNING, channels};
use crate::config::settings::{HookKind, Mysql};

impl DatabaseHook for Mysql {
    /// A replica's SQL threads that run are named in the journal before they are stopped: whoever cleans up
    /// starts these, and no others.
    async fn narrow(&self, app: &Application<'_>) -> Result<Narrowed, HookOutcome> {
        if !self.stop_replica {
            return Ok(Narrowed::All);
        }
        let checked = ask(app, Task::Check, Phase::Pre).await;
        if !checked.succeeded() {
            return Err(checked);
        }
        let stopping = channels(checked.facts.get(RUNNING));
        Ok(Narrowed::Only(HookKind::Mysql(Self { stopping, ..self.clone() })))
    }
}

/// MySQL, MariaDB, Percona Server.
pub(in crate::quiesce::databases) struct Kind;

impl ServerKind for Kind {
    fn id(&self) -> &'static str {
        "mysql"
    }

    fn title(&self) -> &'static str {
        "MySQL or MariaDB"
    }

    fn process_names(&self) -> &'static [&'static str] {
        &["mysqld", "mariadbd"]
    }

    fn is_for(&self, section: &HookKind) -> bool {
        matches!(section, HookKind::Mysql(_))
    }

    fn leads_to(&self, section: &HookKind, server: &RunningServer) -> bool {
        match section {
            HookKind::Mysql(Mysql { socket: Some(socket), .. }) => server.has_socket(socket),
            HookKind::Mysql(Mysql { host: None, port: None, .. }) => server.has_socket(Path::new(SOCKETS[0])),
            HookKind::Mysql(m) => server.listens_on(m.port.unwrap_or(PORT)),
            _ => false,
        }
    }

    fn suggestion(&self, server: &RunningServer, name: Option<&str>) -> String {
        // The socket of the X protocol does not serve.
        let plain = server.sockets.iter().find(|s| !s.to_string_lossy().ends_with("x.sock"));
        let keys = match (plain, server.address()) {
            (Some(socket), _) if same_path(socket, Path::new(SOCKETS[0])) => vec![],
            (Some(socket), _) => vec![("socket", Some(sections::path(socket)))],
            (None, Some((_, port))) => {
                vec![("host", Some(server.host_or_local().into())), ("port", Some(sections::port(port)))]
            }
            (None, None) => vec![],
        };
        sections::text(self.id(), name, &keys)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::server::made;
    use super::*;

    fn section(keys: serde_json::Value) -> HookKind {
        let mut all = serde_json::json!({
            "lock_wait": "5s", "tries": 3, "stop_replica": false, "method": "backup",
        });
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        HookKind::Mysql(serde_json::from_value(all).unwrap())
    }

    #[test]
    fn a_section_leads_to_its_socket_else_to_its_port_else_to_the_usual_socket() {
        let usual = made(&Kind, &["/run/mysqld/mysqld.sock"], &["0.0.0.0:3306"]);
        let other = made(&Kind, &["/srv/m.sock"], &["127.0.0.1:3307"]);
        for (keys, leads) in [
            (serde_json::json!({}), [true, false]),
            (serde_json::json!({"socket": "/var/run/mysqld/mysqld.sock"}), [true, false]),
            (serde_json::json!({"socket": "/srv/m.sock"}), [false, true]),
            (serde_json::json!({"host": "127.0.0.1"}), [true, false]),
            (serde_json::json!({"host": "127.0.0.1", "port": 3307}), [false, true]),
            (serde_json::json!({"port": 3308}), [false, false]),
        ] {
            let section = section(keys);
            assert_eq!([&usual, &other].map(|server| Kind.leads_to(&section, server)), leads, "{section:?}");
        }
    }

    #[test]
    fn what_is_the_default_is_not_suggested() {
        let suggested =
            |sockets: &[&str], addresses: &[&str]| Kind.suggestion(&made(&Kind, sockets, addresses), None);
        for socket in ["/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock"] {
            assert_eq!(suggested(&["/run/mysqld/mysqlx.sock", socket], &["10.0.0.1:3307"]), "[[mysql]]\n");
        }
        assert_eq!(suggested(&["/srv/m.sock"], &[]), "[[mysql]]\nsocket = \"/srv/m.sock\"\n");
        // Without a host, the socket would be taken.
        assert_eq!(suggested(&[], &["[::]:3306"]), "[[mysql]]\nhost = \"127.0.0.1\"\nport = 3306\n");
        assert_eq!(suggested(&[], &[]), "[[mysql]]\n");
    }
}
