//! The log's gate: shut while anything is frozen, because a write to a frozen filesystem blocks in state D
//! until it is thawed, and this process is the one that thaws.
//!
//! In: bytes for stderr. Out: the same bytes, at once or when the gate opens. Must never: write to stderr
//! while shut.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static SHUT: AtomicUsize = AtomicUsize::new(0);
static TO_JOURNALD: AtomicBool = AtomicBool::new(false);
static HELD_BACK: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn held_back() -> MutexGuard<'static, Vec<u8>> {
    HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gate stays shut while one of these lives.
#[derive(Debug)]
pub struct Shut(());

/// Shuts the gate.
#[must_use = "the gate opens again when this is dropped"]
pub fn shut() -> Shut {
    SHUT.fetch_add(1, Ordering::SeqCst);
    Shut(())
}

/// True while the gate is shut.
#[must_use]
pub fn is_shut() -> bool {
    SHUT.load(Ordering::SeqCst) > 0
}

/// Sets whether stderr and the log go to journald.
pub fn set_journald(is: bool) {
    TO_JOURNALD.store(is, Ordering::SeqCst);
}

/// Do stderr and the log go to journald? journald may wait for a frozen filesystem itself, and then reads
/// nothing more.
#[must_use]
pub fn goes_to_journald() -> bool {
    TO_JOURNALD.load(Ordering::SeqCst)
}

impl Shut {
    /// The gate stays shut for the rest of this process: something stays frozen.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        if SHUT.fetch_sub(1, Ordering::SeqCst) == 1 {
            let bytes = std::mem::take(&mut *held_back());
            let _ = std::io::stderr().write_all(&bytes);
        }
    }
}

/// A writer to stderr that respects the gate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if is_shut() {
            held_back().extend_from_slice(bytes);
            Ok(bytes.len())
        } else {
            std::io::stderr().write(bytes)
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends the messages of panics through the gate too: the default hook writes to stderr at once.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(Stderr, "stillpoint: bug: {info}");
    }));
}
