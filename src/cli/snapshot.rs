//! `stillpoint snapshot`: lock, clean up after dead runs, plan, run, report.
//!
//! In: the choice. Out: snapshot ids (or JSON) on stdout, prose on stderr. Must never: leave by any way but the run's own end while something is frozen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Choice, Global, Output, look, print, say};
use crate::config::Loaded;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::run::{self, Stage, lock, recover, step};
use crate::window::kernel::{Linux, die_by};

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
            let plan = super::plan::Plan::of(self.choice.clone());
            return plan.run(global).await;
        }
        super::need_root()?;
        let loaded = global.load(self.choice.plan.as_deref(), self.choice.overrides())?;
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
        let before = async {
            let planned = look(loaded).await?;
            for journal in unsettled {
                settle_dead(&planned.ec2, journal).await;
            }
            Ok::<_, Error>(planned)
        };
        let planned = tokio::select! {
            ready = before => ready?,
            signal = early.caught() => die_by(signal),
        };
        let program = std::env::current_exe()
            .map_err(|e| Error::new(Exit::Bug, format!("cannot find this program's own file: {e}")))?;
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
            Some(signal) if !matches!(exit, Exit::StillFrozen | Exit::NotMounted) => die_by(signal),
            _ => Ok(exit),
        }
    }
}

/// Nothing of this process may touch a filesystem that will be frozen: its folder is /run, and it leaves no core dump.
pub(super) fn prepare_process() {
    use nix::sys::resource::{Resource, setrlimit};
    for folder in ["/run", "/"] {
        if nix::unistd::chdir(folder).is_ok() {
            break;
        }
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Undoes what dead runs left on this host; their journals that still need EC2 come back.
pub(super) async fn clean_up(run_dir: &Path) -> Result<Vec<run::journal::Journal>, Error> {
    let recover::Local { recovered, unreadable, busy } = recover::local(run_dir).await;
    for text in unreadable {
        tracing::warn!("cannot read the journal {text}");
    }
    // Every one is reported before any of them ends this: the worst does.
    let mut worst: Option<Error> = None;
    let mut unsettled = Vec::new();
    for run in recovered {
        let error = match super::thaw::report(&run) {
            Exit::StillFrozen => {
                let what = format!("run {} left filesystems frozen", run.run);
                Some(Error::new(Exit::StillFrozen, what).hint("`stillpoint thaw --all` is the rescue"))
            }
            Exit::NotMounted => {
                let what = format!("run {} left filesystems unmounted", run.run);
                Some(Error::new(Exit::NotMounted, what).hint(
                    "mount them by hand as said above, or remove what is in the way; `stillpoint thaw` tries again",
                ))
            }
            _ => None,
        };
        if let Some(error) = error
            && worst.as_ref().is_none_or(|w| super::thaw::worse(w.exit, error.exit) != w.exit)
        {
            worst = Some(error);
        }
        unsettled.extend(run.unsettled);
    }
    let busy = busy.map(|who| {
        Error::new(Exit::Locked, format!("another recovery ({who}) goes on"))
            .hint("it runs post hooks that are owed; wait for it")
    });
    worst.or(busy).map_or(Ok(unsettled), Err)
}

pub(super) async fn settle_dead(ec2: &crate::ec2::aws::Aws, journal: run::journal::Journal) {
    let dead = journal.state.run.clone();
    match recover::settle(ec2, journal).await {
        Ok(ids) if ids.is_empty() => say(&format!("run {dead}: EC2 shows no snapshots of it")),
        Ok(ids) => {
            let ids: Vec<_> = ids.iter().map(crate::ids::SnapshotId::as_str).collect();
            say(&format!("run {dead} had made {}: labelled crash", ids.join(" ")));
        }
        Err(e) => tracing::warn!("cannot look up what run {dead} made: {e}"),
    }
}
