//! Before the freeze: everything open, flushed, claimed and guarded.
//!
//! In: the plan's filesystems. Out: [`Prepared`], with a watchdog that waits. Must never: freeze.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::claims::{Claiming, Claims};
use super::expedite::{Former, RcuExpedited};
use super::failure::{FreezeFailure, PrepareError};
use super::filesystem::{self, Filesystem, open_all};
use super::flush::Allowance;
use super::freeze::{Freezers, Report};
use super::guard::Guard;
use super::witness::{self, Witness};
use super::{Extras, Limits, Machine, flush, memory};
use crate::host::fanotify;
use crate::host::kernel::Kernel;
use crate::host::process::ProcessId;
use crate::interrupt::Interrupt;
use crate::plan::{Method, Plan};

/// Everything open, flushed and guarded; nothing frozen.
#[derive(Debug)]
#[must_use = "a prepared window does nothing until it is frozen"]
pub struct Prepared {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) filesystems: Vec<Filesystem>,
    /// Devices without a frozen filesystem, on volumes of the set.
    pub(super) idle: Vec<Witness>,
    /// The devices that nobody may use meanwhile. Given up once everything is thawed.
    pub(super) claims: Claims,
    pub(super) guard: Box<dyn Guard>,
    pub(super) freezers: Freezers,
    pub(super) limits: Limits,
    pub(super) flushing: Allowance,
    pub(super) rcu_expedited: Option<RcuExpedited>,
}

impl Prepared {
    /// Opens every filesystem, flushes all of them in parallel, starts the watchdog and the freezing threads.
    ///
    /// Waits as long as flushing takes.
    ///
    /// # Errors
    /// When anything is missing, or a signal comes. Nothing is frozen then.
    pub async fn open(
        machine: Machine<'_>,
        plan: &Plan,
        limits: Limits,
        interrupt: &mut Interrupt,
        extras: Extras,
    ) -> Result<Self, PrepareError> {
        let kernel = machine.kernel;
        let mut filesystems = open_all(kernel, machine.root, &plan.filesystems)?;
        let mut flushing = Allowance::new(limits.flush);
        flush::all(kernel, &mut filesystems, &mut flushing, interrupt).await?;
        // Not before: a direct read waits for what the page cache has to write there, and no signal ends
        // that.
        let idle = with_witnesses(kernel, plan, &mut filesystems);
        let mut fds = Vec::new();
        for filesystem in filesystems.iter_mut().filter(|m| m.method == Method::Freeze) {
            filesystem.freezer = Some(fds.len());
            fds.push(Arc::clone(&filesystem.fd));
        }
        let (mut guard, rcu_expedited) = start_guard(&machine, &fds, extras)?;
        let freezers = match Freezers::start(kernel, &*guard, &fds) {
            Ok(freezers) => freezers,
            Err(e) => {
                guard.dismiss(); // else it would stay for as long as this process does
                return Err(PrepareError::Thread(e));
            }
        };
        // Not before: a watchdog that hangs in exec would keep a copy of every claim.
        let claiming = Claiming::start(kernel, machine.root, plan);
        let mut prepared = Self {
            kernel: Arc::clone(kernel),
            filesystems,
            idle,
            claims: Claims::default(),
            guard,
            freezers,
            limits,
            flushing,
            rcu_expedited,
        };
        let again = flush::again(kernel, &mut prepared.filesystems, &mut prepared.flushing, interrupt);
        if let Err(e) = again.await {
            prepared.dismiss();
            return Err(e.into());
        }
        prepared.claims = claiming.end(plan);
        memory::lock(&**kernel);
        Ok(prepared)
    }

    /// Flushes what is going to be frozen once more: to be called last before [`Self::freeze`].
    ///
    /// # Errors
    /// When a filesystem cannot be flushed in time, or a signal comes. Nothing is frozen then.
    pub async fn flush(&mut self, interrupt: &mut Interrupt) -> Result<(), PrepareError> {
        Ok(flush::last(&self.kernel, &mut self.filesystems, &mut self.flushing, interrupt).await?)
    }

    /// What the journal has to know to put `rcu_expedited` back.
    #[must_use]
    pub fn expedited(&self) -> Option<Former> {
        self.rcu_expedited.as_ref().map(|k| k.former().clone())
    }

    /// The watchdog's process id.
    #[must_use]
    pub fn watchdog(&self) -> u32 {
        self.guard.pid()
    }

    /// The process that freezes, where it is another one.
    #[must_use]
    pub fn freezer(&self) -> Option<ProcessId> {
        self.guard.delegate().map(|d| d.id())
    }

    /// What can stop or end the watchdog together with this process.
    #[must_use]
    pub fn watchdog_shares(&self) -> &[String] {
        self.guard.shares()
    }

    /// The open file of the filesystem that is mounted there.
    #[must_use]
    pub fn open_file(&self, mount_point: &Path) -> Option<Arc<OwnedFd>> {
        let found = self.filesystems.iter().find(|f| f.mount_point == mount_point);
        found.map(|f| Arc::clone(&f.fd))
    }

    /// Ends without freezing.
    pub fn dismiss(mut self) {
        self.guard.dismiss();
    }
}

/// Opens every witness at once. Those of filesystems go to them; the others are of devices without a frozen
/// filesystem.
fn with_witnesses(kernel: &Arc<dyn Kernel>, plan: &Plan, filesystems: &mut [Filesystem]) -> Vec<Witness> {
    // What is unmounted has its devices claimed; nothing is there to freeze.
    let (away, here): (Vec<_>, Vec<_>) = plan.filesystems.iter().partition(|f| f.method == Method::Unmount);
    let of_here = here.iter().flat_map(|f| &f.witnesses);
    let idle = plan.witnesses.iter().chain(away.iter().flat_map(|f| &f.witnesses));
    let devices: Vec<_> = of_here.chain(idle).cloned().collect();
    let mut opened = witness::open_all(kernel, &devices).into_iter();
    for (filesystem, planned) in filesystems.iter_mut().zip(here) {
        filesystem.witnesses = opened.by_ref().take(planned.witnesses.len()).collect();
    }
    opened.collect()
}

/// Starts the watchdog in a thread: exec opens files too, and may block as [`open_all`] may.
fn start_guard(
    machine: &Machine<'_>,
    fds: &[Arc<OwnedFd>],
    extras: Extras,
) -> Result<(Box<dyn Guard>, Option<RcuExpedited>), PrepareError> {
    let runtime = tokio::runtime::Handle::current();
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    let (watchdog, fds) = (Arc::clone(machine.watchdog), fds.to_vec());
    std::thread::Builder::new()
        .name("start-watchdog".to_owned())
        .stack_size(256 * 1024) // the C library keeps it, and mlockall pins it
        .spawn(move || {
            let _runtime = runtime.enter();
            let started = watchdog.start(&fds, &extras);
            let _ = tx.send((started, extras.rcu_expedited));
        })
        .map_err(PrepareError::Thread)?;
    // The watchdog itself has a limit of its own to get ready.
    let limit = filesystem::OPEN_LIMIT + Duration::from_secs(10);
    match rx.recv_timeout(limit) {
        Ok((started, rcu_expedited)) => Ok((started?, rcu_expedited)),
        Err(_) => Err(PrepareError::OpenHangs {
            path: machine.watchdog.program(),
            limit,
            suspects: fanotify::permission_listeners(machine.root),
        }),
    }
}

impl Prepared {
    pub(super) fn check(&self, indices: &[usize], reports: &[Report]) -> Result<(), FreezeFailure> {
        for filesystem in &self.filesystems {
            let Some(index) = filesystem.freezer.filter(|i| indices.contains(i)) else { continue };
            let errno = match reports[index] {
                Report::Frozen(_) => continue,
                Report::Failed(errno) | Report::ThawFails(errno) => errno,
                _ => Errno::EIO, // its thread panicked
            };
            return Err(FreezeFailure::Refused {
                mount_point: filesystem.mount_point.clone(),
                fstype: filesystem.fstype.clone(),
                errno,
            });
        }
        Ok(())
    }

    pub(super) fn stuck(&self) -> Vec<PathBuf> {
        let reports = self.freezers.board().read();
        let stuck = |m: &&Filesystem| m.freezer.is_some_and(|i| reports[i] == Report::Freezing);
        self.filesystems.iter().filter(stuck).map(|m| m.mount_point.clone()).collect()
    }

    pub(super) fn stderr_may_block(&self, reports: &[Report]) -> bool {
        let stuck = |m: &&Filesystem| m.freezer.is_some_and(|i| reports[i].may_be_frozen());
        let stderr = self.kernel.superblock(std::io::stderr().as_fd());
        stderr.is_some()
            && self.filesystems.iter().filter(stuck).any(|m| self.kernel.superblock(m.fd.as_fd()) == stderr)
    }
}
