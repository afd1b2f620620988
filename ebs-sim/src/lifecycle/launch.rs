//! An instance that was launched: its volumes come together, and go together.
//!
//! ```text
//! pending ─► running ─► shutting-down ─► terminated
//!    volumes: creating, attached   detached, or deleted
//!    └── one could not be made ──► shutting-down
//! ```
//!
//! In: a launch whose state says what is under way. Out: the next state, once its volumes are as it says. It must never
//! be `running` without one of its volumes.

use std::sync::Arc;

use jiff::Timestamp;

use super::{LOOK, blocking, change, delete, publish, seconds, set_attachment, take_device};
use crate::ids::{InstanceId, VolumeId};
use crate::sim::Sim;
use crate::window::Window;
use crate::world::{AttachmentState, InstanceState, Readiness, Stage, Volume};

/// Goes on with a launch.
pub fn launch(sim: &Arc<Sim>, id: &InstanceId) {
    drop(tokio::spawn(put_together(Arc::clone(sim), id.clone())));
}

/// Goes on with the end of an instance that was launched.
pub fn terminate(sim: &Arc<Sim>, id: &InstanceId) {
    drop(tokio::spawn(take_down(Arc::clone(sim), id.clone())));
}

/// Attaches the volumes that an instance is launched with, once all of them are there.
async fn put_together(sim: Arc<Sim>, id: InstanceId) {
    let state = || sim.world().launches.iter().find(|launch| launch.id == id).map(|launch| launch.state);
    let readiness = loop {
        match sim.world().readiness(&id) {
            Readiness::NotYet => {}
            readiness => break readiness,
        }
        tokio::time::sleep(LOOK).await;
    };
    let pause = seconds(sim.world().scenario.volume_times.seconds_to_attach);
    tokio::time::sleep(pause).await;
    let mut there = readiness == Readiness::Ready;
    if there && state() == Some(InstanceState::Pending) {
        let volumes: Vec<(VolumeId, Option<Window>)> =
            sim.world().attached_to(&id).map(|volume| (volume.id.clone(), volume.window)).collect();
        for (volume, window) in volumes {
            let device = match window {
                Some(window) => blocking(&sim, move |sim| sim.host().expose(&sim.store, window)).await,
                None => None,
            };
            there &= device.is_some();
            change(&sim, &volume, |volume| volume.loop_device = device);
        }
        // Whoever reads `running` looks for the devices next: they come first.
        publish(&sim).await;
    }
    let runs = begin_to_run(&sim, &id, there);
    sim.save();
    if !runs {
        take_down(sim, id).await;
    }
}

/// Says that it runs, where its volumes are there and nobody ended it meanwhile. Whether it does.
fn begin_to_run(sim: &Sim, id: &InstanceId, there: bool) -> bool {
    let mut world = sim.change();
    let ids: Vec<VolumeId> = world.attached_to(id).map(|volume| volume.id.clone()).collect();
    let now = world.clock(Timestamp::now());
    let Some(launch) = world.launch_mut(id) else { return false };
    let runs = launch.state == InstanceState::Pending && there;
    if runs {
        launch.state = InstanceState::Running;
    } else {
        launch.state = InstanceState::ShuttingDown;
        launch.ended.get_or_insert(now);
        // EC2 says no more of a volume that it could not make.
        let failed =
            ("Client.InternalError".to_owned(), "Client.InternalError: Client error on launch".to_owned());
        launch.reason.get_or_insert(failed);
    }
    for volume in ids.iter().filter(|_| runs) {
        let attachment = world.volume_mut(volume).and_then(|volume| volume.attachment.as_mut());
        if let Some(attachment) = attachment {
            attachment.state = AttachmentState::Attached;
        }
    }
    runs
}

/// Detaches the volumes of an instance, and deletes those that go with it.
async fn take_down(sim: Arc<Sim>, id: InstanceId) {
    if let Some(mut guest) = sim.guests.lock().await.remove(&id) {
        guest.quit().await;
    }
    while sim.world().readiness(&id) == Readiness::NotYet {
        tokio::time::sleep(LOOK).await;
    }
    let volumes: Vec<Volume> = sim.world().attached_to(&id).cloned().collect();
    for volume in &volumes {
        set_attachment(&sim, &volume.id, AttachmentState::Detaching);
    }
    sim.save();
    for volume in volumes {
        let goes = volume.attachment.is_some_and(|attachment| attachment.delete_on_termination);
        take_device(&sim, &volume.id).await;
        change(&sim, &volume.id, |volume| {
            volume.attachment = None;
            if goes {
                volume.stage = Stage::Deleting;
            }
        });
        if goes {
            delete(Arc::clone(&sim), volume.id).await;
        }
    }
    if let Some(launch) = sim.change().launch_mut(&id) {
        launch.state = InstanceState::Terminated;
    }
    publish(&sim).await;
    sim.save();
}
