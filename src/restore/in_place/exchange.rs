//! Volumes are exchanged: some go, others come by the same device names, and what was mounted is mounted again.
//!
//! ```text
//! stop units ─▶ nobody is left ─▶ recipe, noted ─▶ unmount ─▶ claim ─▶ detach ─▶ attach ─▶ settle ─▶ mount ─▶ start units
//! ```
//!
//! In: the record of a restore in place. Out: the new volumes where the old ones were, or the other way round. Each step
//! is left out where it is done already, so that another process can go on, or turn round. Must never: heed a signal
//! between the first umount and the last mount, detach what is not claimed, or touch what is in place while it is known
//! that the others cannot come.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::super::carry_out::{Done, Here, MadeMount, MadeVolume};
use super::super::make::{Stopped, Waiting, is_name_in_use};
use super::super::record::Record;
use super::super::{disks, hide};
use super::host::{There, claim_all, devices};
use super::{InPlace, Replaced, Stage};
use crate::config::settings::Hook;
use crate::ec2::volumes::{REPLACED_TAG, VolumeView, Volumes, Which};
use crate::host::process;
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::{printable, shown};
use crate::quiesce::systemctl::{self, Systemctl};
use crate::quiesce::{self, HookEnv, Quiesced, RunResult};
use crate::unmount::Recipe;
use crate::unmount::remount::{Remount, remount};

/// How long processes of stopped units may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// How long a unit may take to stop, or to start.
const UNIT: Duration = Duration::from_secs(300);
/// So often what something else unmounts is mounted again.
const TRIES: usize = 3;
/// Between two tries of what has to succeed.
const AGAIN: Duration = Duration::from_secs(5);

fn here(what: impl std::fmt::Display) -> Stopped {
    Stopped::Here(what.to_string())
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forth,
    Back,
}

/// A restore in place that is carried out, or turned round.
struct Exchange<'a, 'w, E> {
    record: &'a mut Record,
    waiting: &'a Waiting<'w, E>,
    on: Here<'a>,
    instance: InstanceId,
    in_place: InPlace,
    new: Vec<VolumeId>,
    unstarted: Vec<String>,
}

/// Units that could not be started again.
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
    exchange.go(Way::Forth).await?;
    Ok((exchange.done(), exchange.unstarted))
}

/// Puts the old volumes back. What passes is tried again without end: nobody is served by neither of the two. Where the new
/// ones were in place and the old ones do not come, the new ones are put in place again. `waiting` heeds no signal.
///
/// # Errors
/// What does not pass.
pub async fn back<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Unstarted, Stopped> {
    let mut exchange = Exchange::of(record, waiting, on)?;
    let were_there = exchange.record.moving.stage == Stage::There;
    if were_there {
        exchange.can_return().await?;
    }
    match exchange.insist(Way::Back).await {
        Ok(()) => Ok(exchange.unstarted),
        Err(stopped) if were_there && exchange.record.moving.stage == Stage::Back => {
            (waiting.tell)(&format!("{stopped}; the new volumes are put in place again"));
            exchange.insist(Way::Forth).await?;
            Err(stopped)
        }
        Err(stopped) => Err(stopped),
    }
}

fn passes(stopped: &Stopped) -> bool {
    match stopped {
        Stopped::Ec2(e) => e.passes() || is_name_in_use(e),
        Stopped::Late(_) => true,
        Stopped::Signal(_) | Stopped::Here(_) => false,
    }
}

impl<'a, 'w, E: Volumes> Exchange<'a, 'w, E> {
    fn of(record: &'a mut Record, waiting: &'a Waiting<'w, E>, on: Here<'a>) -> Result<Self, Stopped> {
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

    fn old(&self) -> Vec<VolumeId> {
        self.in_place.old.iter().map(|o| o.volume.clone()).collect()
    }

    fn write(&self) -> Result<(), Stopped> {
        let written = self.record.write(self.on.state_dir);
        written.map_err(|e| here(format!("cannot write down how far it is: {e}")))
    }

    /// The same on the way back, where what cannot be written down must not keep anything away.
    fn note(&self, way: Way) -> Result<(), Stopped> {
        match (way, self.write()) {
            (Way::Back, Err(stopped)) => {
                (self.waiting.tell)(&stopped.to_string());
                Ok(())
            }
            (_, said) => said,
        }
    }

    /// Goes, however often it takes.
    async fn insist(&mut self, way: Way) -> Result<(), Stopped> {
        loop {
            match self.go(way).await {
                Err(stopped) if passes(&stopped) => {
                    (self.waiting.tell)(&format!("{stopped}; once more in {} s", AGAIN.as_secs()));
                    self.waiting.clock.pause(AGAIN).await;
                }
                said => return said,
            }
        }
    }

    async fn go(&mut self, way: Way) -> Result<(), Stopped> {
        let (from, to, going, gone) = match way {
            Way::Forth => (self.old(), self.new.clone(), Stage::Forth, Stage::There),
            Way::Back => (self.new.clone(), self.old(), Stage::Back, Stage::Returned),
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
        self.record.moving.stage = going;
        self.record.done = false;
        if begins {
            self.record.moving.asked = false;
        }
        if (begins || self.record.moving.recipe.mounts.is_empty()) && !there.recipe.mounts.is_empty() {
            self.record.moving.recipe = there.recipe.clone();
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
        self.start_units().await;
        if !at_home {
            self.follow_termination(&to).await;
            self.label(way).await;
        }
        self.record.moving.stage = gone;
        self.record.done = way == Way::Forth;
        // They are in place: it would be done once more, and nothing else.
        self.note(Way::Back)
    }

    /// Those of these volumes whose disks are here.
    fn here_of(&self, volumes: &[VolumeId]) -> Result<Vec<VolumeId>, Stopped> {
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

    /// Detaches some, and attaches the others by their names.
    async fn swap(&mut self, way: Way, from: &[VolumeId], to: &[VolumeId]) -> Result<(), Stopped> {
        let root = self.on.root;
        // Held until EC2 is asked to detach them: nobody mounts them in between.
        let claims = claim_all(root, from).map_err(here)?;
        let shown = self.here_of(from)?;
        drop(claims);
        self.forget(from).await;
        let instance = Some(&self.instance);
        let attached = self.waiting.attached(from, &shown, instance).await?;
        let were = std::mem::replace(&mut self.record.moving.asked, true);
        self.note(way)?;
        let mut taken = were;
        let said = self.waiting.detach_these(from, &shown, &attached, instance, || taken = true).await;
        if said.is_err() && !taken {
            self.record.moving.asked = false;
            self.note(Way::Back)?;
        }
        said?;
        let in_place = self.in_place.clone();
        let names: Vec<&str> = in_place.old.iter().map(|o| o.device_name.as_str()).collect();
        // Before: systemd mounts by itself what fstab names, as soon as it comes.
        let were = self.record.moving.handed_over;
        self.record.moving.handed_over = were || way == Way::Forth;
        self.note(way)?;
        let mut taken = were;
        let said = self.waiting.attach_as(to, &names, &[], &self.instance, || taken = true).await;
        if said.is_err() && way == Way::Forth && !taken {
            self.record.moving.handed_over = false;
            self.note(Way::Back)?;
        }
        said?;
        (self.waiting.tell)(&come(to, &in_place.old));
        for id in to {
            disks::await_disk(root, id, self.waiting.clock).await.map_err(here)?;
        }
        Ok(())
    }

    /// Can the old volumes come back? Nothing is touched where they cannot.
    async fn can_return(&self) -> Result<(), Stopped> {
        let all = Which::Ids(self.old().into_iter().chain(self.new.iter().cloned()).collect());
        let ec2 = self.waiting.ec2;
        let seen = ec2.call("DescribeVolumes", async || ec2.inner().volumes_that_are(&all).await).await?;
        let shown = |id: &VolumeId| seen.iter().find(|v| v.id == *id && !v.is_gone());
        let elsewhere = |v: &VolumeView| {
            let other = v.attachments.iter().find(|a| a.instance.as_ref() != Some(&self.instance))?;
            Some(other.instance.as_ref().map_or("another service", InstanceId::as_str).to_owned())
        };
        for old in &self.in_place.old {
            let id = &old.volume;
            let Some(view) = shown(id) else { return Err(here(format!("{id} does not exist any more"))) };
            if let Some(who) = elsewhere(view) {
                return Err(here(format!("{id} is attached to {who} by now: detach it there")));
            }
        }
        for (id, old) in self.new.iter().zip(&self.in_place.old) {
            // Somebody has deleted it, and its device name is free.
            let Some(view) = shown(id) else { continue };
            if let Some(restore) = view.tag(REPLACED_TAG) {
                let restore = printable(restore);
                return Err(here(format!(
                    "{id} was replaced by restore {restore}: take that one back first (--undo {restore})"
                )));
            }
            if let Some(who) = elsewhere(view) {
                return Err(here(format!("{id} is attached to {who}, not here: detach it there")));
            }
            let name = &old.device_name;
            if let Some(other) = view.attachments.iter().find(|a| a.device_name != *name) {
                return Err(here(format!(
                    "{id} is attached as {}, not as {name}",
                    printable(&other.device_name)
                )));
            }
            if !view.attachments.is_empty() {
                let may = async || ec2.inner().may_exchange(id, &self.instance, name).await;
                ec2.call("DryRun", may).await?;
            }
        }
        Ok(())
    }

    /// Stops units, and looks whether everything can be unmounted then. Nothing is, yet.
    async fn clear(&mut self, from: &[VolumeId]) -> Result<(There, Vec<OwnedFd>), Stopped> {
        self.stop_units().await?;
        let mut there = There::look(self.on.root, from, false).map_err(|refusal| here(refusal.what))?;
        there.free(ENDING, |_| true).await.map_err(|busy| here(format!("cannot unmount {}", busy.what)))?;
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
        if way == Way::Forth {
            moved = moved.of_another_time();
        }
        if moving.boot != process::boot(self.on.root) {
            moved = moved.on_another_boot();
        }
        // systemd unmounts what it takes for a mount of the disk that went: a unit must not start on the folder below.
        for _ in 0..TRIES {
            let once = moved.clone();
            let mounted = tokio::task::spawn_blocking(move || remount(&once)).await;
            let Remount { mounted, failed, differs } =
                mounted.map_err(|e| here(format!("mounting broke off: {e}")))?;
            if !failed.is_empty() {
                let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
                return Err(here(failed.join("; ")));
            }
            if mounted.is_empty() {
                differs.iter().for_each(|line| (self.waiting.tell)(line));
                return Ok(());
            }
            for place in mounted {
                (self.waiting.tell)(&format!("{} is mounted", shown(&place)));
            }
            hide::settle(self.on.root).await;
        }
        Err(here(format!("what is mounted is unmounted again by something, {TRIES} times")))
    }

    /// Kernels before 6.2 remember the device of a btrfs that is not mounted any more, and refuse another one with its
    /// UUID that is older (`device_list_add`).
    async fn forget(&self, from: &[VolumeId]) {
        let recipe = &self.record.moving.recipe;
        if !recipe.filesystems.iter().any(|f| f.fstype == "btrfs") {
            return;
        }
        for volume in from {
            for device in disks::of(self.on.root, volume).unwrap_or_default() {
                if let Some(node) = crate::host::device::node(device.dev, &[])
                    && let Err(e) =
                        super::super::identity::run("btrfs", &["device", "scan", "--forget"], &node).await
                {
                    tracing::debug!("{e}");
                }
            }
        }
    }

    /// AttachVolume makes a volume stay when the instance goes. One that went with it does so again. Nothing depends on it.
    async fn follow_termination(&self, to: &[VolumeId]) {
        let (ec2, tell) = (self.waiting.ec2, self.waiting.tell);
        let wanted = || to.iter().zip(&self.in_place.old).filter(|(_, old)| old.delete_on_termination);
        if wanted().next().is_none() {
            return;
        }
        let which = Which::Ids(to.to_vec());
        let asked = async || ec2.inner().volumes_that_are(&which).await;
        let seen = ec2.call("DescribeVolumes", asked).await;
        for (id, old) in wanted() {
            let set = match &seen {
                Err(e) => Err(e.clone()),
                Ok(seen) => {
                    let is = seen.iter().filter(|v| v.id == *id).flat_map(|v| &v.attachments).next();
                    let name = is.map_or(old.device_name.as_str(), |a| &a.device_name);
                    match is {
                        Some(a) if a.delete_on_termination => Ok(()),
                        _ => {
                            let asked = async || ec2.inner().delete_with_instance(&self.instance, name).await;
                            ec2.call("ModifyInstanceAttribute", asked).await
                        }
                    }
                }
            };
            if let Err(e) = set {
                tell(&format!("{id} will stay when the instance goes, unlike {}: {e}", old.volume));
            }
        }
    }

    /// Marks the old volumes as replaced, or takes the mark off. Nothing depends on it.
    async fn label(&self, way: Way) {
        let (ec2, old) = (self.waiting.ec2, self.old());
        let id = self.record.plan.id.as_str();
        let said = match way {
            Way::Forth => {
                ec2.call("CreateTags", async || ec2.inner().tag_volumes(&old, (REPLACED_TAG, id)).await).await
            }
            Way::Back => {
                ec2.call("DeleteTags", async || ec2.inner().untag_volumes(&old, REPLACED_TAG).await).await
            }
        };
        if let Err(e) = said {
            (self.waiting.tell)(&format!("the old volumes have not got the right tag: {e}"));
        }
    }

    fn env(&self) -> HookEnv {
        let plan = &self.record.plan;
        HookEnv {
            run_id: plan.id.clone(),
            plan: "restore".to_owned(),
            instance_id: Some(self.instance.clone()),
            region: plan.region.clone(),
            mounts: plan.filesystems.iter().map(|f| f.source.clone()).collect::<Vec<PathBuf>>(),
            volumes: self.old(),
            result: RunResult::default(),
            consistency: None,
            snapshots: Vec::new(),
            not_mounted: Vec::new(),
            set: Vec::new(),
            quiesce_limit: Duration::ZERO,
            frozen: false,
            reason: None,
        }
    }

    /// Stops the units that are active; each is noted before.
    async fn stop_units(&mut self) -> Result<(), Stopped> {
        let units = self.in_place.stop_units.clone();
        if units.is_empty() {
            return Ok(());
        }
        let systemctl = Systemctl::find().ok_or_else(|| here("there is no systemctl"))?;
        let env = self.env();
        for unit in units {
            let state = systemctl.show(&unit, "ActiveState", &env).await.map_err(here)?;
            if !systemctl::is_active(&state) {
                continue;
            }
            let hook = systemctl.hook(&unit, UNIT);
            if !self.record.moving.stopped.iter().any(|h: &Hook| h.name == hook.name) {
                self.record.moving.stopped.push(hook.clone());
                self.write()?;
            }
            let outcome =
                quiesce::quiesce_one(&hook, &env, &mut Quiesced::default(), std::future::pending()).await;
            if !outcome.succeeded() {
                return Err(here(outcome));
            }
            (self.waiting.tell)(&format!("{unit} is stopped"));
        }
        Ok(())
    }

    /// Starts what was stopped, in reverse.
    async fn start_units(&mut self) {
        let stopped = std::mem::take(&mut self.record.moving.stopped);
        for outcome in quiesce::release(&stopped, &self.env()).await {
            if !outcome.succeeded() {
                (self.waiting.tell)(&format!("{outcome}: start it by hand"));
                self.unstarted.push(outcome.to_string());
            }
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

fn come(to: &[VolumeId], old: &[Replaced]) -> String {
    let each = to.iter().zip(old).map(|(id, old)| format!("{id} is attached as {}", old.device_name));
    each.collect::<Vec<_>>().join("\n")
}
