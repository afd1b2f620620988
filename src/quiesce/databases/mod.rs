//! The process that keeps one database quiesced: connected before the freeze, told to release it after the
//! thaw, gone with the agent.
//!
//! ```text
//! agent                      this process
//!   └ Start (a line, JSON) ─→ open: connect, look, refuse what could not be quiesced ─┐ bounded by
//!                             quiesce                                                ─┘ `timeout`
//!                          ←─ fact KEY VALUE …, ready
//!     … unmount, flush, freeze, the call, thaw: nothing is said …
//!     `thaw`, or the end ──→ release: was it quiesced all the time?
//!                          ←─ fact KEY VALUE …; exit 0
//! ```
//!
//! In: a [`Start`] on standard input. Out: lines of the session protocol on standard output
//! ([`super::protocol`]); exit 0 when all went well. The end of standard input, SIGTERM and
//! `quiesce_limit` all mean: release it now. Must never: write a password anywhere, do anything at all while
//! the agent has filesystems frozen, or outlive the agent with something quiesced.

use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::config::settings::HookKind;
use crate::ids::RunId;
use crate::quiesce::environment::SetMount;

mod agent;
mod containment;
mod mongodb;
mod mysql;
mod postgresql;
pub mod program;
mod redis;
pub mod running;
pub mod sections;
pub mod server;

/// What both programs have to agree on.
const BUILD: &str = crate::build::ID;

/// What the process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Connect, look, say what would be refused; nothing is changed.
    Check,
    /// Quiesce it until told.
    Quiesce,
    /// Undo what a process that was killed may have left; it must be right when nothing was left.
    Recover,
}

/// The first line on standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// The agent's build: both programs are to be of one.
    pub build: String,
    /// What to do.
    pub task: Task,
    /// The hook's name.
    pub name: String,
    /// The run.
    pub run: RunId,
    /// A database.
    pub kind: HookKind,
    /// The filesystems of the set.
    pub set: Vec<SetMount>,
    /// Longest time until it is quiesced, and again until it is released.
    #[serde(with = "crate::config::hooks::duration")]
    pub timeout: Duration,
    /// Longest time it may stay quiesced: if the agent is stopped, nobody else ends that.
    #[serde(with = "crate::config::hooks::duration")]
    pub quiesce_limit: Duration,
}

/// Why it cannot be quiesced, or was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What failed, on which server, and why.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// Without a hint.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// With one.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// One kind of database. Everything is bounded from outside; dropping a future must leave nothing but what
/// [`Quiescer::release`] or the end of the connection undoes.
pub(super) trait Quiescer: Sized {
    /// Connects and looks. Refuses what could not be quiesced; changes nothing.
    fn open(start: &Start) -> impl Future<Output = Result<Self, Refusal>>;

    /// Quiesces it. On an error, [`Quiescer::release`] is called all the same.
    fn quiesce(&mut self) -> impl Future<Output = Result<(), Refusal>>;

    /// Releases whatever may be quiesced. An error when it was not quiesced all the time, or cannot be
    /// released.
    fn release(&mut self) -> impl Future<Output = Result<(), Refusal>>;

    /// Undoes what a process that was killed may have left.
    fn recover(start: &Start) -> impl Future<Output = Result<(), Refusal>>;
}

/// Says a fact about the set, which goes into its record and tags: a position, an identity. Never a secret.
pub(super) fn fact(key: &str, value: impl fmt::Display) {
    send("fact", &format!("{key} {}", super::protocol::escaped(&value.to_string())));
}

/// Says something for the log.
pub(super) fn note(text: impl fmt::Display) {
    send("note", &text.to_string().replace('\n', " "));
}

fn send(word: &str, rest: &str) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell; the end of standard input says so too.
    let _ = writeln!(out, "{word} {rest}").and_then(|()| out.flush());
}

/// The whole process.
#[must_use]
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(serve()),
        Err(e) => Err(Refusal::new(format!("cannot start: {e}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            if let Some(hint) = &refusal.hint {
                send("hint", &hint.replace('\n', " "));
            }
            send("failed", &refusal.what.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// What the agent says after the first line.
struct Agent {
    lines: tokio::io::Lines<BufReader<pipe::Receiver>>,
    terminated: tokio::signal::unix::Signal,
}

impl Agent {
    /// Returns when it is time to release it.
    async fn release_requested(&mut self) {
        tokio::select! {
            // A line, the end of input or an error: each means that the agent does not want it quiesced any
            // longer.
            _ = self.lines.next_line() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

async fn serve() -> Result<(), Refusal> {
    // SIGINT comes to the agent's group, which this process is not in; SIGTERM comes from the agent.
    let terminated =
        signal(SignalKind::terminate()).map_err(|e| Refusal::new(format!("cannot listen: {e}")))?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
    let stdin = stdin.map_err(|e| Refusal::new(format!("standard input is no pipe: {e}")))?;
    let mut lines = BufReader::new(stdin).lines();
    let first = lines.next_line().await.ok().flatten().unwrap_or_default();
    let start = order(&first)?;
    let agent = Agent { lines, terminated };
    match &start.kind {
        HookKind::Postgresql(_) => run::<postgresql::Server>(&start, agent).await,
        HookKind::Mysql(_) => run::<mysql::Server>(&start, agent).await,
        HookKind::Redis(_) => run::<redis::Server>(&start, agent).await,
        _ => Err(Refusal::new(format!("`{}` is no database", start.name))),
    }
}

/// The order in the first line, from a stillpoint of this build.
fn order(line: &str) -> Result<Start, Refusal> {
    #[derive(Deserialize)]
    struct Build {
        build: String,
    }
    // The build first: another one may have other fields.
    match serde_json::from_str(line).map(|Build { build }| build) {
        Ok(build) if build != BUILD => {
            let what = format!("{} is {BUILD}, and stillpoint is {build}", program::NAME);
            Err(Refusal::new(what).hint(
                "install both from the same build; if the package was upgraded during this run, run it again",
            ))
        }
        _ => serde_json::from_str(line).map_err(|e| Refusal::new(format!("no order: {e}"))),
    }
}

/// The life of one of these processes.
async fn run<Q: Quiescer>(start: &Start, mut agent: Agent) -> Result<(), Refusal> {
    if start.task == Task::Recover {
        return bounded(start.timeout, Q::recover(start)).await;
    }
    let begun = tokio::time::Instant::now();
    let mut quiescer = tokio::select! {
        opened = bounded(start.timeout, Q::open(start)) => opened?,
        () = agent.release_requested() => return Err(Refusal::new("told to stop before it was connected")),
    };
    if start.task == Task::Check {
        return Ok(());
    }
    let left = start.timeout.saturating_sub(begun.elapsed());
    let quiesced = tokio::select! {
        quiesced = bounded(left, quiescer.quiesce()) => quiesced,
        () = agent.release_requested() => Err(Refusal::new("told to stop before it was quiesced")),
    };
    if let Err(refusal) = quiesced {
        if let Err(e) = bounded(start.timeout, quiescer.release()).await {
            note(format!("cannot release it: {e}"));
        }
        return Err(refusal);
    }
    send("ready", "");
    let in_time = timeout(start.quiesce_limit, agent.release_requested()).await.is_ok();
    // ---- from `ready` to here nothing is done ----
    bounded(start.timeout, quiescer.release()).await?;
    if in_time {
        Ok(())
    } else {
        let limit = humantime::format_duration(start.quiesce_limit);
        Err(Refusal::new(format!("released by itself after {limit}: the agent did not ask")))
    }
}

async fn bounded<T>(limit: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Refusal::new(format!("did not answer within {}", humantime::format_duration(limit)))
            .hint("see what the server waits for, or give it a longer `timeout`"))
    })
}

/// Becomes this system user for good: peer and socket authentication go by the user of the process.
///
/// # Errors
/// As [`super::user::become_user`].
pub(super) fn become_user(name: &str) -> Result<(), Refusal> {
    super::user::become_user(name).map_err(|e| Refusal::new(e.to_string()).hint(e.hint()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_another_build_is_refused_by_its_build() {
        let refusal = order("{\"build\":\"0.0.9\",\"with\":\"other fields\"}").unwrap_err();
        assert!(refusal.what.contains(BUILD) && refusal.what.contains("0.0.9"), "{refusal}");
        assert!(refusal.hint.unwrap().contains("same build"));
        let refusal = order(&format!("{{\"build\":\"{BUILD}\"}}")).unwrap_err();
        assert!(refusal.what.starts_with("no order"), "{refusal}");
        assert!(order("").unwrap_err().what.starts_with("no order"));
    }
}
