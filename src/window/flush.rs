//! syncfs before the freeze: bounded, and broken off by a signal.
//!
//! In: the filesystems of a window. Out: all flushed, or why not. Must never: be waited for without a bound, since applications are held
//! meanwhile, or run while anything is frozen.
//!
//! A syncfs in progress cannot be aborted (a dead disk, an image on what somebody else has frozen). Its thread is left behind, and the
//! process can do all it has to, but not be gone, before it returns.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::unbounded_channel;

use super::kernel::Kernel;
use super::member::Member;
use crate::interrupt::Interrupt;

/// Why not everything was flushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// syncfs said no.
    #[error("cannot flush {}", mount_point.display())]
    Failed {
        /// The mount point.
        mount_point: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It does not come back.
    #[error("flushing takes longer than {}: {}", humantime::format_duration(*limit), super::list(flushing))]
    TooLong {
        /// The limit, `flush_timeout`.
        limit: Duration,
        /// Mount points that are still being flushed.
        flushing: Vec<PathBuf>,
    },
    /// A signal came.
    #[error("interrupted by {0}")]
    Interrupted(Signal),
    /// A thread could not be started.
    #[error("cannot start a flushing thread: {}", .0.desc())]
    Thread(Errno),
}

impl FlushError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::TooLong { .. }).then(|| {
            "nothing was frozen. What is written does not get through: a disk that does not answer, or an image file on a filesystem \
             that something else has frozen (ps -eo pid,stat,wchan,comm shows processes in state D, dmesg tells of hung ones). A disk that \
             is only slow needs a longer `flush_timeout`"
                .to_owned()
        })
    }
}

/// syncfs on all at once, so that FIFREEZE finds little to write (512 MiB dirty: 235 ms down to 23 ms on ext4).
pub(super) async fn all(
    kernel: &Arc<dyn Kernel>,
    members: &mut [Member],
    limit: Duration,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    let of: Vec<_> = members.iter().map(|m| (m.mount_point.clone(), Arc::clone(&m.fd))).collect();
    let took = each(kernel, of, limit, interrupt).await?;
    for (member, took) in members.iter_mut().zip(took) {
        member.flush = took;
    }
    Ok(())
}

/// Flushes a filesystem that cannot freeze until its device is idle, then takes the first look at its counters.
pub(super) async fn quiesce(
    kernel: &Arc<dyn Kernel>,
    member: &mut Member,
    limit: Duration,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    let end = Instant::now() + limit;
    for _ in 0..50 {
        let of = vec![(member.mount_point.clone(), Arc::clone(&member.fd))];
        match each(kernel, of, end.saturating_duration_since(Instant::now()), interrupt).await {
            Ok(_) => {}
            // The kernel reports a failed write-back once: a later success must not cover it.
            Err(FlushError::Failed { source, .. }) => member.unsynced = Some(source),
            Err(FlushError::TooLong { flushing, .. }) => return Err(FlushError::TooLong { limit, flushing }),
            Err(other) => return Err(other),
        }
        if member.witnesses.iter().all(|w| w.idle(kernel)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for witness in &mut member.witnesses {
        witness.look(kernel);
    }
    Ok(())
}

/// A thread each; how long each took.
async fn each(
    kernel: &Arc<dyn Kernel>,
    of: Vec<(PathBuf, Arc<OwnedFd>)>,
    limit: Duration,
    interrupt: &mut Interrupt,
) -> Result<Vec<Duration>, FlushError> {
    let end = Instant::now() + limit;
    let (tell, mut told) = unbounded_channel();
    for (index, (_, fd)) in of.iter().enumerate() {
        let (kernel, fd, tell) = (Arc::clone(kernel), Arc::clone(fd), tell.clone());
        let flush = move || {
            let started = Instant::now();
            let said = kernel.syncfs(fd.as_fd());
            // Before it is told: this fd must not be the last one, to be closed at any time.
            drop(fd);
            let _ = tell.send((index, said, started.elapsed()));
        };
        let thread = std::thread::Builder::new().name("flush".to_owned()).spawn(flush);
        thread.map_err(|e| FlushError::Thread(Errno::from_raw(e.raw_os_error().unwrap_or_default())))?;
    }
    drop(tell);
    let mut took = vec![None; of.len()];
    while let Some(index) = took.iter().position(Option::is_none) {
        let failed = |index: usize, source| FlushError::Failed { mount_point: of[index].0.clone(), source };
        tokio::select! {
            said = told.recv() => match said {
                Some((index, Ok(()), time)) => took[index] = Some(time),
                Some((index, Err(errno), _)) => return Err(failed(index, errno)),
                None => return Err(failed(index, Errno::EIO)), // its thread panicked
            },
            signal = interrupt.caught() => return Err(FlushError::Interrupted(signal)),
            () = tokio::time::sleep_until(end.into()) => {
                let left = of.iter().zip(&took).filter(|(_, took)| took.is_none());
                return Err(FlushError::TooLong { limit, flushing: left.map(|((m, _), _)| m.clone()).collect() });
            }
        }
    }
    Ok(took.into_iter().flatten().collect())
}
