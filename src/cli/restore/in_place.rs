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
use crate::restore::carry_out::Here;
use crate::restore::in_place::{
    A_MOMENT, Busy, Stage, There, Unstarted, back, could_go_back, forth, nobody_has, settle, stopped_for,
    units_back,
};
use crate::restore::make::Waiting;
use crate::restore::plan::{Reach, RestorePlan};
use crate::restore::record::{self, Record};
use crate::run::{lock, planned};

/// What there was of old volumes to be put back.
pub(super) enum OldOnes {
    /// It is none in place, or they never went, or they are back for long.
    NotAway,
    /// They are back, and the new ones were nobody's yet.
    Back(Unstarted),
    /// They are back, and the new ones are kept.
    BackAndKept(Unstarted),
}

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
                let hint = "`stillpoint restore SET --root` has EC2 exchange it, and reboots";
                return Err(Error::new(Exit::Config, what).hint(hint));
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
        let stopped = stopped_for(&plan.id, &self.stop_unit)
            .await
            .map_err(|why| Error::new(Exit::Config, why).hint("nothing was touched"))?;
        let stops = |unit: &Option<String>| unit.as_ref().is_some_and(|u| stopped.contains(u));
        there.free(Duration::ZERO, |holder| !stops(&holder.unit)).await.map_err(busy)?;
        // Who of them goes with the units that are stopped, is seen once they are.
        if stopped.is_empty() {
            let open = nobody_has("/".as_ref(), &old, A_MOMENT, &|line| say(line)).await;
            open.map_err(|busy| {
                let hint = "nothing was touched; end what has it open, or stop its unit with --stop-unit";
                Error::new(Exit::Config, busy.what).hint(hint)
            })?;
        }
        for (volume, old) in plan.volumes.iter().zip(&old) {
            let name = volume.device_name.as_deref().unwrap_or_default();
            let asked = async || ec2.inner().may_exchange(old, &host.id, name).await;
            ec2.call("DryRun", asked).await.map_err(|e| {
                let hint = "`stillpoint iam-policy restore restore-in-place` prints what it needs; nothing was touched";
                Error::from(e).hint(hint)
            })?;
        }
        plan.with_mounts(&there, &layout).map_err(refused)
    }

    /// The new volumes are made: they come, and if they cannot, the old ones stay.
    pub(super) async fn exchange(
        &self,
        account: &Account,
        mut record: Record,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let id = record.plan.id.clone();
        if let Some(signal) = interrupt.pending().filter(|_| record.moving.stage == Stage::Planned) {
            say(&format!(
                "interrupted before the old volumes were touched: `stillpoint restore --continue {id}` goes on, --undo \
                 {id} takes it back"
            ));
            return Ok(end(Exit::After, Some(signal)));
        }
        prepare_process();
        let state_dir = account.loaded.settings.state_dir.clone();
        let on = Here { root: "/".as_ref(), state_dir: &state_dir };
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        let stopped = match forth(&mut record, &waiting, on).await {
            Ok((done, unstarted)) => {
                say(&format!("{} is restored in place", record.plan.set));
                say(&format!("`stillpoint restore --undo {id}` puts the old volumes back"));
                let exit = if unstarted.is_empty() { Exit::Ok } else { Exit::After };
                return self.tell(&record.plan, Some(&done), "done", exit);
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
        mut record: Record,
        interrupt: &Interrupt,
    ) -> Result<Exit, Error> {
        let id = record.plan.id.clone();
        of_this_host(account, &record).await?;
        match record.moving.stage {
            Stage::Planned => self.carry_out(account, record, interrupt).await,
            Stage::Forth | Stage::Back => {
                if record.moving.stage == Stage::Back {
                    say(&format!("restore {id} was being taken back, and goes on to the new volumes again"));
                }
                let _run = lock::take(&account.loaded.settings.run_dir, Duration::ZERO).await?;
                self.exchange(account, record, interrupt).await
            }
            Stage::There => {
                let (ec2, never) = (account.calls(), Interrupt::never());
                let waiting =
                    Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
                let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
                let mut left = settle(&mut record, &waiting, on).await;
                if record.moving.keeps_units() {
                    left.extend(self.units_of_killed(account, &mut record).await?);
                }
                say(&format!("restore {id} is done"));
                Ok(if left.is_empty() { Exit::Ok } else { Exit::After })
            }
            Stage::Returned => {
                let what = format!("restore {id} was taken back: the old volumes are in place");
                let hint = format!(
                    "`stillpoint restore {} --in-place` begins anew; --undo {id} deletes the new volumes, with what was \
                     written to them",
                    record.plan.set
                );
                Err(Error::new(Exit::Config, what).hint(hint))
            }
        }
    }

    /// Puts the old volumes of a restore in place back.
    pub(super) async fn old_ones_back(&self, account: &Account, id: &RunId) -> Result<OldOnes, Error> {
        let settings = &account.loaded.settings;
        let known = record::read(&settings.state_dir, id).ok().flatten();
        let Some(mut record) = known.filter(|r| r.plan.in_place.is_some()) else {
            return Ok(OldOnes::NotAway);
        };
        of_this_host(account, &record).await?;
        // Killed before anything was unmounted, it may have stopped units.
        let stopped = record.moving.stage == Stage::Planned && record.moving.keeps_units();
        // The old ones are back, and EC2 had not taken their mark off: once more, before this is forgotten.
        if record.moving.stage == Stage::Returned && !record.moving.settled {
            let (ec2, never) = (account.calls(), Interrupt::never());
            let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
            let on = Here { root: "/".as_ref(), state_dir: &settings.state_dir };
            let left = settle(&mut record, &waiting, on).await;
            if !left.is_empty() {
                say("nothing is deleted before that tag is off");
                return Ok(OldOnes::BackAndKept(left));
            }
        }
        if !stopped && !record.moving.stage.has_touched() {
            return Ok(OldOnes::NotAway);
        }
        let _run = lock::take(&settings.run_dir, Duration::ZERO).await?;
        prepare_process();
        let on = Here { root: "/".as_ref(), state_dir: &settings.state_dir };
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        let unstarted = self.put_back(&mut record, &waiting, on).await?;
        say("the old volumes are back");
        if !record.moving.handed_over {
            return Ok(OldOnes::Back(unstarted));
        }
        say(&kept(id));
        Ok(OldOnes::BackAndKept(unstarted))
    }

    /// What `--undo` would do, once it is known that it can.
    pub(super) async fn would_put_back(&self, account: &Account, record: &Record) -> Result<(), Error> {
        of_this_host(account, record).await?;
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
        could_go_back(record, &waiting, on).await.map_err(error)?;
        for old in record.plan.in_place.iter().flat_map(|p| &p.old) {
            say(&format!("{} would be put back as {}", old.volume, old.device_name));
        }
        Ok(())
    }

    /// Starts the units that a restore in place has stopped that was killed where its volumes are in place, either of them.
    pub(super) async fn units_of_killed(
        &self,
        account: &Account,
        record: &mut Record,
    ) -> Result<Unstarted, Error> {
        of_this_host(account, record).await?;
        let _run = lock::take(&account.loaded.settings.run_dir, Duration::ZERO).await?;
        prepare_process();
        let (ec2, never) = (account.calls(), Interrupt::never());
        let waiting = Waiting { ec2: &ec2, clock: &System, interrupt: &never, tell: &|line| say(line) };
        let on = Here { root: "/".as_ref(), state_dir: &account.loaded.settings.state_dir };
        Ok(units_back(record, &waiting, on).await)
    }

    async fn put_back<E: crate::ec2::volumes::Volumes>(
        &self,
        record: &mut Record,
        waiting: &Waiting<'_, E>,
        on: Here<'_>,
    ) -> Result<Unstarted, Error> {
        let stopped = match back(record, waiting, on).await {
            Ok(unstarted) => return Ok(unstarted),
            Err(stopped) => stopped,
        };
        let id = &record.plan.id;
        match record.moving.stage {
            // Nothing was touched.
            Stage::Planned => return Err(error(stopped)),
            // Nor here, or they are in place again.
            Stage::There => {
                say(&format!("the new volumes are in place: `stillpoint restore --undo {id}` tries again"));
                return Err(error(stopped));
            }
            Stage::Forth | Stage::Back | Stage::Returned => {}
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
        let old: Vec<VolumeId> =
            plan.in_place.iter().flat_map(|p| &p.old).map(|o| o.volume.clone()).collect();
        by_hand.extend(record.moving.by_hand(&old));
        by_hand.extend(record.moving.masked.by_hand());
        Err(Error::new(Exit::NotMounted, format!("the old volumes could not be put back: {stopped}")).hint(
            format!(
                "mend that, then `stillpoint restore --undo {}`; by hand: {}",
                plan.id,
                by_hand.join("; ")
            ),
        ))
    }
}

/// Refuses what another host began: its record came here with an image or a snapshot of that host, and its volumes may be
/// in use there.
async fn of_this_host(account: &Account, record: &Record) -> Result<(), Error> {
    let identity = match &account.identity {
        Some(identity) => identity.clone(),
        None => planned::identify(&account.loaded).await?,
    };
    let (plan, own, region) = (&record.plan, identity.instance_id, &account.region);
    if plan.instance.as_ref() == Some(&own) && plan.region == *region {
        return Ok(());
    }
    let other = plan.instance.as_ref().map_or("none", |i| i.as_str());
    let what =
        format!("restore {} was begun on {other} in {}, and this is {own} in {region}", plan.id, plan.region);
    Err(Error::new(Exit::Config, what).hint("go on there; nothing was touched"))
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
