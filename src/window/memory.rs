//! The window's memory: what it will want is there before the first FIFREEZE, and stays.
//!
//! In: the kernel. Out: a heap with room in it, all of it locked. Must never: be called while anything is
//! frozen, or fail a run: without locked memory the window is safe, only perhaps longer.

use std::hint::black_box;

use crate::host::kernel::Kernel;

/// What the call to EC2 allocates and frees is a few hundred KiB (traced).
const ROOM: usize = 1 << 20;

/// Makes room in the heap, and locks everything.
pub(super) fn lock(kernel: &dyn Kernel) {
    // glibc gives the top of the heap back when it is freed, and asks the kernel again (brk) for the next
    // allocation. How much it keeps is twice the largest block that was mapped on its own and freed:
    // mallopt(3), M_MMAP_THRESHOLD, "dynamic".
    drop(black_box(vec![0_u8; 2 * ROOM]));
    drop(black_box(vec![1_u8; ROOM]));
    // A page that has to be read back while memory is short waits for write-back, which waits for the thaw.
    if let Err(errno) = kernel.lock_memory() {
        tracing::warn!("cannot lock memory ({}): the window is safe, but may be longer", errno.desc());
    }
}

/// Unlocks the memory. The room in the heap stays.
pub(super) fn unlock(kernel: &dyn Kernel) {
    let _ = kernel.unlock_memory();
}
