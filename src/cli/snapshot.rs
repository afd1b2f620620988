//! `stillpoint snapshot`: lock, clean up after dead runs, plan, run, report.
//!
//! In: the choice. Out: snapshot ids (or JSON) on stdout, prose on stderr. Must never: leave by any way but the run's own end while something is frozen.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::start::{clean_up, look_and_settle, prepare_process};
use super::{Choice, Global, Output, print, say};
use crate::config::Loaded;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::kernel::{Linux, die_by};
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::run::{self, Stage, lock, step};

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
        let mut interrupt =
            Interrupt::listen().map_err(|e| Error::new(Exit::Bug, format!("cannot catch signals: {e}")))?;
        let work = self.locked(&loaded, &mut interrupt);
        work.await
    }

    async fn locked(&self, loaded: &Loaded, interrupt: &mut Interrupt) -> Result<Exit, Error> {
        let settings = &loaded.settings;
        // Until something is attempted, a signal may end it where it stands.
        let mut early = interrupt.clone();
        let locked = async { lock::take(&settings.run_dir, self.wait_lock).await };
        let _lock = tokio::select! {
            ready = locked => ready?,
            signal = early.caught() => die_by(signal),
        };
        // Not to be broken off: it runs post commands that are owed.
        let unsettled = clean_up(&settings.run_dir).await?;
        let planned = tokio::select! {
            ready = look_and_settle(loaded, unsettled) => ready?,
            signal = early.caught() => die_by(signal),
        };
        let program = super::start::own_program()?;
        let stage = Stage {
            ec2: &planned.ec2,
            kernel: Arc::new(Linux),
            program: &program,
            facts: &planned.facts,
            plan: &planned.plan,
            settings: &settings.plan,
            volume_interval: settings.ec2.volume_interval,
            state_dir: &settings.state_dir,
            run_dir: &settings.run_dir,
            run: RunId::generate(),
            steps: &step::PROGRESS,
        };
        let ended = run::snapshot(&stage, interrupt).await?;
        let record = &ended.record;
        report::log::run_ended(record);
        match self.choice.output {
            Output::Text => record.snapshots.iter().for_each(|s| print(s.id.as_str())),
            Output::Json => {
                let json = serde_json::to_string_pretty(record).map_err(|e| Error::new(Exit::Bug, e))?;
                print(&json);
            }
        }
        say(&report::set::human(record));
        if let Some(hint) = &ended.hint {
            say(&format!("hint: {hint}"));
        }
        let exit = Exit::ALL.into_iter().find(|e| e.code() == record.exit_code).unwrap_or(Exit::Bug);
        match ended.signal {
            // Codes 40 and 41 outrank the signal: whoever started us must see them.
            Some(signal) if !exit.hurts() => die_by(signal),
            _ => Ok(exit),
        }
    }
}
