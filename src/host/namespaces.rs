//! The mount tables of this host, each once.
//!
//! In: `/proc` below a root. Out: [`Tables`]: a table for each mount namespace that a thread is in, or that
//! an open file or a mount of nsfs keeps, and what could not be read. Must never: take a table that could not
//! be read for an empty one, or follow a path into a filesystem (only texts of links are read; nsfs is never
//! frozen).

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat};

use super::mountinfo::{self, MountTable};
use super::process;

/// How many threads of a namespace are remembered: the first may end before it is of use.
const THREADS: usize = 4;
/// How often processes are listed: those that start meanwhile may be in a namespace of their own.
const ROUNDS: usize = 3;

/// Where the paths of a mount table begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the root of this process.
    Own,
    /// At the root of one of these threads, named as below /proc: `PID/task/TID`.
    Threads(Vec<String>),
    /// At the root of a namespace that no thread is in; its file.
    Kept(PathBuf),
}

/// The mounts that are seen from one place.
#[derive(Debug)]
pub struct Table {
    /// Where its paths begin.
    pub place: Place,
    /// Its lines.
    pub table: MountTable,
    /// It belongs to another user namespace: whoever made that could write into it what he liked.
    pub foreign: bool,
}

/// Every table.
#[derive(Debug, Default)]
pub struct Tables {
    /// This process's own first.
    pub tables: Vec<Table>,
    /// Whose table cannot be read though it exists, and why not.
    pub hidden: Vec<(String, io::Error)>,
    /// Why there may be processes that this one cannot even list.
    pub blind: Option<String>,
    /// Keep the namespaces of [`Place::Kept`].
    kept: Vec<OwnedFd>,
}

/// Reads every table.
///
/// # Errors
/// When this process's own table cannot be read, or /proc cannot be listed.
pub fn tables(root: &Path) -> io::Result<Tables> {
    let mut scan = Scan { root, known: HashMap::new(), looked: HashSet::new(), found: Tables::default() };
    let own = mountinfo::read(root, "self")?;
    if let Some(key) = scan.key("self").ok().flatten() {
        scan.known.insert(key, 0);
    }
    scan.found.blind = blind(root, &own);
    scan.found.tables.push(Table { place: Place::Own, table: own, foreign: false });
    for _ in 0..ROUNDS {
        if !scan.threads()? {
            break;
        }
    }
    scan.kept();
    Ok(scan.found)
}

struct Scan<'a> {
    root: &'a Path,
    /// Namespace and root, both as the text of their links → index of the table.
    known: HashMap<(PathBuf, PathBuf), usize>,
    looked: HashSet<i32>,
    found: Tables,
}

impl Scan<'_> {
    fn link(&self, thread: &str, name: &str) -> io::Result<PathBuf> {
        std::fs::read_link(self.root.join("proc").join(thread).join(name))
    }

    /// Two threads of one namespace see different mounts where one of them is in a chroot. None when the
    /// links must not be read.
    fn key(&self, thread: &str) -> io::Result<Option<(PathBuf, PathBuf)>> {
        match (self.link(thread, "ns/mnt"), self.link(thread, "root")) {
            (Ok(namespace), Ok(root)) => Ok(Some((namespace, root))),
            (Err(e), _) | (_, Err(e)) if is_gone(&e) => Err(e),
            _ => Ok(None),
        }
    }

    /// Looks at every thread that was not looked at before; false when there was none.
    fn threads(&mut self) -> io::Result<bool> {
        let mut any = false;
        for pid in process::pids(self.root)? {
            let task = self.root.join(format!("proc/{pid}/task"));
            // A thread may have a namespace of its own, and the first one may have ended before the others.
            let tids = match std::fs::read_dir(task) {
                Ok(tids) => tids,
                Err(e) => {
                    if !is_gone(&e) && self.looked.insert(pid) {
                        self.found.hidden.push((format!("process {pid}"), e));
                    }
                    continue;
                }
            };
            for tid in tids.flatten().filter_map(|t| t.file_name().to_str()?.parse::<i32>().ok()) {
                if self.looked.insert(tid) {
                    any = true;
                    self.thread(pid, &format!("{pid}/task/{tid}"));
                }
            }
        }
        Ok(any)
    }

    fn thread(&mut self, pid: i32, thread: &str) {
        let Ok(key) = self.key(thread) else { return };
        if let Some(at) = key.as_ref().and_then(|k| self.known.get(k)) {
            if let Place::Threads(threads) = &mut self.found.tables[*at].place
                && threads.len() < THREADS
            {
                threads.push(thread.to_owned());
            }
            return;
        }
        match mountinfo::read(self.root, thread) {
            Ok(table) => {
                let foreign = match (self.link(thread, "ns/user"), self.link("self", "ns/user")) {
                    (Ok(its), Ok(own)) => its != own,
                    _ => false,
                };
                if let Some(key) = key {
                    self.known.insert(key, self.found.tables.len());
                }
                let place = Place::Threads(vec![thread.to_owned()]);
                self.found.tables.push(Table { place, table, foreign });
            }
            // A thread that has ended and was not yet waited for has no mounts: EINVAL.
            Err(e) if is_gone(&e) || e.raw_os_error() == Some(Errno::EINVAL as i32) => {}
            Err(e) => {
                let name = format!("process {pid}");
                if self.found.hidden.last().is_none_or(|(last, _)| *last != name) {
                    self.found.hidden.push((name, e));
                }
            }
        }
    }

    /// Namespaces without a thread: an open file or a mount of nsfs keeps them. In them there may be more.
    fn kept(&mut self) {
        let mut seen: HashSet<PathBuf> = self.known.keys().map(|(namespace, _)| namespace.clone()).collect();
        for (name, file) in self.open_namespaces(&seen) {
            self.enter(&name, &file, &mut seen);
        }
        let mut at = 0;
        while let Some(table) = self.found.tables.get(at) {
            let nsfs = table.table.lines.iter().filter(|l| l.fstype == "nsfs" && !seen.contains(&l.root));
            let mounts: Vec<(PathBuf, PathBuf)> = nsfs
                .filter(|l| l.root.to_string_lossy().starts_with("mnt:["))
                .map(|l| (l.root.clone(), l.mount_point.clone()))
                .collect();
            let place = table.place.clone();
            for (name, mount) in mounts {
                if let Some(file) = place.root().ok().and_then(|root| walk(&root, &mount).ok()) {
                    self.enter(&name, &own_fd(&file), &mut seen);
                }
            }
            at += 1;
        }
    }

    /// Mount namespaces that processes have open: the name, and the file.
    fn open_namespaces(&self, seen: &HashSet<PathBuf>) -> HashMap<PathBuf, PathBuf> {
        let mut found: HashMap<PathBuf, PathBuf> = HashMap::new();
        for pid in process::pids(self.root).unwrap_or_default() {
            let fds = std::fs::read_dir(self.root.join(format!("proc/{pid}/fd")));
            for fd in fds.into_iter().flatten().flatten() {
                let Ok(target) = std::fs::read_link(fd.path()) else { continue };
                if target.to_string_lossy().starts_with("mnt:[") && !seen.contains(&target) {
                    found.entry(target).or_insert_with(|| fd.path());
                }
            }
        }
        found
    }

    /// Reads the table of the namespace with this name (`mnt:[INODE]`), which this file stands for.
    fn enter(&mut self, name: &Path, file: &Path, seen: &mut HashSet<PathBuf>) {
        let Ok(fd) = open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else { return };
        // By its inode: the link of a file that is mounted somewhere says where that is.
        let inode = fstat(&fd).map(|s| PathBuf::from(format!("mnt:[{}]", s.st_ino)));
        if inode.as_deref() != Ok(name) || !seen.insert(name.to_owned()) {
            return;
        }
        match within(&fd, thread_table) {
            Ok(table) => {
                self.found.tables.push(Table { place: Place::Kept(own_fd(&fd)), table, foreign: true });
                self.found.kept.push(fd);
            }
            Err(e) => self.found.hidden.push((format!("namespace {}", name.display()), e.into())),
        }
    }
}

impl Place {
    /// Its root, opened without a use of the filesystem (O_PATH).
    ///
    /// # Errors
    /// When no thread of it is there any more, or the namespace cannot be entered.
    pub fn root(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        match self {
            Self::Own => open("/", flags, Mode::empty()),
            Self::Threads(threads) => threads
                .iter()
                .find_map(|t| open(&Path::new("/proc").join(t).join("root"), flags, Mode::empty()).ok())
                .ok_or(Errno::ESRCH),
            Self::Kept(file) => {
                let fd = open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
                within(&fd, |_| open("/", flags, Mode::empty()))
            }
        }
    }

    /// Its mount namespace; none for this process's own.
    ///
    /// # Errors
    /// When no thread of it is there any more.
    pub fn namespace(&self) -> nix::Result<Option<OwnedFd>> {
        let open = |file: &Path| open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        match self {
            Self::Own => Ok(None),
            Self::Threads(threads) => threads
                .iter()
                .find_map(|t| open(&Path::new("/proc").join(t).join("ns/mnt")).ok())
                .map(Some)
                .ok_or(Errno::ESRCH),
            Self::Kept(file) => open(file).map(Some),
        }
    }

    /// It as an argument for another process of this program, for as long as the [`Tables`] are kept.
    #[must_use]
    pub fn to_argument(&self) -> OsString {
        match self {
            Self::Own => "own".into(),
            Self::Threads(threads) => threads.join(",").into(),
            Self::Kept(file) => file.into(),
        }
    }

    /// The reverse of [`Place::to_argument`].
    #[must_use]
    pub fn from_argument(text: &OsStr) -> Option<Self> {
        match text.to_str()? {
            "own" => Some(Self::Own),
            file if file.starts_with('/') => Some(Self::Kept(file.into())),
            threads => Some(Self::Threads(threads.split(',').map(str::to_owned).collect())),
        }
    }

    /// A path of it, as this process would write it.
    #[must_use]
    pub fn shown(&self, path: &Path) -> PathBuf {
        let below = |root: PathBuf| path.strip_prefix("/").map_or_else(|_| root.clone(), |p| root.join(p));
        match self {
            Self::Own => path.to_path_buf(),
            Self::Threads(threads) => {
                let pid = threads.first().and_then(|t| t.split('/').next()).unwrap_or("?");
                below(Path::new("/proc").join(pid).join("root"))
            }
            Self::Kept(_) => path.to_path_buf(),
        }
    }
}

/// The mount table of the calling thread.
///
/// # Errors
/// When it cannot be read.
pub fn thread_table(proc: &OwnedFd) -> nix::Result<MountTable> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(proc, "thread-self/mountinfo", flags, Mode::empty())?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes).map_err(|_| Errno::EIO)?;
    Ok(mountinfo::parse(&bytes))
}

/// Works in a thread that is in this mount namespace. Gets /proc of this process's namespace: the other one
/// need not have any.
fn within<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce(&OwnedFd) -> nix::Result<T> + Send,
) -> nix::Result<T> {
    let proc = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            // A thread that shares its root and working directory with others may not change its namespace.
            unshare(CloneFlags::CLONE_FS)?;
            setns(namespace, CloneFlags::CLONE_NEWNS)?;
            work(&proc)
        });
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EIO))
    })
}

/// Opens a path below a root without a use of the file (O_PATH), component by component: no symbolic link is
/// followed and no automount is triggered, since each component is the last one of its own lookup.
///
/// # Errors
/// What openat(2) says; ENOTDIR at a symbolic link.
pub fn walk(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = openat(root, ".", flags, Mode::empty())?;
    for part in path.components() {
        match part {
            std::path::Component::RootDir | std::path::Component::CurDir => {}
            std::path::Component::Normal(name) => at = openat(&at, name, flags, Mode::empty())?,
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(at)
}

/// The path by which any process of this user finds a descriptor of this one, for as long as that is open.
fn own_fd(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// With `hidepid`, processes of others are not even listed to a process without CAP_SYS_PTRACE.
fn blind(root: &Path, own: &MountTable) -> Option<String> {
    const SYS_PTRACE: u64 = 1 << 19;
    let proc = own.lines.iter().rfind(|l| l.fstype == "proc" && l.mount_point == Path::new("/proc"))?;
    let hides =
        proc.super_option("hidepid").filter(|v| v != "0" && v != "off" && v != "noaccess" && v != "1")?;
    let status = std::fs::read_to_string(root.join("proc/self/status")).ok()?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    // Members of one group see all: root's, where no other is said.
    let group = proc.super_option("gid").unwrap_or_else(|| "0".into());
    let own = ["Gid:", "Groups:"].iter().filter_map(|f| status.lines().find_map(|l| l.strip_prefix(f)));
    let member = own.flat_map(str::split_ascii_whitespace).any(|g| group == *g);
    (effective & SYS_PTRACE == 0 && !member).then(|| {
        format!("/proc is mounted with hidepid={}, and CAP_SYS_PTRACE is missing", hides.to_string_lossy())
    })
}
