//! The agent's side of a session: a process that keeps an application quiesced across the window.
//!
//! ```text
//! start ─→ lines … `ready` ─→ quiesced ─→ … the window: nothing is read … ─→ `thaw`, stdin closed ─→ exit 0
//!   │                                                                     ├ had ended before: lost
//!   └ ends, `failed WHY`, timeout, cancel: not quiesced                   └ not 0, timeout: killed, lost
//! ```
//!
//! What it says is in [`super::protocol`].
//!
//! In: argv, user, environment, a first line for standard input. Out: a [`Session`] that keeps it quiesced,
//! then a [`HookOutcome`]. Must never: call one quiesced whose process had ended, or signal one that was not
//! first given the end of its standard input.

use std::future::Future;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::{sleep, timeout};

use super::outcome::{HookOutcome, HookStatus, Phase};
use super::process::{self, DRAIN, Group, Output, Program};
use super::protocol::Messages;

/// A process that keeps an application quiesced.
#[derive(Debug)]
#[must_use = "an application is quiesced until it is released"]
pub struct Session {
    name: String,
    child: Child,
    group: Group,
    output: Output,
    stdin: Option<ChildStdin>,
}

/// Starts a session and waits until it is ready. `first` is written to its standard input at once; its
/// process id is `noted` before.
pub async fn start(
    name: &str,
    program: Program<'_>,
    first: Option<&str>,
    limit: Duration,
    noted: impl FnOnce(u32),
    cancel: impl Future<Output = ()>,
) -> (HookOutcome, Option<Session>) {
    let started = Instant::now();
    let outcome = |status, output| HookOutcome::new(name, Phase::Pre, status, started.elapsed(), output);
    let mut session = match spawn(name, program) {
        Ok(session) => session,
        Err(e) => return (outcome(HookStatus::NotStarted(e.to_string()), String::new()), None),
    };
    if let Some(pid) = session.pid() {
        noted(pid);
    }
    let begun = async {
        session.send(first).await;
        session.output.until_ready().await;
    };
    let stopped = tokio::select! {
        () = begun => None,
        () = sleep(limit) => Some(HookStatus::TimedOut),
        () = cancel => Some(HookStatus::Cancelled),
    };
    let messages = session.output.messages().cloned().unwrap_or_default();
    let with = |outcome: HookOutcome, messages: Messages| HookOutcome {
        facts: messages.facts,
        hint: messages.hint,
        ..outcome
    };
    if stopped.is_none() && messages.ready {
        return (with(outcome(HookStatus::Ok, String::new()), messages), Some(session));
    }
    // It closed its output without `ready`, or it has to be stopped.
    let closed = stopped.is_none();
    let (status, output) = session.end(stopped).await;
    let messages = session.output.messages().cloned().unwrap_or_default();
    let status = match (status, &messages.failed) {
        (HookStatus::Failed(_), Some(why)) => HookStatus::Refused(why.clone()),
        (HookStatus::Ok, _) => HookStatus::Refused("its process ended without a word".to_owned()),
        (HookStatus::TimedOut, _) if closed => {
            HookStatus::Refused("it closed its output before it was ready".to_owned())
        }
        (status, _) => status,
    };
    (with(outcome(status, output), messages), None)
}

/// Runs a session's program that is not to quiesce: it says what it finds, and ends.
pub async fn run(
    name: &str,
    phase: Phase,
    program: Program<'_>,
    first: &str,
    limit: Duration,
) -> HookOutcome {
    let started = Instant::now();
    let mut session = match spawn(name, program) {
        Ok(session) => session,
        Err(e) => {
            let status = HookStatus::NotStarted(e.to_string());
            return HookOutcome::new(name, phase, status, started.elapsed(), String::new());
        }
    };
    session.send(Some(first)).await;
    session.finish(phase, started, limit).await
}

fn spawn(name: &str, program: Program<'_>) -> io::Result<Session> {
    let (mut child, group, mut output) = process::start(name, program, Stdio::piped())?;
    output.listen();
    let stdin = child.stdin.take();
    Ok(Session { name: name.to_owned(), child, group, output, stdin })
}

impl Session {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells it to release, and waits for its end.
    pub async fn release(mut self, limit: Duration) -> HookOutcome {
        let started = Instant::now();
        // Looked at before it is told: what ended by itself quiesced nothing at the end.
        let ended = !matches!(self.child.try_wait(), Ok(None));
        if !ended {
            self.send(Some("thaw")).await;
        }
        self.stdin = None;
        let mut outcome = self.finish(Phase::Post, started, limit).await;
        if ended && outcome.succeeded() {
            let why = "its process ended before it was told to release".to_owned();
            outcome.status = HookStatus::Refused(why);
        }
        outcome.lost = !outcome.succeeded();
        outcome
    }

    async fn finish(&mut self, phase: Phase, started: Instant, limit: Duration) -> HookOutcome {
        let ended = timeout(limit, self.output.while_waiting(self.child.wait())).await;
        let (status, output) = match ended {
            Ok(exit) => {
                // A child that it left behind may be what has the lock.
                process::stop(&mut self.child, &mut self.group, &mut self.output).await;
                let _ = timeout(DRAIN, self.output.drain()).await;
                (process::status_of(exit), self.output.finish())
            }
            Err(_) => self.end(Some(HookStatus::TimedOut)).await,
        };
        let messages = self.output.messages().cloned().unwrap_or_default();
        let status = match (status, messages.failed) {
            (HookStatus::Failed(_), Some(why)) => HookStatus::Refused(why),
            (status, _) => status,
        };
        let facts = messages.facts;
        HookOutcome {
            facts,
            hint: messages.hint,
            ..HookOutcome::new(&self.name, phase, status, started.elapsed(), output)
        }
    }

    /// Waits for its end. With `stopped`, ends it first by signals.
    async fn end(&mut self, stopped: Option<HookStatus>) -> (HookStatus, String) {
        self.stdin = None;
        let stopped = match stopped {
            // It has closed its output, so it should end soon.
            None => timeout(process::GRACE, self.child.wait())
                .await
                .map(process::status_of)
                .map_err(|_| HookStatus::TimedOut),
            // Closing its standard input first lets it clean up before a signal comes.
            Some(stopped) => {
                let _ = timeout(process::GRACE, self.output.while_waiting(self.child.wait())).await;
                Err(stopped)
            }
        };
        let status = match stopped {
            Ok(status) | Err(status) => status,
        };
        process::stop(&mut self.child, &mut self.group, &mut self.output).await;
        let _ = timeout(DRAIN, self.output.drain()).await;
        (status, self.output.finish())
    }

    /// Writes a line. A failure is ignored, because the way in which the process ends shows it.
    async fn send(&mut self, line: Option<&str>) {
        let (Some(stdin), Some(line)) = (&mut self.stdin, line) else { return };
        // A pipe takes 64 KiB: only a process that reads nothing at all could keep this waiting, and only for
        // a longer line.
        let _ = timeout(process::GRACE, stdin.write_all(format!("{line}\n").as_bytes())).await;
    }
}

/// Not killed: a panic of the agent drops it, and it has to see the end of its standard input and release.
/// One that does not is ended by the recovery, from the journal.
impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        self.group.release();
    }
}
