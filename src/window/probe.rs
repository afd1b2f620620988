//! Finds out whether a filesystem is frozen, through a child process that may block: no file in /proc or /sys
//! says it.
//!
//! In: a superblock and its mounts. Out: an [`Answer`] within a bound. The child removes an extended
//! attribute whose name no filesystem takes: the kernel first waits for the thaw (mnt_want_write_file), and
//! then refuses the name, so that a filesystem which is not frozen is neither read nor written. Must never:
//! open or touch any filesystem in the calling process, or call one frozen whose child is only late: it is
//! frozen when the kernel says that the child waits for the thaw.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::host::namespaces::Place;
use crate::host::process::Stat;
use crate::host::reach::{Target, Way};
use crate::host::{calls, hidden_mounts};
use crate::ids::DevNo;

/// The hidden first argument that makes this binary a probe. After it: a superblock, its type, and its
/// mounts.
pub const ARGUMENT: &str = "__probe";
/// Exit code of a probe that found no path to the superblock.
const NO_PATH: u8 = 3;
/// Exit code of a probe whose paths hang.
const HANGS: u8 = 4;
/// A name without one of the prefixes that filesystems know.
const NOBODY: &str = "stillpoint.probe";
/// How long a child may try to reach the superblock.
const REACH: Duration = Duration::from_secs(8);
/// Most mounts of one superblock that a child tries.
const WAYS: usize = 64;
/// Pause between two looks at a child.
const PAUSE: Duration = Duration::from_millis(5);
/// At so many looks in a row, a child has to wait for the thaw: a thaw that is in progress wakes it
/// meanwhile.
const LOOKS: u32 = 10;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It can be written to.
    Thawed,
    /// The probe waits for the thaw, in state D.
    Frozen {
        /// The child that waits.
        pid: u32,
    },
    /// The probe did not answer in time, and does not wait for a thaw: the machine or the device is slow.
    Late,
    /// No path led to it, or no child could be started.
    Unreached,
}

/// Asks about all of them at once, and waits for `limit` at most.
#[must_use]
pub fn ask(program: &Path, targets: &[Target], limit: Duration) -> Vec<Answer> {
    let end = Instant::now() + limit;
    let children: Vec<_> = targets.iter().map(|target| spawn(program, target)).collect();
    children.into_iter().map(|child| child.map_or(Answer::Unreached, |child| answer(child, end))).collect()
}

fn answer(mut child: Child, end: Instant) -> Answer {
    let mut looks = 0;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Answer::Thawed,
            Ok(Some(status)) if status.code() == Some(i32::from(NO_PATH)) => return Answer::Unreached,
            Ok(Some(_)) | Err(_) => return Answer::Late,
            Ok(None) => {}
        }
        looks = if waits_for_thaw(child.id()) { looks + 1 } else { 0 };
        if looks >= LOOKS {
            // Killing it is of no use: it would end only after the thaw.
            return Answer::Frozen { pid: child.id() };
        }
        if Instant::now() > end {
            let _ = child.kill();
            return Answer::Late;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Does this child wait, inside its one call, for a filesystem to be thawed?
fn waits_for_thaw(pid: u32) -> bool {
    let (root, Ok(id)) = (Path::new("/"), i32::try_from(pid)) else { return false };
    let sleeps = Stat::read(root, id).is_ok_and(|s| s.is_some_and(|s| s.state == 'D'));
    if !sleeps || !calls::is_in(root, id, libc::SYS_fremovexattr) {
        return false;
    }
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    is_wait_for_thaw(&read("stack"), &read("wchan"))
}

/// By the kernel's own words: the call is in `mnt_want_write_file` (fs/namespace.c), where it waits for
/// nothing but the thaw. Kernels without a stack (CONFIG_STACKTRACE) name the function that sleeps: the other
/// locks on this call's way are none of this kind.
fn is_wait_for_thaw(stack: &str, wchan: &str) -> bool {
    let names = |text: &str| ["mnt_want_write", "sb_start_write"].iter().any(|name| text.contains(name));
    if stack.trim().is_empty() { wchan.contains("percpu") || names(wchan) } else { names(stack) }
}

fn spawn(program: &Path, target: &Target) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0("stillpoint").arg(ARGUMENT).arg(target.dev.to_string()).arg(&target.fstype);
    for way in target.ways.iter().take(WAYS) {
        command.arg(way.place.to_argument()).arg(way.mount.to_string()).arg(&way.path);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The whole life of the child.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Started from /proc/self/exe, it would be called `exe`.
    let _ = nix::sys::prctl::set_name(c"stillpoint");
    let Some(target) = target(arguments) else { return ExitCode::from(NO_PATH) };
    let fd = match target.open(REACH) {
        Err(Errno::ENOLINK) => hidden_mounts::covered(&target),
        other => other.map(Some),
    };
    match fd {
        Ok(Some(fd)) => {
            // Whatever it says, it says of a filesystem that is not frozen: a frozen one blocks.
            let _ = rustix::fs::fremovexattr(&fd, NOBODY);
            ExitCode::SUCCESS
        }
        Err(Errno::ETIMEDOUT) => ExitCode::from(HANGS),
        _ => ExitCode::from(NO_PATH),
    }
}

fn target(mut arguments: impl Iterator<Item = OsString>) -> Option<Target> {
    let dev = arguments.next()?.to_str()?.parse::<DevNo>().ok()?;
    let fstype = arguments.next()?.into_string().ok()?;
    let mut ways = Vec::new();
    while let Some(place) = arguments.next() {
        let place = Arc::new(Place::from_argument(&place)?);
        let mount = arguments.next()?.to_str()?.parse().ok()?;
        ways.push(Way { place, mount, path: PathBuf::from(arguments.next()?) });
    }
    Some(Target { dev, fstype, ways })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_what_is_asked() {
        let way = |place: Place, mount| Way { place: Arc::new(place), mount, path: "/a b".into() };
        let asked = Target {
            dev: DevNo { major: 259, minor: 7 },
            fstype: "ext4".into(),
            ways: vec![
                way(Place::Own, 30),
                way(Place::Threads(vec!["5/task/6".into(), "7/task/7".into()]), 31),
                way(Place::Kept("/proc/9/fd/3".into()), 32),
            ],
        };
        let mut arguments: Vec<OsString> = vec!["259:7".into(), "ext4".into()];
        for way in &asked.ways {
            arguments.extend([
                way.place.to_argument(),
                way.mount.to_string().into(),
                way.path.clone().into(),
            ]);
        }
        assert_eq!(target(arguments.into_iter()), Some(asked));
    }

    #[test]
    fn only_who_waits_for_the_thaw_is_blocked_by_a_freeze() {
        let frozen = "[<0>] percpu_rwsem_wait+0x15f/0x1d0\n[<0>] mnt_want_write_file+0xd1/0x110\n\
                      [<0>] path_removexattrat+0x12c/0x350\n";
        let old =
            "[<0>] __percpu_down_read+0x5e/0x90\n[<0>] __sb_start_write+0x71/0x80\n[<0>] removexattr+0x4\n";
        let slow = "[<0>] rwsem_down_write_slowpath+0x30f/0x5b0\n[<0>] vfs_removexattr+0x5d/0x120\n\
                    [<0>] path_removexattrat+0x12c/0x350\n";
        assert!(is_wait_for_thaw(frozen, "percpu_rwsem_wait") && is_wait_for_thaw(old, "0"));
        assert!(!is_wait_for_thaw(slow, "rwsem_down_write_slowpath"));
        // Without a stack.
        assert!(is_wait_for_thaw("", "percpu_rwsem_wait"));
        for wchan in ["", "0", "folio_wait_bit_common", "rwsem_down_write_slowpath"] {
            assert!(!is_wait_for_thaw("", wchan), "{wchan}");
        }
    }

    /// A machine that does not get to run the child says nothing of a filesystem.
    #[test]
    fn a_child_that_is_late_is_not_frozen() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(answer(child, Instant::now() + Duration::from_millis(100)), Answer::Late);
        let child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        assert_eq!(answer(child, Instant::now() + Duration::from_secs(60)), Answer::Unreached);
    }
}
