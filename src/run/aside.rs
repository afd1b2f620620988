//! Looking at this host beside the runtime: reads that may take long do not keep signals waiting.
//!
//! In: the work. Out: what it came to. Must never: be used while anything is frozen.

use crate::error::Error;
use crate::exit::Exit;

/// Does the work in a thread of the runtime that may block.
///
/// # Errors
/// When the work ends unexpectedly.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Exit::Bug, format!("looking at this host ended: {e}")))
}
