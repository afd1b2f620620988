//! The filesystems of a window: opened, checked, flushed.
//!
//! In: the plan's filesystems. Out: [`Filesystem`]s with open fds and counters. Must never: run while
//! anything is frozen.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::PrepareError;
use super::witness::Witness;
use crate::host::fanotify;
use crate::host::kernel::Kernel;
use crate::host::thread::STACK;
use crate::plan::{Method, PlannedFilesystem, Wave};

/// Longest that opening all mount points may take. It takes microseconds, unless a fanotify listener has to
/// permit each open.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// A filesystem of the window.
#[derive(Debug)]
pub(super) struct Filesystem {
    pub mount_point: PathBuf,
    pub fstype: String,
    pub method: Method,
    pub wave: Wave,
    pub fd: Arc<OwnedFd>,
    /// Index among the freezers; none for filesystems that are only synced.
    pub(crate) freezer: Option<usize>,
    /// Of its devices; empty until they are opened.
    pub witnesses: Vec<Witness>,
    /// How long flushing took before the freeze.
    pub flush: Duration,
    /// Flushing it failed, and it is not frozen: what is on the device may be incomplete.
    pub(crate) unsynced: Option<Errno>,
}

impl Filesystem {
    fn new(kernel: &dyn Kernel, fd: OwnedFd, planned: &PlannedFilesystem) -> Result<Self, PrepareError> {
        check_superblock(kernel, &fd, planned)?;
        Ok(Self {
            mount_point: planned.mount_point.clone(),
            fstype: planned.fstype.clone(),
            method: planned.method,
            wave: planned.wave,
            fd: Arc::new(fd),
            freezer: None,
            witnesses: Vec::new(),
            flush: Duration::ZERO,
            unsynced: None,
        })
    }
}

/// Opens every mount point at once, one thread each, and waits no longer than [`OPEN_LIMIT`]: open(2) blocks
/// for as long as a fanotify listener does not answer. Nothing is frozen yet. A blocked thread is left
/// behind; the process can end all the same.
pub(super) fn open_all(
    kernel: &Arc<dyn Kernel>,
    root: &Path,
    planned: &[PlannedFilesystem],
) -> Result<Vec<Filesystem>, PrepareError> {
    let end = Instant::now() + OPEN_LIMIT;
    let mut opening = Vec::with_capacity(planned.len());
    for filesystem in planned.iter().filter(|f| f.method != Method::Unmount) {
        let (tx, rx) = sync_channel(1);
        let (kernel, path) = (Arc::clone(kernel), filesystem.mount_point.clone());
        std::thread::Builder::new()
            .name("open".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let _ = tx.send(kernel.open(&path));
            })
            .map_err(PrepareError::Thread)?;
        opening.push((filesystem, rx));
    }
    opening
        .into_iter()
        .map(|(filesystem, rx)| {
            let said = match rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(said) => said,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(PrepareError::OpenHangs {
                        path: filesystem.mount_point.clone(),
                        limit: OPEN_LIMIT,
                        suspects: fanotify::permission_listeners(root),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => Err(Errno::EIO),
            };
            let fd = said.map_err(|source| PrepareError::Open {
                mount_point: filesystem.mount_point.clone(),
                fstype: filesystem.fstype.clone(),
                source,
            })?;
            Filesystem::new(&**kernel, fd, filesystem)
        })
        .collect()
}

/// Is this fd on the superblock that was planned? Hooks or an automounter may have unmounted it meanwhile,
/// and its path then leads to the filesystem below.
fn check_superblock(
    kernel: &dyn Kernel,
    fd: &OwnedFd,
    planned: &PlannedFilesystem,
) -> Result<(), PrepareError> {
    match kernel.superblock(fd.as_fd()) {
        Some(found) if found == planned.dev => Ok(()),
        found => Err(PrepareError::Changed {
            mount_point: planned.mount_point.clone(),
            planned: planned.dev,
            found: found.map_or_else(|| "unknown".to_owned(), |d| d.to_string()),
        }),
    }
}
