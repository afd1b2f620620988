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
use crate::host::kernel::Kernel;
use crate::window::guard::StartGuard;

/// The machine that a run works on.
#[derive(Debug)]
pub struct Environment<'a, E> {
    /// EC2.
    pub ec2: &'a E,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The folder that /proc, /sys and /etc are read below: `/`, or a host made by hand.
    pub root: &'a Path,
    /// What the watchdog is started by.
    pub watchdog: Arc<dyn StartGuard>,
    /// This program's own file, which a recovery is started from.
    pub program: &'a Path,
    /// The wall clock and pauses.
    pub clock: &'a dyn Clock,
    /// EC2's least time between two snapshots of one volume.
    pub volume_interval: Duration,
    /// Where the lock and the journal are: on a memory filesystem.
    pub run_dir: &'a Path,
    /// Where records are kept.
    pub state_dir: &'a Path,
    /// Receives each step: [`super::step::PROGRESS`] in production.
    pub steps: &'a dyn Steps,
}

impl<E> Environment<'_, E> {
    pub(super) fn at(&self, step: Step) {
        self.steps.at(step);
    }
}
