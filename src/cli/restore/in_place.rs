//! `stillpoint restore SET --in-place`: new volumes where the old ones are, and `--undo`, which puts the old ones back.
//!
//! In: a set, what is attached and mounted here. Out: the same mounts, of the set. Must never: touch the old volumes before
//! the new ones can be attached, or delete what was written to the new ones without being asked again.

use std::time::Duration;

use super::super::say;
use super::super::sets::Account;
use super::super::start::{end, prepare_process};
use super::{Restore, error, host, refused};
use crate::clock::System;
use crate::ec2::volumes::{Volumes as _, Which};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::restore::carry_out::Here;
use crate::restore::in_place::{Busy, Stage, There, back, forth};
use crate::restore::make::{Stopped, Waiting};
use crate::restore::plan::{Reach, RestorePlan};
use crate::restore::record::{self, Record};
use crate::run::lock;

impl Restore {
    /// The plan, with everything that can be known before a volume is made.
    pub(super) async fn plan_in_place(&self, account: &Account) -> Result<RestorePlan, Error> {
        let ec2 = account.calls();
        let host = host(account, &ec2).await?;
        let (mut plan, layout) =
            self.plan_for(account, None, Reach::Volumes, Some(host.view.zone.clone())).await?;
        let is_root = |id: &VolumeId| layout.volumes.iter().any(|v| v.id == *id && v.boot);
        if let Some(root) = plan.volumes.iter().map(|v| v.source.clone()).find(is_root) {
            let others = plan.volumes.len() - 1;
            if !self.mount.is_empty() || others == 0 {
                let what = format!("{root} is the root device, which is not exchanged while the host runs");
                return Err(Error::new(Exit::Config, what).hint(format!(
                    "`aws ec2 create-replace-root-volume-task --instance-id {} --snapshot-id …` does that (docs/restore.md)",
                    host.id
                )));
            }
            plan.volumes.retain(|v| v.source != root);
            plan.notes.push(format!("{root} is the root device, and stays as it is"));
        }
        let old: Vec<VolumeId> = plan.volumes.iter().map(|v| v.source.clone()).collect();
        let which = Which::Ids(old.clone());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let attached = ec2.call("DescribeVolumes", asked).await.map_err(Error::from)?;
        let plan = plan.in_place(&host, &attached, &self.stop_unit).map_err(refused)?;
        let there = There::look("/".as_ref(), &old, true).map_err(refused)?;
        let settings = &account.loaded.settings;
        there.spares(&settings.state_dir, "state_dir").map_err(refused)?;
        there.spares(&settings.run_dir, "run_dir").map_err(refused)?;
        prepare_process();
        let stops = |unit: &Option<String>| unit.as_ref().is_some_and(|u| self.stop_unit.contains(u));
        there.free(Duration::ZERO, |holder| !stops(&holder.unit)).await.map_err(busy)?;
        for (volume, old) in plan.volumes.iter().zip(&old) {
            let name = volume.device_name.as_deref().unwrap_or_default();
            let asked = async || ec2.inner().may_exchange(old, &host.id, name).await;
            ec2.call("DryRun", asked).await.map_err(|e| {
                let hint = "`stillpoint iam-policy restore restore-in-place` prints what it needs; nothing was touched";
                Error::from(e).hint(hint)
            })?;
        }
        Ok(plan.with_mounts(&there))
    }

    /// The new volumes are made: they come, and if they cannot, the old ones stay.
    pub(super) async fn exchange(
        &self,
        account: &Account,
        mut record: Record,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let id = record.plan.id.clone();
        if let Some(signal) = interrupt.pending() {
            say(&format!(
                "interrupted before the old volumes were touched: `stillpoint restore --continue {id}` goes on, --undo \
                 {id} takes it back"
            ));
            return Ok(end(Exit::After, Some(signal)));
        }
        let _run = lock::take(&account.loaded.settings.run_dir, Duration::ZERO).await?;
        prepare_process();
        let state_dir = account.loaded.settings.state_dir.clone();
        let on = Here { root: "/".as_ref(), state_dir: &state_dir };
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        let stopped = match forth(&mut record, &waiting, on).await {
            Ok(done) => {
                say(&format!("{} is restored in place", record.plan.set));
                say(&format!("`stillpoint restore --undo {id}` puts the old volumes back"));
                return self.tell(&record.plan, Some(&done), "done", Exit::Ok);
            }
            Err(stopped) => stopped,
        };
        if record.moving.stage != Stage::Planned {
            say(&format!("{stopped}"));
            say("it failed: the old volumes are put back");
            self.put_back(&mut record, &waiting, on).await?;
        }
        if record.moving.handed_over {
            return Err(error(stopped).hint(kept(&id)));
        }
        say(&format!("restore {id} failed, and is taken back"));
        match self.back(account, &id, &never).await {
            Ok(()) => Err(error(stopped)),
            Err(left) => {
                say(&left.render());
                Err(error(stopped).hint(format!("what is left: `stillpoint restore --undo {id}`")))
            }
        }
    }

    pub(super) async fn carry_on_in_place(
        &self,
        account: &Account,
        record: Record,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let id = record.plan.id.clone();
        match record.moving.stage {
            Stage::Planned => self.carry_out(account, record, interrupt).await,
            Stage::Forth => self.exchange(account, record, interrupt).await,
            Stage::There => {
                say(&format!("restore {id} is done"));
                Ok(Exit::Ok)
            }
            Stage::Back | Stage::Returned => {
                Err(Error::new(Exit::Config, format!("the old volumes of restore {id} were being put back"))
                    .hint(format!("`stillpoint restore --undo {id}` goes on with that")))
            }
        }
    }

    /// Puts the old volumes of a restore in place back. False where there is nothing of that to do.
    pub(super) async fn old_ones_back(&self, account: &Account, id: &RunId) -> Result<bool, Error> {
        let settings = &account.loaded.settings;
        let known = record::read(&settings.state_dir, id).ok().flatten();
        let Some(mut record) = known.filter(|r| r.plan.in_place.is_some()) else { return Ok(false) };
        // Killed before anything was unmounted, it may have stopped units.
        let stopped = record.moving.stage == Stage::Planned && !record.moving.stopped.is_empty();
        if !stopped && !record.moving.stage.has_touched() {
            return Ok(false);
        }
        let _run = lock::take(&settings.run_dir, Duration::ZERO).await?;
        prepare_process();
        let on = Here { root: "/".as_ref(), state_dir: &settings.state_dir };
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        self.put_back(&mut record, &waiting, on).await?;
        say("the old volumes are back");
        if !record.moving.handed_over {
            return Ok(false);
        }
        say(&kept(id));
        Ok(true)
    }

    async fn put_back<E: crate::ec2::volumes::Volumes>(
        &self,
        record: &mut Record,
        waiting: &Waiting<'_, E>,
        on: Here<'_>,
    ) -> Result<(), Error> {
        let before = record.moving.stage;
        let Err(stopped) = back(record, waiting, on).await else { return Ok(()) };
        // Who keeps the new ones busy has kept them: nothing was touched.
        if before == Stage::There && record.moving.stage == before {
            return Err(error(stopped));
        }
        let mut by_hand: Vec<String> = Vec::new();
        let plan = &record.plan;
        for old in plan.in_place.iter().flat_map(|p| &p.old) {
            let instance = plan.instance.as_ref().map_or("", |i| i.as_str());
            by_hand.push(format!(
                "aws ec2 attach-volume --volume-id {} --instance-id {instance} --device {}",
                old.volume, old.device_name
            ));
        }
        by_hand.extend(plan.filesystems.iter().map(|f| format!("mount {}", shown(&f.source))));
        let what = match stopped {
            Stopped::Ec2(e) => e.to_string(),
            other => other.to_string(),
        };
        Err(Error::new(Exit::NotMounted, format!("the old volumes could not be put back: {what}")).hint(
            format!(
                "mend that, then `stillpoint restore --undo {}`; by hand: {}",
                plan.id,
                by_hand.join("; ")
            ),
        ))
    }
}

fn kept(id: &RunId) -> String {
    format!(
        "the new volumes are detached, and kept with what was written to them: `stillpoint restore --undo {id}` once more deletes them"
    )
}

fn busy(busy: Busy) -> Error {
    let hint = match busy.units.is_empty() {
        true => "nothing was touched; end what keeps it busy".to_owned(),
        false => {
            let units: Vec<String> = busy.units.iter().map(|u| format!("--stop-unit {u}")).collect();
            format!("nothing was touched; stop them: {}", units.join(" "))
        }
    };
    Error::new(Exit::Config, format!("cannot unmount {}", busy.what)).hint(hint)
}
