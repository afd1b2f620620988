//! `stillpoint snapshot`: lock, clean up after dead runs, plan, run, report.
//!
//! In: the choice. Out: snapshot ids (or JSON) on stdout, prose on stderr. Must never: exit before the end of
//! the run while something is frozen.

use std::time::Duration;

use clap::Args;

use super::start::{Ready, end, listen, prepare_process};
use super::{Choice, Global, Output, as_json, print, print_json, say};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report;
use crate::run::Job;
use crate::run::planned::Planned;
use crate::run::take::snapshot;

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(flatten)]
    choice: Choice,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration, default_value = "0s")]
    wait_lock: Duration,
}

impl Snapshot {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if self.dry_run {
            return super::plan::show(&self.choice.load(global)?, self.choice.output).await;
        }
        super::need_root()?;
        let loaded = self.choice.load(global)?;
        prepare_process();
        let mut interrupt = listen()?;
        let ready = Ready::get(&loaded, self.wait_lock, true, &interrupt).await?;
        let Planned { facts, plan, .. } = &ready.planned;
        let job = Job::new(RunId::generate(), facts, plan, &loaded.settings.plan)?;
        let outcome = snapshot(&ready.environment(&loaded), &job, &mut interrupt).await?;
        let record = &outcome.record;
        report::log::run_ended(record);
        match self.choice.output {
            Output::Text if report::log::stdout_is_journal() => {}
            Output::Text => record.snapshots.iter().for_each(|s| print(s.id.as_str())),
            Output::Json => print_json(&as_json(record)?),
        }
        say(&report::set::human(record));
        if let Some(hint) = &outcome.hint {
            say(&format!("hint: {hint}"));
        }
        Ok(end(record.exit, outcome.signal))
    }
}
