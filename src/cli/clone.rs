//! `stillpoint clone`: EBS volume clones of a consistent set, in place of snapshots.
//!
//! In: the choice. Out: ids of the new volumes (or JSON) on stdout, prose on stderr. Must never: exit before the end of
//! the run while something is frozen.

mod kept;

use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;

use self::kept::OfKept;
use super::refused::{self, Command, disk};
use super::start::{Ready, end, environment, listen, prepare_process};
use super::type_and_speed::TypeAndSpeed;
use super::{Choice, Global, Output, print, print_document, say};
use crate::config::Loaded;
use crate::ec2::clones::{Clones as _, IN_PROGRESS};
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report;
use crate::report::event::{self, Event};
use crate::restore::size;
use crate::run::clone::asked::{Asked, request};
use crate::run::clone::{Outcome, clone, room};
use crate::run::planned::Planned;
use crate::run::{Job, create_request, notify, textfile};
use crate::sets::clones::ClonedVolume;

#[derive(Debug, Args)]
pub(super) struct Clone {
    #[command(flatten)]
    choice: Choice,
    /// How many copies of volumes EC2 has in progress in this Region at most: 5, unless the quota was raised.
    #[arg(long, value_name = "N", default_value_t = IN_PROGRESS)]
    most_copies: usize,
    #[command(flatten)]
    speed: TypeAndSpeed,
    /// A larger clone: of this volume, or of the one that this filesystem is on, in GiB; can be repeated. What is on it
    /// keeps its size.
    #[arg(long, value_name = "VOLUME|PATH=GIB", value_parser = size::read)]
    size: Vec<size::Size>,
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
        if self.dry_run {
            return self.show(&self.choice.load(global)?).await;
        }
        super::need_root()?;
        let plan = self.choice.of_set.selection.plan.as_deref();
        let loaded = match self.choice.load(global) {
            Ok(loaded) => loaded,
            Err(error) => {
                refused::unreadable(Command::Clone, global, plan, &error).await;
                return Err(error);
            }
        };
        match self.make(&loaded).await {
            Ok((exit, events, signal)) => {
                let plan = &loaded.settings.plan;
                notify::tell(&plan.notify, Command::Clone.name(), &plan.name, exit, &events).await;
                Ok(end(exit, signal))
            }
            Err(error) => {
                refused::tell(Command::Clone, &loaded, &error).await;
                Err(error)
            }
        }
    }

    /// Clones, reports it and counts it.
    async fn make(&self, loaded: &Loaded) -> Result<(Exit, Vec<Event>, Option<Signal>), Error> {
        prepare_process();
        let mut interrupt = listen()?;
        let Ready { lock, planned } = Ready::get(loaded, self.wait_lock, true, &interrupt).await?;
        let Planned { facts, plan, ec2, .. } = &planned;
        let job = Job::new(RunId::generate(), facts, plan, &loaded.settings.plan)?;
        let asked = self.asked();
        let done = clone(&environment(loaded, ec2), &job, &asked, self.most_copies, &mut interrupt).await?;
        let Outcome { record, hint, fired, signal } = done;
        let events = event::of_clones(&record, fired.as_deref());
        events.iter().for_each(report::log::tell);
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
        let exit = record.set.exit;
        textfile::update(loaded, &lock, disk(exit), |tally| tally.cloned(exit, Some(&record)));
        Ok((exit, events, signal))
    }

    fn asked(&self) -> Asked {
        Asked { instead: self.speed.instead(), sizes: self.size.clone() }
    }

    /// Prints the plan, and checks the permission and the limits.
    async fn show(&self, loaded: &Loaded) -> Result<Exit, Error> {
        let Planned { facts, plan, ec2 } = super::plan::print_plan(loaded, self.choice.output).await?;
        let settings = &loaded.settings;
        let job = Job::new(RunId::generate(), &facts, &plan, &settings.plan)?;
        let now = jiff::Timestamp::now();
        let base = create_request(&job.run, &facts, &plan, &settings.plan, plan.best, now);
        let calls = Repeating::of(&ec2, &settings.ec2);
        let request = request(&job, &base, &self.asked())?;
        calls.may_clone(&request).await.map_err(Error::from)?;
        room(&calls, &plan.volumes, self.most_copies).await?;
        let n = plan.volumes.len();
        say(&format!(
            "permission checked by DryRun: CopyVolumes, {n} {}",
            if n == 1 { "call" } else { "calls" }
        ));
        for (of, volume) in request.volumes.iter().zip(&plan.volumes) {
            say(&report::clone::wanted(of, volume.size_gib));
        }
        if n > 1 {
            say("they are one instant only while nothing is written: see the label of the plan");
        }
        Ok(Exit::Ok)
    }
}
