//! Finds out whether a filesystem is frozen, through a child process that may block: no file in /proc or /sys
//! says it.
//!
//! In: a superblock and paths to it. Out: an [`Answer`] within a bound. The child removes a directory that
//! does not exist: the kernel first waits for the thaw (mnt_want_write, then sb_start_write), and then finds
//! nothing to change, so that a filesystem which is not frozen is not written to. Must never: open or touch
//! any filesystem in the calling process.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::host::kernel::{Kernel, Linux};
use crate::host::superblock;
use crate::ids::DevNo;

/// The hidden first argument that makes this binary a probe. After it: a superblock, then paths.
pub const ARGUMENT: &str = "__probe";
/// Exit code of a probe that found no path to the superblock.
const NO_PATH: u8 = 3;
/// A name that no directory has.
const NOBODY: &str = ".stillpoint-probe-43f1a6c9d2e8";

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It can be written to.
    Thawed,
    /// The probe did not return in time. It waits in state D until the filesystem is thawed.
    Blocked {
        /// The child that waits; it ends once the filesystem is thawed.
        pid: u32,
    },
    /// No path led to it, or no child could be started.
    Unknown,
}

/// A superblock to probe.
#[derive(Debug, Clone)]
pub struct Target {
    /// mountinfo's `major:minor` of the superblock.
    pub dev: DevNo,
    /// Where it may be reached; some may lead elsewhere.
    pub(crate) paths: Vec<PathBuf>,
}

/// Asks about all of them at once, and waits for `limit` at most.
#[must_use]
pub fn ask(program: &Path, targets: &[Target], limit: Duration) -> Vec<Answer> {
    let end = Instant::now() + limit;
    let children: Vec<_> = targets.iter().map(|target| spawn(program, target)).collect();
    children
        .into_iter()
        .map(|child| {
            let Ok(mut child) = child else { return Answer::Unknown };
            loop {
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => return Answer::Thawed,
                    Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                    // Killing it is of no use: it would end only after the thaw.
                    Ok(None) => return Answer::Blocked { pid: child.id() },
                    _ => return Answer::Unknown,
                }
            }
        })
        .collect()
}

fn spawn(program: &Path, target: &Target) -> std::io::Result<Child> {
    Command::new(program)
        .arg(ARGUMENT)
        .arg(target.dev.to_string())
        .args(&target.paths)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The whole life of the child.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments;
    let dev = arguments.next().and_then(|d| d.to_str()?.parse::<DevNo>().ok());
    let Some(dev) = dev else { return ExitCode::from(NO_PATH) };
    for path in arguments.map(PathBuf::from) {
        let Ok(folder) = Linux.open(&path) else { continue };
        if superblock::of_opened(&folder, &path) != Some(dev) {
            continue; // another mount covers this path
        }
        match unlinkat(folder.as_fd(), NOBODY, UnlinkatFlags::RemoveDir) {
            // The mount is of a single file: this did not reach the filesystem, and says nothing of it.
            Err(Errno::ENOTDIR) => {}
            // Any other result, success or error, came from a filesystem that is not frozen: a frozen one
            // blocks.
            _ => return ExitCode::SUCCESS,
        }
    }
    ExitCode::from(NO_PATH)
}
