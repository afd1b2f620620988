//! `stillpoint snapshot`: lock, clean up after dead runs, plan, run, report.
//!
//! In: the choice. Out: snapshot ids (or JSON) on stdout, prose on stderr. Must never: exit before the end of
//! the run while something is frozen.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;

use super::start::{ROOT, Ready, end, listen, prepare_process};
use super::{Choice, Global, Output, after, as_json, print, print_json, say};
use crate::config::settings::Hook;
use crate::config::{self, Loaded, Overrides};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::report;
use crate::run::last::Last;
use crate::run::planned::Planned;
use crate::run::take::snapshot;
use crate::run::{Job, applications};
use crate::sets::record::SetRecord;

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    #[command(flatten)]
    choice: Choice,
    /// Lock the snapshots once they have their label: governance:30d, or compliance:365d:24h (days, then the
    /// cooling-off period), in place of what the plan says; `off` for no lock.
    #[arg(long, value_name = "LOCK")]
    lock: Option<String>,
    /// Print the plan and stop.
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Wait this long for another run to end, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration, default_value = "0s")]
    wait_lock: Duration,
}

impl Snapshot {
    fn load(&self, global: &Global) -> Result<Loaded, Error> {
        let overrides = Overrides { lock: self.lock.clone(), ..self.choice.overrides() };
        global.load(self.choice.selection.plan.as_deref(), overrides)
    }

    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        if self.dry_run {
            return super::plan::show(&self.load(global)?, self.choice.output).await;
        }
        super::need_root()?;
        let plan = self.choice.selection.plan.as_deref();
        let loaded = match self.load(global) {
            Ok(loaded) => loaded,
            Err(error) => {
                let hooks = config::readable_hooks(Path::new(ROOT), global.config.as_deref(), plan);
                let plan = plan.unwrap_or(config::DEFAULT_PLAN);
                let told = config::is_plan_name(plan).then(|| Last::begun(plan));
                refused(global, told, &hooks, plan, &error).await;
                return Err(error);
            }
        };
        let settings = &loaded.settings;
        let last = Last::begun(&settings.plan.name);
        let noted = |last: &Last| last.note(&settings.run_dir, &settings.state_dir);
        match self.take(&loaded, || noted(&last)).await {
            Ok((record, exit, signal)) => {
                noted(&last.clone().with_record(&record));
                Ok(end(exit, signal))
            }
            Err(error) => {
                noted(&last.clone().refused(&error));
                report::log::run_refused(&settings.plan.name, &error);
                applications::tell_refused(&settings.plan.hooks, &settings.plan.name, &error).await;
                Err(error)
            }
        }
    }

    /// Takes the set and reports it. `begun` is called once this run has the lock.
    async fn take(
        &self,
        loaded: &Loaded,
        begun: impl FnOnce(),
    ) -> Result<(SetRecord, Exit, Option<Signal>), Error> {
        prepare_process();
        let mut interrupt = listen()?;
        let ready = Ready::get(loaded, self.wait_lock, true, &interrupt).await?;
        begun();
        let Planned { facts, plan, .. } = &ready.planned;
        let job = Job::new(RunId::generate(), facts, plan, &loaded.settings.plan)?;
        let mut outcome = snapshot(&ready.environment(loaded), &job, &mut interrupt).await?;
        after::lock(loaded, &ready.planned.ec2, &mut outcome.record, &interrupt).await;
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
        Ok((outcome.record.clone(), outcome.record.exit, outcome.signal))
    }
}

/// A configuration that cannot be loaded: what can be read of it says whom to tell.
async fn refused(global: &Global, last: Option<Last>, hooks: &[Hook], plan: &str, error: &Error) {
    if let Some(last) = last {
        let (run_dir, state_dir) = super::thaw::folders(global);
        last.refused(error).note(&run_dir, &state_dir);
    }
    report::log::run_refused(plan, error);
    applications::tell_refused(hooks, plan, error).await;
}
