//! What became of each snapshot of a set that was to be changed, told in the same way by every such command.
//!
//! In: what was tried at each. Out: ids on stdout, a line each on stderr, the exit code. Must never: call a set
//! changed of which a snapshot is not.

use super::{print, say};
use crate::ec2::Ec2Error;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::SnapshotId;

/// One snapshot.
pub(super) struct Told {
    pub id: SnapshotId,
    /// What was tried at it; none where it is as it should be.
    pub change: Option<Change>,
}

/// What was tried at a snapshot.
pub(super) struct Change {
    pub said: Result<(), Ec2Error>,
    /// Said after its id when it went well, such as `is shared with 123456789012`.
    pub good: String,
    /// Said when it did not, before EC2's words.
    pub bad: String,
}

/// Says it. Where nothing was changed because no permission allowed it, that is the error.
pub(super) fn tell(done: Vec<Told>) -> Result<Exit, Error> {
    let changes = || done.iter().filter_map(|told| told.change.as_ref());
    if changes().next().is_none() {
        say("nothing had to be changed");
        return Ok(Exit::Ok);
    }
    if changes().all(|change| change.said.as_ref().is_err_and(Ec2Error::denied))
        && let Some(e) = done.iter().find_map(|told| told.change.as_ref()?.said.as_ref().err())
    {
        return Err(e.clone().into());
    }
    let mut exit = Exit::Ok;
    for Told { id, change } in done {
        match change {
            None => say(&format!("{id} stays as it is")),
            Some(Change { said: Ok(()), good, .. }) => {
                print(id.as_str());
                say(&format!("{id} {good}"));
            }
            Some(Change { said: Err(e), bad, .. }) => {
                exit = Exit::After;
                let hint = e.hint().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
                say(&format!("{id} {bad}: {e}{hint}"));
            }
        }
    }
    Ok(exit)
}
