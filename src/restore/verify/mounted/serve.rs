//! The volumes of a set as files of a FUSE filesystem that is mounted nowhere, one file a snapshot.
//!
//! ```text
//! kernel ─▶ a thread: what is here is answered at once ─┐
//!                                                       ├▶ store.rs
//! the rest ─▶ serve: AT_ONCE blocks in flight ──────────┘
//! ```
//!
//! The kernel drops all of it when this process ends, however that ends: then reads of the files fail, and nobody waits
//! for them. So whoever reads them, or mounts what is on them, is another process: a thread of this one that waited for
//! them in the kernel would keep it from ending.
//!
//! In: snapshots, the EBS direct APIs. Out: a mount, attached nowhere. Must never: open one of the files itself, give a
//! block that its checksum does not fit, or fetch one twice that is still here.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    WriteFlags,
};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::fetch::Fetcher;
use super::store::{Not, Store};
use crate::ec2::Ec2Error;
use crate::ec2::direct::Direct;
use crate::host::mount_api;
use crate::restore::verify::AT_ONCE;

/// How long the kernel may remember what never changes.
const EVER: Duration = Duration::from_secs(1 << 20);
/// After two blocks in a row, so many more are fetched ahead.
const AHEAD: u32 = 4;

/// Why something could not be read or written.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    /// Volume and place of each block that its checksum does not fit.
    pub damaged: BTreeSet<(usize, u64)>,
    /// There was no more memory for what was written.
    pub full: bool,
    /// EC2 did not give a block.
    pub ec2: Option<Ec2Error>,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    store: Mutex<Store>,
    trouble: Mutex<Trouble>,
    ended: AtomicBool,
}

impl Shared {
    pub fn new(store: Store) -> Self {
        Self { store: Mutex::new(store), trouble: Mutex::default(), ended: AtomicBool::new(false) }
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has gone wrong since the last time that this was asked; what EC2 said is kept.
    pub fn take_trouble(&self) -> Trouble {
        let mut trouble = self.noted();
        let kept = Trouble { ec2: trouble.ec2.clone(), ..Trouble::default() };
        std::mem::replace(&mut *trouble, kept)
    }

    fn noted(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on all reads and writes fail: nobody waits for them any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// What the kernel waits for.
#[derive(Debug)]
pub(super) enum Ask {
    Read { volume: usize, at: u64, length: u32, reply: ReplyData },
    Write { volume: usize, at: u64, data: Vec<u8>, reply: ReplyWrite },
}

impl Ask {
    fn volume(&self) -> usize {
        match self {
            Self::Read { volume, .. } | Self::Write { volume, .. } => *volume,
        }
    }

    fn fail(self, errno: Errno) {
        match self {
            Self::Read { reply, .. } => reply.error(errno),
            Self::Write { reply, .. } => reply.error(errno),
        }
    }

    /// Answers it, or says which blocks it needs first.
    fn answer(self, shared: &Shared) -> Option<(Self, Vec<u32>)> {
        if shared.has_ended() {
            self.fail(Errno::EIO);
            return None;
        }
        let mut store = shared.store();
        let not = match &self {
            Self::Read { volume, at, length, .. } => match store.read(*volume, *at, u64::from(*length)) {
                Ok(bytes) => {
                    drop(store);
                    if let Self::Read { reply, .. } = self {
                        reply.data(&bytes);
                    }
                    return None;
                }
                Err(not) => not,
            },
            Self::Write { volume, at, data, .. } => match store.write(*volume, *at, data) {
                Ok(()) => {
                    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    drop(store);
                    if let Self::Write { reply, .. } = self {
                        reply.written(length);
                    }
                    return None;
                }
                Err(not) => not,
            },
        };
        drop(store);
        match not {
            Not::Missing(blocks) => return Some((self, blocks)),
            Not::Full => {
                shared.noted().full = true;
                self.fail(Errno::ENOSPC);
            }
            Not::Beyond => self.fail(Errno::EIO),
        }
        None
    }
}

/// The filesystem, as the kernel asks it.
#[derive(Debug)]
struct Files {
    names: Vec<String>,
    sizes: Vec<u64>,
    shared: Arc<Shared>,
    asks: UnboundedSender<Ask>,
}

impl Files {
    /// The root has the number 1.
    fn volume(&self, ino: INodeNo) -> Option<usize> {
        let volume = usize::try_from(ino.0.checked_sub(2)?).ok()?;
        (volume < self.names.len()).then_some(volume)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let file = self.volume(ino).and_then(|n| self.sizes.get(n));
        let (size, kind, perm) = match file {
            Some(size) => (*size, FileType::RegularFile, 0o600),
            None if ino == INodeNo::ROOT => (0, FileType::Directory, 0o700),
            None => return None,
        };
        let time = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn ask(&self, ask: Ask) {
        if let Some((ask, _)) = ask.answer(&self.shared)
            && let Err(unsent) = self.asks.send(ask)
        {
            unsent.0.fail(Errno::EIO);
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = self.names.iter().position(|n| OsStr::new(n) == name);
        let number = number.filter(|_| parent == INodeNo::ROOT).and_then(|n| u64::try_from(n + 2).ok());
        match number.and_then(|n| self.attributes(INodeNo(n))) {
            Some(attributes) => reply.entry(&EVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&EVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.volume(ino) {
            Some(volume) => self.ask(Ask::Read { volume, at, length, reply }),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.volume(ino) {
            Some(volume) => self.ask(Ask::Write { volume, at, data: data.to_vec(), reply }),
            None => reply.error(Errno::EIO),
        }
    }

    // It is all in memory.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    // What a discard throws away, or a zeroing writes, comes as writes then, or not at all.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}

/// Serves files with these names and sizes from here on: a mount that is attached nowhere. What cannot be answered at
/// once is asked for.
///
/// # Errors
/// In words: which step the kernel refuses.
pub(super) fn files(
    files: &[(String, u64)],
    shared: &Arc<Shared>,
    asks: UnboundedSender<Ask>,
) -> Result<OwnedFd, String> {
    let said = |what: &str, errno: nix::errno::Errno| format!("{what}: {}", errno.desc());
    let device = open("/dev/fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| said("/dev/fuse (the kernel's FUSE is needed)", e))?;
    let context = mount_api::context("fuse").map_err(|e| said("fsopen of fuse", e))?;
    let number = device.as_raw_fd().to_string();
    let options = [("fd", number.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")];
    let options = options.into_iter().map(|(key, value)| (key, Some(OsStr::new(value))));
    mount_api::configure(context.as_fd(), Path::new("stillpoint"), options)
        .map_err(|(key, why)| format!("fuse refuses the option {key}: {why}"))?;
    let mount = mount_api::create(context.as_fd()).map_err(|e| said("fuse", e))?;
    let (names, sizes) = files.iter().cloned().unzip();
    let files = Files { names, sizes, shared: Arc::clone(shared), asks };
    let session = Session::from_fd(files, device, SessionACL::Owner, Config::default())
        .map_err(|e| format!("fuse: {e}"))?;
    let serve = move || {
        // What the kernel writes to free memory comes here: memory that is taken for it must not wait for that.
        let _ = rustix::process::configure_io_flusher_behavior(true);
        if let Err(e) = session.run() {
            tracing::debug!("fuse: {e}");
        }
    };
    std::thread::Builder::new().name("files".to_owned()).spawn(serve).map_err(|e| e.to_string())?;
    Ok(mount)
}

/// Fetches what the kernel waits for, as long as somebody asks.
pub(super) async fn serve<D: Direct>(fetcher: &Fetcher<'_, D>, mut asks: UnboundedReceiver<Ask>) {
    let shared = fetcher.shared();
    let mut waiting: Vec<Ask> = Vec::new();
    let mut wanted: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut queue: VecDeque<(usize, u32)> = VecDeque::new();
    let mut bad: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut last: Vec<Option<u32>> = vec![None; fetcher.volumes()];
    let mut flying = FuturesUnordered::new();
    loop {
        while flying.len() < AT_ONCE
            && let Some((volume, index)) = queue.pop_front()
        {
            flying.push(async move { (volume, index, fetcher.fetch(volume, index).await) });
        }
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => waiting.push(ask),
                None => return,
            },
            Some((volume, index, said)) = flying.next(), if !flying.is_empty() => {
                wanted.remove(&(volume, index));
                match said {
                    Ok(true) => {}
                    Ok(false) => {
                        bad.insert((volume, index));
                        shared.noted().damaged.insert((volume, fetcher.place(volume, index)));
                    }
                    Err(e) => {
                        shared.noted().ec2.get_or_insert(e);
                        shared.end();
                    }
                }
            }
        }
        for ask in std::mem::take(&mut waiting) {
            let Some((ask, missing)) = ask.answer(shared) else { continue };
            let volume = ask.volume();
            if missing.iter().any(|index| bad.contains(&(volume, *index))) {
                ask.fail(Errno::EIO);
                continue;
            }
            for index in missing {
                let before = last.get_mut(volume).and_then(|l| l.replace(index));
                let ahead = if before.is_some_and(|b| b.checked_add(1) == Some(index)) { AHEAD } else { 0 };
                for index in index..=index.saturating_add(ahead) {
                    let there = fetcher.place(volume, index) < shared.store().size(volume);
                    let known = bad.contains(&(volume, index)) || shared.store().has(volume, index);
                    if there && !known && wanted.insert((volume, index)) {
                        queue.push_back((volume, index));
                    }
                }
                if ahead > 0
                    && let Some(last) = last.get_mut(volume)
                {
                    *last = Some(index.saturating_add(ahead));
                }
            }
            waiting.push(ask);
        }
    }
}
