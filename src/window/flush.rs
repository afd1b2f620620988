//! syncfs before the freeze: bounded, and broken off by a signal.
//!
//! In: the filesystems of a window. Out: all flushed, or why not. Must never: be waited for without a bound,
//! since applications are quiesced meanwhile, or run while anything is frozen.
//!
//! A syncfs in progress cannot be aborted (a dead disk, an image on what somebody else has frozen). Its
//! thread is left behind, and the process can do all it has to, but not be gone, before it returns.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::unbounded_channel;

use super::filesystem::Filesystem;
use crate::host::kernel::Kernel;
use crate::host::thread::STACK;
use crate::interrupt::Interrupt;
use crate::plan::Method;

/// A flush from this long on is followed by another one.
const LONG: Duration = Duration::from_millis(50);
/// Most flushes of one filesystem in a row.
const FLUSHES: u32 = 4;

/// How long flushing may take before a window's first FIFREEZE: all flushes have one limit together, since the
/// applications wait for their sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    limit: Duration,
    spent: Duration,
}

impl Allowance {
    /// Nothing is spent yet.
    pub fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO }
    }

    /// What is left of it.
    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.spent)
    }
}

/// Why flushing was not completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each variant and field is")]
pub enum FlushError {
    #[error("cannot flush {}", mount_point.display())]
    Failed { mount_point: PathBuf, source: Errno },
    #[error("flushing takes longer than {}: {}", humantime::format_duration(*limit), super::list(flushing))]
    TooLong { limit: Duration, flushing: Vec<PathBuf> },
    #[error("interrupted by {0}")]
    Interrupted(Signal),
    #[error("cannot start a flushing thread: {}", .0.desc())]
    Thread(Errno),
}

impl FlushError {
    /// What the user can do about it; none when the message says all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::TooLong { .. }).then(|| {
            "nothing was frozen. What is written does not get through: a disk that does not answer, or an \
             image file on a filesystem that something else has frozen (ps -eo pid,stat,wchan,comm shows \
             processes in state D, dmesg tells of hung ones). A disk that is only slow needs a longer \
             `flush_timeout`"
                .to_owned()
        })
    }
}

/// syncfs on all at once, so that FIFREEZE finds little to write (512 MiB dirty: 235 ms down to 23 ms on
/// ext4); and again where it took long, since much may have been written meanwhile.
pub(super) async fn all(
    kernel: &Arc<dyn Kernel>,
    filesystems: &mut [Filesystem],
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    these(kernel, filesystems.iter_mut().collect(), allowance, interrupt).await
}

/// Once more where flushing took long: writers have gone on while the watchdog was started.
pub(super) async fn again(
    kernel: &Arc<dyn Kernel>,
    filesystems: &mut [Filesystem],
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    these(kernel, filesystems.iter_mut().filter(|m| m.flush >= LONG).collect(), allowance, interrupt).await
}

/// The last time before the freeze. What has been written since the flush before, FIFREEZE would write, while
/// the writers wait.
pub(super) async fn last(
    kernel: &Arc<dyn Kernel>,
    filesystems: &mut [Filesystem],
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    let frozen = filesystems.iter_mut().filter(|m| m.method == Method::Freeze);
    these(kernel, frozen.collect(), allowance, interrupt).await
}

async fn these(
    kernel: &Arc<dyn Kernel>,
    filesystems: Vec<&mut Filesystem>,
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    let of: Vec<_> = filesystems.iter().map(|m| (m.mount_point.clone(), Arc::clone(&m.fd))).collect();
    let took = each(kernel, of, allowance, interrupt).await?;
    for (filesystem, took) in filesystems.into_iter().zip(took) {
        filesystem.flush += took;
    }
    Ok(())
}

/// Flushes again while a flush takes long and less than half of the one before, at most [`FLUSHES`] times.
/// A writer that is as fast as the disk would otherwise keep this going for ever.
fn until_short(mut flush: impl FnMut() -> nix::Result<Duration>) -> nix::Result<()> {
    let mut before = Duration::MAX;
    for _ in 0..FLUSHES {
        let took = flush()?;
        if took < LONG || took > before / 2 {
            break;
        }
        before = took;
    }
    Ok(())
}

/// Flushes a filesystem that cannot freeze until a flush finds nothing to write: what is on its device is
/// then all of it. The write counters are read before that flush: whatever is written from then on is seen to
/// have moved them, the last flush's own writes included.
pub(super) async fn quiesce(
    kernel: &Arc<dyn Kernel>,
    filesystem: &mut Filesystem,
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<(), FlushError> {
    for _ in 0..50 {
        for witness in &mut filesystem.witnesses {
            witness.take_baseline(kernel);
        }
        let of = vec![(filesystem.mount_point.clone(), Arc::clone(&filesystem.fd))];
        match each(kernel, of, allowance, interrupt).await {
            Ok(_) => {}
            // The kernel reports a failed write-back once: a later success must not cover it.
            Err(FlushError::Failed { source, .. }) => filesystem.unsynced = Some(source),
            Err(other) => return Err(other),
        }
        if filesystem.witnesses.iter().all(|w| w.moved(kernel, true).is_none()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Flushes each in a thread of its own; how long each took.
async fn each(
    kernel: &Arc<dyn Kernel>,
    of: Vec<(PathBuf, Arc<OwnedFd>)>,
    allowance: &mut Allowance,
    interrupt: &mut Interrupt,
) -> Result<Vec<Duration>, FlushError> {
    let began = Instant::now();
    let end = began + allowance.left();
    let (tx, mut rx) = unbounded_channel();
    for (index, (_, fd)) in of.iter().enumerate() {
        let (kernel, fd, tx) = (Arc::clone(kernel), Arc::clone(fd), tx.clone());
        let flush = move || {
            let started = Instant::now();
            let said = until_short(|| {
                let began = Instant::now();
                kernel.syncfs(fd.as_fd()).map(|()| began.elapsed())
            });
            // Before the result is sent: this must not be the last descriptor, which could then be closed at
            // any time.
            drop(fd);
            let _ = tx.send((index, said, started.elapsed()));
        };
        let thread = std::thread::Builder::new().name("flush".to_owned()).stack_size(STACK).spawn(flush);
        thread.map_err(|e| FlushError::Thread(Errno::from_raw(e.raw_os_error().unwrap_or_default())))?;
    }
    drop(tx);
    let mut took = vec![None; of.len()];
    while let Some(index) = took.iter().position(Option::is_none) {
        let failed = |index: usize, source| FlushError::Failed { mount_point: of[index].0.clone(), source };
        tokio::select! {
            said = rx.recv() => match said {
                Some((index, Ok(()), time)) => took[index] = Some(time),
                Some((index, Err(errno), _)) => return Err(failed(index, errno)),
                None => return Err(failed(index, Errno::EIO)), // its thread panicked
            },
            signal = interrupt.caught() => return Err(FlushError::Interrupted(signal)),
            () = tokio::time::sleep_until(end.into()) => {
                let left = of.iter().zip(&took).filter(|(_, took)| took.is_none());
                let limit = allowance.limit;
                return Err(FlushError::TooLong { limit, flushing: left.map(|((m, _), _)| m.clone()).collect() });
            }
        }
    }
    allowance.spent += began.elapsed();
    Ok(took.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_flush_is_repeated_while_that_helps() {
        let passes = |took: &[u64]| {
            let mut done = 0;
            until_short(|| {
                done += 1;
                took.get(done - 1).map(|ms| Duration::from_millis(*ms)).ok_or(Errno::EIO)
            })
            .map(|()| done)
        };
        assert_eq!(passes(&[10]), Ok(1));
        assert_eq!(passes(&[800, 90, 10]), Ok(3));
        assert_eq!(passes(&[800, 700]), Ok(2), "a writer as fast as the disk");
        assert_eq!(passes(&[6400, 3200, 1600, 800]), Ok(4), "not for ever");
        assert_eq!(passes(&[800]), Err(Errno::EIO), "a failed flush is told");
    }
}
