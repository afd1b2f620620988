//! `stillpoint snapshot --copy`: what is looked at before the set is taken, and what is done after it.
//!
//! In: a plan's destinations, then a run. Out: a refusal, or what became of the copies. Must never: begin before the
//! run's own result is known, or change it.

use nix::sys::signal::Signal;

use super::destination::{how, possible};
use super::every::{Made, copy};
use super::{source, to_each};
use crate::cli::Global;
use crate::cli::follow::Progress;
use crate::cli::say;
use crate::cli::sets::{Account, SetName};
use crate::cli::start::listen;
use crate::clock::System;
use crate::config::Loaded;
use crate::config::settings::CopySettings;
use crate::ec2::copies::Copies as _;
use crate::ec2::reconcile::LOOKS;
use crate::ec2::repeat::Repeating;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::RunId;
use crate::interrupt::Interrupt;
use crate::report;
use crate::report::event::{Event, Kind};
use crate::sets::copy::make::request;
use crate::sets::copy::source::Source;
use crate::sets::find::of_plan;
use crate::sets::follow::{Followed, follow};
use crate::sets::record::SetRecord;
use crate::sets::set::{SetState, SnapshotSet};
use crate::sets::wait::Waiting;

/// Where the set of a run is to be copied to.
pub(in crate::cli) struct Copies {
    account: Account,
    to: Vec<CopySettings>,
}

/// What became of it.
pub(in crate::cli) struct Copied {
    /// The exit code of the command.
    pub exit: Exit,
    /// The signal to die by.
    pub signal: Option<Signal>,
    /// Of a set that was not copied.
    pub event: Option<Event>,
}

impl Copies {
    /// Before a set is taken: may it be copied? None where it is not to be.
    ///
    /// # Errors
    /// When it could not be. Nothing has been touched.
    pub(in crate::cli) async fn before(
        global: &Global,
        loaded: &Loaded,
        by_plan: bool,
        regions: &[String],
    ) -> Result<Option<Self>, Error> {
        let plan = &loaded.settings.plan;
        let each = CopySettings { region: String::new(), encrypt: false, key: None, within: None };
        let to = if by_plan { plan.copy.clone() } else { to_each("--copy-to", regions, &each)? };
        if by_plan && to.is_empty() {
            let what = format!("the plan {} names no Region to copy to", plan.name);
            let table = format!("[[plan.{}.copy]]", plan.name);
            return Err(Error::new(Exit::Config, what)
                .hint(format!("--copy-to eu-west-1, or a table {table} (docs/copies.md)")));
        }
        if to.is_empty() {
            return Ok(None);
        }
        let account = Account::connect(global, Some(&plan.name), true).await?;
        possible_at(&account, &to).await?;
        Ok(Some(Self { account, to }))
    }

    /// Copies the set, where the run got what it has to get. The set keeps its result: what fails here makes 0 and 10
    /// to 11, and nothing else.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub(in crate::cli) async fn after(
        &self,
        record: &SetRecord,
        signal: Option<Signal>,
    ) -> Result<Copied, Error> {
        let (run, exit) = (&record.run_id, record.exit);
        if signal.is_some() || !matches!(exit, Exit::Ok | Exit::Lower | Exit::After) {
            if !record.snapshots.is_empty() {
                say(&format!("{run} is not copied; `stillpoint copy {run}` does it"));
            }
            return Ok(Copied { exit, signal, event: None });
        }
        let mut interrupt = listen()?;
        let (signal, why) = match self.copy(run, &mut interrupt).await {
            Ok(made) if made.exit == Exit::Ok => {
                return Ok(Copied { exit, signal: made.signal, event: None });
            }
            Ok(made) => (made.signal, None),
            Err(error) => {
                say(&format!("{run} is taken, and not copied"));
                say(&error.render());
                (None, Some(error.to_string()))
            }
        };
        let mut event = Event::new(Kind::AfterFailed, "the set was taken, and not copied whole");
        event.reason = why;
        event.plan = Some(record.plan.name.clone());
        event.run_id = Some(run.clone());
        event.set = Some(run.clone());
        event.achieved = record.achieved;
        event.exit_code = Some(Exit::After);
        report::log::tell(&event);
        Ok(Copied { exit: Exit::After, signal, event: Some(event) })
    }

    /// Waits for the set, and copies it.
    async fn copy(&self, run: &RunId, interrupt: &mut Interrupt) -> Result<Made, Error> {
        let account = &self.account;
        let set = shown(account, run).await?;
        match until_completed(account, &set, interrupt).await? {
            Followed::Interrupted(signal) => {
                say(&format!("{run} is not copied; `stillpoint copy {run} --wait-source` does it"));
                return Ok(Made {
                    ids: Vec::new(),
                    copies: Vec::new(),
                    exit: Exit::After,
                    signal: Some(signal),
                });
            }
            Followed::Completed | Followed::Lost(_) | Followed::NotYet => {}
        }
        let set = shown(account, run).await?;
        copy(account, &source(account, &set).await?, &self.to, None, true, interrupt).await
    }
}

/// May sets of this plan be copied? Asked by the newest completed set of the plan, since EC2
/// wants to know which snapshot. Whether EBS may use a key, EC2 tells nobody before it fails.
async fn possible_at(account: &Account, to: &[CopySettings]) -> Result<(), Error> {
    let instance = account.instance(None)?;
    let plan = &account.loaded.settings.plan.name;
    let sets = of_plan(&account.calls(), &instance, plan).await.map_err(Error::from)?;
    let newest = sets.iter().find(|s| s.copy_of.is_none() && s.state() == SetState::Completed);
    let newest = match newest {
        Some(set) => source(account, set).await.ok(),
        None => None,
    };
    for to in to {
        possible(&account.region, to)?;
        let aws = account.at(&to.region).await?;
        let ec2 = Repeating::for_each_call(&aws, &account.loaded.settings.ec2);
        let (how, _) = how(&ec2, to, newest.as_ref().is_some_and(Source::encrypted)).await?;
        let Some((source, part)) = newest.as_ref().and_then(|s| Some((s, s.parts.first()?))) else {
            tracing::info!(
                "{}: whether copies may be made there is not known before the first set is completed",
                to.region
            );
            continue;
        };
        let request = request(source, part, &RunId::generate(), &how);
        ec2.call("DryRun", async || ec2.inner().may_copy(&request).await).await.map_err(Error::from)?;
    }
    Ok(())
}

/// A set that was taken a moment ago, which EC2 may not show whole (EC2 guide, "eventual consistency").
pub(in crate::cli) async fn shown(account: &Account, run: &RunId) -> Result<SnapshotSet, Error> {
    let mut last = Err(Error::new(Exit::Ec2, format!("EC2 does not show {run}")));
    for pause in LOOKS {
        last = account.set(&SetName::Start(run.to_string())).await;
        if last.as_ref().is_ok_and(|set| set.missing.is_empty() && set.achieved.is_some()) {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    last
}

/// Waits until every snapshot of a set is completed, and tells each change.
///
/// # Errors
/// When EC2 refuses in a way that no waiting mends.
pub(in crate::cli) async fn until_completed(
    account: &Account,
    set: &SnapshotSet,
    interrupt: &mut Interrupt,
) -> Result<Followed, Error> {
    let mut waiting = Waiting::of(set);
    let mut progress = Progress::new();
    let ec2 = account.calls();
    let followed = follow(&ec2, &mut waiting, None, &System, interrupt, &mut progress).await;
    progress.end();
    followed.map_err(Error::from)
}
