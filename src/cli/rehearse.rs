//! `stillpoint rehearse`: everything that `snapshot` does but the call, and what it cost.
//!
//! In: the choice. Out: the measurements on stdout. Must never: create, tag or keep anything.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::start::{clean_up, prepare_process};
use super::{Choice, Global, Output, look, print, say};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::kernel::{Linux, die_by};
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::run::rehearsal::{Hold, Rehearsed, Round, rehearse, suggest};
use crate::run::{Stage, lock, step};
use crate::sets::record;

#[derive(Debug, Args)]
pub(super) struct Rehearse {
    #[command(flatten)]
    choice: Choice,
    /// Stay frozen this long, such as 500ms; `answer`: as long as EC2's slowest DryRun took.
    #[arg(long, value_name = "TIME", value_parser = hold, default_value = "0s")]
    hold: Hold,
    /// Rehearse this often.
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
        let mut interrupt =
            Interrupt::listen().map_err(|e| Error::new(Exit::Bug, format!("cannot catch signals: {e}")))?;
        let mut early = interrupt.clone();
        let locked = async { lock::take(&settings.run_dir, self.wait_lock).await };
        let _lock = tokio::select! {
            ready = locked => ready?,
            signal = early.caught() => die_by(signal),
        };
        // What a dead run owes on this host is done; what it may have made stays for the next `snapshot` to look up.
        drop(clean_up(&settings.run_dir).await?);
        let planned = tokio::select! {
            ready = look(&loaded) => ready?,
            signal = early.caught() => die_by(signal),
        };
        let program = super::start::own_program()?;
        let ec2 = Rehearsed::new(&planned.ec2, self.hold);
        let mut rounds = Vec::new();
        for _ in 0..self.repeat {
            let stage = Stage {
                steps: &step::PROGRESS,
                ec2: &ec2,
                kernel: Arc::new(Linux),
                program: &program,
                facts: &planned.facts,
                plan: &planned.plan,
                settings: &settings.plan,
                volume_interval: Duration::ZERO, // nothing is taken, so EC2's interval need not be waited for
                state_dir: &settings.state_dir,
                run_dir: &settings.run_dir,
                run: RunId::generate(),
            };
            let round = rehearse(&stage, &mut interrupt).await?;
            // Nothing is tried again on top of what is still frozen or not mounted.
            let hurts = exit_of(&round).hurts();
            let ended = hurts || round.achieved.is_none() || round.signal.is_some();
            rounds.push(round);
            if ended {
                break;
            }
        }
        let answers = ec2.answers();
        let calls = record::call_times(&settings.state_dir, &planned.plan.name);
        let all: Vec<_> = answers.iter().chain(&calls).copied().collect();
        let suggestion = suggest(&rounds, &all);
        let rehearsal = report::rehearsal::Rehearsal {
            version: report::rehearsal::VERSION,
            plan: planned.plan.name.clone(),
            configured_window: settings.plan.window,
            rounds,
            dry_runs: answers,
            calls,
            suggestion,
        };
        match self.choice.output {
            Output::Text => print(&report::rehearsal::human(&rehearsal)),
            Output::Json => {
                let json = serde_json::to_string_pretty(&rehearsal).map_err(|e| Error::new(Exit::Bug, e))?;
                print(&json);
            }
        }
        if let Some(hint) = rehearsal.rounds.last().and_then(|r| r.hint.as_ref()) {
            say(&format!("hint: {hint}"));
        }
        let exit = rehearsal.rounds.iter().map(exit_of).fold(Exit::Ok, Exit::or_worse);
        match rehearsal.rounds.last().and_then(|r| r.signal) {
            // Codes 40 and 41 outrank the signal: whoever started us must see them.
            Some(signal) if !exit.hurts() => die_by(signal),
            _ => Ok(exit),
        }
    }
}

fn exit_of(round: &Round) -> Exit {
    Exit::ALL.into_iter().find(|e| e.code() == round.exit_code).unwrap_or(Exit::Bug)
}
