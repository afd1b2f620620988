//! What happens to volumes after the answer: they come to be, their devices come and go, their space is
//! freed.
//!
//! ```text
//! creating ─► available ─► attaching ─► attached ─► detaching ─► available ─► deleting
//!   fill                    the device comes         the device goes            punch
//!                                                    (busy while it is used)
//! ```
//!
//! In: a volume whose state says what is under way. Out: the next state, once the device or the data is as it
//! says. A window must never be given up while a device still shows it.

mod launch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::host::Error;
use crate::ids::{InstanceId, TaskId, VolumeId};
use crate::sim::Sim;
use crate::window::Window;
use crate::world::{AttachmentState, Stage, TaskState, Volume};

pub use launch::{launch, terminate};

/// How often a device that should go is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How many looks a guest may take to let a disk go before it counts as busy.
const LET_GO: u32 = 600;

/// Goes on with what a volume's state says is under way.
pub fn resume(sim: &Arc<Sim>, volume: &Volume) {
    let (sim, id) = (Arc::clone(sim), volume.id.clone());
    match (volume.stage, volume.attachment.as_ref().map(|attachment| attachment.state)) {
        (Stage::Creating, _) => drop(tokio::spawn(create(sim, id))),
        (Stage::Deleting, _) => drop(tokio::spawn(delete(sim, id))),
        (_, Some(AttachmentState::Attaching)) => drop(tokio::spawn(attach(sim, id))),
        (_, Some(AttachmentState::Detaching | AttachmentState::Busy)) => drop(tokio::spawn(detach(sim, id))),
        _ => {}
    }
}

/// Fills a new volume with what it is to hold, and makes it available.
async fn create(sim: Arc<Sim>, id: VolumeId) {
    let pause = tokio::time::sleep(seconds(sim.world().scenario.volume_times.seconds_to_create));
    let found = sim.world().volumes.iter().find(|volume| volume.id == id).cloned();
    let Some(Volume { window: Some(window), source, kms_key, region, origin, .. }) = found else { return };
    let from = source.clone();
    let filled = blocking(&sim, move |sim| {
        sim.store.grow(window)?;
        match from {
            Some(image) => sim.store.fill(&image.path, image.window, window),
            None => Ok(()),
        }
    })
    .await;
    pause.await;
    // EC2 finds out only now whether it can use the key.
    let usable = kms_key.is_none_or(|name| {
        let world = sim.world();
        world.kms_key(world.account(), &region, &name).is_some_and(crate::world::KmsKey::is_usable)
    });
    let good = filled.is_some() && usable && !origin.fails;
    change(&sim, &id, |volume| {
        volume.source = None;
        volume.stage = if good { Stage::Ready } else { Stage::Error };
    });
    sim.save();
    // Not before the new state is saved: a server that ends earlier has to fill the volume again from it.
    if let Some(image) = source {
        let _ = std::fs::remove_file(&image.path);
    }
}

/// Goes on with a replacement of the root.
pub fn replace_root(sim: &Arc<Sim>, task: &TaskId) {
    drop(tokio::spawn(replace(Arc::clone(sim), task.clone())));
}

async fn replace(sim: Arc<Sim>, id: TaskId) {
    let Some(task) = sim.world().root_tasks.iter().find(|task| task.id == id).cloned() else { return };
    let set_state = |state: TaskState| {
        let now = sim.world().clock(Timestamp::now());
        if let Some(task) = sim.change().task_mut(&id) {
            task.state = state;
            task.completed = state.is_over().then_some(now);
        }
        sim.save();
    };
    let stage = || {
        let world = sim.world();
        let volume = world.volumes.iter().find(|volume| volume.id == task.volume)?;
        // One that somebody has attached meanwhile cannot be the root any more.
        volume.attachment.is_none().then_some((volume.stage, volume.window))
    };
    let window = loop {
        match stage() {
            Some((Stage::Creating, _)) => tokio::time::sleep(LOOK).await,
            Some((Stage::Ready, window)) => break window,
            _ => {
                set_state(TaskState::Failing);
                tokio::time::sleep(LOOK).await;
                return set_state(TaskState::Failed);
            }
        }
    };
    set_state(TaskState::InProgress);
    let pause = seconds(sim.world().scenario.volume_times.seconds_to_replace_root);
    tokio::time::sleep(pause).await;
    if task.loses_root {
        sim.change().lose_root();
        publish(&sim).await;
        set_state(TaskState::FailingDetached);
        tokio::time::sleep(LOOK).await;
        return set_state(TaskState::FailedDetached);
    }
    let device = match window {
        Some(window) => blocking(&sim, move |sim| sim.host().expose(&sim.store, window)).await,
        None => None,
    };
    let old = {
        let mut world = sim.change();
        let (now, disk) = (world.clock(Timestamp::now()), world.free_disk());
        let old = world.swap_root(&task.volume, now, task.delete_old);
        if let Some(volume) = world.volume_mut(&task.volume) {
            volume.loop_device = device;
            volume.disk.get_or_insert(disk);
        }
        old
    };
    publish(&sim).await;
    set_state(TaskState::Succeeded);
    if let Some(old) = old.filter(|_| task.delete_old) {
        delete(sim, old).await;
    }
}

async fn attach(sim: Arc<Sim>, id: VolumeId) {
    let pause = seconds(sim.world().scenario.volume_times.seconds_to_attach);
    tokio::time::sleep(pause).await;
    let found = find(&sim, &id);
    let Some((window, device)) = found else { return };
    let device = match (device, window) {
        (None, Some(window)) => blocking(&sim, move |sim| sim.host().expose(&sim.store, window)).await,
        (device, _) => device,
    };
    let Some(device) = device else {
        change(&sim, &id, |volume| volume.attachment = None);
        return;
    };
    {
        let mut world = sim.change();
        let disk = world.free_disk();
        if let Some(volume) = world.volume_mut(&id) {
            volume.loop_device = Some(device);
            // What is another instance's is not in the view.
            if volume.is_the_scenarios() {
                volume.disk.get_or_insert(disk);
            }
        }
    }
    // Whoever reads `attached` looks for the device next: the device comes first.
    publish(&sim).await;
    if !plug(&sim, &id).await {
        return detach(sim, id).await;
    }
    set_attachment(&sim, &id, AttachmentState::Attached);
    sim.save();
}

async fn detach(sim: Arc<Sim>, id: VolumeId) {
    take_device(&sim, &id).await;
    change(&sim, &id, |volume| volume.attachment = None);
    sim.save();
}

async fn delete(sim: Arc<Sim>, id: VolumeId) {
    take_device(&sim, &id).await;
    if let Some((Some(window), _)) = find(&sim, &id) {
        // A clone of the pool that was made for this volume must not find it half gone.
        let _commit = sim.commit.lock().await;
        if blocking(&sim, move |sim| sim.store.free(window)).await.is_none() {
            // Its space must not become another volume's, with data in it.
            return;
        }
    }
    {
        let mut world = sim.change();
        let gone = world.volumes.iter().find(|volume| volume.id == id);
        let spent = gone.and_then(|volume| Some((volume.region.clone(), volume.token.clone()?.0)));
        // A token stays what it was for, also when that is no more, as was recorded of EC2.
        world.spent_tokens.extend(spent);
        world.volumes.retain(|volume| volume.id != id);
        world.tags.remove(id.as_str());
    }
    sim.save();
}

/// Waits until a volume's device has gone, for as long as somebody uses it.
async fn take_device(sim: &Arc<Sim>, id: &VolumeId) {
    let Some((Some(window), Some(device))) = find(sim, id) else { return };
    pull(sim, id).await;
    let asked = device.clone();
    blocking(sim, move |sim| sim.host().let_go(&asked)).await;
    let mut is_busy = false;
    loop {
        let asked = device.clone();
        let gone = blocking(sim, move |sim| Ok(sim.host().is_gone(&sim.store, &asked, window))).await;
        if gone != Some(false) {
            break;
        }
        if !is_busy {
            set_attachment(sim, id, AttachmentState::Busy);
            is_busy = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    change(sim, id, |volume| (volume.loop_device, volume.disk) = (None, None));
    publish(sim).await;
}

/// Gives the guest, where there is one, the disk of a volume whose device is there. Whether it has it.
async fn plug(sim: &Sim, id: &VolumeId) -> bool {
    let instance = instance_of(sim, id);
    let mut guests = sim.guests.lock().await;
    let Some(guest) = guests.get_mut(&instance) else { return true };
    let volumes = {
        let world = sim.world();
        match instance == *world.instance_id() {
            true => crate::ready::volumes(&world),
            false => crate::ready::volumes_of(&world, &instance),
        }
    };
    let Some(volume) = volumes.iter().find(|volume| volume.id == *id) else { return false };
    let plugged = guest.plug(volume).await;
    plugged.inspect_err(|error| tracing::error!("{id} is not attached: {error}")).is_ok()
}

/// Waits until the guest, where there is one, has let the disk of a volume go.
async fn pull(sim: &Sim, id: &VolumeId) {
    let instance = instance_of(sim, id);
    let mut left: u32 = 0;
    loop {
        let gone = match sim.guests.lock().await.get_mut(&instance) {
            Some(guest) => guest.pull(id).await,
            None => Ok(true),
        };
        match gone {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::error!("{id} is not detached: {error}"),
        }
        left += 1;
        if left == LET_GO {
            set_attachment(sim, id, AttachmentState::Busy);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The instance whose guest has its disk, if it has one.
fn instance_of(sim: &Sim, id: &VolumeId) -> InstanceId {
    let world = sim.world();
    let volume = world.volumes.iter().find(|volume| volume.id == *id);
    volume.map_or(world.instance_id(), |volume| world.instance_of(volume)).clone()
}

fn find(sim: &Sim, id: &VolumeId) -> Option<(Option<Window>, Option<PathBuf>)> {
    let world = sim.world();
    let volume = world.volumes.iter().find(|volume| volume.id == *id)?;
    Some((volume.window, volume.loop_device.clone()))
}

fn change(sim: &Sim, id: &VolumeId, change: impl FnOnce(&mut Volume)) {
    if let Some(volume) = sim.change().volume_mut(id) {
        change(volume);
    }
}

fn set_attachment(sim: &Sim, id: &VolumeId, state: AttachmentState) {
    change(sim, id, |volume| {
        if let Some(attachment) = &mut volume.attachment {
            attachment.state = state;
        }
    });
}

/// Shows in the view and in `ebs-sim.json` what has changed.
pub async fn publish(sim: &Arc<Sim>) {
    let worker = Arc::clone(sim);
    let _ = tokio::task::spawn_blocking(move || worker.publish()).await;
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}

/// Disk work beside the servers. What fails is told to whoever runs the simulation.
async fn blocking<T: Send + 'static>(
    sim: &Arc<Sim>,
    work: impl FnOnce(&Sim) -> Result<T, Error> + Send + 'static,
) -> Option<T> {
    let worker = Arc::clone(sim);
    match tokio::task::spawn_blocking(move || work(&worker)).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            tracing::error!("{error}{}", cause.unwrap_or_default());
            None
        }
        Err(error) => {
            tracing::error!("{error}");
            None
        }
    }
}
