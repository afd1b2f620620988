//! A connection to the server: how it is found, who logs in, and what it is asked.
//!
//! In: the settings, the option files. Out: a [`Session`]. Must never: hand a password to anything but the
//! server, or wait for an answer without whoever calls it having set a limit.

use std::path::{Path, PathBuf};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, Opts, OptsBuilder, Row, Value};

use super::super::{Refusal, become_user};
use super::address::{PORT, SOCKETS};
use super::options::{Options, USUAL};
use crate::config::settings::Mysql;

/// A statement was not given a lock in time.
pub(super) const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// It was ended by KILL QUERY.
pub(super) const INTERRUPTED: u16 = 1317;
/// A privilege is missing.
const DENIED: [u16; 2] = [1227, 1044];

/// How the server is reached, and by whom.
#[derive(Clone)]
pub(super) struct Login {
    opts: Opts,
    /// For messages: `through /run/mysqld/mysqld.sock as stillpoint`.
    pub described: String,
}

/// One connection.
pub(super) struct Session {
    conn: Conn,
    /// The server's number for it.
    pub id: u64,
    described: String,
}

/// Why a statement failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The server's number; none when the connection is at fault.
    pub code: Option<u16>,
    /// In the server's words.
    pub why: String,
}

impl Login {
    /// Reads the option files and becomes `os_user` for good: its own `~/.my.cnf` is read as that user.
    pub(super) fn find(settings: &Mysql) -> Result<Self, Refusal> {
        let mut options = Options::default();
        if let Some(file) = &settings.defaults_file {
            options.read(file, true)?;
        } else {
            USUAL.iter().try_for_each(|file| options.read(Path::new(file), false))?;
        }
        if let Some(user) = &settings.os_user {
            become_user(user)?;
        }
        let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        if let (None, Some(me)) = (&settings.defaults_file, &me) {
            options.read(&me.dir.join(".my.cnf"), false)?;
        }
        Ok(Self::new(settings, options, me.map(|me| me.name)))
    }

    fn new(settings: &Mysql, options: Options, me: Option<String>) -> Self {
        let user = settings.user.clone().or(options.user).or(me).unwrap_or_else(|| "root".to_owned());
        let port = settings.port.or(options.port).unwrap_or(PORT);
        // A section that says how to connect is not overruled by an option file; `localhost` means the
        // socket, as for MySQL's clients.
        let host = match (&settings.socket, &settings.host) {
            (Some(_), _) => None,
            (None, Some(host)) => Some(host.clone()),
            (None, None) => options.host,
        };
        let host = host.filter(|h| h != "localhost");
        let builder = OptsBuilder::default()
            .user(Some(&user))
            .pass(options.password)
            .prefer_socket(false)
            .stmt_cache_size(0)
            .connect_attribute("program_name", "stillpoint");
        let (builder, way) = match host {
            Some(host) => {
                let way = format!("at {host} port {port}");
                (builder.ip_or_hostname(host).tcp_port(port), way)
            }
            None => {
                let socket = settings.socket.clone().or(options.socket).unwrap_or_else(usual_socket);
                let way = format!("through {}", socket.display());
                (builder.socket(Some(socket.to_string_lossy())), way)
            }
        };
        Self { opts: builder.into(), described: format!("{way} as `{user}`") }
    }

    pub(super) async fn connect(&self) -> Result<Session, Refusal> {
        let opts = self.opts.clone();
        // A task, since the client panics on a way to log in that it was built without; that is told below.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let connected = tokio::spawn(async move { Conn::new(opts).await }).await;
        std::panic::set_hook(hook);
        let conn = match connected {
            Ok(Ok(conn)) => conn,
            Ok(Err(e)) => return Err(self.refused(&e)),
            Err(_) => {
                let what = format!("cannot log in {}: the account wants ed25519 or parsec", self.described);
                return Err(Refusal::new(what).hint(LOGINS));
            }
        };
        let id = u64::from(conn.id());
        Ok(Session { conn, id, described: self.described.clone() })
    }

    fn refused(&self, e: &Error) -> Refusal {
        let what = format!("cannot connect {}: {}", self.described, Failed::from_error(e).why);
        match e {
            Error::Server(e) if matches!(e.code, 1045 | 1698) => Refusal::new(what).hint(
                "put `user` and `password` into /root/.my.cnf or a `defaults_file`, group [client] or [stillpoint], \
                 or name the `os_user` of an account with socket authentication",
            ),
            Error::Driver(DriverError::UnknownAuthPlugin { .. }) => Refusal::new(what).hint(LOGINS),
            _ => Refusal::new(what)
                .hint("see that it runs, and give the section its `socket`, or `host` and `port`"),
        }
    }
}

const LOGINS: &str = "use an account with a password (mysql_native_password, caching_sha2_password) or with \
                      socket authentication (unix_socket, auth_socket)";

fn usual_socket() -> PathBuf {
    let found = SOCKETS.iter().find(|s| Path::new(s).exists());
    PathBuf::from(found.unwrap_or(&SOCKETS[0]))
}

impl Failed {
    fn from_error(e: &Error) -> Self {
        match e {
            Error::Server(e) => Self { code: Some(e.code), why: format!("{} (error {})", e.message, e.code) },
            Error::Io(e) => Self { code: None, why: chain(e) },
            Error::Driver(e) => Self { code: None, why: chain(e) },
            e => Self { code: None, why: chain(e) },
        }
    }
}

/// An error with its sources, none of them twice.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = e.source();
    }
    text
}

impl Session {
    /// A statement without an answer.
    pub(super) async fn run(&mut self, statement: &str) -> Result<(), Failed> {
        self.conn.query_drop(statement).await.map_err(|e| Failed::from_error(&e))
    }

    /// Every row of an answer, as texts by column.
    pub(super) async fn rows(&mut self, statement: &str) -> Result<Vec<Columns>, Failed> {
        let rows: Vec<Row> = self.conn.query(statement).await.map_err(|e| Failed::from_error(&e))?;
        Ok(rows.into_iter().map(Columns).collect())
    }

    /// The first row, if there is one.
    pub(super) async fn row(&mut self, statement: &str) -> Result<Option<Columns>, Failed> {
        Ok(self.rows(statement).await?.into_iter().next())
    }

    /// The same statements as refusals.
    pub(super) fn refusal(&self, doing: &str, failed: &Failed) -> Refusal {
        let refusal = Refusal::new(format!("{doing} failed {}: {}", self.described, failed.why));
        match failed.code {
            Some(code) if DENIED.contains(&code) => {
                refusal.hint("grant the account what the server asks for")
            }
            _ => refusal,
        }
    }
}

/// A row.
pub(super) struct Columns(Row);

impl Columns {
    /// A column by its name, whatever the case; none when there is no such column, or it is NULL.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let columns = self.0.columns_ref();
        let at = columns.iter().position(|c| c.name_str().eq_ignore_ascii_case(name))?;
        self.at(at)
    }

    /// The first of these columns that there is: servers rename them.
    pub(super) fn any(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    /// A column by its place.
    pub(super) fn at(&self, place: usize) -> Option<String> {
        match self.0.as_ref(place)? {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Int(n) => Some(n.to_string()),
            Value::UInt(n) => Some(n.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Mysql {
        serde_json::from_value(serde_json::json!({
            "lock_wait": "5s", "tries": 3, "stop_replica": false, "method": "backup",
        }))
        .unwrap()
    }

    fn described(settings: &Mysql, options: &Options) -> String {
        Login::new(settings, options.clone(), Some("me".into())).described
    }

    #[test]
    fn the_section_wins_over_the_files_and_localhost_is_the_socket() {
        let options = Options {
            user: Some("file".into()),
            socket: Some("/file.sock".into()),
            host: Some("10.0.0.1".into()),
            port: Some(3307),
            password: Some("s3cret".into()),
        };
        assert_eq!(described(&settings(), &options), "at 10.0.0.1 port 3307 as `file`");
        let own = Mysql { socket: Some("/own.sock".into()), user: Some("own".into()), ..settings() };
        assert_eq!(described(&own, &options), "through /own.sock as `own`");
        let own = Mysql { host: Some("127.0.0.1".into()), port: Some(1), ..settings() };
        assert_eq!(described(&own, &options), "at 127.0.0.1 port 1 as `file`");
        let local = Options { host: Some("localhost".into()), ..options };
        assert_eq!(described(&settings(), &local), "through /file.sock as `file`");
        let none = described(&settings(), &Options::default());
        assert!(none.starts_with("through /") && none.ends_with(" as `me`"), "{none}");
    }
}
