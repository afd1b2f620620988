//! After a run of a plan that waits: until the set is complete, then the commands for the end.
//!
//! In: the outcome of a run, with the commands that are left. Out: the same outcome, with what became of the set and
//! of the commands. Must never: run while anything is frozen, held or locked, or call a set complete that EC2 does not.

use std::path::Path;

use super::applications;
use super::job::Job;
use super::settle;
use super::take::{self, Left, Outcome};
use crate::clock::Clock;
use crate::ec2::keep::Keep;
use crate::ec2::repeat::Repeating;
use crate::interrupt::Interrupt;
use crate::quiesce::{self, Phase, RunResult};
use crate::sets::follow::{Followed, Tell, follow};
use crate::sets::wait::Waiting;

/// Waits for the set, runs the commands for the end, and writes the record once more. Nothing happens where nothing is
/// left.
pub async fn complete<E: Keep>(
    ec2: &Repeating<'_, E>,
    clock: &dyn Clock,
    job: &Job<'_>,
    state_dir: &Path,
    outcome: &mut Outcome,
    interrupt: &mut Interrupt,
    tell: &mut dyn Tell,
) {
    let Some(Left { attempted, mut env }) = outcome.left.take() else { return };
    let record = &mut outcome.record;
    let mut waiting = Waiting::made(record);
    let followed = follow(ec2, &mut waiting, None, clock, interrupt, tell).await;
    let again = format!("`stillpoint wait {}` goes on", record.run_id);
    let finished = match followed {
        Ok(Followed::Completed) => {
            for snapshot in &mut record.snapshots {
                "completed".clone_into(&mut snapshot.state);
            }
            quiesce::finish(&attempted, Phase::Completed, &env).await
        }
        Ok(Followed::Lost(why)) => {
            env.result = RunResult::Failed;
            env.reason = Some(format!("EC2 could not complete the set: {why}"));
            record.after.push(format!("EC2 could not complete the set: {why}"));
            quiesce::finish(&job.settings.hooks, Phase::Failed, &env).await
        }
        // Whether there is a set is not known: neither command would be right.
        Ok(Followed::Interrupted(signal)) => {
            outcome.signal = Some(signal);
            record.after.push(format!("interrupted by {signal} while EC2 completes the set; {again}"));
            Vec::new()
        }
        Ok(Followed::NotYet) => Vec::new(),
        Err(e) => {
            record.after.push(format!("cannot see whether the set is complete: {}; {again}", e.with_hint()));
            Vec::new()
        }
    };
    record.after.extend(applications::after(&finished));
    record.hooks.extend(finished);
    record.exit = take::exit(job, record, None);
    if let Some(trouble) = settle::keep(state_dir, record) {
        record.after.push(trouble);
        record.exit = take::exit(job, record, None);
    }
}
