//! SIGTERM, SIGINT, SIGHUP and SIGQUIT: caught once, and checked by every step until EC2 has answered.
//!
//! An interrupted run thaws, releases its applications, reports, and then ends by that signal, unless exit
//! code 40 or 41 applies. Once EC2 has answered, a signal no longer interrupts: the set exists, the remaining
//! steps are short, and a good set must not look like an aborted one.
//!
//! In: signals. Out: [`Interrupt::caught`]. Must never: end the process itself, because first everything must
//! be thawed and released.

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The first signal that was received, if any. Clones see the same signal.
#[derive(Debug, Clone)]
pub struct Interrupt {
    first: watch::Receiver<Option<Signal>>,
}

impl Interrupt {
    /// Starts listening, on the current runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let (tx, first) = watch::channel(None);
        for (kind, number) in [
            (SignalKind::terminate(), Signal::SIGTERM),
            (SignalKind::interrupt(), Signal::SIGINT),
            (SignalKind::hangup(), Signal::SIGHUP),
            (SignalKind::quit(), Signal::SIGQUIT),
        ] {
            let mut stream = signal(kind)?;
            let tx = tx.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    tx.send_if_modified(|first| first.is_none().then(|| *first = Some(number)).is_some());
                }
            });
        }
        Ok(Self { first })
    }

    /// One that is interrupted when the sender says so.
    #[must_use]
    pub fn by(first: watch::Receiver<Option<Signal>>) -> Self {
        Self { first }
    }

    /// One that is never interrupted.
    #[must_use]
    pub fn never() -> Self {
        let (tx, first) = watch::channel(None);
        std::mem::forget(tx); // keeps the channel open, as that of `listen` is
        Self { first }
    }

    /// The signal that was received, if any.
    #[must_use]
    pub fn pending(&self) -> Option<Signal> {
        *self.first.borrow()
    }

    /// Waits for a signal; returns at once when one was received before.
    pub(crate) async fn caught(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.pending() {
                return signal;
            }
            if self.first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
