//! The filesystems of a window: opened, checked, flushed.
//!
//! In: the plan's filesystems. Out: [`Member`]s with open fds and counters. Must never: run while anything is frozen.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::kernel::Kernel;
use super::witness::Witness;
use super::{PrepareError, superblock};
use crate::plan::{Method, PlannedFilesystem, Wave};

/// A filesystem of the window.
#[derive(Debug)]
pub(super) struct Member {
    pub mount_point: PathBuf,
    pub fstype: String,
    pub method: Method,
    pub wave: Wave,
    pub fd: Arc<OwnedFd>,
    /// Index among the freezers; none for filesystems that are only synced.
    pub freezer: Option<usize>,
    pub witnesses: Vec<Witness>,
    /// Flushing it failed, and it is not frozen: what is on the device may be incomplete.
    pub unsynced: Option<Errno>,
}

impl Member {
    pub fn open(kernel: &Arc<dyn Kernel>, planned: &PlannedFilesystem) -> Result<Self, PrepareError> {
        let mount_point = planned.mount_point.clone();
        let fd = kernel.open(&mount_point).map_err(|source| PrepareError::Open {
            mount_point: mount_point.clone(),
            fstype: planned.fstype.clone(),
            source,
        })?;
        check_superblock(&fd, planned)?;
        Ok(Self {
            mount_point,
            fstype: planned.fstype.clone(),
            method: planned.method,
            wave: planned.wave,
            fd: Arc::new(fd),
            freezer: None,
            witnesses: open_witnesses(&planned.witnesses)?,
            unsynced: None,
        })
    }
}

/// Is this fd on the superblock that was planned? Hooks or an automounter may have unmounted it meanwhile, and its path then
/// leads to the filesystem below.
fn check_superblock(fd: &OwnedFd, planned: &PlannedFilesystem) -> Result<(), PrepareError> {
    match superblock::of(fd) {
        Some(found) if found == planned.dev => Ok(()),
        found => Err(PrepareError::Changed {
            mount_point: planned.mount_point.clone(),
            planned: planned.dev,
            found: found.map_or_else(|| "unknown".to_owned(), |d| d.to_string()),
        }),
    }
}

pub(super) fn open_witnesses(devices: &[crate::plan::WitnessDevice]) -> Result<Vec<Witness>, PrepareError> {
    devices
        .iter()
        .map(|d| Witness::open(d).map_err(|source| PrepareError::Witness { device: d.name.clone(), source }))
        .collect()
}

/// syncfs on all at once, so that FIFREEZE finds little to write (512 MiB dirty: 235 ms down to 23 ms on ext4).
pub(super) fn sync_all(kernel: &Arc<dyn Kernel>, members: &[Member]) -> Result<(), PrepareError> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            members.iter().map(|m| (m, scope.spawn(|| kernel.syncfs(m.fd.as_fd())))).collect();
        for (member, thread) in running {
            let said = thread.join().unwrap_or(Err(Errno::EIO));
            said.map_err(|source| PrepareError::Sync { mount_point: member.mount_point.clone(), source })?;
        }
        Ok(())
    })
}

/// Flushes a filesystem that cannot freeze until its device is idle, then takes the first look at its counters.
pub(super) fn quiesce_by_sync(kernel: &Arc<dyn Kernel>, member: &mut Member) {
    for _ in 0..50 {
        // The kernel reports a failed write-back once: a later success must not cover it.
        if let Err(errno) = kernel.syncfs(member.fd.as_fd()) {
            member.unsynced = Some(errno);
        }
        if member.witnesses.iter().all(|w| w.idle(kernel)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for witness in &mut member.witnesses {
        witness.look(kernel);
    }
}
