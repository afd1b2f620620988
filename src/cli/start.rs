//! The start of every command that freezes: make the process safe, clean up after dead runs, make the plan.
//!
//! In: the configuration. Out: a plan, or a refusal. Must never: go on while a dead run's filesystems may be
//! frozen or are not mounted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::say;
use crate::clock;
use crate::config::Loaded;
use crate::ec2::aws::Aws;
use crate::ec2::repeat::{Budgets, Repeating};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::kernel::{Linux, die_by};
use crate::ids::{InstanceId, SnapshotId};
use crate::interrupt::Interrupt;
use crate::run::journal::{Created, Journal};
use crate::run::lock::{self, RunLock};
use crate::run::planned::{Planned, Purpose, planned};
use crate::run::recover::Settled;
use crate::run::{Environment, recover, step};
use crate::window::guard::process::{self, Program};

/// The program that the watchdog, the holder, the recovery and the probe are started from: the very file that
/// this process runs from, though its package may be upgraded meanwhile.
pub(super) const OWN_PROGRAM: &str = process::OWN;

pub(super) const ROOT: &str = "/";

/// A command that has the lock and its plan; everything that dead runs had left is undone.
pub(super) struct Ready {
    /// Other runs wait for as long as it is there.
    pub(super) lock: RunLock,
    pub(crate) planned: Planned,
}

impl Ready {
    /// Takes the lock, cleans up after dead runs and makes the plan. Until the first thing is attempted, a
    /// signal ends the command at once.
    ///
    /// With `settles`, the snapshots that the dead runs may have made are looked up in EC2 too.
    pub async fn get(
        loaded: &Loaded,
        wait: Duration,
        settles: bool,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        let run_dir = &loaded.settings.run_dir;
        let mut early = interrupt.clone();
        let lock = tokio::select! {
            lock = lock::take(run_dir, wait) => lock?,
            signal = early.caught() => return Err(Error::interrupted(signal)),
        };
        // No signal interrupts this: it runs post commands that are owed.
        let unsettled = clean_up(run_dir).await?;
        let unsettled = if settles { unsettled } else { Vec::new() };
        let planned = tokio::select! {
            planned = plan_and_settle(loaded, unsettled) => planned?,
            signal = early.caught() => return Err(Error::interrupted(signal)),
        };
        Ok(Self { lock, planned })
    }

    /// The environment of a run on this machine.
    pub fn environment<'a>(&'a self, loaded: &'a Loaded) -> Environment<'a, Aws> {
        environment(loaded, &self.planned.ec2)
    }
}

/// The environment of a run on this machine.
pub(super) fn environment<'a>(loaded: &'a Loaded, ec2: &'a Aws) -> Environment<'a, Aws> {
    let settings = &loaded.settings;
    Environment {
        ec2,
        kernel: Arc::new(Linux),
        root: Path::new(ROOT),
        watchdog: Arc::new(Program::own()),
        program: Path::new(OWN_PROGRAM),
        clock: &clock::System,
        volume_interval: settings.ec2.volume_interval,
        retries: Budgets::of(&settings.ec2),
        run_dir: &settings.run_dir,
        state_dir: &settings.state_dir,
        steps: &step::Progress,
    }
}

/// Listens for the signals that end a run.
pub(super) fn listen() -> Result<Interrupt, Error> {
    Interrupt::listen().map_err(|e| Error::new(Exit::Bug, format!("cannot catch signals: {e}")))
}

/// Dies by the run's signal, if there was one and the exit code does not outrank it; else returns the code.
pub(super) fn end(exit: Exit, signal: Option<Signal>) -> Exit {
    match signal {
        // Codes 40 and 41 outrank the signal: the caller must see them.
        Some(signal) if !exit.hurts() => {
            crate::gate::finish(); // else the report may still be in the queue
            die_by(signal)
        }
        _ => exit,
    }
}

/// Makes the plan, then looks up in EC2 which snapshots the dead runs of these journals made.
pub(super) async fn plan_and_settle(loaded: &Loaded, unsettled: Vec<Journal>) -> Result<Planned, Error> {
    let planned = planned(loaded, Path::new(ROOT), Purpose::Run).await?;
    for journal in unsettled {
        let ec2 = Repeating::of(&planned.ec2, &loaded.settings.ec2);
        settle_dead(&ec2, &planned.facts.identity.instance_id, journal).await;
    }
    Ok(planned)
}

/// Keeps this process away from filesystems that will be frozen: its working directory is /run, and it writes
/// no core dump.
pub(super) fn prepare_process() {
    use nix::sys::resource::{Resource, setrlimit};
    for folder in ["/run", "/"] {
        if nix::unistd::chdir(folder).is_ok() {
            break;
        }
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// Undoes what dead runs have left on this host. Returns the journals for which EC2 still has to be asked.
pub(super) async fn clean_up(run_dir: &Path) -> Result<Vec<Journal>, Error> {
    let recover::Local { recovered, unreadable, busy } = recover::local(run_dir).await;
    for text in unreadable {
        tracing::warn!("cannot read the journal {text}");
    }
    // Every dead run is reported first; then the worst of them ends this command.
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
                    "mount them by hand as printed above, or remove what is in the way; \
                     `stillpoint thaw` tries again",
                ))
            }
            _ => None,
        };
        if let Some(error) = error
            && worst.as_ref().is_none_or(|w| w.exit.or_worse(error.exit) != w.exit)
        {
            worst = Some(error);
        }
        // A set that has its verdict keeps it: EC2 is not asked about it again.
        unsettled.extend(run.unsettled.filter(|j| j.state.created != Created::No));
    }
    let busy = busy.map(|who| {
        Error::new(Exit::Locked, format!("another recovery ({who}) is in progress"))
            .hint("it runs the post hooks that are still due; wait for it")
    });
    worst.or(busy).map_or(Ok(unsettled), Err)
}

/// Finds the snapshots that a run made which is over, and labels them.
async fn settle_dead(ec2: &Repeating<'_, Aws>, instance: &InstanceId, journal: Journal) {
    let run = journal.state.run.clone();
    if journal.state.cloning {
        match recover::settle_clones(ec2, instance, &clock::System, journal).await {
            Ok(ids) if ids.is_empty() => say(&format!("run {run}: EC2 shows no clones of it")),
            Ok(ids) => {
                let ids: Vec<_> = ids.iter().map(crate::ids::VolumeId::as_str).collect();
                say(&format!("run {run} had made {}: labelled crash", ids.join(" ")));
            }
            Err(e) => tracing::warn!("cannot look up or tag what run {run} made: {e}"),
        }
        return;
    }
    let list = |ids: &[SnapshotId]| ids.iter().map(SnapshotId::as_str).collect::<Vec<_>>().join(" ");
    match recover::settle(ec2, instance, &clock::System, journal).await {
        Ok(settled) => {
            if settled == Settled::default() {
                say(&format!("run {run}: EC2 shows no snapshots of it"));
            }
            if !settled.judged.is_empty() {
                say(&format!("run {run} had made {}: tagged with its verdict", list(&settled.judged)));
            }
            if !settled.crash.is_empty() {
                say(&format!("run {run} had made {}: labelled crash", list(&settled.crash)));
            }
        }
        Err(e) => tracing::warn!("cannot look up or tag what run {run} made: {e}"),
    }
}
