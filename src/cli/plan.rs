//! `stillpoint plan`: what would happen, and why.
//!
//! In: the choice. Out: the plan on stdout. Must never: change anything.

use std::path::Path;

use clap::Args;
use jiff::Timestamp;

use super::start::{OWN_PROGRAM, ROOT};
use super::{Choice, Global, Output, calls, print, print_json, say};
use crate::config::Loaded;
use crate::config::settings::GroupSettings;
use crate::doctor::{Set, Severity, hooks, others, processes, storage};
use crate::ec2::Describe;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::group::Broken;
use crate::group::engine::Engine as _;
use crate::host::busy;
use crate::ids::RunId;
use crate::quiesce::databases::running;
use crate::report::{self, databases::OnSet};
use crate::run;
use crate::run::planned::{Planned, Purpose, planned};
use crate::sets::find::of_volumes;

/// Width of text where stdout is no terminal.
const WIDTH: usize = 80;

#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    choice: Choice,
}

impl Plan {
    pub(super) async fn run(&self, global: &Global) -> Result<Exit, Error> {
        show(&self.choice.load(global)?, self.choice.output).await
    }
}

/// Prints the plan of a set, and checks the permission to make its snapshots.
pub(super) async fn show(loaded: &Loaded, output: Output) -> Result<Exit, Error> {
    let planned = print_plan(loaded, output).await?;
    let request = run::create_request(
        &RunId::generate(),
        &planned.facts,
        &planned.plan,
        &loaded.settings.plan,
        planned.plan.best,
        Timestamp::now(),
    );
    let ec2 = Repeating::of(&planned.ec2, &loaded.settings.ec2);
    ec2.dry_run(&request).await?;
    warn(loaded, &planned);
    tell_of_others(loaded, &planned).await;
    let n = calls(&planned.plan.call);
    say(&format!("permission checked by DryRun: {n} {}", if n == 1 { "call" } else { "calls" }));
    if let Some(group) = &loaded.settings.plan.group {
        show_group(group).await?;
    }
    if let Some(lock) = &loaded.settings.plan.lock {
        say(&format!("then each snapshot is locked {}", super::lock::described(&lock.wanted())));
    }
    Ok(Exit::Ok)
}

/// Says who takes part, and asks the engine whether a run may use it.
async fn show_group(group: &GroupSettings) -> Result<(), Error> {
    let others: Vec<_> = group.members.iter().filter(|m| **m != group.member).cloned().collect();
    say(&format!("group {}: as {}, at one instant with {}", group.name, group.member, others.join(", ")));
    let said = super::engine(group)?.probe().await.map_err(Broken::Engine)?;
    say(&format!("permission checked by a transaction that changes nothing: etcd at {said}"));
    Ok(())
}

/// Prints the plan of a freeze. `freeze` makes no snapshots, so no permission is checked.
pub(super) async fn show_freeze(loaded: &Loaded, output: Output) -> Result<Exit, Error> {
    let planned = print_plan(loaded, output).await?;
    warn(loaded, &planned);
    say("`freeze` itself makes no call: the snapshots are taken by whoever asked for the freeze");
    Ok(Exit::Ok)
}

pub(super) async fn print_plan(loaded: &Loaded, output: Output) -> Result<Planned, Error> {
    let planned = planned(loaded, Path::new(ROOT), Purpose::Look).await?;
    let databases = databases(loaded, &planned);
    let busy = busy::look(Path::new(ROOT), &run::busy::subjects(&planned.plan));
    match output {
        Output::Text => print(&report::plan::human(&planned.plan, &databases, &busy, WIDTH)),
        Output::Json => {
            let json = report::plan::json(&planned.plan, &databases, &busy);
            print_json(&json.map_err(|e| Error::new(Exit::Bug, e))?);
        }
    }
    Ok(planned)
}

/// The databases on the plan's filesystems. Those that cannot be inspected give a warning, and the plan is
/// printed all the same.
fn databases(loaded: &Loaded, planned: &Planned) -> Vec<OnSet> {
    let on: Vec<_> = planned.plan.filesystems.iter().map(|f| f.dev).collect();
    match running::servers(Path::new("/"), &on) {
        Ok(found) => {
            if found.hidden > 0 {
                say("warning: databases of other users cannot be looked at; run `stillpoint plan` as root");
            }
            report::databases::on_set(found.found, &loaded.settings.plan.hooks, &planned.plan)
        }
        Err(e) => {
            say(&format!("warning: cannot look for databases: {e}"));
            Vec::new()
        }
    }
}

/// What other tools have of the volumes. The permission to ask is no part of a plan's: without it, that is said.
async fn tell_of_others(loaded: &Loaded, planned: &Planned) {
    let ids: Vec<_> = planned.plan.volumes.iter().map(|v| v.id.clone()).collect();
    let calls = Repeating::for_each_call(&planned.ec2, &loaded.settings.ec2);
    match of_volumes(&calls, &ids).await {
        Ok(all) => {
            for finding in others::others(&planned.plan, &all) {
                say(&format!("beside this: {}", finding.what));
            }
        }
        Err(e) if e.denied() => say("beside this: not known, ec2:DescribeSnapshots is not allowed"),
        Err(e) => say(&format!("beside this: not known: {e}")),
    }
}

/// Prints the findings of `doctor` about hooks and fanotify listeners; the other checks are left to `doctor`.
fn warn(loaded: &Loaded, planned: &Planned) {
    let set = Set::planned(&planned.facts, &planned.plan);
    let root = Path::new("/");
    let settings = &loaded.settings;
    let found = [
        hooks::runnable(&settings.plan.hooks, Path::new(OWN_PROGRAM)),
        hooks::writable(&settings.plan.hooks),
        processes::fanotify(root, &set),
        storage::run_dir(root, &settings.run_dir, &set),
        storage::images(&planned.facts.devices, &set),
    ];
    let mut told = false;
    for finding in found.into_iter().flatten().filter(|f| f.severity >= Severity::Warning) {
        let kind = if finding.severity == Severity::Problem { "problem" } else { "warning" };
        say(&format!("{kind}: {}", finding.what));
        told = true;
    }
    if told {
        say("hint: `stillpoint doctor` says why and what to do");
    }
}
