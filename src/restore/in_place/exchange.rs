//! Volumes are exchanged: some go, others come by the same device names, and what was mounted is mounted again.
//!
//! ```text
//! stop units ─▶ nobody is left ─▶ recipe, noted ─▶ unmount ─▶ claim ─▶ detach ─▶ attach ─▶ settle ─▶ mount ─▶ start units
//! ```
//!
//! In: the record of a restore in place. Out: the new volumes where the old ones were, or the other way round. Each step
//! is left out where it is done already, so that another process can go on, or turn round. Must never: heed a signal
//! between the first umount and the last mount, or detach what is not claimed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::super::carry_out::{Done, Here, MadeMount, MadeVolume};
use super::super::make::{Stopped, Waiting};
use super::super::record::Record;
use super::super::{disks, hide, mounts};
use super::host::{There, claim_all, devices};
use super::{InPlace, Replaced, Stage};
use crate::config::settings::Hook;
use crate::ec2::volumes::{REPLACED_TAG, Volumes, Which};
use crate::host::process;
use crate::ids::{InstanceId, VolumeId};
use crate::path_encoding::shown;
use crate::quiesce::systemctl::{self, Systemctl};
use crate::quiesce::{self, HookEnv, Quiesced, RunResult};
use crate::unmount::Recipe;
use crate::unmount::remount::{Remount, remount};

/// How long processes of stopped units may take to end.
const ENDING: Duration = Duration::from_secs(10);
/// How long a unit may take to stop, or to start.
const UNIT: Duration = Duration::from_secs(300);
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
}

/// Puts the new volumes, which are made, in the place of the old ones. `waiting` heeds no signal.
///
/// # Errors
/// The step that failed: then [`back`] is due.
pub async fn forth<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<Done, Stopped> {
    let mut exchange = Exchange::of(record, waiting, on)?;
    exchange.go(Way::Forth).await?;
    Ok(exchange.done())
}

/// Puts the old volumes back. What passes is tried again without end: nobody is served by neither of the two. `waiting`
/// heeds no signal.
///
/// # Errors
/// What does not pass.
pub async fn back<E: Volumes>(
    record: &mut Record,
    waiting: &Waiting<'_, E>,
    on: Here<'_>,
) -> Result<(), Stopped> {
    let mut exchange = Exchange::of(record, waiting, on)?;
    loop {
        match exchange.go(Way::Back).await {
            Err(Stopped::Ec2(e)) if e.passes() => {
                (waiting.tell)(&format!("{e}; once more in {} s", AGAIN.as_secs()));
                waiting.clock.pause(AGAIN).await;
            }
            said => return said,
        }
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
        Ok(Self { record, waiting, on, instance, in_place, new })
    }

    fn old(&self) -> Vec<VolumeId> {
        self.in_place.old.iter().map(|o| o.volume.clone()).collect()
    }

    fn write(&self) -> Result<(), Stopped> {
        let written = self.record.write(self.on.state_dir);
        written.map_err(|e| here(format!("cannot write down how far it is: {e}")))
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
                    self.start_units().await?;
                }
                return Err(stopped);
            }
        };
        self.record.moving.stage = going;
        self.record.done = false;
        if (begins || self.record.moving.recipe.mounts.is_empty()) && !there.recipe.mounts.is_empty() {
            self.record.moving.recipe = there.recipe;
            self.record.moving.places = there.places;
            self.record.moving.boot = process::boot(root);
        }
        self.write()?;
        mounts::unmount_all(root, &from, self.waiting.tell).map_err(here)?;
        // Held until EC2 is asked to detach them: nobody mounts them in between.
        let claims = claim_all(root, &from).map_err(here)?;
        drop(claims);
        self.forget(&from).await;
        self.waiting.detach(&from, Some(&self.instance)).await?;
        let in_place = self.in_place.clone();
        let names: Vec<&str> = in_place.old.iter().map(|o| o.device_name.as_str()).collect();
        self.waiting.attach_as(&to, &names, &[], &self.instance).await?;
        (self.waiting.tell)(&attached(&to, &in_place.old));
        self.follow_termination(&to).await?;
        for id in &to {
            disks::await_disk(root, id, self.waiting.clock).await.map_err(here)?;
        }
        hide::settle(root).await;
        if way == Way::Forth {
            self.record.moving.handed_over = true;
            self.write()?;
        }
        self.mount(&to).await?;
        drop(folders);
        self.start_units().await?;
        self.label(way).await;
        self.record.moving.stage = gone;
        self.record.done = way == Way::Forth;
        self.write()
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
    async fn mount(&self, to: &[VolumeId]) -> Result<(), Stopped> {
        let moving = &self.record.moving;
        let now = devices(self.on.root, &moving.places, to, self.waiting.clock).await.map_err(here)?;
        let moved =
            moving.recipe.moved(&now).ok_or_else(|| here("what was mounted is not what is known of it"))?;
        let moved = match moving.boot == process::boot(self.on.root) {
            true => moved,
            false => moved.on_another_boot(),
        };
        let mounted = tokio::task::spawn_blocking(move || remount(&moved)).await;
        let Remount { mounted, failed, differs } =
            mounted.map_err(|e| here(format!("mounting broke off: {e}")))?;
        for place in mounted {
            (self.waiting.tell)(&format!("{} is mounted", shown(&place)));
        }
        differs.iter().for_each(|line| (self.waiting.tell)(line));
        let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
        if failed.is_empty() { Ok(()) } else { Err(here(failed.join("; "))) }
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

    /// AttachVolume makes a volume stay when the instance goes. One that went with it does so again.
    async fn follow_termination(&self, to: &[VolumeId]) -> Result<(), Stopped> {
        let which = Which::Ids(to.to_vec());
        let asked = async || self.waiting.ec2.inner().volumes_that_are(&which).await;
        let seen = self.waiting.ec2.call("DescribeVolumes", asked).await?;
        for (id, old) in to.iter().zip(&self.in_place.old).filter(|(_, old)| old.delete_on_termination) {
            let is = seen.iter().filter(|v| v.id == *id).flat_map(|v| &v.attachments);
            if is.clone().all(|a| a.delete_on_termination) && is.count() > 0 {
                continue;
            }
            let ec2 = self.waiting.ec2.inner();
            let asked = async || ec2.delete_with_instance(&self.instance, &old.device_name).await;
            if let Err(e) = self.waiting.ec2.call("ModifyInstanceAttribute", asked).await {
                (self.waiting.tell)(&format!(
                    "{id} will stay when the instance goes, unlike {}: {e}",
                    old.volume
                ));
            }
        }
        Ok(())
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
    async fn start_units(&mut self) -> Result<(), Stopped> {
        let stopped = std::mem::take(&mut self.record.moving.stopped);
        for outcome in quiesce::release(&stopped, &self.env()).await {
            if !outcome.succeeded() {
                (self.waiting.tell)(&format!("{outcome}: start it by hand"));
            }
        }
        Ok(())
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

fn attached(to: &[VolumeId], old: &[Replaced]) -> String {
    let each = to.iter().zip(old).map(|(id, old)| format!("{id} is attached as {}", old.device_name));
    each.collect::<Vec<_>>().join("\n")
}
