//! `stillpoint clone`: EBS volume clones of a consistent set, in place of snapshots.
//!
//! In: the choice. Out: ids of the new volumes (or JSON) on stdout, prose on stderr. Must never: exit before the end of
//! the run while something is frozen.

mod kept;

use std::time::Duration;

use clap::Args;

use self::kept::OfKept;
use super::start::{Ready, end, environment, listen, prepare_process};
use super::{Choice, Global, Output, print, print_document, say};
use crate::config::Loaded;
use crate::ec2::clones::{Clones as _, IN_PROGRESS};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report;
use crate::run::clone::{Outcome, clone, request, room};
use crate::run::planned::Planned;
use crate::run::{Job, create_request};
use crate::sets::clones::ClonedVolume;

#[derive(Debug, Args)]
pub(super) struct Clone {
    #[command(flatten)]
    choice: Choice,
    /// How many copies of volumes EC2 has in progress in this Region at most: 5, unless the quota was raised.
    #[arg(long, value_name = "N", default_value_t = IN_PROGRESS)]
    most_copies: usize,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration, default_value = "0s")]
    wait_lock: Duration,
    #[command(flatten)]
    kept: OfKept,
}

impl Clone {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if let Some(exit) = self.kept(global).await? {
            return Ok(exit);
        }
        let loaded = self.choice.load(global)?;
        if self.dry_run {
            return self.show(&loaded).await;
        }
        super::need_root()?;
        prepare_process();
        let mut interrupt = listen()?;
        let Ready { lock: _lock, planned } = Ready::get(&loaded, self.wait_lock, true, &interrupt).await?;
        let Planned { facts, plan, ec2, .. } = &planned;
        let job = Job::new(RunId::generate(), facts, plan, &loaded.settings.plan)?;
        let done = clone(&environment(&loaded, ec2), &job, self.most_copies, &mut interrupt).await?;
        let Outcome { record, hint, signal } = done;
        match self.choice.output {
            Output::Text => record.clones.iter().filter(|c| c.stays()).for_each(|c| print(c.id.as_str())),
            Output::Json => print_document(&record)?,
        }
        say(&report::clone::human(&record));
        if record.clones.iter().any(ClonedVolume::stays) {
            let run = &record.set.run_id;
            say(&format!(
                "`stillpoint restore {run}` attaches and mounts them, `stillpoint clone --delete {run}` deletes them"
            ));
        }
        if let Some(hint) = &hint {
            say(&format!("hint: {hint}"));
        }
        Ok(end(record.set.exit, signal))
    }

    /// Prints the plan, and checks the permission and the limits.
    async fn show(&self, loaded: &Loaded) -> Result<Exit, Error> {
        let Planned { facts, plan, ec2 } = super::plan::print_plan(loaded, self.choice.output).await?;
        let settings = &loaded.settings;
        let job = Job::new(RunId::generate(), &facts, &plan, &settings.plan)?;
        let now = jiff::Timestamp::now();
        let base = create_request(&job.run, &facts, &plan, &settings.plan, plan.best, now);
        let calls = Repeating::of(&ec2, &settings.ec2);
        calls.may_clone(&request(&job, &base)).await.map_err(Error::from)?;
        room(&calls, &plan.volumes, self.most_copies).await?;
        let n = plan.volumes.len();
        say(&format!(
            "permission checked by DryRun: CopyVolumes, {n} {}",
            if n == 1 { "call" } else { "calls" }
        ));
        if n > 1 {
            say("they are one instant only while nothing is written: see the label of the plan");
        }
        Ok(Exit::Ok)
    }
}
