//! What `snapshot` does once the set has its label and its record: it locks it, where the plan says so, and prunes.
//!
//! In: a run that is over. Out: in its record what failed, and the exit code that follows. Must never: change the
//! label, or do anything while a filesystem may be frozen or is not mounted.

use super::lock::described;
use super::prune::Done;
use super::say;
use crate::config::Loaded;
use crate::ec2::aws::Aws;
use crate::ec2::repeat::Repeating;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::sets::lock::{self, Step};
use crate::sets::record::{self, SetRecord};

/// Locks the snapshots of a new set. One that cannot be locked is a failure after the set was taken.
pub(super) async fn lock(loaded: &Loaded, ec2: &Aws, set: &mut SetRecord, interrupt: &Interrupt) {
    let Some(settings) = &loaded.settings.plan.lock else { return };
    if set.snapshots.is_empty() {
        return;
    }
    let how = described(&settings.wanted());
    // A set that the plan does not accept would be kept, and billed, for all the days of the lock.
    if !is_accepted(set) {
        say(&format!("{} is not locked {how}: it is not what the plan asks for", set.run_id));
        return;
    }
    let steps = set.snapshots.iter().map(|s| Step { id: s.id.clone(), lock: Some(settings.wanted()) });
    let ec2 = Repeating::for_each_call(ec2, &loaded.settings.ec2).until(interrupt);
    let done = lock::lock(&ec2, steps.collect()).await;
    let all = done.len();
    let mut failed = Vec::new();
    for (step, said) in done {
        if let Err(e) = said {
            failed.push(format!("{} is NOT locked {how}: {}", step.id, e.with_hint()));
        }
    }
    let locked = all - failed.len();
    if locked > 0 {
        say(&format!("{locked} of {all} snapshots are locked {how}; the days begin with their completion"));
    }
    if failed.is_empty() {
        return;
    }
    failed.push(format!("`stillpoint lock {} …` locks what is not locked yet", set.run_id));
    add(loaded, set, failed);
}

/// Is the set what its plan accepts? Then nothing is frozen, and everything is mounted.
fn is_accepted(set: &SetRecord) -> bool {
    matches!(set.exit, Exit::Ok | Exit::Lower | Exit::After) && !set.snapshots.is_empty()
}

/// Removes the sets that the plan's rules let go. Returns what was done, and the exit code of a prune like it. Nothing
/// is removed after a run that has not taken what its plan
/// asks for.
pub(super) async fn prune(loaded: &Loaded, ec2: &Aws, set: &mut SetRecord) -> Option<(Done, Exit)> {
    if !is_accepted(set) {
        say("nothing is pruned: this run has not taken what its plan asks for");
        return None;
    }
    let (done, failed) = match super::prune::after_run(loaded, ec2, &set.identity.instance_id).await {
        Ok((done, failed)) => (Some(done), failed),
        Err(e) => {
            let hint = e.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
            (None, vec![format!("prune: {e}{hint}")])
        }
    };
    let exit = if failed.is_empty() { Exit::Ok } else { Exit::After };
    if !failed.is_empty() {
        add(loaded, set, failed);
    }
    done.map(|done| (done, exit))
}

/// What failed after the set was taken: in the record, and the exit code that says so.
fn add(loaded: &Loaded, set: &mut SetRecord, failed: Vec<String>) {
    set.after.extend(failed);
    set.exit = Exit::After;
    if let Err(e) = record::keep(&loaded.settings.state_dir, set) {
        tracing::warn!("the record does not say what failed after the set was taken: {e}");
    }
}
