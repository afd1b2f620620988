//! Volumes are exchanged: some go, others come by the same device names, and what was mounted is mounted again.
//!
//! ```text
//! stop units ─▶ nobody is left ─▶ recipe, noted ─▶ unmount ─▶ claim ─▶ detach ─▶ attach ─▶ settle ─▶ mount ─▶ start units
//! ```
//!
//! In: the record of a restore in place. Out: the new volumes where the old ones were, or the other way round. Each step
//! is left out where it is done already, so that another process can go on, or turn round. Must never: heed a signal
//! between the first umount and the last mount, detach what could not be claimed, touch what is in place while it is known
//! that the others cannot come, or try without end what the other way would end.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::super::carry_out::{Done, Here, MadeMount, MadeVolume};
use super::super::make::{Stopped, Waiting};
use super::super::record::Record;
use super::super::{disks, hide};
use super::host::{There, devices};
use super::patience::Patience;
use super::users::nobody_has;
use super::{InPlace, Stage};
use crate::ec2::volumes::Volumes;
use crate::host::process;
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::shown;
use crate::unmount::Recipe;
use crate::unmount::remount::{Remount, remount};

/// How long processes of stopped units may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// So often what something else unmounts is mounted again.
const TRIES: usize = 3;
/// Between two tries of what has to succeed.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forth,
    Back,
}

/// A restore in place that is carried out, or turned round.
pub(super) struct Exchange<'a, 'w, E> {
    pub(super) record: &'a mut Record,
    pub(super) waiting: &'a Waiting<'w, E>,
    pub(super) on: Here<'a>,
    pub(super) instance: InstanceId,
    pub(super) in_place: InPlace,
    pub(super) new: Vec<VolumeId>,
    pub(super) unstarted: Vec<String>,
}

/// Units that could not be started again, and what else is not as it should be although the volumes are in place.
pub type Unstarted = Vec<String>;

/// Puts the new volumes, which are made, in the place of the old ones. `waiting` heeds no signal.
///
/// # Errors
/// The step that failed: then [`back`] is due.
pub async fn forth<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<(Done, Unstarted), Stopped> {
    let mut exchange = Exchange::of(record, waiting, on)?;
    exchange.can_come(Way::Forth).await?;
    exchange.go(Way::Forth).await?;
    Ok((exchange.done(), exchange.unstarted))
}

/// Does what nothing depends on, of one whose volumes are in place, where a process died before it did, or EC2 refused it.
/// Returns what is not as it should be.
pub async fn settle<E: Volumes>(record: &mut Record, waiting: &Waiting<'_, E>, on: Here<'_>) -> Unstarted {
    let way = match record.moving.stage {
        Stage::There => Way::Forth,
        Stage::Returned => Way::Back,
        Stage::Planned | Stage::Forth | Stage::Back => return Vec::new(),
    };
    if record.moving.settled {
        return Vec::new();
    }
    let Ok(mut exchange) = Exchange::of(record, waiting, on) else { return Vec::new() };
    exchange.settle(way).await;
    exchange.unstarted
}

/// Takes masks off and starts what was stopped, where whoever stopped it is gone and both volumes are where they belong.
/// Returns what is not started.
pub async fn units_back<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Unstarted {
    let Ok(mut exchange) = Exchange::of(record, waiting, on) else { return Vec::new() };
    exchange.start_units().await;
    let _ = exchange.note(Way::Back);
    exchange.unstarted
}

/// Puts the old volumes back. Where the new ones were in place and the old ones do not come, the new ones are put in place
/// again; else nobody would be served by giving up, and a disturbance is waited out. `waiting` heeds no signal.
///
/// # Errors
/// What does not pass. The record says what is in place then.
pub async fn back<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Unstarted, Stopped> {
    let mut exchange = Exchange::of(record, waiting, on)?;
    if !exchange.record.moving.new_were_there() {
        exchange.insist(Way::Back, Patience::of_the_last_way()).await?;
        return Ok(exchange.unstarted);
    }
    let untouched = exchange.record.moving.stage == Stage::There;
    let said = match exchange.can_come(Way::Back).await {
        Err(stopped) if untouched => return Err(stopped),
        Err(stopped @ Stopped::Here(_)) => Err(stopped),
        _ => exchange.insist(Way::Back, Patience::with_another_way(waiting.clock.elapsed())).await,
    };
    let Err(stopped) = said else { return Ok(exchange.unstarted) };
    if exchange.record.moving.stage == Stage::There {
        return Err(stopped);
    }
    (waiting.tell)(&format!("{stopped}; the new volumes are put in place again"));
    match exchange.insist(Way::Forth, Patience::of_the_last_way()).await {
        Ok(()) => Err(stopped),
        Err(neither) => Err(here(format!("{stopped}; and the new ones do not come either: {neither}"))),
    }
}

impl<'a, 'w, E: Volumes> Exchange<'a, 'w, E> {
    pub(super) fn of(
        record: &'a mut Record,
        waiting: &'a Waiting<'w, E>,
        on: Here<'a>,
    ) -> Result<Self, Stopped> {
        let (Some(in_place), Some(instance)) = (record.plan.in_place.clone(), record.plan.instance.clone())
        else {
            return Err(here("it is no restore in place"));
        };
        let new: Vec<VolumeId> = record.made.values().cloned().collect();
        if new.len() != in_place.old.len() {
            return Err(here("not all of its volumes are made"));
        }
        Ok(Self { record, waiting, on, instance, in_place, new, unstarted: Vec::new() })
    }

    pub(super) fn old(&self) -> Vec<VolumeId> {
        self.in_place.old.iter().map(|o| o.volume.clone()).collect()
    }

    pub(super) fn write(&self) -> Result<(), Stopped> {
        let written = self.record.write(self.on.state_dir);
        written.map_err(|e| here(format!("cannot write down how far it is: {e}")))
    }

    /// The same on the way back, where what cannot be written down must not keep anything away.
    pub(super) fn note(&self, way: Way) -> Result<(), Stopped> {
        match (way, self.write()) {
            (Way::Back, Err(stopped)) => {
                (self.waiting.tell)(&stopped.to_string());
                Ok(())
            }
            (_, said) => said,
        }
    }

    /// Goes, as often as it takes and the patience lasts.
    async fn insist(&mut self, way: Way, mut patience: Patience) -> Result<(), Stopped> {
        loop {
            match self.go(way).await {
                Err(stopped) if patience.again(&stopped, self.waiting.clock.elapsed()) => {
                    (self.waiting.tell)(&format!("{stopped}; once more in {} s", AGAIN.as_secs()));
                    self.waiting.clock.pause(AGAIN).await;
                }
                said => return said,
            }
        }
    }

    /// The volumes that go, and those that come.
    pub(super) fn ends(&self, way: Way) -> (Vec<VolumeId>, Vec<VolumeId>) {
        match way {
            Way::Forth => (self.old(), self.new.clone()),
            Way::Back => (self.new.clone(), self.old()),
        }
    }

    async fn go(&mut self, way: Way) -> Result<(), Stopped> {
        let (from, to) = self.ends(way);
        let (going, gone) = match way {
            Way::Forth => (Stage::Forth, Stage::There),
            Way::Back => (Stage::Back, Stage::Returned),
        };
        let root = self.on.root;
        // What was mounted when a way was begun counts, also for the way back from the middle of it.
        let begins = matches!(self.record.moving.stage, Stage::Planned | Stage::There);
        let (there, folders) = match self.clear(&from).await {
            Ok(clear) => clear,
            Err(stopped) => {
                // Where nothing was unmounted yet: else they would write to the folders below.
                if begins {
                    self.start_units().await;
                    self.note(Way::Back)?;
                }
                return Err(stopped);
            }
        };
        if begins {
            self.record.moving.from_there = self.record.moving.stage == Stage::There;
            self.record.moving.asked = false;
        }
        self.record.moving.settled = false;
        self.record.moving.stage = going;
        self.record.done = false;
        if (begins || self.record.moving.recipe.mounts.is_empty()) && !there.recipe.mounts.is_empty() {
            self.record.moving.recipe = there.recipe.clone();
            self.record.moving.recipe_of_new = way == Way::Back;
            self.record.moving.places = there.places.clone();
            self.record.moving.boot = process::boot(root);
        }
        self.note(way)?;
        there.unmount(self.waiting.tell).map_err(here)?;
        // Where EC2 was asked for nothing yet, it need not answer for what is here to be mounted again.
        let at_home = !self.record.moving.asked && self.are_here(&to)? && self.here_of(&from)?.is_empty();
        if !at_home {
            self.swap(way, &from, &to).await?;
        }
        self.mount(way, &to).await?;
        drop(folders);
        self.stop_again().await;
        self.start_units().await;
        // They are in place. Whoever dies from here on has left nothing undone that anything depends on.
        self.record.moving.stage = gone;
        self.record.done = way == Way::Forth;
        self.note(Way::Back)?;
        if !at_home {
            self.settle(way).await;
        }
        Ok(())
    }

    async fn settle(&mut self, way: Way) {
        let (_, to) = self.ends(way);
        let follows = self.follow_termination(&to).await;
        let labelled = self.label(way).await;
        self.record.moving.settled = follows && labelled;
        // Else it is done once more, and nothing else.
        let _ = self.note(Way::Back);
    }

    /// Those of these volumes whose disks are here.
    pub(super) fn here_of(&self, volumes: &[VolumeId]) -> Result<Vec<VolumeId>, Stopped> {
        let mut found = Vec::new();
        for volume in volumes {
            if !disks::of(self.on.root, volume).map_err(here)?.is_empty() {
                found.push(volume.clone());
            }
        }
        Ok(found)
    }

    fn are_here(&self, volumes: &[VolumeId]) -> Result<bool, Stopped> {
        Ok(self.here_of(volumes)?.len() == volumes.len())
    }

    /// Stops units, and looks whether everything can be unmounted then. Nothing is, yet.
    async fn clear(&mut self, from: &[VolumeId]) -> Result<(There, Vec<OwnedFd>), Stopped> {
        self.stop_units().await?;
        let mut there = There::look(self.on.root, from, false).map_err(|refusal| here(refusal.what))?;
        there.free(ENDING, |_| true).await.map_err(|busy| here(format!("cannot unmount {}", busy.what)))?;
        let open = nobody_has(self.on.root, from, ENDING, self.waiting.tell).await;
        open.map_err(|busy| here(busy.what))?;
        let folders = there.record_covered().map_err(here)?;
        Ok((there, folders))
    }

    /// Mounts what was mounted, of the volumes that are here now.
    async fn mount(&self, way: Way, to: &[VolumeId]) -> Result<(), Stopped> {
        hide::settle(self.on.root).await;
        let moving = &self.record.moving;
        let now = devices(self.on.root, &moving.places, to, self.waiting.clock).await.map_err(here)?;
        let mut moved =
            moving.recipe.moved(&now).ok_or_else(|| here("what was mounted is not what is known of it"))?;
        // Of the other volumes, a subvolume or a folder may be another one of the same name.
        if moving.recipe_of_new != (way == Way::Forth) {
            moved = moved.of_another_time();
        }
        if moving.boot != process::boot(self.on.root) {
            moved = moved.on_another_boot();
        }
        // systemd unmounts what it takes for a mount of the disk that went: a unit must not start on the folder below. And
        // while it waits for the disk, as after a boot, it mounts it by fstab as soon as it comes: then the same mount is
        // there already when it is looked for again.
        let mut last = String::new();
        for _ in 0..TRIES {
            let once = moved.clone();
            let mounted = tokio::task::spawn_blocking(move || remount(&once)).await;
            let Remount { mounted, failed, differs } =
                mounted.map_err(|e| here(format!("mounting broke off: {e}")))?;
            last = failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            if mounted.is_empty() && failed.is_empty() {
                differs.iter().for_each(|line| (self.waiting.tell)(line));
                return Ok(());
            }
            for place in mounted {
                (self.waiting.tell)(&format!("{} is mounted", shown(&place)));
            }
            hide::settle(self.on.root).await;
        }
        match last.is_empty() {
            true => Err(here(format!("what is mounted is unmounted again by something, {TRIES} times"))),
            false => Err(here(last)),
        }
    }

    fn done(&self) -> Done {
        let recipe: &Recipe = &self.record.moving.recipe;
        let (old, root) = (&self.in_place.old, self.on.root);
        let disk = |id| disks::of(root, id).ok().and_then(|d| Some(d.first()?.name.clone()));
        Done {
            volumes: self
                .new
                .iter()
                .zip(old)
                .map(|(id, old)| MadeVolume {
                    id: id.clone(),
                    source: old.volume.clone(),
                    device_name: Some(old.device_name.clone()),
                    disk: disk(id),
                })
                .collect(),
            mounts: recipe
                .mounts
                .iter()
                .map(|m| MadeMount {
                    source: m.mount_point.clone(),
                    mount_point: m.mount_point.clone(),
                    uuid: None,
                })
                .collect(),
        }
    }
}
