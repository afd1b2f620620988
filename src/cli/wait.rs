//! `stillpoint wait SET`: until every snapshot of a set is completed.
//!
//! In: the name of a set. Out: exit code 0 once it is complete, 11 when EC2 could not complete it. Must never: end
//! because it takes long: snapshots of large volumes take hours, and a time limit is whoever waits.

use std::time::Duration;

use clap::Args;

use super::follow::Progress;
use super::sets::{Account, SetName, set_name};
use super::start::{end, listen};
use super::{Global, print, say};
use crate::clock::{Clock as _, System};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::sets::follow::{Followed, follow, readable};
use crate::sets::wait::Waiting;

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The start of a set's id, or one of its snapshots.
    #[arg(value_parser = set_name)]
    set: SetName,
    /// Stop waiting after this time, such as 2h, with exit code 11. The snapshots go on.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    /// Also until the data can be read without a volume (EBS direct APIs), which may be minutes later.
    #[arg(long)]
    readable: bool,
}

impl Wait {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        let mut interrupt = listen()?;
        let account = Account::connect(global, None, false).await?;
        let set = account.set(&self.set).await?;
        let mut waiting = Waiting::of(&set);
        let mut progress = Progress::new();
        let ec2 = account.calls();
        // Before the wait, which may take hours: what cannot work is told at once.
        let direct = if self.readable { Some(account.direct().await?) } else { None };
        let began = System.elapsed();
        let mut followed =
            follow(&ec2, &mut waiting, self.timeout, &System, &mut interrupt, &mut progress).await;
        if let (Ok(Followed::Completed), Some(direct)) = (&followed, &direct) {
            let direct = Repeating::for_each_call(direct, &account.loaded.settings.ec2);
            let left = self.timeout.map(|limit| limit.saturating_sub(System.elapsed().saturating_sub(began)));
            followed = readable(&direct, &waiting, left, &System, &mut interrupt, &mut progress).await;
        }
        progress.end();
        Ok(match followed.map_err(Error::from)? {
            Followed::Completed => {
                set.snapshots().for_each(|id| print(id.as_str()));
                let readable = if self.readable { " and readable" } else { "" };
                say(&format!("{} is complete{readable}", set.id));
                Exit::Ok
            }
            Followed::Lost(why) => {
                say(&format!("{} is lost: {why}", set.id));
                Exit::After
            }
            Followed::NotYet => {
                let more = if self.readable { " --readable" } else { "" };
                let what = if self.readable { "complete and readable" } else { "complete" };
                say(&format!("{} is not {what} yet; `stillpoint wait {}{more}` goes on", set.id, set.id));
                Exit::After
            }
            Followed::Interrupted(signal) => end(Exit::After, Some(signal)),
        })
    }
}
