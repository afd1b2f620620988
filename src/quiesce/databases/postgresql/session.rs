//! One connection: statements in, rows of text out, errors that name the server.
//!
//! In: a [`Target`]. Out: rows, or a [`Refusal`] with a hint. Every statement has a limit that the server
//! itself keeps, and the server ends the session when this process does, or when it says nothing for too
//! long. Must never: say a password.

use std::error::Error as _;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::super::Refusal;
use super::target::Target;

/// The oldest version that is known to work, as `server_version_num` has it.
const OLDEST: u32 = 13_00_00;

/// A connection.
pub(super) struct Session {
    client: Client,
    traffic: JoinHandle<()>,
    /// As it is called in messages.
    name: String,
    /// `server_version_num`.
    pub version: u32,
}

impl Session {
    /// Connects. `application` is what the server's views call it; `idle` the longest time that it may say
    /// nothing.
    pub async fn connect(
        target: &Target,
        application: &str,
        limit: Duration,
        idle: Duration,
    ) -> Result<Self, Refusal> {
        let mut config = Config::new();
        config.user(&target.user).dbname(&target.database).port(target.port);
        config.application_name(application).ssl_mode(SslMode::Disable).connect_timeout(limit);
        if target.is_socket() {
            config.host_path(&target.host);
        } else {
            config.host(&target.host);
        }
        if let Some(password) = &target.password {
            config.password(password);
        }
        let name = target.to_string();
        let connected = timeout(limit, config.connect(NoTls)).await.map_err(|_| silent(&name, limit))?;
        let (client, connection) = connected.map_err(|e| cannot_connect(target, &e))?;
        let traffic = tokio::spawn(async move {
            // How it ended shows at the next statement.
            let _ = connection.await;
        });
        let mut session = Self { client, traffic, name, version: 0 };
        let limits = timeout(limit, session.limits(limit, idle)).await;
        limits.map_err(|_| session.silent(limit))??;
        Ok(session)
    }

    /// Whatever the role's own settings are.
    async fn limits(&mut self, limit: Duration, idle: Duration) -> Result<(), Refusal> {
        let limit = millis(limit);
        self.run(&format!(
            "SET search_path = pg_catalog; SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
             SET client_min_messages = error"
        ))
        .await?;
        let version = self.value("SHOW server_version_num").await?;
        self.version = version.parse().map_err(|_| self.refusal(format!("is of version `{version}`")))?;
        if self.version < OLDEST {
            return Err(self.refusal("is older than version 13").hint("use a [[session]] or a [[hook]]"));
        }
        if self.version >= 14_00_00 {
            // A server that waits for a checkpoint would not notice that this process is gone.
            self.run(&format!(
                "SET client_connection_check_interval = 1000; SET idle_session_timeout = {}",
                millis(idle)
            ))
            .await?;
        }
        if self.version >= 17_00_00 {
            self.run("SET transaction_timeout = 0").await?;
        }
        Ok(())
    }

    /// Longest time of a statement from now on.
    pub async fn limit(&self, limit: Duration) -> Result<(), Refusal> {
        self.run(&format!("SET statement_timeout = {0}; SET lock_timeout = {0}", millis(limit))).await
    }

    /// Carries out a statement.
    pub async fn run(&self, sql: &str) -> Result<(), Refusal> {
        self.client.batch_execute(sql).await.map_err(|e| self.failed(&e))
    }

    /// The same, and whether it was ended by its limit or by somebody's request.
    pub async fn long(&self, sql: &str) -> Result<Option<SimpleQueryRow>, Long> {
        match self.client.simple_query(sql).await {
            Ok(messages) => Ok(rows(messages).next()),
            Err(e) if e.code() == Some(&SqlState::QUERY_CANCELED) => Err(Long::Cancelled),
            Err(e) => Err(Long::Failed(self.failed(&e))),
        }
    }

    /// All rows.
    pub async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, Refusal> {
        let messages = self.client.simple_query(sql).await.map_err(|e| self.failed(&e))?;
        Ok(rows(messages).collect())
    }

    /// The one row.
    pub async fn row(&self, sql: &str) -> Result<SimpleQueryRow, Refusal> {
        let row = self.rows(sql).await?.into_iter().next();
        row.ok_or_else(|| self.refusal("gave no answer"))
    }

    /// The one value; empty for NULL.
    pub async fn value(&self, sql: &str) -> Result<String, Refusal> {
        Ok(text(&self.row(sql).await?, 0))
    }

    /// Has the server, or whatever is in between, closed it?
    pub fn closed(&self) -> bool {
        self.client.is_closed() || self.traffic.is_finished()
    }

    /// Ends what may still run in it from another connection; it is over with it.
    pub fn canceller(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// A refusal that names the server: `what` is what it is or does.
    pub fn refusal(&self, what: impl std::fmt::Display) -> Refusal {
        Refusal::new(format!("{} {what}", self.name))
    }

    /// It did not answer at all.
    pub fn silent(&self, limit: Duration) -> Refusal {
        silent(&self.name, limit)
    }

    fn failed(&self, e: &tokio_postgres::Error) -> Refusal {
        if self.closed() || e.is_closed() {
            return self.refusal(format!("has closed the connection: {}", said(e)));
        }
        let refusal = self.refusal(format!("says: {}", said(e)));
        match e.as_db_error().and_then(|e| e.hint()) {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

/// Why a long statement has no result.
pub(super) enum Long {
    /// It was cancelled: by its limit, or by somebody.
    Cancelled,
    /// Anything else.
    Failed(Refusal),
}

/// A column as text; empty for NULL.
pub(super) fn text(row: &SimpleQueryRow, column: usize) -> String {
    row.try_get(column).ok().flatten().unwrap_or_default().to_owned()
}

fn rows(messages: Vec<SimpleQueryMessage>) -> impl Iterator<Item = SimpleQueryRow> {
    messages.into_iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

fn silent(name: &str, limit: Duration) -> Refusal {
    Refusal::new(format!("{name} did not answer within {}", shown(limit)))
        .hint("it may be stopped, or out of memory: see its processes and its log")
}

/// A time in words, without what nobody wants to read.
pub(super) fn shown(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

fn millis(time: Duration) -> i32 {
    // 0 would mean no limit at all.
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// What the server said, or the kernel: the client's own words hide it.
fn said(e: &tokio_postgres::Error) -> String {
    if let Some(db) = e.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    match e.source() {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}

fn cannot_connect(target: &Target, e: &tokio_postgres::Error) -> Refusal {
    let Target { user, database, .. } = target;
    let refusal = Refusal::new(format!(
        "cannot connect to {target} as role `{user}`, database `{database}`: {}",
        said(e)
    ));
    let Some(code) = e.code() else {
        let no_password = target.password.is_none() && e.to_string().contains("configuration");
        return refusal.hint(if no_password {
            "it asks for a password: put it into ~/.pgpass of the system user (`os_user`), or name a `passfile`"
        } else {
            "is it running? `host` (a host, or the folder of its socket) and `port` say where it is looked for"
        });
    };
    refusal.hint(match *code {
        SqlState::INVALID_PASSWORD => "correct its line in the password file (`passfile`, or ~/.pgpass of `os_user`)",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "see pg_hba.conf: with `peer`, the system user (`os_user`) has to have the role's name, or a line in pg_ident.conf"
        }
        SqlState::CANNOT_CONNECT_NOW => "it is starting, stopping or recovering: try again when it accepts connections",
        SqlState::TOO_MANY_CONNECTIONS => {
            "every slot is taken: raise max_connections, or let the role use the reserved ones"
        }
        _ => "`user` and `database` say as whom and to what it connects",
    })
}
