//! MySQL and MariaDB: nothing is committed and every table is on the disk, from `ready` until told.
//!
//! ```text
//! open     log in twice: one connection locks, the other looks on; files in the set? privileges?
//! quiesce  replica's SQL thread (where asked) ─→ locks ─→ InnoDB's log flushed ─→ positions read
//!            │ not in `lock_wait`: all is given back for a moment, so that nobody queues up behind the lock
//! release  the same connection, the same position? ─→ unlock ─→ SQL thread
//! rescue   SQL threads that ran before, and are stopped without an error, are started
//! ```
//!
//! In: its settings, the set. Out: facts, and a server that is quiesced. Must never: keep a lock beyond the
//! end of the process, keep the server's clients waiting for longer than `lock_wait` at a time before it is
//! quiesced, or start an SQL thread that somebody else stopped.

mod address;
mod blocker;
mod files;
mod flavour;
pub(super) mod local;
mod locks;
mod options;
mod replica;
mod session;

use std::time::{Duration, Instant};

use super::{Quiescer, Refusal, Start, fact, note};
use crate::config::settings::{HookKind, Mysql};
use files::Variables;
use flavour::{Flavour, Lock};
use locks::Position;
use session::{Login, Session};

/// Kept back of the hook's timeout, so that the refusal still says who was in the way.
const RESERVE: Duration = Duration::from_millis(500);

/// A connected server.
pub(super) struct Server {
    /// The connection that takes the locks, and has them until the release.
    locking: Session,
    /// The one that looks on while the other waits.
    aside: Session,
    settings: Mysql,
    flavour: Flavour,
    lock: Lock,
    variables: Variables,
    /// When trying has to end.
    end: Instant,
    /// Statements of `lock` were begun.
    taken: bool,
    /// One of them waits, as far as is known: if whoever called for it has gone away, the connection is of no
    /// use any more.
    waiting: bool,
    position: Option<Position>,
    /// SQL threads that this process stopped.
    stopped: Vec<String>,
}

fn settings(start: &Start) -> Result<Mysql, Refusal> {
    match &start.kind {
        HookKind::Mysql(settings) => Ok(settings.clone()),
        _ => Err(Refusal::new(format!("`{}` is no MySQL server", start.name))),
    }
}

/// What every connection is told first: to be left alone for as long as it may take, and to wait for no lock
/// without a limit.
async fn settle(session: &mut Session, longest: Duration, lock_wait: Duration) -> Result<(), Refusal> {
    // The server takes no more than a year, and in strict mode refuses more.
    let (idle, wait) = ((longest.as_secs() + 60).min(31_536_000), locks::seconds(lock_wait));
    let statement = format!("SET SESSION wait_timeout = {idle}, lock_wait_timeout = {wait}, autocommit = 1");
    session.run(&statement).await.map_err(|e| session.refusal("SET SESSION", &e))
}

async fn flavour(session: &mut Session) -> Result<(Flavour, Variables), Refusal> {
    let names = files::NAMES.map(|n| format!("'{n}'")).join(", ");
    let query = format!("SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})");
    let rows = session.rows(&query).await.map_err(|e| session.refusal("SHOW VARIABLES", &e))?;
    let variables: Variables = rows.iter().filter_map(|r| Some((r.at(0)?, r.at(1)?))).collect();
    let get = |name: &str| variables.get(name).map_or("", String::as_str);
    Ok((Flavour::parse(get("version"), get("version_comment")), variables))
}

impl Quiescer for Server {
    async fn open(start: &Start) -> Result<Self, Refusal> {
        let end = Instant::now() + start.timeout.saturating_sub(RESERVE);
        let settings = settings(start)?;
        let login = Login::find(&settings)?;
        let mut locking = login.connect().await?;
        let (flavour, variables) = flavour(&mut locking).await?;
        let lock = flavour.lock(settings.method);
        permitted(&mut locking, flavour, lock, settings.stop_replica).await?;
        files::check(&start.set, &variables)?;
        let longest = start.quiesce_limit + start.timeout;
        settle(&mut locking, longest, settings.lock_wait).await?;
        if flavour.is_mariadb() {
            // A limit for statements would break off what waits for a lock.
            let unlimited = locking.run("SET SESSION max_statement_time = 0").await;
            unlimited.map_err(|e| locking.refusal("SET SESSION", &e))?;
        }
        let mut aside = login.connect().await?;
        settle(&mut aside, longest, settings.lock_wait).await?;
        fact("server", flavour);
        for name in ["server_id", "server_uuid"] {
            if let Some(value) = variables.get(name) {
                fact(name, value);
            }
        }
        let sources = replica::sources(&mut aside, flavour).await?;
        let (taken, waiting, position, stopped) = (false, false, None, Vec::new());
        let server = Self {
            locking,
            aside,
            settings,
            flavour,
            lock,
            variables,
            end,
            taken,
            waiting,
            position,
            stopped,
        };
        fact(replica::RUNNING, replica::running(&sources));
        Ok(server)
    }

    async fn quiesce(&mut self) -> Result<(), Refusal> {
        self.stop_replica().await?;
        self.lock().await?;
        let doing = "FLUSH ENGINE LOGS";
        // Else what is committed may be on the disk as prepared only, and the binary log would have to say
        // what became of it.
        let flushed = self.locking.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await;
        flushed.map_err(|e| self.locking.refusal(doing, &e))?;
        let position = self.position().await?;
        position.facts();
        self.position = Some(position);
        let sources = replica::sources(&mut self.locking, self.flavour).await?;
        sources.iter().for_each(replica::Source::facts);
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Refusal> {
        let unlocked = self.unlock().await;
        let started = self.start_replica().await;
        unlocked.and(started)
    }

    async fn recover(start: &Start) -> Result<(), Refusal> {
        let settings = settings(start)?;
        // The locks are gone with the connection.
        if settings.stopping.is_empty() {
            return Ok(());
        }
        let mut session = Login::find(&settings)?.connect().await?;
        let (flavour, _) = flavour(&mut session).await?;
        replica::start(&mut session, flavour, &settings.stopping).await
    }
}

/// Refuses an account that may not do all that is needed, and says what to grant.
async fn permitted(
    session: &mut Session,
    flavour: Flavour,
    lock: Lock,
    stop_replica: bool,
) -> Result<(), Refusal> {
    let account = session.row("SELECT CURRENT_USER(), CURRENT_ROLE()").await;
    // Roles came with MariaDB 10.0 and MySQL 8.0.
    let account = match account {
        Err(_) => session.row("SELECT CURRENT_USER()").await,
        known => known,
    };
    let account = account.map_err(|e| session.refusal("SELECT CURRENT_USER()", &e))?;
    let get = |place: usize| account.as_ref().and_then(|row| row.at(place)).unwrap_or_default();
    let (user, roles) = (get(0), get(1));
    let mut show = "SHOW GRANTS".to_owned();
    if !flavour.is_mariadb() && !roles.is_empty() && roles != "NONE" {
        show = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
    }
    let grants = session.rows(&show).await.map_err(|e| session.refusal("SHOW GRANTS", &e))?;
    let grants: Vec<String> = grants.iter().filter_map(|row| row.at(0)).collect();
    let missing = flavour::missing(&flavour.privileges(lock, stop_replica), &grants);
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let account = user.rsplit_once('@').map_or_else(|| user.clone(), |(u, h)| format!("'{u}'@'{h}'"));
    Err(Refusal::new(format!("the account {account} lacks {missing} on this {flavour}"))
        .hint(format!("GRANT {missing} ON *.* TO {account};")))
}

impl Server {
    async fn stop_replica(&mut self) -> Result<(), Refusal> {
        let wanted = std::mem::take(&mut self.settings.stopping);
        for source in replica::sources(&mut self.aside, self.flavour).await? {
            if source.running && wanted.contains(&source.channel) {
                // Noted first: stopping may have been begun when it fails.
                self.stopped.push(source.channel.clone());
                let statement = self.flavour.sql_thread("STOP", &source.channel);
                self.locking.run(&statement).await.map_err(|e| self.locking.refusal(&statement, &e))?;
            }
        }
        Ok(())
    }

    async fn start_replica(&mut self) -> Result<(), Refusal> {
        let stopped = std::mem::take(&mut self.stopped);
        if stopped.is_empty() {
            return Ok(());
        }
        let started = replica::start(&mut self.aside, self.flavour, &stopped).await;
        started.inspect_err(|e| note(format!("the SQL thread is not started: {e}")))
    }
}
