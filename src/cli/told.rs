//! What became of each snapshot of a set that was to be changed, told in the same way by every such command.
//!
//! In: what was tried at each. Out: ids on stdout, a line each on stderr, the exit code. Must never: call a set
//! changed of which a snapshot is not.

use super::{Output, print, print_document, say};
use crate::ec2::Ec2Error;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::SnapshotId;
use crate::report::change::{self, Changed, Changes, OfSet};
use crate::sets::set::SnapshotSet;

/// The command that changes something.
pub(super) struct Command {
    pub name: &'static str,
    pub dry_run: bool,
    pub output: Output,
}

impl Command {
    /// Prints what became of these sets, where JSON is wanted. Returns the exit code.
    pub fn print(&self, sets: Vec<OfSet>, exit_code: Exit) -> Result<Exit, Error> {
        if self.output == Output::Json {
            let (command, dry_run) = (self.name, self.dry_run);
            let changes = Changes { version: change::VERSION, command, dry_run, sets, exit_code };
            print_document(&changes)?;
        }
        Ok(exit_code)
    }
}

/// One snapshot.
pub(super) struct Told {
    pub id: SnapshotId,
    /// Whom a permission is given to or taken from.
    pub accounts: Vec<String>,
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

impl Told {
    fn changed(&self) -> Changed {
        let one = match &self.change {
            Some(change) => Changed::by(&self.id, &change.said),
            None => Changed::would(&self.id, false),
        };
        Changed { accounts: self.accounts.clone(), ..one }
    }
}

/// Says it. Where nothing was changed because no permission allowed it, that is the error.
pub(super) fn tell(command: &Command, done: Vec<(&SnapshotSet, Vec<Told>)>) -> Result<Exit, Error> {
    let of_set =
        |(set, done): &(&SnapshotSet, Vec<Told>)| OfSet::of(set, done.iter().map(Told::changed).collect());
    let sets = done.iter().map(of_set).collect();
    let done: Vec<Told> = done.into_iter().flat_map(|(_, done)| done).collect();
    let changes = || done.iter().filter_map(|told| told.change.as_ref());
    if changes().next().is_none() {
        say("nothing had to be changed");
        return command.print(sets, Exit::Ok);
    }
    if changes().all(|change| change.said.as_ref().is_err_and(Ec2Error::denied))
        && let Some(e) = done.iter().find_map(|told| told.change.as_ref()?.said.as_ref().err())
    {
        return Err(e.clone().into());
    }
    let mut exit = Exit::Ok;
    for Told { id, change, .. } in done {
        match change {
            None => say(&format!("{id} stays as it is")),
            Some(Change { said: Ok(()), good, .. }) => {
                if command.output == Output::Text {
                    print(id.as_str());
                }
                say(&format!("{id} {good}"));
            }
            Some(Change { said: Err(e), bad, .. }) => {
                exit = Exit::After;
                let hint = e.hint().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
                say(&format!("{id} {bad}: {e}{hint}"));
            }
        }
    }
    command.print(sets, exit)
}
