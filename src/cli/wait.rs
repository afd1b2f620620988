//! `stillpoint wait SET`: until every snapshot of a set is completed.
//!
//! In: the name of a set. Out: exit code 0 once it is complete, 11 when EC2 could not complete it. Must never: end
//! because it takes long: snapshots of large volumes take hours, and a time limit is whoever waits.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::follow::Progress;
use super::sets::{Account, SetName, set_name};
use super::start::{end, listen};
use super::{Global, Output, print, print_document, say};
use crate::clock::{Clock as _, System};
use crate::config::Overrides;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report::{event, log};
use crate::run::notify;
use crate::sets::follow::{Followed, follow, readable};
use crate::sets::set::SnapshotSet;
use crate::sets::wait::{Seen, State, Waiting};

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
    /// What stdout gets: text or json.
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// Version of the JSON of `wait`.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    set: &'a RunId,
    region: &'a str,
    /// `completed`, `pending` where the time was over, or `error`.
    state: &'static str,
    /// Why it is lost, or cannot be read yet; none where neither is so.
    reason: Option<&'a str>,
    snapshots: Vec<State>,
    exit_code: Exit,
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
        let direct = if self.readable { Some(account.direct(1).await?) } else { None };
        let began = System.elapsed();
        let mut followed =
            follow(&ec2, &mut waiting, self.timeout, &System, &mut interrupt, &mut progress).await;
        if let (Ok(Followed::Completed), Some(direct)) = (&followed, &direct) {
            let direct = Repeating::for_each_call(direct, &account.loaded.settings.ec2);
            let left = self.timeout.map(|limit| limit.saturating_sub(System.elapsed().saturating_sub(began)));
            followed = readable(&direct, &waiting, left, &System, &mut interrupt, &mut progress).await;
        }
        progress.end();
        match followed.map_err(Error::from)? {
            Followed::Completed => {
                if self.output == Output::Text {
                    set.snapshots().for_each(|id| print(id.as_str()));
                }
                let readable = if self.readable { " and readable" } else { "" };
                say(&format!("{} is complete{readable}", set.id));
                self.tell(&set, &waiting, Exit::Ok)
            }
            Followed::Lost(why) => {
                let states = waiting.states();
                let failed = states.iter().filter(|s| s.state.as_deref() == Some("error"));
                let failed: Vec<_> = failed.map(|s| s.id.clone()).collect();
                let event = event::wait_failed(&set, &failed, &why);
                log::tell(&event);
                // Whom to tell is known only on a host that has the plan.
                if account.loaded.plans.contains(&set.plan) {
                    let plan = global.load_in(None, Some(&set.plan), Overrides::default())?.settings.plan;
                    notify::tell(&plan.notify, "wait", &plan.name, Exit::After, &[event]).await;
                }
                say(&format!("{} is lost: {why}", set.id));
                self.tell(&set, &waiting, Exit::After)
            }
            Followed::NotYet => {
                let more = if self.readable { " --readable" } else { "" };
                let what = if self.readable { "complete and readable" } else { "complete" };
                say(&format!("{} is not {what} yet; `stillpoint wait {}{more}` goes on", set.id, set.id));
                self.tell(&set, &waiting, Exit::After)
            }
            Followed::Interrupted(signal) => Ok(end(Exit::After, Some(signal))),
        }
    }

    /// How it ended, for programs.
    fn tell(&self, set: &SnapshotSet, waiting: &Waiting, exit_code: Exit) -> Result<Exit, Error> {
        if self.output == Output::Json {
            let seen = waiting.seen();
            let (state, reason) = match &seen {
                // With --readable, the time may be over after that.
                Seen::Completed if exit_code == Exit::Ok => ("completed", None),
                Seen::Completed => ("completed", Some("its data cannot be read yet")),
                Seen::Pending => ("pending", None),
                Seen::Failed(why) => ("error", Some(why.as_str())),
            };
            let (set, region, snapshots) = (&set.id, set.region.as_str(), waiting.states());
            let document = Document { version: VERSION, set, region, state, reason, snapshots, exit_code };
            print_document(&document)?;
        }
        Ok(exit_code)
    }
}
