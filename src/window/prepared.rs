//! Before the freeze: everything open, flushed and guarded. After it: what was seen, put together.
//!
//! In: the plan's filesystems. Out: [`Prepared`], with a watchdog that waits. Must never: freeze.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::expedite::{Former, Knob};
use super::failure::{FreezeFailure, PrepareError};
use super::freeze::{Freezers, Report, Subject};
use super::guard::Guard;
use super::kernel::Kernel;
use super::member::{self, Member, open_all, open_witnesses};
use super::thawed::{Stall, Thawed, Times};
use super::witness::{Moved, Witness};
use super::{Extras, Limits, ask, flush, memory, superblock, watchdog};
use crate::discover::processes;
use crate::interrupt::Interrupt;
use crate::plan::{Method, Plan};

/// Everything open, flushed and guarded; nothing frozen.
#[derive(Debug)]
#[must_use = "a prepared window does nothing until it is frozen"]
pub struct Prepared {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) members: Vec<Member>,
    /// Devices without a frozen filesystem, on volumes of the set.
    pub(super) idle: Vec<Witness>,
    pub(super) guard: Guard,
    pub(super) freezers: Freezers,
    pub(super) limits: Limits,
    pub(super) knob: Option<Knob>,
}

impl Prepared {
    /// Opens every filesystem, flushes all of them in parallel, starts the watchdog and the freezing threads.
    ///
    /// `program` is the binary to start as the watchdog. Waits as long as flushing takes.
    ///
    /// # Errors
    /// When anything is missing, or a signal comes. Nothing is frozen then.
    pub async fn open(
        kernel: &Arc<dyn Kernel>,
        plan: &Plan,
        limits: Limits,
        program: &Path,
        interrupt: &mut Interrupt,
        extras: Extras,
    ) -> Result<Self, PrepareError> {
        let mut members = open_all(kernel, &plan.filesystems)?;
        let mut idle = open_witnesses(&plan.witnesses)?;
        // Its device is claimed; nothing is there to freeze, and the watchdog has nothing to do.
        for away in plan.filesystems.iter().filter(|f| f.method == Method::Unmount) {
            idle.extend(open_witnesses(&away.witnesses)?);
        }
        flush::all(kernel, &mut members, limits.flush, interrupt).await?;
        let (mut fds, mut subjects) = (Vec::new(), Vec::new());
        for member in members.iter_mut().filter(|m| m.method == Method::Freeze) {
            member.freezer = Some(fds.len());
            fds.push(Arc::clone(&member.fd));
            subjects.push(Subject { fd: Arc::clone(&member.fd), elsewhere: ask::is_for(&member.fstype) });
        }
        let (mut guard, knob) = start_guard(program, &fds, extras)?;
        let freezers = match Freezers::start(kernel, guard.page(), subjects) {
            Ok(freezers) => freezers,
            Err(e) => {
                guard.dismiss(); // else it would stay for as long as this process does
                return Err(PrepareError::Thread(e));
            }
        };
        let mut prepared = Self { kernel: Arc::clone(kernel), members, idle, guard, freezers, limits, knob };
        if let Err(e) = flush::again(kernel, &mut prepared.members, limits.flush, interrupt).await {
            prepared.dismiss();
            return Err(e.into());
        }
        memory::lock();
        Ok(prepared)
    }

    /// What the journal has to know to put `rcu_expedited` back.
    #[must_use]
    pub fn expedited(&self) -> Option<Former> {
        self.knob.as_ref().map(|k| k.former().clone())
    }

    /// The watchdog's process id.
    #[must_use]
    pub fn watchdog(&self) -> u32 {
        self.guard.pid()
    }

    /// Ends without freezing.
    pub fn dismiss(mut self) {
        self.guard.dismiss();
    }
}

/// Starts the watchdog in a thread, since exec opens files too and may be kept waiting as [`open_all`] may.
fn start_guard(
    program: &Path,
    fds: &[Arc<OwnedFd>],
    extras: Extras,
) -> Result<(Guard, Option<Knob>), PrepareError> {
    let runtime = tokio::runtime::Handle::current();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let (path, fds) = (program.to_path_buf(), fds.to_vec());
    std::thread::Builder::new()
        .name("start-watchdog".to_owned())
        .stack_size(256 * 1024) // the C library keeps it, and mlockall pins it
        .spawn(move || {
            let _runtime = runtime.enter();
            let Extras { knob, afterwards } = extras;
            let started = Guard::start(&path, &fds, knob.as_ref(), afterwards.as_deref());
            let _ = tell.send((started, knob));
        })
        .map_err(PrepareError::Thread)?;
    // The watchdog itself has a limit of its own to get ready.
    let limit = member::OPEN_LIMIT + Duration::from_secs(10);
    match told.recv_timeout(limit) {
        Ok((started, knob)) => Ok((started?, knob)),
        Err(_) => Err(PrepareError::OpenHangs {
            path: program.to_path_buf(),
            limit,
            suspects: processes::asking(Path::new("/")),
        }),
    }
}
impl Prepared {
    pub(super) fn check(&self, indices: &[usize], reports: &[Report]) -> Result<(), FreezeFailure> {
        for member in &self.members {
            let Some(index) = member.freezer.filter(|i| indices.contains(i)) else { continue };
            let errno = match reports[index] {
                Report::Frozen(_) => continue,
                Report::Failed(errno) | Report::ThawFails(errno) => errno,
                _ => Errno::EIO, // its thread panicked
            };
            return Err(FreezeFailure::Refused {
                mount_point: member.mount_point.clone(),
                fstype: member.fstype.clone(),
                errno,
            });
        }
        Ok(())
    }

    pub(super) fn stuck(&self) -> Vec<PathBuf> {
        let reports = self.freezers.board().read();
        let stuck = |m: &&Member| m.freezer.is_some_and(|i| reports[i] == Report::Freezing);
        self.members.iter().filter(stuck).map(|m| m.mount_point.clone()).collect()
    }

    pub(super) fn stderr_may_block(&self, reports: &[Report]) -> bool {
        // It may have its own files on what is stuck, and its socket then fills up.
        if crate::report::log::to_journald() {
            return true;
        }
        let stuck = |m: &&Member| m.freezer.is_some_and(|i| reports[i].may_be_frozen());
        let stderr = superblock::of(std::io::stderr());
        stderr.is_some() && self.members.iter().filter(stuck).any(|m| superblock::of(&*m.fd) == stderr)
    }

    pub(super) fn moved(&self) -> Vec<Moved> {
        let mut moved = Vec::new();
        for member in &self.members {
            let unfrozen = member.method != Method::Freeze;
            moved.extend(member.witnesses.iter().filter_map(|w| w.moved(&self.kernel, unfrozen)));
        }
        moved.extend(self.idle.iter().filter_map(|w| w.moved(&self.kernel, true)));
        moved
    }

    pub(super) fn finish(
        mut self,
        reports: &[Report],
        fired: Option<watchdog::Trigger>,
        moved: Vec<Moved>,
        times: Times,
        length: Duration,
    ) -> Thawed {
        let mut thawed =
            Thawed { moved, times, length, fired: fired.or(self.guard.fired()), ..Thawed::default() };
        let stamps = self.freezers.board().stamps();
        for member in &self.members {
            let stamps = member.freezer.and_then(|i| stamps.get(i).copied()).unwrap_or_default();
            thawed.stalls.push(Stall {
                mount_point: member.mount_point.clone(),
                flush: member.flush,
                freeze: stamps.freeze(),
                stalled: stamps.stalled(),
            });
            if member.unsynced.is_some() {
                thawed.unsynced.push(member.mount_point.clone());
            }
            let Some(report) = member.freezer.map(|i| reports[i]) else { continue };
            match report {
                Report::Thawed => thawed.held.push(member.mount_point.clone()),
                Report::ThawedByOther => thawed.thawed_by_other.push(member.mount_point.clone()),
                r if r.may_be_frozen() => thawed.still_frozen.push(member.mount_point.clone()),
                _ => {}
            }
        }
        if thawed.still_frozen.is_empty() {
            self.guard.dismiss();
        }
        memory::unlock();
        thawed
    }
}
