//! A process: its name, and whether it is still the same one, because ids are used again.
//!
//! In: `/proc` below a root. Out: every process id; [`Process`]; [`ProcessId`] and whether that process is
//! there; what it was started with, and where it works. Must never: take "could not be read" for "is gone":
//! of a run that lives, nothing may be undone.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A process id together with the start time of its process, because ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id, as the kernel shows it in this process's namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    #[serde(rename = "pid_start")]
    pub start: u64,
}

impl ProcessId {
    /// The process that calls this.
    #[must_use]
    pub fn own(root: &Path) -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        Self::of_live(root, pid).unwrap_or(Self { pid, start: 0 })
    }

    /// The process that has this id now; none when there is none, or only a zombie, which runs nothing more.
    #[must_use]
    pub(crate) fn of_live(root: &Path, pid: i32) -> Option<Self> {
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
    pub(crate) fn lingers(&self, root: &Path) -> bool {
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
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The state of a process that has ended and has not been waited for.
const ZOMBIE: char = 'Z';

/// What is used of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
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

/// A process and its name, for messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// The process id at the time of the look; another process may have it later.
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

/// Which boot of the kernel this is; none where the kernel does not say (random(4)).
#[must_use]
pub fn boot(root: &Path) -> Option<String> {
    let id = std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
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

/// Its command line: each argument ends with a zero byte. A kernel thread has none.
///
/// # Errors
/// When the process is gone.
pub(crate) fn command_line(root: &Path, pid: i32) -> std::io::Result<Vec<u8>> {
    std::fs::read(root.join(format!("proc/{pid}/cmdline")))
}

/// Was it started with all of these variables (`NAME=VALUE`)? Not one that is gone, or another user's.
pub(crate) fn has_variables(root: &Path, pid: i32, wanted: &[String]) -> bool {
    let vars = std::fs::read(root.join(format!("proc/{pid}/environ"))).unwrap_or_default();
    wanted.iter().all(|w| vars.split(|b| *b == 0).any(|var| var == w.as_bytes()))
}

/// Its working directory, as its own mounts name it. The link is not followed.
///
/// # Errors
/// When the process is gone, or another user's.
pub(crate) fn working_folder(root: &Path, pid: i32) -> std::io::Result<PathBuf> {
    std::fs::read_link(root.join(format!("proc/{pid}/cwd")))
}

/// Is this folder its working directory? By device and inode: a path may mean another folder there than here.
///
/// # Errors
/// When the process is gone, or another user's.
pub(crate) fn works_in(root: &Path, pid: i32, folder: &Metadata) -> std::io::Result<bool> {
    let works = std::fs::metadata(root.join(format!("proc/{pid}/cwd")))?;
    Ok((works.dev(), works.ino()) == (folder.dev(), folder.ino()))
}

/// Which namespace of a kind (`mnt`, `net`, `pid`) a process is in, by its name in `/proc`: its id, or
/// `self`.
///
/// # Errors
/// When the process is gone, or another user's.
pub(crate) fn namespace(root: &Path, process: &str, kind: &str) -> std::io::Result<PathBuf> {
    std::fs::read_link(root.join("proc").join(process).join("ns").join(kind))
}

/// How early the kernel ends a process when memory runs out, from -1000 (never) to 1000; by its name in
/// `/proc`.
///
/// # Errors
/// When the process is gone, or the file has no number.
pub(crate) fn oom_score(process: &str) -> std::io::Result<i32> {
    let text = std::fs::read_to_string(Path::new("/proc").join(process).join("oom_score_adj"))?;
    text.trim().parse().map_err(std::io::Error::other)
}

/// Changes that.
///
/// # Errors
/// When the process is gone, or the score is lower than it ever was and this process may not do that.
pub(crate) fn set_oom_score(process: &str, score: i32) -> std::io::Result<()> {
    std::fs::write(Path::new("/proc").join(process).join("oom_score_adj"), score.to_string())
}

/// The file of the running program. The kernel's link leads to its inode, also where the file was replaced
/// meanwhile.
///
/// # Errors
/// When it cannot be looked at.
pub(crate) fn own_program() -> std::io::Result<Metadata> {
    std::fs::metadata("/proc/self/exe")
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

    #[test]
    fn a_folder_is_where_a_process_works_by_its_inode() {
        let (here, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut there =
            std::process::Command::new("sleep").arg("60").current_dir(here.path()).spawn().unwrap();
        let (root, pid) = (Path::new("/"), there.id() as i32);
        let works_in = |folder: &Path| works_in(root, pid, &folder.metadata().unwrap()).unwrap();
        // Through a link it is another path, and the same folder.
        std::os::unix::fs::symlink(here.path(), other.path().join("link")).unwrap();
        let works = [here.path(), &other.path().join("link"), other.path()].map(works_in);
        let named = working_folder(root, pid).unwrap();
        let net = [namespace(root, &pid.to_string(), "net"), namespace(root, "self", "net")];
        there.kill().unwrap();
        there.wait().unwrap();
        assert_eq!(works, [true, true, false]);
        assert_eq!(named, here.path().canonicalize().unwrap());
        let [theirs, ours] = net.map(Result::unwrap);
        assert_eq!(theirs, ours);
        assert!(super::works_in(root, pid, &here.path().metadata().unwrap()).is_err(), "it is gone");
    }

    #[test]
    fn variables_are_compared_whole() {
        let root = proc("");
        std::fs::write(root.path().join("proc/7/environ"), "A=1\0B=22\0").unwrap();
        let has = |wanted: &[&str]| {
            has_variables(root.path(), 7, &wanted.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
        };
        assert!(has(&["A=1"]) && has(&["B=22", "A=1"]));
        assert!(!has(&["B=2"]) && !has(&["A=1", "C=3"]) && !has(&["=1"]));
        assert!(!has_variables(root.path(), 8, &["A=1".to_owned()]), "it is gone");
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
