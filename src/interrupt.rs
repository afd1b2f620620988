//! SIGTERM, SIGINT, SIGHUP and SIGQUIT: caught once, and noticed by every step until EC2 has answered.
//!
//! An interrupted run thaws, releases its applications, reports, and then ends by that signal, unless exit
//! code 40 or 41 applies. Once EC2 has answered, a signal no longer interrupts: the set exists, what is left
//! takes a moment, and a good set must not look like one that was given up.
//!
//! In: signals. Out: [`Interrupt::caught`]. Must never: end the process itself; what is frozen or quiesced
//! comes first.

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The first signal that came, if one did. Clones see the same signal.
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
        std::mem::forget(tx); // a closed channel would look like a signal
        Self { first }
    }

    /// The signal that came, if one did.
    #[must_use]
    pub fn pending(&self) -> Option<Signal> {
        *self.first.borrow()
    }

    /// Waits for a signal; at once when one has come already.
    pub async fn caught(&mut self) -> Signal {
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
