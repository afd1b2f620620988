//! Redis and Valkey.
//!
//! ```text
//! pause    no rewrite runs ─→ CLIENT PAUSE … WRITE ─→ the append-only file has it all
//!                          ─→ witness ─→ quiesced
//!          quiesced ─→ the same witness? ─→ CLIENT UNPAUSE
//! bgsave   no other child runs ─→ BGSAVE ─→ awaited ─→ quiesced, with nothing to release
//! ```
//!
//! What the pause is worth: a reply to CLIENT PAUSE is sent after the server has handed its buffer to
//! write(2), in the same turn of its event loop; `everysec` may put that off for two seconds, so INFO is
//! asked until the buffer is empty. From then on every acknowledged write is in the filesystem, and the
//! freeze puts it on the volume, whatever `appendfsync` says.
//!
//! In: its settings, the set. Out: facts, and a server that is quiesced. Must never: pause without an end of
//! the pause's own, or pause what it may not unpause.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use self::connection::{ConnectError, Connection};
use self::info::{Info, Witness};
use super::{Quiescer, Refusal, Start, fact, note};
use crate::config::settings::{HookKind, Redis, RedisMode};

mod files;
mod info;
pub(super) mod local;
mod connection;

/// How often the server is asked how far it is.
const POLL: Duration = Duration::from_millis(10);
/// How often while that takes long.
const SLOW_POLL: Duration = Duration::from_millis(100);
/// Longest wait for the append-only file while writers stand still. Redis puts a write off for two seconds at
/// most.
const DRAIN: Duration = Duration::from_secs(10);
/// What is kept of a timeout to say why it ran out.
const MARGIN: Duration = Duration::from_millis(300);

/// A connected server.
pub(super) struct Server {
    settings: Redis,
    connection: Connection,
    timeout: Duration,
    /// It has to be quiesced by then.
    deadline: Instant,
    /// When the pause ends by itself.
    limit: Duration,
    pause: Option<Pause>,
    /// Where the dump goes, for a fact.
    dump: Option<PathBuf>,
}

/// A pause that may be in force.
struct Pause {
    since: Instant,
    /// None until everything was on the disk.
    witness: Option<Witness>,
}

fn settings(start: &Start) -> Result<&Redis, Refusal> {
    match &start.kind {
        HookKind::Redis(settings) => Ok(settings),
        _ => Err(Refusal::new("not a [[redis]] section")),
    }
}

impl Quiescer for Server {
    async fn open(start: &Start) -> Result<Self, Refusal> {
        let deadline = Instant::now() + start.timeout.saturating_sub(MARGIN);
        let settings = settings(start)?.clone();
        let mut connection = Connection::open(&settings).await?;
        let info = connection.info().await?;
        let dump = match settings.mode {
            RedisMode::Pause => {
                pausable(&info, &connection.at)?;
                files::append_only(&mut connection, &info, &start.set).await?;
                None
            }
            RedisMode::Bgsave => {
                if info.flag("aof_enabled")? {
                    note(format!(
                        "{} has an append-only file: a server restored from this set starts from that, not from the dump; \
                         mode = \"pause\" is for both",
                        connection.at
                    ));
                }
                Some(files::dump(&mut connection, &info, &start.set).await?)
            }
        };
        let limit = settings.pause_limit.map_or(start.quiesce_limit, |limit| limit.min(start.quiesce_limit));
        Ok(Self { settings, connection, timeout: start.timeout, deadline, limit, pause: None, dump })
    }

    async fn quiesce(&mut self) -> Result<(), Refusal> {
        match self.settings.mode {
            RedisMode::Pause => self.pause().await,
            RedisMode::Bgsave => self.save().await,
        }
    }

    async fn release(&mut self) -> Result<(), Refusal> {
        // A dump that is whole stays whole: its successor replaces it by one rename.
        let Some(pause) = &self.pause else { return Ok(()) };
        let (since, before) = (pause.since, pause.witness.clone());
        // INFO is asked first, while nobody can have written yet. The pause is ended whatever comes of it,
        // also when the server does not answer.
        let info = timeout(self.timeout / 3, self.connection.info()).await;
        let elapsed = since.elapsed();
        self.connection.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        self.pause = None;
        let Some(before) = before else { return Ok(()) };
        let now = match info {
            Ok(info) => Witness::from_info(&info?)?,
            Err(_) => return Err(self.lost("it did not answer when the pause was to end")),
        };
        if let Some(moved) = before.moved(&now) {
            return Err(self
                .lost(&moved)
                .hint("something wrote although writes were paused: did somebody else run CLIENT UNPAUSE?"));
        }
        if elapsed >= self.limit {
            let limit = humantime::format_duration(self.limit);
            return Err(self.lost(&format!("the pause ended by itself after {limit}")));
        }
        Ok(())
    }

    async fn recover(start: &Start) -> Result<(), Refusal> {
        let settings = settings(start)?;
        if settings.mode != RedisMode::Pause {
            return Ok(());
        }
        match Connection::open(settings).await {
            Ok(mut connection) => connection.ask::<()>(&["CLIENT", "UNPAUSE"]).await,
            // A pause ends with its server.
            Err(ConnectError::NotRunning(_)) => Ok(()),
            Err(ConnectError::Refused(refusal)) => Err(refusal),
        }
    }
}

impl Server {
    fn lost(&self, why: &str) -> Refusal {
        Refusal::new(format!("{} was not quiesced all the time: {why}", self.connection.at))
    }

    async fn pause(&mut self) -> Result<(), Refusal> {
        // Before anybody is made to wait: until its first rewrite has ended, an append-only file that was
        // just switched on is none.
        self.until(self.deadline, "an append-only file rewrite to end", |info| {
            Ok(!info.flag("aof_rewrite_in_progress")? && !info.flag("aof_rewrite_scheduled")?)
        })
        .await?;
        // Whoever may not end a pause must not begin one.
        self.connection.ask::<()>(&["CLIENT", "UNPAUSE"]).await?;
        self.pause = Some(Pause { since: Instant::now(), witness: None });
        let limit = self.limit.as_millis().to_string();
        self.connection.ask::<()>(&["CLIENT", "PAUSE", &limit, "WRITE"]).await?;
        let drained = self.deadline.min(Instant::now() + DRAIN);
        let info = self
            .until(drained, "the append-only file to be written", |info| {
                match info.text("aof_last_write_status")? {
                    "ok" => {
                        Ok(info.number("aof_buffer_length")? == 0
                            && info.number("aof_pending_bio_fsync")? == 0)
                    }
                    other => Err(Refusal::new(format!(
                        "its last write to the append-only file ended in `{other}`"
                    ))
                    .hint("see its log, and whether its filesystem is full")),
                }
            })
            .await?;
        // It may have become a replica, or lost its append-only file, since it was info at.
        pausable(&info, &self.connection.at)?;
        let witness = Witness::from_info(&info)?;
        if let Some(pause) = &mut self.pause {
            pause.witness = Some(witness);
        }
        self.facts(&info)
    }

    async fn save(&mut self) -> Result<(), Refusal> {
        const BGSAVE: &[&str] = &["BGSAVE"];
        let before = loop {
            self.until(self.deadline, "another dump or rewrite to end", |info| {
                Ok(!info.flag("rdb_bgsave_in_progress")? && !info.flag("aof_rewrite_in_progress")?)
            })
            .await?;
            let time: Vec<String> = self.connection.ask(&["TIME"]).await?;
            match self.connection.raw::<String>(BGSAVE).await {
                Ok(_) => break time.first().and_then(|t| t.parse::<u64>().ok()).unwrap_or(u64::MAX),
                // Somebody else's began in between.
                Err(e)
                    if e.detail()
                        .is_some_and(|d| d.contains("in progress") || d.contains("child process")) =>
                {
                    sleep(SLOW_POLL).await;
                }
                Err(e) => return Err(self.connection.explain(&e, BGSAVE)),
            }
        };
        let info = self
            .until(self.deadline, "BGSAVE to end", |info| Ok(!info.flag("rdb_bgsave_in_progress")?))
            .await?;
        let status = info.text("rdb_last_bgsave_status")?;
        if status != "ok" || info.number("rdb_last_save_time")? < before {
            return Err(Refusal::new(format!(
                "BGSAVE of {} failed: its status is `{status}`",
                self.connection.at
            ))
            .hint("see the server's log: memory for the fork (vm.overcommit_memory), space on the volume"));
        }
        if let Some(dump) = &self.dump {
            fact("dump", dump.display());
        }
        fact("dump_time", info.number("rdb_last_save_time")?);
        self.facts(&info)
    }

    fn facts(&self, info: &Info) -> Result<(), Refusal> {
        let (server, version) = info.server()?;
        fact("server", server);
        fact("version", version);
        fact("mode", if self.settings.mode == RedisMode::Pause { "pause" } else { "bgsave" });
        fact("role", info.text("role")?);
        fact("run_id", info.text("run_id")?);
        fact("replication_id", info.text("master_replid")?);
        fact("offset", info.number("master_repl_offset")?);
        fact("keys", info.keys());
        Ok(())
    }

    /// Asks until it is so.
    async fn until(
        &mut self,
        end: Instant,
        what: &str,
        done: impl Fn(&Info) -> Result<bool, Refusal>,
    ) -> Result<Info, Refusal> {
        let begun = Instant::now();
        loop {
            let info = self.connection.info().await?;
            if done(&info)? {
                return Ok(info);
            }
            if Instant::now() >= end {
                let waited = humantime::format_duration(Duration::from_millis(
                    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                ));
                return Err(Refusal::new(format!(
                    "{} was waited for for {waited}: {what}",
                    self.connection.at
                ))
                .hint("run again later, or give it a longer `timeout`"));
            }
            sleep(if begun.elapsed() < Duration::from_secs(1) { POLL } else { SLOW_POLL }).await;
        }
    }
}

/// Would a pause quiesce this server, and is what it writes complete then?
fn pausable(info: &Info, at: &str) -> Result<(), Refusal> {
    let (_, version) = info.server()?;
    if info.compatible()? < (6, 2) {
        return Err(Refusal::new(format!("{at} is version {version}: CLIENT PAUSE … WRITE came with 6.2"))
            .hint("use mode = \"bgsave\""));
    }
    if info.text("role")? != "master" {
        let of = format!("{}:{}", info.text("master_host")?, info.text("master_port")?);
        return Err(Refusal::new(format!(
            "{at} is a replica of {of}: a pause would not stop what it is sent"
        ))
        .hint("take the set where the primary runs, or use mode = \"bgsave\""));
    }
    if !info.flag("aof_enabled")? {
        return Err(Refusal::new(format!(
            "{at} has no append-only file: writes since its last dump are on no disk"
        ))
        .hint("use mode = \"bgsave\", or switch `appendonly` on"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_without_a_pause_of_writes_are_refused() {
        let told = |version: &str| {
            let info = Info::parse(&format!("redis_version:{version}\nrole:master\naof_enabled:1\n"));
            pausable(&info, "here").map_err(|r| (r.what, r.hint.unwrap_or_default()))
        };
        for version in ["6.2.0", "7.0.15", "8.0.0"] {
            assert_eq!(told(version), Ok(()), "{version}");
        }
        for version in ["6.0.16", "5.0.14", "2.8"] {
            let (what, hint) = told(version).unwrap_err();
            assert!(
                what.contains(version) && what.contains("6.2") && hint.contains("bgsave"),
                "{what}\n{hint}"
            );
        }
    }
}
