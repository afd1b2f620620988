//! `stillpoint rehearse`: everything that `snapshot` does except the create call, and how long it took.
//!
//! In: the choice. Out: the measurements on stdout. Must never: create, tag or keep anything.

use std::time::Duration;

use clap::Args;

use super::start::{Ready, end, listen, prepare_process};
use super::{Choice, Global, Output, print, print_document, say};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report;
use crate::run::planned::Planned;
use crate::run::rehearsal::{Hold, Rehearsal, suggest};
use crate::run::{Environment, Job};
use crate::sets::record;

#[derive(Debug, Args)]
pub(super) struct Rehearse {
    #[command(flatten)]
    choice: Choice,
    /// Stay frozen this long, such as 500ms; `answer`: as long as EC2's slowest DryRun took.
    #[arg(long, value_name = "TIME", value_parser = hold, default_value = "0s")]
    hold: Hold,
    /// How many times to rehearse.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100), default_value_t = 1)]
    repeat: u32,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration, default_value = "0s")]
    wait_lock: Duration,
}

fn hold(text: &str) -> Result<Hold, String> {
    match text {
        "answer" => Ok(Hold::Answer),
        time => crate::config::duration(time).map(Hold::For).map_err(|e| e.to_string()),
    }
}

impl Rehearse {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        super::need_root()?;
        let loaded = self.choice.load(global)?;
        let settings = &loaded.settings;
        prepare_process();
        let mut interrupt = listen()?;
        // What a dead run has left on this host is undone; the snapshots that it may have made are looked up
        // by the next `snapshot`.
        let ready = Ready::get(&loaded, self.wait_lock, false, &interrupt).await?;
        let Planned { facts, plan, .. } = &ready.planned;
        // No snapshot is taken, so EC2's minimum interval does not matter.
        let env = Environment { volume_interval: Duration::ZERO, ..ready.environment(&loaded) };
        let mut rehearsal = Rehearsal::new(self.hold);
        let mut rounds = Vec::new();
        for _ in 0..self.repeat {
            let job = Job::new(RunId::generate(), facts, plan, &settings.plan)?;
            let round = rehearsal.round(&env, &job, &mut interrupt).await?;
            // No further round while a filesystem is still frozen or not mounted.
            let ended = round.exit.hurts() || round.achieved.is_none() || round.signal.is_some();
            rounds.push(round);
            if ended {
                break;
            }
        }
        let answers = rehearsal.answers;
        let calls = record::call_times(&settings.state_dir, &plan.name);
        let all: Vec<_> = answers.iter().chain(&calls).copied().collect();
        let suggestion = suggest(&rounds, &all);
        let rehearsal = report::rehearsal::Rehearsal {
            version: report::rehearsal::VERSION,
            plan: plan.name.clone(),
            configured_window: settings.plan.window,
            rounds,
            dry_runs: answers,
            calls,
            suggestion,
        };
        match self.choice.output {
            Output::Text => print(&report::rehearsal::human(&rehearsal)),
            Output::Json => print_document(&rehearsal)?,
        }
        if let Some(hint) = rehearsal.rounds.last().and_then(|r| r.hint.as_ref()) {
            say(&format!("hint: {hint}"));
        }
        let exit = rehearsal.rounds.iter().map(|r| r.exit).fold(Exit::Ok, Exit::or_worse);
        Ok(end(exit, rehearsal.rounds.last().and_then(|r| r.signal)))
    }
}
