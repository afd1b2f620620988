//! What the agent knows of Redis and Valkey by itself.
//!
//! In: a section's settings; what /proc shows of its processes. Out: what differs from other databases before
//! anybody connects. Must never: connect.

use std::ffi::OsString;

use super::super::agent::DatabaseHook;
use super::super::sections;
use super::super::server::{RunningServer, ServerKind};
use crate::config::settings::{HookKind, Redis};

/// Where systemd puts a service's credentials (systemd.exec(5)).
pub(super) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
pub(super) const PORT: u16 = 6379;

impl DatabaseHook for Redis {
    /// Where systemd put this service's credentials: the only variable of stillpoint's own that is handed on.
    fn variables(&self) -> Vec<(String, OsString)> {
        let folder = self.credential.as_ref().and_then(|_| std::env::var_os(CREDENTIALS));
        folder.map(|folder| (CREDENTIALS.to_owned(), folder)).into_iter().collect()
    }
}

/// Redis, Valkey.
pub(in crate::quiesce::databases) struct Kind;

impl ServerKind for Kind {
    fn id(&self) -> &'static str {
        "redis"
    }

    fn title(&self) -> &'static str {
        "Redis or Valkey"
    }

    fn process_names(&self) -> &'static [&'static str] {
        &["redis-server", "valkey-server"]
    }

    /// A Sentinel is the same program; it says what it is in its command line.
    fn keeps_data(&self, command_line: &[u8]) -> bool {
        const SENTINEL: &[u8] = b"[sentinel]";
        !command_line.windows(SENTINEL.len()).any(|w| w == SENTINEL)
    }

    fn is_for(&self, section: &HookKind) -> bool {
        matches!(section, HookKind::Redis(_))
    }

    fn leads_to(&self, section: &HookKind, server: &RunningServer) -> bool {
        match section {
            HookKind::Redis(Redis { socket: Some(socket), .. }) => server.has_socket(socket),
            HookKind::Redis(r) => server.listens_on(r.port.unwrap_or(PORT)),
            _ => false,
        }
    }

    fn suggestion(&self, server: &RunningServer, name: Option<&str>) -> String {
        let mut keys = Vec::new();
        match (server.address(), server.sockets.first()) {
            (Some((host, port)), _) => {
                keys.push(("host", host.map(|h| h.to_string().into())));
                keys.push(("port", (port != PORT).then(|| sections::port(port))));
            }
            (None, Some(socket)) => keys.push(("socket", Some(sections::path(socket)))),
            (None, None) => {}
        }
        // What a server without an append-only file has written is on no disk until it saves.
        keys.push(("mode", (!is_append_only(server)).then(|| "bgsave".into())));
        sections::text(self.id(), name, &keys)
    }
}

fn is_append_only(server: &RunningServer) -> bool {
    server.written.iter().any(|f| f.extension().is_some_and(|e| e == "aof"))
}

#[cfg(test)]
mod tests {
    use super::super::super::server::made;
    use super::*;
    use crate::config::settings::RedisMode;

    fn section(socket: Option<&str>, port: Option<u16>) -> HookKind {
        HookKind::Redis(Redis {
            mode: RedisMode::Pause,
            socket: socket.map(Into::into),
            host: None,
            port,
            user: None,
            password_file: None,
            credential: None,
            pause_limit: None,
        })
    }

    #[test]
    fn a_section_leads_to_its_socket_else_to_its_port() {
        let usual = made(&Kind, &[], &["0.0.0.0:6379"]);
        let other = made(&Kind, &["/run/redis/r.sock"], &["127.0.0.1:6380"]);
        for (section, leads) in [
            (section(None, None), [true, false]),
            (section(None, Some(6380)), [false, true]),
            (section(Some("/var/run/redis/r.sock"), None), [false, true]),
            (section(Some("/run/redis/other.sock"), None), [false, false]),
        ] {
            assert_eq!([&usual, &other].map(|server| Kind.leads_to(&section, server)), leads, "{section:?}");
        }
    }

    #[test]
    fn a_server_is_paused_where_it_has_an_append_only_file() {
        let mut server = made(&Kind, &["/run/redis/r.sock"], &["10.0.0.1:6380"]);
        let keys = "[[redis]]\nhost = \"10.0.0.1\"\nport = 6380\n";
        server.written = vec!["/data/dump.rdb".into(), "/data/temp-1.rdb".into()];
        assert_eq!(Kind.suggestion(&server, None), format!("{keys}mode = \"bgsave\"\n"));
        server.written.push("/data/appendonlydir/appendonly.aof.1.incr.aof".into());
        assert_eq!(Kind.suggestion(&server, None), keys);
        let usual = made(&Kind, &[], &["127.0.0.1:6379"]);
        assert_eq!(
            Kind.suggestion(&usual, Some("cache")),
            "[[redis]]\nname = \"cache\"\nmode = \"bgsave\"\n"
        );
    }

    #[test]
    fn a_sentinel_keeps_no_data() {
        assert!(Kind.keeps_data(b"redis-server *:6379\0"));
        assert!(!Kind.keeps_data(b"redis-server *:26379 [sentinel]\0"));
    }
}
