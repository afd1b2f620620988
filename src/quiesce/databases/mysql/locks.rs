//! Taking the locks in bounded time, several times over, and giving them back with proof that they were there
//! all the time.
//!
//! In: a connected server. Out: a [`Position`] that cannot move. Must never: leave a statement waiting that
//! nobody waits for any more: everybody else would queue up behind it.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::super::{Refusal, fact, note};
use super::session::{Failed, INTERRUPTED, LOCK_WAIT_TIMEOUT};
use super::{Server, blocker};

/// Between two tries, others get through.
const PAUSE: Duration = Duration::from_secs(1);
/// What the server gets beyond its own limit before the statement is killed.
const LATE: Duration = Duration::from_millis(300);

/// Whole seconds, at least one: the server's unit for lock waits.
pub(super) fn seconds(limit: Duration) -> u64 {
    let whole = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    whole.max(1)
}

/// Where the binary log ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// File and offset; none where there is no binary log.
    log: Option<(String, String)>,
    /// What is in it.
    gtid: Option<String>,
    /// MariaDB: what the server has executed, its own and its sources'.
    gtid_current: Option<String>,
}

impl Position {
    pub(super) fn facts(&self) {
        if let Some((file, offset)) = &self.log {
            fact("binlog_file", file);
            fact("binlog_position", offset);
        }
        for (key, value) in [("gtid", &self.gtid), ("gtid_current", &self.gtid_current)] {
            if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
                // gtid_executed has a line for each server.
                fact(key, value.replace(['\n', ' '], ""));
            }
        }
    }
}

impl Server {
    /// Takes the locks, in as many tries as the settings have.
    pub(super) async fn lock(&mut self) -> Result<(), Refusal> {
        let mut last = None;
        for number in 1..=self.settings.tries {
            let left = self.end.saturating_duration_since(Instant::now());
            if left < LATE {
                break;
            }
            match self.once(self.settings.lock_wait.min(left - LATE / 2)).await? {
                Ok(()) => {
                    fact("quiesced_by", self.lock.take().join(", "));
                    return Ok(());
                }
                Err(blocker) => {
                    note(format!("try {number} of {}: {blocker}", self.settings.tries));
                    last = Some((number, blocker));
                }
            }
            if number < self.settings.tries {
                sleep(PAUSE.min(self.end.saturating_duration_since(Instant::now()))).await;
            }
        }
        let (tries, blocker) = last.unwrap_or((0, "there was no time to try".to_owned()));
        let (wait, s) =
            (humantime::format_duration(self.settings.lock_wait), if tries == 1 { "y" } else { "ies" });
        Err(Refusal::new(format!("its locks were not to be had in {tries} tr{s} of {wait}: {blocker}")).hint(
            "run it when that query does not run, end it (KILL), or give the section more `tries` or a longer `lock_wait`",
        ))
    }

    /// One try. `Ok(Err)` says who was in the way; everything is given back then.
    async fn once(&mut self, limit: Duration) -> Result<Result<(), String>, Refusal> {
        let end = Instant::now() + limit;
        self.taken = true;
        for statement in self.lock.take() {
            let left = end.saturating_duration_since(Instant::now());
            let wait = format!("SET SESSION lock_wait_timeout = {}", seconds(left));
            self.locking.run(&wait).await.map_err(|e| self.locking.refusal(&wait, &e))?;
            self.waiting = true;
            let begun = self.begin(statement, left).await?;
            self.waiting = false;
            let Some((failed, blocker)) = begun else { continue };
            if !matches!(failed.code, Some(LOCK_WAIT_TIMEOUT | INTERRUPTED)) {
                return Err(self.locking.refusal(statement, &failed));
            }
            self.give_back().await.map_err(|e| self.locking.refusal("giving the locks back", &e))?;
            return Ok(Err(blocker.unwrap_or_else(|| "nobody can be named".to_owned())));
        }
        Ok(Ok(()))
    }

    /// One statement: none when it was given what it asked for, else why not and who was seen in the way.
    async fn begin(
        &mut self,
        statement: &str,
        limit: Duration,
    ) -> Result<Option<(Failed, Option<String>)>, Refusal> {
        let (locking, aside, flavour) = (&mut self.locking, &mut self.aside, self.flavour);
        let id = locking.id;
        let mut run = std::pin::pin!(locking.run(statement));
        // Looked at while it waits: afterwards the one in the way may be gone. A lock that is to be had takes
        // milliseconds.
        let early = limit.mul_f32(0.7);
        if let Ok(done) = timeout(early, &mut run).await {
            return Ok(done.err().map(|e| (e, None)));
        }
        let mut blocker = None;
        let looked = async {
            blocker = blocker::name(aside, id, flavour, early).await;
            sleep(limit.saturating_sub(early) + LATE).await;
        };
        let done = tokio::select! {
            done = &mut run => Some(done),
            () = looked => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                // FLUSH TABLES WITH READ LOCK waits several times, for each of its locks.
                let kill = format!("KILL QUERY {id}");
                aside.run(&kill).await.map_err(|e| aside.refusal(&kill, &e))?;
                run.await
            }
        };
        Ok(done.err().map(|e| (e, blocker)))
    }

    /// Gives back what was taken. Each statement is said whatever became of the one before.
    async fn give_back(&mut self) -> Result<(), Failed> {
        if !std::mem::take(&mut self.taken) {
            return Ok(());
        }
        let mut first = Ok(());
        for statement in self.lock.give_back() {
            let given = self.locking.run(statement).await;
            first = first.and(given);
        }
        match first {
            // It was not yet begun, or its begin has failed: there is nothing to end.
            Err(Failed { code: Some(NOT_BEGUN), .. }) if self.position.is_none() => Ok(()),
            given => given,
        }
    }

    /// The end of the binary log, as the connection with the locks sees it.
    pub(super) async fn position(&mut self) -> Result<Position, Refusal> {
        let mut position = Position::default();
        if self.variables.get("log_bin").is_some_and(|v| v == "ON") {
            let show = self.flavour.show_position();
            let row = self.locking.row(show).await.map_err(|e| self.locking.refusal(show, &e))?;
            position.log = row.and_then(|r| Some((r.get("File")?, r.get("Position")?)));
        }
        let query = if self.flavour.is_mariadb() {
            "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_current_pos"
        } else if self.variables.contains_key("gtid_mode") {
            "SELECT @@GLOBAL.gtid_executed"
        } else {
            return Ok(position);
        };
        let row = self.locking.row(query).await.map_err(|e| self.locking.refusal(query, &e))?;
        let at = |place: usize| row.as_ref().and_then(|r| r.at(place));
        (position.gtid, position.gtid_current) = (at(0), at(1));
        Ok(position)
    }

    /// Finds out whether the locks were there all the time, and gives them back in either case.
    pub(super) async fn unlock(&mut self) -> Result<(), Refusal> {
        if self.waiting {
            // Broken off in the middle of a statement, which the server does not know: it would wait on, with
            // others behind it.
            let kill = format!("KILL {}", self.locking.id);
            return self.aside.run(&kill).await.map_err(|e| self.aside.refusal(&kill, &e));
        }
        let moved = match &self.position {
            Some(before) => {
                let before = before.clone();
                self.position().await.map(|now| (now != before).then_some((before, now)))
            }
            None => Ok(None),
        };
        let given = self.give_back().await;
        let lost = |why: &str| {
            Refusal::new(format!("its locks were lost: {why}"))
                .hint("somebody ended the connection (KILL), or the server was restarted; see its error log")
        };
        match (moved, given) {
            (Err(refusal), _) => Err(lost(&refusal.what)),
            (Ok(Some((before, now))), _) => Err(Refusal::new(format!(
                "its binary log moved while it was quiesced, from {before} to {now}"
            ))),
            (Ok(None), Err(e)) if self.position.is_some() => Err(lost(&e.why)),
            (Ok(None), Err(e)) => Err(self.locking.refusal("giving the locks back", &e)),
            (Ok(None), Ok(())) => Ok(()),
        }
    }
}

/// BACKUP STAGE END without a stage.
const NOT_BEGUN: u16 = 4146;

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, offset) = self.log.as_ref().map_or(("no log", ""), |(f, o)| (f, o));
        write!(f, "{file} {offset} {}", self.gtid.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_waits_are_whole_seconds() {
        let of = |ms| seconds(Duration::from_millis(ms));
        assert_eq!((of(0), of(1), of(1000), of(1001), of(5000)), (1, 1, 1, 2, 5));
    }
}
