//! PostgreSQL, 13 and later.
//!
//! ```text
//! target   settings, service file, password file → where, as whom; this process becomes that system user
//! session  connect, limits
//! look     refuse: a standby, too few privileges, not on this host, not within the set
//! quiesce  CHECKPOINT                │ pg_backup_start, fast
//!            … the window …
//! release  is it the same session?   │ pg_backup_stop: label and tablespace map
//! ```
//!
//! Frozen volumes are what a crash would leave, at one instant: recovery brings them to it, with all that was
//! committed before. `CHECKPOINT` makes that recovery short. A backup's label makes it start where an
//! archive's does, so that WAL from elsewhere can be added.
//!
//! In: its settings, the set. Out: facts, and a server that is quiesced. Must never: keep it quiesced beyond
//! the end of the process: a backup ends with its session.

mod inspect;
pub(super) mod local;
mod passfile;
#[cfg(test)]
mod psql;
mod service;
mod session;
mod target;

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::NoTls;

use self::inspect::{Identity, Instance};
use self::session::{Long, Session, text};
use super::{Quiescer, Refusal, Start, fact, note};
use crate::config::settings::{HookKind, Postgresql, PostgresqlMode};

/// How much longer than `quiesce_limit` a silent session lives: for when this process is stopped.
const IDLE_MARGIN: Duration = Duration::from_secs(30);
/// How long what is lost is cancelled.
const CANCEL: Duration = Duration::from_secs(2);
/// What a limit of the server's is less than the process's own, so that it is the server which answers.
const EARLIER: Duration = Duration::from_millis(500);
/// What is left of the process's own limit when a server that says nothing at all is given up; and how far
/// its clock and this one's may be apart over one statement.
const SPARE: Duration = Duration::from_millis(50);

/// A connected server.
pub(super) struct Server {
    session: Session,
    mode: PostgresqlMode,
    instance: Instance,
    /// The backup's label.
    label: String,
    timeout: Duration,
    /// It has to be quiesced by then.
    deadline: Instant,
    quiesced: Option<Quiesced>,
}

/// What has to be the same at the release.
struct Quiesced {
    timeline: String,
}

impl Quiescer for Server {
    async fn open(start: &Start) -> Result<Self, Refusal> {
        let deadline = Instant::now() + start.timeout;
        let settings = settings(start)?;
        let target = target::resolve(settings)?;
        let label = application(start);
        let limit = earlier(start.timeout);
        let session = Session::connect(&target, &label, limit, start.quiesce_limit + IDLE_MARGIN).await?;
        let looked = async {
            let instance = inspect::instance(&session).await?;
            Ok((inspect::check(&session, start, settings, &instance).await?, instance))
        };
        // The server's own limits do not end a wait for what a stopped process of it has locked.
        let looked = timeout_at(deadline - SPARE, looked).await;
        let (identity, instance) = looked.unwrap_or_else(|_| Err(session.silent(limit)))?;
        report(&identity, &instance);
        let (mode, timeout) = (settings.mode, start.timeout);
        Ok(Self { session, mode, instance, label, timeout, deadline, quiesced: None })
    }

    async fn quiesce(&mut self) -> Result<(), Refusal> {
        let left = earlier(self.deadline.saturating_duration_since(Instant::now()));
        let by = self.deadline - SPARE;
        let begun = timeout_at(by, self.begin(left)).await;
        self.quiesced = Some(begun.unwrap_or_else(|_| Err(self.session.silent(left)))?);
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Refusal> {
        let Some(Quiesced { timeline }) = self.quiesced.take() else {
            // Something may still run in it. The end of this process ends the rest.
            let _ = timeout(CANCEL, self.session.canceller().cancel_query(NoTls)).await;
            return Ok(());
        };
        let limit = earlier(self.timeout);
        let same = timeout(limit, self.same(&timeline)).await;
        same.unwrap_or_else(|_| Err(self.session.silent(limit))).map_err(|refusal| {
            let hint = "the server's log says what happened; the set is no more than its filesystems are";
            Refusal { hint: refusal.hint.clone().or_else(|| Some(hint.to_owned())), ..refusal }
        })
    }

    async fn recover(start: &Start) -> Result<(), Refusal> {
        let settings = settings(start)?;
        let target = target::resolve(settings)?;
        let limit = earlier(start.timeout);
        // A server that cannot be reached has no session of this run.
        let session = match Session::connect(&target, "stillpoint", limit, IDLE_MARGIN).await {
            Ok(session) => session,
            Err(refusal) => {
                note(format!("nothing to release: {refusal}"));
                return Ok(());
            }
        };
        let of_this_run = format!("application_name = '{}' AND pid <> pg_backend_pid()", application(start));
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of_this_run}");
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE {of_this_run}");
        session.rows(&end).await?;
        // The whole is bounded from outside.
        while session.value(&left).await? != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Server {
    /// Quiesces it.
    async fn begin(&self, left: Duration) -> Result<Quiesced, Refusal> {
        self.session.limit(left).await?;
        let begun = Instant::now();
        match self.mode {
            PostgresqlMode::Checkpoint => {
                self.long("CHECKPOINT", "CHECKPOINT", begun, left).await?;
            }
            PostgresqlMode::Backup => {
                let sql = if self.session.version >= 15_00_00 {
                    format!("SELECT pg_backup_start('{}', true)", self.label)
                } else {
                    format!("SELECT pg_start_backup('{}', true, false)", self.label)
                };
                fact("start_lsn", self.long("the start of the backup", &sql, begun, left).await?);
            }
        }
        let (lsn, timeline) = self.position().await?;
        fact("redo_lsn", self.session.value("SELECT redo_lsn FROM pg_control_checkpoint()").await?);
        fact("lsn", lsn);
        fact("timeline", &timeline);
        Ok(Quiesced { timeline })
    }

    /// A statement that waits for the disks: its first value, or what it waited for.
    async fn long(&self, what: &str, sql: &str, begun: Instant, limit: Duration) -> Result<String, Refusal> {
        match self.session.long(sql).await {
            Ok(row) => Ok(row.map(|row| text(&row, 0)).unwrap_or_default()),
            Err(Long::Failed(refusal)) => Err(refusal),
            // The server counts whole milliseconds, and from a moment of its own.
            Err(Long::Cancelled) if begun.elapsed() + SPARE < limit => {
                Err(self.session.refusal(format!("has cancelled {what}: somebody asked it to")))
            }
            Err(Long::Cancelled) => Err(self.too_long(what, limit).await),
        }
    }

    async fn too_long(&self, what: &str, limit: Duration) -> Refusal {
        let asked = "SELECT coalesce(wait_event_type || ': ' || wait_event, '') FROM pg_stat_activity \
                     WHERE backend_type = 'checkpointer'";
        // Empty without pg_read_all_stats, and while it computes.
        let waits = self.session.value(asked).await.unwrap_or_default();
        let waits = if waits.is_empty() { String::new() } else { format!(" (it is at {waits})") };
        let limit = session::shown(limit);
        self.session
            .refusal(format!("did not finish {what} within {limit}: it waited for the checkpointer{waits}"))
            .hint(
                "its disks may be slow, or it has much to write: give it a longer `timeout`, or let it write more often \
                 (checkpoint_timeout, max_wal_size)",
            )
    }

    /// Up to where its WAL is safe, and on which timeline.
    async fn position(&self) -> Result<(String, String), Refusal> {
        let row = self
            .session
            .row(if self.instance.standby {
                "SELECT pg_last_wal_replay_lsn(), greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
                 (SELECT min_recovery_end_timeline FROM pg_control_recovery()))"
            } else {
                "SELECT pg_current_wal_flush_lsn(), \
                 ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
            })
            .await?;
        Ok((text(&row, 0), text(&row, 1)))
    }

    /// Releases it. An error unless it is the very session that began it, on a server that went on all the
    /// time.
    async fn same(&self, timeline: &str) -> Result<(), Refusal> {
        let lost = |why: &str| self.session.refusal(format!("was not quiesced all the time: {why}"));
        if self.session.closed() {
            return Err(lost("it has closed the connection"));
        }
        self.session.limit(earlier(self.timeout)).await?;
        let now = inspect::instance(&self.session).await?;
        if now.started != self.instance.started {
            return Err(lost("it was started again"));
        }
        if now.backend != self.instance.backend {
            return Err(lost("this is another session (a pooler in between?)")
                .hint("connect to the server itself, not to a pooler"));
        }
        if now.standby != self.instance.standby {
            return Err(lost("it was promoted"));
        }
        if self.mode == PostgresqlMode::Backup {
            self.stop().await?;
        }
        let (lsn, now) = self.position().await?;
        if now != timeline {
            return Err(lost(&format!("it went from timeline {timeline} to {now}")));
        }
        fact("lsn_after", lsn);
        Ok(())
    }

    async fn stop(&self) -> Result<(), Refusal> {
        // Not waited for the archive: that may take as long as it likes, and the label is needed now.
        let stopped = if self.session.version >= 15_00_00 {
            self.session.row("SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)").await?
        } else {
            self.session.row("SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)").await?
        };
        fact("stop_lsn", text(&stopped, 0));
        fact("backup_label", text(&stopped, 1));
        let map = text(&stopped, 2);
        if !map.is_empty() {
            fact("tablespace_map", map);
        }
        Ok(())
    }
}

/// Which database it is.
fn report(identity: &Identity, instance: &Instance) {
    let Identity { version, system, data, wal, config_file, tablespaces, temporary } = identity;
    fact("server_version", version);
    fact("system_identifier", system);
    fact("role", if instance.standby { "standby" } else { "primary" });
    fact("data_directory", data.display());
    fact("config_file", config_file);
    if let Some(wal) = wal {
        fact("wal_directory", wal.display());
    }
    if !temporary.is_empty() {
        fact("temporary_tablespaces", temporary.join("\n"));
    }
    if !tablespaces.is_empty() {
        fact("tablespaces", tablespaces.join("\n"));
    }
}

fn settings(start: &Start) -> Result<&Postgresql, Refusal> {
    match &start.kind {
        HookKind::Postgresql(settings) => Ok(settings),
        _ => Err(Refusal::new(format!("`{}` is no PostgreSQL", start.name))),
    }
}

/// The name of the session in the server's views, and of the backup: of this run, and no other's.
fn application(start: &Start) -> String {
    format!("stillpoint {}", start.run)
}

fn earlier(limit: Duration) -> Duration {
    limit - EARLIER.min(limit / 4)
}
