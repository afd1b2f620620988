//! The process that opens devices and follows paths.
//!
//! In: questions on its standard input, as JSON. Out: answers on its standard output, a line each, as they
//! come. Must never: wait in the calling process for longer than the limit.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Answer, Inspect, Question, answer};
use crate::host::{kernel, thread};

/// The hidden first argument that makes this binary the helper.
pub const ARGUMENT: &str = "__inspect";
/// A question needs less than this.
const STACK: usize = 512 << 10;

/// This binary, started again to answer.
#[derive(Debug, Clone)]
pub struct Helper {
    program: PathBuf,
    limit: Duration,
}

impl Helper {
    /// How long answers are waited for before a plan is made.
    pub const PLANNING: Duration = Duration::from_secs(5);
    /// How long a mount may take, with the check of the filesystem before it: systemd gives it as long.
    pub const MOUNTING: Duration = Duration::from_secs(90);
    /// How long while applications are held: for what came up since the plan was made.
    pub const HOLDING: Duration = Duration::from_secs(2);

    /// By the path of the program, with the longest time to wait.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, limit: Duration) -> Self {
        Self { program: program.into(), limit }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// This program itself, whatever its file is called by now.
    #[must_use]
    pub fn own() -> Self {
        Self::new("/proc/self/exe", Self::PLANNING)
    }
}

/// What the thread that waits for the process reports.
enum Heard {
    Started(i32),
    Answer(usize, Answer),
}

impl Inspect for Helper {
    fn ask(&self, questions: &[Question]) -> Vec<Option<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
        let end = Instant::now() + self.limit;
        let Ok(input) = written(questions) else { return answers };
        let (tell, heard) = channel();
        let program = self.program.clone();
        // In a thread, since the start of a process may hang as well: at the open of its program.
        if thread::start("inspect", move || listen(&program, input, &tell)).is_err() {
            return answers;
        }
        let process = collect(&heard, end, &mut answers);
        if let Some(pid) = process.filter(|_| answers.iter().any(Option::is_none)) {
            // In state D it ends once the device answers. Its reader is the thread, which ends with it.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        answers
    }
}

/// The questions in memory: a pipe would have to be emptied by a process that may hang.
fn written(questions: &[Question]) -> std::io::Result<OwnedFd> {
    Ok(kernel::memory_file_of(c"questions", &serde_json::to_vec(questions)?)?.into())
}

fn listen(program: &Path, input: OwnedFd, tell: &Sender<Heard>) {
    let started = Command::new(program)
        .arg(OsStr::new(ARGUMENT))
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return };
    let _ = tell.send(Heard::Started(i32::try_from(child.id()).unwrap_or_default()));
    for line in child.stdout.take().into_iter().flat_map(|o| BufReader::new(o).split(b'\n')) {
        let Some((at, answer)) = line.ok().and_then(|l| serde_json::from_slice(&l).ok()) else { break };
        let _ = tell.send(Heard::Answer(at, answer));
    }
    let _ = child.wait();
}

/// Takes in answers until all are there, the process ends or the time is over. Returns the process.
fn collect(heard: &Receiver<Heard>, end: Instant, answers: &mut [Option<Answer>]) -> Option<i32> {
    let mut process = None;
    while answers.iter().any(Option::is_none) {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Heard::Started(pid)) => process = Some(pid).filter(|pid| *pid > 0),
            Ok(Heard::Answer(at, answer)) => {
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
            // The thread has waited for the process: its id may be another's by now.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break,
        }
    }
    process
}

/// The whole life of the helper.
#[must_use]
pub fn main() -> ExitCode {
    // Whoever asked may die before it can end this process. Else what waits here, for an automount perhaps,
    // would keep the mounts of its namespace.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let mut input = Vec::new();
    let read = std::io::stdin().read_to_end(&mut input).ok();
    let Some(questions) = read.and_then(|_| serde_json::from_slice::<Vec<Question>>(&input).ok()) else {
        return ExitCode::FAILURE;
    };
    let (tell, answers) = channel();
    for (at, question) in questions.into_iter().enumerate() {
        let tell = tell.clone();
        // One thread a question: one that hangs keeps no other from its answer.
        let thread = std::thread::Builder::new().stack_size(STACK);
        let started = thread.spawn(move || tell.send((at, answer::answer(Path::new("/"), &question))));
        if started.is_err() {
            break;
        }
    }
    drop(tell);
    for answer in answers {
        let Ok(mut line) = serde_json::to_vec(&answer) else { continue };
        line.push(b'\n');
        if std::io::stdout().write_all(&line).is_err() {
            break; // nobody waits any more
        }
    }
    ExitCode::SUCCESS
}
