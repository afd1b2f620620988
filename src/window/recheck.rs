//! What is asked of the kernel once everything is thawed, because nothing may be asked while it is frozen.
//!
//! In: [`Check`]s, each one call on a descriptor that is open from before the freeze. Out: [`Finding`]s, for
//! the verdict. Must never: keep anything frozen or claimed, be waited for while applications are held for
//! longer than a moment, or take a check that has not answered for one that passed.
//!
//! Each check runs in a thread of its own: a syncfs in progress cannot be broken off. A thread that does not
//! come back is left behind, as one that flushes is.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::check::{Check, Finding};
use super::thawed::{Rechecked, Thawed};
use crate::host::thread::STACK;
use crate::interrupt::Interrupt;

/// How long an answer is still waited for once a signal has come: the set exists by then, and a good one must
/// not look like an aborted one.
const AFTER_SIGNAL: Duration = Duration::from_secs(5);

/// Checks that were asked, and what they have answered so far.
#[derive(Debug, Default)]
#[must_use = "a freeze of which this is not known is not proven to have held"]
pub struct Recheck {
    answers: Option<UnboundedReceiver<(usize, Option<Finding>)>>,
    /// One for each check: its finding. While it has not answered, that is that it has not.
    findings: Vec<Option<Finding>>,
    missing: usize,
}

impl Recheck {
    /// Asks all of them.
    pub(super) fn start(checks: Vec<Check>) -> Self {
        let (tx, answers) = unbounded_channel();
        let mut findings = Vec::with_capacity(checks.len());
        for (index, check) in checks.into_iter().enumerate() {
            let tx = tx.clone();
            let work = move || {
                let found = (check.ask)();
                let _ = tx.send((index, found));
            };
            findings.push(Some(check.unanswered));
            // Without a thread it stays unanswered.
            let _ = std::thread::Builder::new().name("recheck".to_owned()).stack_size(STACK).spawn(work);
        }
        Self { answers: Some(answers), missing: findings.len(), findings }
    }

    /// Waits until every check has answered, for `limit` at most, and tells what is known by then. Can be
    /// called again: what has been answered is not lost.
    pub async fn tell(&mut self, thawed: &mut Thawed, limit: Duration, interrupt: &mut Interrupt) {
        let end = Instant::now() + limit;
        let mut signalled = None;
        while self.missing > 0
            && let Some(answers) = &mut self.answers
        {
            let end = signalled.map_or(end, |at: Instant| end.min(at + AFTER_SIGNAL));
            tokio::select! {
                biased;
                answer = answers.recv() => match answer {
                    Some((index, finding)) => {
                        self.findings[index] = finding;
                        self.missing -= 1;
                    }
                    None => break, // a thread panicked, or never started
                },
                _ = interrupt.caught(), if signalled.is_none() => signalled = Some(Instant::now()),
                () = tokio::time::sleep_until(end.into()) => break,
            }
        }
        if self.answers.is_none() {
            return;
        }
        let mut rechecked = Rechecked::default();
        for finding in self.findings.iter().flatten().cloned() {
            match finding {
                Finding::Doubt(why) => rechecked.doubts.push(why),
                Finding::Unwitnessed(what) => rechecked.unwitnessed.push(what),
            }
        }
        thawed.rechecked = Some(rechecked);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn doubt(why: &str) -> Finding {
        Finding::Doubt(why.to_owned())
    }

    fn check(ask: impl FnOnce() -> Option<Finding> + Send + 'static) -> Check {
        Check { unanswered: doubt("late"), ask: Box::new(ask) }
    }

    async fn told(recheck: &mut Recheck, limit: Duration) -> Option<Vec<String>> {
        let mut thawed = Thawed::default();
        recheck.tell(&mut thawed, limit, &mut Interrupt::never()).await;
        thawed.rechecked.map(|r| r.doubts)
    }

    #[tokio::test]
    async fn what_was_never_asked_is_not_known() {
        assert_eq!(told(&mut Recheck::default(), Duration::ZERO).await, None);
        assert!(Thawed::default().doubt().is_some(), "and not known is a doubt");
    }

    #[tokio::test]
    async fn a_check_that_has_not_answered_has_not_passed_and_may_still_answer() {
        let (go_on, wait) = channel::<()>();
        let late = check(move || wait.recv().err().map(|_| doubt("never")));
        let mut recheck = Recheck::start(vec![check(|| None), late, check(|| Some(doubt("EIO")))]);
        let said = told(&mut recheck, Duration::from_millis(300)).await.unwrap();
        assert!(said.contains(&"late".to_owned()), "{said:?}");
        go_on.send(()).unwrap();
        let said = told(&mut recheck, Duration::from_secs(60)).await.unwrap();
        assert_eq!(said, ["EIO"]);
    }

    #[tokio::test]
    async fn a_check_that_panics_has_not_passed() {
        let mut recheck = Recheck::start(vec![check(|| std::panic::resume_unwind(Box::new("injected")))]);
        assert_eq!(told(&mut recheck, Duration::from_secs(60)).await.unwrap(), ["late"]);
    }

    #[tokio::test]
    async fn a_signal_does_not_break_off_what_answers_soon() {
        let (_tx, rx) = tokio::sync::watch::channel(Some(nix::sys::signal::Signal::SIGTERM));
        let mut thawed = Thawed::default();
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            None
        };
        let mut recheck = Recheck::start(vec![check(slow)]);
        recheck.tell(&mut thawed, Duration::from_secs(60), &mut Interrupt::by(rx)).await;
        assert_eq!(thawed.rechecked, Some(Rechecked::default()));
    }
}
