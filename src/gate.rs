//! The way to the log: a bounded queue, a thread of its own that writes, and a gate.
//!
//! ```text
//! anybody → queue → gate → the log's thread → stderr, or journald
//! ```
//!
//! A reader that has stopped reading (a pager, journald on a disk that hangs) blocks whoever writes to it. So
//! only the log's thread writes, and what does not fit into the queue is dropped and counted.
//!
//! The gate is shut while anything is frozen, because a write to a frozen filesystem blocks in state D until
//! it is thawed, and this process is the one that thaws.
//!
//! In: what is to be written, as work. Out: the same work, done in order. Must never: let anybody wait for
//! the log, write while shut, or drop something without saying so.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may wait to be written, bytes.
const ROOM: usize = 1 << 20;
/// More room for what must not be lost behind the chatter of a hook: warnings, errors, the end of a command.
const RESERVE: usize = 256 << 10;
/// How long shutting the gate waits for a write that has begun. One that blocks for longer waits for a reader
/// and not for a filesystem: nothing is frozen yet.
const BEGUN: Duration = Duration::from_millis(200);
/// How long the end of the process waits until everything is written.
const END: Duration = Duration::from_secs(2);

/// Which room in the queue is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Progress, and what hooks print.
    Chatter,
    /// Warnings, errors, and what a command says at its end.
    Essential,
}

type Work = Box<dyn FnOnce() + Send>;

struct Queue {
    waiting: VecDeque<(usize, Work)>,
    /// Bytes of what is waiting.
    size: usize,
    /// Messages that found no room since the last one that was written.
    dropped: u64,
    /// Is there a thread that writes? Without one (in tests, or where none could be started) whoever has
    /// something to say writes it.
    has_thread: bool,
    /// Does somebody write at this moment?
    writing: bool,
    /// The gate is open at zero.
    shut: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
/// Something is waiting, or the gate was opened.
static TO_WRITE: Condvar = Condvar::new();
/// Something has been written.
static WRITTEN: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), size: 0, dropped: 0, has_thread: false, writing: false, shut: 0 }
    }

    fn add(&mut self, weight: Weight, size: usize, work: Work) {
        let room = match weight {
            Weight::Chatter => ROOM,
            Weight::Essential => ROOM + RESERVE,
        };
        if self.size + size > room {
            self.dropped += 1;
            return;
        }
        self.size += size;
        self.waiting.push_back((size, work));
    }

    /// What is next to be written, where the gate is open.
    fn next(&mut self) -> Option<Work> {
        if self.shut > 0 {
            return None;
        }
        if let Some((size, work)) = self.waiting.pop_front() {
            self.size -= size;
            return Some(work);
        }
        match std::mem::take(&mut self.dropped) {
            0 => None,
            n => Some(Box::new(move || {
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: {n} messages were dropped, because the log was not read in time"
                );
            })),
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0 && !self.writing
    }
}

/// Writes all that waits, unless somebody else does, or the gate is shut.
fn write_waiting(mut queue: MutexGuard<'static, Queue>) -> MutexGuard<'static, Queue> {
    while !queue.writing
        && let Some(work) = queue.next()
    {
        queue.writing = true;
        drop(queue);
        // Whoever writes for others must go on after a panic in one of them.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        queue = self::queue();
        queue.writing = false;
        WRITTEN.notify_all();
    }
    queue
}

/// Starts the thread that writes. Best effort: without it, whoever logs writes too.
pub fn start() {
    let mut queue = queue();
    if !queue.has_thread {
        queue.has_thread = crate::host::thread::start("log", write_for_ever).is_ok();
    }
}

fn write_for_ever() {
    let mut queue = queue();
    loop {
        queue = write_waiting(queue);
        queue = TO_WRITE.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Queues what is to be written. `size`: the bytes it takes.
pub fn add(weight: Weight, size: usize, work: impl FnOnce() + Send + 'static) {
    let mut queue = queue();
    queue.add(weight, size, Box::new(work));
    if queue.shut > 0 {
        // A wake-up would be a system call of the frozen window. Opening the gate wakes the thread.
    } else if queue.has_thread {
        TO_WRITE.notify_one();
    } else {
        drop(write_waiting(queue));
    }
}

/// Waits until everything is written, for two seconds at most. To be called before the process ends.
pub fn finish() {
    let end = Instant::now() + END;
    let mut queue = queue();
    while !queue.is_empty() && queue.shut == 0 && queue.has_thread {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        queue = WRITTEN.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The gate stays shut while one of these lives.
#[derive(Debug)]
pub struct Shut(());

/// Shuts the gate. A write that has begun is waited for, since what it writes to may be frozen next.
#[must_use = "the gate opens again when this is dropped"]
pub fn shut() -> Shut {
    let mut queue = queue();
    queue.shut += 1;
    let begun = |queue: &mut Queue| queue.writing;
    drop(WRITTEN.wait_timeout_while(queue, BEGUN, begun).unwrap_or_else(PoisonError::into_inner));
    Shut(())
}

/// True while the gate is shut.
#[must_use]
pub fn is_shut() -> bool {
    queue().shut > 0
}

impl Shut {
    /// The gate stays shut for the rest of this process: something stays frozen.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        let mut queue = queue();
        queue.shut -= 1;
        if queue.has_thread {
            TO_WRITE.notify_one();
        } else {
            drop(write_waiting(queue));
        }
    }
}

/// A writer to stderr, by way of the queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let own = bytes.to_vec();
        add(Weight::Essential, own.len(), move || {
            let _ = std::io::stderr().write_all(&own);
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends the messages of panics through the queue too: the default hook writes to stderr at once.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let text = format!("stillpoint: bug: {info}\n");
        let _ = Stderr.write(text.as_bytes());
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let mut queue = Queue::new();
        for _ in 0..3 {
            queue.add(Weight::Chatter, ROOM / 2, Box::new(|| ()));
        }
        assert_eq!((queue.waiting.len(), queue.dropped), (2, 1));
        queue.add(Weight::Essential, RESERVE, Box::new(|| ()));
        assert_eq!((queue.waiting.len(), queue.dropped), (3, 1), "an error is not lost behind chatter");
        queue.add(Weight::Essential, 1, Box::new(|| ()));
        assert_eq!(queue.dropped, 2, "it has a limit too");
        let mut written = 0;
        while queue.next().is_some() {
            written += 1;
        }
        assert_eq!((written, queue.size, queue.dropped), (4, 0, 0), "three, and the count of the dropped");
    }

    #[test]
    fn nothing_is_written_while_shut() {
        let mut queue = Queue::new();
        queue.add(Weight::Essential, 1, Box::new(|| ()));
        queue.shut = 1;
        assert!(queue.next().is_none());
        queue.shut = 0;
        assert!(queue.next().is_some());
    }
}
