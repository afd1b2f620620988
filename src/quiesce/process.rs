//! One command with a timeout: started, listened to, and gone in time with all its children.
//!
//! ```text
//! spawn ─→ exit ─→ drain ─→ Ok | Failed
//!   │        └ children that it leaves behind are left alone
//!   └─→ timeout | cancel ─→ SIGTERM to the group ─→ GRACE ─→ SIGKILL to the group
//!                        ─→ TimedOut | Cancelled
//! dropped: SIGKILL to the group
//! ```
//!
//! In: argv, the user, the whole environment, a timeout. Out: a [`HookOutcome`]. Must never: wait without a
//! limit, not for the process (it may hang in the kernel) and not for its output (a child may keep the pipe
//! open).

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::outcome::{Exit, HookOutcome, HookStatus, Phase};
use super::protocol::Messages;
use super::user;
use crate::host::kernel::begin_own_session;
use crate::host::process::{oom_score, set_oom_score};

/// How long a group has between SIGTERM and SIGKILL, and how long SIGKILL is waited for.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long the rest of the output is waited for once the command has ended.
pub const DRAIN: Duration = Duration::from_millis(500);
/// How much of the output is kept.
pub const TAIL: usize = 4096;
/// The longest line of a session that is read as one: a tablespace map has a line for each tablespace.
const LONGEST_FACT: usize = 64 * 1024;

/// How the wait for a command ended.
enum WaitOutcome {
    Exited(io::Result<ExitStatus>),
    Stopped(HookStatus),
}

/// A program, who it runs as, and its whole environment.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Program and arguments.
    pub argv: &'a [String],
    /// The user's name; none means this process's own.
    pub user: Option<&'a str>,
    /// All of it.
    pub vars: &'a [(String, OsString)],
}

/// Runs one command. It has this as its standard input. What it prints is logged under this name, unless that is empty.
pub async fn run(
    name: &str,
    phase: Phase,
    program: Program<'_>,
    stdin: Stdio,
    limit: Duration,
    cancel: impl Future<Output = ()>,
) -> HookOutcome {
    let started = Instant::now();
    let outcome = |status, output| HookOutcome::new(name, phase, status, started.elapsed(), output);
    let (mut child, mut group, mut output) = match start(name, program, stdin) {
        Ok(running) => running,
        Err(e) => return outcome(HookStatus::NotStarted(e.to_string()), String::new()),
    };
    let ended = tokio::select! {
        exit = output.while_waiting(child.wait()) => WaitOutcome::Exited(exit),
        () = sleep(limit) => WaitOutcome::Stopped(HookStatus::TimedOut),
        () = cancel => WaitOutcome::Stopped(HookStatus::Cancelled),
    };
    let status = match ended {
        WaitOutcome::Exited(exit) => {
            group.release();
            status_of(exit)
        }
        WaitOutcome::Stopped(status) => {
            stop(&mut child, &mut group, &mut output).await;
            status
        }
    };
    // A child of the command may keep the pipe open for as long as it likes.
    let _ = timeout(DRAIN, output.drain()).await;
    let printed = output.finish();
    output.leave_open();
    outcome(status, printed)
}

/// Reading ends of pipes that children left behind still write to. Nobody reads them, but a child that has
/// a lock until the post command tells it must not die of a word on standard error before it has cleaned up
/// (qemu's mysql-flush under dash).
static LEFT_OPEN: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// What an exit status means.
pub(super) fn status_of(exit: io::Result<ExitStatus>) -> HookStatus {
    match exit.map(|status| (status.code(), status.signal())) {
        Ok((Some(0), _)) => HookStatus::Ok,
        Ok((Some(code), _)) => HookStatus::Failed(Exit::Code(code)),
        Ok((None, signal)) => HookStatus::Failed(Exit::Signal(signal.unwrap_or_default())),
        // Its exit status was lost. It ran, and nothing says that it did well.
        Err(_) => HookStatus::Failed(Exit::Code(-1)),
    }
}

/// Starts it in a session of its own.
pub(super) fn start(name: &str, program: Program<'_>, stdin: Stdio) -> io::Result<(Child, Group, Output)> {
    let as_user = program.user.map(|user| user::argv(user, program.argv));
    let argv = as_user.as_deref().unwrap_or(program.argv);
    let (program_file, arguments) =
        argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty argv"))?;
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = io::pipe()?;
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let mut command = Command::new(program_file);
    command
        .args(arguments)
        .env_clear()
        .envs(program.vars.iter().map(|(k, v)| (k, v)))
        .current_dir("/")
        .stdin(stdin)
        .stdout(writer.try_clone()?)
        .stderr(writer);
    // The session's process group is what gets killed.
    begin_own_session(command.as_std_mut(), Mode::from_bits_truncate(0o022));
    let child = command.spawn()?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    group.ordinary_oom_score(oom_score("self").unwrap_or_default());
    Ok((child, group, Output::new(name, reader)))
    // `command` and with it the writing end are dropped here: the end of the output can be seen.
}

/// SIGTERM to the group, [`GRACE`], SIGKILL.
pub(super) async fn stop(child: &mut Child, group: &mut Group, output: &mut Output) {
    group.signal(Signal::SIGTERM);
    if timeout(GRACE, output.while_waiting(group.gone(child))).await.is_err() {
        group.signal(Signal::SIGKILL);
        // A process that hangs in the kernel does not even die of SIGKILL; the run has to go on.
        let _ = timeout(GRACE, output.while_waiting(group.gone(child))).await;
    }
    group.release();
}

/// A process group that is killed when it is dropped, until it is released.
///
/// Its id cannot belong to anybody else while its leader has not been waited for, or any member lives. In the
/// moment between the two the kernel would have to hand out every other process id first.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    /// Sends a signal to all of it; a group that is gone is fine.
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.0 {
            let _ = killpg(id, signal);
        }
    }

    /// Leaves it alone from now on.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }

    /// Waits until the leader and all others are gone.
    async fn gone(&self, child: &mut Child) {
        let _ = child.wait().await;
        while self.0.is_some_and(|id| killpg(id, None) != Err(Errno::ESRCH)) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// stillpoint asks the kernel to be the last one killed when memory runs out; a command, and a database
    /// that it may start, must not inherit that. `own` is stillpoint's score. Best effort: nothing depends on
    /// it.
    fn ordinary_oom_score(&self, own: i32) {
        if let (Some(id), true) = (self.0, own < 0) {
            let _ = set_oom_score(&id.to_string(), 0);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// What a command prints: forwarded by lines, and the end of it kept.
#[derive(Debug)]
pub(super) struct Output {
    hook: String,
    reader: Option<pipe::Receiver>,
    line: Vec<u8>,
    tail: Vec<u8>,
    /// What a session sent in the words of its protocol. None where there is no protocol.
    messages: Option<Messages>,
}

impl Output {
    fn new(hook: &str, reader: pipe::Receiver) -> Self {
        Self {
            hook: hook.to_owned(),
            reader: Some(reader),
            line: Vec::new(),
            tail: Vec::new(),
            messages: None,
        }
    }

    /// From now on lines of the session protocol are taken out of the output.
    pub(super) fn listen(&mut self) {
        self.messages = Some(Messages::default());
    }

    /// What was said so far.
    pub(super) fn messages(&self) -> Option<&Messages> {
        self.messages.as_ref()
    }

    /// Reads until it is ready, or nobody writes any more.
    pub(super) async fn until_ready(&mut self) {
        while self.reader.is_some() && !self.messages.as_ref().is_some_and(|s| s.ready) {
            self.read().await;
        }
    }

    /// Reads on until `until` completes.
    pub(super) async fn while_waiting<T>(&mut self, until: impl Future<Output = T>) -> T {
        tokio::pin!(until);
        loop {
            tokio::select! {
                done = &mut until => return done,
                () = self.read(), if self.reader.is_some() => {}
            }
        }
    }

    /// Reads until nobody has the writing end any more.
    pub(super) async fn drain(&mut self) {
        while self.reader.is_some() {
            self.read().await;
        }
    }

    /// Reads once. Dropping this future loses nothing.
    async fn read(&mut self) {
        let mut buffer = [0; TAIL];
        let Some(reader) = &mut self.reader else { return };
        match reader.read(&mut buffer).await {
            Ok(n) if n > 0 => self.take(&buffer[..n]),
            _ => self.reader = None,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        // Of a session only what is not its protocol is kept, line by line.
        if self.messages.is_none() {
            self.keep(bytes);
        }
        for byte in bytes {
            if *byte == b'\n' {
                self.forward();
            } else {
                self.line.push(*byte);
                // A line without an end must not grow without one.
                if self.line.len() >= if self.messages.is_some() { LONGEST_FACT } else { TAIL } {
                    self.forward();
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let too_much = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..too_much);
    }

    fn forward(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if self.messages.as_mut().is_some_and(|messages| messages.take(text.trim_end())) {
            return;
        }
        if self.messages.is_some() {
            self.keep(&line);
            self.keep(b"\n");
        }
        if !self.hook.is_empty() {
            // A tab does no harm, and programs print it; the log would escape it.
            tracing::info!(hook = self.hook, "{}", text.trim_end().replace('\t', "    "));
        }
    }

    /// Until the end of this process, where somebody still has the writing end.
    fn leave_open(&mut self) {
        let fd = self.reader.take().and_then(|reader| reader.into_nonblocking_fd().ok());
        LEFT_OPEN.lock().unwrap_or_else(PoisonError::into_inner).extend(fd);
    }

    pub(super) fn finish(&mut self) -> String {
        if !self.line.is_empty() {
            self.forward();
        }
        String::from_utf8_lossy(&self.tail).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_protected_oom_score_is_taken_back() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let id = child.id().to_string();
        // Raising it takes no privilege, and shows as well as lowering which score was set.
        set_oom_score(&id, 300).unwrap();
        let group = std::mem::ManuallyDrop::new(Group(i32::try_from(child.id()).ok().map(Pid::from_raw)));
        group.ordinary_oom_score(0);
        let kept = oom_score(&id).unwrap();
        group.ordinary_oom_score(-1000);
        let taken_back = oom_score(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((kept, taken_back), (300, 0));
    }
}
