//! `stillpoint restore SET --root`: the root volume of an instance, of a set; and `--continue`, which says how that ended.
//!
//! In: a set, an instance. Out: the id of the new root on stdout, where this process lives to see it. Must never: ask EC2
//! before it is confirmed and written down, or twice.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use super::super::ask::confirm;
use super::super::sets::{Account, SetName};
use super::super::start::end;
use super::super::{Output, print, print_document, say};
use super::document::{Document, OfRestore, OfVolume, VERSION};
use super::{Restore, error, refused, unread};
use crate::clock::System;
use crate::ec2::Ec2Error;
use crate::ec2::aws::Aws;
use crate::ec2::repeat::Repeating;
use crate::ec2::roots::{RootView, Roots as _};
use crate::ec2::volumes::{Volumes as _, Which};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::report;
use crate::restore::in_place::Stage;
use crate::restore::make::Stopped;
use crate::restore::record as restores;
use crate::restore::root::follow::{self, Ended, Old, Replacing, back};
use crate::restore::root::record::{self, RootRecord};
use crate::restore::root::{Asked, RootPlan, other_ways, plan};
use crate::run::lock::{self, RunLock};
use crate::sets::guard::members;
use crate::sets::layout::layout;

/// After that, EC2 may have forgotten the token, and would replace the root once more.
const TOKEN_LASTS: SignedDuration = SignedDuration::from_mins(30);

#[derive(Debug, Args)]
pub(super) struct OfRoot {
    /// Replace the root volume by that of the set: EC2 exchanges it, and reboots the instance. Its data volumes stay.
    #[arg(help_heading = "The root", long, requires = "set", conflicts_with_all = [
        "to", "mount", "read_only", "no_mount", "no_attach", "in_place", "az", "volume_type", "iops", "throughput", "key", "size",
    ])]
    pub(super) root: bool,
    /// The root of this instance, from another computer [default: this one].
    #[arg(help_heading = "The root", long, value_name = "INSTANCE", requires = "root")]
    instance: Option<InstanceId>,
    /// Delete the volume that was the root; else it is kept, detached.
    #[arg(help_heading = "The root", long, requires = "root")]
    delete_replaced: bool,
    /// Replace the root without asking: the instance is rebooted.
    #[arg(help_heading = "The root", long, conflicts_with_all = ["undo", "left"])]
    yes: bool,
}

impl OfRoot {
    /// The instance is named: this may be any computer.
    pub(super) fn elsewhere(&self) -> bool {
        self.instance.is_some()
    }
}

/// What is missing, of a denial.
pub(super) fn not_allowed(denied: &Ec2Error) -> String {
    format!("{denied} (`stillpoint iam-policy restore-root` has it)")
}

async fn root_of(ec2: &Repeating<'_, Aws>, id: &InstanceId) -> Result<Option<RootView>, Ec2Error> {
    ec2.call("DescribeInstances", async || ec2.inner().root_of(id).await).await
}

impl Restore {
    pub(super) async fn replace_root(&self, account: &Account, interrupt: &Interrupt) -> Result<Exit, Error> {
        let instance = account.instance(self.of_root.instance.as_ref())?;
        let own = account.identity.as_ref().map(|i| &i.instance_id);
        let here = own == Some(&instance);
        let _run = self.no_run_here(account, here).await?;
        let plan = self.plan_root(account, instance, here).await?;
        if self.output == Output::Text {
            say(&report::restore::root(&plan));
        }
        self.ask_for_root(account, RootRecord::of(plan, jiff::Timestamp::now()), false, interrupt).await
    }

    /// What is in its window is not rebooted, and nothing begins while this waits for its end. Where IMDS was not asked,
    /// this may be that instance all the same.
    async fn no_run_here(&self, account: &Account, here: bool) -> Result<Option<RunLock>, Error> {
        let run_dir = &account.loaded.settings.run_dir;
        match here || (account.identity.is_none() && run_dir.is_dir()) {
            true if !self.dry_run => lock::take(run_dir, Duration::ZERO).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn plan_root(
        &self,
        account: &Account,
        instance: InstanceId,
        here: bool,
    ) -> Result<RootPlan, Error> {
        let name: &SetName = self.set.as_ref().ok_or_else(|| Error::new(Exit::Usage, "of which set?"))?;
        let set = account.set(name).await?;
        let ec2 = account.calls();
        let snapshots = members(&ec2, &set).await.map_err(Error::from)?;
        let layout = layout(snapshots.iter().map(|s| s.tags.as_slice()))
            .map_err(|e| Error::new(Exit::Config, format!("{}: {e}", set.id)).hint("restore another set"))?;
        let Some(root) = root_of(&ec2, &instance).await? else {
            return Err(Error::new(Exit::Config, format!("there is no {instance} in {}", account.region))
                .hint("--region names another Region"));
        };
        if let Some(task) = follow::under_way(&ec2, &instance).await? {
            let what = format!("{} replaces the root of {instance} already ({})", task.id, task.state);
            return Err(
                Error::new(Exit::Locked, what).hint("`stillpoint restore --list` shows how far it is")
            );
        }
        let asked = Asked {
            instance,
            here,
            delete_replaced: self.of_root.delete_replaced,
            initialization_rate: self.init_rate,
        };
        let mut plan = plan(&set, &layout, &root, &asked).map_err(refused)?;
        plan.notes.extend(forgotten(&account.loaded.settings.state_dir, &plan.instance)?);
        Ok(plan)
    }

    /// Asks EC2, once it is confirmed, and follows. `again`: it was asked before, and its answer is not known.
    async fn ask_for_root(
        &self,
        account: &Account,
        mut record: RootRecord,
        again: bool,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let ec2 = account.calls().until(interrupt);
        let plan = record.plan.clone();
        let request = plan.request();
        let may = async || ec2.inner().may_replace_root(&request).await;
        ec2.call("DryRun", may).await.map_err(|e| root_refused(e, &plan))?;
        if self.dry_run {
            return self.tell_root(OfRestore::of_root(&plan, &account.region));
        }
        let question = format!("{} is rebooted, and gets another root. Go on?", plan.instance);
        confirm(&question, self.of_root.yes, interrupt).await?;
        let state_dir = &account.loaded.settings.state_dir;
        record.write(state_dir).map_err(|e| {
            Error::new(Exit::After, format!("cannot write down what EC2 is asked for: {e}"))
                .hint("nothing was asked for")
        })?;
        say(&format!("restore {}", plan.id));
        if plan.here {
            say("this host is rebooted; afterwards, this says how it ended:");
            say(&format!("  stillpoint restore --continue {}", plan.id));
        }
        // An answer that got lost may be of a call that was carried out, whatever is said to its repetition.
        let lost = Cell::new(again);
        let asked = async || {
            let said = ec2.inner().replace_root(&request).await;
            lost.set(lost.get() || said.as_ref().is_err_and(Ec2Error::outcome_unknown));
            said
        };
        let task = match ec2.call("CreateReplaceRootVolumeTask", asked).await {
            Ok(task) => task,
            Err(e) if lost.get() => {
                let hint = format!("`stillpoint restore --continue {}` says whether EC2 does it", plan.id);
                return Err(Error::from(e).hint(hint));
            }
            Err(e) => {
                let _ = record::forget(state_dir, &plan.id);
                return Err(root_refused(e, &plan));
            }
        };
        record.task = Some(task.id.clone());
        if let Err(e) = record.write(state_dir) {
            say(&format!("cannot write down that EC2 has begun {}: {e}", task.id));
        }
        let of = Replacing {
            id: plan.id.clone(),
            set: Some(plan.set.clone()),
            replaced: Some(plan.replaced.clone()),
            task,
        };
        self.follow_root(account, of, interrupt).await
    }

    /// Goes on with a root, if this restore is of one.
    pub(super) async fn carry_on_root(
        &self,
        account: &Account,
        id: &RunId,
        interrupt: &Interrupt,
    ) -> Result<Option<Exit>, Error> {
        let state_dir = &account.loaded.settings.state_dir;
        let known = record::read(state_dir, id).map_err(|e| {
            Error::new(Exit::Config, format!("what this host remembers of {id} cannot be read: {e}"))
        })?;
        let ec2 = account.calls().until(interrupt);
        let noted = known.as_ref().and_then(|record| record.task.as_ref());
        let found = match follow::find(&ec2, id, noted).await {
            Ok(found) => found,
            Err(Stopped::Ec2(e)) if e.denied() && known.is_none() => {
                say(&format!("whether {id} is of a root is not known: {}", not_allowed(&e)));
                return Ok(None);
            }
            Err(stopped) => return Err(error(stopped)),
        };
        match (found, known) {
            (Some(of), _) => self.follow_root(account, of, interrupt).await.map(Some),
            (None, None) => Ok(None),
            (None, Some(mut record)) => {
                let age = jiff::Timestamp::now().duration_since(record.began);
                if let Some(task) = &record.task {
                    return Err(Error::new(Exit::Config, format!("EC2 does not show {task} any more"))
                        .hint("`aws ec2 describe-instances` shows which volume is the root"));
                }
                if age.is_negative() || age > TOKEN_LASTS {
                    let _ = record::forget(state_dir, id);
                    let what = format!("EC2 shows no task of restore {id}: nothing was done");
                    let hint = format!("`stillpoint restore {} --root` begins anew", record.plan.set);
                    return Err(Error::new(Exit::Config, what).hint(hint));
                }
                say(&format!(
                    "EC2 shows no task of restore {id} yet; it is asked for once more, which makes one"
                ));
                let own = account.identity.as_ref().map(|i| &i.instance_id);
                record.plan.here = own == Some(&record.plan.instance);
                let _run = self.no_run_here(account, record.plan.here).await?;
                if self.output == Output::Text {
                    say(&report::restore::root(&record.plan));
                }
                self.ask_for_root(account, record, true, interrupt).await.map(Some)
            }
        }
    }

    async fn follow_root(
        &self,
        account: &Account,
        mut of: Replacing,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let (ec2, id) = (account.calls().until(interrupt), of.id.clone());
        let again = format!("`stillpoint restore --continue {id}` follows it to its end");
        let task = of.task.clone();
        of.task = match follow::to_its_end(task, &ec2, &System, interrupt, &|line| say(line)).await {
            Ok(task) => task,
            Err(Stopped::Signal(signal)) => {
                say(&format!("interrupted, while EC2 goes on: {again}"));
                say(&format!("a run of stillpoint on {} would be cut off by the reboot", of.task.instance));
                return Ok(end(Exit::After, Some(signal)));
            }
            Err(stopped) => return Err(error(stopped).hint(again)),
        };
        let _ = record::forget(&account.loaded.settings.state_dir, &id);
        // How the task ended does not hang on what EC2 says of these.
        let unknown = |what: &str, e: &Ec2Error| say(&format!("{what} is not known: {e}"));
        let now = follow::root_after(&of, &ec2, &System).await;
        let now = now.inspect_err(|e| unknown("which volume is the root now", e)).ok().flatten();
        let old = match &of.replaced {
            None => None,
            Some(replaced) => {
                let old = self::old(&ec2, replaced).await;
                old.inspect_err(|e| unknown(&format!("what became of {replaced}"), e)).ok()
            }
        };
        let Ended { root, lines } = follow::ended(&of, now.as_ref(), old.as_ref())?;
        lines.iter().for_each(|line| say(line));
        let mut document = OfRestore::of_task(&of, &account.region);
        document.volumes.push(OfVolume {
            id: root,
            source: of.replaced.clone(),
            snapshot: of.task.snapshot.clone(),
            size_gib: now.as_ref().map_or(0, |n| n.size_gib),
            volume_type: None,
            device_name: now.map(|n| n.device_name),
            state: None,
        });
        self.tell_root(document)
    }

    fn tell_root(&self, document: OfRestore<'_>) -> Result<Exit, Error> {
        if self.output == Output::Text {
            document.volumes.iter().filter_map(|v| v.id.as_ref()).for_each(|id| print(id.as_str()));
            return Ok(Exit::Ok);
        }
        let restores = vec![document];
        print_document(&Document { version: VERSION, command: "restore", restores, exit_code: Exit::Ok })?;
        Ok(Exit::Ok)
    }

    /// Refuses `--undo` of a root: EC2 does that, when somebody asks for it.
    pub(super) async fn no_root_back(&self, account: &Account, id: &RunId) -> Result<(), Error> {
        // Whoever may tag can put the tag of any restore on a task: what this host remembers is not of a root.
        if matches!(restores::read(&account.loaded.settings.state_dir, id), Ok(Some(_))) {
            return Ok(());
        }
        let ec2 = account.calls();
        let of = match follow::find(&ec2, id, None).await {
            Ok(Some(of)) => of,
            // What is no root needs no permission to be taken back.
            Ok(None) | Err(Stopped::Ec2(_)) => return Ok(()),
            Err(stopped) => return Err(error(stopped)),
        };
        let instance = &of.task.instance;
        let what =
            format!("restore {id} has replaced the root of {instance}, which is not taken back by this");
        let hint = of.replaced.as_ref().map_or_else(
            || "another set comes by `stillpoint restore SET --root`".to_owned(),
            |old| {
                format!(
                    "`{}` makes the old volume the root again, and reboots; docs/restore.md",
                    back(instance, old)
                )
            },
        );
        Err(Error::new(Exit::Config, what).hint(hint))
    }
}

/// EC2's own refusal is about where the snapshot comes from, or about what is under way.
fn root_refused(e: Ec2Error, plan: &RootPlan) -> Error {
    let code = if let Ec2Error::Refused { code, .. } = &e { code.as_str() } else { "" };
    let hint = match code {
        "InvalidParameterValue" | "InvalidParameterCombination" => other_ways(&plan.set, &plan.zone),
        "IncorrectState" | "IncorrectInstanceState" => {
            "`aws ec2 describe-replace-root-volume-tasks` shows what is under way; nothing was begun"
                .to_owned()
        }
        _ => return e.into(),
    };
    Error::from(e).hint(hint)
}

/// What is lost with the memory of this host, if that is of this instance.
///
/// # Errors
/// Where that would leave something between two states.
fn forgotten(state_dir: &Path, instance: &InstanceId) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for id in restores::all(state_dir).map_err(unread)? {
        let Some(record) = restores::read(state_dir, &id).map_err(unread)? else { continue };
        // Where IMDS was not asked, this may be that instance, or any computer.
        if record.plan.instance.as_ref() != Some(instance) {
            continue;
        }
        match record.moving.stage {
            Stage::Forth | Stage::Back => {
                let what = format!("restore {id}, in place, is under way");
                return Err(Error::new(Exit::Config, what)
                    .hint(format!("--continue {id} ends it, --undo {id} takes it back")));
            }
            Stage::There => notes.push(format!(
                "`restore --undo {id}` puts data volumes back by this host's memory: do it before, if it is wanted"
            )),
            Stage::Planned | Stage::Returned => {}
        }
    }
    Ok(notes)
}

async fn old(ec2: &Repeating<'_, Aws>, id: &VolumeId) -> Result<Old, Ec2Error> {
    let which = Which::Ids(vec![id.clone()]);
    let asked = async || ec2.inner().volumes_that_are(&which).await;
    let shown = ec2.call("DescribeVolumes", asked).await?;
    Ok(match shown.into_iter().find(|v| v.id == *id) {
        Some(volume) if !volume.is_gone() => Old::There(volume.state),
        _ => Old::Gone,
    })
}
