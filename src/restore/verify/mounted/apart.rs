//! The process that makes loop devices of the files, and mounts what is on them.
//!
//! ```text
//! verify, which serves the files ◀── a socket ──▶ this process: opens them, loop devices, mounts, fsck
//! ```
//!
//! What it waits for in the kernel comes from verify. Were it a thread of that, then neither could end once verify is
//! killed: the thread would wait for a file that is served until the thread has ended. As it is, the kernel ends what is
//! served, every wait fails, this process ends with its socket, and its devices go with its descriptors.
//!
//! In: [`Order`]s, one at a time. Out: an [`Answer`] each. Must never: outlive verify, or hold what makes the kernel
//! serve.

use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use crate::host::block::{BlockDevice, DeviceKind};
use crate::host::kernel::{begin_own_session, receive_fds};
use crate::host::loop_device::{self, LoopDevice};
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::restore::identity;
use crate::restore::verify::Verdict;
use crate::restore::verify::judge::{self, Subject};

/// The first argument of this process.
pub const ARGUMENT: &str = "__mounted";
/// How long its end is waited for.
const END: Duration = Duration::from_secs(60);

/// A device that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attached {
    pub dev: DevNo,
    pub name: String,
    pub size: u64,
}

impl Attached {
    fn device(&self) -> BlockDevice {
        BlockDevice {
            name: self.name.clone(),
            dev: self.dev,
            kind: DeviceKind::Loop { backing_file: None, superblock: None },
            below: Vec::new(),
            size: self.size,
            stat: PathBuf::from(format!("/sys/block/{}/stat", self.name)),
            swap: false,
        }
    }
}

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// A device of a part of a file.
    Attach { file: String, at: u64, size: u64 },
    /// See [`judge::judge`].
    Judge { on: Attached, fstype: String, uuid: Option<String>, promises: bool },
    /// See [`identity::replay`].
    Replay { on: Attached, fstype: String },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Attached(Attached),
    Judged(Verdict, String),
    Replayed,
    Failed(String),
}

/// This process.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let socket = UnixStream::from(stdin);
    let (_, fds) = receive_fds(socket.as_fd(), &mut [0; 1]).map_err(|e| e.desc().to_owned())?;
    let files = fds.into_iter().next().ok_or("no files were given")?;
    let devices: Arc<Mutex<Vec<LoopDevice>>> = Arc::default();
    let made = Arc::clone(&devices);
    let (to, orders) = mpsc::channel();
    let input = socket.try_clone().map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        for line in BufReader::new(input).lines() {
            let Ok(line) = line else { break };
            let _ = to.send(line);
        }
        // Verify has ended: whatever is done here, nobody waits for it. The next one to have these numbers can write.
        for device in made.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = device.unprotect();
        }
        #[allow(clippy::exit, reason = "another thread may wait in the kernel")]
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    for line in orders {
        let order: Order = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        let answer = runtime.block_on(done(order, &files, &devices)).unwrap_or_else(Answer::Failed);
        let mut text = serde_json::to_vec(&answer).map_err(|e| e.to_string())?;
        text.push(b'\n');
        (&socket).write_all(&text).map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn done(order: Order, files: &OwnedFd, devices: &Mutex<Vec<LoopDevice>>) -> Result<Answer, String> {
    match order {
        Order::Attach { file, at, size } => {
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let opened = openat(files, file.as_str(), flags, Mode::empty());
            let opened = opened.map_err(|e| format!("{file}: {}", e.desc()))?;
            let made = loop_device::attach(opened.as_fd(), at, size)?;
            let attached = Attached { dev: made.dev, name: made.name.clone(), size };
            devices.lock().unwrap_or_else(PoisonError::into_inner).push(made);
            Ok(Answer::Attached(attached))
        }
        Order::Judge { on, fstype, uuid, promises } => {
            let device = on.device();
            let subject =
                Subject { fstype: &fstype, uuid: uuid.as_deref(), device: &device, others: &[], promises };
            let judged = judge::judge(&subject, &mut Interrupt::never()).await;
            let (verdict, what) = judged.map_err(|signal| format!("interrupted by {signal}"))?;
            Ok(Answer::Judged(verdict, what))
        }
        Order::Replay { on, fstype } => {
            identity::replay(&on.device(), &[], &fstype).await.map_err(|not| not.what)?;
            Ok(Answer::Replayed)
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    Interrupted(Signal),
    /// In words.
    Failed(String),
}

/// The process, from verify's side.
pub(super) struct Apart {
    child: tokio::process::Child,
    input: tokio::io::BufReader<tokio::net::unix::OwnedReadHalf>,
    output: tokio::net::unix::OwnedWriteHalf,
}

impl Apart {
    /// Starts it on these files.
    ///
    /// # Errors
    /// In words.
    pub fn start(files: OwnedFd) -> Result<Self, String> {
        let begin = || {
            let (own, other) = UnixStream::pair()?;
            let mut command = Command::new(crate::window::guard::process::OWN);
            command.arg(ARGUMENT).stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null());
            command.env_clear().env("PATH", crate::quiesce::PATH).current_dir("/");
            begin_own_session(&mut command, Mode::from_bits_truncate(0o077));
            let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
            let fds = [files.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(own.as_raw_fd(), &[IoSlice::new(b"+")], &rights, MsgFlags::empty(), None)?;
            own.set_nonblocking(true)?;
            let (input, output) = tokio::net::UnixStream::from_std(own)?.into_split();
            Ok::<_, std::io::Error>(Self { child, input: tokio::io::BufReader::new(input), output })
        };
        // The last one that has the files ends them, and that is to be the other process: it may take part in it.
        let started = begin();
        drop(files);
        started.map_err(|e| format!("no process can be started: {e}"))
    }

    /// Gives it an order, and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&mut self, order: &Order, interrupt: &mut Interrupt) -> Result<Answer, NoAnswer> {
        let failed =
            |e: std::io::Error| NoAnswer::Failed(format!("the process that mounts it has ended: {e}"));
        let mut text = serde_json::to_vec(order).map_err(|e| NoAnswer::Failed(e.to_string()))?;
        text.push(b'\n');
        self.output.write_all(&text).await.map_err(failed)?;
        let mut line = String::new();
        let read = tokio::select! {
            biased;
            signal = interrupt.caught() => return Err(NoAnswer::Interrupted(signal)),
            read = self.input.read_line(&mut line) => read.map_err(failed)?,
        };
        match read {
            0 => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
            _ => match serde_json::from_str(&line).map_err(|e| NoAnswer::Failed(e.to_string()))? {
                Answer::Failed(why) => Err(NoAnswer::Failed(why)),
                answer => Ok(answer),
            },
        }
    }

    /// Ends it, and waits for that.
    pub async fn end(self) {
        let Self { mut child, input, output } = self;
        drop((input, output));
        if tokio::time::timeout(END, child.wait()).await.is_err() {
            let _ = child.start_kill();
        }
    }
}
