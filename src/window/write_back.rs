//! Was everything that was written to a filesystem also written to its device?
//!
//! In: a filesystem's descriptor, open since before its flush. Out: a [`Check`] for after the thaw. Must
//! never: run while anything is frozen.
//!
//! The kernel writes in the background. When that fails (a disk below is full, a sector is bad, a loop
//! device's image cannot grow), neither write(2) nor FIFREEZE says so: what was to be written is lost, and
//! the kernel remembers an error for the superblock. syncfs(2) reports it once to each descriptor that was
//! open by then (errseq, `s_wb_err` in fs/sync.c). The flushes before the freeze report it too, and their
//! errors end the run; an error that comes after the last of them, in FIFREEZE's own flush for one, is
//! reported by nobody but the next syncfs of the same descriptor.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::check::{Check, Finding};
use super::filesystem::Filesystem;
use crate::host::kernel::Kernel;
use crate::path_encoding::shown;

/// Asks for errors since the flush.
pub(super) fn check(kernel: &Arc<dyn Kernel>, filesystem: &Filesystem) -> Check {
    let (kernel, fd) = (Arc::clone(kernel), Arc::clone(&filesystem.fd));
    let place = shown(&filesystem.mount_point);
    let unanswered = format!("not known in time whether everything written to {place} reached its device");
    let ask = move || {
        let errno = kernel.syncfs(fd.as_fd()).err()?;
        Some(Finding::Doubt(format!(
            "what was written to {place} did not all reach its device: {}",
            errno.desc()
        )))
    };
    Check { unanswered: Finding::Doubt(unanswered), ask: Box::new(ask) }
}
