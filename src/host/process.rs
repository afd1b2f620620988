//! A process: its name, and whether it is still the same one, because ids are used again.
//!
//! In: `/proc` below a root. Out: every process id; [`Process`]; [`ProcessId`] and whether that process is
//! there. Must never: take "could not be read" for "is gone": of a run that lives, nothing may be undone.

use std::fmt;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A process id together with the start time of its process, because ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    #[serde(rename = "pid_start")]
    pub start: u64,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn own(root: &Path) -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Self::of_live(root, pid).unwrap_or(Self { pid, start: 0 })
    }

    /// The process that has this id now; none when there is none, or only a zombie, which runs nothing more.
    #[must_use]
    pub fn of_live(root: &Path, pid: i32) -> Option<Self> {
        let stat = Stat::read(root, pid).ok().flatten()?;
        (!stat.is_zombie()).then_some(Self { pid, start: stat.start })
    }

    /// Is it there? A stopped process is, a zombie is not, and one that cannot be looked at counts as there.
    #[must_use]
    pub fn lives(&self, root: &Path) -> bool {
        match Stat::read(root, self.pid) {
            Ok(stat) => stat.is_none_or(|s| !s.is_zombie() && s.start == self.start),
            Err(e) => !is_gone(&e),
        }
    }

    /// Is a thread of it left, in exit(2) or inside FIFREEZE, though its first thread may be a zombie?
    #[must_use]
    pub fn lingers(&self, root: &Path) -> bool {
        match Stat::read(root, self.pid) {
            // The first thread, even as a zombie, keeps its start time: another one means that the id is used
            // again.
            Ok(Some(stat)) if stat.start != self.start => return false,
            Err(e) if is_gone(&e) => return false,
            _ => {}
        }
        let threads = match std::fs::read_dir(root.join(format!("proc/{}/task", self.pid))) {
            Ok(threads) => threads,
            Err(e) => return !is_gone(&e),
        };
        threads.flatten().any(|t| {
            let stat = std::fs::read_to_string(t.path().join("stat")).ok();
            stat.and_then(|s| Stat::parse(&s)).is_some_and(|s| !matches!(s.state, ZOMBIE | 'X'))
        })
    }
}

/// Where programs are looked for that this one starts (PATH).
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The state of a process that has ended and has not been waited for.
const ZOMBIE: char = 'Z';

/// What is used of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `D`, `Z`, …
    pub state: char,
    /// Field 4: its parent.
    pub parent: i32,
    /// Field 5: its process group.
    pub group: i32,
    /// Field 22: when it started, in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    /// Reads it; none when the file is not as it should be.
    ///
    /// # Errors
    /// When it cannot be read. ENOENT and ESRCH mean that there is no such process.
    pub fn read(root: &Path, pid: i32) -> std::io::Result<Option<Self>> {
        Ok(Self::parse(&std::fs::read_to_string(root.join(format!("proc/{pid}/stat")))?))
    }

    /// It has ended, and nobody has waited for it yet.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.state == ZOMBIE
    }

    /// The command name in field 2 may hold spaces and parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// There is no such process any more: ENOENT at open, ESRCH at read.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name, at most 15 bytes (/proc/PID/comm).
    pub comm: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.comm, self.pid)
    }
}

impl Process {
    /// The process that has this id now. Its name is `?` where it cannot be read.
    #[must_use]
    pub fn read(root: &Path, pid: i32) -> Self {
        let comm = std::fs::read_to_string(root.join(format!("proc/{pid}/comm"))).unwrap_or_default();
        Self { pid, comm: if comm.is_empty() { "?".to_owned() } else { comm.trim_end().to_owned() } }
    }
}

/// Every process id.
///
/// # Errors
/// When /proc cannot be listed.
pub fn pids(root: &Path) -> std::io::Result<Vec<i32>> {
    let mut pids: Vec<i32> = std::fs::read_dir(root.join("proc"))?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Bytes that a process has caused to be written to storage so far; none when it is gone or another user's.
#[must_use]
pub fn written(root: &Path, pid: i32) -> Option<u64> {
    let io = std::fs::read_to_string(root.join(format!("proc/{pid}/io"))).ok()?;
    io.lines().find_map(|l| l.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /proc in which process 7 has this stat file.
    fn proc(stat: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/7/task/7")).unwrap();
        std::fs::write(root.path().join("proc/7/stat"), stat).unwrap();
        std::fs::write(root.path().join("proc/7/task/7/stat"), stat).unwrap();
        root
    }

    fn stat(state: char, start: u64) -> String {
        format!("7 (a) b (c) {state} 1 6 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 99 9\n")
    }

    #[test]
    fn the_fields_are_counted_from_the_end_of_the_name() {
        let root = proc(&stat('S', 1234));
        let read = Stat::read(root.path(), 7).unwrap().unwrap();
        assert_eq!(read, Stat { state: 'S', parent: 1, group: 6, start: 1234 });
    }

    #[test]
    fn an_id_that_is_used_again_is_another_process() {
        let run = ProcessId { pid: 7, start: 1234 };
        let is = |stat: &str| {
            let root = proc(stat);
            (run.lives(root.path()), run.lingers(root.path()))
        };
        assert_eq!(is(&stat('S', 1234)), (true, true));
        assert_eq!(is(&stat('T', 1234)), (true, true), "a stopped process can go on");
        assert_eq!(is(&stat('S', 1235)), (false, false), "used again");
        assert_eq!(is(&stat('Z', 1234)), (false, false));
        let nobody = tempfile::tempdir().unwrap();
        assert!(!run.lives(nobody.path()) && !run.lingers(nobody.path()));
    }

    #[test]
    fn a_zombie_whose_other_threads_hang_lingers_and_does_not_live() {
        let root = proc(&stat('Z', 1234));
        std::fs::create_dir_all(root.path().join("proc/7/task/8")).unwrap();
        std::fs::write(root.path().join("proc/7/task/8/stat"), stat('D', 1240)).unwrap();
        let run = ProcessId { pid: 7, start: 1234 };
        assert!(!run.lives(root.path()) && run.lingers(root.path()));
    }

    #[test]
    fn this_process_lives() {
        let own = ProcessId::own(Path::new("/"));
        assert!(own.start > 0 && own.lives(Path::new("/")) && own.lingers(Path::new("/")));
        assert_eq!(ProcessId::of_live(Path::new("/"), own.pid), Some(own));
    }

    /// No fd left, or hidden by hidepid: nothing says that it is dead.
    #[test]
    fn only_no_such_process_means_dead() {
        let gone = |errno: Errno| is_gone(&std::io::Error::from_raw_os_error(errno as i32));
        assert!(gone(Errno::ENOENT) && gone(Errno::ESRCH));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EACCES] {
            assert!(!gone(errno), "{errno}");
        }
    }
}
