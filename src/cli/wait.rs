//! `stillpoint wait SET`: until every snapshot of a set is completed.
//!
//! In: the name of a set. Out: exit code 0 once it is complete, 11 when EC2 could not complete it. Must never: end
//! because it takes long: snapshots of large volumes take hours, and a time limit is whoever waits.

use std::time::Duration;

use clap::Args;

use super::sets::{Account, SetName, set_name};
use super::start::{end, listen};
use super::{Global, print, say};
use crate::clock::{Clock as _, System};
use crate::ec2::keep::Wanted;
use crate::error::Error;
use crate::exit::Exit;
use crate::sets::find::snapshots;
use crate::sets::wait::{Seen, Waiting};

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Stop waiting after this time, such as 2h, with exit code 11. The snapshots go on.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let mut interrupt = listen()?;
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let ids: Vec<_> = set.snapshots().cloned().collect();
        let mut waiting = Waiting::of(&set);
        let began = System.elapsed();
        loop {
            // A network that is away comes back: only what EC2 says ends this.
            match snapshots(&account.calls(), &Wanted::Ids(ids.clone())).await {
                Ok(now) => {
                    for line in waiting.see(&now) {
                        say(&line);
                    }
                }
                Err(e) if e.passes() => say(&format!("{e}; asking again")),
                Err(e) => return Err(Error::from(e)),
            }
            match waiting.seen() {
                Seen::Completed => {
                    ids.iter().for_each(|id| print(id.as_str()));
                    say(&format!("{} is complete", set.id));
                    return Ok(Exit::Ok);
                }
                Seen::Failed(why) => {
                    say(&format!("{} is lost: {why}", set.id));
                    return Ok(Exit::After);
                }
                Seen::Pending => {}
            }
            let waited = System.elapsed().saturating_sub(began);
            if self.timeout.is_some_and(|limit| waited >= limit) {
                say(&format!("{} is not complete yet; `stillpoint wait {}` goes on", set.id, set.id));
                return Ok(Exit::After);
            }
            let pause = waiting.pause(waited);
            let pause = self.timeout.map_or(pause, |limit| pause.min(limit.saturating_sub(waited)));
            tokio::select! {
                signal = interrupt.caught() => return Ok(end(Exit::After, Some(signal))),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
