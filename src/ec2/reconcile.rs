//! Looks up by run id which snapshots a create call has made whose answer was lost. The call is never
//! repeated.
//!
//! In: the run id and the instance. Out: the snapshots it made, or that none were seen. Must never: create or
//! delete anything, or take for the run's what only carries a copy of its tag.

use std::time::Duration;

use super::{Ec2, Ec2Error, SnapshotView};
use crate::clock::Clock;
use crate::ids::{InstanceId, RunId};
use crate::sets::tags;

/// What the look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Made(Vec<SnapshotView>),
    /// No look-up found any. That does not prove that none was made, because EC2 is eventually consistent.
    NoneSeen,
    /// A look-up failed: EC2 may have made snapshots or not.
    Unknown(Ec2Error),
}

/// Pauses before each look-up: EC2 is eventually consistent (EC2 guide, "eventual consistency"), so one is
/// not enough.
pub(crate) const LOOKS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6)];

/// Looks up after each of `pauses` until something is found, then once more, in case the first result was
/// still partial. `ec2` repeats a look-up that fails; one that fails for good ends this.
pub async fn by_run<E: Ec2>(
    ec2: &E,
    run: &RunId,
    instance: &InstanceId,
    pauses: &[Duration],
    clock: &dyn Clock,
) -> Outcome {
    for pause in pauses {
        clock.pause(*pause).await;
        match find(ec2, run, instance).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                clock.pause(*pause).await;
                let again = find(ec2, run, instance).await.unwrap_or_default();
                return Outcome::Made(if again.len() > found.len() { again } else { found });
            }
            Err(error) => return Outcome::Unknown(error),
        }
    }
    Outcome::NoneSeen
}

async fn find<E: Ec2>(ec2: &E, run: &RunId, instance: &InstanceId) -> Result<Vec<SnapshotView>, Ec2Error> {
    let (made, others) = tags::made_by(run, instance, ec2.find_run(run).await?);
    for other in others {
        tracing::warn!(
            "{} of {} carries the tag of run {run} and was not made by it: left alone",
            other.view.id,
            other.view.volume
        );
    }
    Ok(made.into_iter().map(|s| s.view).collect())
}
