//! The machine that a run works on: its folders, kernel, EC2 and clock.
//!
//! In: built by the command line, or by a test. Out: read by every step. Must never: know what is to be done
//! ([`Job`] does).
//!
//! [`Job`]: super::job::Job

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::step::{Step, Steps};
use crate::clock::Clock;
use crate::ec2::repeat::{Budgets, Repeating};
use crate::host::kernel::Kernel;
use crate::window::guard::StartGuard;

/// The machine that a run works on.
#[derive(Debug)]
pub struct Environment<'a, E> {
    /// Only [`Describe`](crate::ec2::Describe) for a goal that takes no set.
    pub ec2: &'a E,
    /// The boundary to the kernel; a test wraps it to make calls fail.
    pub kernel: Arc<dyn Kernel>,
    /// The folder that /proc, /sys and /etc are read below: `/`, or a host made by hand.
    pub root: &'a Path,
    /// Starts the watchdog when the window is prepared.
    pub watchdog: Arc<dyn StartGuard>,
    /// This program's own file, which a recovery is started from.
    pub program: &'a Path,
    /// Gives the wall time and the pauses between repeated calls; a test uses one that stands still.
    pub clock: &'a dyn Clock,
    /// EC2's least time between two snapshots of one volume.
    pub volume_interval: Duration,
    /// For how long calls that change nothing are repeated.
    pub retries: Budgets,
    /// Where the lock and the journal are: on a memory filesystem.
    pub run_dir: &'a Path,
    /// The folder on disk that holds the records of sets; by default `/var/lib/stillpoint`.
    pub state_dir: &'a Path,
    /// Receives each step: [`super::step::Progress`] in production.
    pub steps: &'a dyn Steps,
}

impl<E> Environment<'_, E> {
    pub(super) fn at(&self, step: Step) {
        self.steps.at(step);
    }

    /// EC2, with repeats, while nobody waits. The budget begins now.
    pub(super) fn patient(&self) -> Repeating<'_, E> {
        Repeating::new(self.ec2, self.clock, self.retries.free)
    }

    /// EC2, with the few repeats that fit while applications are held. The budget begins now.
    pub(super) fn patient_while_held(&self) -> Repeating<'_, E> {
        Repeating::held(self.ec2, self.clock, self.retries)
    }
}
